//! Why a decision came out as it did: every condition compared, and the rule that came nearest to the opposite.
//!
//! It listens to the evaluation that decides; it never evaluates by itself, so it cannot disagree.

use std::fmt;

use ambit_types::{PolicyKey, Str};

use crate::PolicySet;
#[cfg(doc)]
use crate::decide;
use crate::decide::{Decision, Facts, Verdict, evaluate};
use crate::matcher::{Attribute, Recorder};
use crate::model::{Action, Policy, Rule};

#[cfg(test)]
mod tests;

/// A decision and everything that was compared for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision, equal to that of [`decide()`].
    pub decision: Decision,
    /// Every policy considered, in the order of evaluation.
    pub policies: Vec<PolicyTrace>,
    /// The rule that came nearest to deciding otherwise.
    pub nearest: Option<Nearest>,
}

/// One policy considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTrace {
    /// Its key.
    pub key: PolicyKey,
    /// What it does when it matches.
    pub action: Action,
    /// Whether it is only recorded.
    pub dry_run: bool,
    /// Its rules.
    pub rules: Vec<RuleTrace>,
}

/// One rule considered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleTrace {
    /// Whether it agreed with the facts.
    pub agrees: bool,
    /// Its clauses, all of which have to agree.
    pub clauses: Vec<ClauseTrace>,
    /// Conditions that this layer has no facts for.
    pub unevaluable: Vec<Str>,
}

/// One clause considered: its alternatives, one of which has to agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClauseTrace {
    /// Conditions of each alternative, all of which have to hold.
    pub alternatives: Vec<Vec<Condition>>,
}

/// One condition compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What was compared.
    pub attribute: Attribute,
    /// Whether none of the values may agree, instead of one.
    pub negated: bool,
    /// The values of the rule, as people write them.
    pub values: Vec<String>,
    /// What the connection has; none when it has no identity.
    pub found: Option<String>,
    /// Whether the condition holds.
    pub holds: bool,
}

impl fmt::Display for Condition {
    /// `principal is one of a, b`, `source address is none of 10.0.0.0/8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, several) = if self.negated { ("is not", "is none of") } else { ("is", "is one of") };
        let word = if self.values.len() == 1 { one } else { several };
        write!(f, "{} {word} {}", self.attribute, self.values.join(", "))
    }
}

/// The rule that came nearest to the opposite verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// Its policy.
    pub policy: PolicyKey,
    /// The rule, counted from 0.
    pub rule: usize,
    /// Whether it would have to match, or would have to match no longer.
    pub must_match: bool,
    /// How many of its conditions hold.
    pub met: usize,
    /// How many it has.
    pub total: usize,
    /// Those in the way.
    pub conditions: Vec<Condition>,
    /// Conditions this layer has no facts for, which keep an ALLOW rule from matching.
    pub unevaluable: Vec<Str>,
}

impl fmt::Display for Nearest {
    /// `shop/web rule 0 would match if the principal were x (1 of 2 conditions met)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, rule, must_match, met, total, .. } = self;
        let (verb, joint) = if *must_match { ("match", " and ") } else { ("not match", " or ") };
        let mut wishes: Vec<String> = self.conditions.iter().map(|c| wish(c, *must_match)).collect();
        if !self.unevaluable.is_empty() {
            let names = self.unevaluable.join(", ");
            wishes.push(format!("{names} could be seen at this layer (they need a waypoint)"));
        }
        write!(f, "{policy} rule {rule} would {verb}")?;
        if !wishes.is_empty() {
            write!(f, " if {}", wishes.join(joint))?;
        }
        write!(f, " ({met} of {total} conditions met)")
    }
}

/// What would have to be true of the connection for a condition to hold, or to hold no longer.
fn wish(condition: &Condition, hold: bool) -> String {
    let Condition { attribute, negated, values, .. } = condition;
    let among = *negated != hold;
    match (&values[..], among) {
        ([one], true) if one == "*" => format!("there were a {attribute}"),
        ([one], false) if one == "*" => format!("there were no {attribute}"),
        ([one], true) => format!("the {attribute} were {one}"),
        ([one], false) => format!("the {attribute} were not {one}"),
        (several, true) => format!("the {attribute} were one of {}", several.join(", ")),
        (several, false) => format!("the {attribute} were none of {}", several.join(", ")),
    }
}

/// Decides and tells everything that was compared.
pub fn explain(set: &PolicySet, facts: &Facts<'_>) -> Explanation {
    let mut record = Record { facts, policies: Vec::new() };
    let decision = evaluate(set, facts, &mut record);
    let nearest = nearest(&decision, &record.policies);
    Explanation { decision, policies: record.policies, nearest }
}

fn nearest(decision: &Decision, policies: &[PolicyTrace]) -> Option<Nearest> {
    let enforced = || policies.iter().filter(|p| !p.dry_run);
    match (decision.verdict, &decision.policy, decision.rule) {
        (Verdict::Deny, Some(key), Some(rule)) => {
            let trace = enforced().find(|p| p.key == *key)?;
            Some(obstacle(trace, rule))
        }
        (Verdict::Deny, _, _) => closest(enforced().filter(|p| p.action == Action::Allow)),
        (Verdict::Allow, _, _) => closest(enforced().filter(|p| p.action == Action::Deny)),
    }
}

/// The rule with the fewest conditions missing; the first of equals.
fn closest<'p>(policies: impl Iterator<Item = &'p PolicyTrace>) -> Option<Nearest> {
    let all = policies.flat_map(|p| (0..p.rules.len()).map(move |rule| gap(p, rule)));
    all.filter(|n| n.met < n.total || !n.unevaluable.is_empty())
        .min_by_key(|n| (n.total - n.met + n.unevaluable.len(), usize::MAX - n.met))
}

/// What keeps a rule from matching, along its best alternatives.
fn gap(policy: &PolicyTrace, rule: usize) -> Nearest {
    let trace = &policy.rules[rule];
    let mut nearest = empty(policy, rule, true);
    for clause in &trace.clauses {
        let missing = |conditions: &[Condition]| conditions.iter().filter(|c| !c.holds).count();
        let Some(best) = clause.alternatives.iter().min_by_key(|a| (a.is_empty(), missing(a))) else {
            continue;
        };
        // An alternative that names nothing never agrees: it counts as one condition that nothing can meet.
        nearest.total += best.len().max(1);
        nearest.met += best.len() - missing(best);
        nearest.conditions.extend(best.iter().filter(|c| !c.holds).cloned());
    }
    if policy.action == Action::Allow {
        nearest.unevaluable.clone_from(&trace.unevaluable);
    }
    nearest
}

/// What makes a rule match: losing any of these would undo it.
fn obstacle(policy: &PolicyTrace, rule: usize) -> Nearest {
    let mut nearest = empty(policy, rule, false);
    for clause in &policy.rules[rule].clauses {
        let agreeing = |a: &&Vec<Condition>| !a.is_empty() && a.iter().all(|c| c.holds);
        let Some(one) = clause.alternatives.iter().find(agreeing) else { continue };
        nearest.total += one.len();
        nearest.met += one.len();
        nearest.conditions.extend(one.iter().cloned());
    }
    nearest
}

fn empty(policy: &PolicyTrace, rule: usize, must_match: bool) -> Nearest {
    Nearest {
        policy: policy.key.clone(),
        rule,
        must_match,
        met: 0,
        total: 0,
        conditions: Vec::new(),
        unevaluable: Vec::new(),
    }
}

/// Keeps everything it hears.
struct Record<'f> {
    facts: &'f Facts<'f>,
    policies: Vec<PolicyTrace>,
}

impl Record<'_> {
    fn last_rule(&mut self) -> Option<&mut RuleTrace> {
        self.policies.last_mut()?.rules.last_mut()
    }

    fn found(&self, attribute: Attribute) -> Option<String> {
        let peer = self.facts.peer();
        match attribute {
            Attribute::Namespace => peer.map(|p| p.namespace().to_string()),
            Attribute::Principal => peer.map(ambit_types::Identity::principal),
            Attribute::ServiceAccount => peer.map(|p| format!("{}/{}", p.namespace(), p.service_account())),
            Attribute::SourceIp => Some(self.facts.source().to_string()),
            Attribute::DestinationIp => Some(self.facts.destination().to_string()),
            Attribute::DestinationPort => Some(self.facts.port().to_string()),
        }
    }
}

impl Recorder for Record<'_> {
    const THOROUGH: bool = true;

    fn policy(&mut self, policy: &Policy) {
        self.policies.push(PolicyTrace {
            key: policy.key.clone(),
            action: policy.action,
            dry_run: policy.dry_run,
            rules: Vec::new(),
        });
    }

    fn rule(&mut self, rule: &Rule) {
        if let Some(policy) = self.policies.last_mut() {
            policy.rules.push(RuleTrace { unevaluable: rule.unevaluable.clone(), ..RuleTrace::default() });
        }
    }

    fn rule_end(&mut self, agrees: bool) {
        if let Some(rule) = self.last_rule() {
            rule.agrees = agrees;
        }
    }

    fn clause(&mut self) {
        if let Some(rule) = self.last_rule() {
            rule.clauses.push(ClauseTrace::default());
        }
    }

    fn alternative(&mut self) {
        if let Some(clause) = self.last_rule().and_then(|r| r.clauses.last_mut()) {
            clause.alternatives.push(Vec::new());
        }
    }

    fn condition(
        &mut self,
        attribute: Attribute,
        negated: bool,
        holds: bool,
        values: impl FnOnce() -> Vec<String>,
    ) {
        let condition =
            Condition { attribute, negated, holds, values: values(), found: self.found(attribute) };
        let clause = self.last_rule().and_then(|r| r.clauses.last_mut());
        if let Some(alternative) = clause.and_then(|c| c.alternatives.last_mut()) {
            alternative.push(condition);
        }
    }
}
