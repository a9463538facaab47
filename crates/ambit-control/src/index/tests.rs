//! What objects become, field by field.
#![expect(clippy::type_complexity, reason = "rows of tables")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::{ServiceKey, Str, Workload};

use super::{Index, Settings};
use crate::input::*;

mod egress;
mod pods;
mod policies;
mod services;
mod shared;
mod waypoints;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect()
}

fn pod(name: &str) -> Pod {
    Pod {
        name: Name::new("shop", name),
        uid: Str::from("uid-1"),
        labels: labels(&[("app", "cart")]),
        annotations: Labels::new(),
        controller: None,
        service_account: Str::from("cart"),
        node: Str::from("node1"),
        host_network: false,
        addresses: vec![IpAddr::from([10, 244, 1, 5])],
        phase: Phase::Running,
        ready: true,
        deleting: false,
        ports: vec![ContainerPort { name: Str::from("web"), port: 8080, transport: Transport::Tcp }],
        probe_ports: vec![9000, 8080, 9000],
    }
}

fn service(name: &str) -> Service {
    Service {
        name: Name::new("shop", name),
        created: 0,
        labels: Labels::new(),
        annotations: Labels::new(),
        selector: labels(&[("app", "cart")]),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 7])],
        ports: vec![port("http-web", 80, TargetPort::Name(Str::from("web")))],
        external_name: false,
        node_local: false,
        traffic_distribution: None,
        publish_not_ready: false,
        ip_families_v6: vec![false],
    }
}

fn port(name: &str, port: u16, target: TargetPort) -> ServicePort {
    ServicePort { name: Str::from(name), port, target, transport: Transport::Tcp, app_protocol: None }
}

fn entry(namespace: &str, name: &str, created: u64, host: &str) -> ServiceEntry {
    ServiceEntry {
        name: Name::new(namespace, name),
        created,
        generation: 0,
        labels: Labels::new(),
        annotations: Labels::new(),
        hosts: vec![Str::from(host)],
        addresses: Vec::new(),
        allocated: BTreeMap::new(),
        ports: vec![EntryPort {
            name: Str::from("db"),
            number: 5432,
            protocol: Str::from("TCP"),
            target: None,
        }],
        resolution: Resolution::Static,
        endpoints: Vec::new(),
        workload_selector: Labels::new(),
        subject_alt_names: Vec::new(),
    }
}

fn put_pod(pod: Pod) -> Event {
    Event::Put(Object::Pod(Box::new(pod)))
}

fn put_service(service: Service) -> Event {
    Event::Put(Object::Service(Box::new(service)))
}

fn put_entry(entry: ServiceEntry) -> Event {
    Event::Put(Object::ServiceEntry(Box::new(entry)))
}

fn index(events: impl IntoIterator<Item = Event>) -> Index {
    let mut index = Index::new(Settings::default());
    index.apply(events);
    index
}

fn only(index: &Index) -> Workload {
    assert_eq!(index.workloads().len(), 1, "{:?}", index.workloads().keys());
    Workload::clone(index.workloads().values().next().unwrap())
}

fn key(host: &str) -> ServiceKey {
    ServiceKey::new("shop", host)
}
