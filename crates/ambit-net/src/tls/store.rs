//! The certificates of a node's identities: fetched once, renewed at half life, kept until they run out.
//!
//! One task an identity. Callers wait for it, bounded; all waiters share one fetch. A failed fetch keeps the old
//! certificate, and a caller that needs one now does not wait for the next scheduled attempt (G30).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::{clock, tasks};
use ambit_types::{Identity, Reason};
use tokio::sync::{Notify, Semaphore, watch};
use tracing::{info, warn};

pub use export::{Exported, ImportError};

use super::rotation;
use super::{Credential, credential::CredentialError, credential::PemChain, csr};

mod export;

/// Fetches in flight at once.
const FETCHES_MAX: usize = 16;
/// Longest time one fetch may take (G31).
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time a caller waits for a first certificate.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);
/// A failure younger than this answers callers at once instead of asking the CA again.
const FAILURE_FRESH: Duration = Duration::from_millis(500);

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The CA did not give one.
    #[error("no certificate for {identity}: {what}")]
    Unavailable {
        /// For whom.
        identity: Identity,
        /// What the CA or the network said.
        what: String,
    },
    /// It ran out and could not be renewed.
    #[error("the certificate of {identity} ran out {seconds_ago} s ago and could not be renewed: {what}")]
    Expired {
        /// For whom.
        identity: Identity,
        /// How long ago.
        seconds_ago: u64,
        /// What the CA or the network said.
        what: String,
    },
}

impl CertificateError {
    /// The code of this failure.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable { .. } => Reason::NoCertificate,
            Self::Expired { .. } => Reason::CertificateOutsideValidity,
        }
    }
}

/// The future of one call of a [`Ca`].
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<PemChain, String>> + Send + 'a>>;

/// Something that signs certificate requests.
pub trait Ca: Send + Sync {
    /// Asks for a certificate for `identity`; the error is for people.
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a>;
}

/// State of one identity, for `ambit get certificates`.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whose.
    pub identity: Identity,
    /// The certificate, if there is one.
    pub credential: Option<Arc<Credential>>,
    /// The last failure, if the last attempt failed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct State {
    credential: Option<Arc<Credential>>,
    failure: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Entry {
    state: watch::Sender<State>,
    wanted: Notify,
}

/// The certificates of this node. Cheap to clone.
#[derive(Clone)]
pub struct CertificateStore {
    ca: Arc<dyn Ca>,
    entries: Arc<Mutex<BTreeMap<Identity, Arc<Entry>>>>,
    fetches: Arc<Semaphore>,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Counts certificates received.
    received: Arc<watch::Sender<u64>>,
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateStore")
    }
}

impl CertificateStore {
    /// An empty store that asks `ca`; `random` spreads renewals.
    pub fn new(ca: Arc<dyn Ca>, random: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        let fetches = Arc::new(Semaphore::new(FETCHES_MAX));
        Self { ca, entries: Arc::default(), fetches, random, received: Arc::new(watch::Sender::new(0)) }
    }

    /// Begins to fetch and renew the certificate of `identity`; nothing if that is under way.
    pub fn prefetch(&self, identity: &Identity) {
        drop(self.entry(identity));
    }

    /// Stops renewing the certificate of `identity` and drops it.
    pub fn forget(&self, identity: &Identity) {
        let entry = self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
        if let Some(entry) = entry {
            entry.wanted.notify_one();
        }
    }

    /// The valid certificate of `identity`, waiting for a first one.
    ///
    /// # Errors
    /// [`CertificateError`] after a failed attempt, or when none came within five seconds.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<Credential>, CertificateError> {
        let entry = self.entry(identity);
        if let Some(credential) = valid(&entry.state.borrow()) {
            return Ok(credential);
        }
        let asked = clock::monotonic();
        let stale = |state: &State| {
            state.failure.as_ref().is_none_or(|(at, _)| asked.saturating_duration_since(*at) > FAILURE_FRESH)
        };
        if stale(&entry.state.borrow()) {
            entry.wanted.notify_one();
        }
        let mut changes = entry.state.subscribe();
        let answered = |state: &State| {
            valid(state).is_some()
                || state.failure.as_ref().is_some_and(|(at, _)| *at >= asked || !stale(state))
        };
        // The sender lives in the entry that we hold, so only the time can run out.
        let _ = tokio::time::timeout(CALLER_TIMEOUT, changes.wait_for(answered)).await;
        let state = entry.state.borrow();
        valid(&state).ok_or_else(|| unavailable(identity, &state))
    }

    /// Everything known, by identity.
    pub fn list(&self) -> Vec<Known> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |(identity, entry): (&Identity, &Arc<Entry>)| {
            let state = entry.state.borrow();
            let error = state.failure.as_ref().map(|(_, what)| what.clone());
            Known { identity: identity.clone(), credential: state.credential.clone(), error }
        };
        entries.iter().map(known).collect()
    }

    fn entry(&self, identity: &Identity) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(identity) {
            return entry.clone();
        }
        let entry = Arc::new(Entry { state: watch::Sender::new(State::default()), wanted: Notify::new() });
        entries.insert(identity.clone(), entry.clone());
        tasks::spawn("certificate", self.clone().keep(identity.clone(), entry.clone()));
        entry
    }

    /// Fetches, waits for renewal or a caller, fetches again, until the identity is forgotten.
    async fn keep(self, identity: Identity, entry: Arc<Entry>) {
        let mut failures = 0;
        loop {
            let fetched = self.fetch(&identity).await;
            if !self.holds(&identity, &entry) {
                return;
            }
            let wait = match fetched {
                Ok(credential) => {
                    failures = 0;
                    let wait =
                        rotation::renew_after(clock::unix_seconds(), credential.not_after(), (self.random)());
                    info!(%identity, not_after = credential.not_after(), "certificate received");
                    entry.state.send_replace(State { credential: Some(Arc::new(credential)), failure: None });
                    self.received.send_modify(|count| *count += 1);
                    wait
                }
                Err(what) => {
                    failures += 1;
                    metrics::counter!("ambit_certificate_issue_errors_total").increment(1);
                    warn!(%identity, error = what, failures, "no certificate; the old one stays until it runs out");
                    entry.state.send_modify(|state| state.failure = Some((clock::monotonic(), what)));
                    rotation::retry_after(failures, (self.random)())
                }
            };
            self.wait(&entry, wait).await;
            if !self.holds(&identity, &entry) {
                return;
            }
        }
    }

    /// Waits for the time, or for a caller that has no valid certificate.
    async fn wait(&self, entry: &Entry, wait: Duration) {
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                () = entry.wanted.notified() => {
                    if valid(&entry.state.borrow()).is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn holds(&self, identity: &Identity, entry: &Arc<Entry>) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(identity).is_some_and(|held| Arc::ptr_eq(held, entry))
    }

    async fn fetch(&self, identity: &Identity) -> Result<Credential, String> {
        let _turn = self.fetches.acquire().await.map_err(|e| e.to_string())?;
        let csr = csr::new(identity).map_err(|e| e.to_string())?;
        let chain = tokio::time::timeout(FETCH_TIMEOUT, self.ca.sign(identity, &csr.pem))
            .await
            .map_err(|_| format!("the CA did not answer within {FETCH_TIMEOUT:?}"))??;
        Credential::new(identity, &chain, &csr.key_der).map_err(|e: CredentialError| e.to_string())
    }
}

/// The certificate of `state` unless it has run out.
fn valid(state: &State) -> Option<Arc<Credential>> {
    state.credential.clone().filter(|credential| credential.not_after() > clock::unix_seconds())
}

fn unavailable(identity: &Identity, state: &State) -> CertificateError {
    let what =
        state.failure.as_ref().map_or_else(|| "the CA has not answered yet".to_owned(), |(_, w)| w.clone());
    let identity = identity.clone();
    match &state.credential {
        Some(old) => {
            let seconds_ago = clock::unix_seconds().saturating_sub(old.not_after());
            CertificateError::Expired { identity, seconds_ago, what }
        }
        None => CertificateError::Unavailable { identity, what },
    }
}
