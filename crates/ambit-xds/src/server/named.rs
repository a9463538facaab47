//! What a client holds of a kind that it is always sent all of, and how that differs from what it should hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Resources;
use super::changes::Changes;
use super::entry::Entry;
use super::plan::Part;
use super::shards::Shards;
use crate::kind::Kind;
use crate::node::WaypointKey;

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
    /// Nothing has been sent that says what there is.
    is_first: bool,
    /// Everything so far has been answered.
    answered: bool,
}

impl NamedWatch {
    /// A subscription of a client that brings `held` along: version by name.
    pub(super) fn open(kind: Kind, waypoint: Option<WaypointKey>, held: BTreeMap<String, String>) -> Self {
        Self { kind, waypoint, held, upserted: None, cleared: None, is_first: true, answered: false }
    }

    /// The client has answered what it was sent.
    pub(super) fn note_answer(&mut self) {
        self.answered |= !self.is_first;
    }

    /// Whether everything so far has been answered.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// What the client lacks or should not have, as far as `part` goes. It counts as held from now on.
    pub(super) fn changes(&mut self, goal: &Resources, part: Part) -> Option<Changes> {
        let mut changes = Changes::default();
        if part == Part::StandIns {
            self.add_upserts(goal, &mut changes, Entry::stands_in);
            let changes = if self.is_first { changes.followed_by_more() } else { changes };
            return changes.unless_empty(false);
        }
        if part.has_upserts() {
            self.add_upserts(goal, &mut changes, |_| true);
            self.upserted = goal.of(self.kind, self.waypoint.as_ref()).cloned();
        } else if self.is_first {
            // Subscribed in the middle of a cycle. A client counts as served with its first answer, so that must not be
            // one that says what is gone and leaves out what there is; the next cycle says both.
            return None;
        }
        if part.has_removals() {
            self.add_removals(goal, &mut changes);
        }
        let is_first = part.has_upserts() && std::mem::take(&mut self.is_first);
        changes.unless_empty(is_first)
    }

    fn add_upserts(&mut self, goal: &Resources, changes: &mut Changes, is_due: impl Fn(&Entry) -> bool) {
        let Some(resources) = goal.of(self.kind, self.waypoint.as_ref()) else { return };
        let candidates = match &self.upserted {
            Some(before) => resources.since(before).0,
            None => resources.sorted(),
        };
        for (name, entry) in candidates.into_iter().filter(|(_, entry)| is_due(entry)) {
            if self.held.get(&**name).is_none_or(|version| version != entry.version()) {
                changes.upsert(name, entry);
                self.held.insert(name.to_string(), entry.version().to_owned());
            }
        }
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
