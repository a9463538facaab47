//! How much of questions is read and judged at once, and by whose leave.
//!
//! A room is a number of bytes and of turns. Callers we know share theirs freely. Others have one that is divided: each
//! address has a share of its own, which it reserves before it is read from, and takes the room that all have for what
//! has arrived only. So one that announces much and sends nothing keeps itself waiting and nobody else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

#[cfg(test)]
mod tests;

/// What a question counts for at least, in bytes.
pub(super) const BODY_BYTES_MIN: usize = 4 << 10;

/// Room for questions.
#[derive(Debug)]
pub(super) struct Room {
    /// What all have.
    whole: Share,
    /// Bytes that an address may reserve; nothing where all share freely. It then has one turn at a time.
    address_bytes: Option<usize>,
    /// Addresses with a question here.
    addresses: Mutex<BTreeMap<Option<IpAddr>, Arc<Share>>>,
}

#[derive(Debug)]
struct Share {
    /// A permit a byte.
    bytes: Arc<Semaphore>,
    /// A permit a question that is judged.
    turns: Arc<Semaphore>,
}

impl Share {
    fn new(bytes: usize, turns: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), turns: Arc::new(Semaphore::new(turns)) }
    }
}

/// What one question holds of a room, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    address: Option<IpAddr>,
    /// That of its address; nothing where all share freely.
    share: Option<Arc<Share>>,
    /// Bytes that arrived, and those that are held of the room for them.
    arrived: usize,
    taken: usize,
    held: Vec<OwnedSemaphorePermit>,
}

impl Room {
    /// A room that callers share freely.
    pub(super) fn shared(bytes: usize, turns: usize) -> Arc<Self> {
        Arc::new(Self { whole: Share::new(bytes, turns), address_bytes: None, addresses: Mutex::default() })
    }

    /// A room of which each address has at most `address_bytes` and one turn at a time.
    pub(super) fn divided(bytes: usize, turns: usize, address_bytes: usize) -> Arc<Self> {
        let whole = Share::new(bytes, turns);
        Arc::new(Self { whole, address_bytes: Some(address_bytes), addresses: Mutex::default() })
    }

    /// A place for a question of an address; nothing is held yet.
    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Place {
        let address = address.map(|address| address.to_canonical());
        let share = self.address_bytes.map(|bytes| {
            let mut all = self.addresses();
            all.entry(address).or_insert_with(|| Arc::new(Share::new(bytes, 1))).clone()
        });
        Place { room: self.clone(), address, share, arrived: 0, taken: 0, held: Vec::new() }
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, Arc<Share>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until a question of so many bytes may be read: of its address, or of the room where all share that freely.
    pub(super) async fn reserve(&mut self, bytes: usize) -> Result<(), AcquireError> {
        let bytes = bytes.max(BODY_BYTES_MIN);
        if let Some(share) = &self.share {
            return self.hold(share.bytes.clone(), bytes).await;
        }
        self.hold(self.room.whole.bytes.clone(), bytes).await?;
        self.taken = bytes;
        Ok(())
    }

    /// Waits until there is room for bytes that have arrived.
    pub(super) async fn take(&mut self, bytes: usize) -> Result<(), AcquireError> {
        self.arrived = self.arrived.saturating_add(bytes);
        let wanted = self.arrived.max(BODY_BYTES_MIN);
        let more = wanted.saturating_sub(self.taken);
        if more == 0 {
            return Ok(());
        }
        self.hold(self.room.whole.bytes.clone(), more).await?;
        self.taken = wanted;
        Ok(())
    }

    /// Waits until it is this question's turn to be judged; it lasts until the place is dropped.
    pub(super) async fn turn(&mut self) -> Result<(), AcquireError> {
        // Its address's first: several of one wait for each other, and one of them with everybody else.
        if let Some(share) = &self.share {
            self.hold(share.turns.clone(), 1).await?;
        }
        self.hold(self.room.whole.turns.clone(), 1).await
    }

    async fn hold(&mut self, from: Arc<Semaphore>, permits: usize) -> Result<(), AcquireError> {
        // More than there ever is waits for the end of the call.
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let permit = from.clone().acquire_many_owned(permits).await?;
        // One permit for each of the four that there are, however many parts a question has.
        match self.held.iter_mut().find(|held| Arc::ptr_eq(held.semaphore(), &from)) {
            Some(held) => held.merge(permit),
            None => self.held.push(permit),
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.room.addresses();
        // Two are ours and the map's: nobody else has a question of this address.
        if all.get(&self.address).is_some_and(|share| Arc::strong_count(share) <= 2) {
            all.remove(&self.address);
        }
    }
}
