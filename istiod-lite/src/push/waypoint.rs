//! What is published to one waypoint of the resources that differ.
//!
//! A policy with a mistake still applies, and where it does nothing may be allowed: it goes out as an AUDIT policy that
//! is only to be recorded, which no manifest can say and every evaluator counts as unresolved. The wire has no such
//! form for rules for tokens, so in their place goes such a policy, under a name that no object can have. A waypoint
//! whose Gateway is gone is sent one for everything: its proxies run on for a while, and services still lead to them.

use std::sync::Arc;

use ambit_control::Name;
use ambit_control::waypoints::resources::{Attached, Difference, FrontendKey, Reach};
use ambit_policy::http::model::{Action, Policy};
use ambit_types::PolicyKey;
use ambit_xds::Kind;
use ambit_xds::codec::{HttpPolicy, PolicyTarget, RequestAuthentication};
use ambit_xds::node::WaypointKey;
use ambit_xds::server::{Resources, WaypointDelta};

/// What the name of the policy begins with that stands for rules for tokens with a mistake.
const STANDS_FOR_RULES: &str = "ambit_unresolved_request_authentication_";

/// The name of the policy of a waypoint that was withdrawn.
const WITHDRAWN: &str = "ambit_withdrawn_waypoint";

/// The name under which a waypoint's resources are published.
pub fn key(gateway: &Name) -> WaypointKey {
    WaypointKey::new(gateway.namespace.clone(), gateway.name.clone())
}

/// What is published to a waypoint.
pub fn changes(of: &Difference) -> WaypointDelta {
    let mut delta = WaypointDelta {
        frontends: of.changed.frontends.values().cloned().collect(),
        providers: of.changed.providers.values().cloned().collect(),
        ..WaypointDelta::default()
    };
    for (service, policy) in &of.changed.destinations {
        delta.put_destination(service.clone(), (**policy).clone());
    }
    for (key, attached) in &of.changed.policies {
        let policy = attached.of.clone().unwrap_or_else(|| unresolved(key.clone()));
        delta.policies.push(http_policy(policy, &attached.reach));
    }
    for (key, attached) in &of.changed.authentications {
        let Attached { of, reach } = &**attached;
        match of {
            Some(rules) => {
                let (key, rules, targets) = (key.clone(), rules.clone(), targets(reach));
                delta.removed.push((Kind::HttpPolicy, stands_for(&key).to_string()));
                delta.authentications.push(Arc::new(RequestAuthentication { key, targets, rules }));
            }
            None => {
                delta.policies.push(http_policy(unresolved(stands_for(key)), reach));
                delta.removed.push((Kind::RequestAuthentication, key.to_string()));
            }
        }
    }
    delta.removed.extend(removed(of));
    delta
}

/// What is published to a waypoint whose Gateway is gone, beside what it has: nothing is allowed.
pub fn withdrawal(waypoint: &WaypointKey) -> WaypointDelta {
    let policies = vec![http_policy(unresolved(withdrawn(waypoint)), &Reach::All)];
    WaypointDelta { policies, ..WaypointDelta::default() }
}

/// Whether that was published to a waypoint.
pub fn is_withdrawn(published: &Resources, waypoint: &WaypointKey) -> bool {
    let name = withdrawn(waypoint).to_string();
    published.version_for(Some(waypoint), Kind::HttpPolicy, &name).is_some()
}

fn withdrawn(waypoint: &WaypointKey) -> PolicyKey {
    PolicyKey::new(waypoint.namespace.clone(), WITHDRAWN)
}

fn removed(of: &Difference) -> impl Iterator<Item = (Kind, String)> {
    let name = |FrontendKey { service, port }: &FrontendKey| format!("{service}/{port}");
    let frontends = of.removed_frontends.iter().map(move |key| (Kind::Frontend, name(key)));
    let destinations = of.removed_destinations.iter().map(|key| (Kind::Destination, key.to_string()));
    let policies = of.removed_policies.iter().map(|key| (Kind::HttpPolicy, key.to_string()));
    let authentications = of.removed_authentications.iter().flat_map(|key| {
        [(Kind::RequestAuthentication, key.to_string()), (Kind::HttpPolicy, stands_for(key).to_string())]
    });
    let providers = of.removed_providers.iter().map(|name| (Kind::Provider, name.to_string()));
    frontends.chain(destinations).chain(policies).chain(authentications).chain(providers)
}

fn http_policy(policy: Policy, reach: &Reach) -> Arc<HttpPolicy> {
    Arc::new(HttpPolicy { targets: targets(reach), policy: Arc::new(policy) })
}

fn targets(reach: &Reach) -> Vec<PolicyTarget> {
    match reach {
        Reach::All => vec![PolicyTarget::Waypoint],
        Reach::Services(services) => services.iter().cloned().map(PolicyTarget::Service).collect(),
    }
}

/// A policy that nobody can use, so that nothing is allowed where it applies.
fn unresolved(key: PolicyKey) -> Policy {
    Policy { key, action: Action::Audit, rules: Vec::new(), dry_run: true }
}

/// An underscore is in no object's name.
fn stands_for(rules: &PolicyKey) -> PolicyKey {
    PolicyKey::new(rules.namespace.clone(), format!("{STANDS_FOR_RULES}{}", rules.name))
}
