//! What comes of a body while an attempt waits for it: joined where it comes in small pieces, held as far as it may
//! have to be sent again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ambit_runtime::clock;
use bytes::Bytes;
use hyper::body::{Body as _, Frame};

use super::super::super::sanitize::clean_trailers;
use super::super::gather::SMALL_BYTES;
use super::{Course, FRAME_BYTES, Held, Inner, Keeping, Polled, UploadError};

impl Inner {
    /// The next frame of those that come while the attempt waits.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, keeping: &Keeping) -> Polled {
        loop {
            if self.pace.is_spent() {
                // It is us who let the client wait.
                self.is_starved = false;
                ready!(self.pace.poll_turn(cx));
                if !self.pieces.is_empty() {
                    return Poll::Ready(Some(Ok(self.join(keeping))));
                }
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Some(Err(UploadError::given_up()))) };
            let polled = Pin::new(&mut *body).poll_frame(cx);
            self.is_starved = polled.is_pending();
            let end = match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = body.is_end_stream();
                    if is_last {
                        self.course = Course::Whole;
                    }
                    match self.arrived(frame, is_last, keeping) {
                        Some(frame) => return Poll::Ready(Some(Ok(frame))),
                        None => continue,
                    }
                }
                Poll::Pending if self.pieces.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    if self.pace.is_excessive() {
                        ready!(self.pace.poll_turn(cx));
                    }
                    None
                }
                Poll::Ready(None) => {
                    self.course = Course::Whole;
                    None
                }
                Poll::Ready(Some(Err(_))) => {
                    self.course = Course::Broken;
                    Some(Err(UploadError::broken()))
                }
            };
            // What came before goes on first, whatever came then.
            let has_pieces = !self.pieces.is_empty();
            return Poll::Ready(if has_pieces { Some(Ok(self.join(keeping))) } else { end });
        }
    }

    /// A frame that came; what goes on now, if anything does.
    fn arrived(&mut self, frame: Frame<Bytes>, is_last: bool, keeping: &Keeping) -> Option<Frame<Bytes>> {
        self.frames += 1;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                let mut trailers = other.into_trailers().unwrap_or_default();
                clean_trailers(&mut trailers, keeping.keeps_trailers);
                return Some(self.pass(Held::Trailers(trailers), keeping));
            }
        };
        self.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if let Some(messages) = &mut self.messages {
            messages.pass(&data);
        }
        let is_small = data.len() < SMALL_BYTES && !is_last;
        if is_small && keeping.is_paced {
            self.pace.took(clock::monotonic());
        }
        if (self.pieces.is_empty() && !is_small) || !self.pieces.has_room(data.len()) {
            return Some(self.pass(Held::Data(data), keeping));
        }
        self.pieces.push(data);
        (!is_small || self.pieces.is_full()).then(|| self.join(keeping))
    }

    /// Passes a frame on, behind the pieces before it if there are any.
    fn pass(&mut self, frame: Held, keeping: &Keeping) -> Frame<Bytes> {
        if self.pieces.is_empty() {
            self.hold(frame.bytes(), 1, keeping, || frame.clone());
            return frame.into();
        }
        let joined = self.join(keeping);
        if self.is_held && !self.may_hold(frame.bytes(), 1, keeping) {
            self.let_go();
        }
        self.held.push_back(frame);
        joined
    }

    /// The pieces as one frame.
    fn join(&mut self, keeping: &Keeping) -> Frame<Bytes> {
        // Who gets something waits for nothing.
        self.is_starved = false;
        let (data, count) = self.pieces.take();
        self.hold(data.len(), count, keeping, || Held::Data(data.clone()));
        Frame::data(data)
    }

    /// Holds what the attempt gets, or lets go of all if it is too much by now.
    fn hold(&mut self, bytes: usize, frames: usize, keeping: &Keeping, frame: impl FnOnce() -> Held) {
        if !self.is_held {
            return;
        }
        if !self.may_hold(bytes, frames, keeping) {
            return self.let_go();
        }
        self.held.push_back(frame());
        self.taken += 1;
    }

    /// Charges for so many bytes more that came in so many frames; whether that is not too much.
    fn may_hold(&mut self, bytes: usize, frames: usize, keeping: &Keeping) -> bool {
        let more = frames.saturating_mul(FRAME_BYTES).saturating_add(bytes);
        self.charge = self.charge.saturating_add(more);
        self.charge <= keeping.bytes_max
    }
}
