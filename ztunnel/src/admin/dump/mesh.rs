//! Workloads and services.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_state::{ServiceEntry, Snapshot};
use ambit_types::service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Port, Scope, Visibility,
};
use ambit_types::workload::{Health, NetworkMode, WorkloadType};
use ambit_types::{
    ApplicationTunnel, Destination, GatewayAddress, Locality, NetworkCidr, ServiceKey, TunnelProtocol,
    WeightedWaypoint, Workload,
};
use serde_json::{Map, Value, json};

use super::object;

/// One workload.
pub(super) fn workload(w: &Workload) -> Value {
    object(
        [
            ("workloadIps", json!(w.addresses)),
            ("protocol", Value::from(protocol(w.tunnel))),
            ("networkMode", Value::from(network_mode(w.network_mode))),
            ("name", Value::from(&*w.name)),
            ("namespace", Value::from(&*w.namespace)),
            ("status", Value::from(status(w.health))),
            ("clusterId", Value::from(&*w.cluster_id)),
            ("capacity", Value::from(w.capacity)),
        ],
        [
            ("uid", Value::from(w.uid.as_str())),
            ("waypoint", w.waypoint.as_ref().map_or(Value::Null, gateway)),
            ("networkGateway", w.network_gateway.as_ref().map_or(Value::Null, gateway)),
            ("trustDomain", Value::from(w.trust_domain.as_str())),
            ("serviceAccount", Value::from(&*w.service_account)),
            ("network", Value::from(w.network.as_str())),
            ("workloadName", Value::from(&*w.workload_name)),
            ("workloadType", Value::from(workload_type(w.workload_type))),
            ("canonicalName", Value::from(&*w.canonical_name)),
            ("canonicalRevision", Value::from(&*w.canonical_revision)),
            ("hostname", Value::from(&*w.hostname)),
            ("node", Value::from(&*w.node)),
            ("nativeTunnel", Value::from(w.native_tunnel)),
            ("applicationTunnel", w.application_tunnel.as_ref().map_or(Value::Null, application_tunnel)),
            ("authorizationPolicies", texts(&w.policies)),
            ("locality", locality(&w.locality)),
            ("services", texts(w.services.keys())),
            ("probePorts", json!(w.probe_ports())),
        ],
    )
}

/// One service with its endpoints, ready or not.
pub(super) fn service(entry: &ServiceEntry) -> Value {
    let s = entry.service();
    let key = s.key();
    let endpoints: Map<String, Value> =
        entry.endpoints().iter().map(|w| (w.uid.to_string(), endpoint(w, &key))).collect();
    object(
        [
            ("name", Value::from(&*s.name)),
            ("namespace", Value::from(&*s.namespace)),
            ("hostname", Value::from(&*s.hostname)),
            ("vips", texts(&s.vips)),
            ("ports", ports(&s.ports)),
            ("endpoints", Value::Object(endpoints)),
            ("subjectAltNames", texts(&s.subject_alt_names)),
            ("loadBalancer", load_balancer(&s.load_balancing)),
        ],
        [
            ("cidrVips", s.cidr_vips.iter().map(cidr_vip).collect::<Value>()),
            ("waypoint", s.waypoint.as_ref().map_or(Value::Null, gateway)),
            ("weightedWaypoints", s.weighted_waypoints.iter().map(weighted_waypoint).collect::<Value>()),
            ("ipFamilies", ip_families(s.ip_families).map_or(Value::Null, Value::from)),
            ("canonical", Value::from(s.canonical)),
            ("visibility", visibility(s.visibility).map_or(Value::Null, Value::from)),
        ],
    )
}

/// Endpoints of services that discovery has not told of yet, by service.
pub(super) fn staged(snapshot: &Snapshot, workloads: &[&Arc<Workload>]) -> Value {
    let mut staged: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for w in workloads {
        for key in w.services.keys().filter(|key| snapshot.service(key).is_none()) {
            staged.entry(key.to_string()).or_default().insert(w.uid.to_string(), endpoint(w, key));
        }
    }
    json!(staged)
}

/// A workload as an endpoint of a service, with its own mapping of ports.
fn endpoint(w: &Workload, of: &ServiceKey) -> Value {
    json!({
        "workloadUid": w.uid.as_str(),
        "port": ports(w.services.get(of).unwrap_or_default()),
        "status": status(w.health),
    })
}

fn ports(list: &[Port]) -> Value {
    let pair = |port: &Port| (port.service_port.to_string(), Value::from(port.target_port));
    Value::Object(list.iter().map(pair).collect())
}

/// Where a waypoint or a network gateway is reached.
fn gateway(of: &GatewayAddress) -> Value {
    let destination = match &of.destination {
        Destination::Hostname(key) => key.to_string(),
        Destination::Address(address) => address.to_string(),
    };
    json!({"destination": destination, "hboneMtlsPort": of.hbone_mtls_port})
}

fn weighted_waypoint(of: &WeightedWaypoint) -> Value {
    json!({"destination": gateway(&of.destination), "weight": of.weight})
}

fn cidr_vip(of: &NetworkCidr) -> Value {
    json!({"network": of.network.as_str(), "cidr": of.range.to_string()})
}

fn application_tunnel(of: &ApplicationTunnel) -> Value {
    json!({"protocol": if of.proxy_protocol { "PROXY" } else { "NONE" }, "port": of.port})
}

fn locality(of: &Locality) -> Value {
    object(
        [],
        [
            ("region", Value::from(&*of.region)),
            ("zone", Value::from(&*of.zone)),
            ("subzone", Value::from(&*of.subzone)),
        ],
    )
}

fn load_balancer(of: &LoadBalancing) -> Value {
    let mode = match of.mode {
        LoadBalancingMode::Any => "Standard",
        LoadBalancingMode::Strict => "Strict",
        LoadBalancingMode::Failover => "Failover",
        LoadBalancingMode::Passthrough => "Passthrough",
    };
    let health_policy = match of.health {
        HealthPolicy::OnlyHealthy => "OnlyHealthy",
        HealthPolicy::AllowAll => "AllowAll",
    };
    let preferences: Vec<&str> = of.preference.iter().map(|one| scope(*one)).collect();
    json!({"mode": mode, "routingPreferences": preferences, "healthPolicy": health_policy})
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Region => "Region",
        Scope::Zone => "Zone",
        Scope::Subzone => "Subzone",
        Scope::Node => "Node",
        Scope::Cluster => "Cluster",
        Scope::Network => "Network",
    }
}

fn protocol(tunnel: TunnelProtocol) -> &'static str {
    match tunnel {
        TunnelProtocol::Hbone => "HBONE",
        TunnelProtocol::None => "TCP",
        TunnelProtocol::LegacyIstioMtls => "LEGACY_ISTIO_MTLS",
    }
}

fn network_mode(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::Standard => "Standard",
        NetworkMode::HostNetwork => "HostNetwork",
    }
}

fn workload_type(kind: WorkloadType) -> &'static str {
    match kind {
        WorkloadType::Deployment => "deployment",
        WorkloadType::CronJob => "cronjob",
        WorkloadType::Pod => "pod",
        WorkloadType::Job => "job",
    }
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

fn ip_families(families: IpFamilies) -> Option<&'static str> {
    match families {
        IpFamilies::Automatic => None,
        IpFamilies::Ipv4Only => Some("IPv4"),
        IpFamilies::Ipv6Only => Some("IPv6"),
        IpFamilies::Dual => Some("Dual"),
    }
}

fn visibility(of: Visibility) -> Option<&'static str> {
    match of {
        Visibility::Public => None,
        Visibility::Namespace => Some("Namespace"),
    }
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| item.to_string()).collect()
}
