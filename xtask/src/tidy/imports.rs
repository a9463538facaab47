//! Every manifest against the layer table.
//!
//! Looks at dependencies of all kinds, tests included: a test belongs to the level that can show the thing. Does not look
//! at modules, but for the traffic modules of ambit-net (see `rust`).

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, PackageId};

use super::Finding;
use crate::layers::{self, Ban, Outside, Place};

/// What the check needs to know of a workspace package.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    /// Its name.
    pub name: String,
    /// Its manifest, inside the repository.
    pub manifest: String,
    /// Workspace packages it names, for any purpose.
    pub workspace: BTreeSet<String>,
    /// Outside crates it names for its own code.
    pub outside: BTreeSet<String>,
    /// Outside crates it reaches through other outside crates, each with the direct dependency that leads there.
    pub reached: BTreeMap<String, String>,
    /// Features that are on by default.
    pub default_features: Vec<String>,
}

/// The workspace's packages as cargo resolved them.
pub(crate) fn packages(metadata: &Metadata) -> Vec<Package> {
    let members: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let mut packages = Vec::new();
    for package in metadata.workspace_packages() {
        let manifest =
            package.manifest_path.strip_prefix(&metadata.workspace_root).unwrap_or(&package.manifest_path);
        let mut reduced =
            Package { name: package.name.to_string(), manifest: manifest.to_string(), ..Package::default() };
        for dependency in &package.dependencies {
            if members.contains(&dependency.name) {
                reduced.workspace.insert(dependency.name.clone());
            } else if dependency.kind == DependencyKind::Normal {
                reduced.outside.insert(dependency.name.clone());
            }
        }
        reduced.default_features = package.features.get("default").cloned().unwrap_or_default();
        reduced.reached = reached(metadata, &package.id, &members);
        packages.push(reduced);
    }
    packages
}

/// Follows normal dependencies from a member through outside crates only: another member answers for itself.
fn reached(metadata: &Metadata, start: &PackageId, members: &BTreeSet<String>) -> BTreeMap<String, String> {
    let Some(graph) = &metadata.resolve else { return BTreeMap::new() };
    let nodes: BTreeMap<&PackageId, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let name_of = |id: &PackageId| metadata[id].name.to_string();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Vec<(&PackageId, Option<String>)> = vec![(start, None)];
    while let Some((id, through)) = open.pop() {
        let Some(node) = nodes.get(id) else { continue };
        for dependency in &node.deps {
            let normal = dependency.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            let name = name_of(&dependency.pkg);
            if !normal || members.contains(&name) || found.contains_key(&name) {
                continue;
            }
            let through = through.clone().unwrap_or_else(|| name.clone());
            found.insert(name, through.clone());
            open.push((&dependency.pkg, Some(through)));
        }
    }
    found
}

/// Holds the packages against the table.
pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some(place) = layers::place(&package.name) else {
            findings.push(at(
                package,
                format!("package {} has no layer", package.name),
                "give it a row in xtask/src/layers.rs, with the reason it is a crate and not a module, and run `cargo xtask docs`",
            ));
            continue;
        };
        findings.extend(workspace_imports(package, place));
        findings.extend(outside_imports(package, place));
        if !package.default_features.is_empty() {
            let list = package.default_features.join(", ");
            findings.push(at(
                package,
                format!("features on by default: {list}"),
                "features add; none is on by default",
            ));
        }
    }
    let present: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    for place in layers::TABLE.iter().filter(|p| !present.contains(p.package)) {
        findings.push(Finding::error(
            "xtask/src/layers.rs",
            1,
            format!("{} has a layer but is no workspace member", place.package),
            "remove its row and run `cargo xtask docs`",
        ));
    }
    findings
}

fn workspace_imports(package: &Package, place: &Place) -> Vec<Finding> {
    let refused = package.workspace.iter().filter(|other| !place.may_import(other));
    refused
        .map(|other| {
            at(
                package,
                format!("{} ({}) may not import {other}", package.name, place.layer.name()),
                "move the shared type down a layer or pass it as an argument; the table is in xtask/src/layers.rs",
            )
        })
        .collect()
}

fn outside_imports(package: &Package, place: &Place) -> Vec<Finding> {
    match place.outside {
        Outside::Only(allowed) => package
            .outside
            .iter()
            .filter(|name| !allowed.contains(&name.as_str()))
            .map(|name| {
                at(
                    package,
                    format!("{} may use {} only, not {name}", package.name, allowed.join(", ")),
                    "do that work in a higher layer",
                )
            })
            .collect(),
        Outside::AllBut(bans) => bans.iter().flat_map(|ban| banned(package, ban)).collect(),
    }
}

fn banned(package: &Package, ban: &Ban) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in ban.crates {
        let direct = package.outside.contains(*name);
        let through = package.reached.get(*name).filter(|_| ban.transitive && !direct);
        let how = match through {
            Some(via) => format!("{} reaches {name} through {via}", package.name),
            None if direct => format!("{} uses {name}", package.name),
            None => continue,
        };
        findings.push(at(
            package,
            format!("{how}: forbidden because {}", ban.because),
            "do that work in a higher layer",
        ));
    }
    findings
}

fn at(package: &Package, what: String, mend: &str) -> Finding {
    Finding::error(&package.manifest, 1, what, mend)
}
