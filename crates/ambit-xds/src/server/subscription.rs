//! What a client holds of each kind, and how that differs from what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_types::Str;

use super::Resources;
use super::changes::Changes;
use super::entry::Entry;
use super::history::Touched;
use super::interest::Interest;
use super::plan::Part;
use super::shards::Shards;
use crate::kind::Kind;
use crate::node::WaypointKey;
use crate::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// A subscription to all resources of a kind that are there for the client.
#[derive(Debug)]
pub(super) struct NamedWatch {
    kind: Kind,
    /// Whose resources, of a waypoint.
    waypoint: Option<WaypointKey>,
    /// Sent, or brought along: version by name.
    held: BTreeMap<String, String>,
    /// The resources that were last looked at for upserts, and for removals: what is still so needs no look.
    upserted: Option<Shards<Arc<Entry>>>,
    cleared: Option<Shards<Arc<Entry>>>,
    is_first: bool,
    /// Everything so far has been answered.
    pub(super) answered: bool,
}

impl NamedWatch {
    pub(super) fn open(kind: Kind, waypoint: Option<WaypointKey>, request: DeltaDiscoveryRequest) -> Self {
        let held = request.initial_resource_versions;
        Self { kind, waypoint, held, upserted: None, cleared: None, is_first: true, answered: false }
    }

    /// What the client lacks or should not have, as far as `part` goes. It counts as held from now on.
    pub(super) fn changes(&mut self, goal: &Resources, part: Part) -> Option<Changes> {
        let mut changes = Changes::default();
        if part.has_upserts() {
            self.add_upserts(goal, &mut changes);
        }
        if part.has_removals() {
            self.add_removals(goal, &mut changes);
        }
        let is_first = part.has_upserts() && std::mem::take(&mut self.is_first);
        changes.unless_empty(is_first)
    }

    fn add_upserts(&mut self, goal: &Resources, changes: &mut Changes) {
        let before = self.upserted.take();
        let Some(resources) = goal.of(self.kind, self.waypoint.as_ref()) else { return };
        let candidates = match &before {
            Some(before) => resources.since(before).0,
            None => resources.sorted(),
        };
        for (name, entry) in candidates {
            if self.held.get(&**name).is_none_or(|version| version != entry.version()) {
                changes.upsert(name, entry);
                self.held.insert(name.to_string(), entry.version().to_owned());
            }
        }
        self.upserted = Some(resources.clone());
    }

    fn add_removals(&mut self, goal: &Resources, changes: &mut Changes) {
        let before = self.cleared.take();
        let resources = goal.of(self.kind, self.waypoint.as_ref());
        if before.as_ref().zip(resources).is_none_or(|(before, now)| !now.is(before)) {
            let gone = |name: &String| resources.is_none_or(|there| there.get(name).is_none());
            let gone: Vec<String> = self.held.keys().filter(|name| gone(name)).cloned().collect();
            for name in gone {
                self.held.remove(&name);
                changes.remove(name);
            }
        }
        self.cleared = resources.cloned();
    }
}

/// A subscription to workloads and services.
#[derive(Debug)]
pub(super) struct AddressWatch {
    interest: Interest,
    held: Held,
    /// Keys subscribed since the last response: each is answered even if nothing about it is new.
    asked: BTreeSet<String>,
    /// What is to be removed in a later part of the cycle.
    deferred: Vec<String>,
    /// What the last look at the mesh came to, of a client that wants only some; none if it has to look anew.
    looked: Option<Looked>,
    is_first: bool,
    /// Everything so far has been answered.
    pub(super) answered: bool,
    /// How often all that is wanted was looked at.
    #[cfg(test)]
    pub(super) looks: usize,
}

/// A look at the mesh for a client that wants only some of it.
#[derive(Debug)]
struct Looked {
    /// The newest change then.
    newest: Option<Arc<Touched>>,
    /// Keys that what is held leads to, whether there is anything behind them or not.
    leads: BTreeSet<Str>,
}

/// What the client holds.
#[derive(Debug)]
enum Held {
    /// Versions by name: brought along, or sent to a client that wants only some.
    Names(BTreeMap<String, String>),
    /// Everything of that state.
    All(Arc<Resources>),
}

impl AddressWatch {
    pub(super) fn open(request: DeltaDiscoveryRequest) -> Self {
        let interest = Interest::open(&request);
        let asked = match &interest {
            Interest::All => BTreeSet::new(),
            Interest::Named(keys) => {
                let explicit = request.resource_names_subscribe.iter();
                explicit.filter(|name| keys.contains(*name)).cloned().collect()
            }
        };
        let held = Held::Names(request.initial_resource_versions);
        Self {
            interest,
            held,
            asked,
            deferred: Vec::new(),
            looked: None,
            is_first: true,
            answered: false,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// How many keys are subscribed.
    pub(super) fn names(&self) -> usize {
        match &self.interest {
            Interest::All => 0,
            Interest::Named(keys) => keys.len(),
        }
    }

    /// Takes later changes of the subscription; whether there are any.
    ///
    /// A client that wants everything gets everything, whatever names it adds or drops.
    pub(super) fn change(&mut self, request: &DeltaDiscoveryRequest) -> bool {
        let Interest::Named(keys) = &mut self.interest else { return false };
        let is_change =
            !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty();
        if is_change {
            self.looked = None;
        }
        for key in &request.resource_names_unsubscribe {
            keys.remove(key);
            self.asked.remove(key);
            if let Held::Names(held) = &mut self.held {
                held.remove(key);
            }
        }
        for key in &request.resource_names_subscribe {
            keys.insert(key.clone());
            self.asked.insert(key.clone());
        }
        is_change
    }

    /// What the client lacks or should not have, as far as `part` goes. It counts as held from now on.
    pub(super) fn changes(&mut self, goal: &Arc<Resources>, node: &str, part: Part) -> Option<Changes> {
        if part == Part::Removals {
            let removed = std::mem::take(&mut self.deferred);
            return Changes::removals(removed).unless_empty(false);
        }
        let mut changes = match &self.interest {
            Interest::All => self.all_changes(goal),
            Interest::Named(_) if self.is_unconcerned(goal, node) => Changes::default(),
            Interest::Named(keys) => {
                let wanted = Interest::closure(keys, goal, node);
                self.named_changes(goal, &wanted)
            }
        };
        if let Some(looked) = &mut self.looked {
            looked.newest = goal.history().newest().cloned();
        }
        if !part.has_removals() {
            self.deferred = changes.take_removed();
        }
        changes.unless_empty(std::mem::take(&mut self.is_first))
    }

    /// Whether nothing that was touched since the last look has to do with the client: not what it holds, nor what its
    /// keys, its node, and what it holds lead to. Looking again would come to the same.
    fn is_unconcerned(&self, goal: &Resources, node: &str) -> bool {
        let (Some(looked), Interest::Named(keys), Held::Names(held)) =
            (&self.looked, &self.interest, &self.held)
        else {
            return false;
        };
        let concerns = |touched: &Touched| {
            let is_known = |term: &Str| {
                held.contains_key(&**term) || keys.contains(&**term) || looked.leads.contains(term)
            };
            touched.nodes.contains(node) || touched.terms().any(is_known)
        };
        goal.history().since(looked.newest.as_ref()).is_some_and(|mut steps| !steps.any(concerns))
    }

    fn all_changes(&mut self, goal: &Arc<Resources>) -> Changes {
        let addresses = goal.addresses();
        let (changed, revived, removed) = match &self.held {
            Held::All(older) => {
                let (changed, removed) = goal.since(older);
                let older = older.addresses();
                let refused = |name: &str| older.get(name).is_some_and(|entry| !entry.takes_unready());
                let revived = revived(goal, &changed, refused);
                (changed, revived, removed.into_iter().map(ToString::to_string).collect())
            }
            Held::Names(declared) => {
                let differs = |name: &str, version: &str| declared.get(name).is_none_or(|v| v != version);
                let mut changed = addresses.sorted();
                changed.retain(|name, entry| differs(name, entry.version()));
                // What an old version said is not known, so it may have refused them.
                let revived = revived(goal, &changed, |name| declared.contains_key(name));
                let gone = declared.keys().filter(|name| addresses.get(name).is_none());
                (changed, revived, gone.cloned().collect())
            }
        };
        let mut changes = Changes::removals(removed);
        let behind = revived.iter().filter_map(|name| Some((name, addresses.get(name)?)));
        for (name, entry) in changed.into_iter().filter(|(name, _)| !revived.contains(*name)).chain(behind) {
            changes.upsert(name, entry);
        }
        self.held = Held::All(goal.clone());
        changes
    }

    fn named_changes(&mut self, goal: &Resources, wanted: &BTreeSet<Str>) -> Changes {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let asked = std::mem::take(&mut self.asked);
        let Held::Names(held) = &mut self.held else {
            // Only a client that wants everything holds a whole state, and it never goes back to wanting some.
            return Changes::default();
        };
        let again: BTreeSet<_> = asked.iter().flat_map(|key| goal.resolve(key)).collect();
        let mut changes = Changes::with_aliases();
        let addresses = goal.addresses();
        let mut changed: BTreeMap<&Str, &Arc<Entry>> =
            wanted.iter().filter_map(|name| Some((name, addresses.get(name)?))).collect();
        changed.retain(|name, entry| {
            again.contains(*name) || held.get(&***name).is_none_or(|version| version != entry.version())
        });
        let differs = |name: &str| {
            let version = goal.version(Kind::Address, name);
            held.get(name).is_some_and(|held| Some(held.as_str()) != version)
        };
        let revived = revived(goal, &changed, differs);
        let behind = revived.iter().filter_map(|name| Some((name, addresses.get(name)?)));
        for (name, entry) in changed.into_iter().filter(|(name, _)| !revived.contains(*name)).chain(behind) {
            changes.upsert(name, entry);
            held.insert(name.to_string(), entry.version().to_owned());
        }
        let gone: BTreeSet<String> = held.keys().filter(|name| !wanted.contains(&***name)).cloned().collect();
        held.retain(|name, _| !gone.contains(name));
        // A key behind which there is nothing is answered by its removal.
        let absent = asked.into_iter().filter(|key| goal.resolve(key).is_empty());
        for name in gone.into_iter().chain(absent).collect::<BTreeSet<_>>() {
            changes.remove(name);
        }
        let leads = wanted.iter().flat_map(|name| goal.leads(name)).cloned().collect();
        self.looked = Some(Looked { newest: None, leads });
        changes
    }
}

/// Endpoints that have to be sent again, and behind their service: it takes unready ones from now on, and other
/// proxies dropped those when they came (G12). `refused`: whether the client may have the service as one that does
/// not take them.
fn revived(
    goal: &Resources,
    changed: &BTreeMap<&Str, &Arc<Entry>>,
    refused: impl Fn(&str) -> bool,
) -> BTreeSet<Str> {
    let services = changed.iter().filter(|(name, entry)| entry.takes_unready() && refused(name));
    services.flat_map(|(name, _)| goal.endpoints(name).cloned()).collect()
}
