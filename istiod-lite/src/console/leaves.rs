//! Certificates that proxies hold, as items: the soonest to end first, within a bound.
//!
//! What a proxy says is held against where workloads run: of an identity that nothing at its place has, it is counted
//! and not shown.

use std::collections::BTreeSet;

use ambit_runtime::leaves::Leaf;
use ambit_types::Workload;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Answers;
use super::facts::rfc3339;

#[cfg(test)]
mod tests;

/// Certificates of workloads in one answer, and those of one proxy that are kept for it.
pub(super) const LEAVES_MAX: usize = 1000;
/// Longest identity that is kept whole: SPIFFE allows no longer one.
const IDENTITY_BYTES_MAX: usize = 2048;
/// The end of the year 9999: no later time can be written.
const LAST: u64 = 253_402_300_799;
/// Characters of what a proxy says went wrong.
const PROBLEM_MAX: usize = 256;
/// Digits of a serial number; RFC 5280 has 20 bytes at most.
const SERIAL_MAX: usize = 40;
/// Names of nodes that are told of one by one.
const NAMED_MAX: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Certificates of this identity only.
    pub(super) identity: Option<String>,
    /// Those that this proxy holds only.
    pub(super) of: Option<String>,
}

/// What is kept of a proxy's answer.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    /// The soonest to end first.
    leaves: Vec<Leaf>,
    /// How many that end later it told besides.
    left_out: usize,
}

/// Certificates of workloads, and what is not among them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Leaves {
    /// The soonest to end first; what is missing before all others.
    pub(super) items: Vec<Value>,
    /// How many that end later there was no room for; of what one proxy told beyond all bounds, whatever it was.
    pub(super) left_out: usize,
    /// How many were told by a proxy that has no such workload.
    pub(super) misfits: usize,
    /// What keeps the list from being whole, in words.
    pub(super) incomplete: Vec<String>,
}

/// What is kept of a proxy's answer until all have answered: of one identity or all, the soonest to end, within bounds;
/// none if it cannot be read. Proxies may tell much, and there may be many of them.
pub(crate) fn keep(answer: &[u8], identity: Option<&str>) -> Option<Value> {
    let mut leaves: Vec<Leaf> = serde_json::from_slice(answer).ok()?;
    leaves.retain(|leaf| identity.is_none_or(|identity| *identity == leaf.identity));
    leaves.sort_by(|one, other| (end_of(one), &one.identity).cmp(&(end_of(other), &other.identity)));
    let left_out = leaves.len().saturating_sub(LEAVES_MAX);
    leaves.truncate(LEAVES_MAX);
    leaves.iter_mut().for_each(bound);
    serde_json::to_value(Kept { leaves, left_out }).ok()
}

/// Bounds the texts of a proxy. An identity that is cut is at home nowhere.
fn bound(leaf: &mut Leaf) {
    let end = leaf.identity.floor_char_boundary(IDENTITY_BYTES_MAX);
    leaf.identity.truncate(end);
    leaf.serial = leaf.serial.take().filter(|serial| serial.len() <= SERIAL_MAX);
    leaf.error = leaf.error.as_deref().map(plain);
}

/// Certificates from what proxies answered at `now`, in seconds since 1970; at most `most` of them.
pub(super) fn leaves<'a>(
    workloads: impl Iterator<Item = &'a Workload>,
    answers: Answers,
    wanted: &Wanted,
    (now, most): (u64, usize),
) -> Leaves {
    let at_home = homes(workloads, &answers);
    let mut told = Leaves::default();
    let mut held: Vec<(String, Leaf)> = Vec::new();
    for (proxy, answer) in answers {
        let read = answer.and_then(|value| {
            serde_json::from_value::<Kept>(value)
                .map_err(|_| "what it tells of certificates cannot be read".to_owned())
        });
        match read {
            Ok(own) => {
                told.left_out = told.left_out.saturating_add(own.left_out);
                let meant = own.leaves.into_iter().filter(|leaf| is_meant(leaf, wanted));
                held.extend(meant.map(|leaf| (proxy.clone(), leaf)));
            }
            Err(why) => told.incomplete.push(format!("{proxy}: {why}")),
        }
    }
    let all = held.len();
    held.retain(|(proxy, leaf)| at_home.contains(&(proxy.clone(), leaf.identity.clone())));
    told.misfits = all - held.len();
    held.sort_by(|(one_at, one), (other_at, other)| {
        (end_of(one), &one.identity, one_at).cmp(&(end_of(other), &other.identity, other_at))
    });
    told.left_out = told.left_out.saturating_add(held.len().saturating_sub(most));
    told.items = held.iter().take(most).map(|(proxy, leaf)| item(proxy, leaf, now)).collect();
    told
}

/// Nodes that do not attend, in words; none if all do.
pub(super) fn absent(nodes: &[String]) -> Option<String> {
    let first = nodes.get(..NAMED_MAX).unwrap_or(nodes).join(", ");
    let more = nodes.len().saturating_sub(NAMED_MAX);
    match (nodes.len(), more) {
        (0, _) => None,
        (_, 0) => Some(format!("not told here by {first}")),
        (_, more) => Some(format!("not told here by {first} and {more} more")),
    }
}

/// Which identity is at home with which proxy: of a node's, by the node's name, or of a waypoint's, by
/// `NAMESPACE/POD`. Only of those who answered.
fn homes<'a>(workloads: impl Iterator<Item = &'a Workload>, answers: &Answers) -> BTreeSet<(String, String)> {
    let places = |workload: &Workload| {
        let both = [workload.node.to_string(), format!("{}/{}", workload.namespace, workload.name)];
        both.into_iter().filter(|place| answers.contains_key(place)).collect::<Vec<_>>()
    };
    let each = workloads.flat_map(|workload| {
        let identity = workload.identity().to_string();
        places(workload).into_iter().map(move |place| (place, identity.clone()))
    });
    each.collect()
}

fn is_meant(leaf: &Leaf, wanted: &Wanted) -> bool {
    wanted.identity.as_ref().is_none_or(|identity| *identity == leaf.identity)
}

/// When it ends; 0 if there is none.
fn end_of(leaf: &Leaf) -> u64 {
    leaf.not_after.unwrap_or(0)
}

fn item(proxy: &str, leaf: &Leaf, now: u64) -> Value {
    let time = |seconds: Option<u64>| seconds.filter(|seconds| *seconds <= LAST);
    let (begins, ends) = (time(leaf.not_before), time(leaf.not_after));
    let problem = leaf.error.as_deref().map(plain).filter(|text| !text.is_empty());
    let state = match (ends, &problem) {
        (None, _) => "missing",
        (Some(end), _) if end <= now => "expired",
        (Some(_), Some(_)) => "renewal fails",
        (Some(_), None) => "valid",
    };
    let is_serial = |text: &&str| {
        (1..=SERIAL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    json!({
        "name": leaf.identity,
        "kind": "leaf",
        "state": state,
        "serial": leaf.serial.as_deref().filter(is_serial),
        "not_before": begins.map(rfc3339),
        "not_after": ends.map(rfc3339),
        "seconds_left": ends.map(|end| end.saturating_sub(now)),
        "node": proxy,
        "problem": problem,
    })
}

/// A proxy's words, on one line and not too many.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_MAX).collect()
}
