//! Places of requests under way: so many in all, and so many of one caller, so that nobody takes what is there for all.
//!
//! A connection looks up its caller once; a request costs two counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ambit_types::Identity;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// The caller has all that it may have.
    Own,
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    most: usize,
    each_most: usize,
    callers: Mutex<HashMap<Identity, Weak<Holder>>>,
}

/// What one caller has, over all its pods and connections.
#[derive(Debug)]
pub(crate) struct Holder {
    places: Arc<Places>,
    identity: Identity,
    taken: AtomicUsize,
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Arc<Holder>);

impl Places {
    /// So many places, so many of them for each caller.
    pub(crate) fn new(most: usize, each_most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, each_most, callers: Mutex::default() })
    }

    /// What a caller has; kept as long as somebody holds it.
    pub(crate) fn of(self: &Arc<Self>, identity: &Identity) -> Arc<Holder> {
        let mut callers = self.lock();
        if let Some(known) = callers.get(identity).and_then(Weak::upgrade) {
            return known;
        }
        let (places, identity) = (self.clone(), identity.clone());
        let new = Arc::new(Holder { places, identity, taken: AtomicUsize::new(0) });
        callers.insert(new.identity.clone(), Arc::downgrade(&new));
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Weak<Holder>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    /// One more place.
    ///
    /// # Errors
    /// [`Full`] if the caller must not have one more, or there is none.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Place, Full> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.places.each_most {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Own);
        }
        if self.places.taken.fetch_add(1, Ordering::Relaxed) >= self.places.most {
            self.places.taken.fetch_sub(1, Ordering::Relaxed);
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::All);
        }
        Ok(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut callers = self.places.lock();
        // The caller may have come back in between.
        if callers.get(&self.identity).is_some_and(|known| known.strong_count() == 0) {
            callers.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_types::TrustDomain;

    use super::*;

    #[test]
    fn callers_are_bounded_alone_and_together_and_forgotten() {
        let places = Places::new(3, 2);
        let identity = |account| Identity::new(TrustDomain::default(), "shop", account);
        let (a, b) = (places.of(&identity("a")), places.of(&identity("b")));
        let held = (a.take().unwrap(), places.of(&identity("a")).take().unwrap());
        assert_eq!(a.take().err(), Some(Full::Own), "over all its connections");
        let third = b.take().unwrap();
        assert_eq!(b.take().err(), Some(Full::All));
        drop(held.0);
        assert!(b.take().is_ok());
        drop((held.1, third, a, b));
        assert_eq!((places.taken.load(Ordering::Relaxed), places.lock().len()), (0, 0));
    }
}
