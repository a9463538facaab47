//! The policies that apply to one workload, ordered for evaluation.
//!
//! Built once per workload and policy version, so that a decision only walks lists. It does not know how policies
//! are found for a workload; that is state.

use std::sync::Arc;

use ambit_types::PolicyKey;

use crate::model::{Action, Policy};

/// Policies of one workload by what they do, each list ascending by key but for a pass for a while, which comes last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySet {
    pub(crate) deny: Vec<Arc<Policy>>,
    pub(crate) allow: Vec<Arc<Policy>>,
    pub(crate) dry_run_deny: Vec<Arc<Policy>>,
    pub(crate) dry_run_allow: Vec<Arc<Policy>>,
    pub(crate) unresolved: Vec<PolicyKey>,
}

impl PolicySet {
    /// Sorts policies for evaluation; of several with one key the first counts.
    ///
    /// `unresolved` are policies that apply but are not held, or cannot be used: while there is any, nothing is
    /// allowed.
    pub fn new(
        policies: impl IntoIterator<Item = Arc<Policy>>,
        unresolved: impl IntoIterator<Item = PolicyKey>,
    ) -> Self {
        let mut all: Vec<Arc<Policy>> = policies.into_iter().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        let mut set = Self { unresolved: unresolved.into_iter().collect(), ..Self::default() };
        set.unresolved.sort_unstable();
        set.unresolved.dedup();
        for policy in all {
            let list = match (policy.action, policy.dry_run) {
                (Action::Deny, false) => &mut set.deny,
                (Action::Deny, true) => &mut set.dry_run_deny,
                (Action::Allow, false) => &mut set.allow,
                (Action::Allow, true) => &mut set.dry_run_allow,
            };
            list.push(policy);
        }
        set.allow.sort_by_key(|policy| policy.is_pass());
        set
    }

    /// Keys that apply but are not held or not usable, ascending.
    pub fn unresolved(&self) -> &[PolicyKey] {
        &self.unresolved
    }

    /// Every policy held, in the order of evaluation.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.dry_run_deny.iter().chain(&self.deny).chain(&self.dry_run_allow).chain(&self.allow)
    }

    /// Whether nothing applies, held or not.
    pub fn is_empty(&self) -> bool {
        self.unresolved.is_empty() && self.policies().next().is_none()
    }
}
