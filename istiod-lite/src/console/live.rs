//! What those who read on share, and how many of them there may be.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::admin::Reply;
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::looks::Looks;
use super::places::Places;

/// Readers of events at once, and of one caller; a page has one. Whoever comes through a port-forward is one caller.
const READERS_MAX: usize = 32;
const READERS_EACH_MAX: usize = 16;
/// Readers of flow records at once, and of one caller: each is a question at every proxy, which answers 32.
const FOLLOWERS_MAX: usize = 16;
const FOLLOWERS_EACH_MAX: usize = 8;
/// Questions that wait for the proxies' answers at once; each holds what they said.
const ASKING_MAX: usize = 8;
/// Longest time in which a reader has to take one piece; 60 s.
pub(super) const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// What all readers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    pub(super) looks: Looks,
    /// For those who read events.
    pub(super) readers: Places,
    /// For those who read flow records as they come.
    pub(super) followers: Places,
    asking: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            looks: Looks::default(),
            readers: Places::new(READERS_MAX, READERS_EACH_MAX),
            followers: Places::new(FOLLOWERS_MAX, FOLLOWERS_EACH_MAX),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
        }
    }
}

impl Live {
    /// A turn to ask the proxies, until it is dropped.
    ///
    /// # Errors
    /// The answer that there is none.
    pub(super) fn ask(&self) -> Result<OwnedSemaphorePermit, Reply> {
        let turn = self.asking.clone().try_acquire_owned();
        turn.map_err(|_| refused(format_args!("{ASKING_MAX} questions wait for the proxies; ask again")))
    }
}

/// The answer to one too many.
pub(super) fn refused(words: impl Display) -> Reply {
    metrics::counter!("ambit_console_calls_refused_total").increment(1);
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n"))
}

/// Whether a reader took a piece within a time; one that did not is to be given up. May be dropped.
pub(super) async fn told(send: &mpsc::Sender<Bytes>, piece: Bytes, within: Duration) -> bool {
    match send.send_timeout(piece, within).await {
        Ok(()) => true,
        Err(SendTimeoutError::Closed(_)) => false,
        Err(SendTimeoutError::Timeout(_)) => {
            metrics::counter!("ambit_console_readers_cut_total").increment(1);
            false
        }
    }
}
