//! Cluster addresses of Services: what the API server's allocator decides.
//!
//! A Service that asks for an address gets it or an error; the others get the lowest free one. Both families of
//! a Service share the offset in their ranges. Nothing is kept here: what is taken stands in the objects.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{ObjectName, Problem};
use crate::address::{Families, dns, service_cidrs};

/// What `spec.clusterIP` says for a Service without an address of its own.
pub const HEADLESS: &str = "None";
/// The first offset that is given out unasked; below are the API server (1) and DNS (10).
const OFFSET_FIRST: u16 = 16;
/// The last one; 65535 is the broadcast address of the IPv4 range.
const OFFSET_LAST: u16 = 65534;

/// The addresses of a Service, to be written into its specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The Service.
    pub service: ObjectName,
    /// `spec.clusterIPs`; `clusterIP` is the first. `None` alone for a headless Service.
    pub cluster_ips: Vec<String>,
    /// `spec.ipFamilies`.
    pub ip_families: Vec<&'static str>,
    /// `spec.ipFamilyPolicy`.
    pub ip_family_policy: &'static str,
}

/// Finds addresses for the Services that have none; those that are complete are not mentioned.
pub fn assign(services: &[Service], families: Families) -> (Vec<Assigned>, Vec<Problem>) {
    let mut sorted: Vec<(ObjectName, &Service)> =
        services.iter().map(|s| (ObjectName::of(&s.metadata), s)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut taken: BTreeMap<IpAddr, ObjectName> = BTreeMap::new();
    let (mut assigned, mut problems) = (Vec::new(), Vec::new());
    // Addresses that were asked for come first, so that none is given away before its owner is seen.
    for (name, service) in &sorted {
        for address in cluster_ips(service) {
            if let Err(message) = claim(&mut taken, name, address, families) {
                problems.push(Problem { kind: "Service", object: name.clone(), message });
            }
        }
    }
    for (name, service) in sorted {
        if problems.iter().any(|p| p.object == name) || is_complete(service) || is_external(service) {
            continue;
        }
        match complete(&name, service, families, &mut taken) {
            Ok(found) => assigned.push(found),
            Err(message) => problems.push(Problem { kind: "Service", object: name, message }),
        }
    }
    problems.sort();
    (assigned, problems)
}

/// The addresses in a Service's specification.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    listed(service).filter_map(|text| text.parse().ok()).collect()
}

/// Whether the Service says that it wants no address.
pub fn is_headless(service: &Service) -> bool {
    listed(service).any(|text| text == HEADLESS)
}

/// Whether the Service is only another name for a host outside.
pub fn is_external(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

/// The families of a Service: as written, or the first of the lab's.
pub fn ip_families(service: &Service, families: Families) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let written =
        spec.and_then(|s| s.ip_families.as_ref()).map(|all| all.iter().filter_map(|f| family(f)).collect());
    let own: Vec<&'static str> = written.unwrap_or_default();
    if !own.is_empty() {
        return own;
    }
    let from_addresses: Vec<&'static str> = cluster_ips(service).into_iter().map(family_of).collect();
    if from_addresses.is_empty() { in_use(families).into_iter().take(1).collect() } else { from_addresses }
}

/// The API's name of an address's family.
pub fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn family(text: &str) -> Option<&'static str> {
    ["IPv4", "IPv6"].into_iter().find(|f| *f == text)
}

fn in_use(families: Families) -> Vec<&'static str> {
    service_cidrs(families).iter().map(|net| family_of(net.addr())).collect()
}

fn listed(service: &Service) -> impl Iterator<Item = &str> {
    let spec = service.spec.as_ref();
    let all = spec.and_then(|s| s.cluster_ips.as_ref()).filter(|l| !l.is_empty());
    let one = spec.and_then(|s| s.cluster_ip.as_deref()).filter(|_| all.is_none());
    all.into_iter().flatten().map(String::as_str).chain(one).filter(|t| !t.is_empty())
}

fn is_complete(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let both = spec.cluster_ip.is_some() && spec.cluster_ips.as_ref().is_some_and(|l| !l.is_empty());
    let families = spec.ip_families.as_ref().map_or(0, Vec::len);
    both && families > 0
        && spec.ip_family_policy.is_some()
        && (is_headless(service) || cluster_ips(service).len() == families)
}

fn claim(
    taken: &mut BTreeMap<IpAddr, ObjectName>,
    service: &ObjectName,
    address: IpAddr,
    families: Families,
) -> Result<(), String> {
    let ranges = service_cidrs(families);
    if !ranges.iter().any(|net| net.contains(&address)) {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        return Err(format!("clusterIP {address} is not in the lab's service range {}", ranges.join(", ")));
    }
    if dns(families).contains(&address) {
        return Err(format!(
            "clusterIP {address} is the cluster DNS's own; leave clusterIP out or choose another"
        ));
    }
    match taken.get(&address) {
        Some(other) if other != service => {
            Err(format!("clusterIP {address} belongs to Service {other} already"))
        }
        Some(_) => Ok(()),
        None => {
            taken.insert(address, service.clone());
            Ok(())
        }
    }
}

fn complete(
    name: &ObjectName,
    service: &Service,
    families: Families,
    taken: &mut BTreeMap<IpAddr, ObjectName>,
) -> Result<Assigned, String> {
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let (wanted, policy) = families_of(service, spec, families)?;
    let assigned = |ips: Vec<String>| Assigned {
        service: name.clone(),
        cluster_ips: ips,
        ip_families: wanted.clone(),
        ip_family_policy: policy,
    };
    if is_headless(service) {
        return Ok(assigned(vec![HEADLESS.to_owned()]));
    }
    let asked = cluster_ips(service);
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|f| !asked.iter().any(|a| family_of(*a) == *f)).collect();
    let drawn = draw(&missing, taken)?;
    for address in &drawn {
        taken.insert(*address, name.clone());
    }
    let of_family =
        |f: &&str| asked.iter().chain(&drawn).find(|a| family_of(**a) == *f).map(ToString::to_string);
    Ok(assigned(wanted.iter().filter_map(of_family).collect()))
}

/// Families and policy of a Service, by the API's defaults: one family unless two are asked for.
fn families_of(
    service: &Service,
    spec: &ServiceSpec,
    families: Families,
) -> Result<(Vec<&'static str>, &'static str), String> {
    let available = in_use(families);
    let mut wanted = ip_families(service, families);
    if let Some(strange) = wanted.iter().find(|f| !available.contains(f)) {
        return Err(format!("ipFamilies names {strange}, but the lab has only {}", available.join(", ")));
    }
    let policy = match spec.ip_family_policy.as_deref() {
        None if wanted.len() == 2 => "RequireDualStack",
        None | Some("SingleStack") => "SingleStack",
        Some("PreferDualStack") => "PreferDualStack",
        Some("RequireDualStack") if available.len() < 2 => {
            return Err(format!(
                "ipFamilyPolicy is RequireDualStack, but the lab has only {}",
                available.join(", ")
            ));
        }
        Some("RequireDualStack") => "RequireDualStack",
        Some(other) => {
            return Err(format!(
                "ipFamilyPolicy {other} is not one of SingleStack, PreferDualStack, RequireDualStack"
            ));
        }
    };
    match policy {
        "SingleStack" if wanted.len() > 1 => {
            return Err("ipFamilyPolicy is SingleStack, but two families or addresses are given".to_owned());
        }
        "SingleStack" => {}
        _ => wanted.extend(available.into_iter().filter(|f| !wanted.contains(f)).collect::<Vec<_>>()),
    }
    Ok((wanted, policy))
}

/// The lowest offset that is free in every one of these families.
fn draw(families: &[&str], taken: &BTreeMap<IpAddr, ObjectName>) -> Result<Vec<IpAddr>, String> {
    let ranges: Vec<IpNet> = service_cidrs(Families::Dual)
        .into_iter()
        .filter(|net| families.contains(&family_of(net.addr())))
        .collect();
    let mut candidates =
        (OFFSET_FIRST..=OFFSET_LAST).map(|n| ranges.iter().map(|r| at(*r, n)).collect::<Vec<_>>());
    let free = candidates.find(|all| all.iter().all(|a| !taken.contains_key(a)));
    free.ok_or_else(|| "the service range has no free address left".to_owned())
}

fn at(range: IpNet, offset: u16) -> IpAddr {
    match range {
        IpNet::V4(net) => IpAddr::from((u32::from(net.addr()) + u32::from(offset)).to_be_bytes()),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.addr()) + u128::from(offset)).into(),
    }
}
