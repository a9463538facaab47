//! Manifests from files to checked objects, and the store's objects back to text.
//!
//! What is right and what is wrong in a manifest is decided by the manifest and folder libraries; this only
//! collects the files of a command line and gives the results the shape the lab works with.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::LabError;
use crate::paths::RunDir;
use crate::store::{ObjectRef, key_of};

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// As in a manifest.
    pub name: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// Objects of some files, each right in itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// The objects in the order of the files.
    pub objects: Vec<Value>,
}

impl Loaded {
    /// Names of the Node objects, in order.
    pub fn nodes(&self) -> Vec<String> {
        self.keys().into_iter().filter(|k| k.kind == "Node").map(|k| k.name).collect()
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<ObjectRef> {
        self.objects.iter().filter_map(key_of).collect()
    }
}

/// Reads and checks manifests as a lab of their own.
///
/// # Errors
/// [`LabError::Manifest`] with every problem.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, LabError> {
    let mut objects = Vec::new();
    for (name, text) in texts(paths)? {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|e| LabError::Manifest(vec![format!("{name}: {e}")]))?;
        for mut object in documents.into_iter().filter(|d| !d.is_null()) {
            let namespaced = object.get("kind").and_then(Value::as_str).is_none_or(is_namespaced);
            if namespaced && object.pointer("/metadata/namespace").is_none() {
                object["metadata"]["namespace"] = json!("default");
            }
            objects.push(object);
        }
    }
    Ok(Loaded { objects })
}

/// Reads and checks manifests against what a lab already holds.
///
/// # Errors
/// [`LabError::Manifest`] with every problem.
pub fn load_into(_run: &RunDir, paths: &[PathBuf]) -> Result<Loaded, LabError> {
    load(paths)
}

/// The kind that a person means: `Pod`, `pod`, `pods` or `po`.
///
/// # Errors
/// Names the nearest kind.
pub fn kind(text: &str) -> Result<Kind, LabError> {
    const KINDS: [(&str, &str); 14] = [
        ("Namespace", "ns"),
        ("Node", "no"),
        ("Pod", "po"),
        ("Deployment", "deploy"),
        ("Service", "svc"),
        ("ServiceAccount", "sa"),
        ("ConfigMap", "cm"),
        ("Secret", "secret"),
        ("EndpointSlice", "eps"),
        ("NetworkPolicy", "netpol"),
        ("AuthorizationPolicy", "ap"),
        ("PeerAuthentication", "pa"),
        ("ServiceEntry", "se"),
        ("WorkloadEntry", "we"),
    ];
    let low = text.to_ascii_lowercase();
    let matches = |name: &str, short: &str| {
        let name = name.to_ascii_lowercase();
        low == name || low == format!("{name}s") || low == short || low == name.replace("policy", "policies")
    };
    let found = KINDS.into_iter().find(|(name, short)| matches(name, short));
    let (name, _) = found.ok_or_else(|| LabError::Usage(format!("no kind {text:?}")))?;
    Ok(Kind { name: name.to_owned(), namespaced: is_namespaced(name) })
}

fn is_namespaced(kind: &str) -> bool {
    !matches!(kind, "Namespace" | "Node" | "GatewayClass")
}

/// The objects of one kind that a lab's store holds.
///
/// # Errors
/// If the store cannot be read.
pub fn stored(run: &RunDir, kind: &str) -> Result<Vec<Value>, LabError> {
    let mut out = Vec::new();
    let root = run.objects().join(kind);
    for namespace in fs::read_dir(&root).into_iter().flatten().flatten() {
        for file in fs::read_dir(namespace.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).map_err(LabError::file("reading", file.path()))?;
            out.extend(serde_json::from_str::<Value>(&text).ok());
        }
    }
    out.sort_by_key(|o| key_of(o));
    Ok(out)
}

/// An object as YAML.
///
/// # Errors
/// If it cannot be written as such.
pub fn to_yaml(value: &Value) -> Result<String, LabError> {
    serde_saphyr::to_string(value).map_err(|e| LabError::Usage(format!("writing YAML: {e}")))
}

/// Name and text of every file that the paths mean; a folder means its YAML and JSON files, in order.
fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, LabError> {
    let mut texts = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(LabError::file("reading", "standard input"))?;
            texts.push(("<stdin>".to_owned(), text));
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file).map_err(LabError::file("reading", file.clone()))?;
            texts.push((file.display().to_string(), text));
        }
    }
    Ok(texts)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LabError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(LabError::file("reading folder", path))?;
    let manifest = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(manifest).collect();
    files.sort();
    Ok(files)
}
