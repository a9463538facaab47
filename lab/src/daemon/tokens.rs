//! Node tokens: one file a node, kept fresh for as long as the daemon lives. Pods see to their own.

use std::sync::Arc;

use ambit_runtime::{clock, tasks};
use serde_json::Value;

use super::nodes::new_uid;
use super::owner::Owner;
use crate::error::LabError;
use crate::store::{Kind, ObjectKey};
use crate::token::{Bearer, REFRESH, keep_fresh};

/// Tells each node who it is; with a mesh, writes its proxy's first token and keeps it fresh.
pub(super) fn issue(owner: &Owner) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    let mut tokens = Vec::new();
    for (node, site) in &owner.sites {
        let object = snapshot.find(&ObjectKey::new(Kind::Node, None, node));
        let uid = object.and_then(|n| n.pointer("/metadata/uid")).and_then(Value::as_str).unwrap_or_default();
        // Said once: this runs before the first pod.
        let _ = site.node_uid.set(uid.to_owned());
        if owner.home.config.mesh {
            let bearer = Bearer::node_proxy(node, uid, new_uid()?);
            let file = owner.home.run.node(node).join("token");
            site.issuer.refresh(&bearer, &file, clock::wall())?;
            tokens.push((bearer, file));
        }
    }
    if let Some(site) = owner.sites.values().next().filter(|_| !tokens.is_empty()) {
        tasks::spawn("node tokens", keep_fresh(Arc::clone(&site.issuer), tokens, REFRESH));
    }
    Ok(())
}
