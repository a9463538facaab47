//! Objects of Kubernetes itself.

use std::net::IpAddr;

use ambit_types::Str;

use super::{Created, LabelSelector, Labels, Name};
use crate::pool::Pool;

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Str,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Str,
    /// Its uid, to which node tokens are bound.
    pub uid: Str,
    /// Its labels, of which the topology ones give the locality.
    pub labels: Labels,
    /// Every address of the node that its pods or the control plane may see: `status.addresses` that are IPs and the
    /// annotation `ambit.internal/node-addresses`.
    pub addresses: Vec<IpAddr>,
}

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// Accepted, not all containers run.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well; final.
    Succeeded,
    /// All containers ended, one badly; final.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

impl Phase {
    /// Whether the pod will never run again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace and name.
    pub name: Name,
    /// Its uid.
    pub uid: Str,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Its controller, if it has one.
    pub controller: Option<Controller>,
    /// `spec.serviceAccountName`, `default` when not given.
    pub service_account: Str,
    /// `spec.nodeName`, empty until scheduled.
    pub node: Str,
    /// Whether it shares its node's network.
    pub host_network: bool,
    /// Its addresses, empty until it has any.
    pub addresses: Vec<IpAddr>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Ports of its containers, sidecars included.
    pub ports: Vec<ContainerPort>,
    /// Ports its liveness, readiness and startup probes connect to; names are resolved.
    pub probe_ports: Vec<u16>,
}

impl Pod {
    /// Shares the memory of what other pods have, too.
    pub(crate) fn share(&mut self, labels: &mut Pool<Labels>, words: &mut Pool<Str>) {
        labels.share(&mut self.labels);
        labels.share(&mut self.annotations);
        let controller = self.controller.iter_mut().flat_map(|of| [&mut of.kind, &mut of.name]);
        let ports = self.ports.iter_mut().map(|port| &mut port.name);
        let own = [&mut self.name.namespace, &mut self.service_account, &mut self.node];
        for word in own.into_iter().chain(controller).chain(ports) {
            words.share(word);
        }
    }
}

/// A port a container declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name, empty when it has none.
    pub name: Str,
    /// Its number.
    pub port: u16,
    /// What it carries.
    pub transport: Transport,
}

/// The owner that runs a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its kind, such as `ReplicaSet`.
    pub kind: Str,
    /// Its name.
    pub name: Str,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// TCP, the only one the mesh carries.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and name.
    pub name: Name,
    /// When it was made.
    pub created: Created,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Pods behind it; empty when its endpoints are listed by hand.
    pub selector: Labels,
    /// Its virtual addresses; empty for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `type: ExternalName`, a mere alias.
    pub external_name: bool,
    /// `internalTrafficPolicy: Local`.
    pub node_local: bool,
    /// `trafficDistribution`.
    pub traffic_distribution: Option<Str>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `ipFamilies`, true for IPv6.
    pub ip_families_v6: Vec<bool>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty when it has none.
    pub name: Str,
    /// Its number.
    pub port: u16,
    /// Port of the pods.
    pub target: TargetPort,
    /// What it carries.
    pub transport: Transport,
    /// `appProtocol`.
    pub app_protocol: Option<Str>,
}

/// Port of a pod as a service names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container port; may differ from pod to pod.
    Name(Str),
}

/// Endpoints of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its namespace and name.
    pub name: Name,
    /// Label `kubernetes.io/service-name`.
    pub service: Str,
    /// Its TCP ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints with an IP address.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of every endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service port it belongs to.
    pub name: Str,
    /// Its number.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its first address.
    pub address: IpAddr,
    /// `conditions.ready`, true when not given.
    pub ready: bool,
    /// The pod it stands for, if it is one.
    pub pod: Option<TargetRef>,
}

/// A pod that an endpoint stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// Its namespace and name.
    pub name: Name,
    /// Its uid; empty when the author of the slice did not give it.
    pub uid: Str,
}

/// A network policy, of which only the selection matters: its pods' connections must stay visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its namespace and name.
    pub name: Name,
    /// Pods it selects.
    pub pods: LabelSelector,
}
