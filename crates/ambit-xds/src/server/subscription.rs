//! What a client holds of workloads and services, and how that differs from what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_types::Str;

use super::changes::Changes;
use super::entry::Entry;
use super::history::Touched;
use super::interest::{Interest, wildcard};
use super::plan::Part;
use super::room::{Names, has_room_for};
use super::{Limits, Resources};
use crate::client::WILDCARD;
use crate::kind::Kind;
use crate::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// A subscription to workloads and services.
#[derive(Debug)]
pub(super) struct AddressWatch {
    interest: Interest,
    /// Names that the client came with and that are published: it wants them still, until they are gone.
    brought: BTreeSet<Str>,
    held: Held,
    /// Keys subscribed since the last response: each is answered even if nothing about it is new.
    asked: Names,
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
    /// Versions by name: brought along, or sent to a client that wants only some. An empty one is of what the client may
    /// hold or not: it is sent again, or told to be gone.
    Names(BTreeMap<String, String>),
    /// Everything of that state.
    All(Arc<Resources>),
}

impl Held {
    /// The client has unsubscribed from a name; `may_come`: it is on its way, and may come after that.
    fn let_go(&mut self, name: &str, may_come: bool) {
        let Self::Names(held) = self else { return };
        if let Some(version) = held.get_mut(name)
            && (may_come || version.is_empty())
        {
            version.clear();
        } else {
            held.remove(name);
        }
    }
}

impl AddressWatch {
    /// A subscription of a client that brings `held` along: version by name.
    pub(super) fn open(
        request: &DeltaDiscoveryRequest,
        mut held: BTreeMap<String, String>,
        limits: &Limits,
    ) -> Self {
        let (interest, asked) = Interest::open(request, limits);
        for name in &request.resource_names_unsubscribe {
            held.remove(name);
        }
        Self {
            interest,
            brought: BTreeSet::new(),
            held: Held::Names(held),
            asked,
            deferred: Vec::new(),
            looked: None,
            is_first: true,
            answered: false,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Whether the client wants some names only.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.interest, Interest::Named(_))
    }

    /// Whether the client came with more names than are kept, and gets everything instead.
    pub(super) fn is_beyond(&self) -> bool {
        self.interest == Interest::Beyond
    }

    /// Whether the client has no more keys than are kept, and no more of them wait for their answer.
    pub(super) fn has_room(&self, latest: &Resources, limits: &Limits) -> bool {
        let keys = match &self.interest {
            Interest::Named(keys) => !keys.size().exceeds(limits),
            Interest::All | Interest::Beyond => true,
        };
        keys && has_room_for(&self.asked, latest, limits)
    }

    /// Takes later changes of the subscription; whether there are any.
    ///
    /// `in_flight`: names in a response that is on its way to the client, which may come after it has let go of them;
    /// `pending`: what is left to send of it.
    pub(super) fn change(
        &mut self,
        request: &DeltaDiscoveryRequest,
        in_flight: Option<&BTreeSet<String>>,
        mut pending: Option<&mut Changes>,
    ) -> bool {
        let subscribe = &request.resource_names_subscribe;
        let unsubscribe = &request.resource_names_unsubscribe;
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return false;
        }
        self.looked = None;
        let wildcard = wildcard(request);
        if self.interest == Interest::All && wildcard == Some(false) {
            pending.iter_mut().for_each(|changes| changes.forget_all());
            self.leave_everything();
        } else if wildcard == Some(true) {
            self.interest = Interest::All;
        }
        let is_name = |name: &&String| *name != WILDCARD;
        match &mut self.interest {
            Interest::Named(keys) => {
                if let Some(changes) = pending {
                    changes.forget(unsubscribe);
                }
                for key in unsubscribe {
                    keys.remove(key);
                    self.asked.remove(key);
                    self.brought.remove(key.as_str());
                    self.held.let_go(key, in_flight.is_some_and(|names| names.contains(key)));
                }
                for key in subscribe.iter().filter(is_name) {
                    keys.insert(key);
                    self.asked.insert(key);
                }
            }
            // Who lets go of a name and has everything is told of it again: it cannot know that it still has it.
            Interest::All => {
                unsubscribe.iter().chain(subscribe).filter(is_name).for_each(|key| self.asked.insert(key));
            }
            Interest::Beyond => subscribe.iter().filter(is_name).for_each(|key| self.asked.insert(key)),
        }
        true
    }

    /// Everything is wanted no more, but for keys that follow. What the client has of it, or may get of what is on its
    /// way, is told to be gone or sent again.
    fn leave_everything(&mut self) {
        self.interest = Interest::Named(Names::default());
        if let Held::All(all) = &self.held {
            let names = all.addresses().sorted().into_keys().map(|name| (name.to_string(), String::new()));
            let held = names.collect();
            self.held = Held::Names(held);
        }
    }

    /// What the client lacks or should not have, as far as `part` goes. It counts as held from now on.
    pub(super) fn changes(&mut self, goal: &Arc<Resources>, node: &str, part: Part) -> Option<Changes> {
        match part {
            // No workload or service is one.
            Part::StandIns => return None,
            Part::Removals => {
                let removed = std::mem::take(&mut self.deferred);
                return Changes::removals(removed).unless_empty(false);
            }
            Part::Upserts | Part::Whole => {}
        }
        self.note_brought(goal);
        let mut changes = match &self.interest {
            Interest::All | Interest::Beyond => self.all_changes(goal),
            Interest::Named(_) if self.is_unconcerned(goal, node) => Changes::default(),
            Interest::Named(keys) => {
                let wanted = Interest::closure(keys, &self.brought, goal, node);
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

    /// Notes which of the names that the client came with there are, at the first look, and forgets those that are gone.
    fn note_brought(&mut self, goal: &Resources) {
        let addresses = goal.addresses();
        if self.is_first
            && let (Interest::Named(_), Held::Names(held)) = (&self.interest, &self.held)
        {
            let there = held.keys().filter_map(|name| addresses.entry(name));
            self.brought = there.map(|(name, _)| name.clone()).collect();
        } else {
            self.brought.retain(|name| addresses.get(name).is_some());
        }
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
            let is_known =
                |term: &Str| held.contains_key(&**term) || keys.contains(term) || looked.leads.contains(term);
            touched.nodes.contains(node) || touched.terms().any(is_known)
        };
        goal.history().since(looked.newest.as_ref()).is_some_and(|mut steps| !steps.any(concerns))
    }

    fn all_changes(&mut self, goal: &Arc<Resources>) -> Changes {
        let addresses = goal.addresses();
        let asked = std::mem::take(&mut self.asked);
        let again: BTreeSet<Str> = asked.iter().flat_map(|key| goal.resolve(key)).collect();
        let (mut changed, revived, mut removed): (_, _, BTreeSet<String>) = match &self.held {
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
        changed.extend(again.iter().filter_map(|name| addresses.entry(name)));
        removed.extend(asked.iter().filter(|key| !goal.leads_somewhere(key)).cloned());
        let mut changes = if asked.is_empty() { Changes::default() } else { Changes::with_aliases() };
        let behind = revived.iter().filter_map(|name| Some((name, addresses.get(name)?)));
        for (name, entry) in changed.into_iter().filter(|(name, _)| !revived.contains(*name)).chain(behind) {
            changes.upsert(name, entry);
        }
        for name in removed {
            changes.remove(name);
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
            // Only a client that wants everything holds a whole state; it leaves that behind with the rest.
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
        let absent = asked.iter().filter(|key| !goal.leads_somewhere(key)).cloned();
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
