//! Seals the state as it changes: one write at a time, not more than one a second, never on a thread that carries traffic.
//!
//! A write that fails is told once and tried again; nothing else depends on it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::content::{Content, KeptCredential};
use super::recorder::{Recorder, Written};
use super::store::{Store, StoreError};
use crate::admit::describe;
use crate::heard::LastHeard;
use crate::identity;
use crate::proxy::Proxy;

#[cfg(test)]
mod tests;

/// Least time between two writes.
const SPACING: Duration = Duration::from_secs(1);
/// Time between a write that failed and the next attempt.
const RETRY: Duration = Duration::from_secs(10);
/// Longest time between two writes while the control plane is there: what is sealed says when it was last heard.
const REFRESH_MAX: Duration = Duration::from_secs(3600);

/// Everything the task needs.
pub(super) struct Saver {
    pub(super) store: Arc<Store>,
    pub(super) recorder: Recorder,
    pub(super) proxy: Arc<Proxy>,
    pub(super) heard: Arc<LastHeard>,
    /// Whether certificates and their keys are sealed too.
    pub(super) with_keys: bool,
    /// How old a state may be at a start.
    pub(super) age_max: Duration,
}

/// What became of an attempt, and whether that is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Goes,
    GoesAgain,
    Fails,
    StillFails,
    /// Another instance is writing; nothing is known about ours.
    Later,
}

impl Course {
    /// What follows from an attempt; `failing` remembers the one before.
    fn after(result: &Result<Written, StoreError>, failing: &mut bool) -> Self {
        match result {
            Ok(_) => {
                if std::mem::replace(failing, false) {
                    Self::GoesAgain
                } else {
                    Self::Goes
                }
            }
            Err(StoreError::Busy { .. }) => Self::Later,
            Err(_) => {
                if std::mem::replace(failing, true) {
                    Self::StillFails
                } else {
                    Self::Fails
                }
            }
        }
    }

    /// How long to wait at least before the next attempt.
    fn pause(self) -> Duration {
        match self {
            Self::Goes | Self::GoesAgain | Self::Later => SPACING,
            Self::Fails | Self::StillFails => RETRY,
        }
    }

    /// Whether the state is sealed as it was at the attempt.
    fn is_done(self) -> bool {
        matches!(self, Self::Goes | Self::GoesAgain)
    }
}

/// Longest time between two writes for states that may be `age_max` old.
fn refresh_after(age_max: Duration) -> Duration {
    (age_max / 4).clamp(SPACING, REFRESH_MAX)
}

impl Saver {
    /// Seals until the process begins to drain: from then on the instance that replaces it does.
    pub(super) async fn run(self, drain: Drain) {
        tokio::select! {
            () = self.keep() => {}
            () = drain.draining() => {}
        }
    }

    async fn keep(self) {
        let Some(mut states) = self.recorder.completions() else { return };
        let mut certificates = self.proxy.certificates.received();
        let mut failing = false;
        // Half a state could allow what the whole one denies.
        if states.wait_for(|count| *count > 0).await.is_err() {
            return;
        }
        loop {
            states.mark_unchanged();
            certificates.mark_unchanged();
            let result = self.write().await;
            let course = Course::after(&result, &mut failing);
            tell(course, &result);
            tokio::time::sleep(course.pause()).await;
            if course.is_done() && !self.changed(&mut states, &mut certificates).await {
                return;
            }
        }
    }

    /// Waits until there is something to seal; false if there never will be.
    async fn changed(
        &self,
        states: &mut watch::Receiver<u64>,
        certificates: &mut watch::Receiver<u64>,
    ) -> bool {
        loop {
            tokio::select! {
                state = states.changed() => return state.is_ok(),
                certificate = certificates.changed(), if self.with_keys => return certificate.is_ok(),
                () = tokio::time::sleep(refresh_after(self.age_max)) => {
                    if self.heard.since().is_none() {
                        return true;
                    }
                }
            }
        }
    }

    async fn write(&self) -> Result<Written, StoreError> {
        let (store, recorder, proxy) = (self.store.clone(), self.recorder.clone(), self.proxy.clone());
        let heard_at = self.heard.since().unwrap_or_else(clock::unix_seconds);
        let with_keys = self.with_keys;
        let work = move || {
            let (number, content) = store.write(|| {
                let credentials = if with_keys { credentials(&proxy) } else { Vec::new() };
                Content { heard_at, responses: recorder.responses(), credentials }
            })?;
            let certificates = content.credentials.len();
            let written = Written { number, resources: content.resources(), certificates };
            recorder.wrote(written);
            Ok(written)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(lost) => Err(StoreError::Lost { what: lost.to_string() }),
        }
    }
}

/// Certificates of workloads that are here now; a pod that left leaves no key in what is written from then on.
fn credentials(proxy: &Proxy) -> Vec<KeptCredential> {
    let wanted = identity::wanted(&proxy.mesh.snapshot());
    let exported = proxy.certificates.export().into_iter();
    exported.filter(|one| wanted.contains(&one.identity)).map(KeptCredential::from).collect()
}

fn tell(course: Course, result: &Result<Written, StoreError>) {
    let outcome = if course.is_done() { "ok" } else { "failed" };
    if course != Course::Later {
        metrics::counter!("ambit_sealed_state_writes_total", "result" => outcome).increment(1);
    }
    match result {
        Ok(Written { number, resources, certificates }) => {
            if course == Course::GoesAgain {
                info!(number, "the state is sealed again");
            }
            debug!(number, resources, certificates, "state sealed");
        }
        Err(error) => {
            let error = describe(error as &dyn Error);
            if course == Course::Fails {
                warn!(
                    error,
                    "the state cannot be sealed; traffic goes on, a restart would find an older state"
                );
            } else {
                debug!(error, "the state is not sealed yet");
            }
        }
    }
}
