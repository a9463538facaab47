//! Refusals beside changes of configuration: what began to be refused, and what was changed shortly before.
//!
//! Refusals of one pair with one code and policy are one incident until they stop for a while. That a change came
//! before is a hint and no proof, and is called so.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// Silence that ends an incident, and the longest time from a change to the refusals it may have caused, in seconds.
const QUIET: u64 = 600;
/// Incidents that go on, incidents that are over, and changes: how many are kept of each.
const KEPT: usize = 500;
/// Items of one answer.
const SHOWN: usize = 200;

/// What is refused to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    pub(super) code: String,
    pub(super) policy: String,
    /// `NAMESPACE/WORKLOAD`, or an address.
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) port: u16,
}

#[derive(Debug, Clone)]
struct Refused {
    first: u64,
    last: u64,
    count: u64,
    suspect: Option<String>,
}

#[derive(Debug, Clone)]
struct Change {
    at: u64,
    revision: u64,
    text: String,
}

/// What was refused and what was changed, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    going_on: BTreeMap<Cause, Refused>,
    over: VecDeque<(Cause, Refused)>,
    changes: VecDeque<Change>,
}

impl Incidents {
    /// Something was refused `count` times, at a time in seconds since 1970.
    pub(super) fn refused(&mut self, cause: Cause, count: u64, now: u64) {
        if let Some(known) = self.going_on.get_mut(&cause) {
            if now.saturating_sub(known.last) <= QUIET {
                known.last = known.last.max(now);
                known.count = known.count.saturating_add(count);
                return;
            }
            self.end(&cause);
        }
        if self.going_on.len() >= KEPT {
            let oldest = self.going_on.iter().min_by_key(|(_, refused)| refused.last);
            if let Some(cause) = oldest.map(|(cause, _)| cause.clone()) {
                self.end(&cause);
            }
        }
        let before = self.changes.iter().rev().find(|change| change.at <= now);
        let suspect = before.filter(|change| now - change.at <= QUIET).map(|change| change.text.clone());
        self.going_on.insert(cause, Refused { first: now, last: now, count, suspect });
    }

    fn end(&mut self, cause: &Cause) {
        if let Some(ended) = self.going_on.remove_entry(cause) {
            keep(&mut self.over, ended);
        }
    }

    /// The configuration has changed.
    pub(super) fn changed(&mut self, revision: u64, text: String, now: u64) {
        keep(&mut self.changes, Change { at: now, revision, text });
    }

    /// Incidents and changes, newest first.
    pub(super) fn items(&self) -> Vec<Value> {
        let over = self.over.iter().map(|(cause, refused)| (cause, refused));
        let refused = self.going_on.iter().chain(over).map(|(cause, r)| (r.first, shown(cause, r)));
        let changed = self.changes.iter().map(|change| (change.at, change.shown()));
        let mut items: Vec<(u64, Value)> = refused.chain(changed).collect();
        items.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        items.into_iter().take(SHOWN).map(|(_, item)| item).collect()
    }
}

fn keep<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(one);
}

fn shown(cause: &Cause, refused: &Refused) -> Value {
    let Cause { code, policy, source, destination, port } = cause;
    let by = if policy.is_empty() { String::new() } else { format!(" by {policy}") };
    json!({
        "at": rfc3339(refused.first),
        "last": rfc3339(refused.last),
        "kind": "refusal",
        "text": format!("{source} -> {destination}:{port} refused{by}"),
        "code": code,
        "count": refused.count,
        "object": Some(policy).filter(|policy| !policy.is_empty()),
        "source": source,
        "destination": destination,
        "port": port,
        "suspect": refused.suspect,
    })
}

impl Change {
    fn shown(&self) -> Value {
        json!({ "at": rfc3339(self.at), "kind": "config", "text": self.text, "revision": self.revision })
    }
}

fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
