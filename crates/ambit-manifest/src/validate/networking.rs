//! ServiceEntry and WorkloadEntry.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Checks, text};
use crate::istio::{
    EntryEndpoint, EntryPort, EntryResolution, ServiceEntry, ServiceEntrySpec, WorkloadEntry,
};
use crate::nearest::{listed, nearest};

const HOSTS_MAX: usize = 256;
const ADDRESSES_MAX: usize = 256;
const PORTS_MAX: usize = 256;
const ENDPOINTS_MAX: usize = 4096;
const PROTOCOLS: &[&str] =
    &["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "UDP", "MONGO", "MYSQL", "REDIS"];
/// What names can be looked up for one by one, because the caller says which it wants.
const NAMED_PROTOCOLS: &[&str] = &["HTTP", "HTTP2", "GRPC", "TLS"];

pub(super) fn service_entry(c: &mut Checks<'_>, entry: &ServiceEntry) {
    let spec = &entry.spec;
    if spec.hosts.is_empty() {
        c.bad("spec.hosts", "a service needs at least one host");
    }
    c.at_most("spec.hosts", &spec.hosts, HOSTS_MAX);
    let mut hosts = BTreeSet::new();
    for (i, host) in spec.hosts.iter().enumerate() {
        c.text(format!("spec.hosts[{i}]"), host, text::host_name);
        c.unique(format!("spec.hosts[{i}]"), host.to_ascii_lowercase(), &mut hosts);
    }
    let resolution = spec.resolution.unwrap_or_default();
    addresses(c, spec, resolution);
    ports(c, &spec.ports);
    endpoints(c, spec, resolution);
    if resolution == EntryResolution::DynamicDns {
        dynamic(c, spec);
    } else if resolution != EntryResolution::None && spec.hosts.len() > 1 {
        let raw = |p: &EntryPort| p.protocol.as_deref().is_some_and(|p| p.eq_ignore_ascii_case("TCP"));
        if let Some(i) = spec.ports.iter().position(raw) {
            let words = "several hosts cannot share a TCP port, nothing in it says which one is meant";
            c.bad(format!("spec.ports[{i}].protocol"), words);
        }
    }
}

fn addresses(c: &mut Checks<'_>, spec: &ServiceEntrySpec, resolution: EntryResolution) {
    c.at_most("spec.addresses", &spec.addresses, ADDRESSES_MAX);
    for (i, address) in spec.addresses.iter().enumerate() {
        let at = format!("spec.addresses[{i}]");
        c.ip_or_cidr(&at, address);
        let ranges = matches!(resolution, EntryResolution::None | EntryResolution::Static);
        if address.contains('/') && !ranges {
            c.bad(at, "a range of addresses needs resolution NONE or STATIC");
        }
    }
}

fn ports(c: &mut Checks<'_>, ports: &[EntryPort]) {
    c.at_most("spec.ports", ports, PORTS_MAX);
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        c.port(format!("{at}.number"), i64::from(port.number));
        c.unique(format!("{at}.number"), port.number, &mut numbers);
        if port.name.is_empty() {
            c.missing(format!("{at}.name"));
        } else {
            c.text(format!("{at}.name"), &port.name, text::dns_label);
            c.unique(format!("{at}.name"), &port.name, &mut names);
        }
        if let Some(protocol) = &port.protocol {
            c.one_of(format!("{at}.protocol"), &protocol.to_ascii_uppercase(), PROTOCOLS);
        }
        if let Some(target) = port.target_port {
            c.port(format!("{at}.targetPort"), i64::from(target));
        }
    }
}

fn endpoints(c: &mut Checks<'_>, spec: &ServiceEntrySpec, resolution: EntryResolution) {
    c.at_most("spec.endpoints", &spec.endpoints, ENDPOINTS_MAX);
    if !spec.endpoints.is_empty() {
        match resolution {
            EntryResolution::None => c.bad("spec.endpoints", "resolution NONE has no endpoints"),
            EntryResolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
                c.bad("spec.endpoints", "resolution DNS_ROUND_ROBIN has at most one endpoint");
            }
            EntryResolution::Static
            | EntryResolution::Dns
            | EntryResolution::DnsRoundRobin
            | EntryResolution::DynamicDns => {}
        }
    }
    if let Some(selector) = &spec.workload_selector {
        c.labels("spec.workloadSelector.labels", &selector.labels);
        if !spec.endpoints.is_empty() {
            c.bad("spec.workloadSelector", "not together with endpoints");
        }
    }
    for (i, one) in spec.endpoints.iter().enumerate() {
        let at = format!("spec.endpoints[{i}]");
        endpoint(c, &at, one);
        let address = one.address.as_deref().unwrap_or_default();
        if resolution == EntryResolution::Static && !address.is_empty() && address.parse::<IpAddr>().is_err()
        {
            c.bad(format!("{at}.address"), format!("\"{address}\" is not an IP address, which STATIC needs"));
        }
        for name in one.ports.keys().filter(|name| !spec.ports.iter().any(|p| p.name == **name)) {
            let names = || spec.ports.iter().map(|p| p.name.as_str());
            let words = format!("the service has no port \"{name}\", its ports are {}", listed(names()));
            c.near(format!("{at}.ports[{name}]"), words, nearest(name, names()));
        }
    }
}

fn dynamic(c: &mut Checks<'_>, spec: &ServiceEntrySpec) {
    for (i, host) in spec.hosts.iter().enumerate().filter(|(_, h)| !h.starts_with("*.")) {
        c.bad(format!("spec.hosts[{i}]"), format!("\"{host}\" is no wildcard, which DYNAMIC_DNS needs"));
    }
    for (path, given) in
        [("spec.addresses", !spec.addresses.is_empty()), ("spec.endpoints", !spec.endpoints.is_empty())]
    {
        if given {
            c.bad(path, "not together with resolution DYNAMIC_DNS");
        }
    }
    for (i, port) in spec.ports.iter().enumerate() {
        if let Some(protocol) = &port.protocol {
            c.one_of(format!("spec.ports[{i}].protocol"), &protocol.to_ascii_uppercase(), NAMED_PROTOCOLS);
        }
    }
}

pub(super) fn workload_entry(c: &mut Checks<'_>, entry: &WorkloadEntry) {
    endpoint(c, "spec", &entry.spec);
}

fn endpoint(c: &mut Checks<'_>, at: &str, endpoint: &EntryEndpoint) {
    let address = endpoint.address.as_deref().unwrap_or_default();
    if address.is_empty() {
        if endpoint.network.as_deref().unwrap_or_default().is_empty() {
            c.bad(
                format!("{at}.address"),
                "the field is missing; only an endpoint of a network can do without",
            );
        }
    } else if address.parse::<IpAddr>().is_err() {
        let numeric = address.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':' | b'/'));
        if numeric || text::host_name(address).is_err() {
            let words = format!("\"{address}\" is neither an IP address nor a host name");
            c.bad(format!("{at}.address"), words);
        }
    }
    for (name, port) in &endpoint.ports {
        c.port(format!("{at}.ports[{name}]"), i64::from(*port));
    }
    c.labels(&format!("{at}.labels"), &endpoint.labels);
    if let Some(locality) = &endpoint.locality
        && locality.split('/').count() > 3
    {
        c.bad(format!("{at}.locality"), format!("\"{locality}\" has more parts than REGION/ZONE/SUBZONE"));
    }
    if let Some(account) = endpoint.service_account.as_deref().filter(|a| !a.is_empty()) {
        c.text(format!("{at}.serviceAccount"), account, text::dns_subdomain);
    }
}
