//! What an evaluation compared, kept as it goes, and the rule that came nearest to deciding otherwise.
//!
//! Generic over what is compared (`A`) and what a policy does (`X`), so that every layer's evaluation is told in the
//! same words. It never evaluates: a [`Recorder`] hears of each comparison from the code that makes it.

use std::fmt;

use ambit_types::{PolicyKey, Str};

use crate::matcher::Attribute;
use crate::model::Action;

/// One policy considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTrace<A = Attribute, X = Action> {
    /// Its key.
    pub key: PolicyKey,
    /// What it does when it matches.
    pub action: X,
    /// Whether it is only recorded.
    pub dry_run: bool,
    /// Its rules.
    pub rules: Vec<RuleTrace<A>>,
}

/// One rule considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace<A = Attribute> {
    /// Whether it agreed with the facts.
    pub agrees: bool,
    /// Its clauses, all of which have to agree.
    pub clauses: Vec<ClauseTrace<A>>,
    /// Conditions that this layer has no facts for.
    pub unevaluable: Vec<Str>,
}

impl<A> Default for RuleTrace<A> {
    fn default() -> Self {
        Self { agrees: false, clauses: Vec::new(), unevaluable: Vec::new() }
    }
}

/// One clause considered: its alternatives, one of which has to agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClauseTrace<A = Attribute> {
    /// Conditions of each alternative, all of which have to hold.
    pub alternatives: Vec<Vec<Condition<A>>>,
}

impl<A> Default for ClauseTrace<A> {
    fn default() -> Self {
        Self { alternatives: Vec::new() }
    }
}

/// One condition compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<A = Attribute> {
    /// What was compared.
    pub attribute: A,
    /// Whether none of the values may agree, instead of one.
    pub negated: bool,
    /// The values of the rule, as people write them.
    pub values: Vec<String>,
    /// What was found; none when there is no such thing, as the identity of plaintext.
    pub found: Option<String>,
    /// Whether the condition holds.
    pub holds: bool,
}

impl<A: fmt::Display> fmt::Display for Condition<A> {
    /// `principal is one of a, b`, `source address is none of 10.0.0.0/8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, several) = if self.negated { ("is not", "is none of") } else { ("is", "is one of") };
        let word = if self.values.len() == 1 { one } else { several };
        write!(f, "{} {word} {}", self.attribute, self.values.join(", "))
    }
}

/// The rule that came nearest to the opposite verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest<A = Attribute> {
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
    pub conditions: Vec<Condition<A>>,
    /// Conditions this layer has no facts for, which keep an ALLOW rule from matching.
    pub unevaluable: Vec<Str>,
    /// What would have to be so for them to be evaluated.
    remedy: &'static str,
}

impl<A: fmt::Display> fmt::Display for Nearest<A> {
    /// `shop/web rule 0 would match if the principal were x (1 of 2 conditions met)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, rule, must_match, met, total, .. } = self;
        let (verb, joint) = if *must_match { ("match", " and ") } else { ("not match", " or ") };
        let mut wishes: Vec<String> = self.conditions.iter().map(|c| wish(c, *must_match)).collect();
        if !self.unevaluable.is_empty() {
            let names = self.unevaluable.join(", ");
            wishes.push(format!("{names} {}", self.remedy));
        }
        write!(f, "{policy} rule {rule} would {verb}")?;
        if !wishes.is_empty() {
            write!(f, " if {}", wishes.join(joint))?;
        }
        write!(f, " ({met} of {total} conditions met)")
    }
}

/// What would have to be true for a condition to hold, or to hold no longer.
fn wish<A: fmt::Display>(condition: &Condition<A>, hold: bool) -> String {
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

/// The rule with the fewest conditions missing; the first of equals.
///
/// `remedy` is given for policies that permit, as only there an unevaluable condition stands in the way: it completes
/// the sentence "would match if METHODS …".
pub(crate) fn closest<'p, A: Clone + 'p, X: 'p>(
    policies: impl Iterator<Item = &'p PolicyTrace<A, X>>,
    remedy: Option<&'static str>,
) -> Option<Nearest<A>> {
    let all = policies.flat_map(|p| (0..p.rules.len()).map(move |rule| gap(p, rule, remedy)));
    all.filter(|n| n.met < n.total || !n.unevaluable.is_empty())
        .min_by_key(|n| (n.total - n.met + n.unevaluable.len(), usize::MAX - n.met))
}

/// What keeps a rule from matching, along its best alternatives.
fn gap<A: Clone, X>(policy: &PolicyTrace<A, X>, rule: usize, remedy: Option<&'static str>) -> Nearest<A> {
    let trace = &policy.rules[rule];
    let mut nearest = empty(policy, rule, true);
    for clause in &trace.clauses {
        let missing = |conditions: &[Condition<A>]| conditions.iter().filter(|c| !c.holds).count();
        let Some(best) = clause.alternatives.iter().min_by_key(|a| (a.is_empty(), missing(a))) else {
            continue;
        };
        // An alternative that names nothing never agrees: it counts as one condition that nothing can meet.
        nearest.total += best.len().max(1);
        nearest.met += best.len() - missing(best);
        nearest.conditions.extend(best.iter().filter(|c| !c.holds).cloned());
    }
    if let Some(remedy) = remedy {
        nearest.unevaluable.clone_from(&trace.unevaluable);
        nearest.remedy = remedy;
    }
    nearest
}

/// What makes a rule match: losing any of these would undo it.
pub(crate) fn obstacle<A: Clone, X>(policy: &PolicyTrace<A, X>, rule: usize) -> Nearest<A> {
    let mut nearest = empty(policy, rule, false);
    for clause in &policy.rules[rule].clauses {
        let agreeing = |a: &&Vec<Condition<A>>| !a.is_empty() && a.iter().all(|c| c.holds);
        let Some(one) = clause.alternatives.iter().find(agreeing) else { continue };
        nearest.total += one.len();
        nearest.met += one.len();
        nearest.conditions.extend(one.iter().cloned());
    }
    nearest
}

fn empty<A, X>(policy: &PolicyTrace<A, X>, rule: usize, must_match: bool) -> Nearest<A> {
    Nearest {
        policy: policy.key.clone(),
        rule,
        must_match,
        met: 0,
        total: 0,
        conditions: Vec::new(),
        unevaluable: Vec::new(),
        remedy: "",
    }
}

/// Hears what an evaluation compares.
pub(crate) trait Recorder<A, X> {
    /// Whether to go on comparing when the answer is already known.
    const THOROUGH: bool;

    /// The rules of a policy follow.
    fn policy(&mut self, _key: &PolicyKey, _action: &X, _dry_run: bool) {}

    /// The clauses of a rule follow.
    fn rule(&mut self, _unevaluable: &[Str]) {}

    /// The rule just heard agrees or not.
    fn rule_end(&mut self, _agrees: bool) {}

    /// The alternatives of a clause follow.
    fn clause(&mut self) {}

    /// The conditions of an alternative follow.
    fn alternative(&mut self) {}

    /// One condition; what it looked like is only built for who keeps it.
    fn condition(&mut self, _told: impl FnOnce() -> Condition<A>) {}
}

/// Hears nothing: compiles to nothing, and lets the evaluation stop at the first answer.
pub(crate) struct Unrecorded;

impl<A, X> Recorder<A, X> for Unrecorded {
    const THOROUGH: bool = false;
}

/// Keeps everything it hears.
pub(crate) struct Record<A, X> {
    pub(crate) policies: Vec<PolicyTrace<A, X>>,
}

impl<A, X> Record<A, X> {
    pub(crate) fn new() -> Self {
        Self { policies: Vec::new() }
    }

    fn last_rule(&mut self) -> Option<&mut RuleTrace<A>> {
        self.policies.last_mut()?.rules.last_mut()
    }
}

impl<A, X: Clone> Recorder<A, X> for Record<A, X> {
    const THOROUGH: bool = true;

    fn policy(&mut self, key: &PolicyKey, action: &X, dry_run: bool) {
        let (key, action) = (key.clone(), action.clone());
        self.policies.push(PolicyTrace { key, action, dry_run, rules: Vec::new() });
    }

    fn rule(&mut self, unevaluable: &[Str]) {
        if let Some(policy) = self.policies.last_mut() {
            policy.rules.push(RuleTrace { unevaluable: unevaluable.to_vec(), ..RuleTrace::default() });
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

    fn condition(&mut self, told: impl FnOnce() -> Condition<A>) {
        let clause = self.last_rule().and_then(|r| r.clauses.last_mut());
        if let Some(alternative) = clause.and_then(|c| c.alternatives.last_mut()) {
            alternative.push(told());
        }
    }
}
