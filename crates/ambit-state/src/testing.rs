//! Worlds, connections and plans in one line each, so that tests can be tables.
//!
//! `pod NS/NAME ADDRESSES [KEY[=VALUE]]…`, `entry …` (a record that is no pod) and `svc NS/NAME [ADDRESSES] [KEY…]`.
//! References are `NS/NAME` of a service (`NS/HOST` if it has a dot) or an address, always at port 15008.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_types::service::{
    HealthPolicy, IpFamilies, LoadBalancingMode, Port, Scope as Preference, Visibility,
};
use ambit_types::workload::{Health, NetworkMode, Settings};
use ambit_types::{
    AppProtocol, ApplicationTunnel, Destination, Egress, EgressRule, GatewayAddress, Identity,
    NetworkAddress, NetworkCidr, PolicyKey, Service, ServiceKey, TrustDomain, TunnelProtocol, Uid,
    WeightedWaypoint, Workload,
};

use crate::{Change, OutboundFacts, OutboundPlan, Refusal, SameNode, Snapshot, World, plan_outbound};

/// A world on node `n1` with everything in the text.
pub(crate) fn world(text: &str) -> World {
    let mut world = World::new("n1");
    let _ = world.apply(changes(text));
    world
}

pub(crate) fn changes(text: &str) -> Vec<Change> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines
        .map(|line| match line.split_once(' ') {
            Some(("pod", rest)) => workload(rest, true).into(),
            Some(("entry", rest)) => workload(rest, false).into(),
            Some(("svc", rest)) => service(rest).into(),
            Some(("-address", name)) => Change::RemoveAddress(name.to_owned()),
            Some(("-policy", name)) => Change::RemovePolicy(name.to_owned()),
            _ => panic!("line {line:?}"),
        })
        .collect()
}

pub(crate) fn uid(name: &str) -> Uid {
    Uid::from(format!("Kubernetes//Pod/{name}"))
}

pub(crate) fn workload(text: &str, pod: bool) -> Workload {
    let mut words = text.split_whitespace();
    let id = words.next().unwrap();
    let (namespace, name) = id.split_once('/').unwrap();
    let uid = if pod { uid(id) } else { Uid::from(format!("Kubernetes/WorkloadEntry/{id}")) };
    let mut w = Workload::new(uid, namespace, name);
    w.node = "n1".into();
    w.tunnel = TunnelProtocol::Hbone;
    w.settings = pod.then(Arc::default);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "node" => w.node = value.into(),
            "sa" => w.service_account = value.into(),
            "plain" => w.tunnel = TunnelProtocol::None,
            "legacy" => w.tunnel = TunnelProtocol::LegacyIstioMtls,
            "native" => w.native_tunnel = true,
            "unready" => w.health = Health::Unhealthy,
            "host" => w.network_mode = NetworkMode::HostNetwork,
            "untold" => w.settings = None,
            "np" => own_settings(&mut w).network_policy = true,
            "network" => w.network = value.into(),
            "cluster" => w.cluster_id = value.into(),
            "name" => w.hostname = value.into(),
            "region" => w.locality.region = value.into(),
            "zone" => w.locality.zone = value.into(),
            "capacity" => w.capacity = value.parse().unwrap(),
            "waypoint" => w.waypoint = Some(reference(value)),
            "gateway" => w.network_gateway = Some(reference(value)),
            "policies" => w.policies = value.split(',').map(|p| PolicyKey::parse(p).unwrap()).collect(),
            "probes" => {
                own_settings(&mut w).probe_ports = value.split(',').map(|p| p.parse().unwrap()).collect()
            }
            "egress" => own_settings(&mut w).egress = Some(egress(value)),
            "nodeips" => own_settings(&mut w).node_addresses = ips(value),
            "apptunnel" => {
                let port = value.trim_start_matches("PROXY/");
                w.application_tunnel =
                    Some(ApplicationTunnel { proxy_protocol: port != value, port: port.parse().ok() });
            }
            "backs" => {
                let (service, ports) = value.split_once(':').unwrap_or((value, ""));
                w.services.insert(service_key(service), port_list(ports));
            }
            addresses => w.addresses = ips(addresses),
        }
    }
    w
}

/// `CIDR;CIDR@PORT;PORT|…`, a rule after each bar.
fn egress(text: &str) -> Egress {
    let rule = |text: &str| {
        let (cidrs, ports) = text.split_once('@').unwrap_or((text, ""));
        let words = |text: &str| text.split(';').filter(|w| !w.is_empty()).map(str::to_owned).collect();
        let (cidrs, ports): (Vec<String>, Vec<String>) = (words(cidrs), words(ports));
        EgressRule {
            cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        }
    };
    let rules = text.split('|').filter(|rule| !rule.is_empty()).map(rule).collect();
    Egress { policy: PolicyKey::new("shop", "egress"), rules }
}

fn own_settings(workload: &mut Workload) -> &mut Settings {
    Arc::make_mut(workload.settings.get_or_insert_default())
}

pub(crate) fn service(text: &str) -> Service {
    let mut words = text.split_whitespace();
    let id = words.next().unwrap();
    let key = service_key(id);
    let name = id.split_once('/').unwrap().1;
    let mut s = Service::new(key.namespace, name, key.hostname);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "ports" => s.ports = port_list(value),
            "network" => s.vips.iter_mut().for_each(|v| v.network = value.into()),
            "range" => s.cidr_vips.extend(
                value
                    .split(',')
                    .map(|range| NetworkCidr { network: "".into(), range: range.parse().unwrap() }),
            ),
            "mode" => mode(&mut s, value),
            "san" => s.subject_alt_names.extend(value.split(',').map(identity)),
            "waypoint" => s.waypoint = Some(reference(value)),
            "weighted" => {
                s.weighted_waypoints = value
                    .split(',')
                    .map(|w| w.split_once('*').unwrap())
                    .map(|(to, weight)| WeightedWaypoint {
                        destination: reference(to),
                        weight: weight.parse().unwrap(),
                    })
                    .collect();
            }
            "unready-too" => s.load_balancing.health = HealthPolicy::AllowAll,
            "private" => s.visibility = Visibility::Namespace,
            "canonical" => s.canonical = true,
            "v4only" => s.ip_families = IpFamilies::Ipv4Only,
            "v6only" => s.ip_families = IpFamilies::Ipv6Only,
            vips => {
                s.vips = ips(vips).into_iter().map(|ip| NetworkAddress::new("".into(), ip)).collect();
            }
        }
    }
    s
}

fn mode(service: &mut Service, text: &str) {
    let (mode, scopes) = text.split_once(':').unwrap_or((text, ""));
    let lb = &mut service.load_balancing;
    lb.mode = match mode {
        "strict" => LoadBalancingMode::Strict,
        "failover" => LoadBalancingMode::Failover,
        "passthrough" => LoadBalancingMode::Passthrough,
        other => panic!("mode {other:?}"),
    };
    let scope = |s: &str| match s {
        "region" => Preference::Region,
        "zone" => Preference::Zone,
        "subzone" => Preference::Subzone,
        "node" => Preference::Node,
        "cluster" => Preference::Cluster,
        "network" => Preference::Network,
        other => panic!("scope {other:?}"),
    };
    lb.preference = scopes.split(',').filter(|s| !s.is_empty()).map(scope).collect();
}

pub(crate) fn service_key(text: &str) -> ServiceKey {
    let (namespace, name) = text.split_once('/').unwrap();
    if name.contains('.') {
        ServiceKey::new(namespace, name)
    } else {
        ServiceKey::new(namespace, format!("{name}.{namespace}.svc.cluster.local"))
    }
}

fn reference(text: &str) -> GatewayAddress {
    let destination = match text.parse::<IpAddr>() {
        Ok(ip) => Destination::Address(NetworkAddress::new("".into(), ip)),
        Err(_) => Destination::Hostname(service_key(text)),
    };
    GatewayAddress { destination, hbone_mtls_port: 15008 }
}

/// `80->8080,443` where a missing target is the port itself.
fn port_list(text: &str) -> Vec<Port> {
    let one = |port: &str| {
        let (service, target) = port.split_once("->").unwrap_or((port, port));
        Port {
            service_port: service.parse().unwrap(),
            target_port: target.parse().unwrap(),
            app_protocol: AppProtocol::Unknown,
        }
    };
    text.split(',').filter(|p| !p.is_empty()).map(one).collect()
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split(',')
        .map(|a| a.parse().unwrap_or_else(|_| panic!("neither a key nor addresses: {text:?}")))
        .collect()
}

pub(crate) fn identity(text: &str) -> Identity {
    let (namespace, account) = text.split_once('/').unwrap();
    Identity::new(TrustDomain::default(), namespace, account)
}

/// A policy that matches everything.
pub(crate) fn policy(key: &str, scope: Scope, action: Action) -> Policy {
    let key = PolicyKey::parse(key).unwrap();
    Policy { key, scope, action, rules: vec![Rule::default()], dry_run: false, until: None }
}

/// How a table asks for a plan.
#[derive(Clone)]
pub(crate) struct Caller<'a> {
    pub(crate) pod: &'a str,
    pub(crate) same_node: SameNode,
    pub(crate) tried: Vec<Uid>,
    pub(crate) draw: u64,
}

impl Caller<'_> {
    pub(crate) fn new(pod: &str) -> Caller<'_> {
        Caller { pod, same_node: SameNode::Auto, tried: Vec::new(), draw: 0 }
    }

    pub(crate) fn plan(&self, snapshot: &Snapshot, destination: &str) -> OutboundPlan {
        let source = snapshot.workload(&uid(self.pod));
        let source_address = source.and_then(|w| w.addresses.first().copied());
        let facts = OutboundFacts {
            source,
            source_address: source_address.unwrap_or_else(|| [10, 244, 0, 250].into()),
            destination: destination.parse().unwrap(),
            same_node: self.same_node,
            tried: &self.tried,
            draw: self.draw,
        };
        plan_outbound(snapshot, &facts)
    }
}

/// A plan in a few words.
pub(crate) fn told(plan: &OutboundPlan) -> String {
    let via = |service: &Option<Arc<Service>>| {
        service.as_ref().map(|s| format!(" of {}/{}", s.namespace, s.name)).unwrap_or_default()
    };
    let hop = |how: &str, hop: &crate::plan::outbound::Hop| {
        let w = &hop.workload;
        format!("{how} {}/{} {}{}", w.namespace, w.name, hop.address, via(&hop.service))
    };
    match plan {
        OutboundPlan::Passthrough { address } => format!("passthrough {address}"),
        OutboundPlan::Plain(to) => hop("plain", to),
        OutboundPlan::Hbone(to) => hop("hbone", to),
        OutboundPlan::Local(to) => hop("local", to),
        OutboundPlan::Waypoint(w) => {
            let name = format!("{}/{}", w.workload.namespace, w.workload.name);
            format!("waypoint {name} {} for {}{}", w.tunnel, w.authority, via(&w.service))
        }
        OutboundPlan::Gateway(g) => {
            let name = format!("{}/{}", g.workload.namespace, g.workload.name);
            format!("gateway {name} {} for {}:{}", g.tunnel, g.host, g.port)
        }
        OutboundPlan::Resolve(by) => format!("resolve {}:{}{}", by.host, by.port, via(&by.service)),
        OutboundPlan::Refuse(refusal) => refused(refusal),
    }
}

pub(crate) fn refused(refusal: &Refusal) -> String {
    assert!(!refusal.detail.is_empty(), "a refusal says what is in the way");
    refusal.reason.to_string()
}
