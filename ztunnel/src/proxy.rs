//! What every connection of the node shares, and one pod's part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_net::dns::{Resolver, Servers};
use ambit_net::linux::netns::NetNs;
use ambit_net::pool_driver::Pool;
use ambit_net::socket::{SocketFactory, SocketOptions};
use ambit_net::tls::store::CertificateStore;
use ambit_net::tunnel::TunnelSettings;
use ambit_runtime::drain::Drain;
use ambit_state::{PodRef, SameNode};
use ambit_types::Identity;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connections::Connections;
use crate::mesh::Mesh;
use crate::nearby::NodeAddresses;
use crate::random;
use crate::sources::{PerSource, Sources};
use crate::stale::Pairs;
use crate::telemetry::Telemetry;

/// Everything a connection needs. One a process.
#[derive(Debug)]
pub struct Proxy {
    /// The world.
    pub mesh: Mesh,
    /// Certificates of this node's identities.
    pub certificates: CertificateStore,
    /// Counters and records.
    pub telemetry: Telemetry,
    /// Live connections.
    pub connections: Connections,
    /// Pods that are captured here.
    pub pods: Pods,
    /// Pairs that were let in, for when the control plane is away for long.
    pub pairs: Pairs,
    /// What can be set.
    pub settings: Settings,
}

/// What can be set about connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What joins two pods of this node.
    pub same_node: SameNode,
    /// Longest wait for an application or a plain peer to take a connection.
    pub connect_timeout: Duration,
    /// HTTP/2 settings.
    pub tunnel: Arc<TunnelSettings>,
    /// Bounds of a pod's pool.
    pub pool: Limits,
    /// Options of sockets in pods.
    pub sockets: Arc<SocketOptions>,
    /// Whether applications see their client's address; `None` where the kernel permits it.
    pub original_source: Option<bool>,
    /// Whether answers tell about the destination.
    pub response_baggage: bool,
    /// Whether IPv6 is used at all.
    pub ipv6: bool,
    /// Connections of one pod at once.
    pub pod_connections_max: usize,
    /// Unfinished handshakes at one pod.
    pub pod_handshakes_max: usize,
    /// What one source address may have of one pod.
    pub per_source: PerSource,
    /// Who is asked for workloads that have a host name instead of an address.
    pub nameservers: Arc<Servers>,
    /// Addresses of this node, by the word of its agent.
    pub node_addresses: Arc<NodeAddresses>,
}

/// What tells the tunnels of a pod apart. The pod itself is the source: every pod has a pool of its own, and the
/// identity in the key keeps a re-labelled pod from using the tunnels of its former self.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Who opens it.
    pub source: Identity,
    /// Address the tunnel comes from.
    pub source_ip: IpAddr,
    /// Who may be at the other end.
    pub expected: Vec<Identity>,
    /// Where it goes.
    pub peer: SocketAddr,
}

/// One connection's place in a pod's quota.
pub type Place = OwnedSemaphorePermit;

/// Addresses of a pod that are remembered; one of each family is usual.
const ADDRESSES_MAX: usize = 16;

/// One captured pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: PodRef,
    /// Sockets in its namespace.
    pub sockets: SocketFactory,
    /// What host names resolve to, as its namespace is told.
    pub resolver: Resolver,
    /// Tunnels from it.
    pub pool: Pool<TunnelKey>,
    /// Ends its connections.
    pub drain: Drain,
    /// Whether sockets towards the application may carry foreign addresses.
    pub transparent: bool,
    /// Connections it may still have.
    pub quota: Arc<Semaphore>,
    /// Handshakes that may still be begun at it.
    pub handshakes: Arc<Semaphore>,
    /// What each source address has of it.
    pub sources: Sources,
    /// Addresses that were found to be its namespace's; they are for as long as it is captured.
    addresses: Mutex<BTreeSet<IpAddr>>,
}

impl Pod {
    /// A pod whose sockets live in `netns`.
    pub fn new(
        name: PodRef,
        netns: Option<Arc<NetNs>>,
        transparent: bool,
        drain: Drain,
        settings: &Settings,
    ) -> Self {
        let sockets = SocketFactory::new(netns, settings.sockets.clone());
        Self {
            name,
            resolver: Resolver::new(settings.nameservers.clone(), sockets.clone(), random::number),
            sockets,
            pool: Pool::new(settings.pool),
            drain,
            transparent,
            quota: Arc::new(Semaphore::new(settings.pod_connections_max)),
            handshakes: Arc::new(Semaphore::new(settings.pod_handshakes_max)),
            sources: Sources::new(settings.per_source),
            addresses: Mutex::default(),
        }
    }

    /// Takes a place for one more connection of this pod, if it may have one; dropping it gives it back.
    pub fn place(&self) -> Option<Place> {
        self.quota.clone().try_acquire_owned().ok()
    }

    /// Whether the pod's namespace has an address that others can reach; one that cannot be looked into has.
    pub fn is_reachable(&self) -> bool {
        let Some(netns) = self.sockets.netns() else { return true };
        let leads_out = |one: InterfaceAddress| {
            let ip =
                one.address.is_some_and(|a| a.as_sockaddr_in().is_some() || a.as_sockaddr_in6().is_some());
            ip && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        };
        match netns.run(getifaddrs) {
            Ok(Ok(mut all)) => all.any(leads_out),
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Whether `address` is one of this pod's namespace: no other can be bound there.
    pub fn has_address(&self, address: IpAddr) -> bool {
        let known = || self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&address) {
            return true;
        }
        let bind = || UdpSocket::bind((address, 0)).is_ok();
        let has = match self.sockets.netns() {
            Some(netns) => netns.run(bind).unwrap_or(false),
            None => bind(),
        };
        if has {
            let mut known = known();
            if known.len() < ADDRESSES_MAX {
                known.insert(address);
            }
        }
        has
    }
}

/// The captured pods by name, for joining two of them in the process, and those that leave.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    captured: BTreeMap<PodRef, Arc<Pod>>,
    /// Without a name here any more, and with connections that may still go on.
    leaving: Vec<Arc<Pod>>,
}

impl Held {
    fn keep_leaving(&mut self, pod: Arc<Pod>) {
        if !self.leaving.iter().any(|one| Arc::ptr_eq(one, &pod)) {
            self.leaving.push(pod);
        }
    }
}

impl Pods {
    /// Makes a pod known; one that had its name before leaves.
    pub fn insert(&self, pod: Arc<Pod>) {
        let mut held = self.held();
        if let Some(before) = held.captured.insert(pod.name.clone(), pod) {
            held.keep_leaving(before);
        }
    }

    /// Forgets a pod's name, unless another one has taken it since; the pod leaves, until [`Pods::left`].
    pub fn leave(&self, pod: &Arc<Pod>) {
        let mut held = self.held();
        if held.captured.get(&pod.name).is_some_and(|captured| Arc::ptr_eq(captured, pod)) {
            held.captured.remove(&pod.name);
        }
        held.keep_leaving(pod.clone());
    }

    /// The drain of a pod that leaves has finished.
    pub fn left(&self, pod: &Arc<Pod>) {
        self.held().leaving.retain(|one| !Arc::ptr_eq(one, pod));
    }

    /// Every pod that may have connections: those that are captured, and those that leave.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        let held = self.held();
        held.captured.values().chain(&held.leaving).cloned().collect()
    }

    /// The pod of that name, if it is captured here, stays, and has that address.
    ///
    /// A name alone proves nothing: it may have been another pod's a moment ago, whose record is still known.
    pub fn find(&self, name: &PodRef, address: IpAddr) -> Option<Arc<Pod>> {
        let held = self.held();
        let pod = held.captured.get(name).filter(|pod| !pod.drain.is_draining()).cloned();
        drop(held);
        pod.filter(|pod| pod.has_address(address))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[tokio::test]
    async fn pods_that_leave_are_drained_with_the_others() {
        let config = crate::config::Config::try_parse_from(["ztunnel"]).unwrap();
        let settings = crate::app::proxy(&config, &Arc::default()).settings;
        let pod = || {
            let name =
                PodRef { namespace: "shop".into(), service_account: "web".into(), name: "web-1".into() };
            Arc::new(Pod::new(name, None, false, Drain::new(), &settings))
        };
        let (first, second, pods) = (pod(), pod(), Pods::default());
        let is = |want: &[&Arc<Pod>]| {
            let all = pods.all();
            all.len() == want.len() && all.iter().zip(want).all(|(one, want)| Arc::ptr_eq(one, want))
        };
        pods.insert(first.clone());
        assert!(is(&[&first]));
        pods.insert(second.clone());
        assert!(is(&[&second, &first]), "its name is taken, its connections are there");
        pods.leave(&first);
        assert!(is(&[&second, &first]));
        pods.left(&first);
        assert!(is(&[&second]));
        pods.leave(&second);
        assert!(is(&[&second]));
        pods.left(&second);
        assert!(is(&[]));
    }
}
