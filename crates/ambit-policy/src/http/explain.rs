//! Why a decision about a request came out as it did, told by the evaluation that decided.

use super::PolicySet;
use super::decide::{Answers, Decision, Verdict, evaluate};
use super::facts::Facts;
use super::model::{Action, Attribute};
use crate::trace::{Record, closest, obstacle};

/// One policy considered.
pub type PolicyTrace = crate::trace::PolicyTrace<Attribute, Action>;

/// One condition compared.
pub type Condition = crate::trace::Condition<Attribute>;

/// The rule that came nearest to the opposite verdict.
pub type Nearest = crate::trace::Nearest<Attribute>;

/// What would have to be so for conditions of a later version to be evaluated.
const VERSION: &str = "were known to this version of the waypoint";

/// A decision and everything that was compared for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision, equal to that of [`super::decide()`].
    pub decision: Decision,
    /// Every policy considered, in the order of evaluation.
    pub policies: Vec<PolicyTrace>,
    /// The rule that came nearest to deciding otherwise.
    pub nearest: Option<Nearest>,
}

/// Decides without any index, and tells everything that was compared. Values of secret headers are left out, others escaped and cut.
pub fn explain(set: &PolicySet, facts: &Facts<'_>, answers: &Answers<'_>) -> Explanation {
    let mut record = Record::new();
    let decision = evaluate(set, facts, answers, &mut record);
    let nearest = nearest(&decision, &record.policies);
    Explanation { decision, policies: record.policies, nearest }
}

fn nearest(decision: &Decision, policies: &[PolicyTrace]) -> Option<Nearest> {
    let enforced = |action: Action| policies.iter().filter(move |p| !p.dry_run && p.action == action);
    match (decision.verdict, &decision.policy, decision.rule) {
        (Verdict::Deny | Verdict::Ask, Some(key), Some(rule)) => {
            let trace = policies.iter().find(|p| p.key == *key)?;
            Some(obstacle(trace, rule))
        }
        (Verdict::Deny, ..) => closest(enforced(Action::Allow), Some(VERSION)),
        (Verdict::Allow, ..) => closest(enforced(Action::Deny), None),
        (Verdict::Ask, ..) => None,
    }
}
