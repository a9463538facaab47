//! Events about pods that come into the mesh, leave it or cannot be captured, few enough to be read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::pod::{Announcement, CAPTURED_REASON, Pod};

#[cfg(test)]
mod tests;

/// How long the same is not said again of a pod.
const REPEAT: Duration = Duration::from_secs(60);
/// Events that may come at once.
const BURST: f64 = 30.0;
/// Events a second after that.
const RATE: f64 = 1.0;
/// Pods that are remembered; beyond that all are forgotten.
const REMEMBERED: usize = 4096;
/// Longest note that the API server takes is 1 kB.
const NOTE_MAX: usize = 1000;
/// Longest beginning of an Event's name that comes from the pod's.
const NAME_MAX: usize = 200;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Whether something is wrong.
    pub warning: bool,
    /// `Captured`, `Released` or a code such as `AMB1103`.
    pub reason: String,
    /// In words.
    pub note: String,
}

impl Event {
    /// What is worth an event when a pod's object is made to say something new.
    pub(super) fn of(pod: &Pod, said: &Announcement) -> Option<Self> {
        let condition = said.condition.as_ref()?;
        let was = pod.condition.as_ref();
        if condition.status {
            let news = was.is_none_or(|was| !was.status);
            let note = match condition.message.as_str() {
                "" => "captured: its traffic is encrypted and its policies are enforced".to_owned(),
                ignored => format!("captured; {ignored}"),
            };
            return news.then(|| Self { warning: false, reason: CAPTURED_REASON.to_owned(), note });
        }
        let left =
            condition.is_withdrawn() || condition.reason == ambit_types::reason::Reason::NotEnrolled.code();
        if left {
            let was_in = was.is_some_and(|was| was.status) || pod.redirection().is_some();
            let note = format!("out of the mesh: {}", condition.message);
            return was_in.then(|| Self { warning: false, reason: "Released".to_owned(), note });
        }
        let waiting = said.redirection == Some("pending") || pod.addresses.is_empty();
        let news = was.is_none_or(|was| was.reason != condition.reason || was.status);
        // A pod that is just coming up is not a failure; if it stays so, its condition says so.
        let routine = waiting && was.is_none();
        (news && !routine).then(|| Self {
            warning: true,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        })
    }

    /// The object to write.
    pub(super) fn object(&self, pod: &Pod, node: &str, now: SystemTime) -> Value {
        let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name: String = pod.name.chars().take(NAME_MAX).collect();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": pod.namespace, "name": format!("{}.{nanos:x}", name.trim_end_matches(['.', '-']))},
            "eventTime": humantime::format_rfc3339_micros(now).to_string(),
            "type": if self.warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "note": cut(&self.note),
            "action": "Capture",
            "reportingController": "ambit.internal/ambit-cni",
            "reportingInstance": node.chars().take(128).collect::<String>(),
            "regarding": {
                "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            },
        })
    }
}

fn cut(note: &str) -> &str {
    let end = (0..=NOTE_MAX.min(note.len())).rev().find(|at| note.is_char_boundary(*at));
    note.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Decides which events are written.
#[derive(Debug)]
pub(super) struct Limiter {
    said: BTreeMap<(String, String), Instant>,
    left: f64,
    filled: Instant,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { said: BTreeMap::new(), left: BURST, filled: now }
    }

    /// Whether this one is written; if so, it counts.
    pub(super) fn admits(&mut self, uid: &str, event: &Event, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * RATE).min(BURST);
        self.filled = now;
        self.said.retain(|_, at| now.saturating_duration_since(*at) < REPEAT);
        let key = (uid.to_owned(), event.reason.clone());
        if self.said.contains_key(&key) || self.left < 1.0 {
            return false;
        }
        if self.said.len() >= REMEMBERED {
            self.said.clear();
        }
        self.said.insert(key, now);
        self.left -= 1.0;
        true
    }
}
