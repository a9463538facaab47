//! One of several replicas leads: it holds a Lease and renews it.
//!
//! A leader stops leading [`RENEW_MAX`] after the start of its last renewal that succeeded, by its own timer; others
//! wait [`LEASE`] after they saw that renewal before they take over. So no two lead at once, whatever their clocks
//! show, as long as they run equally fast. Times in the Lease itself are for people.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::time::Duration;

use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use futures_util::FutureExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};
use tracing::{info, warn};

use crate::error::{Call, KubeError};
use crate::resource::Resource;
use crate::write;

#[cfg(test)]
mod tests;

/// How long others wait after the last renewal they saw.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long a leader leads after the start of its last renewal.
pub const RENEW_MAX: Duration = Duration::from_secs(10);
/// Pause between two attempts to hold or renew.
pub const RETRY: Duration = Duration::from_secs(2);
/// Longest time of one attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// Longest time to give the lease back at the end.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// The longest duration of somebody else's lease that is believed.
const FOREIGN_LEASE_MAX: i32 = 120;

/// A candidate for leading.
#[derive(Clone, Debug)]
pub struct Election {
    namespace: String,
    name: String,
    identity: String,
}

impl Election {
    /// A candidate for the Lease `namespace/name`. `replica` is our name for people, such as the pod's; something
    /// that tells this process from its predecessor is added.
    pub fn new(namespace: &str, name: &str, replica: &str) -> Self {
        let own = RandomState::new().build_hasher().finish();
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: format!("{replica}_{own:016x}"),
        }
    }

    /// The name under which we hold the lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes part until `drain`; the receiver says whether we lead. At the end the lease is given back, so that
    /// another replica leads at once.
    pub fn start(self, client: Client, drain: &Drain) -> watch::Receiver<bool> {
        let (leads, told) = watch::channel(false);
        let candidate = Candidate { election: self, client, leads, until: None, seen: None };
        drop(tasks::spawn("lease", drain.track(candidate.run(drain.clone()))));
        told
    }
}

struct Candidate {
    election: Election,
    client: Client,
    leads: watch::Sender<bool>,
    /// While we lead: when that ends.
    until: Option<Pin<Box<Sleep>>>,
    /// Somebody else's lease as last seen.
    seen: Option<Seen>,
}

struct Seen {
    version: Option<String>,
    /// When it has run out.
    runs_out: Pin<Box<Sleep>>,
}

impl Candidate {
    async fn run(mut self, drain: Drain) {
        loop {
            // Counted from before the request is sent: the server cannot have seen it earlier.
            let until = Box::pin(sleep(RENEW_MAX));
            let mut ends = self.until.take();
            let attempt = tokio::select! {
                biased;
                () = drain.draining() => break,
                () = over(&mut ends) => None,
                attempt = timeout(ATTEMPT_MAX, self.attempt()) => Some(attempt),
            };
            match attempt {
                Some(Ok(Ok(true))) => self.lead(until),
                Some(Ok(Ok(false))) => self.stop("another replica holds the lease"),
                None => self.stop("the lease could not be renewed in time"),
                Some(Ok(Err(cause))) => {
                    self.until = ends;
                    warn!(lease = %self.place(), %cause, "the lease cannot be held or read");
                }
                Some(Err(_)) => {
                    self.until = ends;
                    warn!(lease = %self.place(), after = ?ATTEMPT_MAX, "no answer about the lease");
                }
            }
            tokio::select! {
                biased;
                () = drain.draining() => break,
                () = over(&mut self.until) => self.stop("the lease could not be renewed in time"),
                () = sleep(RETRY) => {}
            }
        }
        let held = *self.leads.borrow();
        self.stop("we are ending");
        if held && !matches!(timeout(RELEASE_MAX, self.release()).await, Ok(Ok(()))) {
            info!(lease = %self.place(), "the lease could not be given back; another replica leads once it runs out");
        }
    }

    fn lead(&mut self, until: Pin<Box<Sleep>>) {
        self.until = Some(until);
        if !self.leads.send_replace(true) {
            info!(lease = %self.place(), identity = self.election.identity, "we lead");
        }
    }

    fn stop(&mut self, why: &str) {
        self.until = None;
        if self.leads.send_replace(false) {
            info!(lease = %self.place(), why, "we no longer lead");
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.election.namespace, self.election.name)
    }

    /// Renews the lease, or takes it if it is free; whether it is ours now.
    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let Some(mut lease) = self.read().await? else {
            return taken(self.write("create", self.lease(1)).await);
        };
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder == self.election.identity {
            spec.renew_time = now();
            return self.write("update", lease).await.map(|()| true);
        }
        let duration = spec.lease_duration_seconds.unwrap_or_default().clamp(1, FOREIGN_LEASE_MAX);
        let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(1);
        let duration = Duration::from_secs(u64::from(duration.unsigned_abs()));
        let version = lease.metadata.resource_version.clone();
        if !holder.is_empty() && !self.has_run_out(version, duration) {
            return Ok(false);
        }
        lease.spec = self.lease(transitions).spec;
        taken(self.write("update", lease).await)
    }

    /// Whether somebody else's lease has stood unchanged for its whole duration before our eyes.
    fn has_run_out(&mut self, version: Option<String>, duration: Duration) -> bool {
        match &mut self.seen {
            Some(seen) if seen.version == version => seen.runs_out.as_mut().now_or_never().is_some(),
            seen => {
                *seen = Some(Seen { version, runs_out: Box::pin(sleep(duration.max(LEASE))) });
                false
            }
        }
    }

    fn lease(&self, transitions: i32) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.election.name.clone()),
                namespace: Some(self.election.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.election.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: now(),
                renew_time: now(),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn release(&self) -> Result<(), KubeError> {
        let Some(mut lease) = self.read().await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.election.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = now();
        self.write("update", lease).await
    }

    async fn read(&self) -> Result<Option<Lease>, KubeError> {
        let (request, call) = self.request("get")?;
        match write::send(&self.client, &call, request.get(&self.election.name, &GetParams::default())).await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(KubeError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn write(&self, verb: &'static str, lease: Lease) -> Result<(), KubeError> {
        let (request, call) = self.request(verb)?;
        let unreadable = |cause: serde_json::Error| KubeError::of(&call, kube::Error::SerdeError(cause));
        let body = serde_json::to_vec(&lease).map_err(unreadable)?;
        let request = match verb {
            "create" => request.create(&PostParams::default(), body),
            _ => request.replace(&self.election.name, &PostParams::default(), body),
        };
        write::send::<Lease>(&self.client, &call, request).await.map(drop)
    }

    fn request(&self, verb: &'static str) -> Result<(Request, Call), KubeError> {
        let resource = Resource::named("coordination.k8s.io/v1", "Lease")?;
        let Election { namespace, name, .. } = &self.election;
        let call = Call::new(verb, &resource, Some(namespace), Some(name));
        Ok((Request::new(resource.path(Some(namespace))), call))
    }
}

/// Somebody who was faster is no failure.
fn taken(written: Result<(), KubeError>) -> Result<bool, KubeError> {
    match written {
        Ok(()) => Ok(true),
        Err(KubeError::Conflict { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

async fn over(end: &mut Option<Pin<Box<Sleep>>>) {
    match end {
        Some(end) => end.as_mut().await,
        None => std::future::pending().await,
    }
}

fn now() -> Option<MicroTime> {
    Timestamp::try_from(clock::wall()).ok().map(MicroTime)
}
