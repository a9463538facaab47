//! The routes of a group attached to their services, by the control plane.

use std::fmt::Write;

use ambit_control::input::Name;
use ambit_route::Table as Compiled;
use ambit_route::model::RouteConfig;
use ambit_types::ServiceKey;
use serde_json::{Value, json};

use crate::schema::{Group, Manifest, Table};
use crate::support;

/// Domain of every service.
const DOMAIN: &str = "svc.cluster.local";

/// Compiled routes.
pub(crate) struct Config {
    pub(crate) table: Compiled,
    pub(crate) errors: Vec<String>,
}

/// `NAMESPACE/NAME` of a name that may lack its namespace; a status stays what it is.
pub(crate) fn full_name(table: &Table, name: &str) -> String {
    let is_status = name.parse::<u16>().is_ok();
    if is_status || name.contains('/') { name.to_owned() } else { format!("{}/{name}", table.namespace) }
}

/// A target as tables write it: `NAMESPACE/NAME:PORT`.
pub(crate) fn short(target: &str) -> String {
    let namespace = target.split_once('/').map_or("", |(namespace, _)| namespace);
    target.replace(&format!(".{namespace}.{DOMAIN}"), "")
}

impl Config {
    /// Compiles the routes of a group, as the waypoint of all services is told them.
    pub(crate) fn compile(table: &Table, group: &Group) -> Self {
        let mut text = String::new();
        let mut put =
            |object: &Value| write!(text, "---\n{}", ambit_manifest::to_yaml(object)).expect("text");
        world(table).iter().for_each(&mut put);
        for (at, given) in group.given.iter().enumerate() {
            put(&route(table, given, u64::try_from(at).expect("few")));
        }
        let index = support::index(&text);
        let waypoint = Name::new(table.namespace.as_str(), "waypoint");
        let resources = &index.waypoints()[&waypoint];
        let frontends = resources.frontends.values().map(|frontend| (**frontend).clone()).collect();
        let config = RouteConfig { frontends, destinations: Vec::new() };
        let (compiled, errors) = Compiled::compile(&config);
        // A route on several ports is compiled, and reported, for each.
        let mut errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        errors.sort();
        errors.dedup();
        Self { table: compiled, errors }
    }

    /// Service and port of `SERVICE:PORT`.
    pub(crate) fn frontend(&self, table: &Table, to: &str) -> (ServiceKey, u16) {
        let (name, port) = to.rsplit_once(':').unwrap_or_else(|| panic!("SERVICE:PORT: {to}"));
        let name = full_name(table, name);
        let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
        let service = ServiceKey::new(namespace, format!("{name}.{namespace}.{DOMAIN}"));
        (service, port.parse().expect("a port"))
    }
}

/// The table's services, all of them served by one waypoint.
fn world(table: &Table) -> Vec<Value> {
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": table.namespace},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
            {"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": "All"}}},
        ]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.96.0.2"}]},
    });
    let mut objects = vec![gateway];
    for (at, (name, ports)) in table.services.iter().enumerate() {
        let full = full_name(table, name);
        let (namespace, name) = full.split_once('/').expect("NAMESPACE/NAME");
        let ports = ports.iter().map(|(port, about)| json!({"port": port, "name": about.name}));
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": {
                "istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": table.namespace,
            }},
            "spec": {"clusterIP": format!("10.96.1.{at}"), "ports": ports.collect::<Vec<_>>()},
        }));
    }
    objects
}

/// A route of the table as a manifest; the shorthand leaves out the group of services.
fn route(table: &Table, given: &Manifest, position: u64) -> Value {
    let kinds = [
        ("HTTPRoute", &given.http),
        ("GRPCRoute", &given.grpc),
        ("TLSRoute", &given.tls),
        ("TCPRoute", &given.tcp),
        ("VirtualService", &given.import),
    ];
    let named = kinds.into_iter().find_map(|(kind, name)| Some((kind, name.as_ref()?)));
    let (kind, name) = named.expect("a kind and a name");
    let full = full_name(table, name);
    let (namespace, name) = full.split_once('/').expect("NAMESPACE/NAME");
    let mut spec = given.spec.clone();
    for parent in spec.get_mut("parentRefs").and_then(Value::as_array_mut).into_iter().flatten() {
        parent["group"] = json!("");
    }
    let created = given.created.unwrap_or(position);
    let stamp = format!("1970-01-01T{:02}:{:02}:{:02}Z", created / 3600, created / 60 % 60, created % 60);
    let group = if kind == "VirtualService" { "networking.istio.io" } else { "gateway.networking.k8s.io" };
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": stamp},
        "spec": spec,
    })
}
