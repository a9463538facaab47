//! `ambit.waypoint.v1.HttpPolicy` and [`HttpPolicy`]: a compiled policy and what it is attached to.
//!
//! A policy is read whole or not at all, and one that needs a reader who knows more is not read: a condition that is
//! passed over makes an ALLOW wider or a DENY weaker. One that cannot be read still covers its targets
//! ([`targets_hint`]), where nothing is allowed until it can.

mod condition;
mod values;

use std::sync::Arc;

use ambit_policy::http::RULES_MAX;
use ambit_policy::http::model::{Action, Clause, Policy, Rule};
use ambit_types::identity::is_label;

use super::bounds::{each, each_of, encode_object, encode_texts, needs, object, texts, unpack};
use super::target::{self, PolicyTarget};
use super::{Malformed, Problem};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;

/// Most clauses of a rule: `from`, `to`, and each `when`.
const CLAUSES_MAX: usize = RULES_MAX + 2;

/// A policy at a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPolicy {
    /// What it is attached to, at least one.
    pub targets: Vec<PolicyTarget>,
    /// The policy.
    pub policy: Arc<Policy>,
}

impl HttpPolicy {
    /// Name of its resource: `NAMESPACE/NAME`.
    pub fn name(&self) -> String {
        self.policy.key.to_string()
    }
}

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole policy unusable.
pub fn decode_any(any: &Any) -> Result<HttpPolicy, Malformed> {
    decode(&unpack(any, "http_policy")?)
}

/// What a policy covers that [`decode_any`] refused; nothing if its bytes do not say, and then it may be anything.
pub fn targets_hint(any: &Any) -> Option<Vec<PolicyTarget>> {
    let message: wire::HttpPolicy = unpack(any, "http_policy").ok()?;
    target::decode(&message.targets).ok()
}

/// Reads a policy.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole policy unusable: an action, target or condition of an unknown
/// kind is such a field, and so is a name in `needs` that this version does not know.
pub fn decode(message: &wire::HttpPolicy) -> Result<HttpPolicy, Malformed> {
    needs(&message.needs)?;
    let key = object("key", message.key.as_ref())?;
    let targets = target::decode(&message.targets)?;
    let action = action(message)?;
    let rules = each_of("rules", &message.rules, RULES_MAX, rule)?;
    match action {
        // Without rules they refuse nothing, which nobody writes a policy for.
        Action::Deny | Action::Custom(_) if rules.is_empty() => {
            return Err(Malformed::at("rules", Problem::Missing));
        }
        Action::Allow | Action::Deny | Action::Audit | Action::Custom(_) => {}
    }
    Ok(HttpPolicy { targets, policy: Arc::new(Policy { key, action, rules, dry_run: message.dry_run }) })
}

fn action(message: &wire::HttpPolicy) -> Result<Action, Malformed> {
    let provider = &*message.provider;
    match wire::Action::try_from(message.action) {
        Ok(wire::Action::Allow) => Ok(Action::Allow),
        Ok(wire::Action::Deny) => Ok(Action::Deny),
        Ok(wire::Action::Audit) => Ok(Action::Audit),
        Ok(wire::Action::Custom) if is_label(provider) => Ok(Action::Custom(provider.into())),
        Ok(wire::Action::Custom) => {
            let text = provider.to_owned();
            Err(Malformed::at("provider", Problem::Form { text, what: "name of a provider" }))
        }
        Ok(wire::Action::Unspecified) => Err(Malformed::at("action", Problem::Missing)),
        Err(_) => Err(Malformed::at("action", Problem::UnknownValue { found: message.action })),
    }
}

fn rule(message: &wire::PolicyRule) -> Result<Rule, Malformed> {
    let clauses = each_of("clauses", &message.clauses, CLAUSES_MAX, |clause| {
        let alternatives = each_of("alternatives", &clause.alternatives, RULES_MAX, |one| {
            // As many as there are attributes, headers and claims: the message bounds them.
            each("conditions", &one.conditions, condition::decode)
        })?;
        Ok(Clause { alternatives })
    })?;
    Ok(Rule { clauses, unevaluable: texts(&message.unevaluable) })
}

/// Writes a policy as a message of its type.
pub fn encode_any(policy: &HttpPolicy) -> Any {
    Any::pack(super::HTTP_POLICY, &encode(policy))
}

/// Writes a policy, with the names of what its reader has to know.
pub fn encode(attached: &HttpPolicy) -> wire::HttpPolicy {
    let policy = &attached.policy;
    let (action, provider) = match &policy.action {
        Action::Allow => (wire::Action::Allow, ""),
        Action::Deny => (wire::Action::Deny, ""),
        Action::Audit => (wire::Action::Audit, ""),
        Action::Custom(provider) => (wire::Action::Custom, &**provider),
    };
    wire::HttpPolicy {
        key: Some(encode_object(&policy.key.namespace, &policy.key.name)),
        targets: target::encode(&attached.targets),
        action: action.into(),
        provider: provider.to_owned(),
        rules: policy.rules.iter().map(encode_rule).collect(),
        dry_run: policy.dry_run,
        needs: policy.features().into_iter().map(str::to_owned).collect(),
    }
}

fn encode_rule(rule: &Rule) -> wire::PolicyRule {
    let alternative = |conditions: &Vec<_>| wire::Alternative {
        conditions: conditions.iter().map(condition::encode).collect(),
    };
    let clause = |clause: &Clause| wire::Clause {
        alternatives: clause.alternatives.iter().map(alternative).collect(),
    };
    wire::PolicyRule {
        clauses: rule.clauses.iter().map(clause).collect(),
        unevaluable: encode_texts(&rule.unevaluable),
    }
}
