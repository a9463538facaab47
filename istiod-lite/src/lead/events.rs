//! Kubernetes Events of what turned bad: once each, and never more than the server should have to take.
//!
//! Whoever writes a status says what turned bad by it; here the same thing is told once in a while only, and what is told
//! again counts up the Event that is there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant, SystemTime};

use ambit_runtime::clock;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api::{ApiError, At, Resource};
use super::status::render::Turned;
use super::{Lead, told};

/// Who reports.
const CONTROLLER: &str = "ambit.internal/istiod-lite";
/// Time in which the same thing is told once.
const QUIET: Duration = Duration::from_secs(600);
/// Things that are remembered as told.
const REMEMBERED_MAX: usize = 4_096;
/// Least time between two Events in the long run, and how many may come at once.
const INTERVAL: Duration = Duration::from_millis(200);
const BURST: u32 = 50;
/// Longest note, in bytes, as the API bounds it.
const NOTE_BYTES_MAX: usize = 1_000;
/// Longest name of an object that is part of an Event's name.
const NAME_BYTES_MAX: usize = 200;

/// Something to tell about an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The object as an Event refers to it.
    pub regarding: Value,
    /// What turned bad.
    pub turned: Turned,
}

impl Notice {
    pub(super) fn of(at: At<'_>, live: &Value, turned: Turned) -> Self {
        let uid = live.pointer("/metadata/uid").cloned().unwrap_or_default();
        let mut regarding =
            json!({"apiVersion": at.resource.version, "kind": at.resource.kind, "name": at.name});
        if !at.namespace.is_empty() {
            regarding["namespace"] = json!(at.namespace);
        }
        if uid.is_string() {
            regarding["uid"] = uid;
        }
        Self { regarding, turned }
    }

    fn text(&self, field: &str) -> &str {
        self.regarding.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// Events of objects of the whole cluster are in this namespace.
    fn namespace(&self) -> &str {
        Some(self.text("namespace")).filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    }

    /// The name of the Event: the same for the same thing.
    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.regarding.to_string(), &self.turned.condition, &self.turned.reason, &self.turned.message)
            .hash(&mut hasher);
        let name = self.text("name");
        let end =
            (0..=name.len().min(NAME_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        format!("{}.{:016x}", name[..end].trim_end_matches(['.', '-']), hasher.finish())
    }

    /// The Event.
    pub fn event(&self, instance: &str, now: SystemTime) -> Value {
        let words = format!("{}: {}", self.turned.condition, self.turned.message);
        let end = (0..=words.len().min(NOTE_BYTES_MAX)).rev().find(|at| words.is_char_boundary(*at));
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"namespace": self.namespace(), "name": self.name()},
            "eventTime": micros(now), "type": "Warning", "reason": self.turned.reason, "action": "Reconcile",
            "note": &words[..end.unwrap_or(0)], "regarding": self.regarding,
            "reportingController": CONTROLLER, "reportingInstance": instance,
        })
    }
}

fn micros(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// What was told, and when. Pure.
#[derive(Debug, Default)]
struct Memory {
    told: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    count: u32,
}

impl Memory {
    /// How often the thing was told with this; nothing if it is too soon to tell it again.
    fn tell(&mut self, name: String, now: Instant) -> Option<u32> {
        if let Some(told) = self.told.get_mut(&name) {
            if now.saturating_duration_since(told.at) < QUIET {
                return None;
            }
            (told.at, told.count) = (now, told.count.saturating_add(1));
            return Some(told.count);
        }
        if self.told.len() >= REMEMBERED_MAX {
            let oldest = self.told.iter().min_by_key(|(_, told)| told.at).map(|(name, _)| name.clone());
            oldest.map(|name| self.told.remove(&name));
        }
        self.told.insert(name, Told { at: now, count: 1 });
        Some(1)
    }
}

/// Runs until it is dropped.
pub(super) async fn run(lead: &Lead<'_>, mut notices: mpsc::Receiver<Notice>) {
    let (mut memory, mut room, mut at) = (Memory::default(), BURST, clock::monotonic());
    while let Some(notice) = notices.recv().await {
        let Some(count) = memory.tell(notice.name(), clock::monotonic()) else { continue };
        let passed = clock::monotonic().saturating_duration_since(at).as_millis() / INTERVAL.as_millis();
        let gained = u32::try_from(passed).unwrap_or(BURST);
        if gained > 0 {
            (room, at) = (room.saturating_add(gained).min(BURST), clock::monotonic());
        }
        match room.checked_sub(1) {
            Some(rest) => room = rest,
            None => tokio::time::sleep(INTERVAL).await,
        }
        if let Err(error) = write(lead, &notice, count).await {
            told(&format_args!("Event {}/{}", notice.namespace(), notice.name()), 1, &error);
        }
    }
}

async fn write(lead: &Lead<'_>, notice: &Notice, count: u32) -> Result<(), ApiError> {
    let (name, now) = (notice.name(), clock::wall());
    let at = At { resource: Resource::EVENT, namespace: notice.namespace(), name: &name };
    match lead.server.create(at, &notice.event(&lead.settings.instance, now)).await {
        Ok(_) | Err(ApiError::Ending | ApiError::Gone) => Ok(()),
        // The leader before us may have told it.
        Err(ApiError::Exists) => {
            let series = json!({
                "apiVersion": at.resource.version, "kind": at.resource.kind,
                "metadata": {"namespace": at.namespace, "name": at.name},
                "series": {"count": count.max(2), "lastObservedTime": micros(now)},
            });
            lead.server.apply(at, &series).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
