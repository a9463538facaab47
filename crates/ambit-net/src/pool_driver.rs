//! The tunnels of one source, kept open and shared: carries out what [`ambit_hbone::pool`] decides.
//!
//! The lock is held for bookkeeping only. Callers that wait for a tunnel being opened are woken whether that
//! succeeds or fails (G34), and nobody waits on the handshake of somebody else's peer (G9).

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambit_hbone::pool::{Acquire, Limits, Tunnels};
use ambit_runtime::{clock, tasks};
use tokio::sync::watch;

use crate::tunnel::client::{Tunnel, TunnelError};

#[cfg(test)]
mod tests;

/// How often idle tunnels are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Longest time a caller waits for tunnels others are opening.
const WAIT_MAX: Duration = Duration::from_secs(30);

struct Entry {
    slots: Tunnels,
    tunnels: HashMap<u64, Tunnel>,
    changed: watch::Sender<u64>,
    failures: u64,
    last_error: Option<TunnelError>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            slots: Tunnels::default(),
            tunnels: HashMap::new(),
            changed: watch::Sender::new(0),
            failures: 0,
            last_error: None,
        }
    }
}

struct Inner<K> {
    entries: Mutex<HashMap<K, Entry>>,
    /// The last tunnel's id. Never given twice: a slot of a tunnel that is gone may be given back after its key's
    /// entry was dropped and made anew.
    last_id: AtomicU64,
    limits: Limits,
}

/// A pool of tunnels by key; cheap to clone. Dropping the last clone closes idle tunnels.
pub struct Pool<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K> std::fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// The slot of one stream on a tunnel; dropping it gives the slot back.
pub struct Lease<K: Key> {
    tunnel: Tunnel,
    id: u64,
    key: K,
    pool: Pool<K>,
}

impl<K: Key> std::fmt::Debug for Lease<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("tunnel", &self.tunnel).finish_non_exhaustive()
    }
}

/// What tells tunnels apart: source identity and address, expected identities, peer address.
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Send + Sync + 'static> Key for T {}

impl<K: Key> Pool<K> {
    /// An empty pool; its sweep ends with the pool.
    pub fn new(limits: Limits) -> Self {
        let pool =
            Self { inner: Arc::new(Inner { entries: Mutex::default(), last_id: AtomicU64::new(0), limits }) };
        let weak = Arc::downgrade(&pool.inner);
        tasks::spawn("pool-sweep", async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(inner) = weak.upgrade() else { return };
                sweep(&inner);
            }
        });
        pool
    }

    /// A slot on a tunnel to `key`: one that is open, or one that `open` makes.
    ///
    /// # Errors
    /// What `open` said, also to those who waited for it.
    pub async fn lease<F>(&self, key: &K, open: impl Fn() -> F) -> Result<Lease<K>, TunnelError>
    where
        F: Future<Output = Result<Tunnel, TunnelError>>,
    {
        loop {
            match self.acquire(key) {
                Step::Ready(lease) => return Ok(lease),
                Step::Open(id) => return self.open(key, id, open()).await,
                Step::Wait { changed, failures } => {
                    let mut waiting = Waiting { pool: self, key, changed };
                    // Whatever ends the wait, the books say what became of it.
                    let _ = tokio::time::timeout(WAIT_MAX, waiting.changed.changed()).await;
                    drop(waiting);
                    if let Some(error) = self.failed_since(key, failures) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Tunnels and streams, over all keys.
    pub fn counts(&self) -> (usize, u64) {
        let entries = self.lock();
        let counts = entries.values().map(|entry| entry.slots.counts());
        counts.fold((0, 0), |(tunnels, streams), (t, s)| (tunnels + t, streams + s))
    }

    /// Callers that wait for a tunnel, over all keys.
    pub fn waiting(&self) -> u64 {
        self.lock().values().map(|entry| u64::from(entry.slots.waiting())).sum()
    }

    fn acquire(&self, key: &K) -> Step<K> {
        let now = clock::unix_seconds();
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        loop {
            match entry.slots.acquire(&self.inner.limits) {
                Acquire::Open => return Step::Open(self.inner.last_id.fetch_add(1, Ordering::Relaxed) + 1),
                Acquire::Wait => {
                    return Step::Wait { changed: entry.changed.subscribe(), failures: entry.failures };
                }
                Acquire::Reuse(id) => match entry.tunnels.get(&id) {
                    Some(tunnel) if tunnel.is_usable(now) => {
                        // The peer's settings may have arrived, or changed, after the tunnel was entered.
                        if entry.slots.limit(id, tunnel.streams_max(), &self.inner.limits) {
                            let (tunnel, key, pool) = (tunnel.clone(), key.clone(), self.clone());
                            return Step::Ready(Lease { tunnel, id, key, pool });
                        }
                        entry.slots.released(id, clock::monotonic());
                    }
                    Some(_) | None => {
                        entry.slots.released(id, clock::monotonic());
                        entry.slots.leaving(id);
                    }
                },
            }
        }
    }

    async fn open(
        &self,
        key: &K,
        id: u64,
        opening: impl Future<Output = Result<Tunnel, TunnelError>>,
    ) -> Result<Lease<K>, TunnelError> {
        let mut attempt = Attempt { pool: self, key, done: false };
        let opened = opening.await;
        attempt.done = true;
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        let result = match opened {
            Ok(tunnel) => {
                entry.slots.opened(id, tunnel.streams_max(), &self.inner.limits);
                entry.tunnels.insert(id, tunnel.clone());
                entry.last_error = None;
                self.watch_end(key.clone(), id, &tunnel);
                Ok(Lease { tunnel, id, key: key.clone(), pool: self.clone() })
            }
            Err(error) => {
                entry.slots.failed();
                entry.failures += 1;
                entry.last_error = Some(error.clone());
                Err(error)
            }
        };
        entry.changed.send_modify(|n| *n += 1);
        result
    }

    /// The error of an opening that failed since a waiter counted `failures`.
    fn failed_since(&self, key: &K, failures: u64) -> Option<TunnelError> {
        let entries = self.lock();
        let entry = entries.get(key)?;
        entry.last_error.clone().filter(|_| entry.failures != failures)
    }

    /// Forgets a tunnel once it is closed.
    fn watch_end(&self, key: K, id: u64, tunnel: &Tunnel) {
        let weak = Arc::downgrade(&self.inner);
        let closed = tunnel.closed();
        tasks::spawn("pool-watch", async move {
            closed.await;
            if let Some(inner) = weak.upgrade() {
                let mut entries = lock(&inner);
                if let Some(entry) = entries.get_mut(&key) {
                    entry.slots.closed(id);
                    entry.tunnels.remove(&id);
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Entry>> {
        lock(&self.inner)
    }
}

enum Step<K: Key> {
    Ready(Lease<K>),
    Open(u64),
    Wait { changed: watch::Receiver<u64>, failures: u64 },
}

/// A caller in the queue; leaves it when dropped, also when the caller gives up.
struct Waiting<'a, K: Key> {
    pool: &'a Pool<K>,
    key: &'a K,
    changed: watch::Receiver<u64>,
}

impl<K: Key> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        if let Some(entry) = self.pool.lock().get_mut(self.key) {
            entry.slots.woke();
        }
    }
}

/// An opening that is under way; dropped before it is done, it counts as failed and wakes the others.
struct Attempt<'a, K: Key> {
    pool: &'a Pool<K>,
    key: &'a K,
    done: bool,
}

impl<K: Key> Drop for Attempt<'_, K> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(entry) = self.pool.lock().get_mut(self.key) {
            entry.slots.failed();
            entry.changed.send_modify(|n| *n += 1);
        }
    }
}

impl<K: Key> Lease<K> {
    /// The tunnel the slot is on.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The tunnel failed as such: nobody else shall get a slot on it.
    pub fn condemn(&self) {
        if let Some(entry) = self.pool.lock().get_mut(&self.key) {
            entry.slots.leaving(self.id);
        }
    }
}

impl<K: Key> Drop for Lease<K> {
    fn drop(&mut self) {
        if let Some(entry) = self.pool.lock().get_mut(&self.key) {
            entry.slots.released(self.id, clock::monotonic());
            entry.changed.send_modify(|n| *n += 1);
        }
    }
}

fn lock<K>(inner: &Inner<K>) -> MutexGuard<'_, HashMap<K, Entry>> {
    inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops tunnels that have been idle too long and keys nobody uses.
fn sweep<K: Key>(inner: &Inner<K>) {
    let now = clock::monotonic();
    let mut entries = lock(inner);
    entries.retain(|_, entry| {
        for id in entry.slots.expire(now, &inner.limits) {
            entry.tunnels.remove(&id);
        }
        !entry.slots.is_unused()
    });
}
