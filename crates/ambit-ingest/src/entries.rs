//! ServiceEntry and WorkloadEntry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_control::input::{Endpoint, EntryPort, Labels, Resolution, ServiceEntry, WorkloadEntry};
use ambit_manifest::istio;
use ambit_types::{Locality, Str};
use ipnet::IpNet;
use serde_json::Value;

use super::cluster::SERVICE_ANNOTATIONS;
use super::{Reader, chosen, created, generation, text, words};

/// Annotation of a workload entry that the mesh reads.
const ENTRY_ANNOTATIONS: &[&str] = &["istio.io/autoRegistrationGroup"];

impl Reader<'_> {
    pub(super) fn service_entry(&mut self, from: &istio::ServiceEntry) -> ServiceEntry {
        let spec = &from.spec;
        let mut addresses = Vec::new();
        for (index, address) in spec.addresses.iter().enumerate() {
            let range = address.parse::<IpNet>().or_else(|_| address.parse::<IpAddr>().map(IpNet::from));
            match range {
                Ok(range) => addresses.push(range),
                Err(_) => {
                    let message = format!("{address:?} is neither an IP address nor a CIDR");
                    self.bad(format!("spec.addresses[{index}]"), message);
                }
            }
        }
        let mut ports = Vec::new();
        for (index, port) in spec.ports.iter().enumerate() {
            ports.push(EntryPort {
                name: Str::from(port.name.as_str()),
                number: self.port(format!("spec.ports[{index}].number"), port.number),
                protocol: text(port.protocol.as_deref()),
                target: port.target_port.map(|t| self.port(format!("spec.ports[{index}].targetPort"), t)),
            });
        }
        let endpoints = spec.endpoints.iter().enumerate();
        let endpoints =
            endpoints.map(|(i, e)| self.endpoint(&format!("spec.endpoints[{i}]"), e)).collect::<Vec<_>>();
        ServiceEntry {
            name: self.name(),
            created: created(&from.metadata),
            generation: generation(&from.metadata),
            labels: words(from.metadata.labels.as_ref()),
            annotations: chosen(from.metadata.annotations.as_ref(), SERVICE_ANNOTATIONS),
            hosts: spec.hosts.iter().map(|h| Str::from(h.as_str())).collect(),
            addresses,
            allocated: self.allocated(from.status.as_ref()),
            ports,
            resolution: match spec.resolution.unwrap_or_default() {
                istio::EntryResolution::None => Resolution::None,
                istio::EntryResolution::Static => Resolution::Static,
                istio::EntryResolution::Dns
                | istio::EntryResolution::DnsRoundRobin
                | istio::EntryResolution::DynamicDns => Resolution::Dns,
            },
            endpoints,
            workload_selector: words(spec.workload_selector.as_ref().map(|s| &s.labels)),
            subject_alt_names: spec.subject_alt_names.iter().map(|n| Str::from(n.as_str())).collect(),
        }
    }

    /// Addresses that were allocated: `status.addresses`, each with its host.
    fn allocated(&mut self, status: Option<&Value>) -> BTreeMap<Str, Vec<IpAddr>> {
        let mut allocated: BTreeMap<Str, Vec<IpAddr>> = BTreeMap::new();
        let listed = status.and_then(|s| s.get("addresses")).and_then(Value::as_array);
        for (index, entry) in listed.into_iter().flatten().enumerate() {
            let word = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            let path = format!("status.addresses[{index}].value");
            if let Some(ip) = self.parsed::<IpAddr>(path, word("value"), "IP address") {
                allocated.entry(Str::from(word("host"))).or_default().push(ip);
            }
        }
        allocated
    }

    pub(super) fn workload_entry(&mut self, from: &istio::WorkloadEntry) -> WorkloadEntry {
        let mut endpoint = self.endpoint("spec", &from.spec);
        // Its own labels stand before those of its object.
        let both = [words(from.metadata.labels.as_ref()), endpoint.labels];
        let pairs = both.iter().flat_map(Labels::iter);
        endpoint.labels = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
        WorkloadEntry {
            name: self.name(),
            annotations: chosen(from.metadata.annotations.as_ref(), ENTRY_ANNOTATIONS),
            endpoint,
        }
    }

    fn endpoint(&mut self, path: &str, from: &istio::EntryEndpoint) -> Endpoint {
        let mut ports = BTreeMap::new();
        for (name, number) in &from.ports {
            ports.insert(Str::from(name.as_str()), self.port(format!("{path}.ports[{name}]"), *number));
        }
        let locality = from.locality.as_deref().unwrap_or_default();
        let mut parts = locality.splitn(3, '/').map(Str::from);
        let mut part = || parts.next().unwrap_or_else(|| Str::from(""));
        Endpoint {
            address: text(from.address.as_deref()),
            ports,
            labels: words(Some(&from.labels)),
            network: text(from.network.as_deref()),
            locality: Locality { region: part(), zone: part(), subzone: part() },
            weight: from.weight.unwrap_or_default(),
            service_account: text(from.service_account.as_deref()),
        }
    }
}
