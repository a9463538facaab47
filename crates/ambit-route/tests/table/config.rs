//! The routes of a group attached to their services, as a control plane would attach them.

use std::collections::BTreeMap;

use ambit_route::Table as Compiled;
use ambit_route::model::{Frontend, Group as Attached, Route, RouteConfig, RouteKey, StreamRoute};
use ambit_types::ServiceKey;

use crate::manifest::{FromSpec, Scope, Services, Spec, read, strs};
use crate::schema::{Group, Manifest, Table};

/// Compiled routes.
pub(crate) struct Config {
    pub(crate) table: Compiled,
    pub(crate) errors: Vec<String>,
}

impl Services for Table {
    fn has_port(&self, service: &str, port: u16) -> Option<bool> {
        let named = self.services.iter().find(|(name, _)| full_name(self, name) == service);
        named.map(|(_, ports)| ports.contains_key(&port))
    }
}

/// `NAMESPACE/NAME` of a name that may lack its namespace; a status stays what it is.
pub(crate) fn full_name(table: &Table, name: &str) -> String {
    let is_status = name.parse::<u16>().is_ok();
    if is_status || name.contains('/') { name.to_owned() } else { format!("{}/{name}", table.namespace) }
}

impl Config {
    /// Compiles the routes of a group.
    pub(crate) fn compile(table: &Table, group: &Group) -> Self {
        let mut frontends: BTreeMap<(String, u16), Frontend> = BTreeMap::new();
        for (at, manifest) in group.given.iter().enumerate() {
            attach(table, manifest, u64::try_from(at).expect("few"), &mut frontends);
        }
        let config = RouteConfig { frontends: frontends.into_values().collect(), destinations: Vec::new() };
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
        let service = ServiceKey::parse(&full_name(table, name)).expect("NAMESPACE/NAME");
        (service, port.parse().expect("a port"))
    }
}

fn attach(
    table: &Table,
    manifest: &Manifest,
    position: u64,
    frontends: &mut BTreeMap<(String, u16), Frontend>,
) {
    let spec: Spec = read(&manifest.spec);
    let given = [&manifest.http, &manifest.grpc, &manifest.tls, &manifest.tcp];
    let name = given.into_iter().flatten().next().expect("a kind and a name");
    let name = full_name(table, name);
    let (namespace, own) = name.split_once('/').expect("NAMESPACE/NAME");
    let key = RouteKey::new(namespace, own);
    let routes = attached(manifest, &spec, &key, manifest.created.unwrap_or(position), table);
    for parent in &spec.parent_refs {
        assert_eq!((parent.group.as_str(), parent.kind.as_str()), ("", "Service"), "a mesh route");
        let service_namespace = parent.namespace.as_deref().unwrap_or(namespace);
        let service = format!("{service_namespace}/{}", parent.name);
        let ports = table.services.iter().find(|(name, _)| full_name(table, name) == service).map(|s| s.1);
        for (port, about) in ports.into_iter().flatten() {
            let is_meant = parent.port.is_none_or(|wanted| wanted == *port)
                && parent.section_name.as_ref().is_none_or(|wanted| *wanted == about.name);
            if is_meant {
                let frontend = frontends.entry((service.clone(), *port)).or_insert_with(|| Frontend {
                    service: ServiceKey::parse(&service).expect("NAMESPACE/NAME"),
                    port: *port,
                    producer: None,
                    consumers: BTreeMap::new(),
                });
                let is_producer = service_namespace == namespace;
                merge(frontend, is_producer, namespace, routes.clone());
            }
        }
    }
}

fn attached(manifest: &Manifest, spec: &Spec, key: &RouteKey, created: u64, table: &Table) -> Attached {
    let scope = Scope { services: table, namespace: &key.namespace };
    if manifest.http.is_some() {
        Attached::Http(vec![requests(spec, key, created, &scope)])
    } else if manifest.grpc.is_some() {
        Attached::Grpc(vec![requests(spec, key, created, &scope)])
    } else if manifest.tls.is_some() {
        Attached::Tls(vec![stream(spec, key, created, &scope)])
    } else {
        Attached::Tcp(vec![stream(spec, key, created, &scope)])
    }
}

fn requests<M: FromSpec>(spec: &Spec, key: &RouteKey, created: u64, scope: &Scope<'_>) -> Route<M> {
    Route { key: key.clone(), created, rules: spec.rules.iter().map(|rule| rule.model(scope)).collect() }
}

fn stream(spec: &Spec, key: &RouteKey, created: u64, scope: &Scope<'_>) -> StreamRoute {
    let backends = spec.rules.first().map(|rule| rule.backends(scope)).unwrap_or_default();
    StreamRoute { key: key.clone(), created, hostnames: strs(&spec.hostnames), backends }
}

/// Adds routes to a group. On one port the stronger kind excludes the others.
fn merge(frontend: &mut Frontend, is_producer: bool, namespace: &str, routes: Attached) {
    let before = if is_producer { frontend.producer.take() } else { frontend.consumers.remove(namespace) };
    let merged = match (before, routes) {
        (None, routes) => routes,
        (Some(Attached::Http(mut all)), Attached::Http(more)) => {
            all.extend(more);
            Attached::Http(all)
        }
        (Some(Attached::Grpc(mut all)), Attached::Grpc(more)) => {
            all.extend(more);
            Attached::Grpc(all)
        }
        (Some(Attached::Tls(mut all)), Attached::Tls(more)) => {
            all.extend(more);
            Attached::Tls(all)
        }
        (Some(Attached::Tcp(mut all)), Attached::Tcp(more)) => {
            all.extend(more);
            Attached::Tcp(all)
        }
        (Some(before), routes) => {
            if strength(&before) > strength(&routes) {
                before
            } else {
                routes
            }
        }
    };
    if is_producer {
        frontend.producer = Some(merged);
    } else {
        frontend.consumers.insert(namespace.into(), merged);
    }
}

fn strength(routes: &Attached) -> u8 {
    match routes {
        Attached::Grpc(_) => 3,
        Attached::Http(_) => 2,
        Attached::Tls(_) => 1,
        Attached::Tcp(_) => 0,
    }
}
