//! `istio.workload.Service` and [`Service`].

use ambit_types::service::{HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope, Visibility};
use ambit_types::{Identity, Service, WeightedWaypoint};

use super::network::{self, Vip};
use super::{Malformed, Notes, Problem, encode_ports, ports, required};
use crate::proto::istio::workload as wire;

/// Reads a service.
///
/// Unknown locality scopes are ignored; other unknown values are read as the default. A subject alternative name
/// that is no identity is left out, which only narrows who the endpoints may be.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole service unusable.
pub fn decode(message: &wire::Service, notes: &mut Notes) -> Result<Service, Malformed> {
    let mut service = Service::new(
        required("namespace", &message.namespace)?,
        message.name.as_str(),
        required("hostname", &message.hostname)?,
    );
    if service.namespace.contains('/') || service.hostname.contains('/') {
        // Its key would be read back as another service's.
        return Err(Malformed::at("hostname", Problem::Key(key_error(&service))));
    }
    for (index, address) in message.addresses.iter().enumerate() {
        match network::vip(&format!("addresses[{index}]"), address)? {
            Vip::Host(host) => service.vips.push(host),
            Vip::Range(range) => service.cidr_vips.push(range),
        }
    }
    service.ports = ports(&message.ports, notes)?;
    service.subject_alt_names = subject_alt_names(&message.subject_alt_names, notes);
    service.waypoint =
        message.waypoint.as_ref().map(|waypoint| network::gateway("waypoint", waypoint)).transpose()?;
    service.weighted_waypoints = weighted_waypoints(&message.weighted_waypoints)?;
    service.load_balancing =
        message.load_balancing.as_ref().map(|choice| load_balancing(choice, notes)).unwrap_or_default();
    service.ip_families = ip_families(message.ip_families, notes);
    service.canonical = message.canonical;
    service.ingress_use_waypoint = message.ingress_use_waypoint;
    service.visibility = match wire::service::Visibility::try_from(message.visibility) {
        Ok(wire::service::Visibility::Public) => Visibility::Public,
        Ok(wire::service::Visibility::Namespace) => Visibility::Namespace,
        Err(_) => notes.unknown("visibility", message.visibility, Visibility::Public),
    };
    Ok(service)
}

fn key_error(service: &Service) -> ambit_types::name::KeyError {
    ambit_types::name::KeyError { text: service.key().to_string() }
}

fn subject_alt_names(list: &[String], notes: &mut Notes) -> Vec<Identity> {
    let mut identities = Vec::with_capacity(list.len());
    for name in list {
        match Identity::parse(name) {
            Ok(identity) => identities.push(identity),
            Err(cause) => notes.add("subject_alt_names", format_args!("{cause}; left out")),
        }
    }
    identities
}

fn weighted_waypoints(list: &[wire::WeightedWaypoint]) -> Result<Vec<WeightedWaypoint>, Malformed> {
    list.iter()
        .enumerate()
        .map(|(index, entry)| {
            let field = format!("weighted_waypoints[{index}].destination");
            let destination =
                entry.destination.as_ref().ok_or_else(|| Malformed::at(&*field, Problem::Missing))?;
            Ok(WeightedWaypoint { destination: network::gateway(&field, destination)?, weight: entry.weight })
        })
        .collect()
}

fn load_balancing(message: &wire::LoadBalancing, notes: &mut Notes) -> LoadBalancing {
    let preference = message.routing_preference.iter().filter_map(|scope| scope_of(*scope, notes)).collect();
    let mode = match wire::load_balancing::Mode::try_from(message.mode) {
        Ok(wire::load_balancing::Mode::UnspecifiedMode) => LoadBalancingMode::Any,
        Ok(wire::load_balancing::Mode::Strict) => LoadBalancingMode::Strict,
        Ok(wire::load_balancing::Mode::Failover) => LoadBalancingMode::Failover,
        Ok(wire::load_balancing::Mode::Passthrough) => LoadBalancingMode::Passthrough,
        Err(_) => notes.unknown("load_balancing.mode", message.mode, LoadBalancingMode::Any),
    };
    let health = match wire::load_balancing::HealthPolicy::try_from(message.health_policy) {
        Ok(wire::load_balancing::HealthPolicy::OnlyHealthy) => HealthPolicy::OnlyHealthy,
        Ok(wire::load_balancing::HealthPolicy::AllowAll) => HealthPolicy::AllowAll,
        Err(_) => {
            notes.unknown("load_balancing.health_policy", message.health_policy, HealthPolicy::OnlyHealthy)
        }
    };
    LoadBalancing { preference, mode, health }
}

fn scope_of(value: i32, notes: &mut Notes) -> Option<Scope> {
    use wire::load_balancing::Scope as Wire;
    match Wire::try_from(value) {
        Ok(Wire::UnspecifiedScope) => None,
        Ok(Wire::Region) => Some(Scope::Region),
        Ok(Wire::Zone) => Some(Scope::Zone),
        Ok(Wire::Subzone) => Some(Scope::Subzone),
        Ok(Wire::Node) => Some(Scope::Node),
        Ok(Wire::Cluster) => Some(Scope::Cluster),
        Ok(Wire::Network) => Some(Scope::Network),
        Err(_) => {
            notes.add("load_balancing.routing_preference", format_args!("unknown value {value} ignored"));
            None
        }
    }
}

fn ip_families(value: i32, notes: &mut Notes) -> IpFamilies {
    match wire::IpFamilies::try_from(value) {
        Ok(wire::IpFamilies::Automatic) => IpFamilies::Automatic,
        Ok(wire::IpFamilies::Ipv4Only) => IpFamilies::Ipv4Only,
        Ok(wire::IpFamilies::Ipv6Only) => IpFamilies::Ipv6Only,
        Ok(wire::IpFamilies::Dual) => IpFamilies::Dual,
        Err(_) => notes.unknown("ip_families", value, IpFamilies::Automatic),
    }
}

/// Writes a service; single addresses go before ranges.
pub fn encode(service: &Service) -> wire::Service {
    let hosts = service.vips.iter().map(network::encode_host);
    let ranges = service.cidr_vips.iter().map(network::encode_range);
    wire::Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: hosts.chain(ranges).collect(),
        ports: encode_ports(&service.ports),
        subject_alt_names: service.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: service.waypoint.as_ref().map(network::encode_gateway),
        load_balancing: encode_load_balancing(&service.load_balancing),
        ip_families: match service.ip_families {
            IpFamilies::Automatic => wire::IpFamilies::Automatic,
            IpFamilies::Ipv4Only => wire::IpFamilies::Ipv4Only,
            IpFamilies::Ipv6Only => wire::IpFamilies::Ipv6Only,
            IpFamilies::Dual => wire::IpFamilies::Dual,
        }
        .into(),
        extensions: Vec::new(),
        canonical: service.canonical,
        ingress_use_waypoint: service.ingress_use_waypoint,
        weighted_waypoints: service
            .weighted_waypoints
            .iter()
            .map(|entry| wire::WeightedWaypoint {
                destination: Some(network::encode_gateway(&entry.destination)),
                weight: entry.weight,
            })
            .collect(),
        visibility: match service.visibility {
            Visibility::Public => wire::service::Visibility::Public,
            Visibility::Namespace => wire::service::Visibility::Namespace,
        }
        .into(),
    }
}

fn encode_load_balancing(choice: &LoadBalancing) -> Option<wire::LoadBalancing> {
    if *choice == LoadBalancing::default() {
        return None;
    }
    let scope = |scope: &Scope| match scope {
        Scope::Region => wire::load_balancing::Scope::Region,
        Scope::Zone => wire::load_balancing::Scope::Zone,
        Scope::Subzone => wire::load_balancing::Scope::Subzone,
        Scope::Node => wire::load_balancing::Scope::Node,
        Scope::Cluster => wire::load_balancing::Scope::Cluster,
        Scope::Network => wire::load_balancing::Scope::Network,
    };
    let mode = match choice.mode {
        LoadBalancingMode::Any => wire::load_balancing::Mode::UnspecifiedMode,
        LoadBalancingMode::Strict => wire::load_balancing::Mode::Strict,
        LoadBalancingMode::Failover => wire::load_balancing::Mode::Failover,
        LoadBalancingMode::Passthrough => wire::load_balancing::Mode::Passthrough,
    };
    let health = match choice.health {
        HealthPolicy::OnlyHealthy => wire::load_balancing::HealthPolicy::OnlyHealthy,
        HealthPolicy::AllowAll => wire::load_balancing::HealthPolicy::AllowAll,
    };
    Some(wire::LoadBalancing {
        routing_preference: choice.preference.iter().map(|each| scope(each).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}
