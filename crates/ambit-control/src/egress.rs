//! EgressPolicies of a namespace, added up for each of its pods.
//!
//! The policies of a namespace share one bound, since what a pod may do is sent with the pod. They fill it in the order
//! of their names; the rules of one that no longer fits are not in force, and what it selects stays shut.

use ambit_types::{Egress, PolicyKey};

use crate::index::Inputs;
use crate::input::selector::contains_all;
use crate::input::{EgressPolicy, Pod};
use crate::status::{ACCEPTED, Condition, PARTIALLY_INVALID, Report};

/// Most ranges and ports that the policies of a namespace hold together.
const ENTRIES_MAX: usize = 512;

/// What the policies that select a pod allow it; none if none does.
pub(crate) fn of_pod(inputs: &Inputs, pod: &Pod) -> Option<Egress> {
    let mut held = 0;
    let mut egress: Option<Egress> = None;
    for policy in inputs.egress_policies.in_namespace(&pod.name.namespace) {
        held += entries(policy);
        if !contains_all(&pod.labels, &policy.selector) {
            continue;
        }
        let sum = egress.get_or_insert_with(|| Egress {
            policy: PolicyKey::new(policy.name.namespace.clone(), policy.name.name.clone()),
            rules: Vec::new(),
        });
        if held <= ENTRIES_MAX {
            sum.rules.extend(policy.rules.iter().cloned());
        }
    }
    egress
}

/// How a policy stands.
pub(crate) fn report(inputs: &Inputs, policy: &EgressPolicy) -> Report {
    let all = inputs.egress_policies.in_namespace(&policy.name.namespace);
    let held: usize = all.take_while(|one| one.name <= policy.name).map(entries).sum();
    let conditions = if held <= ENTRIES_MAX || policy.rules.is_empty() {
        vec![Condition::holds(ACCEPTED, "Accepted", "in force")]
    } else {
        let words = format!(
            "it allows nothing: with those before it by name the policies of the namespace hold {held} ranges and \
             ports, at most {ENTRIES_MAX} are in force"
        );
        vec![
            Condition::holds(ACCEPTED, "Accepted", "in force in part"),
            Condition::holds(PARTIALLY_INVALID, "TooMany", words),
        ]
    };
    Report { generation: policy.generation, conditions, parents: Vec::new() }
}

fn entries(policy: &EgressPolicy) -> usize {
    policy.rules.iter().map(|rule| rule.cidrs.len() + rule.ports.len()).sum()
}
