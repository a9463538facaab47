//! What each source address has of one pod: unfinished handshakes and tunnels, bounded so that no peer takes what is
//! there for all.
//!
//! Counts by address, because before a handshake nothing else is known of a peer; it gives no peer any right.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSource {
    /// Handshakes that are not finished; 64 by default (`AMBIT_PEER_HANDSHAKES_MAX`).
    pub handshakes_max: usize,
    /// Tunnels, unfinished handshakes included; 512 by default (`AMBIT_PEER_TUNNELS_MAX`).
    pub tunnels_max: usize,
}

/// Why a source may not begin another handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// Too many that are not finished.
    #[error("{source_ip} has {held} unfinished handshakes at this pod, and no more may it have")]
    Handshakes {
        /// The source.
        source_ip: IpAddr,
        /// How many it has.
        held: usize,
    },
    /// Too many tunnels.
    #[error("{source_ip} has {held} tunnels to this pod, and no more may it have")]
    Tunnels {
        /// The source.
        source_ip: IpAddr,
        /// How many it has.
        held: usize,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    handshakes: usize,
    tunnels: usize,
}

impl Share {
    /// A handshake that succeeds becomes a tunnel without being asked again, so both are counted together.
    fn may_begin(self, source_ip: IpAddr, limits: &PerSource) -> Result<(), Crowded> {
        if self.tunnels + self.handshakes >= limits.tunnels_max {
            Err(Crowded::Tunnels { source_ip, held: self.tunnels + self.handshakes })
        } else if self.handshakes >= limits.handshakes_max {
            Err(Crowded::Handshakes { source_ip, held: self.handshakes })
        } else {
            Ok(())
        }
    }
}

/// The sources of one pod; cheap to clone. Forgets a source that has nothing.
#[derive(Debug, Clone)]
pub struct Sources {
    shares: Arc<Mutex<HashMap<IpAddr, Share>>>,
    limits: PerSource,
}

/// A handshake under way, or the tunnel it became; dropping it gives the place back.
#[derive(Debug)]
pub struct Held {
    sources: Sources,
    source: IpAddr,
    finished: bool,
}

impl Sources {
    /// Nobody has anything.
    pub fn new(limits: PerSource) -> Self {
        Self { shares: Arc::default(), limits }
    }

    /// Begins a handshake of `source`.
    ///
    /// # Errors
    /// [`Crowded`] at a bound.
    pub fn begin(&self, source: IpAddr) -> Result<Held, Crowded> {
        let mut shares = self.lock();
        shares.get(&source).copied().unwrap_or_default().may_begin(source, &self.limits)?;
        shares.entry(source).or_default().handshakes += 1;
        Ok(Held { sources: self.clone(), source, finished: false })
    }

    /// Handshakes and tunnels that `source` has.
    pub fn held(&self, source: IpAddr) -> usize {
        self.lock().get(&source).map_or(0, |share| share.handshakes + share.tunnels)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The handshake succeeded: what is held is a tunnel from now on.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(share) = self.sources.lock().get_mut(&self.source) {
            share.handshakes = share.handshakes.saturating_sub(1);
            share.tunnels += 1;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut shares = self.sources.lock();
        let Some(share) = shares.get_mut(&self.source) else { return };
        let count = if self.finished { &mut share.tunnels } else { &mut share.handshakes };
        *count = count.saturating_sub(1);
        if *share == Share::default() {
            shares.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Crowded, PerSource, Sources};

    #[test]
    fn a_source_is_bounded_alone_and_forgotten_when_it_has_nothing() {
        let [a, b] = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let sources = Sources::new(PerSource { handshakes_max: 2, tunnels_max: 3 });
        let mut first = sources.begin(a).unwrap();
        let second = sources.begin(a).unwrap();
        assert_eq!(sources.begin(a).unwrap_err(), Crowded::Handshakes { source_ip: a, held: 2 });
        let other = sources.begin(b).unwrap();
        first.finish();
        first.finish();
        let third = sources.begin(a).unwrap();
        assert_eq!(sources.begin(a).unwrap_err(), Crowded::Tunnels { source_ip: a, held: 3 });
        drop(second);
        assert_eq!((sources.held(a), sources.held(b)), (2, 1));
        let again = sources.begin(a).unwrap();
        drop((first, third, again));
        assert_eq!(sources.held(a), 0);
        drop(other);
        assert!(sources.lock().is_empty());
    }
}
