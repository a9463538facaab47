//! Whether the values of one object are what the API server would take.
//!
//! Looks at one object alone; references between objects are `set`'s affair.

use crate::kind::Kind;
use crate::object::Object;
use crate::problem::Finding;
use crate::tree::{NodeId, Tree};

/// Everything wrong with the values of an object that has the right shape.
pub(crate) fn object(tree: &Tree, root: NodeId, kind: Kind, object: &Object) -> Vec<Finding> {
    let mut checks = Checks { tree, root, findings: Vec::new() };
    let metadata = object.metadata();
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        checks.bad("metadata.name", "the field is missing");
    }
    if !kind.namespaced() && metadata.namespace.is_some() {
        checks.bad("metadata.namespace", format!("a {kind} has no namespace"));
    }
    checks.findings
}

/// Collects findings and places them by their path.
pub(crate) struct Checks<'t> {
    tree: &'t Tree,
    root: NodeId,
    findings: Vec<Finding>,
}

impl Checks<'_> {
    pub(crate) fn bad(&mut self, path: impl AsRef<str>, message: impl Into<String>) {
        let path = path.as_ref();
        self.findings.push(Finding::new(self.tree.locate(self.root, path), path, message));
    }
}
