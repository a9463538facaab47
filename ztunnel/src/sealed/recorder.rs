//! What has to be sealed, as discovery tells it, and what was sealed last. Decides nothing and writes nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_xds::client::Update;
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use tokio::sync::watch;

use super::archive::Archive;

/// Takes what discovery applies. Cheap to clone; switched off it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    archive: Mutex<Archive>,
    /// Whether the archive has changed since the last state that was worth sealing.
    changed: AtomicBool,
    /// Counts the states that are worth sealing.
    complete: watch::Sender<u64>,
    written: Mutex<Option<Written>>,
}

/// The newest file, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub number: u64,
    /// Resources in it.
    pub resources: usize,
    /// Certificates in it.
    pub certificates: usize,
}

impl Recorder {
    /// A recorder that holds nothing yet.
    pub fn new() -> Self {
        let inner = Inner {
            archive: Mutex::default(),
            changed: AtomicBool::new(false),
            complete: watch::Sender::new(0),
            written: Mutex::default(),
        };
        Self { inner: Some(Arc::new(inner)) }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Notes a response that is being applied as `update`.
    pub fn note(&self, response: DeltaDiscoveryResponse, update: &Update) {
        let Some(inner) = &self.inner else { return };
        let refused: BTreeSet<&str> = update.rejected.iter().map(|rejected| rejected.name.as_str()).collect();
        let removed = update.content.removed();
        let mut archive = inner.archive.lock().unwrap_or_else(PoisonError::into_inner);
        if archive.absorb(response, &refused, removed) {
            inner.changed.store(true, Ordering::Relaxed);
        }
    }

    /// What was noted is all there is at this moment, and in force: it may be sealed. It is worth it if it has changed,
    /// or if the control plane `is_back`: what was sealed before says that it was last heard long ago.
    pub fn complete(&self, is_back: bool) {
        let Some(inner) = &self.inner else { return };
        if inner.changed.swap(false, Ordering::Relaxed) || is_back {
            inner.complete.send_modify(|count| *count += 1);
        }
    }

    /// Told at every [`Recorder::complete`] that is worth sealing; `None` if switched off.
    pub(super) fn completions(&self) -> Option<watch::Receiver<u64>> {
        self.inner.as_ref().map(|inner| inner.complete.subscribe())
    }

    /// Responses that lead to what is in force.
    pub(super) fn responses(&self) -> Vec<DeltaDiscoveryResponse> {
        let archive =
            |inner: &Arc<Inner>| inner.archive.lock().unwrap_or_else(PoisonError::into_inner).responses();
        self.inner.as_ref().map(archive).unwrap_or_default()
    }

    pub(super) fn wrote(&self, written: Written) {
        if let Some(inner) = &self.inner {
            *inner.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
        }
    }

    /// The newest file that this process wrote.
    pub fn written(&self) -> Option<Written> {
        *self.inner.as_ref()?.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
