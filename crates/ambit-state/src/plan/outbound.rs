//! Where an outbound connection goes.
//!
//! Steps O0 to O11 of the ambient data plane with our own decisions: what cannot be reached as it must be is
//! refused, never sent plaintext. It opens nothing, and it never looks at what the connection carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_types::service::{IpFamilies, IpFamily, LoadBalancingMode};
use ambit_types::workload::NetworkMode;
use ambit_types::{
    GatewayAddress, Identity, NetworkAddress, Reason, Service, TunnelProtocol, Uid, Workload, canonical,
};

use super::bound::{Through, end_of, through};
use super::gateway::{Resolved, Role, resolve, waypoint_of};
use super::{Refusal, is_proxy_port};
use crate::pick::Ask;
use crate::services::ServiceEntry;
use crate::snapshot::Snapshot;

mod hop;
mod named;
#[cfg(test)]
mod tests;

pub use hop::{ByName, Hop, ViaGateway, ViaWaypoint};
pub use named::plan_named;

/// What to do when both pods are on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SameNode {
    /// Join them in the process if it is known that no NetworkPolicy selects either.
    #[default]
    Auto,
    /// Always join them in the process.
    Direct,
    /// Always use a tunnel.
    Hbone,
}

/// What is known of a captured outbound connection.
#[derive(Debug, Clone, Copy)]
pub struct OutboundFacts<'a> {
    /// Workload of the pod in whose namespace it was captured; none if discovery has not told of it.
    pub source: Option<&'a Arc<Workload>>,
    /// Address from which the application connects.
    pub source_address: IpAddr,
    /// Where the application wanted to go.
    pub destination: SocketAddr,
    /// What to do on the same node.
    pub same_node: SameNode,
    /// Endpoints that were tried for this connection in vain, so that another one is chosen.
    pub tried: &'a [Uid],
    /// A random number, uniform over all of `u64`.
    pub draw: u64,
}

/// Where the connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan has to be carried out"]
pub enum OutboundPlan {
    /// Plain TCP to where the application wanted to go: nothing of the mesh is there.
    Passthrough {
        /// That address.
        address: SocketAddr,
    },
    /// Plain TCP to a known workload outside the tunnel.
    Plain(Hop),
    /// A tunnel to the workload.
    Hbone(Hop),
    /// The workload is on this node: join the two pods in the process. A tunnel to it would do as well.
    Local(Hop),
    /// A tunnel to the waypoint that serves the destination.
    Waypoint(ViaWaypoint),
    /// A tunnel within a tunnel, through the gateway of another network.
    Gateway(ViaGateway),
    /// A known workload that has a name instead of an address: [`plan_named`] says where that leads, plain or tunnelled
    /// as the workload says.
    Resolve(ByName),
    /// Nothing: the connection is closed.
    Refuse(Refusal),
}

/// Decides where a captured connection goes.
pub fn plan_outbound(snapshot: &Snapshot, facts: &OutboundFacts<'_>) -> OutboundPlan {
    plan(snapshot, facts).unwrap_or_else(OutboundPlan::Refuse)
}

fn plan(snapshot: &Snapshot, facts: &OutboundFacts<'_>) -> Result<OutboundPlan, Refusal> {
    let destination = canonical(facts.destination);
    refuse_own_ports(destination, facts.source_address)?;
    let source = facts.source.ok_or_else(|| {
        Refusal::new(
            Reason::WorkloadUnknown,
            format!("the workload at {} is not known yet", facts.source_address),
        )
    })?;
    refuse_proxy_ports(snapshot, source, destination)?;
    let route = Route { snapshot, facts, source, destination };
    let at = NetworkAddress::new(source.network.clone(), destination.ip());
    let workload = snapshot.workloads.by_address(&at);
    // Nobody's service takes over the address of a pod, and no range that of any workload.
    let service = match workload {
        None => snapshot.services.by_address(&at, &source.namespace),
        Some(owner) if owner.uid.is_pod() => None,
        Some(_) => snapshot.services.by_vip(&at, &source.namespace),
    };
    // A workload that owns the address keeps the connection from being addressed to the service.
    let addressed = if workload.is_none() { service } else { None };
    if let Some(entry) = addressed
        && let Some(reference) = waypoint_of(&entry.service, facts.draw)
    {
        return route.through_service_waypoint(entry, reference);
    }
    match service.and_then(|entry| route.endpoint(entry)) {
        Some(chosen) => route.to(chosen, addressed),
        None => match (workload, addressed) {
            (Some(workload), _) if facts.tried.contains(&workload.uid) => Err(no_address_left(workload)),
            (Some(workload), _) => route.to(Chosen::workload(workload, destination.port()), None),
            (None, Some(entry)) if !passes_through(&entry.service) => Err(no_endpoint(entry, facts)),
            (None, Some(_)) => Ok(OutboundPlan::Passthrough { address: destination }),
            (None, None) => route.out_of_the_mesh(),
        },
    }
}

/// O0: loopback, and the pod's own address, at a port of ours. Known before the workload is.
fn refuse_own_ports(destination: SocketAddr, source: IpAddr) -> Result<(), Refusal> {
    let ip = destination.ip();
    let own = ip.is_loopback() || ip.is_unspecified() || ip == source.to_canonical();
    refuse_if(own && is_proxy_port(destination.port()), destination)
}

/// A proxy's port at the pod's other addresses, at its node and at every captured workload.
fn refuse_proxy_ports(
    snapshot: &Snapshot,
    source: &Workload,
    destination: SocketAddr,
) -> Result<(), Refusal> {
    if !is_proxy_port(destination.port()) {
        return Ok(());
    }
    let ip = destination.ip();
    let near = source.addresses.contains(&ip) || source.node_addresses().contains(&ip);
    let meshed =
        || snapshot.workload_at(&source.network, ip).is_some_and(|w| w.tunnel == TunnelProtocol::Hbone);
    refuse_if(near || meshed(), destination)
}

fn refuse_if(aimed: bool, destination: SocketAddr) -> Result<(), Refusal> {
    if aimed {
        return Err(Refusal::new(Reason::ProxyPortTarget, format!("{destination} is a port of the proxy")));
    }
    Ok(())
}

fn is_within_the_pod(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

fn passes_through(service: &Service) -> bool {
    service.load_balancing.mode == LoadBalancingMode::Passthrough
}

fn no_endpoint(entry: &ServiceEntry, facts: &OutboundFacts<'_>) -> Refusal {
    let Service { namespace, hostname, .. } = &*entry.service;
    let port = facts.destination.port();
    let detail = if entry.service.port(port).is_none() {
        format!("service {namespace}/{hostname} has no port {port}")
    } else if facts.tried.is_empty() {
        format!("service {namespace}/{hostname} has no ready endpoint for port {port}")
    } else {
        format!(
            "service {namespace}/{hostname} has no endpoint left for port {port} after {} tried",
            facts.tried.len()
        )
    };
    Refusal::new(Reason::NoHealthyEndpoint, detail)
}

/// A workload with the port of its application.
struct Chosen<'s> {
    workload: &'s Arc<Workload>,
    service: Option<&'s Arc<Service>>,
    port: u16,
    candidates: usize,
}

impl<'s> Chosen<'s> {
    fn workload(workload: &'s Arc<Workload>, port: u16) -> Self {
        Self { workload, service: None, port, candidates: 1 }
    }
}

/// One connection on its way to a plan.
struct Route<'a> {
    snapshot: &'a Snapshot,
    facts: &'a OutboundFacts<'a>,
    source: &'a Arc<Workload>,
    destination: SocketAddr,
}

impl Route<'_> {
    /// To what discovery knows nothing of: only where the policies of the source let it, if it has any. What stays in
    /// the pod is nobody's affair.
    fn out_of_the_mesh(&self) -> Result<OutboundPlan, Refusal> {
        let address = self.destination;
        match self.source.egress() {
            Some(egress) if !is_within_the_pod(address.ip()) && !egress.admits(address) => {
                let detail = format!("no rule admits {address}");
                Err(Refusal::new(Reason::EgressDenied, detail).by(egress.policy.clone()))
            }
            Some(_) | None => Ok(OutboundPlan::Passthrough { address }),
        }
    }

    /// O4: an endpoint of the service.
    fn endpoint<'s>(&self, entry: &'s ServiceEntry) -> Option<Chosen<'s>> {
        let picked = entry.pick(&Ask {
            source: self.source,
            port: self.destination.port(),
            waypoint: false,
            tried: self.facts.tried,
            draw: self.facts.draw,
        })?;
        Some(Chosen {
            workload: picked.workload,
            service: Some(&entry.service),
            port: picked.port,
            candidates: picked.candidates,
        })
    }

    /// O7 to O11: to a workload, as it is reached.
    fn to(&self, chosen: Chosen<'_>, addressed: Option<&Arc<ServiceEntry>>) -> Result<OutboundPlan, Refusal> {
        let Chosen { workload, service, port, candidates } = chosen;
        if workload.network != self.source.network {
            return self.through_gateway(workload, addressed.map(|entry| &entry.service));
        }
        if addressed.is_none()
            && let Some(reference) = self.waypoint_of_port(workload, port)?
        {
            return self.through_waypoint(reference);
        }
        if workload.tunnel == TunnelProtocol::Hbone && is_proxy_port(port) {
            refuse_if(true, SocketAddr::new(self.destination.ip(), port))?;
        }
        let service = service.cloned();
        match (self.address_of(workload, service.as_deref()), workload.tunnel) {
            (_, TunnelProtocol::LegacyIstioMtls) => Err(Refusal::new(
                Reason::TunnelProtocol,
                format!("workload {} wants a tunnel protocol that is not spoken here", workload.uid),
            )),
            (Some(ip), tunnel) => {
                let address = SocketAddr::new(ip, port);
                let hop = Hop { workload: workload.clone(), address, service, candidates };
                Ok(match tunnel {
                    TunnelProtocol::Hbone if self.joins(workload) => OutboundPlan::Local(hop),
                    TunnelProtocol::Hbone => OutboundPlan::Hbone(hop),
                    TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => OutboundPlan::Plain(hop),
                })
            }
            (None, _) if !workload.hostname.is_empty() => Ok(OutboundPlan::Resolve(ByName {
                workload: workload.clone(),
                host: workload.hostname.clone(),
                port,
                service,
                candidates,
            })),
            (None, _) => Err(no_address(workload)),
        }
    }

    /// The address to use for a workload: the one asked for, else one its service allows, of the family asked for
    /// if there is one.
    fn address_of(&self, workload: &Workload, service: Option<&Service>) -> Option<IpAddr> {
        let asked = self.destination.ip();
        if workload.addresses.contains(&asked) {
            return Some(asked);
        }
        let families = service.map_or(IpFamilies::Automatic, |s| s.ip_families);
        let mut allowed = workload.addresses.iter().filter(|ip| families.allow(IpFamily::of(**ip)));
        let first = allowed.clone().next();
        allowed.find(|ip| ip.is_ipv4() == asked.is_ipv4()).or(first).copied()
    }

    /// Whether both pods are captured here and may be joined in the process.
    fn joins(&self, workload: &Workload) -> bool {
        let source = self.source;
        let wanted = match self.facts.same_node {
            SameNode::Auto => source.is_free_of_network_policy() && workload.is_free_of_network_policy(),
            SameNode::Direct => true,
            SameNode::Hbone => false,
        };
        // A workload that speaks HBONE by itself, or terminates it for others, has no listener of ours to join.
        wanted
            && self.snapshot.is_own(workload)
            && workload.cluster_id == source.cluster_id
            && workload.network_mode == NetworkMode::Standard
            && !workload.native_tunnel
            && workload.application_tunnel.is_none()
    }

    /// O3: the waypoint of the service that was addressed, in our network or behind its gateway.
    fn through_service_waypoint(
        &self,
        entry: &ServiceEntry,
        reference: &GatewayAddress,
    ) -> Result<OutboundPlan, Refusal> {
        let service = &entry.service;
        let waypoint = self.waypoint(reference)?;
        if waypoint.workload.network == self.source.network {
            return self.by_waypoint(waypoint, Some(service.clone()));
        }
        let inner = waypoint.service.as_ref().map_or(&[][..], |s| &s.subject_alt_names);
        self.by_gateway(&waypoint.workload, service, inner)
    }

    /// The waypoint of a workload that was addressed and of the services that lead to the port: by a pod's own address
    /// nobody is past the rules of its services. None for the waypoint's own connections.
    fn waypoint_of_port<'w>(
        &'w self,
        workload: &'w Workload,
        port: u16,
    ) -> Result<Option<&'w GatewayAddress>, Refusal> {
        let reference = match through(self.snapshot, workload, end_of(workload, port), self.facts.draw) {
            Through::Nothing => return Ok(None),
            Through::Waypoint(reference) => reference,
            Through::Contested(all) if all.iter().any(|one| self.comes_from(one)) => return Ok(None),
            Through::Contested(all) => {
                let names: Vec<String> = all.into_iter().map(name_of).collect();
                let detail = format!(
                    "port {port} of workload {} is behind different waypoints, its own or those of services ({}): use \
                     the address of one of the services",
                    workload.uid,
                    names.join(", ")
                );
                return Err(Refusal::new(Reason::WaypointBypassed, detail));
            }
        };
        Ok((!self.comes_from(reference)).then_some(reference))
    }

    /// O8: the waypoint of a workload that was addressed.
    fn through_waypoint(&self, reference: &GatewayAddress) -> Result<OutboundPlan, Refusal> {
        let waypoint = self.waypoint(reference)?;
        if waypoint.workload.network != self.source.network {
            // Dialling it directly would cross into a network that we cannot route to.
            let name = &waypoint.workload.uid;
            return Err(Refusal::new(
                Reason::WaypointUnbound,
                format!("waypoint {name} is in another network"),
            ));
        }
        self.by_waypoint(waypoint, None)
    }

    fn waypoint(&self, reference: &GatewayAddress) -> Result<Resolved, Refusal> {
        resolve(self.snapshot, self.source, reference, Role::Waypoint, self.facts.draw).ok_or_else(|| {
            let to = self.destination;
            Refusal::new(
                Reason::WaypointUnbound,
                format!("{to} requires waypoint {}, which is not known or not ready", name_of(reference)),
            )
        })
    }

    fn by_waypoint(
        &self,
        waypoint: Resolved,
        service: Option<Arc<Service>>,
    ) -> Result<OutboundPlan, Refusal> {
        let ip = self.address_of(&waypoint.workload, waypoint.service.as_deref()).ok_or_else(|| {
            let detail = format!("waypoint {} has no address", waypoint.workload.uid);
            Refusal::new(Reason::WaypointUnbound, detail)
        })?;
        Ok(OutboundPlan::Waypoint(ViaWaypoint {
            tunnel: SocketAddr::new(ip, waypoint.port),
            workload: waypoint.workload,
            waypoint: waypoint.service,
            authority: self.destination,
            service,
        }))
    }

    /// Whether we are an instance of the waypoint ourselves: its own connections do not go through it.
    fn comes_from(&self, reference: &GatewayAddress) -> bool {
        let found = resolve(self.snapshot, self.source, reference, Role::Waypoint, self.facts.draw);
        found.is_some_and(|waypoint| {
            waypoint.workload.identity() == self.source.identity()
                && (waypoint.workload.addresses.contains(&self.facts.source_address.to_canonical())
                    || super::gateway::refers_to(self.snapshot, reference, self.source))
        })
    }

    /// O7: a workload of another network, which only a service can name.
    fn through_gateway(
        &self,
        workload: &Arc<Workload>,
        service: Option<&Arc<Service>>,
    ) -> Result<OutboundPlan, Refusal> {
        let Some(service) = service else {
            return Err(Refusal::new(
                Reason::UnknownDestination,
                format!("workload {} is in another network and was not addressed by a service", workload.uid),
            ));
        };
        self.by_gateway(workload, service, &service.subject_alt_names)
    }

    fn by_gateway(
        &self,
        workload: &Workload,
        service: &Arc<Service>,
        inner: &[Identity],
    ) -> Result<OutboundPlan, Refusal> {
        let reference = workload.network_gateway.as_ref().ok_or_else(|| no_address(workload))?;
        let unusable = || {
            let detail = format!("network gateway {} is not known or not ready", name_of(reference));
            Refusal::new(Reason::NoHealthyEndpoint, detail)
        };
        let draw = self.facts.draw;
        let gateway = resolve(self.snapshot, self.source, reference, Role::NetworkGateway, draw)
            .ok_or_else(unusable)?;
        let ip = self.address_of(&gateway.workload, gateway.service.as_deref()).ok_or_else(unusable)?;
        let mut inner_identities = inner.to_vec();
        inner_identities.sort_unstable();
        inner_identities.dedup();
        Ok(OutboundPlan::Gateway(ViaGateway {
            tunnel: SocketAddr::new(ip, gateway.port),
            workload: gateway.workload,
            gateway: gateway.service,
            host: service.hostname.clone(),
            port: self.destination.port(),
            service: service.clone(),
            inner_identities,
        }))
    }
}

fn no_address_left(workload: &Workload) -> Refusal {
    let detail = format!("workload {} was tried and there is no other", workload.uid);
    Refusal::new(Reason::NoHealthyEndpoint, detail)
}

fn no_address(workload: &Workload) -> Refusal {
    let detail = format!("workload {} has no address that can be used", workload.uid);
    Refusal::new(Reason::NoHealthyEndpoint, detail)
}

fn name_of(reference: &GatewayAddress) -> String {
    match &reference.destination {
        ambit_types::Destination::Hostname(key) => key.to_string(),
        ambit_types::Destination::Address(at) => at.to_string(),
    }
}
