//! From Services and EndpointSlices to the packet rules of one node: objects in, nft text out. Pure.
//!
//! A connection to a service address is sent to one of its ready endpoints, drawn by chance. If there is none,
//! or the address or port is no service's, it is refused at once instead of left to time out. Connections that
//! exist already keep their endpoint, whatever the rules say later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::address::{Families, dns, service_cidrs};
use crate::schedule::ObjectName;
use crate::schedule::endpoints::SERVICE_LABEL;
use crate::schedule::services::{cluster_ips, is_external, is_headless};

/// The table that holds all of it, in the family `inet`.
pub const TABLE: &str = "ambit-lab-services";

/// A transport that service rules can tell ports of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of one service address and where it leads from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Service and name of the port, for whoever reads the rules.
    pub label: String,
    /// The service address.
    pub address: IpAddr,
    /// Its transport.
    pub transport: Transport,
    /// The service's port.
    pub port: u16,
    /// Endpoints to draw from, sorted; none refuses.
    pub targets: Vec<SocketAddr>,
}

/// The rules of the node of that name, as a transaction that replaces those before.
pub fn ruleset(node: &str, services: &[Service], slices: &[EndpointSlice], families: Families) -> String {
    text(&forwards(node, services, slices), families)
}

/// What leads where, sorted by service.
pub fn forwards(node: &str, services: &[Service], slices: &[EndpointSlice]) -> Vec<Forward> {
    let mut by_service: BTreeMap<ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        if let Some(name) = labels.and_then(|l| l.get(SERVICE_LABEL)) {
            let namespace = ObjectName::of(&slice.metadata).namespace;
            by_service.entry(ObjectName { namespace, name: name.clone() }).or_default().push(slice);
        }
    }
    let mut sorted: Vec<(ObjectName, &Service)> = services
        .iter()
        .filter(|s| !is_headless(s) && !is_external(s))
        .map(|s| (ObjectName::of(&s.metadata), s))
        .collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let empty = Vec::new();
    let of = |(name, service): (ObjectName, &Service)| {
        let own = by_service.get(&name).unwrap_or(&empty);
        of_service(&name, service, own, node)
    };
    sorted.into_iter().flat_map(of).collect()
}

fn of_service(name: &ObjectName, service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<Forward> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let only_here = spec.internal_traffic_policy.as_deref() == Some("Local");
    let mut out = Vec::new();
    for address in cluster_ips(service) {
        for port in spec.ports.iter().flatten() {
            // SCTP has no rules here: nothing in a lab speaks it.
            let Some(transport) = transport(port.protocol.as_deref()) else { continue };
            let Ok(number) = u16::try_from(port.port) else { continue };
            let reachable = |e: &&Endpoint| !only_here || e.node_name.as_deref() == Some(node);
            let targets = targets(port, transport, address, slices, reachable);
            let label = match port.name.as_deref() {
                None | Some("") => name.to_string(),
                Some(port) => format!("{name}:{port}"),
            };
            out.push(Forward { label, address, transport, port: number, targets });
        }
    }
    out
}

fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol.unwrap_or("TCP") {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    }
}

/// Ready endpoints; if there is none, those that are going away and still serve.
fn targets(
    port: &ServicePort,
    transport: Transport,
    address: IpAddr,
    slices: &[&EndpointSlice],
    reachable: impl Fn(&&Endpoint) -> bool,
) -> Vec<SocketAddr> {
    let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    for slice in slices.iter().filter(|s| s.address_type == family) {
        let wanted = port.name.as_deref().unwrap_or_default();
        let fits = |p: &&EndpointPort| {
            p.name.as_deref().unwrap_or_default() == wanted
                && self::transport(p.protocol.as_deref()) == Some(transport)
        };
        let own = slice.ports.iter().flatten().find(fits).and_then(|p| p.port);
        let Some(number) = own.and_then(|n| u16::try_from(n).ok()) else { continue };
        for endpoint in slice.endpoints.iter().filter(|e| reachable(e)) {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let list = match (conditions.ready.unwrap_or(true), conditions.serving.unwrap_or(false)) {
                (true, _) => &mut ready,
                (false, true) => &mut leaving,
                (false, false) => continue,
            };
            let parsed = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            list.extend(
                parsed.filter(|a| a.is_ipv4() == address.is_ipv4()).map(|a| SocketAddr::new(a, number)),
            );
        }
    }
    (if ready.is_empty() { leaving } else { ready }).into_iter().collect()
}

/// Writes the rules; the order of statements is fixed so that equal inputs give equal text.
fn text(forwards: &[Forward], families: Families) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{");
    let served: Vec<(usize, &Forward)> =
        forwards.iter().filter(|f| !f.targets.is_empty() && families.has(f.address)).enumerate().collect();
    for (number, forward) in &served {
        write_forward(&mut out, *number, forward);
    }
    for family in [Family::V4, Family::V6].into_iter().filter(|f| f.is_in(families)) {
        write_sets(&mut out, family, &served);
    }
    let both: Vec<Family> = [Family::V4, Family::V6].into_iter().filter(|f| f.is_in(families)).collect();
    write_refusals(&mut out, &both, families);
    let forward =
        |f: &Family| format!("{ip} daddr . meta l4proto . th dport vmap @{}", f.set("services"), ip = f.ip());
    let rules: Vec<String> = both.iter().map(forward).collect();
    write_chain(&mut out, "nat-prerouting", "type nat hook prerouting priority -100; policy accept;", &rules);
    write_chain(&mut out, "nat-output", "type nat hook output priority -100; policy accept;", &rules);
    // A pod that drew itself must not see its own address as the peer: it would answer itself on a short cut.
    let hairpin = |f: &Family| {
        let (ip, set) = (f.ip(), f.set("endpoints"));
        format!("ct status dnat {ip} saddr . {ip} daddr @{set} masquerade")
    };
    let hairpins: Vec<String> = both.iter().map(hairpin).collect();
    write_chain(
        &mut out,
        "nat-postrouting",
        "type nat hook postrouting priority 100; policy accept;",
        &hairpins,
    );
    out.push_str("}\n");
    out
}

/// A family as nft writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn is_in(self, families: Families) -> bool {
        match self {
            Self::V4 => families.v4(),
            Self::V6 => families.v6(),
        }
    }

    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    fn ip(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn set(self, name: &str) -> String {
        match self {
            Self::V4 => format!("{name}4"),
            Self::V6 => format!("{name}6"),
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }
}

fn write_forward(out: &mut String, number: usize, forward: &Forward) {
    let Forward { label, transport, targets, .. } = forward;
    let ip = if forward.address.is_ipv4() { "ip" } else { "ip6" };
    let choices: Vec<String> =
        targets.iter().enumerate().map(|(n, t)| format!("{n} : {} . {}", t.ip(), t.port())).collect();
    let _ = writeln!(out, "\tchain service-{number} {{\n\t\tcomment \"{}\"", quotable(label));
    let draw = format!("numgen random mod {} map {{ {} }}", targets.len(), choices.join(", "));
    let _ = writeln!(out, "\t\tmeta l4proto {transport} dnat {ip} to {draw}\n\t}}");
}

/// A comment that cannot end the quotes it stands in, within nft's 128 bytes.
fn quotable(label: &str) -> String {
    label.chars().filter(|c| c.is_ascii_graphic() && *c != '"').take(120).collect()
}

fn write_sets(out: &mut String, family: Family, served: &[(usize, &Forward)]) {
    let own: Vec<&(usize, &Forward)> = served.iter().filter(|(_, f)| family.has(f.address)).collect();
    let leads = |(number, f): &&(usize, &Forward)| {
        (format!("{} . {} . {}", f.address, f.transport, f.port), format!("goto service-{number}"))
    };
    // Two services can hold one address only by mistake; the first has it, and the rules stay loadable.
    let mut verdicts: BTreeMap<String, String> = BTreeMap::new();
    for (key, verdict) in own.iter().map(leads) {
        verdicts.entry(key).or_insert(verdict);
    }
    let keys: Vec<String> = verdicts.keys().cloned().collect();
    let verdicts: Vec<String> =
        verdicts.into_iter().map(|(key, verdict)| format!("{key} : {verdict}")).collect();
    let kind = format!("{} . inet_proto . inet_service : verdict", family.key());
    write_set(out, "map", &family.set("services"), &kind, &verdicts);
    let kind = format!("{} . inet_proto . inet_service", family.key());
    write_set(out, "set", &family.set("served"), &kind, &keys);
    let endpoints: BTreeSet<IpAddr> =
        own.iter().flat_map(|(_, f)| f.targets.iter().map(SocketAddr::ip)).collect();
    let pairs: Vec<String> = endpoints.iter().map(|ip| format!("{ip} . {ip}")).collect();
    write_set(out, "set", &family.set("endpoints"), &format!("{0} . {0}", family.key()), &pairs);
}

fn write_set(out: &mut String, what: &str, name: &str, kind: &str, elements: &[String]) {
    let _ = writeln!(out, "\t{what} {name} {{\n\t\ttype {kind}");
    if !elements.is_empty() {
        let _ = writeln!(out, "\t\telements = {{\n\t\t\t{}\n\t\t}}", elements.join(",\n\t\t\t"));
    }
    out.push_str("\t}\n");
}

/// New connections to a service address that leads nowhere; before translation, while the address is still there.
fn write_refusals(out: &mut String, both: &[Family], families: Families) {
    let refuse =
        ["meta l4proto tcp reject with tcp reset", "reject with icmpx port-unreachable"].map(str::to_owned);
    write_chain(out, "refuse", "", &refuse);
    let rules: Vec<String> = both.iter().map(|f| refusal(*f, families)).collect();
    write_chain(
        out,
        "refuse-prerouting",
        "type filter hook prerouting priority -110; policy accept;",
        &rules,
    );
    write_chain(out, "refuse-output", "type filter hook output priority -110; policy accept;", &rules);
}

fn refusal(family: Family, families: Families) -> String {
    let find = |all: Vec<IpAddr>| {
        all.into_iter().find(|a| family.has(*a)).map(|a| a.to_string()).unwrap_or_default()
    };
    let range = service_cidrs(families).into_iter().find(|net| family.has(net.addr()));
    let range = range.map(|net| net.to_string()).unwrap_or_default();
    let (ip, set, dns) = (family.ip(), family.set("served"), find(dns(families)));
    format!(
        "ct state new {ip} daddr {range} {ip} daddr != {dns} {ip} daddr . meta l4proto . th dport != @{set} jump refuse"
    )
}

fn write_chain(out: &mut String, name: &str, header: &str, rules: &[String]) {
    let _ = writeln!(out, "\tchain {name} {{");
    for line in std::iter::once(header).filter(|h| !h.is_empty()).chain(rules.iter().map(String::as_str)) {
        let _ = writeln!(out, "\t\t{line}");
    }
    out.push_str("\t}\n");
}

#[cfg(test)]
mod tests;
