//! Where a reference to a backend leads.
//!
//! A reference out of the route's namespace needs a ReferenceGrant, unless it is the very service that the route is
//! attached to: only then does it affect nothing but traffic which that service receives anyhow (GEP-1294). Another
//! service of that namespace may have policies of its own, and whoever wrote the route has no say there. The grant is
//! looked at before the object, so that nobody learns what exists elsewhere.

use ambit_route::model::{BackendFault, Target};
use ambit_types::Str;
use ambit_types::written::{Grant, ObjectRef};

use super::convert::Scope;
use super::references;
use super::service_key;
use crate::index::Inputs;
use crate::input::{Kind, Name, ServicePort, Transport};

/// Words of `appProtocol` for what can be sent as HTTP.
const HTTP_PROTOCOLS: [&str; 6] =
    ["http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"];

/// Resolves a reference of a route.
pub(super) fn target(scope: &Scope<'_>, object: &ObjectRef) -> Target {
    let Some(name) = references::backend(&scope.route.name, object) else {
        let group = object.group.as_deref().unwrap_or_default();
        let kind = object.kind.as_deref().unwrap_or("Service");
        let what = format!("{}{kind} {}", dotted(group), object.name);
        return invalid(BackendFault::InvalidKind, what);
    };
    if !is_permitted(scope, &name) {
        return invalid(BackendFault::RefNotPermitted, name.to_string());
    }
    let Some(service) = scope.inputs.services.named(&name) else {
        return invalid(BackendFault::BackendNotFound, name.to_string());
    };
    if service.external_name {
        // An alias could lead anywhere, out of everybody's policies (CVE-2021-25740).
        return invalid(BackendFault::InvalidKind, format!("ExternalName Service {name}"));
    }
    let found = match object.port {
        Some(wanted) => service.ports.iter().find(|p| i64::from(p.port) == wanted),
        None => only_port(scope.route.kind(), &service.ports),
    };
    match (found, object.port) {
        (Some(port), _) if can_carry(scope.route.kind(), port) => {
            Target::Service { service: service_key(scope.settings, &name), port: port.port }
        }
        (Some(port), _) => invalid(BackendFault::UnsupportedProtocol, format!("{name}:{}", port.port)),
        (None, Some(port)) => invalid(BackendFault::BackendNotFound, format!("{name}:{port}")),
        (None, None) => invalid(BackendFault::BackendNotFound, format!("{name} without a port")),
    }
}

/// The port of a service that has one, where a VirtualService does not say which.
fn only_port(route: Kind, ports: &[ServicePort]) -> Option<&ServicePort> {
    match ports {
        [only] if route == Kind::VirtualService => Some(only),
        _ => None,
    }
}

fn invalid(fault: BackendFault, what: impl Into<Str>) -> Target {
    Target::Invalid { fault, what: what.into() }
}

fn dotted(group: &str) -> String {
    if group.is_empty() { String::new() } else { format!("{group}/") }
}

/// Whether a port, by its declared protocol, takes what such a route sends.
fn can_carry(route: Kind, port: &ServicePort) -> bool {
    let is_stream = matches!(route, Kind::TcpRoute | Kind::TlsRoute);
    let declared = port.app_protocol.as_deref().map(str::to_ascii_lowercase);
    let is_http = declared.is_none_or(|word| HTTP_PROTOCOLS.contains(&word.as_str()));
    port.transport == Transport::Tcp && (is_stream || is_http)
}

fn is_permitted(scope: &Scope<'_>, backend: &Name) -> bool {
    let route = &scope.route.name;
    backend.namespace == route.namespace
        || backend == scope.parent
        || is_granted(
            scope.inputs,
            (references::group(scope.route.kind()), scope.route.kind()),
            &route.namespace,
            backend,
        )
}

/// Whether a namespace lets objects of a kind of another namespace refer to a service of its own.
pub(super) fn is_granted(
    inputs: &Inputs,
    (group, kind): (&str, Kind),
    namespace: &str,
    backend: &Name,
) -> bool {
    let grants = |grant: &Grant| {
        let from = grant
            .from
            .iter()
            .any(|from| from.group == group && from.kind == kind.as_str() && from.namespace == *namespace);
        let to = grant.to.iter().any(|to| {
            to.group.is_empty()
                && to.kind == "Service"
                && to.name.as_deref().is_none_or(|name| name.is_empty() || name == &*backend.name)
        });
        from && to
    };
    inputs.grants.in_namespace(&backend.namespace).any(|grant| grants(&grant.spec))
}
