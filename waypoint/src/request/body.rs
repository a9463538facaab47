//! Bodies: a request's on its way up, held back as far as it may have to be sent again, and a response's on its way
//! down, with what has to happen when it is over.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Finish;
use super::sanitize::clean_trailers;
use crate::upstream::Download;

/// Why a body ends too early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Its sender failed.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// Its time is over.
    #[error("the time for the request is over")]
    Timeout,
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    Idle,
}

/// A request's body towards an endpoint.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// As it arrives, what has arrived before first.
    Replayed {
        /// The body itself, shared by attempts that follow each other.
        replay: Arc<Replay>,
        /// Frames that this attempt has sent.
        sent: usize,
    },
    /// A copy that is complete.
    Copy(VecDeque<Held>),
}

/// One frame that is held.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// Bytes.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
}

/// A request's body, with its beginning held as long as it is short.
#[derive(Debug)]
pub(crate) struct Replay {
    inner: Mutex<Inner>,
    /// Whether all of it has arrived and is held.
    whole: watch::Sender<Option<bool>>,
    hint: SizeHint,
    keeps_trailers: bool,
}

#[derive(Debug)]
struct Inner {
    body: Incoming,
    held: Vec<Held>,
    bytes: usize,
    bytes_max: usize,
    is_over: bool,
    all: u64,
}

impl Replay {
    /// Holds up to so many bytes of a body.
    pub(crate) fn new(body: Incoming, bytes_max: usize, keeps_trailers: bool) -> Arc<Self> {
        let hint = body.size_hint();
        let inner = Inner { body, held: Vec::new(), bytes: 0, bytes_max, is_over: false, all: 0 };
        Arc::new(Self { inner: Mutex::new(inner), whole: watch::Sender::new(None), hint, keeps_trailers })
    }

    /// Whether an attempt can send the whole body again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.lock().bytes_max > 0
    }

    /// Bytes that have arrived.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().all
    }

    /// Waits until all has arrived: the frames, if they are held.
    pub(crate) async fn whole(&self) -> Option<VecDeque<Held>> {
        let mut whole = self.whole.subscribe();
        let is_held = whole.wait_for(Option::is_some).await.ok().and_then(|whole| *whole);
        is_held.unwrap_or(false).then(|| self.lock().held.iter().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        sent: &mut usize,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut inner = self.lock();
        if let Some(held) = inner.held.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(held.clone().into())));
        }
        if inner.is_over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut inner.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            if let Poll::Ready(None) = polled {
                self.over(&mut inner);
            }
            return polled;
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                inner.all += u64::try_from(data.len()).unwrap_or(u64::MAX);
                inner.hold(Held::Data(data.clone()), data.len());
                Frame::data(data)
            }
            Err(other) => {
                let mut trailers = other.into_trailers().unwrap_or_default();
                clean_trailers(&mut trailers, self.keeps_trailers);
                inner.hold(Held::Trailers(trailers.clone()), 0);
                Frame::trailers(trailers)
            }
        };
        *sent = inner.held.len();
        if inner.body.is_end_stream() {
            self.over(&mut inner);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn over(&self, inner: &mut Inner) {
        inner.is_over = true;
        self.whole.send_replace(Some(inner.bytes_max > 0));
    }
}

impl Inner {
    /// Holds a frame, or lets go of all if there are too many bytes by now.
    fn hold(&mut self, frame: Held, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes_max == 0 || self.bytes > self.bytes_max {
            self.bytes_max = 0;
            self.held = Vec::new();
        } else {
            self.held.push(frame);
        }
    }
}

impl From<Held> for Frame<Bytes> {
    fn from(held: Held) -> Self {
        match held {
            Held::Data(data) => Self::data(data),
            Held::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Replayed { replay, sent } => replay.poll(cx, sent),
            Self::Copy(held) => Poll::Ready(held.pop_front().map(|held| Ok(held.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Replayed { replay, sent } => {
                let inner = replay.lock();
                inner.is_over && *sent >= inner.held.len()
            }
            Self::Copy(held) => held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Replayed { replay, .. } => replay.hint,
            Self::Copy(held) => {
                let bytes = held.iter().map(|held| match held {
                    Held::Data(data) => u64::try_from(data.len()).unwrap_or(u64::MAX),
                    Held::Trailers(_) => 0,
                });
                SizeHint::with_exact(bytes.sum())
            }
        }
    }
}

/// A response's body towards the client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    from: Source,
    /// Told how much went, and that it is over.
    finish: Option<Finish>,
    bounds: Option<Pin<Box<Bounds>>>,
    keeps_trailers: bool,
}

#[derive(Debug)]
enum Source {
    /// Made here.
    Own(Option<Bytes>),
    /// An endpoint's.
    Upstream(Download),
}

/// When a response has to be over, and when its next byte has to be there.
#[derive(Debug)]
struct Bounds {
    over: Option<Pin<Box<Sleep>>>,
    idle: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl Outgoing {
    /// A body of our own.
    pub(crate) fn own(body: Bytes) -> Self {
        let body = Some(body).filter(|body| !body.is_empty());
        Self { from: Source::Own(body), finish: None, bounds: None, keeps_trailers: false }
    }

    /// An endpoint's body; `left` is what is left for the whole response, `idle` the longest silence.
    pub(crate) fn upstream(
        body: Download,
        left: Option<Duration>,
        idle: Option<Duration>,
        keeps_trailers: bool,
    ) -> Self {
        let has_more = !body.is_end_stream();
        let bounds = ((left.is_some() || idle.is_some()) && has_more).then(|| {
            Box::pin(Bounds {
                over: left.map(|left| Box::pin(tokio::time::sleep(left))),
                idle: idle.map(|idle| (Box::pin(tokio::time::sleep(idle)), idle)),
            })
        });
        Self { from: Source::Upstream(body), finish: None, bounds, keeps_trailers }
    }

    /// Tells `finish` when it is over.
    pub(crate) fn finishing(mut self, mut finish: Finish) -> Self {
        if self.is_end_stream() {
            finish.complete();
        }
        self.finish = Some(finish);
        self
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(finish) = &mut self.finish else { return };
        if let Some(data) = frame.data_ref() {
            finish.sent(data.len());
        } else if let Some(trailers) = frame.trailers_ref() {
            finish.trailers(trailers);
        }
    }
}

impl Bounds {
    /// Why the body has to end now, if it has to.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        if self.over.as_mut().is_some_and(|over| over.as_mut().poll(cx).is_ready()) {
            return Some(BodyError::Timeout);
        }
        let idle = self.idle.as_mut().is_some_and(|(sleep, _)| sleep.as_mut().poll(cx).is_ready());
        idle.then_some(BodyError::Idle)
    }

    fn heard(&mut self) {
        if let Some((sleep, idle)) = &mut self.idle {
            let now = Instant::from_std(ambit_runtime::clock::monotonic());
            // Moving a timer costs more than a frame: it is moved when half of it has passed.
            if sleep.deadline() < now + *idle / 2 {
                sleep.as_mut().reset(now + *idle);
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.from {
            Source::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Source::Upstream(body) => Pin::new(body).poll_frame(cx),
        };
        match polled {
            Poll::Pending => match this.bounds.as_mut().and_then(|bounds| bounds.poll(cx)) {
                Some(error) => {
                    if let Some(finish) = &mut this.finish {
                        finish.timed_out();
                    }
                    Poll::Ready(Some(Err(error)))
                }
                None => Poll::Pending,
            },
            Poll::Ready(None) => {
                if let Some(finish) = &mut this.finish {
                    finish.complete();
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(finish) = &mut this.finish {
                    finish.broken();
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bounds) = &mut this.bounds {
                    bounds.heard();
                }
                let frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        clean_trailers(&mut trailers, this.keeps_trailers);
                        Frame::trailers(trailers)
                    }
                    Err(data) => data,
                };
                this.note(&frame);
                if this.is_end_stream()
                    && let Some(finish) = &mut this.finish
                {
                    finish.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            Source::Own(body) => body.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            Source::Own(body) => {
                let bytes = body.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Source::Upstream(body) => body.size_hint(),
        }
    }
}
