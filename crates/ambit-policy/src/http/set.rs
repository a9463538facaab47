//! The policies that apply to one service at a waypoint, ordered for evaluation.
//!
//! Built once per service and policy version, with an index over long lists of rules. Which policies reach a service (`targetRefs`) is state's affair.

use std::sync::Arc;

use ambit_types::PolicyKey;

use super::list::{List, WALK_MAX};
use super::model::{Action, Attribute, Condition, Policy};

/// When CUSTOM policies are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum CustomOrder {
    /// After token and DENY, so that rules may ask for claims and nobody is asked about what is refused anyway.
    ///
    /// The default.
    #[default]
    AfterToken,
    /// First of all, before the token is looked at, as Istio does.
    BeforeToken,
}

/// Policies of one service by what they do, each list ascending by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySet {
    pub(super) custom: List,
    pub(super) audit: List,
    pub(super) deny: List,
    pub(super) allow: List,
    pub(super) dry_run_deny: List,
    pub(super) dry_run_allow: List,
    pub(super) unresolved: Vec<PolicyKey>,
    pub(super) order: CustomOrder,
}

impl PolicySet {
    /// Sorts policies for evaluation; of several with one key the first counts.
    ///
    /// `unresolved` are policies that apply but are not held, or cannot be used: while there is any, nothing is
    /// allowed. A CUSTOM or AUDIT policy that is only to be recorded counts as such: compiling refuses it.
    pub fn new(
        policies: impl IntoIterator<Item = Arc<Policy>>,
        unresolved: impl IntoIterator<Item = PolicyKey>,
        order: CustomOrder,
    ) -> Self {
        Self::with_walk_max(policies, unresolved, order, WALK_MAX)
    }

    /// The same; lists of more rules than `walk_max` get an index.
    pub(super) fn with_walk_max(
        policies: impl IntoIterator<Item = Arc<Policy>>,
        unresolved: impl IntoIterator<Item = PolicyKey>,
        order: CustomOrder,
        walk_max: usize,
    ) -> Self {
        let mut all: Vec<Arc<Policy>> = policies.into_iter().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        let mut set = Self { unresolved: unresolved.into_iter().collect(), order, ..Self::default() };
        for policy in all {
            let list = match (&policy.action, policy.dry_run) {
                (Action::Custom(_) | Action::Audit, true) => {
                    set.unresolved.push(policy.key.clone());
                    continue;
                }
                (Action::Custom(_), false) => &mut set.custom,
                (Action::Audit, false) => &mut set.audit,
                (Action::Deny, false) => &mut set.deny,
                (Action::Deny, true) => &mut set.dry_run_deny,
                (Action::Allow, false) => &mut set.allow,
                (Action::Allow, true) => &mut set.dry_run_allow,
            };
            list.push(policy);
        }
        set.lists_mut().into_iter().for_each(|list| list.finish(walk_max));
        set.unresolved.sort_unstable();
        set.unresolved.dedup();
        set
    }

    /// Keys that apply but are not held or not usable, ascending.
    pub fn unresolved(&self) -> &[PolicyKey] {
        &self.unresolved
    }

    /// Every policy held.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let Self { custom, audit, deny, allow, dry_run_deny, dry_run_allow, .. } = self;
        [custom, audit, deny, allow, dry_run_deny, dry_run_allow].into_iter().flat_map(List::policies)
    }

    fn lists_mut(&mut self) -> [&mut List; 6] {
        let Self { custom, audit, deny, allow, dry_run_deny, dry_run_allow, .. } = self;
        [custom, audit, deny, allow, dry_run_deny, dry_run_allow]
    }

    /// Whether nothing applies, held or not.
    pub fn is_empty(&self) -> bool {
        self.unresolved.is_empty() && self.policies().next().is_none()
    }

    /// When CUSTOM policies are evaluated.
    pub fn custom_order(&self) -> CustomOrder {
        self.order
    }

    /// Whether any policy compares paths, so that ambiguous ones must be refused (see [`crate::normalize`]).
    pub fn compares_paths(&self) -> bool {
        self.compares(|attribute| *attribute == Attribute::Path)
    }

    /// Whether any policy asks about a token.
    pub fn compares_tokens(&self) -> bool {
        self.compares(Attribute::needs_token)
    }

    fn compares(&self, asked: impl Fn(&Attribute) -> bool) -> bool {
        let conditions = self.policies().flat_map(|policy| policy.conditions());
        conditions.map(Condition::attribute).any(|attribute| asked(&attribute))
    }
}

impl Policy {
    /// Every condition of every rule.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let clauses = self.rules.iter().flat_map(|rule| &rule.clauses);
        clauses.flat_map(|clause| clause.alternatives.iter().flatten())
    }
}
