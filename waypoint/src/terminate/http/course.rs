//! One HTTP connection's requests: how many are under way, how each ended, and what the connection has to do about it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::trust::Trust;
use crate::request::body::Outgoing;
use crate::terminate::relays::Entered;

/// What requests and the reading side of one connection know of each other.
#[derive(Debug, Default)]
pub(crate) struct Course {
    under_way: AtomicU32,
    /// What they have come to so far.
    trust: Trust,
    /// Who reads, and waits for what is under way to end.
    reader: Mutex<Option<Waker>>,
    /// It was upgraded: since then nothing on it is HTTP.
    upgraded: OnceLock<Entered>,
    /// It was, and nobody looks after it.
    adrift: OnceLock<CancellationToken>,
    /// The client costs more than it may.
    pub(super) dismissed: CancellationToken,
    /// What is called is not served here any more.
    pub(super) misdirected: CancellationToken,
}

impl Course {
    /// Whether a request is without its whole answer. If so, the reader is woken when it has it: nothing else would
    /// tell it that the connection is idle from then on.
    pub(crate) fn is_under_way(&self, cx: &Context<'_>) -> bool {
        if self.under_way.load(Ordering::Acquire) == 0 {
            return false;
        }
        *self.reader() = Some(cx.waker().clone());
        self.under_way.load(Ordering::Acquire) > 0
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when an upgraded connection has to end; none for one that is not.
    pub(crate) fn cut(&self) -> Option<&CancellationToken> {
        self.upgraded.get().map(Entered::cut).or_else(|| self.adrift.get())
    }

    /// The client has been told that the connection is another protocol's.
    pub(super) fn upgrade(&self, entered: Entered) {
        // A connection is upgraded once.
        let _ = self.upgraded.set(entered);
    }

    /// The connection is another protocol's, and must not be.
    pub(super) fn refuse_upgrade(&self) {
        self.adrift.get_or_init(CancellationToken::new).cancel();
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, tally: Option<(Arc<Tally>, u32)>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay { course: self.clone(), tally, is_complete: false, place: None }
    }
}

/// Requests on one tunnel that the client gave up, against those that were answered, in the second at hand.
///
/// Counted over all connections on the tunnel: a new connection is no clean slate.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    second: AtomicU64,
    cancelled: AtomicU32,
    completed: AtomicU32,
}

impl Tally {
    /// Counts an end; whether it was one too many. Two threads that begin a second at the same time lose a count,
    /// which does no harm.
    fn is_excess(&self, is_complete: bool, second: u64, most: u32) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.cancelled.store(0, Ordering::Relaxed);
            self.completed.store(0, Ordering::Relaxed);
        }
        if is_complete {
            self.completed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let cancelled = self.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        cancelled > most && cancelled > self.completed.load(Ordering::Relaxed)
    }
}

/// A request under way; dropping it ends it.
#[derive(Debug)]
pub(super) struct UnderWay {
    course: Arc<Course>,
    tally: Option<(Arc<Tally>, u32)>,
    is_complete: bool,
    /// Of those that a new connection has.
    place: Option<OwnedSemaphorePermit>,
}

impl UnderWay {
    /// Waits until the connection may have one more request begun. Who is given up before counts as any other that is.
    pub(super) async fn turn(&mut self) {
        self.place = self.course.trust.turn().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.is_complete {
            self.course.trust.earn();
        }
        self.course.under_way.fetch_sub(1, Ordering::AcqRel);
        let reader = self.course.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
        let Some((tally, most)) = &self.tally else { return };
        if tally.is_excess(self.is_complete, clock::unix_seconds(), *most) {
            self.course.dismissed.cancel();
        }
    }
}

/// Since when a client has to take a response, or more of it; and when the request's own time is over.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<(Option<Instant>, Option<Instant>)>);

impl Progress {
    fn set(&self, since: Option<Instant>, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (since, until);
    }

    /// When the client must have taken something at the latest, if it has to; it may take `after` for that.
    fn due(&self, after: Duration) -> Option<Instant> {
        let (since, until) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = since? + after;
        Some(until.map_or(stalled, |until| until.min(stalled)))
    }
}

tokio::task_local! {
    /// Of the stream whose request is being served.
    static PROGRESS: Arc<Progress>;
}

pin_project! {
    /// One stream's work, given up once its client has taken nothing for so long.
    pub(super) struct UnlessStalled<F> {
        #[pin]
        work: TaskLocalFuture<Arc<Progress>, F>,
        progress: Arc<Progress>,
        look: Option<Pin<Box<Sleep>>>,
        after: Duration,
    }
}

/// Runs one stream's work, and gives it up once its client has taken nothing for so long.
pub(super) fn unless_stalled<F: Future<Output = ()>>(work: F, after: Duration) -> UnlessStalled<F> {
    let progress = Arc::new(Progress::default());
    UnlessStalled { work: PROGRESS.scope(progress.clone(), work), progress, look: None, after }
}

impl<F: Future<Output = ()>> Future for UnlessStalled<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.work.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        poll_stalled(this.progress, this.look, *this.after, cx)
    }
}

/// Ready when the client has had to take something for so long. The timer is moved only when it runs out, because that
/// costs more than a frame.
fn poll_stalled(
    progress: &Progress,
    look: &mut Option<Pin<Box<Sleep>>>,
    after: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(due) = progress.due(after) else { return Poll::Pending };
    let due = tokio::time::Instant::from_std(due);
    let look = look.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
    loop {
        std::task::ready!(look.as_mut().poll(cx));
        if look.deadline() >= due {
            metrics::counter!("ambit_waypoint_clients_dismissed_total", "cause" => "stalled").increment(1);
            return Poll::Ready(());
        }
        look.as_mut().reset(due);
    }
}

/// A response's body, with note taken of how the client takes it.
#[derive(Debug)]
pub(super) struct Watched {
    body: Outgoing,
    under_way: UnderWay,
    progress: Option<Arc<Progress>>,
}

impl Watched {
    /// The body of a response that is about to be sent.
    pub(super) fn new(body: Outgoing, mut under_way: UnderWay) -> Self {
        under_way.is_complete = body.is_end_stream();
        let progress = PROGRESS.try_with(Arc::clone).ok().filter(|_| !body.is_end_stream());
        if let Some(progress) = &progress {
            progress.set(Some(clock::monotonic()), body.until());
        }
        Self { body, under_way, progress }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.set(None, None);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = <Outgoing as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_taken = match &polled {
            Poll::Ready(Some(Ok(_))) => {
                this.under_way.is_complete |= this.body.is_end_stream();
                false
            }
            // A response that breaks is not the client's doing.
            Poll::Ready(None | Some(Err(_))) => {
                this.under_way.is_complete = true;
                true
            }
            Poll::Pending => true,
        };
        if let Some(progress) = &this.progress {
            progress.set((!is_taken).then(clock::monotonic), this.body.until());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, unless_stalled};

    /// There is one for each stream, and it is copied when that starts.
    #[test]
    fn watching_a_stream_holds_its_work_once() {
        let work = async {
            let held = [1_u8; 4096];
            tokio::task::yield_now().await;
            let _ = std::hint::black_box(held);
        };
        let size = size_of_val(&work);
        let watched = size_of_val(&unless_stalled(work, std::time::Duration::from_secs(1)));
        assert!(size >= 4096 && watched < size + 128, "{size} bytes of work, {watched} watched");
    }

    #[test]
    fn a_client_may_cancel_as_many_as_it_may_or_as_it_lets_be_answered() {
        let tally = Tally::default();
        assert!((0..3).all(|_| !tally.is_excess(false, 7, 3)));
        assert!(tally.is_excess(false, 7, 3));
        assert!((0..9).all(|_| !tally.is_excess(true, 7, 3)));
        assert!((0..5).all(|_| !tally.is_excess(false, 7, 3)));
        assert!(tally.is_excess(false, 7, 3));
        assert!(!tally.is_excess(false, 8, 3));
    }
}
