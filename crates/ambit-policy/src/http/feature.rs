//! What a policy needs its evaluator to know, so that an older one refuses it instead of reading past it.
//!
//! A field that an evaluator ignores makes a DENY weaker or an ALLOW wider. Policies therefore travel with the names
//! of what they use, and an evaluator that misses one counts the policy as unresolved, which denies.

use std::collections::BTreeSet;

use super::model::{Action, Attribute, PathMatch, Policy};
use crate::http::model::Condition;

/// Every name this version knows, ascending.
pub const FEATURES: &[&str] = &[
    "action.audit",
    "action.custom",
    "connection.sni",
    "destination.ip",
    "destination.port",
    "dry-run",
    "operation.hosts",
    "operation.methods",
    "operation.paths",
    "operation.paths.template",
    "remote.ip",
    "request.auth.audiences",
    "request.auth.claims",
    "request.auth.presenter",
    "request.auth.principal",
    "request.headers",
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
];

impl Policy {
    /// Names of what the policy uses, out of [`FEATURES`].
    pub fn features(&self) -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        match &self.action {
            Action::Allow | Action::Deny => {}
            Action::Audit => drop(names.insert("action.audit")),
            Action::Custom(_) => drop(names.insert("action.custom")),
        }
        if self.dry_run {
            names.insert("dry-run");
        }
        for condition in self.conditions() {
            names.insert(feature(&condition.attribute()));
            if has_template(condition) {
                names.insert("operation.paths.template");
            }
        }
        names
    }
}

/// Those of the names that this version does not know; a policy that needs any is unresolved here.
pub fn unknown_features<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    names.into_iter().filter(|name| !FEATURES.contains(name)).collect()
}

fn feature(attribute: &Attribute) -> &'static str {
    match attribute {
        Attribute::Principal => "source.principal",
        Attribute::Namespace => "source.namespace",
        Attribute::ServiceAccount => "source.serviceAccount",
        Attribute::TrustDomain => "source.trustDomain",
        Attribute::SourceIp => "source.ip",
        Attribute::RemoteIp => "remote.ip",
        Attribute::DestinationIp => "destination.ip",
        Attribute::DestinationPort => "destination.port",
        Attribute::ServerName => "connection.sni",
        Attribute::Host => "operation.hosts",
        Attribute::Method => "operation.methods",
        Attribute::Path => "operation.paths",
        Attribute::Header(_) => "request.headers",
        Attribute::RequestPrincipal => "request.auth.principal",
        Attribute::Audience => "request.auth.audiences",
        Attribute::Presenter => "request.auth.presenter",
        Attribute::Claim(_) => "request.auth.claims",
    }
}

fn has_template(condition: &Condition) -> bool {
    let Condition::Path(values) = condition else { return false };
    values.any.iter().chain(&values.none).any(|path| matches!(path, PathMatch::Template(_)))
}
