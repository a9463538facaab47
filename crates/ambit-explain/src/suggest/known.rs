//! Who is in the mesh now: whoever was seen may be gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_types::{Identity, Str, TrustDomain, Workload};

use crate::FlowEnd;

/// Pods and identities that there are.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pods: BTreeSet<(Str, Str)>,
    identities: BTreeSet<Identity>,
    domains: BTreeSet<TrustDomain>,
}

impl Known {
    /// Those of these workloads.
    pub fn of<'w>(workloads: impl IntoIterator<Item = &'w Arc<Workload>>) -> Self {
        let mut known = Self::default();
        for workload in workloads {
            known.pods.insert((workload.namespace.clone(), workload.name.clone()));
            known.domains.insert(workload.trust_domain.clone());
            known.identities.insert(workload.identity());
        }
        known
    }

    /// Whether an identity is of the mesh's own domain and nobody has it any more.
    pub(super) fn is_gone(&self, identity: &Identity) -> bool {
        self.domains.contains(identity.trust_domain()) && !self.identities.contains(identity)
    }

    /// Whether an end names a pod that is not there any more.
    pub(super) fn is_pod_gone(&self, end: &FlowEnd) -> bool {
        match (end.namespace.as_deref(), end.workload.as_deref()) {
            (Some(namespace), Some(name)) => !self.pods.contains(&(Str::from(namespace), Str::from(name))),
            (Some(_) | None, _) => false,
        }
    }
}
