//! Which network namespace is a pod's: found by its uid, proven by what is inside it, looked at twice.
//!
//! A wrong namespace would give its traffic the wrong identity, so everything that cannot be proven is an error and
//! nothing is guessed. Here the sandbox directory holds one link a pod; finding sandboxes through a container runtime
//! would be another way to the same proof.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_net::linux::netns::{NetNs, NetNsError, NetNsId};
use ambit_types::reason::Reason;

use crate::datapath::routing::{Netlink, RoutingError};
use crate::handoff::SharedNetNs;

#[cfg(test)]
mod tests;

/// Why a pod's namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// There is none yet, or none any more.
    #[error("no namespace at {path}; is the pod's sandbox up?")]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// What is there is no network namespace, or cannot be opened.
    #[error("what the sandbox directory names for the pod cannot be used")]
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
            Self::Missing { .. } | Self::Addresses(_) => Reason::NotCaptured,
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
    directory: PathBuf,
    /// Namespaces that are the node's.
    nodes: BTreeSet<NetNsId>,
    owners: Mutex<BTreeMap<NetNsId, String>>,
}

impl Sandboxes {
    /// Looks in `directory` for links named by pod uid.
    ///
    /// # Errors
    /// [`NetNsError`] if our own namespace cannot be told, for then nothing could be proven.
    pub fn new(directory: &Path) -> Result<Self, NetNsError> {
        let own = NetNs::current()?.id();
        // In a container the machine's first process may not be visible; ours is known in any case.
        let first = NetNs::open(Path::new("/proc/1/ns/net")).map(|netns| netns.id());
        let nodes = [Ok(own), first].into_iter().flatten().collect();
        Ok(Self { directory: directory.to_owned(), nodes, owners: Mutex::default() })
    }

    /// Finds the pod's namespace and proves it: a network namespace, not the node's, not another pod's, and with
    /// every address of the pod inside. Looks twice, so that a sandbox being replaced is noticed.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn claim(&self, uid: &str, addresses: &BTreeSet<IpAddr>) -> Result<Sandbox, SandboxError> {
        let netns = self.open(uid)?;
        let path = self.path(uid)?;
        let first = self.prove(&path, &netns, addresses).await?;
        let again = self.open(uid)?;
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
        if self.open(uid)?.id() == sandbox.netns.id() {
            return Ok(());
        }
        Err(SandboxError::Replaced { path: self.path(uid)? })
    }

    /// Opens what the directory names for the pod, proving only that it is a namespace and not the node's.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn open(&self, uid: &str) -> Result<NetNs, SandboxError> {
        let path = self.path(uid)?;
        let netns = match NetNs::open(&path) {
            Err(NetNsError::Open { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(SandboxError::Missing { path });
            }
            other => other.map_err(SandboxError::Unusable)?,
        };
        if self.nodes.contains(&netns.id()) {
            return Err(SandboxError::Nodes { path });
        }
        Ok(netns)
    }

    /// Forgets what the pod had; its namespace may be given to another.
    pub fn release(&self, uid: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != uid);
    }

    /// How many pods have a namespace.
    pub fn claimed(&self) -> usize {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn path(&self, uid: &str) -> Result<PathBuf, SandboxError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if uid.is_empty() || uid.starts_with('.') || !uid.chars().all(plain) {
            return Err(SandboxError::Uid { uid: uid.to_owned() });
        }
        Ok(self.directory.join(uid))
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
