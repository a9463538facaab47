//! A set that is fetched: the last good one, and the task that keeps it so.
//!
//! The task alone fetches, one fetch at a time: on its own account every so often, after failures sooner, and when
//! somebody asks because of an unknown key, however many ask. A failure changes nothing about the last good set until
//! it is too old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_policy::jwt::{SignatureError, SignedToken};
use ambit_runtime::clock;
use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::fetch::{FetchError, Source};
use super::jwk::Set;
use crate::random;

/// Longest pause after failures.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is told of tries to who waits for one.
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    ended: u64,
    is_under_way: bool,
}

/// A set that was fetched.
#[derive(Debug)]
struct Good {
    set: Set,
    at: Instant,
}

/// One set.
#[derive(Debug)]
pub(super) struct Remote {
    source: Source,
    /// Fetches of its namespace under way.
    places: Arc<Semaphore>,
    /// In milliseconds.
    timeout: AtomicU64,
    good: ArcSwapOption<Good>,
    tries: watch::Sender<Tries>,
    last: Mutex<Option<Instant>>,
    wanted: Notify,
    retired: CancellationToken,
}

impl Remote {
    /// Not fetched yet; [`Remote::run`] fetches it.
    pub(super) fn new(source: Source, timeout: Duration, places: Arc<Semaphore>) -> Self {
        Self {
            source,
            places,
            timeout: AtomicU64::new(millis(timeout)),
            good: ArcSwapOption::empty(),
            tries: watch::Sender::new(Tries { ended: 0, is_under_way: true }),
            last: Mutex::default(),
            wanted: Notify::new(),
            retired: CancellationToken::new(),
        }
    }

    /// Another rule allows so much time for a fetch; the longest counts.
    pub(super) fn allow(&self, timeout: Duration) {
        self.timeout.fetch_max(millis(timeout), Ordering::Relaxed);
    }

    /// Nobody needs it any more.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Waits for the end of the first try.
    pub(super) async fn tried(&self) {
        let has_ended = self.tries.borrow().ended > 0;
        if !has_ended {
            self.ended(0).await;
        }
    }

    /// Waits until more tries have ended, or the set is retired; at most as long as one try may take.
    async fn ended(&self, before: u64) {
        let mut tries = self.tries.subscribe();
        tokio::select! {
            // The sender lives as long as this does, so that waiting cannot fail.
            _ = tries.wait_for(|tries| tries.ended > before) => {}
            () = self.retired.cancelled() => {}
            () = tokio::time::sleep(self.timeout()) => {}
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Relaxed))
    }

    /// Waits for a fetch that is under way or due, given the shortest pause between such; false if there is none.
    pub(super) async fn renewed(&self, pause: Duration) -> bool {
        let tries = *self.tries.borrow();
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| clock::monotonic().saturating_duration_since(last) >= pause);
        if !tries.is_under_way && !is_due {
            return false;
        }
        self.wanted.notify_one();
        self.ended(tries.ended).await;
        true
    }

    /// Checks a signature with the last good set, unless it is too old.
    pub(super) fn verify(&self, token: &SignedToken<'_>, keep: Duration) -> Result<(), SignatureError> {
        let good = self.good.load();
        let is_fresh = |good: &&Arc<Good>| clock::monotonic().saturating_duration_since(good.at) < keep;
        let good = good.as_ref().filter(is_fresh).ok_or(SignatureError::KeysUnavailable)?;
        let checked = good.set.verify(token);
        let may_be_new = match checked {
            Err(SignatureError::NoSuchKey) => true,
            // A token that does not name its key may be signed with one that is not here yet.
            Err(SignatureError::Mismatch) => token.key_id().is_none(),
            Err(SignatureError::KeysUnavailable) | Ok(()) => false,
        };
        if may_be_new {
            self.wanted.notify_one();
        }
        checked
    }

    /// Fetches until it is retired.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let work = async {
            let mut failures = 0;
            loop {
                let begun = clock::monotonic();
                failures = match self.fetch(&shared).await {
                    Ok(set) => {
                        self.keep(set);
                        0
                    }
                    Err(error) => {
                        self.failed(&error);
                        failures + 1
                    }
                };
                self.told(false);
                let settings = &shared.settings;
                let pause = pause(failures, settings.refresh, settings.retry, random::number());
                self.rest(pause, begun + settings.unknown_pause).await;
                self.told(true);
            }
        };
        tokio::select! {
            () = work => {}
            () = self.retired.cancelled() => {}
        }
    }

    async fn fetch(&self, shared: &Shared) -> Result<Set, FetchError> {
        // The namespace's own first, so that who waits for it keeps nobody else waiting. Neither is ever closed.
        let _own = self.places.acquire().await;
        let _place = shared.places.acquire().await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::monotonic());
        shared.fetcher.fetch(&self.source, self.timeout()).await
    }

    fn keep(&self, set: Set) {
        if set.refused.secret > 0 {
            tracing::error!(source = %self.source, namespace = %self.source.namespace, refused = %set.refused, "the issuer publishes private keys; they are not used");
        }
        tracing::debug!(source = %self.source, namespace = %self.source.namespace, keys = set.len(), refused = %set.refused, "keys were fetched");
        metrics::counter!("ambit_waypoint_jwks_fetches_total", "outcome" => "fetched").increment(1);
        self.good.store(Some(Arc::new(Good { set, at: clock::monotonic() })));
    }

    fn failed(&self, error: &FetchError) {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let has_keys = self.good.load().is_some();
        tracing::warn!(source = %self.source, namespace = %self.source.namespace, %error, cause, has_keys, "keys could not be fetched");
        metrics::counter!("ambit_waypoint_jwks_fetches_total", "outcome" => "failed").increment(1);
    }

    /// Tells those who wait that a try begins or has ended.
    fn told(&self, is_under_way: bool) {
        self.tries.send_modify(|tries| {
            tries.is_under_way = is_under_way;
            tries.ended += u64::from(!is_under_way);
        });
    }

    /// Waits for so long; less if somebody asks, but not before a time.
    async fn rest(&self, pause: Duration, not_before: Instant) {
        let asked = async {
            self.wanted.notified().await;
            tokio::time::sleep_until(not_before.into()).await;
        };
        // At the end of the pause or when asked, whichever comes first.
        let _ = tokio::time::timeout(pause, asked).await;
    }
}

/// The pause after a fetch: up to a tenth is left out by chance, so that not all waypoints ask at once.
fn pause(failures: u32, refresh: Duration, retry: Duration, draw: u64) -> Duration {
    let whole = match failures {
        0 => refresh,
        _ => retry.saturating_mul(1 << (failures - 1).min(16)).min(RETRY_MAX).min(refresh),
    };
    let tenth = u32::try_from(draw % 100).unwrap_or(0);
    whole - whole / 1000 * tenth
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn pauses_grow_with_failures_and_are_never_longer_than_a_refresh() {
        let (refresh, retry) = (Duration::from_secs(1200), Duration::from_secs(1));
        for (failures, want) in [(0, 1200), (1, 1), (2, 2), (4, 8), (7, 60), (40, 60)] {
            let want = Duration::from_secs(want);
            assert_eq!(pause(failures, refresh, retry, 0), want);
            let shortened = pause(failures, refresh, retry, 99);
            assert!(shortened < want && shortened >= want * 9 / 10, "{shortened:?}");
        }
        assert_eq!(pause(9, Duration::from_secs(5), retry, 0), Duration::from_secs(5));
    }
}
