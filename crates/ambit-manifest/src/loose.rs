//! Manifests as people have them in a repository: beside what is read here, kinds that are not.
//!
//! For those who check manifests and apply nothing. What is read is held to the same rules as by
//! [`parse`](fn@crate::parse); kinds that are not read are no problem here, but kept, if they make pods or were written for
//! Istio, or else passed over and counted. A kind that looks like a misspelling of one that is read stays a problem: a
//! policy that nobody looks at would be taken for a good one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::de::{self, Quote, Unknown};
use crate::kind::{DEFAULT_NAMESPACE, Kind};
use crate::nearest::nearest;
use crate::object::{Located, Source};
use crate::parse::{self, Parsed};
use crate::problem::{Finding, Location, Problem};
use crate::tree::{NodeId, Tree};

/// Kinds, with their group, that are real and only look like a misspelling of one that is read.
const LOOK_ALIKES: [(&str, &str); 2] =
    [("networking.istio.io", "WorkloadGroup"), ("gateway.networking.k8s.io", "UDPRoute")];

/// What a file holds, whatever the kinds.
#[derive(Clone, Debug, Default)]
pub struct Loose {
    /// The objects of kinds that are read, without a problem, in the order of the file.
    pub objects: Vec<Located>,
    /// Objects of other kinds that make pods or were written for Istio, in the order of the file.
    pub others: Vec<Other>,
    /// How many objects were passed over, by apiVersion and kind.
    pub passed_over: BTreeMap<(String, String), usize>,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// An object of a kind that nothing of the mesh reads, with the places of its fields. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its kind, such as `StatefulSet` or `EnvoyFilter`.
    pub kind: String,
    /// Its namespace, `default` where none is given.
    pub namespace: String,
    /// Its name; what its name begins with, if the server is to make one up.
    pub name: String,
    /// Where the document starts.
    pub location: Location,
    /// The whole document; `metadata.namespace` is filled in.
    pub value: Arc<Value>,
    source: Source,
}

impl Other {
    /// Where the field at `path` stands, as [`Located::at`] has it.
    pub fn at(&self, path: &str) -> Location {
        let position = self.source.tree.locate(self.source.root, path);
        Location { file: self.location.file.clone(), line: position.line, column: position.column }
    }

    /// What its pods are made of; nothing if it makes none.
    pub fn template(&self) -> Option<&Value> {
        let workload = Workload::of(self.value["apiVersion"].as_str()?, &self.kind)?;
        let spec = match workload {
            Workload::CronJob => &self.value["spec"]["jobTemplate"]["spec"],
            Workload::StatefulSet
            | Workload::DaemonSet
            | Workload::ReplicaSet
            | Workload::Job
            | Workload::ReplicationController => &self.value["spec"],
        };
        spec.get("template").filter(|template| template.is_object())
    }
}

/// Reads every document of a file, as [`parse`](fn@crate::parse) but for kinds that are not read.
pub fn parse_loosely(file: &str, text: &str) -> Loose {
    let file: Arc<str> = file.into();
    let (mut parsed, mut loose) = (Parsed::default(), Loose::default());
    for source in parse::sources(&file, text, &mut parsed.problems) {
        match Standing::of(&source) {
            Standing::Read => parse::object(&file, &source, &mut parsed),
            Standing::Kept(workload) => match other(&file, &source, workload) {
                Ok(other) => loose.others.push(other),
                Err(problems) => parsed.problems.extend(problems),
            },
            Standing::PassedOver(version, kind) => {
                *loose.passed_over.entry((version, kind)).or_default() += 1;
            }
        }
    }
    parsed.problems.sort();
    Loose { objects: parsed.objects, problems: parsed.problems, ..loose }
}

/// What becomes of an object.
enum Standing {
    /// It is read, or it is told what is wrong with its kind.
    Read,
    /// It is kept as it is.
    Kept(Option<Workload>),
    /// It is counted, by apiVersion and kind.
    PassedOver(String, String),
}

impl Standing {
    fn of(source: &Source) -> Self {
        let text = |field| source.tree.text(source.root, field).filter(|text| !text.is_empty());
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else { return Self::Read };
        let group = group(version);
        if let workload @ Some(_) = Workload::of(version, kind) {
            return Self::Kept(workload);
        }
        let is_read_in_group =
            |read: &Kind| read.api_versions().iter().any(|version| self::group(version) == group);
        let read = Kind::ALL.iter().copied().filter(is_read_in_group);
        let is_look_alike = LOOK_ALIKES.contains(&(group, kind));
        let is_misspelt = || nearest(kind, read.map(Kind::as_str).chain(Workload::kinds(version))).is_some();
        if !is_look_alike && (is_misspelt() || is_strayed(group, kind)) {
            return Self::Read;
        }
        match is_of_mesh(group) {
            true => Self::Kept(None),
            false => Self::PassedOver(version.to_owned(), kind.to_owned()),
        }
    }
}

/// Whether a kind that is read stands in a group that only can be a mistake for its own. Others have kinds of the same
/// names in groups of their own, and those are no mistake.
fn is_strayed(group: &str, kind: &str) -> bool {
    let Some(kind) = Kind::from_name(kind) else { return false };
    let mut own = kind.api_versions().iter().map(|version| self::group(version));
    if own.clone().any(|own| own == group) {
        return false;
    }
    // The core group has no kinds but those of Kubernetes, and Istio's groups share no kind.
    group.is_empty() || nearest(group, own.clone()).is_some() || is_of_mesh(group) && own.any(is_of_mesh)
}

fn group(version: &str) -> &str {
    version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Whether a group's kinds tell a mesh what to do: Istio's, and those that meshes once agreed upon.
fn is_of_mesh(group: &str) -> bool {
    group == "istio.io" || group.ends_with(".istio.io") || group.ends_with(".smi-spec.io")
}

/// Kinds beside Pod and Deployment that make pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    CronJob,
    ReplicationController,
}

impl Workload {
    /// All of them, by apiVersion and kind.
    const ALL: &[(&str, &str, Self)] = &[
        ("apps/v1", "StatefulSet", Self::StatefulSet),
        ("apps/v1", "DaemonSet", Self::DaemonSet),
        ("apps/v1", "ReplicaSet", Self::ReplicaSet),
        ("batch/v1", "Job", Self::Job),
        ("batch/v1", "CronJob", Self::CronJob),
        ("v1", "ReplicationController", Self::ReplicationController),
    ];

    fn of(version: &str, kind: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(of, name, _)| (*of, *name) == (version, kind));
        found.map(|(_, _, workload)| *workload)
    }

    /// Their kinds of one apiVersion.
    fn kinds(version: &str) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(of, _, _)| *of == version).map(|(_, name, _)| *name)
    }

    /// What does not fit its type. Fields that the type does not have are nobody's affair here.
    fn misfits(self, tree: &Tree, root: NodeId) -> Vec<Finding> {
        fn fits<T: DeserializeOwned>(tree: &Tree, root: NodeId) -> Vec<Finding> {
            de::read_with::<T>(tree, root, Quote::Values, Unknown::PassedOver).1
        }
        match self {
            Self::StatefulSet => fits::<StatefulSet>(tree, root),
            Self::DaemonSet => fits::<DaemonSet>(tree, root),
            Self::ReplicaSet => fits::<ReplicaSet>(tree, root),
            Self::Job => fits::<Job>(tree, root),
            Self::CronJob => fits::<CronJob>(tree, root),
            Self::ReplicationController => fits::<ReplicationController>(tree, root),
        }
    }
}

fn other(file: &Arc<str>, source: &Source, workload: Option<Workload>) -> Result<Other, Vec<Problem>> {
    let Source { tree, root } = source;
    let metadata = tree.entry(*root, "metadata").map(|entry| entry.value);
    let text = |field| metadata.and_then(|node| tree.text(node, field)).filter(|text| !text.is_empty());
    let mut findings = workload.map(|workload| workload.misfits(tree, *root)).unwrap_or_default();
    let name = text("name").or_else(|| text("generateName"));
    if name.is_none() {
        let at = tree.locate(*root, "metadata.name");
        findings.push(Finding::new(at, "metadata.name", "the field is missing"));
    }
    let Some(name) = name.filter(|_| findings.is_empty()) else {
        return Err(findings.into_iter().map(|finding| finding.problem(file, None)).collect());
    };
    let namespace = text("namespace").unwrap_or(DEFAULT_NAMESPACE);
    let mut value = tree.json(*root);
    // It has a name, so that its metadata is a map.
    value["metadata"]["namespace"] = Value::String(namespace.to_owned());
    let at = tree.node(*root).at;
    Ok(Other {
        kind: tree.text(*root, "kind").unwrap_or_default().to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        location: Location { file: file.clone(), line: at.line, column: at.column },
        value: Arc::new(value),
        source: source.clone(),
    })
}
