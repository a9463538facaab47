//! From text to objects: documents, lists, kinds, types.
//!
//! What a field may hold is `validate`'s affair, what objects owe each other `set`'s.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::de::{self, Quote, Unknown};
use crate::gateway::{GatewayObject, Resource};
use crate::kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use crate::nearest::{listed, nearest};
use crate::object::{Located, Object, Source};
use crate::problem::{Finding, Location, Problem};
use crate::tree::{self, Body, Documents, NodeId, Tree};
use crate::validate;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects without a problem, in the order of the file.
    pub objects: Vec<Located>,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads every document of a file; `file` is the name that problems carry.
///
/// An object with any problem is left out of the result, and problems of all objects are reported together.
pub fn parse(file: &str, text: &str) -> Parsed {
    let file: Arc<str> = file.into();
    let mut parsed = Parsed::default();
    for source in sources(&file, text, &mut parsed.problems) {
        object(&file, &source, &mut parsed);
    }
    parsed.problems.sort();
    parsed
}

/// Where every object of a file stands, members of lists each for itself.
pub(crate) fn sources(file: &Arc<str>, text: &str, problems: &mut Vec<Problem>) -> Vec<Source> {
    let Documents { tree, roots, findings } = tree::read(text);
    let tree = Arc::new(tree);
    problems.extend(findings.into_iter().map(|f| f.problem(file, None)));
    let mut sources = Vec::new();
    for root in roots {
        document(file, Source { tree: tree.clone(), root }, &mut sources, problems);
    }
    sources
}

/// Reads one object given as JSON, as a program or an API server hands it over.
///
/// # Errors
/// Every problem of the object; lines count in its YAML form.
pub fn read_value(file: &str, value: &Value) -> Result<Located, Vec<Problem>> {
    let mut parsed = parse(file, &crate::to_yaml(value));
    match parsed.objects.pop() {
        Some(object) if parsed.problems.is_empty() && parsed.objects.is_empty() => Ok(object),
        _ => {
            if parsed.problems.is_empty() {
                let at = tree::START;
                let words = "exactly one object is expected";
                parsed.problems.push(Finding::new(at, "", words).problem(&file.into(), None));
            }
            Err(parsed.problems)
        }
    }
}

fn document(file: &Arc<str>, source: Source, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) {
    let Source { tree, root } = &source;
    if tree.text(*root, "kind") != Some("List") {
        return sources.push(source);
    }
    let items = tree.entry(*root, "items").map(|entry| &tree.node(entry.value).body);
    let Some(Body::List(items)) = items else {
        let finding = Finding::new(tree.locate(*root, "items"), "items", "a List needs a list of items");
        return problems.push(finding.problem(file, None));
    };
    sources.extend(items.iter().map(|item| Source { tree: tree.clone(), root: *item }));
}

/// Reads one object, with every rule that there is for its kind.
pub(crate) fn object(file: &Arc<str>, source: &Source, parsed: &mut Parsed) {
    let kind = match kind(&source.tree, source.root) {
        Ok(kind) => kind,
        Err(finding) => return parsed.problems.push(finding.problem(file, None)),
    };
    let key = key(&source.tree, source.root, kind);
    let (object, mut findings) = typed(&source.tree, source.root, kind, Unknown::Refused);
    let object = object.filter(|_| findings.is_empty()).map(|mut object| {
        if kind.namespaced() {
            let namespace = &mut object.metadata_mut().namespace;
            if namespace.as_deref().unwrap_or_default().is_empty() {
                *namespace = Some(DEFAULT_NAMESPACE.to_owned());
            }
        }
        findings.extend(validate::object(&source.tree, source.root, kind, &object));
        object
    });
    let named = Some(&key).filter(|k| !k.name.is_empty());
    match object {
        Some(object) if findings.is_empty() => parsed.objects.push(located(file, source, key, object)),
        Some(_) | None => parsed.problems.extend(findings.into_iter().map(|f| f.problem(file, named))),
    }
}

fn located(file: &Arc<str>, source: &Source, key: ObjectKey, object: Object) -> Located {
    let at = source.tree.node(source.root).at;
    let mut value = source.tree.json(source.root);
    if let Some(namespace) = &key.namespace {
        value["metadata"]["namespace"] = Value::String(namespace.clone());
    }
    Located {
        key,
        object: Arc::new(object),
        location: Location { file: file.clone(), line: at.line, column: at.column },
        value: Arc::new(value),
        source: source.clone(),
    }
}

/// The object's name as far as it can be read before its type is known.
pub(crate) fn key(tree: &Tree, root: NodeId, kind: Kind) -> ObjectKey {
    let metadata = tree.entry(root, "metadata").map(|e| e.value);
    let text = |field| metadata.and_then(|node| tree.text(node, field)).filter(|t| !t.is_empty());
    ObjectKey::new(kind, text("namespace"), text("name").unwrap_or_default())
}

pub(crate) fn kind(tree: &Tree, root: NodeId) -> Result<Kind, Finding> {
    if !matches!(tree.node(root).body, Body::Map(_)) {
        return Err(Finding::new(tree.node(root).at, "", "expected an object with apiVersion and kind"));
    }
    for field in ["apiVersion", "kind"] {
        if tree.text(root, field).unwrap_or_default().is_empty() {
            return Err(Finding::new(tree.locate(root, field), field, "the field is missing"));
        }
    }
    let (name, version) =
        (tree.text(root, "kind").unwrap_or_default(), tree.text(root, "apiVersion").unwrap_or_default());
    let Some(kind) = Kind::from_name(name) else {
        let known = Kind::ALL.iter().map(|k| k.as_str());
        let near = nearest(name, known.clone());
        let message = match near {
            Some(_) => format!("the kind {name:?} is not known"),
            None => format!("the kind {name:?} is not read here, known are {}", listed_all(known)),
        };
        return Err(Finding::new(tree.locate(root, "kind"), "kind", message).nearest(near));
    };
    if !kind.api_versions().contains(&version) {
        let known = kind.api_versions().iter().copied();
        let near = nearest(version, known.clone()).unwrap_or_else(|| kind.api_versions()[0]);
        let message = format!("{version:?} is not an apiVersion of {kind}, valid are {}", listed(known));
        return Err(Finding::new(tree.locate(root, "apiVersion"), "apiVersion", message).nearest(Some(near)));
    }
    Ok(kind)
}

fn listed_all<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn resource<S: Default + DeserializeOwned>(
    tree: &Tree,
    root: NodeId,
    unknown: Unknown,
    wrap: fn(Resource<S>) -> GatewayObject,
) -> (Option<Object>, Vec<Finding>) {
    let (value, findings) = de::read_with::<Resource<S>>(tree, root, Quote::Values, unknown);
    (value.map(|v| Object::GatewayApi(Box::new(wrap(v)))), findings)
}

/// The object as its kind's type, and what does not fit it.
pub(crate) fn typed(
    tree: &Tree,
    root: NodeId,
    kind: Kind,
    unknown: Unknown,
) -> (Option<Object>, Vec<Finding>) {
    fn read<T: DeserializeOwned>(
        tree: &Tree,
        root: NodeId,
        unknown: Unknown,
        wrap: fn(Box<T>) -> Object,
    ) -> (Option<Object>, Vec<Finding>) {
        let (value, findings) = de::read_with::<T>(tree, root, Quote::Values, unknown);
        (value.map(|v| wrap(Box::new(v))), findings)
    }
    match kind {
        Kind::Namespace => read(tree, root, unknown, Object::Namespace),
        Kind::Node => read(tree, root, unknown, Object::Node),
        Kind::ServiceAccount => read(tree, root, unknown, Object::ServiceAccount),
        Kind::ConfigMap => read(tree, root, unknown, Object::ConfigMap),
        Kind::Secret => {
            let (value, findings) = de::read_with(tree, root, Quote::Nothing, unknown);
            (value.map(|v| Object::Secret(Box::new(v))), findings)
        }
        Kind::Service => read(tree, root, unknown, Object::Service),
        Kind::EndpointSlice => read(tree, root, unknown, Object::EndpointSlice),
        Kind::NetworkPolicy => read(tree, root, unknown, Object::NetworkPolicy),
        Kind::PeerAuthentication => read(tree, root, unknown, Object::PeerAuthentication),
        Kind::AuthorizationPolicy => read(tree, root, unknown, Object::AuthorizationPolicy),
        Kind::RequestAuthentication => read(tree, root, unknown, Object::RequestAuthentication),
        Kind::ServiceEntry => read(tree, root, unknown, Object::ServiceEntry),
        Kind::WorkloadEntry => read(tree, root, unknown, Object::WorkloadEntry),
        Kind::Deployment => read(tree, root, unknown, Object::Deployment),
        Kind::Pod => read(tree, root, unknown, Object::Pod),
        Kind::GatewayClass => resource(tree, root, unknown, GatewayObject::GatewayClass),
        Kind::Gateway => resource(tree, root, unknown, GatewayObject::Gateway),
        Kind::HTTPRoute => resource(tree, root, unknown, GatewayObject::HttpRoute),
        Kind::GRPCRoute => resource(tree, root, unknown, GatewayObject::GrpcRoute),
        Kind::TCPRoute => resource(tree, root, unknown, GatewayObject::TcpRoute),
        Kind::TLSRoute => resource(tree, root, unknown, GatewayObject::TlsRoute),
        Kind::ReferenceGrant => resource(tree, root, unknown, GatewayObject::ReferenceGrant),
        Kind::TrafficPolicy => resource(tree, root, unknown, GatewayObject::TrafficPolicy),
        Kind::EgressPolicy => resource(tree, root, unknown, GatewayObject::EgressPolicy),
        Kind::VirtualService => resource(tree, root, unknown, GatewayObject::VirtualService),
    }
}
