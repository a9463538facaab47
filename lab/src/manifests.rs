//! Manifests from files to checked objects, and the store's objects back to text.
//!
//! What is right and what is wrong in a manifest is decided by the manifest and folder libraries; this only
//! collects the files of a command line and gives the results the shape the lab works with.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ambit_folder::Folder;
use ambit_manifest::{Located, ObjectKey, Problem, check_set, nearest, parse};
use serde_json::Value;

pub use ambit_manifest::{Kind, to_yaml};

use crate::config::LabConfig;
use crate::control::{self, Request};
use crate::error::LabError;
use crate::kube::Source;
use crate::paths::RunDir;

/// Objects of some files, each right in itself and all right together.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The objects in the order of the files.
    pub objects: Vec<Value>,
}

impl Loaded {
    /// Names of the Node objects, in order.
    pub fn nodes(&self) -> Vec<String> {
        self.keys().into_iter().filter(|k| k.kind == Kind::Node).map(|k| k.name).collect()
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.objects.iter().filter_map(key_of).collect()
    }
}

/// Reads and checks manifests as a lab of their own.
///
/// # Errors
/// [`LabError::Manifest`] with every problem.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, LabError> {
    let (objects, mut problems) = read(paths)?;
    problems.extend(check_set(&objects));
    finish(&objects, problems)
}

/// Reads and checks manifests against what a lab already holds.
///
/// # Errors
/// [`LabError::NotUp`] without a lab; [`LabError::Manifest`] with every problem.
pub fn load_into(run: &RunDir, paths: &[PathBuf]) -> Result<Loaded, LabError> {
    let (objects, mut problems) = read(paths)?;
    if is_served(run) {
        // What objects refer to is the API server's to check, and the control plane's.
        return finish(&objects, problems);
    }
    let mut all = stored_located(run)?;
    all.retain(|old| objects.iter().all(|new| new.key != old.key));
    let old_files: Vec<_> = all.iter().map(|o| o.location.file.clone()).collect();
    all.extend(objects.iter().cloned());
    // What is wrong between objects that were there before is not this change's fault.
    let new = |p: &Problem| !old_files.contains(&p.location.file);
    problems.extend(check_set(&all).into_iter().filter(new));
    finish(&objects, problems)
}

/// Reads the keys of manifests; what the objects refer to may be gone already.
///
/// # Errors
/// [`LabError::Manifest`] with every problem of a single object.
pub fn load_keys(paths: &[PathBuf]) -> Result<Vec<ObjectKey>, LabError> {
    let (objects, problems) = read(paths)?;
    finish(&objects, problems).map(|loaded| loaded.keys())
}

/// The key of an object by its own metadata.
pub fn key_of(object: &Value) -> Option<ObjectKey> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    Some(ObjectKey::new(
        Kind::from_name(text("/kind")?)?,
        text("/metadata/namespace"),
        text("/metadata/name")?,
    ))
}

fn read(paths: &[PathBuf]) -> Result<(Vec<Located>, Vec<Problem>), LabError> {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for (name, text) in texts(paths)? {
        let parsed = parse(&name, &text);
        objects.extend(parsed.objects);
        problems.extend(parsed.problems);
    }
    Ok((objects, problems))
}

fn finish(objects: &[Located], mut problems: Vec<Problem>) -> Result<Loaded, LabError> {
    if problems.is_empty() {
        return Ok(Loaded { objects: objects.iter().map(|o| (*o.value).clone()).collect() });
    }
    problems.sort();
    problems.dedup();
    Err(LabError::Manifest(problems.iter().map(ToString::to_string).collect()))
}

/// The kind that a person means: `Pod`, `pod`, `pods` or `po`.
///
/// # Errors
/// Names the nearest kind.
pub fn kind(text: &str) -> Result<Kind, LabError> {
    Kind::from_argument(text).ok_or_else(|| {
        let names = Kind::ALL.iter().flat_map(|k| [k.as_str(), k.plural()]);
        let near = nearest(text, names).map(|n| format!(", did you mean {n:?}?")).unwrap_or_default();
        LabError::Usage(format!("{text:?} is no kind of object{near}"))
    })
}

/// The objects of one kind that a lab's store holds.
///
/// # Errors
/// If the store cannot be read, or the daemon of a lab over an API server does not answer.
pub fn stored(run: &RunDir, kind: Kind) -> Result<Vec<Value>, LabError> {
    if is_served(run) {
        return match control::ask(&run.lab()?, &Request::Objects { kind }, &mut |_| {})? {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        };
    }
    let mut objects = stored_located(run)?;
    objects.retain(|o| o.kind() == kind);
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects.iter().map(|o| (*o.value).clone()).collect())
}

/// Whether a lab's objects live in an API server.
fn is_served(run: &RunDir) -> bool {
    LabConfig::load(run).is_ok_and(|config| config.source == Source::Kube)
}

fn stored_located(run: &RunDir) -> Result<Vec<Located>, LabError> {
    if !run.objects().exists() {
        return Ok(Vec::new());
    }
    Ok(Folder::open(run.objects())?.load()?.objects.into_values().collect())
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
