//! What a program is made of: a CycloneDX bill of materials, from what cargo resolved and the lock file's checksums.
//!
//! Only what is linked into the program counts: dependencies of builds and tests are left out. The text depends on nothing
//! but the lock file, so two builds of one commit have the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use clap::Args;
use serde_json::{Value, json};

use crate::tool::Tools;

#[cfg(test)]
mod tests;

/// Of what, and where to.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Programs, by package name; each gets a file `NAME.cdx.json`.
    #[arg(default_values = ["ztunnel", "waypoint", "istiod-lite", "ambit-cni", "ambit"])]
    packages: Vec<String>,
    /// Folder of the files; made if it is missing.
    #[arg(long, default_value = "target/sbom")]
    out: PathBuf,
}

/// Writes the files and says what is in them.
///
/// # Errors
/// When a package does not exist, or a file cannot be written.
pub(crate) fn run(tools: &Tools, options: &Options) -> anyhow::Result<bool> {
    let lock = fs::read_to_string(tools.root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let checksums = checksums(&lock);
    let folder = tools.root.join(&options.out);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for name in &options.packages {
        let bill = bill(&tools.metadata, &checksums, name)?;
        let path = folder.join(format!("{name}.cdx.json"));
        fs::write(&path, format!("{bill:#}\n")).with_context(|| format!("writing {}", path.display()))?;
        let count = bill["components"].as_array().map_or(0, Vec::len);
        println!("{}: {count} components", path.display());
    }
    Ok(true)
}

/// Checksums of the lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|line| line.strip_suffix('"')).map(str::to_owned)
    };
    let blocks = lock.split("[[package]]");
    blocks
        .filter_map(|block| {
            Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?))
        })
        .collect()
}

/// The bill of one package.
///
/// # Errors
/// When there is no such package in the workspace, or cargo resolved nothing.
fn bill(
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
    name: &str,
) -> anyhow::Result<Value> {
    let members: BTreeSet<&PackageId> = metadata.workspace_members.iter().collect();
    let Some(root) = metadata.packages.iter().find(|p| p.name == name && members.contains(&p.id)) else {
        bail!("there is no package {name} in the workspace");
    };
    let linked = linked(metadata, &root.id)?;
    let packages: BTreeMap<&PackageId, &Package> = metadata.packages.iter().map(|p| (&p.id, p)).collect();
    let package = |id: &&PackageId| packages.get(*id).copied();
    let mut parts: Vec<&Package> = linked.keys().filter(|id| **id != &root.id).filter_map(package).collect();
    parts.sort_by_key(|part| reference(part));
    let depends = linked.iter().filter_map(|(id, below)| {
        let mut on: Vec<String> = below.iter().filter_map(package).map(reference).collect();
        on.sort();
        on.dedup();
        Some((reference(package(id)?), on))
    });
    let depends: BTreeMap<String, Vec<String>> = depends.collect();
    let component = |part: &Package, kind: &str| component(part, kind, checksums);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": component(root, "application"),
            "tools": {"components": [{"type": "application", "name": "cargo xtask sbom", "version": env!("CARGO_PKG_VERSION")}]},
        },
        "components": parts.into_iter().map(|part| component(part, "library")).collect::<Vec<_>>(),
        "dependencies": depends.into_iter().map(|(of, on)| json!({"ref": of, "dependsOn": on})).collect::<Vec<_>>(),
    }))
}

/// What is linked into a package, each with what it needs itself.
fn linked<'a>(
    metadata: &'a Metadata,
    root: &'a PackageId,
) -> anyhow::Result<BTreeMap<&'a PackageId, Vec<&'a PackageId>>> {
    let resolve = metadata.resolve.as_ref().context("cargo resolved no dependencies")?;
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeMap::new();
    let mut waiting = VecDeque::from([root]);
    while let Some(id) = waiting.pop_front() {
        if found.contains_key(id) {
            continue;
        }
        let below = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let below = below.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        let below: Vec<&PackageId> = below.map(|dep| &dep.pkg).collect();
        waiting.extend(below.iter().copied());
        found.insert(id, below);
    }
    Ok(found)
}

fn component(part: &Package, kind: &str, checksums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": kind, "bom-ref": reference(part), "name": part.name.to_string(),
        "version": part.version.to_string(), "purl": reference(part),
    });
    if let Some(license) = &part.license {
        // Old manifests write a slash for OR.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(sum) = checksums.get(&(part.name.to_string(), part.version.to_string())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    component
}

/// The package URL.
fn reference(part: &Package) -> String {
    format!("pkg:cargo/{}@{}", part.name, part.version)
}
