//! How much each of many may have of one thing at a time, so that nobody takes what is there for all.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by holder; cheap to clone. Forgets who has nothing.
#[derive(Debug, Clone)]
pub(crate) struct Shares<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// One piece of a holder's share; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash> {
    shares: Shares<K>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Nobody has anything; each may have `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// One more for a holder; none if it has all that it may have.
    pub(crate) fn take(&self, holder: &K) -> Option<Share<K>> {
        let mut held = self.lock();
        match held.get_mut(holder) {
            Some(count) if *count >= self.most => return None,
            Some(count) => *count += 1,
            None if self.most == 0 => return None,
            None => drop(held.insert(holder.clone(), 1)),
        }
        Some(Share { shares: self.clone(), holder: holder.clone() })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        let Some(count) = held.get_mut(&self.holder) else { return };
        *count -= 1;
        if *count == 0 {
            held.remove(&self.holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn each_is_bounded_alone_and_forgotten_when_it_has_nothing() {
        let shares = Shares::new(2);
        let (first, second) = (shares.take(&"a"), shares.take(&"a"));
        assert!(first.is_some() && second.is_some());
        assert!(shares.take(&"a").is_none());
        let other = shares.take(&"b");
        assert!(other.is_some());
        drop(first);
        let again = shares.take(&"a");
        assert!(again.is_some() && shares.take(&"a").is_none());
        drop((second, other, again));
        assert!(shares.lock().is_empty());
        assert!(Shares::new(0).take(&"a").is_none());
    }
}
