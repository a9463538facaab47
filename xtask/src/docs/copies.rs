//! The kustomize base: copies of the manifests, because kustomize reads no file above its own folder. The Helm chart reads
//! the same copies.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::{Page, Place};

/// Where each copy is of what.
const COPIES: &[(&str, &str)] = &[
    ("deploy/kustomize/base/00-namespace.yaml", "deploy/00-namespace.yaml"),
    ("deploy/kustomize/base/10-crds-ambit.yaml", "deploy/10-crds-ambit.yaml"),
    ("deploy/kustomize/base/11-crds-security.yaml", "deploy/11-crds-security.yaml"),
    ("deploy/kustomize/base/12-crds-networking.yaml", "deploy/12-crds-networking.yaml"),
    ("deploy/kustomize/base/20-rbac.yaml", "deploy/20-rbac.yaml"),
    ("deploy/kustomize/base/30-istiod-lite.yaml", "deploy/30-istiod-lite.yaml"),
    ("deploy/kustomize/base/40-gatewayclass.yaml", "deploy/40-gatewayclass.yaml"),
    ("deploy/kustomize/base/45-webhook.yaml", "deploy/45-webhook.yaml"),
    ("deploy/kustomize/base/50-networkpolicies.yaml", "deploy/50-networkpolicies.yaml"),
    ("deploy/kustomize/base/daemonset.yaml", "daemonset.yaml"),
    ("deploy/kustomize/base/optional/60-podmonitor.yaml", "deploy/optional/60-podmonitor.yaml"),
    ("deploy/kustomize/base/optional/61-istiod-hpa.yaml", "deploy/optional/61-istiod-hpa.yaml"),
];

/// The copies as they should be.
///
/// # Errors
/// When a manifest cannot be read.
pub(super) fn pages(root: &Path) -> anyhow::Result<Vec<Page>> {
    let page = |(path, from): &(&'static str, &'static str)| {
        let text = fs::read_to_string(root.join(from)).with_context(|| format!("reading {from}"))?;
        Ok(Page { path, place: Place::Whole, text })
    };
    COPIES.iter().map(page).collect()
}
