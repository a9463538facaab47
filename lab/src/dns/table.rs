//! Which names exist and what they stand for, by Kubernetes' DNS specification. Pure.
//!
//! Names are kept as their labels from the top down, so that everything below a name stands together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::pod::sandbox::CLUSTER_DOMAIN;
use crate::schedule::endpoints::{SERVICE_LABEL, is_finished};
use crate::schedule::services::{cluster_ips, is_external, is_headless};
use crate::schedule::{ObjectName, addresses};

/// One thing a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A port at another name.
    Srv {
        /// The port.
        port: u16,
        /// The name.
        target: String,
    },
    /// The same as another name.
    Cname(String),
    /// An address's name.
    Ptr(String),
    /// A text.
    Txt(String),
}

/// Every name of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    names: BTreeMap<String, BTreeSet<Entry>>,
    serial: u32,
}

impl Table {
    /// Builds the table; `serial` should grow with each one.
    pub fn build(services: &[Service], slices: &[EndpointSlice], pods: &[Pod], serial: u32) -> Self {
        let mut table = Self { names: BTreeMap::new(), serial };
        table.add(&format!("dns-version.{CLUSTER_DOMAIN}"), Entry::Txt("1.1.0".to_owned()));
        for branch in ["svc", "pod"] {
            table.names.entry(key(&format!("{branch}.{CLUSTER_DOMAIN}"))).or_default();
        }
        for service in services {
            table.add_service(service, slices);
        }
        for pod in pods.iter().filter(|p| !is_finished(p)) {
            let namespace = ObjectName::of(&pod.metadata).namespace;
            for address in addresses(pod) {
                table.add(&format!("{}.{namespace}.pod.{CLUSTER_DOMAIN}", dashed(address)), entry(address));
            }
        }
        table
    }

    /// The serial number of the zone.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// What a name stands for; nothing if it does not exist, an empty set if only names below it do.
    pub(super) fn find(&self, name: &str) -> Option<BTreeSet<Entry>> {
        let key = key(name);
        if let Some(found) = self.names.get(&key) {
            return Some(found.clone());
        }
        let below = format!("{key}.");
        let next = self.names.range(below.clone()..).next();
        next.is_some_and(|(k, _)| k.starts_with(&below)).then(BTreeSet::new)
    }

    fn add(&mut self, name: &str, entry: Entry) {
        self.names.entry(key(name)).or_default().insert(entry);
    }

    fn add_service(&mut self, service: &Service, slices: &[EndpointSlice]) {
        let name = ObjectName::of(&service.metadata);
        let base = format!("{}.{}.svc.{CLUSTER_DOMAIN}", name.name, name.namespace);
        if is_external(service) {
            let target = service.spec.as_ref().and_then(|s| s.external_name.as_deref()).unwrap_or_default();
            self.add(&base, Entry::Cname(target.trim_end_matches('.').to_lowercase()));
        } else if is_headless(service) {
            // The name exists even while nothing stands behind it.
            self.names.entry(key(&base)).or_default();
            let own = |s: &&EndpointSlice| {
                let of = s.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_LABEL));
                of == Some(&name.name) && ObjectName::of(&s.metadata).namespace == name.namespace
            };
            slices.iter().filter(own).for_each(|slice| self.add_slice(&base, slice));
        } else {
            self.add_cluster_service(&base, service);
        }
    }

    fn add_cluster_service(&mut self, base: &str, service: &Service) {
        for address in cluster_ips(service) {
            self.add(base, entry(address));
            self.add(&reverse(address), Entry::Ptr(base.to_owned()));
        }
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let srv = Entry::Srv { port: number, target: base.to_owned() };
            self.add_port(base, port.name.as_deref(), port.protocol.as_deref(), srv);
        }
    }

    fn add_slice(&mut self, base: &str, slice: &EndpointSlice) {
        let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        for endpoint in slice.endpoints.iter().filter(ready) {
            for address in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(address));
                let full = format!("{host}.{base}");
                self.add(base, entry(address));
                self.add(&full, entry(address));
                self.add(&reverse(address), Entry::Ptr(full.clone()));
                for port in slice.ports.iter().flatten() {
                    let Some(number) = port.port.and_then(|n| u16::try_from(n).ok()) else { continue };
                    let srv = Entry::Srv { port: number, target: full.clone() };
                    self.add_port(base, port.name.as_deref(), port.protocol.as_deref(), srv);
                }
            }
        }
    }

    fn add_port(&mut self, base: &str, name: Option<&str>, protocol: Option<&str>, srv: Entry) {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            let protocol = protocol.unwrap_or("TCP").to_lowercase();
            self.add(&format!("_{name}._{protocol}.{base}"), srv.clone());
        }
        self.add(base, srv);
    }
}

/// An address as an entry.
fn entry(address: IpAddr) -> Entry {
    match address {
        IpAddr::V4(ip) => Entry::A(ip),
        IpAddr::V6(ip) => Entry::Aaaa(ip),
    }
}

/// Labels from the top down: `web.shop.svc` becomes `svc.shop.web`.
fn key(name: &str) -> String {
    let labels: Vec<String> = name.split('.').rev().map(str::to_lowercase).collect();
    labels.join(".")
}

/// An address as one label: 10.244.1.2 is `10-244-1-2`.
fn dashed(address: IpAddr) -> String {
    let text = address.to_string().replace(['.', ':'], "-");
    // A label neither begins nor ends with a dash.
    let text = if text.starts_with('-') { format!("0{text}") } else { text };
    if text.ends_with('-') { format!("{text}0") } else { text }
}

/// The name under which an address's name is looked up.
pub(super) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().into_iter().flat_map(|b| [b >> 4, b & 15]);
            let labels: Vec<String> = digits.rev().map(|d| format!("{d:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}
