//! Equal values share one allocation: what many pods have in common is held once, in whatever order they come.
//!
//! Nothing that is made of the values depends on a pool. It only decides which of several equal ones is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_types::ServicePorts;

/// A value whose copies are one allocation.
pub(crate) trait Shared: Ord + Clone {
    /// Whether there is another copy.
    fn has_copies(&self) -> bool;
}

impl<T: Ord + ?Sized> Shared for Arc<T> {
    fn has_copies(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl Shared for ServicePorts {
    fn has_copies(&self) -> bool {
        self.is_shared()
    }
}

/// How many values a pool holds before it looks for the first time for those that nobody else has.
const SWEEP_MIN: usize = 1024;

/// One value of each kind of equal ones.
///
/// What nobody else has goes when a new value finds the pool full, and not before: removals free nothing by themselves.
/// A pool is full with twice as many as were in use when it was swept last, at least [`SWEEP_MIN`]; so it holds at most
/// twice the most that ever were in use at one time, or [`SWEEP_MIN`], and after a mesh has shrunk it holds what it had
/// until as many new values have come as it still had room for.
#[derive(Debug, Clone)]
pub(crate) struct Pool<T> {
    held: BTreeSet<T>,
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { held: BTreeSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T: Shared> Pool<T> {
    /// Makes a value a copy of the equal one held here, or holds it for those that follow.
    pub(crate) fn share(&mut self, value: &mut T) {
        if let Some(held) = self.held.get(&*value) {
            *value = held.clone();
            return;
        }
        if self.held.len() >= self.sweep_at {
            self.held.retain(T::has_copies);
            self.sweep_at = SWEEP_MIN.max(self.held.len() * 2);
        }
        self.held.insert(value.clone());
    }
}

#[cfg(test)]
mod tests {
    use ambit_types::Str;

    use super::*;

    fn word(number: usize) -> Str {
        Str::from(format!("word {number}"))
    }

    #[test]
    fn only_what_is_equal_is_shared() {
        let mut pool = Pool::default();
        let (mut first, mut same, mut other) = (word(1), word(1), word(2));
        for value in [&mut first, &mut same, &mut other] {
            pool.share(value);
        }
        assert!(Arc::ptr_eq(&first, &same));
        assert_eq!((first, same, other), (word(1), word(1), word(2)));
    }

    #[test]
    fn what_nobody_has_any_more_does_not_pile_up() {
        let mut pool = Pool::default();
        let mut kept: Vec<Str> = (0..10).map(word).collect();
        kept.iter_mut().for_each(|value| pool.share(value));
        for number in 10..20 * SWEEP_MIN {
            pool.share(&mut word(number));
            assert!(pool.held.len() <= SWEEP_MIN, "after {number}");
        }
        let mut again = word(3);
        pool.share(&mut again);
        assert!(Arc::ptr_eq(&again, &kept[3]), "what is in use stays");
    }

    #[test]
    fn what_is_removed_is_held_until_a_new_value_finds_it_full() {
        let mut pool = Pool::default();
        let mut kept: Vec<Str> = (0..SWEEP_MIN).map(word).collect();
        kept.iter_mut().for_each(|value| pool.share(value));
        drop(kept);
        let mut known = word(0);
        pool.share(&mut known);
        assert_eq!(pool.held.len(), SWEEP_MIN, "nothing is new");
        pool.share(&mut word(SWEEP_MIN));
        assert_eq!(pool.held.len(), 2, "what is in use, and the new one");
    }

    #[test]
    fn more_than_the_least_are_held_while_they_are_in_use() {
        let mut pool = Pool::default();
        let mut kept: Vec<Str> = (0..4 * SWEEP_MIN).map(word).collect();
        kept.iter_mut().for_each(|value| pool.share(value));
        for (number, held) in kept.iter().enumerate() {
            let mut again = word(number);
            pool.share(&mut again);
            assert!(Arc::ptr_eq(&again, held), "{number}");
        }
    }
}
