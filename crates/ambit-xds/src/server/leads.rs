//! From keys, such as aliases, to the names of what they lead to.
//!
//! Nearly every address leads to one workload, so one name takes no set of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_types::Str;

use super::shards::Shards;

#[derive(Debug, Clone)]
enum Names {
    One(Str),
    /// At least two.
    Many(Arc<BTreeSet<Str>>),
}

/// Names by key; a copy shares everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Leads(Shards<Names>);

impl Leads {
    /// Names behind a key, in order.
    pub(super) fn of(&self, key: &str) -> impl Iterator<Item = &Str> {
        let (one, many) = match self.0.get(key) {
            Some(Names::One(name)) => (Some(name), None),
            Some(Names::Many(names)) => (None, Some(names)),
            None => (None, None),
        };
        one.into_iter().chain(many.into_iter().flat_map(|names| names.iter()))
    }

    /// A key that leads somewhere, as it is held here.
    pub(super) fn key(&self, key: &str) -> Option<&Str> {
        self.0.entry(key).map(|(key, _)| key)
    }

    pub(super) fn add(&mut self, key: &Str, name: &Str) {
        let names = match self.0.remove(key) {
            Some(Names::One(other)) if other != *name => {
                Names::Many(Arc::new(BTreeSet::from([other, name.clone()])))
            }
            Some(Names::Many(mut names)) => {
                Arc::make_mut(&mut names).insert(name.clone());
                Names::Many(names)
            }
            Some(Names::One(_)) | None => Names::One(name.clone()),
        };
        self.0.insert(key.clone(), names);
    }

    pub(super) fn remove(&mut self, key: &Str, name: &str) {
        let left = match self.0.remove(key) {
            Some(Names::Many(mut names)) => {
                Arc::make_mut(&mut names).remove(name);
                let last = names.first().filter(|_| names.len() == 1).cloned();
                Some(last.map_or(Names::Many(names), Names::One))
            }
            Some(Names::One(other)) => (*other != *name).then_some(Names::One(other)),
            None => None,
        };
        if let Some(names) = left {
            self.0.insert(key.clone(), names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_what_was_added_and_not_removed() {
        let key = Str::from("key");
        let mut leads = Leads::default();
        let mut expected = BTreeSet::new();
        for (is_added, name) in [
            (false, "a"),
            (true, "b"),
            (true, "b"),
            (false, "a"),
            (true, "a"),
            (true, "c"),
            (false, "x"),
            (false, "b"),
            (false, "c"),
            (false, "a"),
            (true, "a"),
        ] {
            if is_added {
                leads.add(&key, &Str::from(name));
                expected.insert(name);
            } else {
                leads.remove(&key, name);
                expected.remove(name);
            }
            let found: Vec<&str> = leads.of("key").map(|name| &**name).collect();
            assert_eq!(found, expected.iter().copied().collect::<Vec<_>>(), "after {is_added} {name}");
            assert_eq!(leads.of("other").count(), 0);
        }
    }
}
