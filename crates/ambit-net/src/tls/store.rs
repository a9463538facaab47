//! The certificates of a node's identities: fetched once, renewed at half life, kept until they run out.
//!
//! One task an identity. Callers wait for it, bounded; all waiters share one fetch. A failed fetch keeps the old
//! certificate, and a caller that needs one now does not wait for the next scheduled attempt (G30).
//!
//! An identity ends with all it has, task, request under way and private key, when its last pod leaves, or when no
//! pod has it and nobody has asked for a while. Which identities pods have is not known here: callers say it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::leaves::Leaf;
use ambit_runtime::{clock, tasks};
use ambit_types::{Identity, Reason};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use export::{Exported, ImportError};

use super::bundles::{Bundles, Learned, Request};
use super::rotation;
use super::{Credential, credential::CredentialError, credential::PemChain, csr, spiffe};

mod export;
mod follow;

/// Fetches in flight at once.
const FETCHES_MAX: usize = 16;
/// Longest time one fetch may take (G31).
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time a caller waits for a first certificate.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);
/// A failure younger than this answers callers at once instead of asking the CA again.
const FAILURE_FRESH: Duration = Duration::from_millis(500);

/// Over how long the fetches are spread that follow a change of the trust bundle's file.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);

/// How long an identity that no pod has is kept after somebody asked for it: longer than a pod takes to leave.
const UNWANTED_AFTER: Duration = Duration::from_secs(600);
/// What those are told who wait for an identity that is forgotten meanwhile.
const FORGOTTEN: &str = "no workload of this node has this identity any more";

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

impl Known {
    /// What of it is told to others.
    fn leaf(&self) -> Leaf {
        let credential = self.credential.as_deref();
        let first = credential.and_then(|credential| credential.chain().first());
        Leaf {
            identity: self.identity.to_string(),
            // What was installed was read before.
            serial: first.and_then(|der| spiffe::serial(der).ok()),
            not_before: credential.map(Credential::not_before),
            not_after: credential.map(Credential::not_after),
            error: self.error.clone(),
        }
    }
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
    /// Told when a peer shows a root that the bundle lacks.
    doubts: Arc<Notify>,
}

/// An identity that is held, and why.
struct Held {
    entry: Arc<Entry>,
    keeper: JoinHandle<()>,
    /// A pod of this node has it.
    own: bool,
    /// When somebody last asked for it.
    asked: Instant,
}

impl Drop for Held {
    /// The key goes now, even if a caller still waits; the keeper may be in the middle of a request.
    fn drop(&mut self) {
        self.keeper.abort();
        let failure = Some((clock::monotonic(), FORGOTTEN.to_owned()));
        self.entry.state.send_replace(State { credential: None, failure });
    }
}

/// The certificates of this node. Cheap to clone.
#[derive(Clone)]
pub struct CertificateStore {
    ca: Arc<dyn Ca>,
    entries: Arc<Mutex<BTreeMap<Identity, Held>>>,
    unwanted_after: Duration,
    fetches: Arc<Semaphore>,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Counts certificates received.
    received: Arc<watch::Sender<u64>>,
    /// Locked before `entries`, never while that is.
    bundles: Arc<Mutex<Bundles>>,
    /// Counts how often everything was to be fetched anew.
    renewals: Arc<watch::Sender<u64>>,
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
        let received = Arc::new(watch::Sender::new(0));
        Self {
            ca,
            entries: Arc::default(),
            unwanted_after: UNWANTED_AFTER,
            fetches,
            random,
            received,
            bundles: Arc::default(),
            renewals: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same store with another bound for identities that no pod has; ten minutes by default.
    #[must_use]
    pub fn unwanted_after(self, bound: Duration) -> Self {
        Self { unwanted_after: bound, ..self }
    }

    /// Begins to fetch and renew the certificate of `identity`, which a pod of this node has, until it is forgotten.
    pub fn prefetch(&self, identity: &Identity) {
        drop(self.entry(identity, true));
    }

    /// The last pod with `identity` has left: stops its renewal and drops its certificate.
    pub fn forget(&self, identity: &Identity) {
        drop(self.entries().remove(identity));
    }

    /// The valid certificate of `identity`, waiting for a first one.
    ///
    /// # Errors
    /// [`CertificateError`] after a failed attempt, or when none came within five seconds.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<Credential>, CertificateError> {
        let entry = self.entry(identity, false);
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

    /// Fetches every certificate anew within ten seconds: the CA may have another issuer, or another bundle.
    pub fn renew_all(&self) {
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Everything known, by identity.
    pub fn list(&self) -> Vec<Known> {
        let entries = self.entries();
        let known = |(identity, held): (&Identity, &Held)| {
            let state = held.entry.state.borrow();
            let error = state.failure.as_ref().map(|(_, what)| what.clone());
            Known { identity: identity.clone(), credential: state.credential.clone(), error }
        };
        entries.iter().map(known).collect()
    }

    /// What is told to others of the identity that is named, or of all, by identity.
    pub fn leaves(&self, named: Option<&str>) -> Vec<Leaf> {
        let told = self.list().into_iter().map(|known| known.leaf());
        told.filter(|leaf| named.is_none_or(|named| leaf.identity == named)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Identity, Held>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of `identity`, begun if there is none, for one of this node's pods (`own`) or for who asks now.
    fn entry(&self, identity: &Identity, own: bool) -> Arc<Entry> {
        let asked = clock::monotonic();
        let mut entries = self.entries();
        if let Some(held) = entries.get_mut(identity) {
            held.own |= own;
            held.asked = asked;
            return held.entry.clone();
        }
        let state = watch::Sender::new(State::default());
        let entry = Arc::new(Entry { state, wanted: Notify::new(), doubts: Arc::default() });
        let keeper = tasks::spawn("certificate", self.clone().keep(identity.clone(), entry.clone()));
        entries.insert(identity.clone(), Held { entry: entry.clone(), keeper, own, asked });
        entry
    }

    /// Fetches, waits for renewal or a caller, fetches again, until nobody wants the identity; forgetting it aborts this.
    async fn keep(self, identity: Identity, entry: Arc<Entry>) {
        let mut failures = 0;
        let mut renewals = self.renewals.subscribe();
        loop {
            // What is fetched now is new enough.
            renewals.mark_unchanged();
            let wait = match self.fetch(&identity).await {
                Ok((credential, request)) => {
                    failures = 0;
                    let wait =
                        rotation::renew_after(clock::unix_seconds(), credential.not_after(), (self.random)());
                    info!(%identity, not_after = credential.not_after(), "certificate received");
                    // Before anybody hears of it: who saves the certificates then saves them with this bundle.
                    self.put_in_force(&entry, credential, request);
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
            match self.wait(&identity, &entry, (wait, &mut renewals)).await {
                Next::Fetch => {}
                Next::Leave => {
                    info!(%identity, "nobody wants this identity; its certificate is dropped");
                    return;
                }
            }
        }
    }

    /// Puts the answer to a request in force, and its bundle for every identity of its trust domain if that is a new one.
    ///
    /// With the answer to a request that was overtaken the newer bundle stays, and the CA is asked once more: of the two
    /// answers either may be the newer one, as both requests were under way at once.
    fn put_in_force(&self, entry: &Entry, credential: Credential, request: Request) {
        // Locked to the end, so that no bundle comes between.
        let mut bundles = self.bundles();
        let domain = credential.identity().trust_domain().clone();
        let learned = bundles.learn(&domain, credential.roots(), request);
        let credential = match (learned, bundles.in_force(&domain)) {
            (Learned::Overtaken, Some(roots)) => {
                info!(%domain, "an answer that was overtaken has another trust bundle; the one in force stays");
                entry.doubts.notify_one();
                trusting(credential, roots.to_vec())
            }
            (Learned::New | Learned::Same | Learned::Overtaken, _) => credential,
        };
        let credential = Arc::new(credential.kept_by(&entry.doubts));
        entry.state.send_replace(State { credential: Some(credential.clone()), failure: None });
        match learned {
            Learned::New => self.share_bundle(&credential),
            Learned::Same | Learned::Overtaken => {}
        }
    }

    /// Gives the bundle of a certificate to every identity of its trust domain. The bundles are locked.
    fn share_bundle(&self, newest: &Credential) {
        let (domain, roots) = (newest.identity().trust_domain(), newest.roots());
        info!(%domain, roots = roots.len(), "there is a new trust bundle");
        let entries = self.entries();
        for (_, held) in entries.iter().filter(|(identity, _)| identity.trust_domain() == domain) {
            held.entry.state.send_if_modified(|state| {
                let Some(old) = state.credential.as_ref().filter(|old| old.roots() != roots) else {
                    return false;
                };
                match old.trusting(roots.to_vec()) {
                    Ok(credential) => {
                        state.credential = Some(Arc::new(credential));
                        true
                    }
                    Err(error) => {
                        warn!(identity = %old.identity(), %error, "the new trust bundle cannot be used");
                        false
                    }
                }
            });
        }
    }

    /// Whether a doubt about the bundle makes the CA be asked now.
    fn heeds_doubt(&self, identity: &Identity) -> bool {
        self.bundles().may_ask(identity.trust_domain(), clock::monotonic())
    }

    /// Waits for the time, for a caller that has no valid certificate, for a doubt about the trust bundle, for word that
    /// everything is to be fetched anew, or until nobody wants the identity.
    async fn wait(
        &self,
        identity: &Identity,
        entry: &Arc<Entry>,
        (wait, renewals): (Duration, &mut watch::Receiver<u64>),
    ) -> Next {
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            let left = match self.kept_for(identity, entry) {
                Some(Duration::ZERO) => return Next::Leave,
                left => left,
            };
            let unwanted = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut until => return Next::Fetch,
                () = entry.wanted.notified() => {
                    if valid(&entry.state.borrow()).is_none() {
                        return Next::Fetch;
                    }
                }
                () = entry.doubts.notified() => {
                    if self.heeds_doubt(identity) {
                        return Next::Fetch;
                    }
                }
                // The store holds the sender, and we are the store.
                Ok(()) = renewals.changed() => {
                    let part = u32::try_from((self.random)() % 1000).unwrap_or_default();
                    let soon = tokio::time::Instant::now() + RENEWED_WITHIN * part / 1000;
                    if soon < until.deadline() {
                        until.as_mut().reset(soon);
                    }
                }
                () = unwanted => {}
            }
        }
    }

    /// How long the identity stays if nobody asks for it; no time left removes it.
    fn kept_for(&self, identity: &Identity, entry: &Arc<Entry>) -> Option<Duration> {
        let now = clock::monotonic();
        let mut entries = self.entries();
        let Some(held) = entries.get(identity).filter(|held| Arc::ptr_eq(&held.entry, entry)) else {
            return Some(Duration::ZERO);
        };
        let idle = now.saturating_duration_since(held.asked);
        let left = rotation::kept_for(held.own, idle, self.unwanted_after);
        if left == Some(Duration::ZERO) {
            entries.remove(identity);
        }
        left
    }

    async fn fetch(&self, identity: &Identity) -> Result<(Credential, Request), String> {
        let _turn = self.fetches.acquire().await.map_err(|e| e.to_string())?;
        let csr = csr::new(identity).map_err(|e| e.to_string())?;
        let request = self.bundles().begin();
        let chain = tokio::time::timeout(FETCH_TIMEOUT, self.ca.sign(identity, &csr.pem))
            .await
            .map_err(|_| format!("the CA did not answer within {FETCH_TIMEOUT:?}"))??;
        let credential = Credential::new(identity, &chain, &csr.key_der);
        credential.map(|credential| (credential, request)).map_err(|e: CredentialError| e.to_string())
    }
}

/// The certificate with the bundle that is in force, or with its own if that cannot be used, which it could be when it
/// came.
fn trusting(credential: Credential, roots: Vec<CertificateDer<'static>>) -> Credential {
    match credential.trusting(roots) {
        Ok(trusting) => trusting,
        Err(error) => {
            warn!(identity = %credential.identity(), %error, "the trust bundle in force cannot be used");
            credential
        }
    }
}

/// What a keeper does after it has waited.
enum Next {
    Fetch,
    Leave,
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
