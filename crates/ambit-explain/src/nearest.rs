//! What an evaluation compared, in the words of an explanation.

use std::fmt;

use ambit_policy::decide::DryRun;
use ambit_policy::explain as l4;
use ambit_policy::{Verdict, http};
use ambit_types::PolicyKey;

use crate::explanation::{Action, DecidedBy, Nearest, PolicyConsidered};

/// A nearest rule of either layer.
pub(crate) fn nearest<A: fmt::Display>(from: &l4::Nearest<A>) -> Nearest {
    Nearest {
        policy: from.policy.clone(),
        rule: from.rule,
        met: from.met,
        total: from.total,
        sentence: from.to_string(),
    }
}

/// Policies of L4.
pub(crate) fn considered(policies: &[l4::PolicyTrace]) -> Vec<PolicyConsidered> {
    policies.iter().map(|policy| one(policy, of_l4(policy.action))).collect()
}

/// Policies of a waypoint.
pub(crate) fn considered_http(policies: &[http::PolicyTrace]) -> Vec<PolicyConsidered> {
    policies.iter().map(|policy| one(policy, of_http(&policy.action))).collect()
}

fn one<A, X>(policy: &l4::PolicyTrace<A, X>, action: Action) -> PolicyConsidered {
    let agrees = policy.rules.iter().enumerate().filter(|(_, rule)| rule.agrees);
    PolicyConsidered {
        policy: policy.key.clone(),
        action,
        dry_run: policy.dry_run,
        agrees: agrees.map(|(number, _)| number).collect(),
        rules: policy.rules.len(),
    }
}

fn of_l4(action: ambit_policy::model::Action) -> Action {
    match action {
        ambit_policy::model::Action::Allow => Action::Allow,
        ambit_policy::model::Action::Deny => Action::Deny,
    }
}

fn of_http(action: &http::model::Action) -> Action {
    match action {
        http::model::Action::Allow => Action::Allow,
        http::model::Action::Deny => Action::Deny,
        http::model::Action::Audit => Action::Audit,
        http::model::Action::Custom(_) => Action::Custom,
    }
}

/// What decided, if a policy did.
pub(crate) fn decided_by(policy: Option<&PolicyKey>, rule: Option<usize>) -> Option<DecidedBy> {
    policy.map(|policy| DecidedBy { policy: policy.clone(), rule })
}

/// What dry-run policies would have done, a line each.
pub(crate) fn dry_runs(all: &[DryRun]) -> impl Iterator<Item = String> + '_ {
    all.iter().map(|one| {
        let would = match one.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let who =
            one.policy.as_ref().map_or_else(|| "the dry-run ALLOW policies".to_owned(), ToString::to_string);
        let rule = one.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
        format!("dry run: {who}{rule} would {would}")
    })
}
