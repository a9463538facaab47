//! How many requests a connection may have under way before it has shown that they come to something.
//!
//! A client opens as many streams as it may in one go and costs as much as that many good ones, on a connection that it
//! loses the moment after. So of a new connection few are begun at once, and others follow as these are answered. Who
//! waits for answers that take their time gets one more with each [`STEP`]: streams may well last for hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that a new connection may have under way.
const EARLY: usize = 32;

/// Answers that have been taken to their end before nothing is bounded here any more; each makes room for one request
/// more until then.
const EARNED: u32 = 200;

/// How long a request waits at most for each one that waits already, itself included.
const STEP: Duration = Duration::from_millis(1);

/// What a connection has earned.
#[derive(Debug)]
pub(super) struct Trust {
    places: Arc<Semaphore>,
    earned: AtomicU32,
    waiting: AtomicU32,
}

/// One that waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Trust {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(EARLY));
        Self { places, earned: AtomicU32::new(0), waiting: AtomicU32::new(0) }
    }
}

impl Trust {
    /// Waits until a request may begin. Its place is given back when it is dropped; none if it needs none, or has
    /// waited long enough. May be dropped.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if self.earned.load(Ordering::Relaxed) >= EARNED {
            return None;
        }
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            // Rare, and a part of every request's future otherwise.
            Err(_) => Box::pin(self.wait()).await,
        }
    }

    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let patience = STEP * before.saturating_add(1);
        tokio::time::timeout(patience, self.places.clone().acquire_owned()).await.ok()?.ok()
    }

    /// An answer was taken to its end.
    pub(super) fn earn(&self) {
        if self.earned.load(Ordering::Relaxed) < EARNED {
            self.earned.fetch_add(1, Ordering::Relaxed);
            self.places.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    /// Requests that begin without waiting, at most `most`.
    fn at_once(trust: &Trust, most: usize) -> Vec<Option<OwnedSemaphorePermit>> {
        std::iter::from_fn(|| trust.turn().now_or_never()).take(most).collect()
    }

    #[tokio::test]
    async fn a_new_connection_begins_few_requests_at_once_and_more_with_each_answer() {
        let trust = Trust::default();
        let mut under_way = at_once(&trust, 1000);
        assert_eq!(under_way.len(), EARLY);
        // One ends without an answer, another with one.
        under_way.pop();
        under_way.extend(at_once(&trust, 1000));
        assert_eq!(under_way.len(), EARLY);
        under_way.pop();
        trust.earn();
        under_way.extend(at_once(&trust, 1000));
        assert_eq!(under_way.len(), EARLY + 1);
        (1..EARNED).for_each(|_| trust.earn());
        assert_eq!(at_once(&trust, 1000).len(), 1000, "it has nothing left to show");
    }

    #[tokio::test]
    async fn nobody_waits_for_long_where_nothing_is_answered() {
        let trust = Trust::default();
        let under_way = at_once(&trust, 1000);
        let begun = Instant::now();
        let waited = futures_util::future::join_all((0..10).map(|_| trust.turn())).await;
        assert!(waited.iter().all(Option::is_none));
        assert!(begun.elapsed() >= STEP * 10);
        assert_eq!(trust.waiting.load(Ordering::Relaxed), 0);
        drop(under_way);
    }

    #[tokio::test]
    async fn who_waits_is_begun_when_another_one_ends_and_leaves_nothing_behind_when_it_is_given_up() {
        let trust = Trust::default();
        let mut under_way = at_once(&trust, 1000);
        let mut waits = Box::pin(trust.turn());
        assert!(waits.as_mut().now_or_never().is_none());
        under_way.pop();
        let place = waits.await;
        assert!(place.is_some());
        assert!(trust.turn().now_or_never().is_none());
        assert_eq!(trust.waiting.load(Ordering::Relaxed), 0);
    }
}
