//! A set that is checked as it changes: only what changed and what depends on it is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::outline::Outline;
use super::{Known, problems_of};
use crate::kind::{Kind, ObjectKey};
use crate::problem::Problem;

/// The objects of a set, without repetition, and what is wrong between them.
#[derive(Debug, Default)]
pub struct CheckedSet {
    outlines: BTreeMap<Arc<ObjectKey>, Outline>,
    /// Who needs an object, whether it is there or not.
    dependents: BTreeMap<ObjectKey, BTreeSet<Arc<ObjectKey>>>,
    /// Services by address; the first one has it.
    holders: BTreeMap<IpAddr, BTreeSet<Arc<ObjectKey>>>,
    nodes: usize,
    problems: BTreeMap<Arc<ObjectKey>, Vec<Problem>>,
    checked: u64,
}

impl CheckedSet {
    /// Puts objects in, in place of those of the same names, or takes them out; then checks what that may concern.
    pub fn update(&mut self, changes: impl IntoIterator<Item = (Arc<ObjectKey>, Option<Outline>)>) {
        let had_nodes = self.nodes > 0;
        let mut dirty = BTreeSet::new();
        let mut is_other_name = false;
        for (key, new) in changes {
            is_other_name |= self.replace(key, new, &mut dirty);
        }
        if had_nodes != (self.nodes > 0) {
            let of_nodes = self.dependents.iter().filter(|(needed, _)| needed.kind == Kind::Node);
            dirty.extend(of_nodes.flat_map(|(_, dependents)| dependents).cloned());
        }
        if is_other_name {
            // A nearer name may have come, or the nearest one have gone.
            dirty.extend(self.problems.keys().cloned());
        }
        for key in dirty {
            self.check(key);
        }
    }

    /// Everything wrong, by object; not sorted by place.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// An object of the set.
    pub fn outline(&self, key: &ObjectKey) -> Option<&Outline> {
        self.outlines.get(key)
    }

    /// How many objects were checked so far, each as often as it was.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// Returns whether a name that others may refer to has come or gone.
    fn replace(
        &mut self,
        key: Arc<ObjectKey>,
        new: Option<Outline>,
        dirty: &mut BTreeSet<Arc<ObjectKey>>,
    ) -> bool {
        let old = self.outlines.remove(&*key);
        let is_other = old.is_some() != new.is_some();
        let is_there = new.is_some();
        if let Some(old) = &old {
            self.unlink(&key, old, dirty);
        }
        if let Some(new) = new {
            self.link(&key, &new, dirty);
            self.outlines.insert(key.clone(), new);
        }
        if is_other {
            dirty.extend(self.dependents.get(&*key).into_iter().flatten().cloned());
            if key.kind == Kind::Node {
                self.nodes = if is_there { self.nodes + 1 } else { self.nodes - 1 };
            }
        }
        let is_referred_to =
            matches!(key.kind, Kind::Namespace | Kind::Node | Kind::ServiceAccount | Kind::Service);
        dirty.insert(key);
        is_other && is_referred_to
    }

    fn link(&mut self, key: &Arc<ObjectKey>, of: &Outline, dirty: &mut BTreeSet<Arc<ObjectKey>>) {
        for needed in needed_by(of) {
            self.dependents.entry(needed).or_default().insert(key.clone());
        }
        for address in &of.addresses {
            let holders = self.holders.entry(address.ip).or_default();
            holders.insert(key.clone());
            dirty.extend(holders.iter().cloned());
        }
    }

    fn unlink(&mut self, key: &ObjectKey, of: &Outline, dirty: &mut BTreeSet<Arc<ObjectKey>>) {
        for needed in needed_by(of) {
            if let Some(dependents) = self.dependents.get_mut(&needed) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.dependents.remove(&needed);
                }
            }
        }
        for address in &of.addresses {
            if let Some(holders) = self.holders.get_mut(&address.ip) {
                holders.remove(key);
                dirty.extend(holders.iter().cloned());
                if holders.is_empty() {
                    self.holders.remove(&address.ip);
                }
            }
        }
    }

    fn check(&mut self, key: Arc<ObjectKey>) {
        let found = match self.outlines.get(&*key) {
            Some(outline) => {
                self.checked += 1;
                problems_of(outline, &*self)
            }
            None => Vec::new(),
        };
        if found.is_empty() {
            self.problems.remove(&*key);
        } else {
            self.problems.insert(key, found);
        }
    }
}

fn needed_by(of: &Outline) -> impl Iterator<Item = ObjectKey> {
    let namespace = of.key.namespace.as_deref();
    of.needs.iter().map(move |need| ObjectKey::new(need.kind, namespace, &need.name))
}

impl Known for CheckedSet {
    fn exists(&self, key: &ObjectKey) -> bool {
        self.outlines.contains_key(key)
    }

    fn has_nodes(&self) -> bool {
        self.nodes > 0
    }

    fn names<'k>(&'k self, like: &ObjectKey) -> Box<dyn Iterator<Item = &'k str> + 'k> {
        let first = ObjectKey { name: String::new(), ..like.clone() };
        let from = self.outlines.range::<ObjectKey, _>(&first..).map(|(key, _)| key);
        let of_kind = from.take_while(move |key| key.kind == first.kind && key.namespace == first.namespace);
        Box::new(of_kind.map(|key| key.name.as_str()))
    }

    fn holder(&self, ip: IpAddr) -> Option<&Outline> {
        self.outlines.get(self.holders.get(&ip)?.first()?)
    }
}
