//! What the node holds, counted at each scrape and at no other time: tunnels, policies it waits for, break-glasses that
//! are open.

use std::sync::Arc;

use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::{escaped, family, series, single};
use ambit_state::Snapshot;

use crate::proxy::Proxy;

/// What a proxy holds.
#[derive(Debug)]
pub struct Held(Arc<Proxy>);

impl Held {
    /// What `proxy` holds.
    pub fn by(proxy: &Arc<Proxy>) -> Arc<Self> {
        Arc::new(Self(proxy.clone()))
    }

    fn tunnels(&self, text: &mut String) {
        let pods = self.0.pods.all();
        let counts = pods.iter().map(|pod| pod.pool.counts());
        let (tunnels, streams) = counts.fold((0, 0), |(t, s), (tunnels, streams)| (t + tunnels, s + streams));
        single(text, "ambit_tunnel_connections", "gauge", tunnels);
        single(text, "ambit_tunnel_streams", "gauge", streams);
        let queue: u64 = pods.iter().map(|pod| pod.pool.waiting()).sum();
        single(text, "ambit_tunnel_queue", "gauge", queue);
    }

    fn policies(&self, text: &mut String) {
        let snapshot = self.0.mesh.snapshot();
        let sets = snapshot.own_workloads().filter_map(|own| snapshot.own_policies(&own.uid));
        let unresolved: usize = sets.map(|set| set.unresolved().len()).sum();
        single(text, "ambit_policy_unresolved_refs", "gauge", unresolved);
    }
}

impl Source for Held {
    fn write(&self, text: &mut String) {
        self.tunnels(text);
        self.policies(text);
        passes(text, &self.0.mesh.snapshot());
    }
}

/// Break-glasses that are in force here, one a namespace at most; those that have ended are not in the snapshot.
fn passes(text: &mut String, snapshot: &Snapshot) {
    family(text, "ambit_breakglass_open", "gauge");
    for policy in snapshot.policies().filter(|policy| policy.is_pass() && !policy.dry_run) {
        let labels = format!("namespace=\"{}\"", escaped(&policy.key.namespace));
        series(text, "ambit_breakglass_open", &labels, 1);
    }
}

#[cfg(test)]
mod tests {
    use ambit_policy::model::{Action, Policy, Rule, Scope};
    use ambit_state::{Change, World};
    use ambit_types::PolicyKey;

    use super::*;

    fn policy(key: &PolicyKey, action: Action, dry_run: bool) -> Change {
        let (rules, until) = (vec![Rule::default()], Some(1));
        Policy { key: key.clone(), scope: Scope::Namespace, action, rules, dry_run, until }.into()
    }

    fn told(changes: Vec<Change>) -> Vec<String> {
        let mut text = String::new();
        passes(&mut text, &World::new("n1").apply(changes).snapshot);
        text.lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn a_break_glass_is_told_of_for_as_long_as_it_is_in_force() {
        let [shop, bank] = ["shop", "bank"].map(|namespace| PolicyKey::new(namespace, "ambit-breakglass"));
        let open = || vec![policy(&shop, Action::Allow, false), policy(&bank, Action::Allow, false)];
        let [of_bank, of_shop] =
            ["bank", "shop"].map(|namespace| format!("ambit_breakglass_open{{namespace=\"{namespace}\"}} 1"));
        assert_eq!(told(open()), [of_bank.clone(), of_shop]);
        assert_eq!(told([open(), vec![Change::PolicyEnded(shop.clone())]].concat()), [of_bank]);
    }

    #[test]
    fn others_of_that_name_and_other_names_are_none() {
        let pass = PolicyKey::new("shop", "ambit-breakglass");
        let other = PolicyKey::new("shop", "web");
        for policy in [policy(&pass, Action::Deny, false), policy(&pass, Action::Allow, true)] {
            assert_eq!(told(vec![policy]), [""; 0]);
        }
        assert_eq!(told(vec![policy(&other, Action::Allow, false)]), [""; 0]);
    }
}
