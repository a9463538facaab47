//! When to probe and what the answers mean: a machine without clock or sockets.
//!
//! Times are counted from the start of the container. Probes of different kinds do not wait for each other; of
//! one kind only one runs at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ContainerHealth;
use super::probe::{Probe, Probes};

/// How soon readiness is asked again until it has held once.
///
/// A refusal then changes nothing, so asking more often than declared only makes pods ready sooner.
const EAGER_PERIOD: Duration = Duration::from_millis(250);

/// The kinds of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Holds the others back until it succeeds.
    Startup,
    /// Restarts the container.
    Liveness,
    /// Makes it ready or not.
    Readiness,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this probe and report its answer.
    Run(Kind, Probe),
    /// Nothing before that time.
    WaitUntil(Duration),
    /// Nothing until an answer comes.
    Idle,
}

/// The probes of one run of one container.
#[derive(Debug, Clone)]
pub struct Machine {
    slots: BTreeMap<Kind, Slot>,
    started: bool,
    ready: bool,
    was_ready: bool,
    why: Option<String>,
}

#[derive(Debug, Clone)]
struct Slot {
    probe: Probe,
    next: Duration,
    sent: Option<Duration>,
    good: u32,
    bad: u32,
}

impl Machine {
    /// A container that has just started.
    pub fn new(probes: &Probes) -> Self {
        let kinds = [
            (Kind::Startup, &probes.startup),
            (Kind::Liveness, &probes.liveness),
            (Kind::Readiness, &probes.readiness),
        ];
        let slot = |probe: &Probe| Slot {
            probe: probe.clone(),
            next: probe.initial_delay,
            sent: None,
            good: 0,
            bad: 0,
        };
        let slots: BTreeMap<Kind, Slot> =
            kinds.into_iter().filter_map(|(kind, probe)| Some((kind, slot(probe.as_ref()?)))).collect();
        let started = !slots.contains_key(&Kind::Startup);
        let ready = started && !slots.contains_key(&Kind::Readiness);
        let why = (!ready).then(|| "its probes have not succeeded yet".to_owned());
        Self { slots, started, ready, was_ready: false, why }
    }

    /// Says what to do at a time; a probe that is to be sent counts as sent.
    pub fn poll(&mut self, now: Duration) -> Step {
        let started = self.started;
        let active = |kind: &Kind| match kind {
            Kind::Startup => !started,
            Kind::Liveness | Kind::Readiness => started,
        };
        let mut waiting = self.slots.iter_mut().filter(|(k, s)| active(k) && s.sent.is_none());
        let mut soonest: Option<Duration> = None;
        for (kind, slot) in &mut waiting {
            if slot.next <= now {
                slot.sent = Some(now);
                return Step::Run(*kind, slot.probe.clone());
            }
            soonest = Some(soonest.map_or(slot.next, |s| s.min(slot.next)));
        }
        soonest.map_or(Step::Idle, Step::WaitUntil)
    }

    /// Takes an answer; returns why the container has to be restarted, if it has to.
    pub fn handle_result(&mut self, kind: Kind, now: Duration, answer: Result<(), String>) -> Option<String> {
        let eager = kind == Kind::Readiness && !self.was_ready && answer.is_err();
        let slot = self.slots.get_mut(&kind)?;
        let sent = slot.sent.take()?;
        let period = if eager { slot.probe.period.min(EAGER_PERIOD) } else { slot.probe.period };
        slot.next = (sent + period).max(now);
        let why = match answer {
            Ok(()) => {
                (slot.good, slot.bad) = (slot.good.saturating_add(1), 0);
                None
            }
            Err(why) => {
                (slot.good, slot.bad) = (0, slot.bad.saturating_add(1));
                Some(why)
            }
        };
        let enough_good = slot.good >= slot.probe.success_threshold;
        let enough_bad = slot.bad >= slot.probe.failure_threshold;
        match (kind, why) {
            (Kind::Startup, None) if enough_good => self.start(now),
            (Kind::Readiness, None) if enough_good => {
                (self.ready, self.was_ready, self.why) = (true, true, None);
            }
            (Kind::Readiness, Some(why)) if enough_bad || !self.ready => {
                (self.ready, self.why) = (false, Some(format!("readiness probe failed: {why}")));
            }
            (Kind::Startup, Some(why)) if enough_bad => return Some(format!("startup probe failed: {why}")),
            (Kind::Startup, Some(why)) => self.why = Some(format!("startup probe failed: {why}")),
            (Kind::Liveness, Some(why)) if enough_bad => {
                return Some(format!("liveness probe failed: {why}"));
            }
            (Kind::Startup | Kind::Liveness | Kind::Readiness, _) => {}
        }
        None
    }

    /// What is known of the container.
    pub fn health(&self) -> ContainerHealth {
        ContainerHealth { started: self.started, ready: self.ready, why: self.why.clone() }
    }

    fn start(&mut self, now: Duration) {
        self.started = true;
        let readiness = self.slots.contains_key(&Kind::Readiness);
        (self.ready, self.why) =
            (!readiness, readiness.then(|| "readiness probe has not succeeded yet".to_owned()));
        for slot in self.slots.values_mut() {
            slot.next = slot.next.max(now);
        }
    }
}

#[cfg(test)]
mod tests;
