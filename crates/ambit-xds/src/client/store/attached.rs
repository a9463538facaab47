//! Which of the attached resources apply to a service, and which do that nobody can read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_types::{PolicyKey, ServiceKey};

use super::{Applicable, Refusal};
use crate::codec::{HttpPolicy, PolicyTarget, RequestAuthentication};

/// Something with targets.
pub(super) trait Attached {
    /// Name of its resource.
    fn name(&self) -> String;
    /// What it is attached to.
    fn targets(&self) -> &[PolicyTarget];
}

impl Attached for HttpPolicy {
    fn name(&self) -> String {
        self.name()
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }
}

impl Attached for RequestAuthentication {
    fn name(&self) -> String {
        self.name()
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }
}

/// What applies to a service; `add` takes what is in force out of one resource.
///
/// A version that is held stays in force for what it covers. What the refused one covers beyond that is unresolved; if
/// neither says, everything is.
pub(super) fn applicable<'s, T: Attached, U>(
    held: &BTreeMap<String, Arc<T>>,
    refused: impl Iterator<Item = (&'s str, &'s Refusal)>,
    service: &ServiceKey,
    add: impl Fn(&T, &mut Vec<U>),
) -> Applicable<U> {
    let covers = |targets: &[PolicyTarget]| targets.iter().any(|target| target.covers(service));
    let mut all = Vec::new();
    for one in held.values().filter(|one| covers(one.targets())) {
        add(one, &mut all);
    }
    let mut unresolved = BTreeSet::new();
    for (name, refusal) in refused {
        let is_open = match (held.get(name), &refusal.targets) {
            (Some(old), _) if covers(old.targets()) => false,
            (Some(_), None) => false,
            (None, None) => true,
            (Some(_) | None, Some(targets)) => covers(targets),
        };
        if is_open {
            // A name that is none still stands for something that covers the service.
            unresolved.insert(PolicyKey::parse(name).unwrap_or_else(|_| PolicyKey::new("", name)));
        }
    }
    Applicable { held: all, unresolved: unresolved.into_iter().collect() }
}
