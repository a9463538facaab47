//! Node tokens: one file a node, kept fresh for as long as the daemon lives.

use std::sync::Arc;

use ambit_runtime::{clock, tasks};
use serde_json::Value;

use super::nodes::new_uid;
use super::owner::Owner;
use crate::error::LabError;
use crate::store::{Kind, ObjectKey};
use crate::token::{Bearer, Issuer, keep_fresh};

/// Writes the first token of each node and keeps all of them fresh; nothing without a mesh.
pub(super) fn issue(owner: &Owner) -> Result<(), LabError> {
    if !owner.home.config.mesh {
        return Ok(());
    }
    let issuer = Arc::new(Issuer::load_or_create(&owner.home.run.istiod())?);
    let snapshot = owner.store.snapshot();
    let mut tokens = Vec::new();
    for node in owner.sites.keys() {
        let object = snapshot.find(&ObjectKey::new(Kind::Node, None, node));
        let uid = object.and_then(|n| n.pointer("/metadata/uid")).and_then(Value::as_str).unwrap_or_default();
        let bearer = Bearer { node: node.clone(), node_uid: uid.to_owned(), pod_uid: new_uid()? };
        let file = owner.home.run.node(node).join("token");
        issuer.refresh(&bearer, &file, clock::wall())?;
        tokens.push((bearer, file));
    }
    tasks::spawn("node tokens", keep_fresh(issuer, tokens));
    Ok(())
}
