//! The mesh configuration as Istio's users write it: ConfigMap `istio`, key `mesh`, a document within a document.
//!
//! Of it, authorizers of `extensionProviders` are read; other settings are other programs' affair and are passed over,
//! and so are providers of logs, traces and metrics. A provider that cannot be read is told with its place, and its
//! siblings stay. What a provider means is for who asked.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;

use crate::de::{self, Quote};
use crate::nearest::nearest;
use crate::object::{Located, Object};
use crate::problem::{Finding, Problem};
use crate::tree::{self, Body, Documents, NodeId, Tree};

/// Name of the ConfigMap; the namespace that counts is the root namespace, which the caller knows.
pub const CONFIG_MAP: &str = "istio";

/// Its key.
const KEY: &str = "mesh";

/// Where the document stands in the object.
const PATH: &str = "data[mesh]";

/// The field that is read.
const PROVIDERS: &str = "extensionProviders";

/// Most providers.
const PROVIDERS_MAX: usize = 256;

/// Kinds of providers that authorize nothing (Istio's `MeshConfig.ExtensionProvider`).
const OTHERS: [&str; 13] = [
    "datadog",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyOtelAls",
    "envoyTcpAls",
    "lightstep",
    "opencensus",
    "opentelemetry",
    "prometheus",
    "sds",
    "skywalking",
    "stackdriver",
    "zipkin",
];

/// One element of `extensionProviders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider<T> {
    /// Where it stands, such as `extensionProviders[0]`.
    pub at: String,
    /// Its name; empty if it has none that can be read.
    pub name: String,
    /// What it says, or everything that cannot be read, each with its field and line.
    pub spec: Result<T, Vec<String>>,
}

/// Authorizers of a mesh configuration, each read as `T`; nothing if the object is none.
///
/// # Errors
/// What makes the document unreadable as a whole; the version before it should stay in force.
pub fn extension_providers<T: DeserializeOwned>(
    object: &Located,
) -> Option<Result<Vec<Provider<T>>, Vec<Problem>>> {
    let Object::ConfigMap(map) = &*object.object else { return None };
    if object.key.name != CONFIG_MAP {
        return None;
    }
    let read = text(map).map_or_else(|| Ok(Vec::new()), read);
    Some(read.map_err(|findings| findings.into_iter().map(|one| placed(object, &one)).collect()))
}

fn text(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get(KEY).map(String::as_str)
}

/// Lines count from the first of the inner document, since its place in the outer one depends on how it is quoted.
fn placed(object: &Located, finding: &Finding) -> Problem {
    object.problem(PATH, words(finding))
}

fn words(finding: &Finding) -> String {
    let colon = if finding.field.is_empty() { "" } else { ": " };
    let near = finding.nearest.as_ref().map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
    format!("{}{colon}{}{near} (line {} of {KEY})", finding.field, finding.message, finding.at.line)
}

fn read<T: DeserializeOwned>(text: &str) -> Result<Vec<Provider<T>>, Vec<Finding>> {
    let Documents { tree, roots, findings } = tree::read(text);
    if !findings.is_empty() {
        return Err(findings);
    }
    let Some(items) = items(&tree, &roots).map_err(|finding| vec![finding])? else { return Ok(Vec::new()) };
    let all = items.iter().enumerate();
    Ok(all.filter_map(|(index, item)| provider(&tree, *item, format!("{PROVIDERS}[{index}]"))).collect())
}

/// The elements of the list; nothing if there is no list.
fn items<'t>(tree: &'t Tree, roots: &[NodeId]) -> Result<Option<&'t Vec<NodeId>>, Finding> {
    let root = match roots {
        [] => return Ok(None),
        [root] => *root,
        [_, second, ..] => return Err(Finding::new(tree.node(*second).at, "", "one document is expected")),
    };
    let entries = match &tree.node(root).body {
        Body::Map(entries) => entries,
        Body::Scalar { .. } if tree.is_null(root) => return Ok(None),
        Body::Scalar { .. } | Body::List(_) => {
            return Err(Finding::new(tree.node(root).at, "", "settings by name are expected"));
        }
    };
    for entry in entries {
        if entry.key == PROVIDERS && entry.repeats.is_some() {
            return Err(Finding::new(entry.at, PROVIDERS, "the field is given twice"));
        }
        let near = nearest(&entry.key, [PROVIDERS]).filter(|near| *near != entry.key);
        if near.is_some() {
            return Err(Finding::new(entry.at, entry.key.as_str(), "unknown field").nearest(near));
        }
    }
    let Some(entry) = tree.entry(root, PROVIDERS) else { return Ok(None) };
    match &tree.node(entry.value).body {
        Body::List(items) if items.len() <= PROVIDERS_MAX => Ok(Some(items)),
        Body::List(items) => {
            let message = format!("{} elements, at most {PROVIDERS_MAX} are allowed", items.len());
            Err(Finding::new(entry.at, PROVIDERS, message))
        }
        Body::Scalar { .. } if tree.is_null(entry.value) => Ok(None),
        Body::Scalar { .. } | Body::Map(_) => Err(Finding::new(entry.at, PROVIDERS, "a list is expected")),
    }
}

/// One element; nothing if it is no authorizer.
fn provider<T: DeserializeOwned>(tree: &Tree, item: NodeId, at: String) -> Option<Provider<T>> {
    if OTHERS.iter().any(|other| tree.entry(item, other).is_some()) {
        return None;
    }
    let name = tree.text(item, "name").unwrap_or_default().to_owned();
    // Headers that are sent along may be secrets.
    let (value, findings) = de::read::<T>(tree, item, Quote::Nothing);
    let spec = match value {
        Some(value) if findings.is_empty() => Ok(value),
        Some(_) | None => {
            let dot = |finding: &Finding| if finding.field.is_empty() { ": " } else { "." };
            Err(findings.iter().map(|one| format!("{at}{}{}", dot(one), words(one))).collect())
        }
    };
    Some(Provider { at, name, spec })
}
