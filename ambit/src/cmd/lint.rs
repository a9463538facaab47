//! `ambit lint`: what is wrong with objects before anything runs, each finding with its place and what to do.
//!
//! The checks are in `ambit_explain::lint`, on JSON; here objects are fetched, and findings get file and line. What the
//! control plane itself would say of an object in its status is told as well. Which checks there are, and which are
//! not, is in `docs/lint.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ambit_control::Standing;
use ambit_control::input;
use ambit_explain::lint::{Finding, Item, Scope, Severity, lint};
use ambit_manifest::{Kind, Located, Location, ObjectKey, Other};
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Where, text};
use super::objects::Objects;
use crate::out;

#[cfg(test)]
mod tests;

/// Looks for mistakes in manifests or in a running mesh.
///
/// Of kinds that the mesh does not read, those that make pods are looked at, those that were written for Istio are
/// told, and all others are passed over.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    /// Files and folders, taken for all there is; unset: the objects of the lab that runs
    files: Vec<PathBuf>,
    /// The files are a part of something: say nothing of what may be elsewhere
    #[arg(long, requires = "files")]
    part: bool,
    /// Only this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// All namespaces, which is the default here
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// The least finding that makes the exit code 79
    #[arg(long, value_enum, default_value = "error")]
    fail_on: FailOn,
    /// Leave these codes out
    #[arg(long, value_name = "CODE")]
    suppress: Vec<String>,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Info,
    Warning,
    Error,
    Never,
}

impl Args {
    /// Whether the command is about a lab that runs.
    pub(super) fn asks_lab(&self) -> bool {
        self.files.is_empty()
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or there is no such lab.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let (objects, compiled) = if args.asks_lab() {
        let objects = Objects::of_lab(&args.at.name)?;
        (objects.clone(), objects)
    } else {
        let objects = Objects::of_files(&args.files)?;
        (objects.clone(), objects.staged()?)
    };
    let scope = if args.part { Scope::Part } else { Scope::Whole };
    let (mut found, looked_at) = look(&objects, &compiled, scope)?;
    found.retain(|told| args.takes(told));
    let worst = found.iter().map(|told| told.severity).max();
    let code = if args.fail_on.is_reached(worst) { out::FINDINGS } else { out::OK };
    let told = format!("{looked_at} objects looked at, {} findings", found.len());
    let items = found.iter().map(Told::to_json).collect();
    let name = |item: &Value| format!("finding/{}", text(item, "code"));
    List { kind: "FindingList", items }.print(&args.output, lines, name);
    out::say(&told);
    if let Some(told) = objects.passed_over() {
        out::say(&told);
    }
    Ok(code)
}

/// Every finding, and how many objects were looked at. `compiled` is the objects with what a cluster adds.
fn look(objects: &Objects, compiled: &Objects, scope: Scope) -> anyhow::Result<(Vec<Told>, usize)> {
    let read = objects.all().map(Seen::Read);
    let seen: Vec<Seen<'_>> = read.chain(objects.others().iter().map(Seen::Other)).collect();
    let items: Vec<Item<'_>> = seen.iter().map(|one| one.item()).collect();
    let mut found: Vec<Told> = lint(&items, scope).iter().map(|f| Told::of(f, &seen[f.item])).collect();
    if scope == Scope::Whole {
        // Where a check of ours has found the cause, its consequence says nothing more.
        let causes: BTreeSet<Named> = found.iter().map(|told| told.object.clone()).collect();
        let more = standings(compiled, objects)?;
        found.extend(more.into_iter().filter(|told| !causes.contains(&told.object)));
    }
    Ok((found, seen.len()))
}

/// An object that is looked at.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Read(&'a Located),
    Other(&'a Other),
}

impl<'a> Seen<'a> {
    fn item(self) -> Item<'a> {
        match self {
            Self::Read(object) => Item {
                kind: object.kind().as_str(),
                namespace: object.key.namespace.as_deref().unwrap_or_default(),
                name: &object.key.name,
                body: &object.value,
            },
            Self::Other(Other { kind, namespace, name, value, .. }) => {
                Item { kind, namespace, name, body: value }
            }
        }
    }

    /// File, line and column of a field; nothing of what lies in no file.
    fn place(self, path: &str) -> String {
        let Location { file, line, column } = match self {
            Self::Read(object) => object.at(path),
            Self::Other(object) => object.at(path),
        };
        match &*file {
            ambit_manifest::SERVED => String::new(),
            file => format!("{file}:{line}:{column}"),
        }
    }
}

/// Name of an object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    kind: String,
    /// None of kinds of the whole cluster.
    namespace: Option<String>,
    name: String,
}

impl Named {
    fn of(seen: Seen<'_>) -> Self {
        let Item { kind, namespace, name, .. } = seen.item();
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Self { kind: kind.to_owned(), namespace, name: name.to_owned() }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// A finding with its object and place.
struct Told {
    severity: Severity,
    code: String,
    also: Vec<String>,
    object: Named,
    place: String,
    path: String,
    message: String,
    fix: String,
}

impl Told {
    fn of(finding: &Finding, object: &Seen<'_>) -> Self {
        Self {
            severity: finding.severity,
            code: finding.code.to_owned(),
            also: finding.also.iter().map(|code| (*code).to_owned()).collect(),
            object: Named::of(*object),
            place: object.place(&finding.path),
            path: finding.path.clone(),
            message: finding.message.clone(),
            fix: finding.fix.clone(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "severity": self.severity,
            "code": self.code,
            "also": self.also,
            "kind": self.object.kind,
            "namespace": self.object.namespace,
            "name": self.object.name,
            "place": self.place,
            "field": self.path,
            "message": self.message,
            "fix": self.fix,
            "line": self.line(),
        })
    }

    /// `Error [AMB3103] (Service shop/cart file:3:1) message`.
    fn line(&self) -> String {
        let place = if self.place.is_empty() { String::new() } else { format!(" {}", self.place) };
        let severity = self.severity.as_str();
        printable(&format!("{severity} [{}] ({}{place}) {}", self.code, self.object, self.message))
    }
}

/// A line without what steers a terminal: names come from files of anybody.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What the control plane would say of objects that are not in force as written.
fn standings(compiled: &Objects, objects: &Objects) -> anyhow::Result<Vec<Told>> {
    let index = compiled.index()?;
    let mut found = Vec::new();
    for status in index.statuses() {
        let (severity, notes) = match status.standing {
            Standing::Accepted => continue,
            Standing::Degraded(notes) => (Severity::Info, notes),
            Standing::NotEnforced(note) => (Severity::Warning, vec![note]),
        };
        let Some(object) = objects.all().find(|object| is_same(&object.key, &status.object)) else {
            continue;
        };
        let object = Seen::Read(object);
        for note in notes {
            found.push(Told {
                severity,
                code: note.reason.map_or("AMB6003", |reason| reason.code()).to_owned(),
                also: Vec::new(),
                object: Named::of(object),
                place: object.place(""),
                path: String::new(),
                message: format!("not in force as written: {note}"),
                fix: String::new(),
            });
        }
    }
    Ok(found)
}

/// Whether a key of the index is that of an object.
fn is_same(key: &ObjectKey, of: &input::Key) -> bool {
    let kind = match of.kind {
        input::Kind::AuthorizationPolicy => Kind::AuthorizationPolicy,
        input::Kind::PeerAuthentication => Kind::PeerAuthentication,
        input::Kind::RequestAuthentication => Kind::RequestAuthentication,
        input::Kind::ServiceEntry => Kind::ServiceEntry,
        input::Kind::TrafficPolicy => Kind::TrafficPolicy,
        input::Kind::EgressPolicy => Kind::EgressPolicy,
        input::Kind::HttpRoute => Kind::HTTPRoute,
        input::Kind::GrpcRoute => Kind::GRPCRoute,
        input::Kind::TcpRoute => Kind::TCPRoute,
        input::Kind::TlsRoute => Kind::TLSRoute,
        input::Kind::VirtualService => Kind::VirtualService,
        // Of the others nothing is said that a check of ours does not say better.
        input::Kind::Namespace
        | input::Kind::Node
        | input::Kind::Pod
        | input::Kind::Service
        | input::Kind::EndpointSlice
        | input::Kind::NetworkPolicy
        | input::Kind::WorkloadEntry
        | input::Kind::GatewayClass
        | input::Kind::Gateway
        | input::Kind::ReferenceGrant
        | input::Kind::MeshConfig => return false,
    };
    let namespace = key.namespace.as_deref().unwrap_or_default();
    key.kind == kind && *namespace == *of.name.namespace && *key.name == *of.name.name
}

impl Args {
    fn takes(&self, told: &Told) -> bool {
        let own = told.object.namespace.as_deref().unwrap_or(&told.object.name);
        let is_suppressed = self.suppress.iter().any(|code| *code == told.code || told.also.contains(code));
        !is_suppressed && self.namespace.as_ref().is_none_or(|namespace| namespace == own)
    }
}

impl FailOn {
    fn is_reached(self, worst: Option<Severity>) -> bool {
        let least = match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
            Self::Never => return false,
        };
        worst.is_some_and(|worst| worst >= least)
    }
}

/// One finding a line, with what to do below it.
fn lines(items: &[Value], wide: bool) -> String {
    let mut text_of_all = String::new();
    for item in items {
        text_of_all.push_str(&text(item, "line"));
        text_of_all.push('\n');
        let fix = text(item, "fix");
        if !fix.is_empty() {
            text_of_all.push_str(&format!("    fix: {}\n", printable(&fix)));
        }
        if wide {
            let also: Vec<&str> =
                item["also"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            text_of_all.push_str(&format!(
                "    field: {}  also known as: {}\n",
                printable(&text(item, "field")),
                also.join(", ")
            ));
        }
    }
    text_of_all
}
