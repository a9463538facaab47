//! What is wrong with a set of objects before anything runs, beyond what makes a single one unreadable.
//!
//! Objects come as JSON, from files or from a cluster alike; nothing is fetched here. Every finding has a code: the
//! reason code that the mistake leads to, or the one that users of Kiali and istioctl know it by. Checks of references
//! need to see everything there is ([`Scope::Whole`]); with a part of it they say nothing rather than something wrong.

use serde::Serialize;
use serde_json::Value;

mod labels;
mod network;
mod policies;
mod routes;
#[cfg(test)]
mod tests;
mod unsupported;
mod waypoints;
mod world;

use world::World;

/// One object.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its kind, such as `Service`.
    pub kind: &'a str,
    /// Its namespace; empty for kinds of the whole cluster.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// All of it.
    pub body: &'a Value,
}

/// Whether the objects are all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: what is not among them does not exist.
    Whole,
    /// Some: what is not among them may exist.
    Part,
}

/// How bad a finding is, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Not what its author means, most likely.
    Warning,
    /// Refuses traffic, or enforces less than it says.
    Error,
}

impl Severity {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its code.
    pub code: &'static str,
    /// Codes that other tools give it.
    pub also: &'static [&'static str],
    /// How bad it is.
    pub severity: Severity,
    /// Place of the object in the list.
    pub item: usize,
    /// Path of the field at fault in it, such as `spec.rules[0].to`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// Everything that is wrong, by object and path.
pub fn lint(items: &[Item<'_>], scope: Scope) -> Vec<Finding> {
    let world = World::new(items, scope);
    let mut findings = Vec::new();
    for at in 0..items.len() {
        network::check(&world, at, &mut findings);
        policies::check(&world, at, &mut findings);
        routes::check(&world, at, &mut findings);
        labels::check(&world, at, &mut findings);
        waypoints::check(&world, at, &mut findings);
        unsupported::check(&world, at, &mut findings);
    }
    findings.sort_by(|a, b| (a.item, &a.path, a.code).cmp(&(b.item, &b.path, b.code)));
    findings
}

/// A finding in the making.
fn finding(
    code: &'static str,
    severity: Severity,
    at: (usize, impl Into<String>),
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    let (item, path) = at;
    Finding { code, also: &[], severity, item, path: path.into(), message: message.into(), fix: fix.into() }
}

impl Finding {
    fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}
