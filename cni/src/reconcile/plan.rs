//! What to do next with one pod, and what to say about it: pure functions of what is wanted, what is there, and when.
//!
//! Level-triggered: nothing here depends on which event came. The same question asked again gives the same answer, and
//! where everything is as it should be the answer is to look again later.

use std::time::Duration;

use ambit_types::reason::Reason;

use crate::enrolment::{Decision, NotEnrolled};
use crate::handoff::roster::Holding;
use crate::pod::{Announcement, Condition, Pod};
use crate::rules;

#[cfg(test)]
mod tests;

/// Time limits of reconciling.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often a captured pod's rules are compared with what they should be. Default 5 s.
    pub verify: Duration,
    /// First pause after a failure; doubles up to `retry_max`. Default 200 ms.
    pub retry_min: Duration,
    /// Longest pause between tries. Default 5 s.
    pub retry_max: Duration,
    /// How long a ztunnel goes on serving a pod that left, so that its peers can learn of it. Default 2 s.
    pub notice: Duration,
    /// How long no ztunnel may serve a captured pod before its condition says so. Default 5 s.
    pub absence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            verify: Duration::from_secs(5),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
            notice: Duration::from_secs(2),
            absence: Duration::from_secs(5),
        }
    }
}

/// What is known of the rules inside a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    /// Not looked yet, since this program started or since the pod appeared.
    Unknown,
    /// Nothing of ours.
    Nothing,
    /// Rules that capture it, proven.
    Capture {
        /// Their stamp.
        stamp: String,
    },
    /// The rules of a pod that has left.
    Residue {
        /// When they were put there.
        since: Duration,
        /// Whether ztunnel has been told.
        withdrawn: bool,
    },
}

/// Everything the next step depends on besides the pod's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is inside the namespace.
    pub inside: Inside,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, until something succeeds.
    pub failure: Option<Failure>,
    /// When something was last done, since the program started.
    pub done: Duration,
}

impl Default for Record {
    fn default() -> Self {
        Self { inside: Inside::Unknown, failures: 0, failure: None, done: Duration::ZERO }
    }
}

/// Why the last step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its code.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something changes.
    Rest,
    /// Nothing before that time.
    Wait(Duration),
    /// Put these rules in force and have a ztunnel serve the pod.
    Capture {
        /// The rules' facts.
        facts: rules::Facts,
        /// Ztunnel listens before traffic is redirected. For a pod that runs, so that no new connection is refused; one
        /// that has not started yet is closed first.
        ztunnel_first: bool,
    },
    /// Compare the rules with what they should be.
    Verify {
        /// The rules' facts.
        facts: rules::Facts,
    },
    /// Look whether there are rules of ours.
    Discover,
    /// Redirect nothing new any more.
    Release,
    /// Have every ztunnel stop serving the pod, then take the rules away if no connection needs them.
    Retire,
    /// The pod has ended: have every ztunnel stop serving it and forget its namespace.
    Forget,
}

/// The next step for a pod.
pub fn next_step(pod: &Pod, decision: &Decision, record: &Record, now: Duration, limits: &Limits) -> Step {
    let due = record.done + pause(&pod.uid, record, limits);
    let step = match decision {
        Decision::Enrol { .. } if pod.addresses.is_empty() => return Step::Rest,
        Decision::Enrol { facts, .. } => match &record.inside {
            Inside::Capture { stamp } if *stamp == rules::capture(facts).stamp => {
                let due = if record.failures > 0 { due } else { record.done + limits.verify };
                return when(due, now, Step::Verify { facts: facts.clone() });
            }
            Inside::Unknown | Inside::Nothing | Inside::Capture { .. } | Inside::Residue { .. } => {
                Step::Capture { facts: facts.clone(), ztunnel_first: pod.running }
            }
        },
        Decision::Not(NotEnrolled::Finished) => match record.inside {
            Inside::Nothing => return Step::Rest,
            Inside::Unknown | Inside::Capture { .. } | Inside::Residue { .. } => Step::Forget,
        },
        Decision::Not(_) => match record.inside {
            Inside::Nothing => return Step::Rest,
            Inside::Unknown if pod.host_network => return Step::Rest,
            Inside::Unknown => Step::Discover,
            Inside::Capture { .. } => Step::Release,
            Inside::Residue { since, withdrawn: false } => {
                return when((since + limits.notice).max(due), now, Step::Retire);
            }
            Inside::Residue { withdrawn: true, .. } => {
                return when(record.done + limits.verify, now, Step::Retire);
            }
        },
    };
    when(due, now, step)
}

fn when(due: Duration, now: Duration, step: Step) -> Step {
    if due <= now { step } else { Step::Wait(due) }
}

/// How long to wait after the last failure: doubling, capped, and different for each pod so that they spread.
fn pause(uid: &str, record: &Record, limits: &Limits) -> Duration {
    let Some(doublings) = record.failures.checked_sub(1) else { return Duration::ZERO };
    let plain = limits.retry_min.saturating_mul(1 << doublings.min(16)).min(limits.retry_max);
    let seed = xxhash_rust::xxh64::xxh64(uid.as_bytes(), u64::from(record.failures));
    // 80 to 120 per cent.
    plain.mul_f64(0.8 + 0.4 * (seed % 1024) as f64 / 1024.0)
}

/// What the pod's object should say; `None` if nothing should change.
///
/// `absent` is how long no ztunnel has served the pod. `enabled` is only ever said of a pod whose rules were proven and
/// which a ztunnel serves; it stays while ztunnel restarts, because the pod's traffic stays redirected.
pub fn announcement(
    pod: &Pod,
    decision: &Decision,
    record: &Record,
    holding: &Holding,
    absent: Duration,
    limits: &Limits,
) -> Option<Announcement> {
    let wanted = match decision {
        Decision::Enrol { ignored, .. } => enrolled(pod, record, holding, absent, limits, ignored)?,
        Decision::Not(why) => not_enrolled(pod, *why, record)?,
    };
    (!wanted.is_said_by(pod)).then_some(wanted)
}

fn enrolled(
    pod: &Pod,
    record: &Record,
    holding: &Holding,
    absent: Duration,
    limits: &Limits,
    ignored: &[String],
) -> Option<Announcement> {
    let not = |redirection, reason, message: &str| {
        Some(Announcement { redirection, condition: Some(Condition::not_captured(reason, message)) })
    };
    match &record.inside {
        Inside::Capture { .. } => {}
        Inside::Unknown if record.failure.is_none() && !pod.addresses.is_empty() => return None,
        Inside::Unknown | Inside::Nothing | Inside::Residue { .. } => {
            return match &record.failure {
                Some(failure) => not(None, failure.reason, &failure.message),
                None => not(None, Reason::NotCaptured, "waiting for the pod's addresses"),
            };
        }
    }
    let was_enabled = pod.redirection() == Some("enabled");
    let served = match holding {
        Holding::Held => {
            let condition = Condition { message: ignored.join("; "), ..Condition::captured() };
            return Some(Announcement { redirection: Some("enabled"), condition: Some(condition) });
        }
        Holding::NoZtunnel => "no ztunnel is connected; its traffic is refused until one is".to_owned(),
        Holding::Waiting => "ztunnel has not confirmed yet that it serves the pod".to_owned(),
        Holding::Refused(why) => format!("ztunnel does not serve the pod: {why}"),
    };
    if was_enabled && absent < limits.absence {
        return None;
    }
    // The moment between connecting and answering is not worth another write.
    let told = pod.redirection().is_some() && pod.condition.as_ref().is_some_and(|c| !c.status);
    if told && *holding == Holding::Waiting {
        return None;
    }
    not(Some(if was_enabled { "enabled" } else { "pending" }), Reason::NotCaptured, &served)
}

fn not_enrolled(pod: &Pod, why: NotEnrolled, record: &Record) -> Option<Announcement> {
    // A pod that never had to do with the mesh is not written to.
    let involved = pod.redirection().is_some() || pod.condition.is_some() || why == NotEnrolled::Sidecar;
    if !involved {
        return None;
    }
    // Rules that still redirect: the object goes on saying so until they do not.
    if matches!(record.inside, Inside::Capture { .. }) {
        return None;
    }
    let condition = match why {
        // Nothing of ours is to stay behind.
        NotEnrolled::Removed => Condition::withdrawn(),
        NotEnrolled::Unlabelled
        | NotEnrolled::PodOptOut
        | NotEnrolled::ExcludedNamespace
        | NotEnrolled::HostNetwork
        | NotEnrolled::Finished
        | NotEnrolled::Sidecar => Condition::not_captured(why.reason(), why.why()),
    };
    Some(Announcement { redirection: None, condition: Some(condition) })
}
