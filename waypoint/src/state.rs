//! What a waypoint goes by at one moment: the mesh, routes, policies, and who it is itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::http::PolicySet;
use ambit_policy::jwt::{self, RuleSet};
use ambit_policy::normalize;
use ambit_route::Table;
use ambit_route::balance::Place;
use ambit_state::{ServiceEntry, Snapshot};
use ambit_types::{Destination, GatewayAddress, Identity, ServiceKey, Workload};

/// Everything a request is decided by. Immutable; a change is another one.
#[derive(Debug)]
pub struct State {
    /// Workloads and services.
    pub mesh: Arc<Snapshot>,
    /// Routes and policies for destinations.
    pub routes: Arc<Table>,
    /// Who may call.
    pub policies: Policies,
    /// This waypoint.
    pub own: Own,
}

/// Who this waypoint is.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its own record: identity, place and addresses.
    pub workload: Arc<Workload>,
    /// The service that names it in `istio.io/use-waypoint`, if references go by host name.
    pub service: Option<ServiceKey>,
    /// Virtual addresses by which references may name it.
    pub vips: Vec<IpAddr>,
}

/// What applies to one service: policies, tokens, and how its targets are read.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Authorization.
    pub policies: PolicySet,
    /// Where tokens are looked for and how they are checked.
    pub tokens: RuleSet,
    /// How tokens are judged.
    pub token_options: jwt::Options,
    /// How targets are normalised.
    pub normalize: normalize::Options,
    /// Proxies before the mesh whose `X-Forwarded-For` is believed.
    pub trusted_hops: u8,
}

/// What applies to whom.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Of services that have something of their own; it includes what applies to all.
    pub services: HashMap<ServiceKey, Arc<Applied>>,
    /// Of every other service, and of workloads addressed directly.
    pub all: Arc<Applied>,
}

impl Policies {
    /// What applies to a service, or to a workload addressed directly.
    pub fn of(&self, service: Option<&ServiceKey>) -> &Arc<Applied> {
        service.and_then(|key| self.services.get(key)).unwrap_or(&self.all)
    }
}

impl Own {
    /// Its identity.
    pub fn identity(&self) -> Identity {
        self.workload.identity()
    }

    /// Where it runs, for balancing.
    pub fn place(&self) -> Place {
        place(&self.workload)
    }

    /// Whether an address is this waypoint itself.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.workload.addresses.contains(&ip) || self.vips.contains(&ip)
    }

    /// Whether a reference means this waypoint.
    fn is_named_by(&self, reference: &GatewayAddress) -> bool {
        match &reference.destination {
            Destination::Hostname(key) => self.service.as_ref() == Some(key),
            Destination::Address(at) => at.network == self.workload.network && self.has_address(at.ip),
        }
    }

    /// Whether a service is bound to this waypoint.
    pub fn serves(&self, entry: &ServiceEntry) -> bool {
        let service = entry.service();
        if service.weighted_waypoints.is_empty() {
            return service.waypoint.as_ref().is_some_and(|reference| self.is_named_by(reference));
        }
        service.weighted_waypoints.iter().any(|one| self.is_named_by(&one.destination))
    }

    /// Whether a workload addressed by itself is bound to this waypoint.
    pub fn serves_workload(&self, workload: &Workload) -> bool {
        workload.waypoint.as_ref().is_some_and(|reference| self.is_named_by(reference))
    }
}

/// Where a workload runs, for balancing.
pub(crate) fn place(workload: &Workload) -> Place {
    Place {
        network: workload.network.clone(),
        cluster: workload.cluster_id.clone(),
        locality: workload.locality.clone(),
        node: workload.node.clone(),
    }
}
