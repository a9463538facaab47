//! The index of the mesh, shared by those who read it; one writer.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ambit_control::{Delta, Event, Index, Settings};

/// The index behind a lock that is never held across a wait.
#[derive(Debug)]
pub struct World {
    index: RwLock<Index>,
}

impl World {
    /// An empty world.
    pub fn new(settings: Settings) -> Self {
        Self { index: RwLock::new(Index::new(settings)) }
    }

    /// The index for reading; must be given back before anything is awaited.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a batch and returns what differs.
    pub fn apply(&self, batch: Vec<Event>) -> Delta {
        self.index.write().unwrap_or_else(PoisonError::into_inner).apply(batch)
    }
}
