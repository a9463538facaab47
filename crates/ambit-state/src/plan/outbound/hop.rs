//! Where a plan leads: the workload, waypoint or gateway chosen, and whom to expect there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_types::service::{IpFamilies, IpFamily};
use ambit_types::{Identity, Service, Str, Workload};

use crate::plan::HBONE_PORT;

/// A workload chosen as destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Address of the application: one of the workload's and the target port. Authority of the tunnel.
    pub address: SocketAddr,
    /// The service through which it was chosen.
    pub service: Option<Arc<Service>>,
    /// How many endpoints could have been chosen, this one and those tried included; 1 without a service.
    pub candidates: usize,
}

impl Hop {
    /// Address of the workload's tunnel listener.
    pub fn tunnel(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), HBONE_PORT)
    }

    /// Identities the workload may prove, ascending: its own and those its service names.
    pub fn expected_identities(&self) -> Vec<Identity> {
        expected(&self.workload, self.service.as_deref())
    }
}

/// A waypoint chosen for the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViaWaypoint {
    /// The waypoint.
    pub workload: Arc<Workload>,
    /// Its service, if the reference named one.
    pub waypoint: Option<Arc<Service>>,
    /// Address of its tunnel listener.
    pub tunnel: SocketAddr,
    /// What is asked of it: where the application wanted to go, unchanged.
    pub authority: SocketAddr,
    /// The service the application asked for.
    pub service: Option<Arc<Service>>,
}

impl ViaWaypoint {
    /// Identities the waypoint may prove, ascending.
    pub fn expected_identities(&self) -> Vec<Identity> {
        expected(&self.workload, self.waypoint.as_deref())
    }
}

/// A gateway into another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViaGateway {
    /// The gateway.
    pub workload: Arc<Workload>,
    /// Its service, if the reference named one.
    pub gateway: Option<Arc<Service>>,
    /// Address of its tunnel listener.
    pub tunnel: SocketAddr,
    /// Host name of the authority, outer and inner.
    pub host: Str,
    /// Port of the authority.
    pub port: u16,
    /// The service in the other network.
    pub service: Arc<Service>,
    /// Identities the far end of the inner tunnel may prove, ascending.
    pub inner_identities: Vec<Identity>,
}

impl ViaGateway {
    /// Identities the gateway may prove, ascending.
    pub fn expected_identities(&self) -> Vec<Identity> {
        expected(&self.workload, self.gateway.as_deref())
    }
}

/// A workload without an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByName {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Name to resolve.
    pub host: Str,
    /// Target port.
    pub port: u16,
    /// The service through which it was chosen.
    pub service: Option<Arc<Service>>,
    /// How many endpoints could have been chosen, as in [`Hop::candidates`].
    pub candidates: usize,
}

impl ByName {
    /// Families whose addresses may be used, that of `destination` first, where the application wanted to go.
    pub fn families(&self, destination: IpAddr) -> impl Iterator<Item = IpFamily> + use<> {
        let (first, allowed) = (IpFamily::of(destination), self.allowed());
        [first, first.other()].into_iter().filter(move |family| allowed.allow(*family))
    }

    /// What its service allows.
    pub(super) fn allowed(&self) -> IpFamilies {
        self.service.as_ref().map_or(IpFamilies::Automatic, |service| service.ip_families)
    }
}

fn expected(workload: &Workload, service: Option<&Service>) -> Vec<Identity> {
    let mut all = vec![workload.identity()];
    all.extend(service.into_iter().flat_map(|s| s.subject_alt_names.iter().cloned()));
    all.sort_unstable();
    all.dedup();
    all
}
