//! Which objects of a kind are there, by name and version: enough to tell what a new listing lacks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The objects of one kind.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By namespace, then by name. Two levels, so that the namespace is not stored with each name.
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, Mark>>,
    round: u32,
}

#[derive(Debug)]
struct Mark {
    version: u64,
    /// The last listing in which it was.
    round: u32,
}

impl Seen {
    /// Notes an object; whether it is new or of another version than before.
    pub(super) fn see(&mut self, namespace: &str, name: &str, version: u64) -> bool {
        let round = self.round;
        if !self.names.contains_key(namespace) {
            self.names.insert(namespace.into(), BTreeMap::new());
        }
        let Some(names) = self.names.get_mut(namespace) else { return true };
        match names.get_mut(name) {
            Some(mark) => {
                mark.round = round;
                std::mem::replace(&mut mark.version, version) != version
            }
            None => {
                names.insert(name.into(), Mark { version, round });
                true
            }
        }
    }

    /// Notes that an object is gone; whether it was there.
    pub(super) fn forget(&mut self, namespace: &str, name: &str) -> bool {
        let Some(names) = self.names.get_mut(namespace) else { return false };
        let was_there = names.remove(name).is_some();
        if names.is_empty() {
            self.names.remove(namespace);
        }
        was_there
    }

    /// A new listing begins.
    pub(super) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The listing is complete: what it lacked is gone, as namespaces and names.
    pub(super) fn finish(&mut self) -> Vec<(String, String)> {
        let (round, mut gone) = (self.round, Vec::new());
        for (namespace, names) in &mut self.names {
            let lacking = names.extract_if(.., |_, mark| mark.round != round);
            gone.extend(lacking.map(|(name, _)| (namespace.to_string(), name.into_string())));
        }
        self.names.retain(|_, names| !names.is_empty());
        gone
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A version as a number: by the API it is opaque, in practice it is one.
pub(super) fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// Something that differs between versions.
pub(super) fn mark(version: &str) -> u64 {
    number(version).unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_shows_what_is_gone_and_what_is_new() {
        let mut seen = Seen::default();
        seen.begin();
        assert!(seen.see("shop", "a", 1) && seen.see("shop", "b", 2) && seen.see("", "node", 3));
        assert!(seen.finish().is_empty());
        assert!(!seen.see("shop", "a", 1), "nothing new");
        seen.begin();
        assert!(seen.see("shop", "b", 4), "another version");
        let gone = seen.finish();
        assert_eq!(gone, [(String::new(), "node".to_owned()), ("shop".to_owned(), "a".to_owned())]);
        assert!(seen.forget("shop", "b") && !seen.forget("shop", "b"));
        assert!(seen.is_empty());
    }

    #[test]
    fn versions_that_are_no_numbers_still_differ() {
        assert_eq!((number("17"), number("x1")), (Some(17), None));
        assert_ne!(mark("x1"), mark("x2"));
    }
}
