//! Bodies: a request's on its way up ([`replay`]), and a response's on its way down, with what has to happen when it
//! is over.

mod gather;
mod messages;
mod replay;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::Finish;
use super::sanitize::clean_response_trailers;
use crate::upstream::Download;

pub(crate) use messages::Messages;
pub(crate) use replay::{Held, Keeping, Replay, Upload};
pub(crate) use watch::{Due, Rate, Seen, Watch};

/// Why a response's body ends too early.
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

/// A response's body towards the client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    from: Source,
    /// None of a body of our own.
    under: Option<Under>,
    /// Told how much went, and that it is over.
    finish: Option<Finish>,
    keeps_trailers: bool,
}

#[derive(Debug)]
enum Source {
    /// Made here.
    Own(Option<Bytes>),
    /// An endpoint's.
    Upstream(Download),
}

/// What an endpoint's response goes on under.
#[derive(Debug)]
struct Under {
    /// None if there is nothing to wait for.
    watch: Option<Watch>,
    /// The request's body, which may still be on its way up.
    upload: Option<Arc<Replay>>,
    /// Frames that have gone.
    moved: u64,
}

impl Outgoing {
    /// A body of our own.
    pub(crate) fn own(body: Bytes) -> Self {
        let body = Some(body).filter(|body| !body.is_empty());
        Self { from: Source::Own(body), under: None, finish: None, keeps_trailers: false }
    }

    /// An endpoint's body, to a request whose own may still be on its way.
    pub(crate) fn upstream(
        body: Download,
        watch: Watch,
        upload: Option<Arc<Replay>>,
        keeps_trailers: bool,
    ) -> Self {
        let watch = (!body.is_end_stream()).then_some(watch);
        let under = Some(Under { watch, upload, moved: 0 });
        Self { from: Source::Upstream(body), under, finish: None, keeps_trailers }
    }

    /// Tells `finish` when it is over.
    pub(crate) fn finishing(mut self, mut finish: Finish) -> Self {
        if self.is_end_stream() {
            finish.complete();
        }
        self.finish = Some(finish);
        self
    }

    /// When the request's time is over, if there is such a limit: for who drives the client's stream, because nobody
    /// polls a body whose client takes nothing.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.under.as_ref()?.watch.as_ref()?.until()
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(finish) = &mut self.finish else { return };
        if let Some(data) = frame.data_ref() {
            finish.sent(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            finish.trailers(trailers);
        }
    }

    /// The request has to end.
    fn cut(&mut self, due: Due) -> BodyError {
        let (error, flag) = match due {
            Due::Over(_) => (BodyError::Timeout, "UT"),
            Due::Idle | Due::Slow => (BodyError::Idle, "SI"),
        };
        if let Some(finish) = &mut self.finish {
            finish.timed_out(flag);
        }
        error
    }

    fn ended(&mut self) {
        if let Some(finish) = &mut self.finish {
            finish.complete();
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
        }
    }
}

impl Under {
    /// Also for a body that never has to be waited for.
    fn over(&self) -> Option<Due> {
        self.watch.as_ref().and_then(Watch::over)
    }

    /// Counts a frame, or waits together with who waits for one.
    fn after(&mut self, polled: &Polled, cx: &mut Context<'_>) -> Poll<Due> {
        if polled.is_ready() {
            self.moved += 1;
            return Poll::Pending;
        }
        let Self { watch: Some(watch), upload, moved } = self else { return Poll::Pending };
        watch.poll(cx, || {
            let seen = upload.as_ref().map(|upload| upload.seen()).unwrap_or_default();
            Seen { moved: seen.moved + *moved, ..seen }
        })
    }
}

impl Drop for Under {
    /// What the client still sends is for nobody.
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.close();
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
        if let Some(due) = this.under.as_ref().and_then(Under::over) {
            return Poll::Ready(Some(Err(this.cut(due))));
        }
        let polled = this.from.poll_frame(cx);
        if let Some(under) = &mut this.under
            && let Poll::Ready(due) = under.after(&polled, cx)
        {
            return Poll::Ready(Some(Err(this.cut(due))));
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(finish) = &mut this.finish {
                    finish.broken();
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        clean_response_trailers(&mut trailers, this.keeps_trailers);
                        Frame::trailers(trailers)
                    }
                    Err(data) => data,
                };
                this.note(&frame);
                if this.is_end_stream() {
                    this.ended();
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
