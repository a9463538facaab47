//! The authority in force: holds it, follows what is kept elsewhere, and carries out the steps of a rotation.
//!
//! One task owns what is kept and is the only one that changes it; signing, the server's own certificate and the
//! published bundle read what it last put in force. A kept authority that cannot be used changes nothing: the last good
//! one stays in force and the fault is told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_types::{Str, TrustDomain};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::Audit;
use super::ledger;
use super::lineage;
use super::material::{self, Issuing, MaterialError, Owner};
use super::rotation::{Phase, Ring, State, Times};
use super::secret::{Notes, Read, SecretError, Secrets};
use super::store::{self, StoreError};
use crate::push::Publisher;
use crate::world::World;

mod requests;
mod round;
mod signer;
#[cfg(test)]
mod tests;

use requests::Requests;
use round::Round;
pub use signer::{Signer, Stale};

/// Between two looks at a rotation.
const LOOK: Duration = Duration::from_secs(1);
/// Commands that wait.
const COMMANDS: usize = 4;

/// Why there is no authority, or a change was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// On disk.
    #[error(transparent)]
    Disk(#[from] StoreError),
    /// In a Secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What is kept cannot be used.
    #[error("the authority that is kept cannot be used: {0}")]
    Unusable(#[from] MaterialError),
}

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Root of trust of every identity.
    pub trust_domain: TrustDomain,
    /// Longest life of a leaf.
    pub leaf_ttl: Duration,
    /// How long the steps of a rotation take.
    pub times: Times,
    /// How long an answer must be followed by silence to count, in seconds; [`ledger::CONFIRM`] unless in tests.
    pub confirm: u64,
}

impl Settings {
    /// The usual ones for keys on disk (`alone`), or in a Secret that several replicas share.
    pub fn new(trust_domain: TrustDomain, leaf_ttl: Duration, alone: bool) -> Self {
        let times = if alone { Times::ALONE } else { Times::REPLICAS };
        Self { trust_domain, leaf_ttl, times, confirm: ledger::CONFIRM }
    }
}

/// Where an authority is kept.
#[derive(Debug, Clone)]
enum Store {
    Disk(PathBuf),
    Secret(Secrets),
}

/// What somebody wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// Begin a rotation.
    Rotate,
    /// Go back to the issuer from before it.
    Abort,
    /// Have proxies that are behind asked once more, now.
    Resume,
}

impl Command {
    /// Its name, as people write it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Abort => "abort",
            Self::Resume => "resume",
        }
    }
}

type Asked = (Command, oneshot::Sender<Result<(), String>>);

/// What is known of the authority and its rotation, for those who ask.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) ring: Ring<Issuing>,
    pub(super) owner: Owner,
    version: String,
    /// What stands beside the keys.
    notes: Notes,
    /// What is wrong with what is kept, or why it could not be read or changed.
    pub(super) problem: Option<String>,
    /// Whether it could be read last.
    is_readable: bool,
    /// Proxies that hold the rotation up, the first of them by name, and how many there are.
    pub(super) behind: Vec<Str>,
    pub(super) behind_count: usize,
    pub(super) required_count: usize,
    pub(super) leads: bool,
}

impl Known {
    pub(super) fn of(ring: Ring<Issuing>, owner: Owner, version: String) -> Self {
        Self {
            ring,
            owner,
            version,
            notes: Notes::default(),
            problem: None,
            is_readable: true,
            behind: Vec::new(),
            behind_count: 0,
            required_count: 0,
            leads: false,
        }
    }
}

/// Holds the authority. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    store: Store,
    pub(super) settings: Settings,
    signer: Signer,
    bundle: Arc<watch::Sender<Arc<str>>>,
    known: Arc<Mutex<Known>>,
    commands: mpsc::Sender<Asked>,
    asked: Arc<Mutex<Option<mpsc::Receiver<Asked>>>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("store", &self.store)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// Where a keeper sees which proxies there are and which of them it could hear.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Pods and waypoints.
    pub world: Arc<World>,
    /// Open streams.
    pub publisher: Arc<Publisher>,
}

impl Seen {
    /// Proxies with a stream here, as `callers::required` names them.
    fn present(&self) -> BTreeSet<Str> {
        let nodes = self.publisher.sync(std::iter::empty()).into_iter().filter(|node| node.connected);
        let waypoints = self.publisher.sync_waypoints(|_| true).into_iter().filter(|one| one.connected);
        let replicas = waypoints.filter_map(|one| {
            let (namespace, _) = one.gateway.split_once('/')?;
            Some(Str::from(format!("{namespace}/{}", one.pod)))
        });
        nodes.map(|node| Str::from(node.node)).chain(replicas).collect()
    }
}

impl Keeper {
    /// The authority in a folder; made if there is none.
    ///
    /// # Errors
    /// [`KeepError`]; nothing is replaced then.
    pub fn on_disk(folder: &Path, settings: Settings, now: SystemTime) -> Result<Self, KeepError> {
        let ring = store::load(folder, &settings.trust_domain, now)?;
        let read = Read { ring, owner: Owner::Us, version: String::new(), notes: Notes::default() };
        Self::new(Store::Disk(folder.to_owned()), settings, read)
    }

    /// The authority in Secrets; made if there is none.
    ///
    /// # Errors
    /// [`KeepError`]; nothing is replaced then.
    pub async fn in_secret(secrets: Secrets, settings: Settings, now: SystemTime) -> Result<Self, KeepError> {
        let read = secrets.open(&settings.trust_domain, now).await?;
        Self::new(Store::Secret(secrets), settings, read)
    }

    fn new(store: Store, settings: Settings, read: Read) -> Result<Self, KeepError> {
        let authority = Arc::new(material::assemble(&read.ring, &settings.trust_domain, read.owner)?);
        let first = at_start(&read.ring, settings.times, clock::unix_seconds())?;
        let bundle = Arc::new(watch::Sender::new(first));
        let fresh = Duration::from_secs(settings.times.fresh());
        let fresh = matches!(store, Store::Secret(_)).then_some(fresh);
        let signer = Signer::new(authority, settings.times, fresh);
        let Read { ring, owner, version, notes } = read;
        let known = Known { notes, ..Known::of(ring, owner, version) };
        let (commands, asked) = mpsc::channel(COMMANDS);
        let (known, asked) = (Arc::new(Mutex::new(known)), Arc::new(Mutex::new(Some(asked))));
        Ok(Self { store, settings, signer, bundle, known, commands, asked })
    }

    /// What signs.
    pub fn signer(&self) -> Signer {
        self.signer.clone()
    }

    /// The trust bundle to be published, as `root-cert.pem` of ConfigMap `istio-ca-root-cert` has it, and word of
    /// others. Lines that begin with `#` say which generation it is; see [`certificates_only`].
    pub fn bundle_changes(&self) -> watch::Receiver<Arc<str>> {
        self.bundle.subscribe()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a command carried out.
    ///
    /// # Errors
    /// Why it was not, in words.
    pub(super) async fn command(&self, command: Command) -> Result<(), String> {
        let (told, answer) = oneshot::channel();
        let ended = || "the program is about to end".to_owned();
        self.commands.send((command, told)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Follows what is kept and carries out rotations while `leader` says so, until `drain` begins. What is asked at the
    /// Secret is recorded in `audit`. To be run once.
    pub async fn follow(self, seen: Seen, audit: Arc<Audit>, leader: watch::Receiver<bool>, drain: Drain) {
        let Some(mut asked) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let mut changes = match &self.store {
            Store::Disk(_) => futures_util::stream::pending().boxed(),
            Store::Secret(secrets) => secrets.changes().boxed(),
        };
        // The program may have waited for long since it opened the authority, and signs nothing until it is read again.
        let _ = self.reload().await;
        let (mut round, mut requests) = (Round::new(&self.store), Requests::new(audit));
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = changes.next() => {
                    let _ = self.reload().await;
                }
                Some((command, told)) = asked.recv() => {
                    // Who asked may have gone away.
                    let _ = told.send(self.carry_out(command).await);
                }
                () = drain.draining() => return,
            }
            let leads = *leader.borrow();
            self.known().leads = leads;
            if leads {
                requests.take_up(&self).await;
            }
            round.look(&self, &seen, leads).await;
            if leads {
                requests.tell(&self).await;
            }
        }
    }

    /// Reads what is kept; what cannot be used changes nothing. Whether it could be read.
    async fn reload(&self) -> bool {
        let Store::Secret(secrets) = &self.store else { return true };
        let (begun, is_fresh) = (clock::monotonic(), self.signer.is_fresh());
        let problem = match secrets.read().await {
            Ok(Some(read)) => self.adopt(read, is_fresh).err(),
            Ok(None) => self.restore(secrets, is_fresh).await.err(),
            Err(error @ SecretError::Unusable { .. }) => Some(error.to_string()),
            Err(error) => {
                self.known().is_readable = false;
                self.tell(Some(full(&error)));
                return false;
            }
        };
        self.signer.confirm(begun);
        self.known().is_readable = true;
        self.tell(problem);
        true
    }

    /// The Secret is gone: one of ours is written anew as it is in force, so that nobody who starts finds none. Who was
    /// away itself may hold an older one, and leaves that to others until the next look.
    async fn restore(&self, secrets: &Secrets, is_fresh: bool) -> Result<(), String> {
        let (ring, owner) = {
            let known = self.known();
            (known.ring.clone(), known.owner)
        };
        if owner == Owner::Plugged || !is_fresh {
            return Err("the Secret is gone; the authority in force is the one it held".to_owned());
        }
        let written = secrets.create(&ring).await;
        let read = written.map_err(|error| {
            let why = full(&error);
            format!("the Secret is gone and cannot be written anew; the authority in force is the one it held: {why}")
        })?;
        warn!("the Secret of the certificate authority was gone; it is written anew from what is in force");
        self.adopt(read, is_fresh)
    }

    /// Puts an authority that was read in force, if it differs and may follow the one in force, which `is_fresh` if it was
    /// read lately.
    fn adopt(&self, read: Read, is_fresh: bool) -> Result<(), String> {
        let mut known = self.known();
        if known.ring == read.ring && known.owner == read.owner {
            (known.version, known.notes) = (read.version, read.notes);
            return Ok(());
        }
        // Where nothing lags, steps follow each other at once.
        let sees_each_step = is_fresh && self.settings.times.lag > 0;
        lineage::follows((&known.ring, known.owner), (&read.ring, read.owner), sees_each_step)?;
        let authority = material::assemble(&read.ring, &self.settings.trust_domain, read.owner)
            .map_err(|e| e.to_string())?;
        let state = read.ring.state;
        info!(
            generation = state.generation, phase = state.phase.as_str(), owner = ?read.owner,
            "another certificate authority is in force"
        );
        let Read { ring, owner, version, notes } = read;
        *known = Known { ring, owner, version, notes, ..known.clone() };
        drop(known);
        self.signer.put(authority);
        Ok(())
    }

    /// Notes what is wrong; logs it once.
    fn tell(&self, problem: Option<String>) {
        let mut known = self.known();
        if known.problem != problem {
            match &problem {
                Some(problem) => warn!(%problem, "the certificate authority in force stays as it is"),
                None => info!("the problem with the certificate authority is gone"),
            }
            known.problem = problem;
        }
    }

    async fn carry_out(&self, command: Command) -> Result<(), String> {
        // On the newest there is, so that nobody is told that somebody else was faster.
        let _ = self.reload().await;
        self.keep(&self.decide(command)?, None).await
    }

    /// What a command makes of the authority in force.
    fn decide(&self, command: Command) -> Result<Ring<Issuing>, String> {
        let ring = {
            let known = self.known();
            if known.owner == Owner::Plugged {
                return Err(
                    "the authority is plugged in: rotate it where it comes from, first the bundle, then \
                            the issuer, then the bundle again"
                        .to_owned(),
                );
            }
            known.ring.clone()
        };
        let now = clock::unix_seconds();
        let next = match command {
            Command::Rotate => {
                let made = material::make(&self.settings.trust_domain, clock::wall());
                let (fresh, _) = made.map_err(|e| format!("making a new root: {e}"))?;
                ring.begin(fresh, now, self.settings.leaf_ttl.as_secs())
            }
            Command::Abort => ring.abort(now),
            Command::Resume => ring.resume(now),
        };
        next.map_err(|refused| refused.to_string())
    }

    /// Keeps an authority and puts it in force; in a Secret, with the answer to whoever asked for it.
    async fn keep(&self, next: &Ring<Issuing>, answer: Option<&str>) -> Result<(), String> {
        // Never keep what could not be read again.
        material::assemble(next, &self.settings.trust_domain, Owner::Us).map_err(|e| e.to_string())?;
        let version = self.known().version.clone();
        let begun = clock::monotonic();
        let read = match &self.store {
            Store::Disk(folder) => {
                store::save(folder, next).map_err(|e| full(&e))?;
                Read { ring: next.clone(), owner: Owner::Us, version, notes: Notes::default() }
            }
            Store::Secret(secrets) => secrets.replace(next, &version, answer).await.map_err(|e| full(&e))?,
        };
        self.signer.confirm(begun);
        self.adopt(read, true)
    }

    /// Publishes the bundle in force once every replica answers with it.
    fn publish(&self, now: u64) {
        let authority = self.signer.current();
        let state = authority.state();
        if state.phase != Phase::Idle && state.counting(now, self.settings.times) != state.generation {
            return;
        }
        let text = published(state, authority.roots_pem());
        self.bundle.send_if_modified(|held| {
            let differs = *held != text;
            if differs {
                *held = text;
            }
            differs
        });
    }
}

/// The bundle as it is published. Proxies that watch it ask for certificates anew when it changes; its first line
/// changes with every generation, and to nudge those that stay behind.
fn published(state: State, roots: &str) -> Arc<str> {
    let (generation, nudge) = (state.generation, state.nudge);
    match generation {
        0 => Arc::from(roots),
        _ => Arc::from(format!("# Roots of trust, generation {generation}.{nudge}\n{roots}")),
    }
}

/// What a program that starts publishes: while another replica may still answer with the generation before, the bundle
/// of that one. Who asked anew now would get an answer that counts for nothing, and not ask again for long.
fn at_start(ring: &Ring<Issuing>, times: Times, now: u64) -> Result<Arc<str>, MaterialError> {
    let state = ring.state;
    let is_early = state.phase != Phase::Idle && state.counting(now, times) != state.generation;
    let shown = if is_early { ring.before() } else { ring.clone() };
    Ok(published(shown.state, &material::bundle(&shown)?))
}

/// A published bundle without the lines that begin with `#`, for a ClusterTrustBundle, which takes nothing but
/// certificates.
pub fn certificates_only(bundle: &str) -> String {
    bundle.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Keeps a file in step with the published bundle until `drain` begins; readable by everybody.
pub async fn keep_file(path: PathBuf, mut bundle: watch::Receiver<Arc<str>>, drain: Drain) {
    loop {
        let text = bundle.borrow_and_update().clone();
        if let Err(error) = store::replace(&path, text.as_bytes()) {
            warn!(error = full(&error), "the trust bundle could not be written");
        }
        tokio::select! {
            changed = bundle.changed() => if changed.is_err() { return },
            () = drain.draining() => return,
        }
    }
}

/// An error with its causes.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
