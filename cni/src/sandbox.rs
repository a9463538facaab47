//! Which network namespace is a pod's: found by its uid, proven by what is inside it, looked at twice.
//!
//! A wrong namespace would give its traffic the wrong identity, so everything that cannot be proven is an error and
//! nothing is guessed. A namespace is found through a directory with one link a pod, or through the processes in the
//! pod's control group; and before a pod has any, the container runtime gives it, by way of the CNI plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsError, NetNsId};
use ambit_types::reason::Reason;
use tokio::sync::watch;
use tracing::info;

use crate::datapath::routing::{Netlink, RoutingError};
use crate::handoff::SharedNetNs;
use gift::Gift;
use process::Processes;

pub mod cgroup;
mod gift;
mod process;

#[cfg(test)]
mod tests;

/// A pod's namespace, and what it is called in messages.
type Found = (PathBuf, NetNs);

/// How long a given namespace counts without asking for processes: containers take a while to start, and those of an
/// earlier sandbox a while to end.
const SETTLE: Duration = Duration::from_secs(10);

/// Why a pod's namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// There is none yet, or none any more.
    #[error("no namespace of the pod in {path}; is its sandbox up?")]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// What is there is no network namespace, or cannot be opened.
    #[error("what was found for the pod cannot be used")]
    Unusable(#[source] NetNsError),
    /// The uid cannot be the name of a link.
    #[error("uid {uid:?} cannot name a sandbox")]
    Uid {
        /// The uid.
        uid: String,
    },
    /// It is the node's own.
    #[error("{path} leads to the node's own network, which is never a pod's")]
    Nodes {
        /// Where it was found.
        path: PathBuf,
    },
    /// The pod's address is not in it.
    #[error("{address} of the pod is not in the namespace at {path}; it has {found}")]
    Address {
        /// Where it was found.
        path: PathBuf,
        /// The address that the pod's status names.
        address: IpAddr,
        /// What is there.
        found: String,
    },
    /// A namespace that was given cannot be kept.
    #[error("keeping the namespace that the container runtime gave")]
    Kept(#[source] std::io::Error),
    /// It became another one while we looked.
    #[error("the namespace at {path} was replaced while it was examined")]
    Replaced {
        /// Where it was found.
        path: PathBuf,
    },
    /// Another pod has it.
    #[error("the namespace at {path} already belongs to the pod with uid {owner}")]
    Taken {
        /// Where it was found.
        path: PathBuf,
        /// The pod that has it.
        owner: String,
    },
    /// Its addresses cannot be read.
    #[error("reading the addresses of the namespace")]
    Addresses(#[from] RoutingError),
}

impl SandboxError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing { .. } | Self::Addresses(_) | Self::Kept(_) => Reason::NotCaptured,
            Self::Unusable(_)
            | Self::Uid { .. }
            | Self::Nodes { .. }
            | Self::Address { .. }
            | Self::Replaced { .. }
            | Self::Taken { .. } => Reason::NetnsMismatch,
        }
    }

    /// Whether the sandbox is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// A pod's namespace, proven.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The namespace.
    pub netns: SharedNetNs,
    /// Every address inside it.
    pub addresses: BTreeSet<IpAddr>,
}

/// Finds sandboxes and remembers which pod has which.
#[derive(Debug)]
pub struct Sandboxes {
    finder: Finder,
    /// Namespaces that are the node's.
    nodes: BTreeSet<NetNsId>,
    owners: Mutex<BTreeMap<NetNsId, String>>,
    /// Namespaces that the container runtime gave, by pod uid.
    gifts: Mutex<BTreeMap<String, Gift>>,
    /// Counts what was given and taken back.
    given: watch::Sender<u64>,
}

/// How namespaces are found.
#[derive(Debug)]
enum Finder {
    /// A directory with one link a pod, named by its uid.
    Directory(PathBuf),
    /// The processes in the pod's control group.
    Processes(Processes),
}

impl Sandboxes {
    /// Looks in `directory` for links named by pod uid.
    ///
    /// # Errors
    /// [`NetNsError`] if our own namespace cannot be told, for then nothing could be proven.
    pub fn new(directory: &Path) -> Result<Self, NetNsError> {
        Self::with(Finder::Directory(directory.to_owned()), Path::new("/proc"))
    }

    /// Looks in `proc`, the node's `/proc`, for the processes of pods. To open the namespaces of processes that are
    /// not root's, this program needs `CAP_SYS_PTRACE`.
    ///
    /// # Errors
    /// [`NetNsError`] if our own namespace cannot be told, for then nothing could be proven.
    pub fn of_processes(proc: &Path) -> Result<Self, NetNsError> {
        Self::with(Finder::Processes(Processes::new(proc)), proc)
    }

    fn with(finder: Finder, proc: &Path) -> Result<Self, NetNsError> {
        let own = NetNs::current()?.id();
        // In a container the machine's first process may not be visible; ours is known in any case.
        let first = NetNs::open(&proc.join("1/ns/net")).map(|netns| netns.id());
        let nodes = [Ok(own), first].into_iter().flatten().collect();
        let (owners, gifts) = (Mutex::default(), Mutex::default());
        Ok(Self { finder, nodes, owners, gifts, given: watch::Sender::new(0) })
    }

    /// Finds the pod's namespace and proves it: a network namespace, not the node's, not another pod's, and with
    /// every address of the pod inside. Looks twice, so that a sandbox being replaced is noticed.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn claim(&self, uid: &str, addresses: &BTreeSet<IpAddr>) -> Result<Sandbox, SandboxError> {
        let (path, netns) = self.find(uid)?;
        let first = self.prove(&path, &netns, addresses).await?;
        let (_, again) = self.find(uid)?;
        if again.id() != netns.id() {
            return Err(SandboxError::Replaced { path });
        }
        self.prove(&path, &again, addresses).await?;
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        match owners.get(&netns.id()) {
            Some(owner) if owner != uid => return Err(SandboxError::Taken { path, owner: owner.clone() }),
            Some(_) | None => {}
        }
        owners.retain(|_, owner| owner != uid);
        owners.insert(netns.id(), uid.to_owned());
        Ok(Sandbox { netns: SharedNetNs(Arc::new(netns)), addresses: first })
    }

    /// Whether the pod's sandbox is still the one that was proven.
    ///
    /// # Errors
    /// [`SandboxError`] if it is gone or another.
    pub fn confirm(&self, uid: &str, sandbox: &Sandbox) -> Result<(), SandboxError> {
        let (path, netns) = self.find(uid)?;
        if netns.id() == sandbox.netns.id() { Ok(()) } else { Err(SandboxError::Replaced { path }) }
    }

    /// Opens the pod's namespace, proving only that it is a namespace and not the node's.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn open(&self, uid: &str) -> Result<NetNs, SandboxError> {
        self.find(uid).map(|(_, netns)| netns)
    }

    /// Every pod that can be found on this node, whether or not an object speaks of it.
    pub fn pods(&self) -> BTreeSet<String> {
        match &self.finder {
            Finder::Directory(directory) => {
                let entries = std::fs::read_dir(directory).into_iter().flatten();
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
            }
            Finder::Processes(processes) => processes.pods(),
        }
    }

    /// Forgets what the pod had; its namespace may be given to another.
    pub fn release(&self, uid: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != uid);
    }

    /// How many pods have a namespace.
    pub fn claimed(&self) -> usize {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn find(&self, uid: &str) -> Result<Found, SandboxError> {
        let (path, netns) = match self.gift(uid)? {
            Some((gift, age)) if age < SETTLE => gift,
            Some((gift, _)) => match self.seek(uid) {
                // The runtime has made another sandbox and the plugin was not told.
                Ok(Some(found)) if found.1.id() != gift.1.id() => {
                    info!(uid, "the pod's processes are in another namespace than the one that was given");
                    self.drop_gift(uid, |_| true);
                    found
                }
                Ok(_) | Err(_) => gift,
            },
            None => self.seek(uid)?.ok_or_else(|| SandboxError::Missing { path: self.place(uid) })?,
        };
        if self.nodes.contains(&netns.id()) {
            return Err(SandboxError::Nodes { path });
        }
        Ok((path, netns))
    }

    fn seek(&self, uid: &str) -> Result<Option<Found>, SandboxError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if uid.is_empty() || uid.starts_with('.') || !uid.chars().all(plain) {
            return Err(SandboxError::Uid { uid: uid.to_owned() });
        }
        match &self.finder {
            Finder::Directory(directory) => {
                let path = directory.join(uid);
                match NetNs::open(&path) {
                    Ok(netns) => Ok(Some((path, netns))),
                    Err(NetNsError::Open { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                        Ok(None)
                    }
                    Err(error) => Err(SandboxError::Unusable(error)),
                }
            }
            Finder::Processes(processes) => processes.open(uid, &self.nodes).map_err(SandboxError::Unusable),
        }
    }

    /// Where the pod's namespace would be found.
    fn place(&self, uid: &str) -> PathBuf {
        match &self.finder {
            Finder::Directory(directory) => directory.join(uid),
            Finder::Processes(processes) => processes.place().to_owned(),
        }
    }

    async fn prove(
        &self,
        path: &Path,
        netns: &NetNs,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<BTreeSet<IpAddr>, SandboxError> {
        let found = Netlink::open(netns)?.addresses().await?;
        let found: BTreeSet<IpAddr> = found.into_iter().map(|(_, address)| address).collect();
        if let Some(address) = wanted.iter().find(|address| !found.contains(address)) {
            let list: Vec<String> = found.iter().map(ToString::to_string).collect();
            let found = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            return Err(SandboxError::Address { path: path.to_owned(), address: *address, found });
        }
        Ok(found)
    }
}
