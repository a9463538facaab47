//! Bodies of answers and requests: whole, streamed, slow, or broken off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use super::wire::Control;
use crate::pattern;

/// Any body.
pub(crate) type Body = UnsyncBoxBody<Bytes, tonic::codegen::StdError>;

/// Length of an answer that is broken off half way, in bytes.
pub(super) const BROKEN_BYTES: usize = 64 * 1024;
/// How long the first half of a broken answer has to arrive before the reset overtakes it.
const HEAD_START: Duration = Duration::from_millis(100);

/// All at once.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Nothing.
pub(crate) fn empty() -> Body {
    whole(Bytes::new())
}

fn streamed(frames: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static) -> Body {
    StreamBody::new(frames).map_err(Into::into).boxed_unsync()
}

/// So many bytes of the pattern, in chunks as they are taken.
pub(crate) fn pattern(total: u64) -> Body {
    streamed(stream::iter(pattern::chunks(total)).map(|chunk| Ok(Frame::data(chunk))))
}

/// So many bytes, one at a time, with a pause before each.
pub(super) fn drip(total: u64, pause: Duration) -> Body {
    streamed(stream::iter(0..total).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(Bytes::from_static(b".")))
    }))
}

/// Half of what was announced, then a reset.
pub(super) fn broken(control: Arc<Control>) -> Body {
    let half = stream::once(async { Ok(Frame::data(pattern::chunk(0, BROKEN_BYTES / 2))) });
    let end = stream::once(async move {
        tokio::time::sleep(HEAD_START).await;
        control.reset();
        Err(io::Error::other("broken off, as asked"))
    });
    streamed(half.chain(end))
}

/// A body with trailers.
pub(super) fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Body {
    streamed(stream::iter([Ok(Frame::data(bytes)), Ok(Frame::trailers(trailers))]))
}
