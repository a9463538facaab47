//! Which of many matches wins: the order of the Gateway API, built into an index when routes are compiled.
//!
//! A request is looked up by its path: exact paths in a hash map, then path patterns, then prefixes in a tree of
//! segments from the deepest node up. Each place holds its matches in order, so the first that agrees is the
//! answer. Nothing is sorted for a request, its query is read once if any match asks for it, and its cost does not
//! grow with the number of routes; it grows with the number of path patterns, of which a group may have few, and of
//! matches on one path that no single value tells apart. Only groups that match by query allocate.

mod candidates;
mod rank;
mod tree;

use std::collections::{BTreeSet, HashMap};

use ambit_types::path::compared;
use xxhash_rust::xxh64::Xxh64Builder;

use crate::matcher::{Asked, Slots};
use crate::request::{Headers, Hidden, Request};
pub(crate) use candidates::Candidate;
use candidates::Candidates;
pub(crate) use rank::{Rank, text_specificity};
use tree::Tree;

#[cfg(test)]
mod tests;

/// A map whose keys come from configuration; requests only look up.
pub(crate) type Map<K, V> = HashMap<K, V, Xxh64Builder>;

/// What is read where nothing of a request was kept.
pub(crate) const WHOLE_REQUEST: &str = "method, path and headers";

/// Where a match is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under one path.
    Exact(Box<str>),
    /// Among path patterns.
    Patterns,
    /// Under every path that begins with these segments; empty for all.
    Prefix(Box<str>),
}

/// The matches of a group.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: Slots,
    exact: Map<Box<str>, Candidates>,
    patterns: Candidates,
    prefixes: Tree,
}

impl Index {
    /// Builds the index; the order of `entries` does not matter.
    pub(crate) fn new(entries: Vec<(Place, Candidate)>) -> Self {
        let mut slots = Slots::default();
        let mut exact: Map<Box<str>, Vec<Candidate>> = Map::default();
        let mut patterns = Vec::new();
        let mut prefixes = Tree::default();
        for (place, mut candidate) in entries {
            slots.assign(&mut candidate.conditions);
            match place {
                Place::Exact(path) => exact.entry(path).or_default().push(candidate),
                Place::Patterns => patterns.push(candidate),
                Place::Prefix(prefix) => prefixes.insert(&prefix, candidate),
            }
        }
        prefixes.finish();
        Self {
            slots,
            exact: exact.into_iter().map(|(path, list)| (path, Candidates::new(list))).collect(),
            patterns: Candidates::new(patterns),
            prefixes,
        }
    }

    /// The rule that wants the request most, by its number.
    pub(crate) fn find<H: Headers + ?Sized>(&self, request: &Request<'_, H>) -> Option<u32> {
        let path = compared(request.path);
        let request = &Request { path: &path, ..*request };
        let asked = &Asked::new(request, &self.slots);
        let exact = self.exact.get(request.path).and_then(|candidates| candidates.first(asked));
        exact.or_else(|| self.patterns.first(asked)).or_else(|| self.prefixes.first(asked))
    }

    /// What was not kept of a request and decides which rule wants it most; nothing if the same one does, or none,
    /// whatever that is.
    pub(crate) fn depends_on<H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        hidden: Hidden,
    ) -> BTreeSet<String> {
        let path = compared(request.path);
        let request = &Request { path: &path, ..*request };
        let mut read = BTreeSet::new();
        if hidden.request {
            let is_one = self.exact.is_empty() && self.patterns.is_empty() && self.prefixes.is_one();
            read.extend((!is_one).then(|| WHOLE_REQUEST.to_owned()));
            return read;
        }
        let asked = &Asked::new(request, &self.slots);
        let exact = self.exact.get(request.path);
        let _ = exact.is_some_and(|candidates| candidates.depends_on(asked, hidden, &mut read))
            || self.patterns.depends_on(asked, hidden, &mut read)
            || self.prefixes.depends_on(asked, hidden, &mut read);
        read
    }
}
