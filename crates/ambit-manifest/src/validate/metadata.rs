//! Names, namespaces, labels and annotations of every object.
//!
//! Labels and annotations that the mesh reads have their values checked here, whatever object carries them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Checks, empty_labels, text};
use crate::kind::Kind;

/// Labels of the mesh with a closed set of values.
const MESH_LABELS: &[(&str, &[&str])] = &[
    ("istio.io/dataplane-mode", &["ambient", "none"]),
    ("istio.io/ingress-use-waypoint", &["true", "false"]),
    ("istio.io/waypoint-for", &["service", "workload", "all", "none"]),
];

/// Annotations of the mesh with a closed set of values.
const MESH_ANNOTATIONS: &[(&str, &[&str])] = &[
    ("ambient.istio.io/redirection", &["enabled", "pending"]),
    ("ambient.istio.io/bypass-inbound-capture", &["true", "false"]),
    ("ambient.istio.io/dns-capture", &["true", "false"]),
    ("istio.io/dry-run", &["true", "false"]),
];

pub(super) fn check(c: &mut Checks<'_>, kind: Kind, metadata: &ObjectMeta) {
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        let hint =
            if metadata.generate_name.is_some() { "; generateName does not name an object here" } else { "" };
        c.bad("metadata.name", format!("the field is missing{hint}"));
    } else {
        match kind {
            Kind::Namespace => c.text("metadata.name", name, text::dns_label),
            Kind::Service => c.text("metadata.name", name, text::service_name),
            Kind::Node
            | Kind::ServiceAccount
            | Kind::ConfigMap
            | Kind::Secret
            | Kind::EndpointSlice
            | Kind::NetworkPolicy
            | Kind::PeerAuthentication
            | Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::GatewayClass
            | Kind::Gateway
            | Kind::HTTPRoute
            | Kind::GRPCRoute
            | Kind::TCPRoute
            | Kind::TLSRoute
            | Kind::ReferenceGrant
            | Kind::TrafficPolicy
            | Kind::EgressPolicy
            | Kind::VirtualService
            | Kind::Deployment
            | Kind::Pod => c.text("metadata.name", name, text::dns_subdomain),
        }
    }
    match metadata.namespace.as_deref() {
        Some(namespace) if kind.namespaced() => c.text("metadata.namespace", namespace, text::dns_label),
        Some(_) => c.bad("metadata.namespace", format!("a {kind} has no namespace")),
        None => {}
    }
    tags(c, "metadata", metadata);
}

/// Labels and annotations below `path`, of an object or of a pod template.
pub(super) fn tags(c: &mut Checks<'_>, path: &str, metadata: &ObjectMeta) {
    let labels = metadata.labels.as_ref().unwrap_or_else(|| empty_labels());
    c.labels(&format!("{path}.labels"), labels);
    for (key, valid) in MESH_LABELS {
        c.optional_one_of(format!("{path}.labels[{key}]"), labels.get(*key), valid);
    }
    let annotations = metadata.annotations.as_ref().unwrap_or_else(|| empty_labels());
    for key in annotations.keys() {
        c.text(format!("{path}.annotations[{key}]"), key, text::qualified_name);
    }
    for (key, valid) in MESH_ANNOTATIONS {
        c.optional_one_of(format!("{path}.annotations[{key}]"), annotations.get(*key), valid);
    }
}
