//! The objects that commands judge: of files, of a lab, or of a cluster; and the mesh that they make, compiled as the
//! control plane compiles it.
//!
//! Files are read as people have them in a repository: what the mesh does not read is not in the way, and told.
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
use ambit_manifest::{Kind, Located, Loose, ObjectKey, Other, Problem, parse_loosely, read_served};
use kube::Client;
use serde_json::Value;

use super::nodes::no_lab;
use super::place::failure;
use crate::out::{self, Failure};

mod stage;

/// Most kinds that are named of those that were passed over.
const NAMED_MAX: usize = 5;

/// Objects, and what was beside them in files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    /// Those that the mesh reads, by kind, namespace and name.
    read: BTreeMap<ObjectKey, Located>,
    /// Those that make pods, or were written for Istio and do nothing here.
    others: Vec<Other>,
    /// How many more there were, by apiVersion and kind.
    passed_over: BTreeMap<(String, String), usize>,
}

impl Objects {
    /// Reads files; a folder means its YAML and JSON files, `-` the standard input.
    ///
    /// # Errors
    /// With every problem, when any of them cannot be read.
    pub(crate) fn of_files(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let (mut objects, mut problems) = (Self::default(), Vec::new());
        for (name, text) in texts(paths)? {
            objects.add(parse_loosely(&name, &text), &mut problems);
        }
        fine(problems)?;
        Ok(objects)
    }

    /// Reads a text.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> anyhow::Result<Self> {
        let (mut objects, mut problems) = (Self::default(), Vec::new());
        objects.add(parse_loosely("test.yaml", text), &mut problems);
        fine(problems)?;
        Ok(objects)
    }

    fn add(&mut self, loose: Loose, problems: &mut Vec<Problem>) {
        let Loose { objects, others, passed_over, problems: more } = loose;
        problems.extend(more);
        self.read.extend(objects.into_iter().map(|object| (object.key.clone(), object)));
        self.others.extend(others);
        self.pass_over(passed_over);
    }

    fn pass_over(&mut self, kinds: BTreeMap<(String, String), usize>) {
        for (kind, count) in kinds {
            *self.passed_over.entry(kind).or_default() += count;
        }
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
        let mut objects = Self::default();
        objects.put(served)?;
        Ok(objects)
    }

    fn put(&mut self, served: Vec<Value>) -> Result<(), Failure> {
        let mut problems = Vec::new();
        for value in served {
            match read_served(value) {
                Ok(object) => {
                    self.read.insert(object.key.clone(), object);
                }
                Err(more) => problems.extend(more),
            }
        }
        fine(problems)
    }

    /// These and others; of two with one name the other one.
    pub(crate) fn with(mut self, more: Self) -> Self {
        let Self { read, others, passed_over } = more;
        self.read.extend(read);
        self.others.extend(others);
        self.pass_over(passed_over);
        self
    }

    /// Takes an object out; whether it was there.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.read.remove(key).is_some()
    }

    /// All of those that the mesh reads, by kind, namespace and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Located> {
        self.read.values()
    }

    /// Those that the mesh does not read, but that make pods or were written for Istio.
    pub(crate) fn others(&self) -> &[Other] {
        &self.others
    }

    /// How many objects say nothing to anybody here, and of which kinds; nothing if there are none.
    pub(crate) fn passed_over(&self) -> Option<String> {
        counted(&self.passed_over)
    }

    /// The same of all that a decision does not depend on, also what was written for Istio and does nothing here.
    pub(crate) fn not_decided_by(&self) -> Option<String> {
        let mut kinds = self.passed_over.clone();
        for other in self.others.iter().filter(|other| other.template().is_none()) {
            let version = other.value["apiVersion"].as_str().unwrap_or_default();
            *kinds.entry((version.to_owned(), other.kind.clone())).or_default() += 1;
        }
        counted(&kinds)
    }

    /// How many of these only describe pods, where those that run are judged; nothing if there are none.
    pub(crate) fn templates(&self) -> Option<String> {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let others = self.others.iter().filter(|other| other.template().is_some());
        let deployments = self.of_kind(Kind::Deployment).map(|_| Kind::Deployment.as_str());
        for kind in others.map(|other| other.kind.as_str()).chain(deployments) {
            *kinds.entry(kind).or_default() += 1;
        }
        let names: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        (!names.is_empty()).then(|| {
            format!(
                "pods that the files only describe are not compared, those that run are: {}",
                names.join(", ")
            )
        })
    }

    /// Those of one kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Located> {
        self.read.values().filter(move |object| object.kind() == kind)
    }

    /// The same with what a cluster would add: addresses, pods of what makes pods and of waypoints, the marks
    /// of the node agent.
    ///
    /// # Errors
    /// When what is added cannot be read, which is a mistake of ours.
    pub(crate) fn staged(mut self) -> anyhow::Result<Self> {
        let added = stage::added(&self.read, &self.others);
        self.put(added)?;
        Ok(self)
    }

    /// The mesh that they make.
    ///
    /// # Errors
    /// With every problem, when any of them says what the mesh cannot read.
    pub(crate) fn index(&self) -> anyhow::Result<Index> {
        let (mut events, mut problems) = (Vec::new(), Vec::new());
        for object in self.read.values() {
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

fn counted(kinds: &BTreeMap<(String, String), usize>) -> Option<String> {
    let all: usize = kinds.values().sum();
    if all == 0 {
        return None;
    }
    // Names come from files of anybody: nothing in them may steer a terminal.
    let name = |((version, kind), count): (&(String, String), &usize)| {
        format!("{count} {} of {}", kind.escape_debug(), version.escape_debug())
    };
    let mut names: Vec<String> = kinds.iter().take(NAMED_MAX).map(name).collect();
    if kinds.len() > NAMED_MAX {
        names.push(format!("{} more kinds", kinds.len() - NAMED_MAX));
    }
    Some(format!("{all} objects passed over, which the mesh does not read: {}", names.join(", ")))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kinds: &[(&str, &str)]) -> Objects {
        let template = "template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: b}]}}";
        let object = |(at, (version, kind)): (usize, &(&str, &str))| {
            format!(
                "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: x{at}}}\n\
                 spec: {{selector: {{matchLabels: {{app: a}}}}, {template}}}\n"
            )
        };
        let text: String = kinds.iter().enumerate().map(object).collect();
        Objects::of_text(&text).unwrap()
    }

    #[test]
    fn what_was_passed_over_on_both_sides_is_summed() {
        let claims = |count: usize| of(&vec![("v1", "PersistentVolumeClaim"); count]);
        let told = claims(1).with(claims(2)).passed_over().unwrap();
        assert!(told.starts_with("3 objects passed over"), "{told}");
    }

    #[test]
    fn pods_that_files_only_describe_are_told() {
        assert_eq!(of(&[("v1", "PersistentVolumeClaim")]).templates(), None);
        let told = of(&[("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "StatefulSet")])
            .templates();
        let told = told.unwrap();
        assert!(told.ends_with(": 1 Deployment, 2 StatefulSet"), "{told}");
    }
}
