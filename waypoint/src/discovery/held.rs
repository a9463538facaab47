//! What of the policies in force cannot be used, counted at each scrape and at no other time.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::single;
use ambit_types::PolicyKey;
use tokio::sync::watch;

use crate::{State, Waypoint};

/// What a waypoint holds, for its metrics; nothing before there is one.
#[derive(Debug)]
pub struct Held(watch::Receiver<Option<Arc<Waypoint>>>);

impl Held {
    /// What the waypoint holds that discovery makes.
    pub fn by(waypoint: &watch::Receiver<Option<Arc<Waypoint>>>) -> Arc<Self> {
        Arc::new(Self(waypoint.clone()))
    }
}

impl Source for Held {
    fn write(&self, text: &mut String) {
        let waypoint = self.0.borrow().clone();
        if let Some(waypoint) = waypoint {
            single(text, "ambit_policy_unresolved_refs", "gauge", unresolved(&waypoint.state()));
        }
    }
}

/// How many policies apply here and are not held or not usable, each once whatever it covers; there nothing is allowed.
pub(super) fn unresolved(state: &State) -> usize {
    let policies = &state.policies;
    let all = policies.services.values().chain([&policies.all]);
    let keys: BTreeSet<&PolicyKey> = all.flat_map(|applied| applied.policies.unresolved()).collect();
    keys.len()
}
