//! Hands pod namespaces to ztunnel over ZDS: listens, checks who connects, sends what the roster says.
//!
//! Whoever connects must be root or this program's own user. A ztunnel that does not answer in time is disconnected
//! rather than let out of step: it comes back and gets everything again. What is to be served is decided elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsId};
use ambit_net::seqpacket::{PeerCred, SeqpacketConn, SeqpacketError, SeqpacketListener};
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use line::{Inbox, serve};
use roster::{Entry, Holding, LineId, Roster};

mod line;
pub mod roster;
mod wire;

#[cfg(test)]
mod tests;

/// Connections that may be open at once; two during a rolling update is the rule.
const LINES_MAX: usize = 8;
/// Pause after a failed or refused accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time limits of the hand-over.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest wait for a hello, for sending one message and for its answer.
    pub deadline: Duration,
}

impl Default for Limits {
    /// 5 s, as ZDS has it.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5) }
    }
}

/// Why the hand-over cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The socket's directory cannot be made or looked at.
    #[error("preparing {path} for a socket")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// Others than the owner may enter the directory.
    #[error("{path} has mode {mode:o}, so others may reach the socket in it; make it 700")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The socket cannot be opened.
    #[error("opening the socket")]
    Socket(#[from] SeqpacketError),
}

/// A namespace that is shared with whoever sends it; equal if it is the same namespace.
#[derive(Debug, Clone)]
pub struct SharedNetNs(pub Arc<NetNs>);

impl PartialEq for SharedNetNs {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for SharedNetNs {}

impl SharedNetNs {
    /// Which namespace it is.
    pub fn id(&self) -> NetNsId {
        self.0.id()
    }
}

#[derive(Debug)]
struct Shared {
    roster: Mutex<Roster<SharedNetNs>>,
    /// Something was put into the roster that connections may have to be told.
    told: Notify,
    /// A ztunnel came, went or answered.
    answered: watch::Sender<u64>,
}

impl Shared {
    fn roster<R>(&self, work: impl FnOnce(&mut Roster<SharedNetNs>) -> R) -> R {
        work(&mut self.roster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_answer(&self) {
        self.answered.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// What the rest of the program sees of the hand-over.
#[derive(Debug, Clone)]
pub struct Handoff {
    shared: Arc<Shared>,
    opened: Arc<watch::Sender<bool>>,
}

impl Handoff {
    /// Listens at `path` (mode 0600 in a directory of mode 0700). Nobody is accepted before [`Handoff::open`].
    ///
    /// # Errors
    /// [`HandoffError`].
    pub fn start(path: &Path, limits: Limits, drain: &Drain) -> Result<Self, HandoffError> {
        prepare_directory(path)?;
        let listener = SeqpacketListener::bind(path, 0o600)?;
        let (answered, _) = watch::channel(0);
        let shared = Arc::new(Shared { roster: Mutex::default(), told: Notify::new(), answered });
        let opened = Arc::new(watch::Sender::new(false));
        let server = Server {
            shared: Arc::clone(&shared),
            lines: BTreeMap::new(),
            next: 1,
            limits,
            drain: drain.clone(),
        };
        tasks::spawn("handoff", server.run(listener, opened.subscribe()));
        Ok(Self { shared, opened })
    }

    /// Begins to accept. Call it when every pod that may be running is in the roster: at the end of its snapshot a
    /// ztunnel stops what it was not told of.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// A pod is to be served, or kept if its namespace is not at hand; asks again after a refusal.
    pub fn set(&self, uid: &str, entry: Entry<SharedNetNs>) {
        self.shared.roster(|roster| roster.handle_set(uid, entry));
        self.shared.told.notify_one();
    }

    /// A pod is not to be served any more.
    pub fn remove(&self, uid: &str) {
        self.shared.roster(|roster| roster.handle_remove(uid));
        self.shared.told.notify_one();
    }

    /// Where a pod stands with the newest ztunnel.
    pub fn holding(&self, uid: &str) -> Holding {
        self.shared.roster(|roster| roster.holding(uid))
    }

    /// Whether a ztunnel is connected and has the whole snapshot.
    pub fn is_served(&self) -> bool {
        self.shared.roster(|roster| roster.is_served())
    }

    /// Counts the comings, goings and answers of ztunnels; for waiting until one changes something.
    pub fn answers(&self) -> watch::Receiver<u64> {
        self.shared.answered.subscribe()
    }

    /// Like [`Handoff::set`], and waits at most `patience` for the newest ztunnel's answer.
    pub async fn offer(&self, uid: &str, entry: Entry<SharedNetNs>, patience: Duration) -> Holding {
        let mut answers = self.answers();
        self.set(uid, entry);
        let settled = async {
            loop {
                let holding = self.holding(uid);
                match holding {
                    Holding::Held | Holding::Refused(_) | Holding::NoZtunnel => return holding,
                    Holding::Waiting => {}
                }
                if answers.changed().await.is_err() {
                    return holding;
                }
            }
        };
        timeout(patience, settled).await.unwrap_or(Holding::Waiting)
    }

    /// Like [`Handoff::remove`], and waits at most `patience` until every ztunnel has answered.
    pub async fn withdraw(&self, uid: &str, patience: Duration) {
        let mut answers = self.answers();
        self.remove(uid);
        let settled = async {
            while self.shared.roster(|roster| roster.is_leaving(uid)) {
                if answers.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(patience, settled).await.is_err() {
            warn!(uid, "no ztunnel confirmed within {patience:?} that it stopped serving the pod");
        }
    }
}

/// Makes a socket's directory if need be, and refuses one that others may enter.
pub(crate) fn prepare_directory(socket: &Path) -> Result<(), HandoffError> {
    let Some(path) = socket.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    let fail = |cause: io::Error| HandoffError::Directory { path: path.to_owned(), cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
    let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HandoffError::Open { path: path.to_owned(), mode });
    }
    Ok(())
}

/// What a connection reports.
#[derive(Debug)]
enum Report {
    Hello,
    Answer(Result<(), String>),
    Lost(String),
}

struct Server {
    shared: Arc<Shared>,
    lines: BTreeMap<LineId, Inbox>,
    next: LineId,
    limits: Limits,
    drain: Drain,
}

impl Server {
    async fn run(mut self, listener: SeqpacketListener, mut opened: watch::Receiver<bool>) {
        let (reports, mut reported) = mpsc::channel(LINES_MAX);
        loop {
            let may_accept = *opened.borrow_and_update();
            tokio::select! {
                accepted = listener.accept(), if may_accept => match accepted {
                    Ok((conn, peer)) => self.admit(conn, peer, &reports).await,
                    Err(error) => {
                        warn!(%error, "accepting a ztunnel failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some((id, report)) = reported.recv() => self.note(id, report),
                changed = opened.changed(), if !may_accept => if changed.is_err() { return },
                () = self.shared.told.notified() => {}
                () = self.drain.draining() => return,
            }
            self.dispatch();
        }
    }

    async fn admit(&mut self, conn: SeqpacketConn, peer: PeerCred, reports: &mpsc::Sender<(LineId, Report)>) {
        let own = nix::unistd::geteuid().as_raw();
        if !is_permitted(peer, own) {
            metrics::counter!("ambit_zds_refused_total").increment(1);
            warn!(
                pid = peer.pid,
                uid = peer.uid,
                gid = peer.gid,
                "refused a stranger at the socket to ztunnel"
            );
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return;
        }
        if self.lines.len() >= LINES_MAX {
            metrics::counter!("ambit_zds_refused_total").increment(1);
            warn!(pid = peer.pid, "refused a ztunnel: {LINES_MAX} are connected already");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return;
        }
        let id = self.next;
        self.next += 1;
        if !self.lines.is_empty() {
            info!(
                pid = peer.pid,
                connected = self.lines.len() + 1,
                "another ztunnel connected; is one being replaced?"
            );
        }
        info!(pid = peer.pid, line = id, "a ztunnel connected");
        self.shared.roster(|roster| roster.handle_connected(id));
        let (inbox, messages) = mpsc::channel(1);
        self.lines.insert(id, inbox);
        tasks::spawn("handoff-line", serve(conn, id, messages, reports.clone(), self.limits.deadline));
    }

    fn note(&mut self, id: LineId, report: Report) {
        match report {
            Report::Hello => self.shared.roster(|roster| roster.handle_hello(id)),
            Report::Answer(answer) => self.shared.roster(|roster| roster.handle_answer(id, answer)),
            Report::Lost(why) => {
                info!(line = id, why, "a ztunnel disconnected");
                self.lines.remove(&id);
                self.shared.roster(|roster| roster.handle_lost(id));
            }
        }
        metrics::gauge!("ambit_ztunnel_connections").set(self.lines.len() as f64);
        self.shared.note_answer();
    }

    /// Gives every idle connection its next message.
    fn dispatch(&mut self) {
        for (id, inbox) in &self.lines {
            let Ok(slot) = inbox.try_reserve() else { continue };
            if let Some(message) = self.shared.roster(|roster| roster.poll(*id)) {
                slot.send(message);
            }
        }
    }
}

/// Root and this program's own user; anybody else could take namespaces or register nonsense (T-90).
pub(crate) fn is_permitted(peer: PeerCred, own_uid: u32) -> bool {
    peer.uid == 0 || peer.uid == own_uid
}
