//! The addresses that this node has, as its node agent writes them down: where probes may come from beside the addresses
//! that discovery names.
//!
//! An address of this node opens ports that a pod's own probes declare and nothing else. The file lies beside the socket
//! of the hand-over; without one, or with one that others could have written, there are no such addresses.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::nearby::{
    NODE_ADDRESSES_BYTES_MAX, NODE_ADDRESSES_FILE, NodeAddressesError, read_node_addresses,
};
use nix::fcntl::OFlag;
use tracing::{debug, warn};

#[cfg(test)]
mod tests;

/// How long what was read counts before the file is looked at again.
const FRESH: Duration = Duration::from_millis(500);
/// Permission bits by which others than the owner could write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The addresses of this node; read when somebody asks, at most every 500 ms.
#[derive(Debug)]
pub struct NodeAddresses {
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    read_at: Option<Instant>,
    addresses: BTreeSet<IpAddr>,
    /// What was wrong with the file the last time, so that it is said once.
    said: Option<String>,
}

/// Why the file does not count.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("reading it failed")]
    Read(#[from] io::Error),
    #[error(
        "it is no file of root or of this program's user that others cannot write: uid {uid}, mode {mode:o}"
    )]
    Foreign { uid: u32, mode: u32 },
    #[error("it is no text")]
    NoText,
    #[error(transparent)]
    Content(#[from] NodeAddressesError),
}

impl NodeAddresses {
    /// Those in the file beside the hand-over's socket.
    pub fn beside(socket: &Path) -> Self {
        Self { file: socket.with_file_name(NODE_ADDRESSES_FILE), known: Mutex::default() }
    }

    /// Whether this node has the address, by the word of its agent.
    pub fn contains(&self, address: IpAddr) -> bool {
        let now = clock::monotonic();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |read_at: Instant| now.saturating_duration_since(read_at) < FRESH;
        if !known.read_at.is_some_and(is_fresh) {
            known.take(read(&self.file));
            known.read_at = Some(now);
        }
        known.addresses.contains(&address.to_canonical())
    }
}

impl Known {
    fn take(&mut self, read: Result<BTreeSet<IpAddr>, Refused>) {
        let words = match read {
            Ok(addresses) => {
                if addresses != self.addresses {
                    debug!(count = addresses.len(), "the node's addresses changed");
                }
                self.addresses = addresses;
                self.said = None;
                return;
            }
            // Another node agent writes none.
            Err(Refused::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
        };
        self.addresses.clear();
        if let Some(words) = words.as_deref().filter(|words| self.said.as_deref() != Some(*words)) {
            warn!(
                error = words,
                "the file of the node's addresses is not believed; probes count only from addresses of the Node object"
            );
        }
        self.said = words;
    }
}

fn read(path: &Path) -> Result<BTreeSet<IpAddr>, Refused> {
    // A link leads elsewhere, and a pipe would hold us up.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check_owner(&file)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(NODE_ADDRESSES_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| Refused::NoText)?;
    Ok(read_node_addresses(&text)?)
}

fn check_owner(file: &File) -> Result<(), Refused> {
    let metadata = file.metadata()?;
    let (uid, mode) = (metadata.uid(), metadata.mode());
    let is_known = uid == 0 || uid == nix::unistd::geteuid().as_raw();
    if metadata.is_file() && is_known && mode & WRITABLE_BY_OTHERS == 0 {
        Ok(())
    } else {
        Err(Refused::Foreign { uid, mode })
    }
}
