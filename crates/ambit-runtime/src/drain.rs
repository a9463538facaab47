//! Leaving in order: first nothing new, then wait for what is open, then cut what is left.
//!
//! A [`Drain`] can have children (one a pod): draining a parent drains its children, never the reverse.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One thing that can be drained, with the work that has to end first.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    graceful: CancellationToken,
    forced: CancellationToken,
    work: TaskTracker,
}

impl Drain {
    /// A drain nobody has begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// A drain of its own that also follows this one.
    pub fn child(&self) -> Self {
        Self {
            graceful: self.graceful.child_token(),
            forced: self.forced.child_token(),
            work: TaskTracker::new(),
        }
    }

    /// Resolves when nothing new may be begun.
    pub async fn draining(&self) {
        self.graceful.cancelled().await;
    }

    /// Resolves when open work has to end at once.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.graceful.is_cancelled()
    }

    /// Whether open work has to end at once.
    pub fn is_forced(&self) -> bool {
        self.forced.is_cancelled()
    }

    /// Counts `work` as something [`Drain::finish`] waits for.
    pub fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.work.track_future(work)
    }

    /// How much tracked work is open.
    pub fn open(&self) -> usize {
        self.work.len()
    }

    /// Begins draining without waiting.
    pub fn begin(&self) {
        self.graceful.cancel();
    }

    /// Begins draining, waits at most `grace` for tracked work, then cuts the rest and waits for it to end.
    ///
    /// Returns how many pieces of work had to be cut.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.graceful.cancel();
        self.work.close();
        if tokio::time::timeout(grace, self.work.wait()).await.is_ok() {
            self.forced.cancel();
            return 0;
        }
        let cut = self.work.len();
        self.forced.cancel();
        // Work that ignores the order to end would hold the process forever; it is abandoned instead.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.work.wait()).await;
        cut
    }
}
