//! How far the pods of a namespace have followed its label. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{MODE, Way};

#[cfg(test)]
mod tests;

/// What the node agent writes on a captured pod.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// The condition that says why a pod is not captured.
const CAPTURED: &str = "ambit.internal/captured";
/// Pods named one by one.
const NAMED: usize = 5;

/// How far they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    way: Way,
    /// Pods that are to follow.
    total: usize,
    /// Pods that the label is not about: on the node's network, ended, or with a label of their own.
    aside: usize,
    /// Those that have not, each with why.
    waiting: Vec<String>,
}

impl Progress {
    /// What pods say.
    pub(super) fn of(pods: &[Value], way: Way) -> Self {
        let (followers, aside): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(|pod| follows(pod));
        let waiting = followers.iter().filter(|pod| match way {
            Way::In => pod["metadata"]["annotations"][REDIRECTION] != "enabled",
            Way::Out => pod["metadata"]["annotations"][REDIRECTION].is_string(),
        });
        let waiting = waiting.map(|pod| named(pod)).collect();
        Self { way, total: followers.len(), aside: aside.len(), waiting }
    }

    /// Whether all have followed.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One line; `restarted` is how many containers have restarted since the beginning.
    pub(super) fn line(&self, restarted: u64) -> String {
        let Self { way, total, aside, waiting } = self;
        let done = total - waiting.len();
        let verb = if *way == Way::In { "captured" } else { "released" };
        let aside = if *aside == 0 { String::new() } else { format!(", {aside} not concerned") };
        format!("{verb} {done}/{total}, {restarted} restarted{aside}")
    }

    /// What a change of the namespace's label would be about.
    pub(super) fn would(&self, namespace: &str) -> String {
        let verb = if self.way == Way::In { "captured" } else { "released" };
        let (moved, aside) = (self.waiting.len(), self.aside);
        format!(
            "namespace {namespace}: {moved} of {} pods would be {verb}, {aside} not concerned",
            self.total
        )
    }

    /// Those that have not followed.
    pub(super) fn waiting(&self) -> String {
        let more = self.waiting.len().saturating_sub(NAMED);
        let shown = self.waiting.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more == 0 { shown } else { format!("{shown} and {more} more") }
    }
}

/// Whether a pod does as its namespace says.
fn follows(pod: &Value) -> bool {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let is_on_node = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    let has_ended = matches!(text("/status/phase"), Some("Succeeded" | "Failed"));
    let is_going = pod.pointer("/metadata/deletionTimestamp").is_some();
    let says_itself = pod["metadata"]["labels"][MODE].is_string();
    !(is_on_node || has_ended || is_going || says_itself)
}

/// A pod with why it is not where it should be, as far as it says so.
fn named(pod: &Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or("?");
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let why = conditions.into_iter().flatten().find(|one| one["type"] == CAPTURED && one["status"] != "True");
    match why.and_then(|one| one["reason"].as_str()) {
        Some(reason) => format!("{name} ({reason})"),
        None => name.to_owned(),
    }
}

/// How often containers had restarted, by pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Restarts {
    of: BTreeMap<String, u64>,
}

impl Restarts {
    /// As pods say.
    pub(super) fn of(pods: &[Value]) -> Self {
        let of = pods.iter().map(|pod| (uid(pod), count(pod))).collect();
        Self { of }
    }

    /// How many more there are now in the same pods.
    pub(super) fn more_in(&self, pods: &[Value]) -> u64 {
        let more = |pod: &Value| {
            let before = self.of.get(&uid(pod));
            before.map_or(0, |before| count(pod).saturating_sub(*before))
        };
        pods.iter().map(more).sum()
    }
}

fn uid(pod: &Value) -> String {
    let text = |key: &str| pod["metadata"][key].as_str().map(str::to_owned);
    text("uid").or_else(|| text("name")).unwrap_or_default()
}

fn count(pod: &Value) -> u64 {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses.into_iter().flatten().filter_map(|one| one["restartCount"].as_u64()).sum()
}
