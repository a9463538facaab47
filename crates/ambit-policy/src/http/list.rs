//! Policies of one kind in their order, and the first rule of each that agrees with a request.
//!
//! Long lists have an index, which names the rules that may agree; the matcher then decides about those, in the order
//! of the list. Whoever wants everything told gets every rule compared, one after the other: that is the reference
//! that the index is held against.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::facts::Facts;
use super::index::Index;
use super::matcher::{agrees, matching_rule};
use super::model::{Action, Attribute, Policy};
use crate::trace::Recorder;

/// Rules up to which a list is simply walked.
pub(super) const WALK_MAX: usize = 8;

/// Policies ascending by key.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    policies: Vec<Arc<Policy>>,
    index: Option<Index>,
}

/// The index follows from the policies.
impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

impl Eq for List {}

impl List {
    /// Adds a policy; those before it have smaller keys.
    pub(super) fn push(&mut self, policy: Arc<Policy>) {
        self.policies.push(policy);
    }

    /// Builds the index, if there are more rules than are simply walked.
    pub(super) fn finish(&mut self, walk_max: usize) {
        let rules: usize = self.policies.iter().map(|policy| policy.rules.len()).sum();
        self.index = (rules > walk_max).then(|| Index::new(&self.policies)).flatten();
    }

    /// The policies.
    pub(super) fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Shows `found` each policy that agrees with the facts and the first of its rules that does, in order, until it
    /// has seen enough.
    pub(super) fn matches<'p, R: Recorder<Attribute, Action>>(
        &'p self,
        facts: &Facts<'_>,
        recorder: &mut R,
        mut found: impl FnMut(&'p Policy, usize) -> ControlFlow<()>,
    ) {
        match &self.index {
            Some(index) if !R::THOROUGH && index.serves(facts) => self.look_up(index, facts, found),
            Some(_) | None => {
                let mut enough = false;
                for policy in &self.policies {
                    let Some(rule) = matching_rule(policy, facts, recorder) else { continue };
                    enough = enough || found(policy, rule).is_break();
                    if enough && !R::THOROUGH {
                        break;
                    }
                }
            }
        }
    }

    fn look_up<'p>(
        &'p self,
        index: &Index,
        facts: &Facts<'_>,
        mut found: impl FnMut(&'p Policy, usize) -> ControlFlow<()>,
    ) {
        let mut settled = None;
        index.candidates(facts, |place| {
            if settled == Some(place.policy) {
                return ControlFlow::Continue(());
            }
            let Some((policy, rule)) = self.at(place.policy, place.rule) else {
                return ControlFlow::Continue(());
            };
            if !agrees(policy, rule, facts) {
                return ControlFlow::Continue(());
            }
            settled = Some(place.policy);
            found(policy, rule)
        });
    }

    fn at(&self, policy: u32, rule: u32) -> Option<(&Policy, usize)> {
        let policy = self.policies.get(usize::try_from(policy).ok()?)?;
        Some((policy, usize::try_from(rule).ok()?))
    }
}
