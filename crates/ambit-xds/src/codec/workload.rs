//! `istio.workload.Workload` and [`Workload`].
//!
//! Does not look at whether the services and policies it names exist.

use std::sync::Arc;

use ambit_types::workload::{Health, NetworkMode, Settings, WorkloadType};
use ambit_types::{
    ApplicationTunnel, Egress, EgressRule, Locality, Network, ServiceKey, ServicePorts, Str, TrustDomain,
    TunnelProtocol, Uid, Workload,
};
use ipnet::IpNet;

use super::{
    Malformed, Notes, Problem, encode_extension, encode_ports, extension, network, policy_key, port, ports,
    required,
};
use crate::proto::ambit::internal::{self, WorkloadSettings};
use crate::proto::istio::workload as wire;

/// Full name of the message in the extension [`Settings::EXTENSION`].
const SETTINGS: &str = "ambit.internal.WorkloadSettings";

/// Reads a workload.
///
/// An unknown tunnel protocol is read as one this mesh refuses to speak, never as plaintext; an unknown health as
/// unhealthy; unknown type, network mode and application tunnel as the default.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole workload unusable.
pub fn decode(message: &wire::Workload, notes: &mut Notes) -> Result<Workload, Malformed> {
    let addresses = message
        .addresses
        .iter()
        .enumerate()
        .map(|(index, bytes)| network::ip(&format!("addresses[{index}]"), bytes))
        .collect::<Result<_, _>>()?;
    let policies = message
        .authorization_policies
        .iter()
        .enumerate()
        .map(|(index, name)| policy_key(&format!("authorization_policies[{index}]"), name))
        .collect::<Result<_, _>>()?;
    let gateway = |field, gateway: &Option<_>| {
        gateway.as_ref().map(|gateway| network::gateway(field, gateway)).transpose()
    };
    Ok(Workload {
        uid: Uid::from(required("uid", &message.uid)?),
        name: text(&message.name),
        namespace: text(&message.namespace),
        addresses,
        network: Network::from(message.network.as_str()),
        tunnel: tunnel(message.tunnel_protocol, notes),
        trust_domain: trust_domain(&message.trust_domain)?,
        service_account: text_or(&message.service_account, "default"),
        waypoint: gateway("waypoint", &message.waypoint)?,
        node: text(&message.node),
        canonical_name: text(&message.canonical_name),
        canonical_revision: text(&message.canonical_revision),
        workload_type: workload_type(message.workload_type, notes),
        workload_name: text(&message.workload_name),
        native_tunnel: message.native_tunnel,
        policies,
        health: health(message.status, notes),
        cluster_id: text_or(&message.cluster_id, "Kubernetes"),
        network_gateway: gateway("network_gateway", &message.network_gateway)?,
        hostname: text(&message.hostname),
        services: services(message, notes)?,
        application_tunnel: message
            .application_tunnel
            .as_ref()
            .map(|tunnel| application_tunnel(tunnel, notes))
            .transpose()?,
        locality: message.locality.as_ref().map(locality).unwrap_or_default(),
        network_mode: network_mode(message.network_mode, notes),
        capacity: message.capacity.unwrap_or(1),
        settings: settings(&message.extensions)?.map(Arc::new),
    })
}

/// Most fields of most workloads are empty, and empty words take no memory.
fn text(text: &str) -> Str {
    if text.is_empty() { Str::default() } else { Str::from(text) }
}

fn text_or(text: &str, default: &str) -> Str {
    Str::from(if text.is_empty() { default } else { text })
}

fn trust_domain(text: &str) -> Result<TrustDomain, Malformed> {
    if text.is_empty() {
        return Ok(TrustDomain::default());
    }
    TrustDomain::parse(text).map_err(|cause| Malformed::at("trust_domain", Problem::Identity(cause)))
}

fn tunnel(value: i32, notes: &mut Notes) -> TunnelProtocol {
    match wire::TunnelProtocol::try_from(value) {
        Ok(wire::TunnelProtocol::None) => TunnelProtocol::None,
        Ok(wire::TunnelProtocol::Hbone) => TunnelProtocol::Hbone,
        Ok(wire::TunnelProtocol::LegacyIstioMtls) => TunnelProtocol::LegacyIstioMtls,
        // Whatever it is, it is not plaintext: sending plaintext there would be the one wrong guess.
        Err(_) => notes.unknown("tunnel_protocol", value, TunnelProtocol::LegacyIstioMtls),
    }
}

fn workload_type(value: i32, notes: &mut Notes) -> WorkloadType {
    match wire::WorkloadType::try_from(value) {
        Ok(wire::WorkloadType::Deployment) => WorkloadType::Deployment,
        Ok(wire::WorkloadType::Cronjob) => WorkloadType::CronJob,
        Ok(wire::WorkloadType::Pod) => WorkloadType::Pod,
        Ok(wire::WorkloadType::Job) => WorkloadType::Job,
        Err(_) => notes.unknown("workload_type", value, WorkloadType::default()),
    }
}

fn health(value: i32, notes: &mut Notes) -> Health {
    match wire::WorkloadStatus::try_from(value) {
        Ok(wire::WorkloadStatus::Healthy) => Health::Healthy,
        Ok(wire::WorkloadStatus::Unhealthy) => Health::Unhealthy,
        Err(_) => notes.unknown("status", value, Health::Unhealthy),
    }
}

fn network_mode(value: i32, notes: &mut Notes) -> NetworkMode {
    match wire::NetworkMode::try_from(value) {
        Ok(wire::NetworkMode::Standard) => NetworkMode::Standard,
        Ok(wire::NetworkMode::HostNetwork) => NetworkMode::HostNetwork,
        // The other guess would make the address unknown, and unknown addresses are reached in plaintext.
        Err(_) => notes.unknown("network_mode", value, NetworkMode::Standard),
    }
}

fn services(message: &wire::Workload, notes: &mut Notes) -> Result<ServicePorts, Malformed> {
    message
        .services
        .iter()
        .map(|(name, list)| {
            let field = || format!("services[{name:?}]");
            let key = ServiceKey::parse(name).map_err(|cause| Malformed::at(field(), Problem::Key(cause)))?;
            let ports = ports(&list.ports, notes).map_err(|malformed| malformed.inside(&field()))?;
            Ok((key, ports))
        })
        .collect()
}

fn application_tunnel(
    message: &wire::ApplicationTunnel,
    notes: &mut Notes,
) -> Result<ApplicationTunnel, Malformed> {
    let proxy_protocol = match wire::application_tunnel::Protocol::try_from(message.protocol) {
        Ok(wire::application_tunnel::Protocol::None) => false,
        Ok(wire::application_tunnel::Protocol::Proxy) => true,
        Err(_) => notes.unknown("application_tunnel.protocol", message.protocol, false),
    };
    let port = port("application_tunnel.port", message.port)?;
    Ok(ApplicationTunnel { proxy_protocol, port: (port != 0).then_some(port) })
}

fn locality(message: &wire::Locality) -> Locality {
    Locality { region: text(&message.region), zone: text(&message.zone), subzone: text(&message.subzone) }
}

/// What our own control plane says; other ones say nothing here.
fn settings(extensions: &[wire::Extension]) -> Result<Option<Settings>, Malformed> {
    let Some(message) = extension::<WorkloadSettings>(extensions, Settings::EXTENSION, SETTINGS)? else {
        return Ok(None);
    };
    let mut probe_ports = message
        .probe_ports
        .iter()
        .map(|number| port("settings.probe_ports", *number))
        .collect::<Result<Vec<_>, _>>()?;
    probe_ports.sort_unstable();
    probe_ports.dedup();
    let node_addresses = message
        .node_addresses
        .iter()
        .map(|bytes| network::ip("settings.node_addresses", bytes))
        .collect::<Result<_, _>>()?;
    let egress = message.egress.as_ref().map(egress).transpose()?;
    Ok(Some(Settings { probe_ports, node_addresses, network_policy: message.network_policy, egress }))
}

/// A range or port that cannot be read makes the whole workload unusable: the one before it stays.
fn egress(message: &internal::Egress) -> Result<Egress, Malformed> {
    let policy = policy_key("settings.egress.policy", &message.policy)?;
    let rules = message.rules.iter().map(egress_rule).collect::<Result<_, _>>()?;
    Ok(Egress { policy, rules })
}

fn egress_rule(message: &internal::EgressRule) -> Result<EgressRule, Malformed> {
    let cidrs = message
        .cidrs
        .iter()
        .map(|range| network::range("settings.egress.cidrs", &range.address, range.length))
        .collect::<Result<_, _>>()?;
    let ports = message
        .ports
        .iter()
        .map(|number| port("settings.egress.ports", *number))
        .collect::<Result<_, _>>()?;
    Ok(EgressRule { cidrs, ports })
}

/// Writes a workload; what equals the default of an empty message is left out.
pub fn encode(workload: &Workload) -> wire::Workload {
    wire::Workload {
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|ip| network::encode_ip(*ip)).collect(),
        network: workload.network.as_str().to_owned(),
        tunnel_protocol: encode_tunnel(workload.tunnel).into(),
        trust_domain: encode_trust_domain(&workload.trust_domain),
        service_account: workload.service_account.to_string(),
        waypoint: workload.waypoint.as_ref().map(network::encode_gateway),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: encode_type(workload.workload_type).into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: workload.native_tunnel,
        authorization_policies: workload.policies.iter().map(ToString::to_string).collect(),
        status: match workload.health {
            Health::Healthy => wire::WorkloadStatus::Healthy,
            Health::Unhealthy => wire::WorkloadStatus::Unhealthy,
        }
        .into(),
        cluster_id: workload.cluster_id.to_string(),
        network_gateway: workload.network_gateway.as_ref().map(network::encode_gateway),
        uid: workload.uid.as_str().to_owned(),
        hostname: workload.hostname.to_string(),
        services: workload
            .services
            .iter()
            .map(|(key, ports)| (key.to_string(), wire::PortList { ports: encode_ports(ports) }))
            .collect(),
        application_tunnel: workload.application_tunnel.map(encode_application_tunnel),
        locality: encode_locality(&workload.locality),
        network_mode: match workload.network_mode {
            NetworkMode::Standard => wire::NetworkMode::Standard,
            NetworkMode::HostNetwork => wire::NetworkMode::HostNetwork,
        }
        .into(),
        extensions: workload.settings.iter().map(|settings| encode_settings(settings)).collect(),
        capacity: (workload.capacity != 1).then_some(workload.capacity),
    }
}

fn encode_tunnel(tunnel: TunnelProtocol) -> wire::TunnelProtocol {
    match tunnel {
        TunnelProtocol::None => wire::TunnelProtocol::None,
        TunnelProtocol::Hbone => wire::TunnelProtocol::Hbone,
        TunnelProtocol::LegacyIstioMtls => wire::TunnelProtocol::LegacyIstioMtls,
    }
}

fn encode_type(workload_type: WorkloadType) -> wire::WorkloadType {
    match workload_type {
        WorkloadType::Deployment => wire::WorkloadType::Deployment,
        WorkloadType::CronJob => wire::WorkloadType::Cronjob,
        WorkloadType::Pod => wire::WorkloadType::Pod,
        WorkloadType::Job => wire::WorkloadType::Job,
    }
}

/// Istio leaves the default domain out, and so do we: equal workloads have equal versions.
fn encode_trust_domain(domain: &TrustDomain) -> String {
    if *domain == TrustDomain::default() { String::new() } else { domain.as_str().to_owned() }
}

fn encode_application_tunnel(tunnel: ApplicationTunnel) -> wire::ApplicationTunnel {
    let protocol = if tunnel.proxy_protocol {
        wire::application_tunnel::Protocol::Proxy
    } else {
        wire::application_tunnel::Protocol::None
    };
    wire::ApplicationTunnel { protocol: protocol.into(), port: tunnel.port.unwrap_or_default().into() }
}

fn encode_locality(locality: &Locality) -> Option<wire::Locality> {
    (*locality != Locality::default()).then(|| wire::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    })
}

/// Also where everything is at its default: that no NetworkPolicy selects a workload has to be said.
fn encode_settings(settings: &Settings) -> wire::Extension {
    let message = WorkloadSettings {
        probe_ports: settings.probe_ports.iter().map(|port| u32::from(*port)).collect(),
        node_addresses: settings.node_addresses.iter().map(|ip| network::encode_ip(*ip)).collect(),
        network_policy: settings.network_policy,
        egress: settings.egress.as_ref().map(encode_egress),
    };
    encode_extension(Settings::EXTENSION, SETTINGS, &message)
}

fn encode_egress(egress: &Egress) -> internal::Egress {
    let range = |net: &IpNet| {
        let (address, length) = network::encode_net(*net);
        internal::EgressRange { address, length }
    };
    let rule = |rule: &EgressRule| internal::EgressRule {
        cidrs: rule.cidrs.iter().map(range).collect(),
        ports: rule.ports.iter().map(|port| u32::from(*port)).collect(),
    };
    internal::Egress { policy: egress.policy.to_string(), rules: egress.rules.iter().map(rule).collect() }
}
