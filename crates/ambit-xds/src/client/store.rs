//! What a waypoint holds beside workloads and services: the last good version of each resource, and what was refused.
//!
//! One response is applied as one batch: nobody sees half of it, because a copy that was taken before stays as it was,
//! and costs a few reference counts. It compiles nothing and decides nothing; [`Change`] says what to compile anew.

mod attached;
mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::http::model::Policy;
use ambit_policy::http::provider::Provider;
use ambit_policy::jwt::Rule;
use ambit_route::model::{Destination, Frontend};
use ambit_types::{PolicyKey, ServiceKey, Str};

use super::{Content, Update, WaypointContent};
use crate::codec::{
    Address, HttpPolicy, Malformed, PolicyTarget, RequestAuthentication, destination, frontend, provider,
};
use crate::kind::Kind;
use attached::{Attached, applicable};
pub use change::Change;

/// Resources by name.
type Held<T> = Arc<BTreeMap<String, Arc<T>>>;

/// All that a waypoint was told beside workloads and services.
#[derive(Debug, Clone, Default)]
pub struct Store {
    frontends: Held<Frontend>,
    destinations: Held<Destination>,
    policies: Held<HttpPolicy>,
    authentications: Held<RequestAuthentication>,
    providers: Held<Provider>,
    refusals: Arc<BTreeMap<(Kind, String), Refusal>>,
}

/// Why the newest version of a resource is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, with the field.
    pub reason: Malformed,
    /// What a policy would cover; nothing if that could not be read either, and then it may be anything.
    pub targets: Option<Vec<PolicyTarget>>,
}

/// What applies to a service: in force, and by name what applies but cannot be used.
///
/// While anything is unresolved nothing may be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicable<T> {
    /// In force, ascending by name.
    pub held: Vec<T>,
    /// Covers the service, or may, and no version that can be used is there, or none that covers the service.
    pub unresolved: Vec<PolicyKey>,
}

impl Store {
    /// Puts a response in force: removals, then what is new, then what was refused. What differs, in that order.
    ///
    /// Refused resources are remembered until they are accepted or removed; what was held under their names stays.
    /// Of workloads and services only the refusals are remembered.
    pub fn apply(&mut self, update: &Update) -> Vec<Change> {
        let Some((kind, accepted)) = accepted(&update.content) else { return Vec::new() };
        let mut changes = match &update.content {
            Content::Waypoint(content) => self.take(content),
            Content::Addresses { .. } | Content::Policies { .. } | Content::Unknown { .. } => Vec::new(),
        };
        for name in accepted.iter().chain(update.content.removed()) {
            changes.extend(self.forgive(kind, name));
        }
        for rejected in &update.rejected {
            changes.extend(self.forgive(kind, &rejected.name));
            let refusal = Refusal { reason: rejected.reason.clone(), targets: rejected.targets.clone() };
            changes.extend(self.effect(kind, &rejected.name, &refusal));
            Arc::make_mut(&mut self.refusals).insert((kind, rejected.name.clone()), refusal);
        }
        changes
    }

    /// The routes of ports, by name.
    pub fn frontends(&self) -> impl Iterator<Item = &Arc<Frontend>> {
        self.frontends.values()
    }

    /// The policies of destinations, by name.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.destinations.values()
    }

    /// Every policy, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<HttpPolicy>> {
        self.policies.values()
    }

    /// Every set of rules for tokens, by name.
    pub fn authentications(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        self.authentications.values()
    }

    /// Whom CUSTOM policies may ask, by name; one that they name and that is not here refuses.
    ///
    /// Of a provider whose newest version was refused the last good one stays.
    pub fn providers(&self) -> BTreeMap<Str, Arc<Provider>> {
        self.providers.values().map(|one| (one.name.clone(), one.clone())).collect()
    }

    /// The policies that apply to a service, for `ambit_policy::http::PolicySet::new`.
    pub fn policies_for(&self, service: &ServiceKey) -> Applicable<Arc<Policy>> {
        let refused = self.refused_of(Kind::HttpPolicy);
        applicable(&self.policies, refused, service, |held, all| all.push(held.policy.clone()))
    }

    /// The rules for tokens that apply to a service, each with its namespace, for `ambit_policy::jwt::RuleSet::new`.
    ///
    /// What is unresolved belongs with what is unresolved of the policies: a token that nobody looks at may be the one
    /// that would have been rejected.
    pub fn token_rules_for(&self, service: &ServiceKey) -> Applicable<Rule> {
        let refused = self.refused_of(Kind::RequestAuthentication);
        applicable(&self.authentications, refused, service, |held, all| {
            let namespace = &held.key.namespace;
            all.extend(held.rules.iter().map(|rule| Rule { namespace: namespace.clone(), ..rule.clone() }))
        })
    }

    /// Whether the routes of a port were sent and none that can be used are held: then requests are not to go to the
    /// service itself, as they would without routes, but to be answered with 500.
    pub fn lacks_routes(&self, service: &ServiceKey, port: u16) -> bool {
        let name = format!("{service}/{port}");
        !self.frontends.contains_key(&name) && self.refusals.contains_key(&(Kind::Frontend, name))
    }

    /// What was refused and has not since been accepted or removed, for `ambit status`; whether an older version is in
    /// force says [`Self::holds`].
    pub fn refusals(&self) -> impl Iterator<Item = (Kind, &str, &Refusal)> {
        self.refusals.iter().map(|((kind, name), refusal)| (*kind, &**name, refusal))
    }

    /// Whether a version of a resource is in force; workloads and services are not held here.
    pub fn holds(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Frontend => self.frontends.contains_key(name),
            Kind::Destination => self.destinations.contains_key(name),
            Kind::HttpPolicy => self.policies.contains_key(name),
            Kind::RequestAuthentication => self.authentications.contains_key(name),
            Kind::Provider => self.providers.contains_key(name),
            Kind::Address | Kind::Authorization => false,
        }
    }

    fn refused_of(&self, kind: Kind) -> impl Iterator<Item = (&str, &Refusal)> {
        let of_kind = self.refusals.iter().filter(move |((of, _), _)| *of == kind);
        of_kind.map(|((_, name), refusal)| (&**name, refusal))
    }

    /// Forgets the refusal of a name; what changes by that.
    fn forgive(&mut self, kind: Kind, name: &str) -> Option<Change> {
        let key = (kind, name.to_owned());
        // Looking first keeps the map shared, as nearly always nothing is there.
        if !self.refusals.contains_key(&key) {
            return None;
        }
        let refusal = Arc::make_mut(&mut self.refusals).remove(&key)?;
        self.effect(kind, name, &refusal)
    }

    fn take(&mut self, content: &WaypointContent) -> Vec<Change> {
        match content {
            WaypointContent::Frontends { upserts, removed } => {
                let gone = removed_from(&mut self.frontends, removed);
                let gone = gone
                    .into_iter()
                    .map(|old| Change::FrontendRemoved { service: old.service.clone(), port: old.port });
                let new = put_into(&mut self.frontends, upserts, frontend::name);
                gone.chain(new.into_iter().map(|(_, new)| Change::Frontend(new))).collect()
            }
            WaypointContent::Destinations { upserts, removed } => {
                let gone = removed_from(&mut self.destinations, removed);
                let gone = gone.into_iter().map(|old| Change::DestinationRemoved(old.service.clone()));
                let new = put_into(&mut self.destinations, upserts, destination::name);
                gone.chain(new.into_iter().map(|(_, new)| Change::Destination(new))).collect()
            }
            WaypointContent::Policies { upserts, removed } => {
                replaced(&mut self.policies, upserts, removed).map(Change::Policies).into_iter().collect()
            }
            WaypointContent::Authentications { upserts, removed } => {
                let touched = replaced(&mut self.authentications, upserts, removed);
                touched.map(Change::TokenRules).into_iter().collect()
            }
            WaypointContent::Providers { upserts, removed } => {
                let gone = !removed_from(&mut self.providers, removed).is_empty();
                let new = !put_into(&mut self.providers, upserts, provider::name).is_empty();
                (gone || new).then_some(Change::Providers).into_iter().collect()
            }
        }
    }

    /// What changes when a refusal comes or goes: a policy that cannot be read covers its targets all the same.
    fn effect(&self, kind: Kind, name: &str, refusal: &Refusal) -> Option<Change> {
        let anything = || vec![PolicyTarget::Waypoint];
        let targets = || refusal.targets.clone().unwrap_or_else(anything).into_iter().collect();
        match kind {
            Kind::HttpPolicy => Some(Change::Policies(targets())),
            Kind::RequestAuthentication => Some(Change::TokenRules(targets())),
            Kind::Frontend if !self.frontends.contains_key(name) => {
                let (service, port) = name.rsplit_once('/')?;
                let (service, port) = (ServiceKey::parse(service).ok()?, port.parse().ok()?);
                Some(Change::FrontendRemoved { service, port })
            }
            // What is held of a destination or provider is as before.
            Kind::Frontend | Kind::Destination | Kind::Provider | Kind::Address | Kind::Authorization => None,
        }
    }
}

/// Kind and names of what is usable in an update; nothing if nobody asked for it.
fn accepted(content: &Content) -> Option<(Kind, Vec<String>)> {
    Some(match content {
        Content::Addresses { upserts, .. } => (Kind::Address, upserts.iter().map(Address::name).collect()),
        Content::Policies { upserts, .. } => {
            (Kind::Authorization, upserts.iter().map(|policy| policy.key.to_string()).collect())
        }
        Content::Waypoint(content) => {
            let names = match content {
                WaypointContent::Frontends { upserts, .. } => {
                    upserts.iter().map(|one| frontend::name(one)).collect()
                }
                WaypointContent::Destinations { upserts, .. } => {
                    upserts.iter().map(|one| destination::name(one)).collect()
                }
                WaypointContent::Policies { upserts, .. } => upserts.iter().map(|one| one.name()).collect(),
                WaypointContent::Authentications { upserts, .. } => {
                    upserts.iter().map(|one| one.name()).collect()
                }
                WaypointContent::Providers { upserts, .. } => {
                    upserts.iter().map(|one| provider::name(one)).collect()
                }
            };
            (content.kind(), names)
        }
        Content::Unknown { .. } => return None,
    })
}

/// Takes names away; what they were.
fn removed_from<T>(held: &mut Held<T>, names: &[String]) -> Vec<Arc<T>> {
    // Looking first keeps a map shared that does not change.
    let there: Vec<&String> = names.iter().filter(|name| held.contains_key(*name)).collect();
    if there.is_empty() {
        return Vec::new();
    }
    let map = Arc::make_mut(held);
    there.into_iter().filter_map(|name| map.remove(name)).collect()
}

/// Puts in what differs; the old and new versions of it.
fn put_into<T: PartialEq>(
    held: &mut Held<T>,
    values: &[Arc<T>],
    name: impl Fn(&T) -> String,
) -> Vec<(Option<Arc<T>>, Arc<T>)> {
    let mut changed = Vec::new();
    for value in values {
        let name = name(value);
        if held.get(&name).is_none_or(|old| **old != **value) {
            let old = Arc::make_mut(held).insert(name, value.clone());
            changed.push((old, value.clone()));
        }
    }
    changed
}

/// Replaces attached resources; the targets of old and new versions, if anything differs.
fn replaced<T: Attached + PartialEq>(
    held: &mut Held<T>,
    upserts: &[Arc<T>],
    removed: &[String],
) -> Option<BTreeSet<PolicyTarget>> {
    let gone = removed_from(held, removed);
    let new = put_into(held, upserts, T::name);
    let before = gone.iter().chain(new.iter().filter_map(|(old, _)| old.as_ref()));
    let touched: BTreeSet<PolicyTarget> =
        before.chain(new.iter().map(|(_, new)| new)).flat_map(|one| one.targets()).cloned().collect();
    (!touched.is_empty()).then_some(touched)
}
