//! Which tunnel carries a new stream: reuse one with room, open another, or wait for one being opened.
//!
//! Pure bookkeeping for the tunnels of one key. Slots of ended streams are used again; a tunnel the peer is
//! leaving is not; an idle one is closed after a while.

use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Bounds of one key's tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams a tunnel carries until the peer says less; 100 by default (`POOL_MAX_STREAMS_PER_CONNECTION`).
    pub streams_per_tunnel: u32,
    /// Tunnels being opened at once for one key.
    pub opening_max: u32,
    /// Longest time a tunnel stays without streams; 5 min by default (`POOL_UNUSED_RELEASE_TIMEOUT`).
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams_per_tunnel: 100, opening_max: 4, idle_timeout: Duration::from_secs(300) }
    }
}

/// What to do with a new stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquire {
    /// Use this tunnel; its slot is taken.
    Reuse(u64),
    /// Open a tunnel, then call [`Tunnels::opened`] with an id no other tunnel ever had, or [`Tunnels::failed`].
    Open,
    /// Enough tunnels are being opened; wait for one of them.
    Wait,
}

#[derive(Debug, Clone)]
struct Tunnel {
    id: u64,
    streams: u32,
    streams_max: u32,
    leaving: bool,
    idle_since: Option<Instant>,
}

/// The tunnels of one key.
#[derive(Debug, Clone, Default)]
pub struct Tunnels {
    open: Vec<Tunnel>,
    opening: u32,
    waiting: u32,
}

impl Tunnels {
    /// Chooses for a new stream.
    ///
    /// The fullest tunnel with room is taken, so that spare ones fall idle and close.
    pub fn acquire(&mut self, limits: &Limits) -> Acquire {
        let roomy = self.open.iter_mut().filter(|t| !t.leaving && t.streams < t.streams_max);
        if let Some(tunnel) = roomy.max_by_key(|t| t.streams) {
            tunnel.streams += 1;
            tunnel.idle_since = None;
            return Acquire::Reuse(tunnel.id);
        }
        // One opening tunnel serves as many waiters as it will have streams.
        let promised = self.opening.saturating_mul(limits.streams_per_tunnel.max(1));
        if self.opening > 0 && (self.waiting + self.opening < promised || self.opening >= limits.opening_max)
        {
            self.waiting += 1;
            return Acquire::Wait;
        }
        self.opening += 1;
        Acquire::Open
    }

    /// A waiter woke up (or gave up) and will ask again.
    pub fn woke(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// A tunnel is open; the stream that opened it holds the first slot. `peer_max` is the peer's limit.
    pub fn opened(&mut self, id: u64, peer_max: u32, limits: &Limits) {
        self.opening = self.opening.saturating_sub(1);
        let streams_max = limits.streams_per_tunnel.min(peer_max).max(1);
        self.open.push(Tunnel { id, streams: 1, streams_max, leaving: false, idle_since: None });
    }

    /// Applies the peer's present limit to tunnel `id`; `false` if the slot just taken is beyond it.
    pub fn limit(&mut self, id: u64, peer_max: u32, limits: &Limits) -> bool {
        let Some(tunnel) = self.open.iter_mut().find(|t| t.id == id) else { return false };
        tunnel.streams_max = limits.streams_per_tunnel.min(peer_max).max(1);
        tunnel.streams <= tunnel.streams_max
    }

    /// Opening a tunnel failed.
    pub fn failed(&mut self) {
        self.opening = self.opening.saturating_sub(1);
    }

    /// A stream of tunnel `id` ended at `now`.
    pub fn released(&mut self, id: u64, now: Instant) {
        if let Some(tunnel) = self.open.iter_mut().find(|t| t.id == id) {
            tunnel.streams = tunnel.streams.saturating_sub(1);
            tunnel.idle_since = (tunnel.streams == 0).then_some(now);
        }
    }

    /// The peer is leaving, or its certificate is no longer ours to use: no new streams on tunnel `id`.
    pub fn leaving(&mut self, id: u64) {
        if let Some(tunnel) = self.open.iter_mut().find(|t| t.id == id) {
            tunnel.leaving = true;
        }
    }

    /// Tunnel `id` is closed.
    pub fn closed(&mut self, id: u64) {
        self.open.retain(|t| t.id != id);
    }

    /// Removes and names the tunnels that have been idle too long at `now`.
    pub fn expire(&mut self, now: Instant, limits: &Limits) -> Vec<u64> {
        let old = |t: &Tunnel| {
            t.idle_since
                .is_some_and(|since| t.leaving || now.saturating_duration_since(since) >= limits.idle_timeout)
        };
        let expired = self.open.iter().filter(|t| old(t)).map(|t| t.id).collect();
        self.open.retain(|t| !old(t));
        expired
    }

    /// Open tunnels and the streams on them.
    pub fn counts(&self) -> (usize, u64) {
        (self.open.len(), self.open.iter().map(|t| u64::from(t.streams)).sum())
    }

    /// Callers that wait for a tunnel that is opening.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether nothing is open, opening or awaited, so that the key can be forgotten.
    pub fn is_unused(&self) -> bool {
        self.open.is_empty() && self.opening == 0 && self.waiting == 0
    }
}
