//! Services, endpoints, nodes, network policies, and the keys of ConfigMaps and Secrets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Checks, text};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const SCOPES: &[&str] = &["Cluster", "Local"];
/// Most addresses of one endpoint.
const ADDRESSES_MAX: usize = 100;

/// Annotation with every address a node has, as pods see it.
const NODE_ADDRESSES: &str = "ambit.internal/node-addresses";

pub(super) fn node(c: &mut Checks<'_>, node: &Node) {
    for (i, address) in node.status.iter().flat_map(|s| s.addresses.iter().flatten()).enumerate() {
        let at = format!("status.addresses[{i}]");
        let types = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];
        c.one_of(format!("{at}.type"), &address.type_, &types);
        if address.type_.ends_with("IP") {
            c.ip(format!("{at}.address"), &address.address);
        }
    }
    let spec = node.spec.as_ref();
    for (i, cidr) in spec.iter().flat_map(|s| s.pod_cidrs.iter().flatten()).enumerate() {
        c.cidr(format!("spec.podCIDRs[{i}]"), cidr);
    }
    if let Some(cidr) = spec.and_then(|s| s.pod_cidr.as_ref()) {
        c.cidr("spec.podCIDR", cidr);
    }
    let annotation = node.metadata.annotations.as_ref().and_then(|a| a.get(NODE_ADDRESSES));
    for address in annotation.iter().flat_map(|a| a.split(',')).map(str::trim) {
        c.ip(format!("metadata.annotations[{NODE_ADDRESSES}]"), address);
    }
}

pub(super) fn config_map(c: &mut Checks<'_>, map: &ConfigMap) {
    let data = map.data.iter().flatten().map(|(key, _)| ("data", key));
    let binary = map.binary_data.iter().flatten().map(|(key, _)| ("binaryData", key));
    data_keys(c, data.chain(binary));
}

pub(super) fn secret(c: &mut Checks<'_>, secret: &Secret) {
    let data = secret.data.iter().flatten().map(|(key, _)| ("data", key));
    let text = secret.string_data.iter().flatten().map(|(key, _)| ("stringData", key));
    for (part, key) in data.chain(text) {
        c.text(format!("{part}[{key}]"), key, text::data_key);
    }
}

fn data_keys<'k>(c: &mut Checks<'_>, keys: impl Iterator<Item = (&'static str, &'k String)>) {
    let mut seen = BTreeSet::new();
    for (part, key) in keys {
        let at = format!("{part}[{key}]");
        c.text(&at, key, text::data_key);
        c.unique(at, key, &mut seen);
    }
}

pub(super) fn service(c: &mut Checks<'_>, service: &Service) {
    let Some(spec) = &service.spec else { return c.missing("spec") };
    let types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    c.optional_one_of("spec.type", spec.type_.as_ref(), &types);
    c.optional_one_of("spec.sessionAffinity", spec.session_affinity.as_ref(), &["None", "ClientIP"]);
    c.optional_one_of("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_ref(), SCOPES);
    c.optional_one_of("spec.externalTrafficPolicy", spec.external_traffic_policy.as_ref(), SCOPES);
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    c.optional_one_of("spec.ipFamilyPolicy", spec.ip_family_policy.as_ref(), &policies);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    c.optional_one_of("spec.trafficDistribution", spec.traffic_distribution.as_ref(), &distributions);
    c.labels("spec.selector", spec.selector.iter().flatten());
    let external = spec.type_.as_deref() == Some("ExternalName");
    match spec.external_name.as_deref() {
        Some(name) => c.text("spec.externalName", name, text::host_name),
        None if external => c.missing("spec.externalName"),
        None => {}
    }
    cluster_ips(c, spec);
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !external && !headless {
        c.bad("spec.ports", "a service needs at least one port");
    }
    service_ports(c, ports);
}

fn cluster_ips(c: &mut Checks<'_>, spec: &ServiceSpec) {
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let first = spec.cluster_ip.as_ref().map(|ip| ("spec.clusterIP".to_owned(), ip));
    let more = all.iter().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip));
    for (at, ip) in first.into_iter().chain(more) {
        if !ip.is_empty() && ip != "None" && ip.parse::<IpAddr>().is_err() {
            c.bad(at, format!("\"{ip}\" is neither an IP address nor None"));
        }
    }
    if let (Some(ip), Some(first)) = (&spec.cluster_ip, all.first())
        && ip != first
    {
        c.near("spec.clusterIP", format!("\"{ip}\" is not the first of clusterIPs"), Some(first));
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        c.one_of(format!("spec.ipFamilies[{i}]"), family, FAMILIES);
    }
}

fn service_ports(c: &mut Checks<'_>, ports: &[ServicePort]) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        c.port(format!("{at}.port"), i64::from(port.port));
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        c.one_of(format!("{at}.protocol"), protocol, PROTOCOLS);
        c.unique(format!("{at}.port"), format!("port {}/{protocol}", port.port), &mut numbers);
        match port.name.as_deref() {
            Some(name) => {
                c.text(format!("{at}.name"), name, text::dns_label);
                c.unique(format!("{at}.name"), name, &mut names);
            }
            None if ports.len() > 1 => c.bad(format!("{at}.name"), "several ports each need a name"),
            None => {}
        }
        if let Some(target) = &port.target_port {
            c.port_or_name(format!("{at}.targetPort"), target);
        }
        if let Some(node_port) = port.node_port.filter(|p| *p != 0) {
            c.port(format!("{at}.nodePort"), i64::from(node_port));
        }
        if let Some(protocol) = &port.app_protocol {
            c.text(format!("{at}.appProtocol"), protocol, text::qualified_name);
        }
    }
}

pub(super) fn endpoint_slice(c: &mut Checks<'_>, slice: &EndpointSlice) {
    c.one_of("addressType", &slice.address_type, &["IPv4", "IPv6", "FQDN"]);
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        let at = format!("endpoints[{i}].addresses");
        if endpoint.addresses.is_empty() {
            c.bad(&at, "an endpoint needs an address");
        }
        c.at_most(&at, &endpoint.addresses, ADDRESSES_MAX);
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let at = format!("{at}[{j}]");
            if slice.address_type == "FQDN" {
                c.text(at, address, text::host_name);
            } else if let Some(ip) = c.ip(&at, address)
                && ip.is_ipv4() != (slice.address_type == "IPv4")
            {
                c.bad(at, format!("{ip} is not an address of type {}", slice.address_type));
            }
        }
    }
    let mut names = BTreeSet::new();
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        let at = format!("ports[{i}]");
        c.optional_one_of(format!("{at}.protocol"), port.protocol.as_ref(), PROTOCOLS);
        match port.port {
            Some(number) => c.port(format!("{at}.port"), i64::from(number)),
            None => c.missing(format!("{at}.port")),
        }
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            c.text(format!("{at}.name"), name, text::dns_label);
        }
        c.unique(format!("{at}.name"), format!("the port name {name:?}"), &mut names);
    }
}

pub(super) fn network_policy(c: &mut Checks<'_>, policy: &NetworkPolicy) {
    let Some(spec) = &policy.spec else { return c.missing("spec") };
    for (i, kind) in spec.policy_types.iter().flatten().enumerate() {
        c.one_of(format!("spec.policyTypes[{i}]"), kind, &["Ingress", "Egress"]);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = format!("spec.ingress[{i}]");
        peers(c, &format!("{at}.from"), rule.from.as_deref().unwrap_or_default());
        policy_ports(c, &format!("{at}.ports"), rule.ports.as_deref().unwrap_or_default());
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = format!("spec.egress[{i}]");
        peers(c, &format!("{at}.to"), rule.to.as_deref().unwrap_or_default());
        policy_ports(c, &format!("{at}.ports"), rule.ports.as_deref().unwrap_or_default());
    }
}

fn peers(c: &mut Checks<'_>, path: &str, peers: &[NetworkPolicyPeer]) {
    for (i, peer) in peers.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(_) if selected => c.bad(format!("{at}.ipBlock"), "not together with a selector"),
            Some(block) => ip_block(c, &format!("{at}.ipBlock"), block),
            None if !selected => c.bad(at, "one of ipBlock, namespaceSelector, podSelector is needed"),
            None => {}
        }
    }
}

fn ip_block(c: &mut Checks<'_>, at: &str, block: &IPBlock) {
    let whole = c.cidr(format!("{at}.cidr"), &block.cidr);
    for (i, except) in block.except.iter().flatten().enumerate() {
        let at = format!("{at}.except[{i}]");
        if let (Some(part), Some(whole)) = (c.cidr(&at, except), whole)
            && (!whole.contains(&part) || whole == part)
        {
            c.bad(at, format!("{part} is not a part of {whole}"));
        }
    }
}

fn policy_ports(c: &mut Checks<'_>, path: &str, ports: &[NetworkPolicyPort]) {
    for (i, port) in ports.iter().enumerate() {
        let at = format!("{path}[{i}]");
        c.optional_one_of(format!("{at}.protocol"), port.protocol.as_ref(), PROTOCOLS);
        if let Some(port) = &port.port {
            c.port_or_name(format!("{at}.port"), port);
        }
        if let Some(end) = port.end_port {
            c.port(format!("{at}.endPort"), i64::from(end));
            match &port.port {
                Some(IntOrString::Int(start)) if *start <= end => {}
                Some(IntOrString::Int(start)) => {
                    c.bad(format!("{at}.endPort"), format!("{end} lies before {start}"))
                }
                Some(IntOrString::String(_)) | None => {
                    c.bad(format!("{at}.endPort"), "needs a port by number")
                }
            }
        }
    }
}
