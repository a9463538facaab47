//! Objects as an API server hands them out: checked once already, with a status, and perhaps of a newer version.
//!
//! What a newer server adds is passed over. Only in policies of security and in imports it is not: a condition that is
//! overlooked would let in whom it shuts out, or send on what was meant for somebody else. Kinds of Kubernetes itself
//! were checked by the server; those of the mesh and of the Gateway API are checked here again, because their schema in
//! the cluster may be older or laxer than ours.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::de::Unknown;
use crate::gateway::GatewayObject;
use crate::kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use crate::object::{Located, Object, Source};
use crate::parse;
use crate::problem::{Finding, Location, Problem};
use crate::tree::{START, Tree};
use crate::validate;

/// What stands for the file in the location of a served object.
pub const SERVED: &str = "kubernetes";

static FILE: LazyLock<Arc<str>> = LazyLock::new(|| SERVED.into());
static NOTHING: LazyLock<Arc<Value>> = LazyLock::new(Arc::default);
/// A tree in which every field is placed at the first position.
static NO_TREE: LazyLock<Source> = LazyLock::new(|| {
    let (tree, root) = Tree::of_json(&Value::Null).unwrap_or_default();
    Source { tree: Arc::new(tree), root }
});

/// Reads an object as an API server serves it; `metadata.managedFields` is dropped.
///
/// # Errors
/// Everything about it that cannot be read; the version before it should stay in force.
pub fn read_served(mut value: Value) -> Result<Located, Vec<Problem>> {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let refuse = |finding: Finding, key: Option<&ObjectKey>| vec![finding.problem(&FILE, key)];
    let (tree, root) = Tree::of_json(&value).map_err(|finding| refuse(finding, None))?;
    let kind = parse::kind(&tree, root).map_err(|finding| refuse(finding, None))?;
    let key = parse::key(&tree, root, kind);
    if key.name.is_empty() {
        return Err(refuse(Finding::new(START, "metadata.name", "the field is missing"), None));
    }
    let (object, mut findings) = parse::typed(&tree, root, kind, unknown_fields(kind));
    let object = object.map(|object| with_namespace(kind, object));
    if let Some(object) = object.as_ref().filter(|_| findings.is_empty() && is_checked_here(kind)) {
        findings = validate::object(&tree, root, kind, object);
    }
    match object {
        Some(object) if findings.is_empty() => Ok(Located {
            key,
            object: Arc::new(object),
            location: first_place(),
            value: Arc::new(value),
            source: Source { tree: Arc::new(tree), root },
        }),
        Some(_) | None => Err(findings.into_iter().map(|f| f.problem(&FILE, Some(&key))).collect()),
    }
}

/// Names an object that has been read from an API server's answer; [`Located::value`] is `null`.
///
/// # Errors
/// The problem that it has no name.
pub fn served(object: Object) -> Result<Located, Vec<Problem>> {
    let kind = kind_of(&object);
    let object = with_namespace(kind, object);
    let metadata = object.metadata();
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(vec![Finding::new(START, "metadata.name", "the field is missing").problem(&FILE, None)]);
    }
    Ok(Located {
        key: ObjectKey::new(kind, metadata.namespace.as_deref(), name),
        object: Arc::new(object),
        location: first_place(),
        value: NOTHING.clone(),
        source: NO_TREE.clone(),
    })
}

fn first_place() -> Location {
    Location { file: FILE.clone(), line: START.line, column: START.column }
}

fn with_namespace(kind: Kind, mut object: Object) -> Object {
    let namespace = &mut object.metadata_mut().namespace;
    if kind.namespaced() && namespace.as_deref().unwrap_or_default().is_empty() {
        *namespace = Some(DEFAULT_NAMESPACE.to_owned());
    }
    object
}

fn unknown_fields(kind: Kind) -> Unknown {
    match kind {
        Kind::PeerAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::EgressPolicy
        | Kind::VirtualService => Unknown::RefusedInSpec,
        Kind::Namespace
        | Kind::Node
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Secret
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::NetworkPolicy
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
        | Kind::Deployment
        | Kind::Pod => Unknown::PassedOver,
    }
}

/// Whether values are checked, or whether the server has done all of it.
fn is_checked_here(kind: Kind) -> bool {
    match kind {
        Kind::PeerAuthentication
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
        | Kind::VirtualService => true,
        Kind::Namespace
        | Kind::Node
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Secret
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::NetworkPolicy
        | Kind::Deployment
        | Kind::Pod => false,
    }
}

fn kind_of(object: &Object) -> Kind {
    match object {
        Object::Namespace(_) => Kind::Namespace,
        Object::Node(_) => Kind::Node,
        Object::ServiceAccount(_) => Kind::ServiceAccount,
        Object::ConfigMap(_) => Kind::ConfigMap,
        Object::Secret(_) => Kind::Secret,
        Object::Service(_) => Kind::Service,
        Object::EndpointSlice(_) => Kind::EndpointSlice,
        Object::NetworkPolicy(_) => Kind::NetworkPolicy,
        Object::PeerAuthentication(_) => Kind::PeerAuthentication,
        Object::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
        Object::RequestAuthentication(_) => Kind::RequestAuthentication,
        Object::ServiceEntry(_) => Kind::ServiceEntry,
        Object::WorkloadEntry(_) => Kind::WorkloadEntry,
        Object::Deployment(_) => Kind::Deployment,
        Object::Pod(_) => Kind::Pod,
        Object::GatewayApi(object) => match **object {
            GatewayObject::GatewayClass(_) => Kind::GatewayClass,
            GatewayObject::Gateway(_) => Kind::Gateway,
            GatewayObject::HttpRoute(_) => Kind::HTTPRoute,
            GatewayObject::GrpcRoute(_) => Kind::GRPCRoute,
            GatewayObject::TcpRoute(_) => Kind::TCPRoute,
            GatewayObject::TlsRoute(_) => Kind::TLSRoute,
            GatewayObject::ReferenceGrant(_) => Kind::ReferenceGrant,
            GatewayObject::TrafficPolicy(_) => Kind::TrafficPolicy,
            GatewayObject::EgressPolicy(_) => Kind::EgressPolicy,
            GatewayObject::VirtualService(_) => Kind::VirtualService,
        },
    }
}
