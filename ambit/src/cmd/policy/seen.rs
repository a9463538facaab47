//! What was seen: the records of every proxy, as the engine reads them.

use std::time::{Duration, SystemTime};

use ambit_explain::Flow;
use ambit_runtime::clock;

use crate::cmd::nodes::{Where, ask_all, block_on};
use crate::out;

/// Records of each proxy that are asked for: more than a ring holds.
const RECORDS: usize = 1_000_000;

/// What the proxies remember.
pub(crate) struct Seen {
    /// Their records, oldest first.
    pub(crate) flows: Vec<Flow>,
    /// How many they could not keep.
    pub(crate) lost: u64,
}

/// Asks every proxy for the records of the last `since`.
///
/// # Errors
/// When none answers.
pub(crate) fn ask(at: &Where, since: Duration) -> anyhow::Result<Seen> {
    let nodes = at.recorders()?;
    let answers = block_on(async { ask_all(&nodes, &format!("/flows?last={RECORDS}")).await })?;
    let mut seen = Seen { flows: Vec::new(), lost: 0 };
    for (_, body) in answers {
        let text = String::from_utf8_lossy(&body);
        for line in text.lines() {
            match Flow::read(line) {
                Some(flow) => seen.flows.push(flow),
                None => seen.lost += lost(line),
            }
        }
    }
    let oldest = oldest(clock::wall(), since);
    // Times of one form compare as texts.
    seen.flows.retain(|flow| flow.time >= oldest);
    seen.flows.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(seen)
}

fn oldest(now: SystemTime, since: Duration) -> String {
    let then = now.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(then).to_string()
}

fn lost(line: &str) -> u64 {
    let footer: Option<serde_json::Value> = serde_json::from_str(line).ok();
    footer.and_then(|footer| footer["footer"]["lost"].as_u64()).unwrap_or_default()
}

impl Seen {
    /// Says how much is behind an answer.
    pub(crate) fn tell(&self) {
        let oldest = self.flows.first().map_or("none", |flow| flow.time.as_str());
        out::say(&format!("{} records, the oldest of {oldest}; {} lost", self.flows.len(), self.lost));
    }
}
