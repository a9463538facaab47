//! A request's body on its way up, shared by attempts that follow each other, and held back as far as it may have to
//! be sent again.
//!
//! hyper goes on reading a body for an attempt that has its answer or was given up. So each attempt has a number, and
//! only the last one gets anything: bytes that an old one took would be missing in the new one. Whether the body can
//! be sent again is decided together with taking it away from the old attempt.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::watch;

use super::gather::{Pace, Pieces};
use super::messages::Messages;
use super::watch::Seen;

mod arrival;

/// What a held frame costs besides its bytes, so that many small ones count for what they take.
const FRAME_BYTES: usize = 128;

/// Why an attempt gets no more of a request's body. Its source is what an endpoint is told in HTTP/2, and never what
/// went wrong with the client: that says nothing about the endpoint's connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The client broke off.
    #[error("the client's body broke off")]
    Broken(#[source] h2::Error),
    /// The attempt was given up, or the request is over.
    #[error("the attempt was given up")]
    GivenUp(#[source] h2::Error),
}

impl UploadError {
    fn broken() -> Self {
        Self::Broken(h2::Reason::CANCEL.into())
    }

    fn given_up() -> Self {
        Self::GivenUp(h2::Reason::CANCEL.into())
    }
}

/// One frame that is held.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// Bytes.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

/// What is done with a body besides passing it on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    /// Bytes that are held for another attempt, with [`FRAME_BYTES`] for each frame; 0 for none.
    pub(crate) bytes_max: usize,
    /// Whether somebody gets a copy of it.
    pub(crate) is_mirrored: bool,
    /// Whether its trailers go on.
    pub(crate) keeps_trailers: bool,
    /// Whether its messages are counted.
    pub(crate) is_grpc: bool,
    /// Whether very many small pieces of it are held back; where the library does not bound them.
    pub(crate) is_paced: bool,
}

/// A request's body, with its beginning held as long as it is short.
#[derive(Debug)]
pub(crate) struct Replay {
    inner: Mutex<Inner>,
    /// Whether all of it has arrived and is held.
    whole: watch::Sender<Option<bool>>,
    hint: SizeHint,
    keeping: Keeping,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// More is to come.
    Open,
    /// All of it has arrived.
    Whole,
    /// Its client broke off.
    Broken,
}

#[derive(Debug)]
struct Inner {
    /// None once nobody wants more of it.
    body: Option<Incoming>,
    course: Course,
    /// The attempt that may read.
    attempt: u64,
    /// Where that one waits for more.
    reader: Option<Waker>,
    /// Frames from the beginning on, if all are held; else those that the attempt has not taken yet.
    held: VecDeque<Held>,
    /// Of these, those that the attempt has taken.
    taken: usize,
    is_held: bool,
    /// What is held counts for so much.
    charge: usize,
    is_starved: bool,
    frames: u64,
    bytes: u64,
    messages: Option<Messages>,
    /// Arrived, and gone to no attempt; nothing once all has arrived.
    pieces: Pieces,
    pace: Pace,
}

type Polled = Poll<Option<Result<Frame<Bytes>, UploadError>>>;

impl Replay {
    /// A body of which nothing has been read.
    pub(crate) fn new(body: Incoming, keeping: Keeping) -> Arc<Self> {
        let hint = body.size_hint();
        let inner = Inner {
            body: Some(body),
            course: Course::Open,
            attempt: 0,
            reader: None,
            held: VecDeque::new(),
            taken: 0,
            is_held: keeping.bytes_max > 0,
            charge: 0,
            is_starved: false,
            frames: 0,
            bytes: 0,
            messages: keeping.is_grpc.then(Messages::default),
            pieces: Pieces::default(),
            pace: Pace::default(),
        };
        Arc::new(Self { inner: Mutex::new(inner), whole: watch::Sender::new(None), hint, keeping })
    }

    /// Whether the whole body can be sent from its beginning.
    pub(crate) fn is_replayable(&self) -> bool {
        self.lock().is_replayable()
    }

    /// Takes the body away from the attempt that has it, if it can be sent again; else changes nothing.
    pub(crate) fn retire(&self) -> bool {
        let mut inner = self.lock();
        if !inner.is_replayable() {
            return false;
        }
        let reader = inner.supersede();
        drop(inner);
        wake(reader);
        true
    }

    /// The body from its beginning, for another attempt; the one before gets no more. None if its beginning is gone.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Upload> {
        let mut inner = self.lock();
        if !inner.is_replayable() {
            return None;
        }
        let reader = inner.supersede();
        inner.taken = 0;
        let attempt = inner.attempt;
        drop(inner);
        wake(reader);
        Some(Upload::Replayed { replay: self.clone(), attempt })
    }

    /// There is an answer, so that no other attempt follows: lets go of what only that would need.
    pub(crate) fn answered(&self) {
        if !self.keeping.is_mirrored {
            self.lock().let_go();
        }
    }

    /// Nobody wants more of it.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        let reader = inner.supersede();
        let body = inner.body.take();
        inner.pieces = Pieces::default();
        if !(self.keeping.is_mirrored && inner.course == Course::Whole) {
            inner.held = VecDeque::new();
            inner.is_held = false;
        }
        drop(inner);
        drop(body);
        self.whole.send_if_modified(|whole| whole.replace(whole.unwrap_or(false)).is_none());
        wake(reader);
    }

    /// Bytes that have arrived.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// gRPC messages that have begun to arrive.
    pub(crate) fn messages(&self) -> u64 {
        self.lock().messages.as_ref().map_or(0, Messages::count)
    }

    /// What has happened so far.
    pub(crate) fn seen(&self) -> Seen {
        let inner = self.lock();
        let is_starved = inner.is_starved && inner.course == Course::Open;
        Seen { moved: inner.frames, received: inner.bytes, is_starved }
    }

    /// Whether all of it has arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().course == Course::Whole
    }

    /// Whether its client broke off.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().course == Course::Broken
    }

    /// Waits until all has arrived: the frames, if they are held.
    pub(crate) async fn whole(&self) -> Option<VecDeque<Held>> {
        let mut whole = self.whole.subscribe();
        let is_held = whole.wait_for(Option::is_some).await.ok().and_then(|whole| *whole);
        is_held.unwrap_or(false).then(|| self.lock().held.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>, attempt: u64) -> Polled {
        let mut inner = self.lock();
        if inner.attempt != attempt {
            return Poll::Ready(Some(Err(UploadError::given_up())));
        }
        if let Some(held) = inner.again() {
            return Poll::Ready(Some(Ok(held.into())));
        }
        match inner.course {
            Course::Whole => return Poll::Ready(None),
            Course::Broken => return Poll::Ready(Some(Err(UploadError::broken()))),
            Course::Open => {}
        }
        let polled = inner.next(cx, &self.keeping);
        if polled.is_pending() {
            inner.wait(cx.waker());
        } else if inner.course != Course::Open {
            // By now all that is held is there.
            self.whole.send_replace(Some(inner.course == Course::Whole && inner.is_held));
        }
        polled
    }

    fn is_at_end(&self, attempt: u64) -> bool {
        let inner = self.lock();
        let is_taken = if inner.is_held { inner.taken >= inner.held.len() } else { inner.held.is_empty() };
        inner.attempt == attempt && inner.course == Course::Whole && is_taken
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl Inner {
    fn is_replayable(&self) -> bool {
        self.course != Course::Broken && self.body.is_some() && (self.is_held || self.frames == 0)
    }

    /// The attempt at hand gets no more.
    fn supersede(&mut self) -> Option<Waker> {
        self.attempt += 1;
        self.is_starved = false;
        self.reader.take()
    }

    fn wait(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(waker),
            None => self.reader = Some(waker.clone()),
        }
    }

    /// The next frame that came before the attempt did.
    fn again(&mut self) -> Option<Held> {
        if !self.is_held {
            return self.held.pop_front();
        }
        let held = self.held.get(self.taken)?.clone();
        self.taken += 1;
        Some(held)
    }

    /// Holds no more than the attempt at hand has to get yet.
    fn let_go(&mut self) {
        if self.is_held {
            self.is_held = false;
            if self.taken < self.held.len() {
                self.held.drain(..self.taken);
            } else {
                self.held = VecDeque::new();
            }
        }
    }
}

/// A request's body towards an endpoint.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// As it arrives, what has arrived before first.
    Replayed {
        /// The body itself.
        replay: Arc<Replay>,
        /// Which attempt reads.
        attempt: u64,
    },
    /// A copy that is complete.
    Copy(VecDeque<Held>),
}

impl From<Held> for Frame<Bytes> {
    fn from(held: Held) -> Self {
        match held {
            Held::Data(data) => Self::data(data),
            Held::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Replayed { replay, attempt } => replay.poll(cx, *attempt),
            Self::Copy(held) => Poll::Ready(held.pop_front().map(|held| Ok(held.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Replayed { replay, attempt } => replay.is_at_end(*attempt),
            Self::Copy(held) => held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Replayed { replay, .. } => replay.hint,
            Self::Copy(held) => {
                let bytes = held.iter().map(|held| u64::try_from(held.bytes()).unwrap_or(u64::MAX));
                SizeHint::with_exact(bytes.sum())
            }
        }
    }
}
