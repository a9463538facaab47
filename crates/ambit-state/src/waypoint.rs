//! What a waypoint goes by at one moment: the mesh, routes, policies, and who it is itself; and whom it serves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_policy::http::PolicySet;
use ambit_policy::http::model::Action;
use ambit_policy::jwt::{self, RuleSet};
use ambit_policy::normalize;
use ambit_route::Table;
use ambit_route::balance::Place;
use ambit_types::{AppProtocol, Destination, GatewayAddress, Identity, ServiceKey, Workload};

use crate::services::ServiceEntry;
use crate::snapshot::Snapshot;

mod target;
#[cfg(test)]
mod tests;

pub use target::{NotServed, Reading, Target, admit, reading};

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

impl Applied {
    /// Whether only requests can be judged by it: a token is looked for, or an enforced policy compares what only
    /// HTTP has.
    pub fn needs_http(&self) -> bool {
        let enforced = self.policies.policies().filter(|policy| match policy.action {
            Action::Allow | Action::Deny | Action::Custom(_) => !policy.dry_run,
            Action::Audit => false,
        });
        let mut conditions = enforced.flat_map(|policy| policy.conditions());
        !self.tokens.rules().is_empty() || conditions.any(|condition| condition.attribute().needs_http())
    }

    /// Whether it decides as another one does.
    pub fn decides_as(&self, other: &Self) -> bool {
        self.policies == other.policies
            && self.tokens == other.tokens
            && self.normalize == other.normalize
            && self.trusted_hops == other.trusted_hops
    }
}

/// What applies to a connection or request: mostly one, more for a workload behind several services. All have to
/// allow.
#[derive(Debug, Clone)]
pub struct Governing<'s> {
    first: Governed<'s>,
    others: Vec<Governed<'s>>,
}

/// What applies, and the port that its policies compare: a service's own, also where its pod is called by itself.
type Governed<'s> = (&'s Arc<Applied>, u16);

impl<'s> Governing<'s> {
    /// The one by which targets are read.
    pub fn first(&self) -> &'s Arc<Applied> {
        self.first.0
    }

    /// Everything, the first one first; once for each port that has to be compared.
    pub fn iter(&self) -> impl Iterator<Item = &'s Arc<Applied>> + '_ {
        self.judged().map(|(applied, _)| applied)
    }

    /// As [`Self::iter`], each with the port that its policies compare.
    pub fn judged(&self) -> impl Iterator<Item = (&'s Arc<Applied>, u16)> + '_ {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

impl State {
    /// What applies to whoever is called; none if this waypoint does not serve them, or not any more.
    pub fn governing(&self, target: &Target) -> Option<Governing<'_>> {
        match target {
            Target::Service { key, address, .. } => {
                let entry = self.mesh.service(key).filter(|entry| self.own.serves(entry))?;
                entry.service().port(address.port())?;
                Some(Governing { first: (self.policies.of(Some(key)), address.port()), others: Vec::new() })
            }
            Target::Workload { workload, address } => {
                let now = self.mesh.workload_at(&self.own.workload.network, address.ip())?;
                if now.uid != workload.uid {
                    return None;
                }
                self.governing_workload(now, address.port())
            }
        }
    }

    /// What applies to a port of a workload that is addressed itself: the rules of every service that leads there. None
    /// if one of those, or the workload, is bound to another waypoint, which alone knows its rules.
    fn governing_workload(&self, workload: &Workload, port: u16) -> Option<Governing<'_>> {
        let is_served = self.own.serves_workload(workload);
        if workload.waypoint.is_some() && !is_served {
            return None;
        }
        let mut found: Vec<Governed<'_>> = Vec::new();
        for (entry, leading) in self.mesh.bound_services(workload, port) {
            if !self.own.serves(entry) {
                return None;
            }
            let applied = self.policies.of(Some(&entry.service().key()));
            let is_known =
                |known: &Governed<'_>| Arc::ptr_eq(known.0, applied) && known.1 == leading.service_port;
            if !found.iter().any(is_known) {
                found.push((applied, leading.service_port));
            }
        }
        let mut found = found.into_iter();
        match found.next() {
            Some(first) => Some(Governing { first, others: found.collect() }),
            None if is_served && !self.is_untold(workload) => {
                Some(Governing { first: (&self.policies.all, port), others: Vec::new() })
            }
            None => None,
        }
    }

    /// What applies to a backend by itself, where it has not been asked with `governing`, and where the backend is.
    ///
    /// The service's namespace splits its traffic as it likes, as in Istio: only the policies of the service called
    /// count there. To a consumer's route another port of that service is another backend, since policies compare
    /// ports.
    pub fn rules_of_backend<'s>(
        &'s self,
        called: &Target,
        governing: &Governing<'s>,
        is_consumers: bool,
        to: &ambit_route::model::Target,
    ) -> Option<(&'s Arc<Applied>, SocketAddr)> {
        let ambit_route::model::Target::Service { service, port } = to else { return None };
        let (key, at) = (called.service()?, called.address());
        if !is_consumers && key.namespace == service.namespace {
            return None;
        }
        if key == service {
            let is_other = *port != at.port();
            return is_other.then(|| (governing.first(), SocketAddr::new(at.ip(), *port)));
        }
        let applied = self.policies.services.get(service)?;
        // The first virtual address of the backend; the one that was called if it has none.
        let vip = self.mesh.service(service).and_then(|entry| Some(entry.service().vips.first()?.ip));
        Some((applied, SocketAddr::new(vip.unwrap_or_else(|| at.ip()), *port)))
    }

    /// Whether a service in front of a workload is not known, which may lead to any port and have rules for it.
    fn is_untold(&self, workload: &Workload) -> bool {
        workload.settings.is_some() && workload.services.keys().any(|key| self.mesh.service(key).is_none())
    }

    /// What the port that is called carries, as far as it is declared: for a workload as all ports of its
    /// services that lead there say, if they agree.
    pub fn protocol(&self, target: &Target) -> AppProtocol {
        match target {
            Target::Service { protocol, .. } => *protocol,
            Target::Workload { workload, address } => {
                let now = self.mesh.workload(&workload.uid).unwrap_or(workload);
                let ports = self.mesh.bound_services(now, address.port());
                let mut declared = ports.map(|(_, port)| port.app_protocol);
                let first = declared.next().unwrap_or(AppProtocol::Unknown);
                if declared.all(|other| other == first) { first } else { AppProtocol::Unknown }
            }
        }
    }
}

/// What applies to whom.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Of services that have something of their own; it includes what applies to all.
    pub services: HashMap<ServiceKey, Arc<Applied>>,
    /// Of every other service, and of ports of workloads addressed directly to which no service with a waypoint leads.
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
pub fn place(workload: &Workload) -> Place {
    Place {
        network: workload.network.clone(),
        cluster: workload.cluster_id.clone(),
        locality: workload.locality.clone(),
        node: workload.node.clone(),
    }
}
