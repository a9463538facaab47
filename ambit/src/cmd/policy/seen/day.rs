//! The pairs that the control plane has counted of the last day, beside the records that proxies still have.
//!
//! A record tells more than a pair does, so what records are about is taken off the pairs: nothing counts twice. How many
//! connections there were is what the control plane counted, each of those that were let in once, however it ended; records
//! only add what it does not know yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use ambit_explain::{Flow, FlowEnd};
use serde_json::Value;

use crate::cmd::cluster::Cluster;
use crate::cmd::nodes::{json, text};

#[cfg(test)]
mod tests;

/// The longest that pairs are kept.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Direction of what the destination's node told.
const INBOUND: &str = "inbound";

/// What the control plane has counted.
#[derive(Debug, Default)]
pub(super) struct Day {
    /// Pairs, each with how many connections it stands for.
    pub(super) pairs: Vec<Flow>,
    /// Since when it has heard proxies; empty if it has heard none.
    pub(super) since: String,
    /// Until when at least it has been told all that proxies saw; empty if it hears none now.
    pub(super) until: String,
    /// Connections of which it knows only the number.
    pub(super) lost: u64,
    /// Pairs that it forgot for others, or did not tell.
    pub(super) forgotten: u64,
}

/// Asks the control plane for the pairs of the last `since`.
///
/// # Errors
/// When it does not answer.
pub(super) async fn ask(istiod: &Path, since: Duration) -> anyhow::Result<Day> {
    let answer = json(istiod, &path(since)).await?;
    Ok(Day::of(&answer))
}

/// Asks every replica of a cluster's control plane for the same; also the names of those that told nothing.
///
/// # Errors
/// When none answers.
pub(super) async fn ask_cluster(cluster: &Cluster, since: Duration) -> anyhow::Result<(Day, Vec<String>)> {
    let answers = cluster.ask_all(&path(since)).await?;
    let days = answers.told.iter().map(|(_, answer)| Day::of(answer));
    Ok((together(days.collect()), answers.missing))
}

fn path(since: Duration) -> String {
    let seconds = since.clamp(Duration::from_secs(1), DAY).as_secs();
    format!("/api/v1/seen?since={seconds}s")
}

/// What several replicas counted. Each tells what both ends report once, as the destination's node told it; where the ends
/// attend different replicas that is done here. What is certain is certain of all: the latest beginning, the earliest end.
fn together(days: Vec<Day>) -> Day {
    let inbound: BTreeSet<Key<'_>> =
        days.iter().flat_map(|day| &day.pairs).filter(|pair| is_inbound(pair)).map(of_both_ends).collect();
    let is_twice = |pair: &&Flow| !is_inbound(pair) && inbound.contains(&of_both_ends(pair));
    let all = days.iter().flat_map(|day| &day.pairs);
    let pairs: Vec<Flow> = all.filter(|pair| !is_twice(pair)).cloned().collect();
    let times = |of: fn(&Day) -> &String| days.iter().map(of).filter(|time| !time.is_empty()).cloned();
    let sum = |of: fn(&Day) -> u64| days.iter().map(of).fold(0, u64::saturating_add);
    Day {
        pairs,
        since: times(|day| &day.since).max().unwrap_or_default(),
        until: times(|day| &day.until).min().unwrap_or_default(),
        lost: sum(|day| day.lost),
        forgotten: sum(|day| day.forgotten),
    }
}

fn is_inbound(pair: &Flow) -> bool {
    pair.direction.as_deref() == Some(INBOUND)
}

/// What tells pairs apart whichever end told of them: the source of a refusal does not know its code.
fn of_both_ends(pair: &Flow) -> Key<'_> {
    Key { direction: "", code: "", ..key(pair, |end| &end.controller) }
}

impl Day {
    fn of(answer: &Value) -> Self {
        let count = |key: &str| answer[key].as_u64().unwrap_or_default();
        let items = answer["items"].as_array().into_iter().flatten();
        Self {
            pairs: items.filter_map(|item| serde_json::from_value(item.clone()).ok()).collect(),
            since: text(answer, "since"),
            until: text(answer, "until"),
            lost: count("lost"),
            forgotten: count("forgotten").saturating_add(count("left_out")),
        }
    }
}

/// What tells pairs apart. Of connections that were let in, codes and policies are counted apart from their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'f> {
    direction: &'f str,
    verdict: &'f str,
    code: &'f str,
    path: &'f str,
    client: &'f str,
    service: &'f str,
    port: &'f str,
    identity: &'f str,
    /// Of a caller that nothing else names; empty where such are counted together.
    address: &'f str,
    source: (&'f str, &'f str),
    destination: (&'f str, &'f str),
}

/// Records of the same.
#[derive(Debug, Default)]
struct Recorded {
    connections: u64,
    /// Those of them that only the caller's node remembers.
    alone: u64,
    /// Whether they tell of requests, of which a pair tells none.
    is_of_requests: bool,
}

/// What is left of the pairs beside the records: the connections that no proxy remembers any more, and those that are
/// still open.
pub(super) fn beside(records: &[Flow], mut pairs: Vec<Flow>) -> Vec<Flow> {
    let mut left: Vec<u64> = pairs.iter().map(|pair| pair.connections).collect();
    let mut places: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
    for (place, pair) in pairs.iter().enumerate() {
        places.entry(key(pair, |end| &end.controller)).or_default().push(place);
    }
    for (key, recorded) in recorded(records) {
        let own = of_controllers(key).find_map(|key| places.get(&key));
        // What both ends count stands once among the pairs, as the destination's node told it.
        let told = Key { direction: INBOUND, ..key };
        let other = || of_controllers(told).find_map(|key| places.get(&key));
        let (found, connections) = match own {
            Some(found) => (Some(found), recorded.connections),
            None => (other(), recorded.alone),
        };
        let mut connections = if recorded.is_of_requests { u64::MAX } else { connections };
        for place in found.into_iter().flatten() {
            let taken = left[*place].min(connections);
            left[*place] -= taken;
            connections -= taken;
        }
    }
    pairs.iter_mut().zip(left).for_each(|(pair, left)| pair.connections = left);
    pairs.retain(|pair| pair.connections > 0);
    pairs
}

/// Records by what tells pairs apart.
fn recorded(records: &[Flow]) -> BTreeMap<Key<'_>, Recorded> {
    let is_inbound = |record: &&Flow| known(&record.direction) == INBOUND;
    let ids: BTreeSet<&str> = records.iter().filter(is_inbound).map(|record| &*record.conn_id).collect();
    let mut recorded: BTreeMap<Key<'_>, Recorded> = BTreeMap::new();
    for record in records {
        let of_key = recorded.entry(key(record, |end| &end.workload)).or_default();
        of_key.connections = of_key.connections.saturating_add(record.connections);
        if !ids.contains(&*record.conn_id) {
            of_key.alone = of_key.alone.saturating_add(record.connections);
        }
        of_key.is_of_requests |= record.http.is_some();
    }
    recorded
}

fn key(flow: &Flow, name: fn(&FlowEnd) -> &Option<String>) -> Key<'_> {
    let asked = flow.hbone_addr.as_deref().or(flow.dst.addr.as_deref()).unwrap_or_default();
    Key {
        direction: known(&flow.direction),
        // A connection that was cut is counted where it was let in.
        verdict: if flow.was_let_in() { "allowed" } else { &flow.verdict },
        code: if flow.was_let_in() { "" } else { known(&flow.code) },
        path: &flow.path,
        client: known(&flow.client),
        service: known(&flow.service),
        port: asked.rsplit_once(':').map_or("", |(_, port)| port),
        identity: known(&flow.src.identity),
        address: outside(&flow.src, name),
        source: (known(&flow.src.namespace), known(name(&flow.src))),
        destination: (known(&flow.dst.namespace), known(name(&flow.dst))),
    }
}

/// The address of an end that has neither name nor identity.
fn outside(end: &FlowEnd, name: fn(&FlowEnd) -> &Option<String>) -> &str {
    let is_nobody = known(name(end)).is_empty() && known(&end.identity).is_empty();
    let address = end.addr.as_deref().filter(|_| is_nobody).unwrap_or_default();
    address.rsplit_once(':').map_or(address, |(ip, _)| ip)
}

fn known(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// The same with what may be the controllers of the pods.
fn of_controllers(key: Key<'_>) -> impl Iterator<Item = Key<'_>> {
    let (from, to) = (key.source, key.destination);
    controllers(from.1).flat_map(move |source| {
        controllers(to.1).flat_map(move |destination| {
            let named = Key { source: (from.0, source), destination: (to.0, destination), ..key };
            // Where there are too many callers outside the mesh, the rest of them are one pair.
            let together = (!key.address.is_empty()).then_some(Key { address: "", ..named });
            std::iter::once(named).chain(together)
        })
    })
}

/// What the controller of a pod may be called, the longest name first: a pod has its name, or that with more behind it.
fn controllers(pod: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(pod), |name| name.rsplit_once('-').map(|(stem, _)| stem))
}
