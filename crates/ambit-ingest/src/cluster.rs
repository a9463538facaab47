//! Objects of Kubernetes itself.

use std::net::IpAddr;

use ambit_control::input::{
    ContainerPort, Controller, EndpointSlice, Expression, LabelSelector, Labels, Name, Namespace,
    NetworkPolicy, Node, Operator, Phase, Pod, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort,
    TargetRef, Transport,
};
use ambit_types::Str;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Reader, chosen, created, text, words};

/// Annotation with every address of a node as its pods see it.
const NODE_ADDRESSES: &str = "ambit.internal/node-addresses";
/// Annotations of a pod that the mesh reads.
const POD_ANNOTATIONS: &[&str] = &["ambient.istio.io/redirection"];
/// Annotations of services and namespaces that the mesh reads.
pub(super) const SERVICE_ANNOTATIONS: &[&str] =
    &["istio.io/use-waypoint-canary-weight", "networking.istio.io/traffic-distribution"];

impl Reader<'_> {
    pub(super) fn namespace(&mut self, from: &core::Namespace) -> Namespace {
        Namespace {
            name: self.name().name,
            labels: words(from.metadata.labels.as_ref()),
            annotations: chosen(from.metadata.annotations.as_ref(), SERVICE_ANNOTATIONS),
        }
    }

    pub(super) fn node(&mut self, from: &core::Node) -> Node {
        let listed = from.status.as_ref().and_then(|s| s.addresses.as_ref());
        // Host names are listed there too.
        let listed = listed.into_iter().flatten().filter(|a| a.type_.ends_with("IP"));
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (index, address) in listed.enumerate() {
            addresses.extend(self.parsed::<IpAddr>(
                format!("status.addresses[{index}].address"),
                &address.address,
                "IP address",
            ));
        }
        let annotation = from.metadata.annotations.as_ref().and_then(|a| a.get(NODE_ADDRESSES));
        for address in
            annotation.into_iter().flat_map(|list| list.split(',')).filter(|a| !a.trim().is_empty())
        {
            let path = format!("metadata.annotations[{NODE_ADDRESSES}]");
            addresses.extend(self.parsed::<IpAddr>(path, address, "IP address"));
        }
        Node {
            name: self.name().name,
            uid: text(from.metadata.uid.as_deref()),
            labels: words(from.metadata.labels.as_ref()),
            addresses,
        }
    }

    pub(super) fn pod(&mut self, from: &core::Pod) -> Pod {
        let spec = from.spec.clone().unwrap_or_default();
        let status = from.status.clone().unwrap_or_default();
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let (ports, probe_ports) = self.ports_and_probes(&spec);
        let owners = from.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|o| o.controller == Some(true));
        let account = spec.service_account_name.as_deref().filter(|a| !a.is_empty());
        Pod {
            name: self.name(),
            uid: text(from.metadata.uid.as_deref()),
            labels: words(from.metadata.labels.as_ref()),
            annotations: chosen(from.metadata.annotations.as_ref(), POD_ANNOTATIONS),
            controller: controller
                .map(|o| Controller { kind: Str::from(o.kind.as_str()), name: Str::from(o.name.as_str()) }),
            service_account: Str::from(account.unwrap_or("default")),
            node: text(spec.node_name.as_deref()),
            host_network: spec.host_network.unwrap_or_default(),
            addresses: self.pod_addresses(&status),
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                Some(_) | None => Phase::Pending,
            },
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            deleting: from.metadata.deletion_timestamp.is_some(),
            ports,
            probe_ports,
        }
    }

    fn pod_addresses(&mut self, status: &core::PodStatus) -> Vec<IpAddr> {
        let listed = status.pod_ips.as_deref().unwrap_or_default();
        let mut addresses = Vec::new();
        for (index, entry) in listed.iter().enumerate() {
            let path = format!("status.podIPs[{index}].ip");
            addresses.extend(self.parsed::<IpAddr>(path, &entry.ip, "IP address"));
        }
        if let Some(ip) = status.pod_ip.as_deref().filter(|ip| listed.is_empty() && !ip.is_empty()) {
            addresses.extend(self.parsed::<IpAddr>("status.podIP", ip, "IP address"));
        }
        addresses
    }

    /// Ports of containers, and where their probes connect to. Sidecars are init containers that restart always.
    fn ports_and_probes(&mut self, spec: &PodSpec) -> (Vec<ContainerPort>, Vec<u16>) {
        let (mut ports, mut probes) = (Vec::new(), Vec::new());
        let sidecar = |c: &Container| c.restart_policy.as_deref() == Some("Always");
        let inits = spec.init_containers.as_deref().unwrap_or_default();
        let inits =
            inits.iter().enumerate().filter(|(_, c)| sidecar(c)).map(|(i, c)| ("initContainers", i, c));
        let containers = spec.containers.iter().enumerate().map(|(i, c)| ("containers", i, c));
        for (list, index, container) in inits.chain(containers) {
            let mut own = Vec::new();
            for (number, port) in container.ports.as_deref().unwrap_or_default().iter().enumerate() {
                let path = format!("spec.{list}[{index}].ports[{number}].containerPort");
                own.push(ContainerPort {
                    name: text(port.name.as_deref()),
                    port: self.port(path, port.container_port),
                    transport: transport(port.protocol.as_deref()),
                });
            }
            let declared = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
            probes.extend(declared.into_iter().flatten().filter_map(|probe| probe_port(probe, &own)));
            ports.extend(own);
        }
        (ports, probes)
    }

    pub(super) fn service(&mut self, from: &core::Service) -> Service {
        let spec = from.spec.clone().unwrap_or_default();
        let listed = spec.cluster_ips.unwrap_or_default();
        let listed = if listed.is_empty() { spec.cluster_ip.into_iter().collect() } else { listed };
        let mut cluster_ips = Vec::new();
        for (index, ip) in listed.iter().enumerate().filter(|(_, ip)| !ip.is_empty() && *ip != "None") {
            cluster_ips.extend(self.parsed::<IpAddr>(format!("spec.clusterIPs[{index}]"), ip, "IP address"));
        }
        let mut ports = Vec::new();
        for (index, port) in spec.ports.as_deref().unwrap_or_default().iter().enumerate() {
            ports.push(self.service_port(index, port));
        }
        Service {
            name: self.name(),
            created: created(&from.metadata),
            labels: words(from.metadata.labels.as_ref()),
            annotations: chosen(from.metadata.annotations.as_ref(), SERVICE_ANNOTATIONS),
            selector: words(spec.selector.as_ref()),
            cluster_ips,
            ports,
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            traffic_distribution: spec.traffic_distribution.as_deref().map(Str::from),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            ip_families_v6: spec.ip_families.unwrap_or_default().iter().map(|f| f == "IPv6").collect(),
        }
    }

    fn service_port(&mut self, index: usize, from: &core::ServicePort) -> ServicePort {
        let port = self.port(format!("spec.ports[{index}].port"), from.port);
        let target = match &from.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(port),
            Some(IntOrString::Int(number)) => {
                TargetPort::Number(self.port(format!("spec.ports[{index}].targetPort"), *number))
            }
            Some(IntOrString::String(name)) => match name.parse::<u16>() {
                Ok(number) => TargetPort::Number(number),
                Err(_) => TargetPort::Name(Str::from(name.as_str())),
            },
        };
        ServicePort {
            name: text(from.name.as_deref()),
            port,
            target,
            transport: transport(from.protocol.as_deref()),
            app_protocol: from.app_protocol.as_deref().map(Str::from),
        }
    }

    /// Slices of host names, and those of no service, mean nothing here.
    pub(super) fn slice(&mut self, from: &discovery::EndpointSlice) -> Option<EndpointSlice> {
        let labels = from.metadata.labels.as_ref();
        let service = labels.and_then(|l| l.get("kubernetes.io/service-name")).filter(|s| !s.is_empty())?;
        if from.address_type == "FQDN" {
            return None;
        }
        let mut ports = Vec::new();
        for (index, port) in from.ports.as_deref().unwrap_or_default().iter().enumerate() {
            if transport(port.protocol.as_deref()) == Transport::Tcp
                && let Some(number) = port.port
            {
                let number = self.port(format!("ports[{index}].port"), number);
                ports.push(SlicePort { name: text(port.name.as_deref()), port: number });
            }
        }
        let mut endpoints = Vec::new();
        for (index, endpoint) in from.endpoints.iter().enumerate() {
            let Some(first) = endpoint.addresses.first() else { continue };
            let path = format!("endpoints[{index}].addresses[0]");
            let Some(address) = self.parsed::<IpAddr>(path, first, "IP address") else { continue };
            let pod = endpoint.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"));
            endpoints.push(SliceEndpoint {
                address,
                ready: endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true),
                pod: pod.map(|target| TargetRef {
                    name: Name::new(
                        target.namespace.as_deref().map_or_else(|| self.name().namespace, Str::from),
                        target.name.as_deref().unwrap_or_default(),
                    ),
                    uid: text(target.uid.as_deref()),
                }),
            });
        }
        Some(EndpointSlice { name: self.name(), service: Str::from(service.as_str()), ports, endpoints })
    }

    pub(super) fn network_policy(&mut self, from: &networking::NetworkPolicy) -> NetworkPolicy {
        let selector = from.spec.as_ref().and_then(|s| s.pod_selector.clone()).unwrap_or_default();
        NetworkPolicy { name: self.name(), pods: self.label_selector("spec.podSelector", &selector) }
    }

    fn label_selector(&mut self, path: &str, from: &meta::LabelSelector) -> LabelSelector {
        let match_labels: Labels = words(from.match_labels.as_ref());
        let mut expressions = Vec::new();
        for (index, expression) in from.match_expressions.as_deref().unwrap_or_default().iter().enumerate() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let message = format!("{other:?} is none of In, NotIn, Exists, DoesNotExist");
                    self.bad(format!("{path}.matchExpressions[{index}].operator"), message);
                    continue;
                }
            };
            let values = expression.values.as_deref().unwrap_or_default();
            expressions.push(Expression {
                key: Str::from(expression.key.as_str()),
                operator,
                values: values.iter().map(|v| Str::from(v.as_str())).collect(),
            });
        }
        LabelSelector { match_labels, expressions }
    }
}

fn transport(protocol: Option<&str>) -> Transport {
    match protocol {
        Some("UDP") => Transport::Udp,
        Some("SCTP") => Transport::Sctp,
        Some(_) | None => Transport::Tcp,
    }
}

/// Where a probe connects to; nothing for one that runs a command or names a port its container does not have.
fn probe_port(probe: &Probe, ports: &[ContainerPort]) -> Option<u16> {
    let http = probe.http_get.as_ref().map(|h| h.port.clone());
    let tcp = probe.tcp_socket.as_ref().map(|t| t.port.clone());
    let grpc = probe.grpc.as_ref().map(|g| IntOrString::Int(g.port));
    match http.or(tcp).or(grpc)? {
        IntOrString::Int(number) => u16::try_from(number).ok().filter(|port| *port != 0),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => ports.iter().find(|p| *p.name == *name).map(|p| p.port),
        },
    }
}
