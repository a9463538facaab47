//! Places that callers may take: so many in all, and so many each, so that no one caller has them all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

/// Bits of an IPv6 address that tell callers apart; the rest one machine may choose.
const NETWORK: u128 = !0 << 64;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    /// All are taken.
    #[error("{0} are open, and there is room for no more; close a console, or ask again later")]
    All(usize),
    /// This caller has as many as one may have.
    #[error("{0} are open from this address, and one may have no more; close a console, or ask again later")]
    Each(usize),
}

#[derive(Debug)]
struct Inner {
    all_max: usize,
    each_max: usize,
    /// How many each caller has; none has zero.
    taken: Mutex<BTreeMap<Option<IpAddr>, usize>>,
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places and who has them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    inner: Arc<Inner>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    caller: Option<IpAddr>,
}

impl Places {
    /// So many places in all, and so many for each caller.
    pub(super) fn new(all_max: usize, each_max: usize) -> Self {
        Self { inner: Arc::new(Inner { all_max, each_max, taken: Mutex::default() }) }
    }

    /// A place for who calls from an address; those without one, at the Unix socket, count as one caller.
    ///
    /// # Errors
    /// [`Crowded`].
    pub(super) fn take(&self, peer: Option<IpAddr>) -> Result<Place, Crowded> {
        let caller = peer.map(network);
        let mut taken = self.inner.taken();
        if taken.values().sum::<usize>() >= self.inner.all_max {
            return Err(Crowded::All(self.inner.all_max));
        }
        if taken.get(&caller).copied().unwrap_or(0) >= self.inner.each_max {
            return Err(Crowded::Each(self.inner.each_max));
        }
        *taken.entry(caller).or_default() += 1;
        Ok(Place { places: self.clone(), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.inner.taken();
        if let Some(count) = taken.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

/// What counts as one caller.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK)),
    }
}
