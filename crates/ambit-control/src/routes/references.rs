//! What routes and policies refer to, as keys of objects.

use ambit_types::Str;
use ambit_types::written::{BackendRef, Filter, ObjectRef, ParentRef};

use crate::input::{Key, Kind, Name, Route, RouteSpec, Target, TrafficPolicy};

/// Group of the Gateway API.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Group of a kind of routes.
pub(crate) fn group(route: Kind) -> &'static str {
    if route == Kind::VirtualService { "networking.istio.io" } else { GATEWAY_GROUP }
}

/// The service that a parent reference means, if it means one.
pub(crate) fn parent(route: &Name, parent: &ParentRef) -> Option<Name> {
    let is_service = parent.group.as_deref() == Some("") && parent.kind.as_deref() == Some("Service");
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    is_service.then(|| Name::new(namespace, parent.name.as_str()))
}

/// Services that a route attaches to.
pub(crate) fn parents(route: &Route) -> Vec<Key> {
    let services = route.parents().iter().filter_map(|one| parent(&route.name, one));
    services.map(|name| Key::new(Kind::Service, name)).collect()
}

/// The service that a reference means, if it means one.
pub(crate) fn backend(route: &Name, object: &ObjectRef) -> Option<Name> {
    let is_core = object.group.as_deref().unwrap_or_default().is_empty();
    let is_service = is_core && object.kind.as_deref().is_none_or(|kind| kind == "Service");
    let namespace = object.namespace.as_deref().unwrap_or(&route.namespace);
    is_service.then(|| Name::new(namespace, object.name.as_str()))
}

/// Services that a route sends to, mirrors included.
pub(crate) fn backends(route: &Route) -> Vec<Name> {
    let mut objects: Vec<ObjectRef> = Vec::new();
    let mut of_rule = |filters: &[Filter], backends: &[BackendRef]| {
        let mirrors = |filters: &[Filter]| -> Vec<ObjectRef> {
            filters.iter().filter_map(|f| Some(f.request_mirror.as_ref()?.backend_ref.clone())).collect()
        };
        objects.extend(mirrors(filters));
        for one in backends {
            objects.push(one.object());
            objects.extend(mirrors(&one.filters));
        }
    };
    match &route.spec {
        RouteSpec::Http(spec) => spec.rules.iter().for_each(|r| of_rule(&r.filters, &r.backend_refs)),
        RouteSpec::Grpc(spec) => spec.rules.iter().for_each(|r| of_rule(&r.filters, &r.backend_refs)),
        RouteSpec::Tls(spec) => spec.rules.iter().for_each(|r| of_rule(&[], &r.backend_refs)),
        RouteSpec::Tcp(spec) => spec.rules.iter().for_each(|r| of_rule(&[], &r.backend_refs)),
        RouteSpec::Virtual(spec) => {
            spec.rules.iter().for_each(|r| of_rule(&r.rule.filters, &r.rule.backend_refs));
        }
    }
    objects.iter().filter_map(|object| backend(&route.name, object)).collect()
}

/// What a traffic policy attaches to.
pub(crate) fn of_traffic_policy(policy: &TrafficPolicy) -> Vec<Key> {
    let targets = policy.spec.target_refs.iter();
    let keys = targets.filter_map(|target| {
        let kind = match (target.group.as_str(), target.kind.as_str()) {
            ("", "Service") => Kind::Service,
            (GATEWAY_GROUP, "HTTPRoute") => Kind::HttpRoute,
            (GATEWAY_GROUP, "GRPCRoute") => Kind::GrpcRoute,
            _ => return None,
        };
        Some(Key::new(kind, Name::new(policy.name.namespace.clone(), target.name.as_str())))
    });
    keys.collect()
}

/// What an authorization policy or request authentication attaches to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attachment {
    /// A service of Kubernetes.
    Service(Name),
    /// Every host of a service entry.
    ServiceEntry(Name),
    /// A waypoint.
    Gateway(Name),
    /// Every waypoint of a class.
    Class(Str),
}

impl Attachment {
    /// The object it means.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Service(name) => Key::new(Kind::Service, name.clone()),
            Self::ServiceEntry(name) => Key::new(Kind::ServiceEntry, name.clone()),
            Self::Gateway(name) => Key::new(Kind::Gateway, name.clone()),
            Self::Class(name) => Key::new(Kind::GatewayClass, Name::new("", name.clone())),
        }
    }
}

/// What a policy attaches to, of its own namespace.
pub(crate) fn attachments(policy: &Name, targets: &[Target]) -> Vec<Attachment> {
    targets.iter().filter_map(|target| attachment(policy, target)).collect()
}

/// What one target means; nothing if it is of a kind that policies cannot have.
pub(crate) fn attachment(policy: &Name, target: &Target) -> Option<Attachment> {
    let local = || Name::new(policy.namespace.clone(), target.name.clone());
    match (&*target.group, &*target.kind) {
        ("" | "core", "Service") => Some(Attachment::Service(local())),
        ("networking.istio.io", "ServiceEntry") => Some(Attachment::ServiceEntry(local())),
        (GATEWAY_GROUP, "Gateway") => Some(Attachment::Gateway(local())),
        (GATEWAY_GROUP, "GatewayClass") => Some(Attachment::Class(target.name.clone())),
        _ => None,
    }
}

/// The same as keys of objects.
pub(crate) fn of_policy(policy: &Name, targets: &[Target]) -> Vec<Key> {
    attachments(policy, targets).iter().map(Attachment::key).collect()
}
