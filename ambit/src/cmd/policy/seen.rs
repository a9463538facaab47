//! What was seen: the records of every proxy, as the engine reads them, and what the control plane counted of the day.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use ambit_explain::Flow;
use ambit_runtime::clock;
use serde_json::Value;

use crate::cmd::cluster::{Cluster, Query};
use crate::cmd::mesh::Mesh;
use crate::cmd::nodes::{Where, ask_all, block_on, silent};
use crate::out;

mod day;

/// Records of each proxy that are asked for: more than a ring holds.
const RECORDS: usize = 1_000_000;

/// What the mesh remembers.
pub(crate) struct Seen {
    /// Records of the proxies, and pairs that stand for connections which they do not remember; oldest first.
    pub(crate) flows: Vec<Flow>,
    /// How much is behind it, in words.
    told: Vec<String>,
}

/// What the lab or cluster remembers of the last `since`.
///
/// # Errors
/// When no proxy or replica of the control plane answers.
pub(super) fn of(at: &Mesh, since: Duration) -> anyhow::Result<Seen> {
    match at.here() {
        Some(lab) => ask(&lab, since),
        None => block_on(async { ask_cluster(&at.cluster().await?, at.node.as_deref(), since).await }),
    }
}

/// Asks the control plane of a cluster for the proxies' records and what it counted of the last `since`.
async fn ask_cluster(cluster: &Cluster, node: Option<&str>, since: Duration) -> anyhow::Result<Seen> {
    let mut query = Query::from([("since".to_owned(), oldest(clock::wall(), since))]);
    query.extend(node.map(|node| ("node".to_owned(), node.to_owned())));
    let told = cluster.flows(&query, RECORDS).await?;
    let flows: Vec<Flow> = told.records.iter().filter_map(|record| Flow::read(&record.to_string())).collect();
    let lost = told.memory.iter().filter_map(|replica| replica["lost"].as_u64()).sum();
    let mut seen = Seen { told: vec![of_records(&flows, lost)], flows };
    let (day, missing) = day::ask_cluster(cluster, since).await?;
    seen.add(day, node);
    seen.told.extend(without(told.missing.into_iter().chain(missing).collect()));
    seen.flows.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(seen)
}

/// Asks every proxy for its records of the last `since`, and the control plane for what it counted then, a day at most.
/// Without a control plane the records are all.
///
/// # Errors
/// When no proxy answers.
pub(crate) fn ask(at: &Where, since: Duration) -> anyhow::Result<Seen> {
    let (nodes, istiod) = (at.recorders()?, at.istiod());
    let what = format!("/flows?last={RECORDS}");
    let (answers, day) =
        block_on(async { Ok(tokio::join!(ask_all(&nodes, &what), day::ask(&istiod, since))) })?;
    let (mut flows, mut unkept) = (Vec::new(), 0);
    for (_, body) in answers? {
        let text = String::from_utf8_lossy(&body);
        for line in text.lines() {
            match Flow::read(line) {
                Some(flow) => flows.push(flow),
                None => unkept += lost(line),
            }
        }
    }
    let oldest = oldest(clock::wall(), since);
    // Times of one form compare as texts.
    flows.retain(|flow| flow.time >= oldest);
    let mut seen = Seen { told: vec![of_records(&flows, unkept)], flows };
    match day {
        Ok(day) => seen.add(day, at.node.as_deref()),
        Err(error) => out::say(&format!("warning: {}", silent("the control plane", &error))),
    }
    seen.flows.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(seen)
}

/// Which replicas of the control plane told nothing, in words; none if all did.
fn without(missing: BTreeSet<String>) -> Option<String> {
    let names: Vec<String> = missing.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!("without what only {} of the control plane knows, which does not answer", names.join(", "))
    })
}

fn oldest(now: SystemTime, since: Duration) -> String {
    let then = now.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(then).to_string()
}

fn lost(line: &str) -> u64 {
    let footer: Option<Value> = serde_json::from_str(line).ok();
    footer.and_then(|footer| footer["footer"]["lost"].as_u64()).unwrap_or_default()
}

fn of_records(records: &[Flow], lost: u64) -> String {
    let oldest = records.iter().map(|flow| flow.time.as_str()).min().unwrap_or("none");
    format!("{} records of the proxies, the oldest of {oldest}; {lost} lost", records.len())
}

impl Seen {
    /// Adds what the control plane counted beside the records; of one node, if only that is meant.
    fn add(&mut self, mut day: day::Day, node: Option<&str>) {
        day.pairs.retain(|pair| node.is_none_or(|node| pair.node == node));
        let more = day::beside(&self.flows, day.pairs);
        let connections = more.iter().fold(0_u64, |sum, pair| sum.saturating_add(pair.connections));
        let heard = match day.since.is_empty() {
            true => "which has heard no proxy yet".to_owned(),
            false if day.until.is_empty() => format!("which hears none now and did since {}", day.since),
            false => {
                format!("which has heard proxies since {} and been told all until {}", day.since, day.until)
            }
        };
        let mut told = format!(
            "{connections} more connections of {} pairs, counted by the control plane, {heard}; {} lost, {} pairs \
             forgotten",
            more.len(),
            day.lost,
            day.forgotten
        );
        let unread = more.iter().filter(|pair| pair.path == "waypoint").count();
        if unread > 0 {
            told += &format!("; what was asked of waypoints is not known of {unread} of them");
        }
        self.told.push(told);
        self.flows.extend(more);
    }

    /// Says how much is behind an answer.
    pub(crate) fn tell(&self) {
        self.told.iter().for_each(|line| out::say(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_replicas_that_it_does_without() {
        assert_eq!(without(BTreeSet::new()), None);
        let told = without(["istiod-lite-b", "istiod-lite-a"].map(str::to_owned).into());
        let told = told.expect("two are missing");
        assert!(told.contains("istiod-lite-a, istiod-lite-b"), "{told}");
    }
}
