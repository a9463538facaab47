//! Writes down which addresses this node has, for the ztunnel beside: the kubelet's probes come from one of them.
//!
//! An API server lists a node's addresses as others reach it. Where a pod's network hangs on a bridge or on a tunnel's
//! interface, probes carry the address of that, which only the node itself knows. Every address of an interface that is
//! up counts, unless it could be any node's. The file lies in the folder of the hand-over's socket, which nobody else
//! may enter, and is replaced as a whole when an address comes or goes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use ambit_types::nearby::{NODE_ADDRESSES_FILE, NODE_ADDRESSES_MAX, is_of_one_node, write_node_addresses};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use rtnetlink::MulticastGroup;
use tracing::{info, warn};

#[cfg(test)]
mod tests;

/// How often the addresses are looked at although nothing was heard of a change.
const LOOK: Duration = Duration::from_secs(30);
/// Changes come in bursts, one for each part of an interface.
const SETTLE: Duration = Duration::from_millis(200);
/// What the kernel tells of.
const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// The file of a node agent whose hand-over listens at `socket`.
pub fn file_beside(socket: &Path) -> PathBuf {
    socket.with_file_name(NODE_ADDRESSES_FILE)
}

/// Removes the file of an agent that was to tell the addresses before.
///
/// # Errors
/// It is there and cannot be removed.
pub fn forget(socket: &Path) -> io::Result<()> {
    match fs::remove_file(file_beside(socket)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps the file beside `socket` as the addresses of this program's network namespace are, until `drain` begins. Its
/// folder has to be there.
pub fn follow(socket: &Path, drain: &Drain) {
    let keeper = Keeper { file: file_beside(socket), written: None, said: None };
    tasks::spawn("node-addresses", keeper.run(drain.clone()));
}

struct Keeper {
    file: PathBuf,
    written: Option<BTreeSet<IpAddr>>,
    /// What was wrong the last time, so that it is said once.
    said: Option<String>,
}

impl Keeper {
    async fn run(mut self, drain: Drain) {
        let mut news = None;
        loop {
            // Before the look: what changes after it is heard.
            if news.is_none() {
                news =
                    News::listen().map_err(|error| self.say(format!("listening for changes: {error}"))).ok();
            }
            self.look();
            let heard = tokio::select! {
                heard = next(&mut news) => heard,
                () = tokio::time::sleep(LOOK) => true,
                () = drain.draining() => return,
            };
            if !heard {
                news = None;
            }
            tokio::select! {
                () = tokio::time::sleep(SETTLE) => {}
                () = drain.draining() => return,
            }
            if let Some(news) = &mut news {
                news.forget();
            }
        }
    }

    fn look(&mut self) {
        let found = match getifaddrs() {
            Ok(all) => of_node(all.filter_map(|one| up_address(&one))),
            // What was written stays: the node has not lost its addresses by our not seeing them.
            Err(error) => return self.say(format!("listing the node's addresses: {error}")),
        };
        if found.omitted > 0 {
            self.say(format!("{} addresses more than {NODE_ADDRESSES_MAX} are left out", found.omitted));
        }
        if self.written.as_ref() == Some(&found.addresses) && self.file.exists() {
            return;
        }
        match replace(&self.file, &write_node_addresses(&found.addresses)) {
            Ok(()) => {
                info!(count = found.addresses.len(), file = %self.file.display(), "told ztunnel the node's addresses");
                self.written = Some(found.addresses);
            }
            Err(error) => self.say(format!("writing {}: {error}", self.file.display())),
        }
    }

    fn say(&mut self, words: String) {
        if self.said.as_ref() != Some(&words) {
            warn!(error = words, "ztunnel may not recognise probes from every address of the node");
        }
        self.said = Some(words);
    }
}

/// What the kernel says of interfaces and addresses.
struct News {
    told: BoxStream<'static, ()>,
    /// The conversation ends with the last of these.
    _handle: rtnetlink::Handle,
}

impl News {
    fn listen() -> io::Result<Self> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        tasks::spawn("node-addresses-news", connection);
        Ok(Self { told: messages.map(drop).boxed(), _handle: handle })
    }

    /// Passes over what has been told until now.
    fn forget(&mut self) {
        while let Some(Some(())) = self.told.next().now_or_never() {}
    }
}

/// Waits for the next news; `false` if none will come any more.
async fn next(news: &mut Option<News>) -> bool {
    match news {
        Some(news) => news.told.next().await.is_some(),
        None => std::future::pending().await,
    }
}

/// The addresses that go into the file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    addresses: BTreeSet<IpAddr>,
    /// How many had no room.
    omitted: usize,
}

/// Picks from the addresses of a node those that are of no other node; the first ones where there are too many.
fn of_node(all: impl Iterator<Item = IpAddr>) -> Found {
    let (mut addresses, mut omitted) = (BTreeSet::new(), BTreeSet::new());
    for address in all.map(|address| address.to_canonical()).filter(|address| is_of_one_node(*address)) {
        if addresses.len() < NODE_ADDRESSES_MAX || addresses.contains(&address) {
            addresses.insert(address);
        } else {
            omitted.insert(address);
        }
    }
    Found { addresses, omitted: omitted.len() }
}

/// An interface's address if it is up. One that is down sends nothing: kube-proxy keeps every service's address on such
/// a one.
fn up_address(one: &InterfaceAddress) -> Option<IpAddr> {
    if !one.flags.contains(InterfaceFlags::IFF_UP) {
        return None;
    }
    let address = one.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Replaces the file as a whole; only its owner may read and write it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let temporary = file.with_extension("new");
    // What an end in between left may have other rights.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    new.write_all(text.as_bytes())?;
    drop(new);
    fs::rename(&temporary, file)
}
