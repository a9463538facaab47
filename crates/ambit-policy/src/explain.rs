//! Why a decision came out as it did: every condition compared, and the rule that came nearest to the opposite.
//!
//! It listens to the evaluation that decides; it never evaluates by itself, so it cannot disagree.

use crate::PolicySet;
#[cfg(doc)]
use crate::decide;
use crate::decide::{Decision, Facts, Verdict, evaluate};
use crate::model::Action;
pub use crate::trace::{ClauseTrace, Condition, Nearest, PolicyTrace, RuleTrace};
use crate::trace::{Record, closest, obstacle};

#[cfg(test)]
mod tests;

/// What would have to be so for conditions on HTTP to be evaluated.
const WAYPOINT: &str = "could be seen at this layer (they need a waypoint)";

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

/// Decides and tells everything that was compared.
pub fn explain(set: &PolicySet, facts: &Facts<'_>) -> Explanation {
    let mut record = Record::new();
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
        (Verdict::Deny, _, _) => closest(enforced().filter(|p| p.action == Action::Allow), Some(WAYPOINT)),
        (Verdict::Allow, _, _) => closest(enforced().filter(|p| p.action == Action::Deny), None),
    }
}
