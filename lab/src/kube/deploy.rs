//! The mesh's manifests: definitions of kinds, accounts, rights, the webhook. What runs is the lab's own affair and is
//! not applied.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Kubectl;
use crate::error::LabError;
use crate::link::Place;
use crate::paths::RunDir;

/// Kinds that come first, and what they define is waited for.
const FIRST: [&str; 2] = ["Namespace", "CustomResourceDefinition"];
/// Kinds that come then.
const THEN: [&str; 5] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
/// What may lack its definition, which is not the project's.
const LAST: [&str; 1] = ["GatewayClass"];
/// Asked before an object is stored; lets everything pass until the control plane answers.
const WEBHOOKS: [&str; 1] = ["ValidatingWebhookConfiguration"];

/// Beside the program with the parts of Kubernetes: definitions of kinds that are not the project's, as their own
/// project publishes them.
const FOREIGN: &str = "crds";

/// The project's folder of manifests: the nearest `deploy` above our own program.
pub fn folder(own: &Path) -> Option<PathBuf> {
    own.ancestors().map(|above| above.join("deploy")).find(|folder| !manifests(folder).is_empty())
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// Applies definitions, accounts, rights and the admission webhook; says whether there are rights.
///
/// Blocking: runs `kubectl` several times.
///
/// # Errors
/// If a file cannot be read, or `kubectl` refuses.
pub fn apply(folder: &Path, binary: &Path, fabric: &Arc<Place>, run: &RunDir) -> Result<bool, LabError> {
    let mut documents = Vec::new();
    let foreign = binary.parent().map(|beside| manifests(&beside.join(FOREIGN))).unwrap_or_default();
    for file in foreign.into_iter().chain(manifests(folder)) {
        let text = fs::read_to_string(&file).map_err(LabError::file("reading", file))?;
        documents.extend(split(&text));
    }
    let kubectl = Kubectl::new(binary.to_owned(), Arc::clone(fabric), run.clone());
    let apply = |kinds: &[&str]| apply_kinds((&kubectl, run), &documents, kinds);
    if apply(&FIRST)? > 0 && documents.iter().any(|(kind, _)| kind == FIRST[1]) {
        kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
    }
    let rights = apply(&THEN)?;
    if let Err(error) = apply(&LAST) {
        tracing::info!(error = error.full(), "the class of waypoints is not made");
    }
    apply(&WEBHOOKS)?;
    Ok(rights > 0)
}

/// The documents of a file by their kind.
fn split(text: &str) -> Vec<(String, String)> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let kind = |document: &String| {
        let line = document.lines().find_map(|line| line.strip_prefix("kind:"))?;
        Some(line.split('#').next()?.trim().trim_matches('"').to_owned())
    };
    documents.into_iter().filter_map(|document| Some((kind(&document)?, document))).collect()
}

/// Applies the documents of some kinds; how many there were.
fn apply_kinds(
    (kubectl, run): (&Kubectl, &RunDir),
    documents: &[(String, String)],
    kinds: &[&str],
) -> Result<usize, LabError> {
    let chosen = documents.iter().filter(|(kind, _)| kinds.contains(&kind.as_str()));
    let texts: Vec<&str> = chosen.map(|(_, text)| text.as_str()).collect();
    if texts.is_empty() {
        return Ok(0);
    }
    let file = run.kube().join("apply.yaml");
    fs::write(&file, texts.join("---\n")).map_err(LabError::file("writing", file.clone()))?;
    let file = file.to_string_lossy();
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file])?;
    Ok(texts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_their_kind() {
        let text = "# head\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\n---\nkind: \"Role\" # x\n";
        let kinds: Vec<String> = split(text).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["Namespace", "Role"]);
    }
}
