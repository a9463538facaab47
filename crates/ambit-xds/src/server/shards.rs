//! A map from names in immutable pieces: a copy shares all pieces, and two copies differ only where pieces do.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_types::Str;
use xxhash_rust::xxh64::xxh64;

/// Pieces of a map; 50,000 names make pieces of 800, small enough to copy at each change.
const SHARDS: usize = 64;

#[derive(Debug, Clone)]
pub(super) struct Shards<V> {
    /// Shared as a whole, too, so that two copies of which none was changed are told to be equal by one look.
    pieces: Arc<Vec<Arc<BTreeMap<Str, V>>>>,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let empty = Arc::new(BTreeMap::new());
        Self { pieces: Arc::new(vec![empty; SHARDS]) }
    }
}

/// Values that may be told apart without comparing them.
pub(super) trait Same {
    /// Whether the two are the same value.
    fn same(&self, other: &Self) -> bool;
}

impl<V: Clone> Shards<V> {
    fn piece_of(name: &str) -> usize {
        // The remainder is below SHARDS, so it fits.
        usize::try_from(xxh64(name.as_bytes(), 0) % SHARDS as u64).unwrap_or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.pieces[Self::piece_of(name)].get(name)
    }

    /// With the name as it is held here.
    pub(super) fn entry(&self, name: &str) -> Option<(&Str, &V)> {
        self.pieces[Self::piece_of(name)].get_key_value(name)
    }

    pub(super) fn insert(&mut self, name: Str, value: V) -> Option<V> {
        self.piece_mut(&name).insert(name, value)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<V> {
        // Looking first keeps a piece shared that does not change.
        if self.get(name).is_some() { self.piece_mut(name).remove(name) } else { None }
    }

    fn piece_mut(&mut self, name: &str) -> &mut BTreeMap<Str, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.pieces)[Self::piece_of(name)])
    }

    /// Whether the other is a copy, and neither was changed since.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pieces, &other.pieces)
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Everything, ordered by name.
    pub(super) fn sorted(&self) -> BTreeMap<&Str, &V> {
        self.pieces.iter().flat_map(|piece| piece.iter()).collect()
    }
}

impl<V: Clone + Same> Shards<V> {
    /// Puts a value in unless the same is there; whether anything differs.
    pub(super) fn put(&mut self, name: Str, value: V) -> bool {
        let differs = self.get(&name).is_none_or(|old| !old.same(&value));
        if differs {
            self.insert(name, value);
        }
        differs
    }

    /// What is new or different here, and the names that only `older` has; both ordered by name.
    pub(super) fn since<'a>(&'a self, older: &'a Self) -> (BTreeMap<&'a Str, &'a V>, Vec<&'a Str>) {
        let mut changed = BTreeMap::new();
        let mut removed = Vec::new();
        if self.is(older) {
            return (changed, removed);
        }
        for (new, old) in self.pieces.iter().zip(older.pieces.iter()) {
            if Arc::ptr_eq(new, old) {
                continue;
            }
            changed.extend(
                new.iter().filter(|(name, value)| !old.get(*name).is_some_and(|was| was.same(value))),
            );
            removed.extend(old.keys().filter(|name| !new.contains_key(*name)));
        }
        removed.sort_unstable();
        (changed, removed)
    }
}
