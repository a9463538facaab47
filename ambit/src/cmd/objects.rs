//! The objects that commands judge: of files, of a lab, or of a cluster; and the mesh that they make, compiled as the control plane
//! compiles it.
//!
//! Plain manifests lack what a cluster adds; `stage` adds it, so that a folder can be judged before it runs anywhere.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ambit_control::{Index, Settings};
use ambit_kube::KubeError;
use ambit_kube::resource::Resource;
use ambit_kube::watch::{Scope, Selection};
use ambit_kube::write::{self, Target};
use ambit_lab::{LabName, RunDir, manifests};
use ambit_manifest::{Kind, Located, ObjectKey, Problem, parse, read_served};
use kube::Client;
use serde_json::Value;

use super::nodes::no_lab;
use super::place::failure;
use crate::out::{self, Failure};

mod stage;

/// Objects by kind, namespace and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects(BTreeMap<ObjectKey, Located>);

impl Objects {
    /// Reads files; a folder means its YAML and JSON files, `-` the standard input.
    ///
    /// # Errors
    /// With every problem, when any of them cannot be read.
    pub(crate) fn of_files(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let (mut objects, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, text) in texts(paths)? {
            let parsed = parse(&name, &text);
            problems.extend(parsed.problems);
            objects.extend(parsed.objects.into_iter().map(|object| (object.key.clone(), object)));
        }
        fine(problems)?;
        Ok(Self(objects))
    }

    /// Reads a text.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> anyhow::Result<Self> {
        let parsed = parse("test.yaml", text);
        fine(parsed.problems)?;
        Ok(Self(parsed.objects.into_iter().map(|object| (object.key.clone(), object)).collect()))
    }

    /// Everything that a lab holds.
    ///
    /// # Errors
    /// When there is no such lab, or it does not answer.
    pub(crate) fn of_lab(name: &LabName) -> anyhow::Result<Self> {
        let run = RunDir::of(name);
        if !run.root().exists() {
            return Err(Failure::new(out::UNREACHABLE, no_lab(name)).into());
        }
        let mut served = Vec::new();
        for kind in Kind::ALL {
            served.extend(manifests::stored(&run, *kind)?);
        }
        Self::of_served(served)
    }

    /// What the control plane of a cluster reads.
    ///
    /// # Errors
    /// When a kind cannot be listed: without one of them every judgement may be wrong.
    pub(crate) async fn of_cluster(client: &Client, root_namespace: &str) -> anyhow::Result<Self> {
        let mut served = Vec::new();
        for selection in Scope::everything(root_namespace).kinds {
            served.extend(listed(client, &selection).await.map_err(|error| failure(&error))?);
        }
        Self::of_served(served)
    }

    /// Objects as a store hands them out, with what a cluster has added.
    ///
    /// # Errors
    /// With every problem, when any of them cannot be read.
    pub(crate) fn of_served(served: Vec<Value>) -> anyhow::Result<Self> {
        let (mut objects, mut problems) = (BTreeMap::new(), Vec::new());
        for value in served {
            match read_served(value) {
                Ok(object) => {
                    objects.insert(object.key.clone(), object);
                }
                Err(more) => problems.extend(more),
            }
        }
        fine(problems)?;
        Ok(Self(objects))
    }

    /// These and others; of two with one name the other one.
    pub(crate) fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Takes an object out; whether it was there.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// All of them, by kind, namespace and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Located> {
        self.0.values()
    }

    /// Those of one kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Located> {
        self.0.values().filter(move |object| object.kind() == kind)
    }

    /// The same with what a cluster would add: addresses, pods of Deployments and waypoints, the marks of the node agent.
    ///
    /// # Errors
    /// When what is added cannot be read, which is a mistake of ours.
    pub(crate) fn staged(self) -> anyhow::Result<Self> {
        let (mut objects, mut problems) = (self.0, Vec::new());
        for value in stage::added(&objects) {
            match read_served(value) {
                Ok(object) => {
                    objects.insert(object.key.clone(), object);
                }
                Err(more) => problems.extend(more),
            }
        }
        fine(problems)?;
        Ok(Self(objects))
    }

    /// The mesh that they make.
    ///
    /// # Errors
    /// With every problem, when any of them says what the mesh cannot read.
    pub(crate) fn index(&self) -> anyhow::Result<Index> {
        let (mut events, mut problems) = (Vec::new(), Vec::new());
        for object in self.0.values() {
            match ambit_ingest::put(object) {
                Ok(event) => events.extend(event),
                Err(more) => problems.extend(more),
            }
        }
        fine(problems)?;
        let mut index = Index::new(Settings::default());
        // All of it is in the index; what differs from nothing is of no use here.
        let _ = index.apply(events);
        Ok(index)
    }
}

/// The objects of a selection, in the first of its versions that is served, each saying what it is; none if no version is.
async fn listed(client: &Client, selection: &Selection) -> Result<Vec<Value>, KubeError> {
    for version in selection.kind.api_versions() {
        let resource = Resource::of_kind(selection.kind, version);
        let target = Target { resource, namespace: selection.namespace.clone(), name: String::new() };
        let found = write::list(client, &target, selection.labels.as_deref(), selection.fields.as_deref());
        let mut found = match found.await {
            Ok(found) => found,
            Err(KubeError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        for object in &mut found {
            object["apiVersion"] = Value::from(*version);
            object["kind"] = Value::from(selection.kind.as_str());
        }
        return Ok(found);
    }
    Ok(Vec::new())
}

fn fine(mut problems: Vec<Problem>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort();
    problems.dedup();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::new(out::BAD_DATA, lines.join("\n")))
}

/// Name and text of every file that the paths mean.
fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| Failure::new(out::BAD_DATA, format!("reading standard input: {e}")))?;
            texts.push(("<stdin>".to_owned(), text));
            continue;
        }
        for file in files(path)? {
            let text = std::fs::read_to_string(&file).map_err(|e| unread(&file, &e))?;
            texts.push((file.display().to_string(), text));
        }
    }
    Ok(texts)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| unread(path, &e))?;
    let manifest = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(manifest).collect();
    files.sort();
    Ok(files)
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(out::BAD_DATA, format!("reading {}: {error}", path.display()))
}
