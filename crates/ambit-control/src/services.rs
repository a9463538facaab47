//! Services and service entries as services of discovery, one record a host name and namespace.
//!
//! Within a namespace a service stands before a service entry, then the oldest counts. Among namespaces exactly
//! one record is canonical.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::service::{HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Port, Scope};
use ambit_types::{Identity, Network, NetworkAddress, NetworkCidr, Service, Str};

use crate::index::{Inputs, Settings};
use crate::input::{self, Labels, Name, Resolution, ServiceEntry, TargetPort, Transport};
use crate::status::{Note, Standing};
use crate::waypoints::{self, Tags};

pub(crate) mod protocol;

/// Says how near endpoints have to be, on services, service entries and namespaces.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// Ingress gateways go through the waypoint too.
const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
/// Set on what a controller made for a gateway.
const MANAGED: &str = "gateway.istio.io/managed";

/// Who stands for a host name in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    Service(&'a Name),
    Entry(&'a Name),
}

/// Host name of a service.
pub(crate) fn service_host(settings: &Settings, name: &Name) -> Str {
    Str::from(format!("{}.{}.svc.{}", name.name, name.namespace, settings.cluster_domain))
}

/// The records of one host name.
pub(crate) fn of_host(inputs: &Inputs, settings: &Settings, network: &Network, host: &Str) -> Vec<Service> {
    let service = service_of(inputs, settings, host);
    let mut entries: BTreeMap<&Str, &ServiceEntry> = BTreeMap::new();
    for entry in inputs.entries_of_host(host) {
        let oldest = entries.entry(&entry.name.namespace).or_insert(entry);
        if age(entry) < age(oldest) {
            *oldest = entry;
        }
    }
    if let Some(service) = service {
        entries.remove(&service.name.namespace);
    }
    let canonical = match service {
        Some(_) => None,
        None => entries.values().min_by_key(|e| age(e)).map(|e| e.name.clone()),
    };
    let mut made: Vec<Service> =
        service.map(|s| from_service(inputs, settings, network, host, s)).into_iter().collect();
    made.extend(entries.values().map(|entry| {
        let canonical = canonical.as_ref() == Some(&entry.name);
        Service { canonical, ..from_entry(inputs, settings, network, host, entry) }
    }));
    made
}

/// Who stands for a host name in a namespace, if anybody does.
pub(crate) fn owner<'a>(
    inputs: &'a Inputs,
    settings: &Settings,
    namespace: &str,
    host: &str,
) -> Option<Owner<'a>> {
    match service_of(inputs, settings, host) {
        Some(service) if *service.name.namespace == *namespace => Some(Owner::Service(&service.name)),
        Some(_) | None => {
            let rivals = inputs.entries_of_host(host).filter(|e| *e.name.namespace == *namespace);
            rivals.min_by_key(|e| age(e)).map(|e| Owner::Entry(&e.name))
        }
    }
}

/// How a service entry stands against others of its hosts, and which of its values cannot be used.
pub(crate) fn standing(inputs: &Inputs, settings: &Settings, entry: &ServiceEntry) -> Standing {
    let mut notes = Vec::new();
    for host in &entry.hosts {
        let text = match owner(inputs, settings, &entry.name.namespace, host) {
            Some(Owner::Entry(name)) if *name == entry.name => continue,
            Some(Owner::Entry(name)) => format!("host {host} belongs to the older ServiceEntry {name}"),
            Some(Owner::Service(name)) => format!("host {host} belongs to Service {name}"),
            None => continue,
        };
        notes.push(Note::plain(text));
    }
    let unread = entry.subject_alt_names.iter().filter(|name| Identity::parse(name).is_err());
    notes.extend(
        unread.map(|name| {
            Note::plain(format!("subjectAltName {name:?} is no mesh identity, no peer may use it"))
        }),
    );
    Standing::of(notes)
}

/// Whether a service was made for a gateway of the mesh, by its labels: it goes through no waypoint, least of all its own.
pub(crate) fn is_of_gateway(labels: &Labels) -> bool {
    let by = labels.get(MANAGED).map(|by| &**by);
    matches!(by, Some("istio.io-mesh-controller" | "istio.io-eastwest-controller"))
}

/// A service that discovery describes, by its host name.
fn service_of<'a>(inputs: &'a Inputs, settings: &Settings, host: &str) -> Option<&'a input::Service> {
    let rest = host.strip_suffix(&*settings.cluster_domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = rest.split_once('.')?;
    inputs.services.named(&Name::new(namespace, name)).filter(|s| !s.external_name)
}

fn age(entry: &ServiceEntry) -> (u64, &Name) {
    (entry.created, &entry.name)
}

fn from_service(
    inputs: &Inputs,
    settings: &Settings,
    network: &Network,
    host: &Str,
    from: &input::Service,
) -> Service {
    let namespace = &from.name.namespace;
    let mut service = Service::new(namespace.clone(), from.name.name.clone(), host.clone());
    let vip = |ip: &IpAddr| NetworkAddress::new(network.clone(), *ip);
    service.vips = from.cluster_ips.iter().map(vip).collect();
    let tcp = from.ports.iter().filter(|p| p.transport == Transport::Tcp);
    service.ports = tcp
        .map(|port| Port {
            service_port: port.port,
            target_port: match &port.target {
                TargetPort::Number(number) => *number,
                TargetPort::Name(_) => 0,
            },
            app_protocol: protocol::of_port(port),
        })
        .collect();
    if !is_of_gateway(&from.labels) {
        let tags = Tags { namespace, labels: &from.labels, annotations: &from.annotations };
        waypoints::bind(inputs, settings, tags, &mut service);
    }
    service.ingress_use_waypoint =
        service.waypoint.is_some() && ingress_use_waypoint(inputs, namespace, &from.labels);
    service.load_balancing = match from.node_local {
        true => LoadBalancing {
            preference: vec![Scope::Node],
            mode: LoadBalancingMode::Strict,
            ..LoadBalancing::default()
        },
        false => {
            let written = from.traffic_distribution.as_ref();
            nearness(written.or_else(|| distribution(inputs, namespace, &from.annotations)))
        }
    };
    if from.publish_not_ready {
        service.load_balancing.health = HealthPolicy::AllowAll;
    }
    service.ip_families = families(&from.ip_families_v6);
    service.canonical = true;
    service
}

fn from_entry(
    inputs: &Inputs,
    settings: &Settings,
    network: &Network,
    host: &Str,
    from: &ServiceEntry,
) -> Service {
    let namespace = &from.name.namespace;
    let mut service = Service::new(namespace.clone(), from.name.name.clone(), host.clone());
    let vip = |ip: IpAddr| NetworkAddress::new(network.clone(), ip);
    for range in &from.addresses {
        match range.prefix_len() == range.max_prefix_len() {
            true => service.vips.push(vip(range.addr())),
            false => service.cidr_vips.push(NetworkCidr { network: network.clone(), range: range.trunc() }),
        }
    }
    if from.addresses.is_empty() {
        service.vips.extend(from.allocated.get(host).into_iter().flatten().map(|ip| vip(*ip)));
    }
    service.ports = from.ports.iter().map(protocol::entry_port).collect();
    service.subject_alt_names =
        from.subject_alt_names.iter().filter_map(|n| Identity::parse(n).ok()).collect();
    let tags = Tags { namespace, labels: &from.labels, annotations: &from.annotations };
    waypoints::bind(inputs, settings, tags, &mut service);
    service.ingress_use_waypoint =
        service.waypoint.is_some() && ingress_use_waypoint(inputs, namespace, &from.labels);
    service.load_balancing = match from.resolution {
        Resolution::None => LoadBalancing {
            preference: Vec::new(),
            mode: LoadBalancingMode::Passthrough,
            health: HealthPolicy::AllowAll,
        },
        Resolution::Static | Resolution::Dns => nearness(distribution(inputs, namespace, &from.annotations)),
    };
    service
}

/// The annotation of the object, or else of its namespace.
fn distribution<'a>(inputs: &'a Inputs, namespace: &Str, annotations: &'a Labels) -> Option<&'a Str> {
    annotations.get(TRAFFIC_DISTRIBUTION).or_else(|| {
        let of = inputs.namespaces.named(&Name::new("", namespace.clone()))?;
        of.annotations.get(TRAFFIC_DISTRIBUTION)
    })
}

/// How near endpoints have to be; an unknown word asks for nothing.
fn nearness(written: Option<&Str>) -> LoadBalancing {
    let word = written.map(|w| w.to_ascii_lowercase()).unwrap_or_default();
    let preference = match word.as_str() {
        "preferclose" | "prefersamezone" => vec![Scope::Network, Scope::Region, Scope::Zone],
        "prefersamenode" => vec![Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node],
        _ => return LoadBalancing::default(),
    };
    LoadBalancing { preference, mode: LoadBalancingMode::Failover, health: HealthPolicy::OnlyHealthy }
}

fn ingress_use_waypoint(inputs: &Inputs, namespace: &Str, labels: &Labels) -> bool {
    let own = labels.get(INGRESS_USE_WAYPOINT);
    let word = own.or_else(|| {
        let of = inputs.namespaces.named(&Name::new("", namespace.clone()))?;
        of.labels.get(INGRESS_USE_WAYPOINT)
    });
    word.is_some_and(|w| w.eq_ignore_ascii_case("true"))
}

fn families(v6: &[bool]) -> IpFamilies {
    match v6 {
        [false] => IpFamilies::Ipv4Only,
        [true] => IpFamilies::Ipv6Only,
        [_, _] => IpFamilies::Dual,
        _ => IpFamilies::Automatic,
    }
}
