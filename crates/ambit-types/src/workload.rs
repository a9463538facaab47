//! A workload as discovery describes it (`istio.workload.Workload`).

use std::net::IpAddr;
use std::sync::Arc;

use crate::{
    ApplicationTunnel, Egress, GatewayAddress, Identity, Locality, Network, PolicyKey, ServicePorts, Str,
    TrustDomain, TunnelProtocol, Uid,
};

/// Whether new connections may be sent to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready, or terminating.
    Unhealthy,
}

/// Kind of the controller that owns a workload; only a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum WorkloadType {
    /// `k8s.deployment.name` in baggage.
    #[default]
    Deployment,
    /// `k8s.cronjob.name`.
    CronJob,
    /// `k8s.pod.name`.
    Pod,
    /// `k8s.job.name`.
    Job,
}

/// Whether a workload owns its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum NetworkMode {
    /// The address is the workload's own.
    #[default]
    Standard,
    /// The workload shares its node's address, so the address identifies nobody.
    HostNetwork,
}

/// A pod, a WorkloadEntry, or an endpoint of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Primary key.
    pub uid: Uid,
    /// Pod name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// All addresses, never IPv4-mapped; may be empty.
    pub addresses: Vec<IpAddr>,
    /// Network the addresses belong to.
    pub network: Network,
    /// How it is reached.
    pub tunnel: TunnelProtocol,
    /// Trust domain of its identity; `cluster.local` when the wire says nothing.
    pub trust_domain: TrustDomain,
    /// Service account of its identity; `default` when the wire says nothing.
    pub service_account: Str,
    /// Waypoint for connections addressed to the workload itself.
    pub waypoint: Option<GatewayAddress>,
    /// Node it runs on.
    pub node: Str,
    /// `service.istio.io/canonical-name`.
    pub canonical_name: Str,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: Str,
    /// Kind of its controller.
    pub workload_type: WorkloadType,
    /// Name of its controller.
    pub workload_name: Str,
    /// It speaks HBONE by itself.
    pub native_tunnel: bool,
    /// Selector policies that apply to it, in the order received.
    pub policies: Vec<PolicyKey>,
    /// Readiness.
    pub health: Health,
    /// Cluster; `Kubernetes` when the wire says nothing.
    pub cluster_id: Str,
    /// Gateway through which its network is entered from others.
    pub network_gateway: Option<GatewayAddress>,
    /// Name to resolve when there is no address; empty when there is none.
    pub hostname: Str,
    /// Services it backs, with its own port mapping.
    pub services: ServicePorts,
    /// How decrypted traffic is handed over.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Where it runs.
    pub locality: Locality,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// Share of traffic among the endpoints of a service; 1 by default.
    pub capacity: u32,
    /// What only Ambit's own control plane says; none from another one, which is not the same as defaults.
    ///
    /// Shared, since nearly all pods of a node are told the same.
    pub settings: Option<Arc<Settings>>,
}

/// Ambit's additions to a workload, carried in its `extensions` (name [`Settings::EXTENSION`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Settings {
    /// Ports that the pod's probes declare, ascending.
    pub probe_ports: Vec<u16>,
    /// Addresses of the node the pod runs on, as the pod sees them.
    pub node_addresses: Vec<IpAddr>,
    /// A NetworkPolicy selects the pod, so its connections must stay visible to the network: HBONE also on the same node.
    pub network_policy: bool,
    /// Where it may connect outside the mesh; none if no EgressPolicy selects it, so anywhere.
    pub egress: Option<Egress>,
}

impl Settings {
    /// Name of the extension in `istio.workload.Workload.extensions`.
    pub const EXTENSION: &'static str = "ambit.internal/workload";
}

impl Workload {
    /// A workload with the defaults of an empty message.
    pub fn new(uid: impl Into<Uid>, namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        let empty = Str::default();
        Self {
            uid: uid.into(),
            name: name.into(),
            namespace: namespace.into(),
            addresses: Vec::new(),
            network: Network::default(),
            tunnel: TunnelProtocol::None,
            trust_domain: TrustDomain::default(),
            service_account: Str::from("default"),
            waypoint: None,
            node: empty.clone(),
            canonical_name: empty.clone(),
            canonical_revision: empty.clone(),
            workload_type: WorkloadType::default(),
            workload_name: empty.clone(),
            native_tunnel: false,
            policies: Vec::new(),
            health: Health::Healthy,
            cluster_id: Str::from("Kubernetes"),
            network_gateway: None,
            hostname: empty,
            services: ServicePorts::new(),
            application_tunnel: None,
            locality: Locality::default(),
            network_mode: NetworkMode::Standard,
            capacity: 1,
            settings: None,
        }
    }

    /// Whether its control plane said that no NetworkPolicy selects it; one that says nothing may have missed some.
    pub fn is_free_of_network_policy(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| !settings.network_policy)
    }

    /// Addresses of its node as it sees them; none are known without Ambit's own control plane.
    pub fn node_addresses(&self) -> &[IpAddr] {
        self.settings.as_ref().map_or(&[], |settings| &settings.node_addresses)
    }

    /// Ports that its probes declare; none are known without Ambit's own control plane.
    pub fn probe_ports(&self) -> &[u16] {
        self.settings.as_ref().map_or(&[], |settings| &settings.probe_ports)
    }

    /// Where it may connect outside the mesh, if an EgressPolicy selects it; unknown without Ambit's own control plane.
    pub fn egress(&self) -> Option<&Egress> {
        self.settings.as_ref()?.egress.as_ref()
    }

    /// The identity its certificate must carry.
    pub fn identity(&self) -> Identity {
        Identity::new(self.trust_domain.clone(), self.namespace.clone(), self.service_account.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_no_larger_than_it_has_to_be() {
        // With the two counts of an `Arc` that is 448 bytes, a size allocators have; the next one is 512.
        assert!(size_of::<Workload>() <= 432, "{}", size_of::<Workload>());
    }
}
