//! Unary gRPC calls to services of the mesh, as Envoy's protocols for rate limits and authorization need them.
//!
//! One message there, one message back (gRPC over HTTP/2, "Requests" and "Responses"). No compression is offered, so
//! a compressed message is an error.

use std::sync::Arc;
use std::time::Duration;

use ambit_types::ServiceKey;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::Waypoint;
use crate::calls::{self, CallError};

/// Longest message that is read; answers of limiters and authorizers are far below it.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Why a call brought no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    /// The service could not be called.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It did not answer in time.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// It answered with another HTTP status or another kind of content.
    #[error("the answer is no gRPC: HTTP status {0}")]
    NotGrpc(u16),
    /// It answered with a status other than OK.
    #[error("gRPC status {0}")]
    Status(u32),
    /// It answered with something else than one message.
    #[error("the answer is not one message")]
    Frame,
    /// The message cannot be read.
    #[error("the message cannot be read")]
    Decode(#[source] prost::DecodeError),
}

/// Calls a method of a service: `path` is `/package.Service/Method`.
///
/// # Errors
/// [`GrpcError`]; nothing is tried twice.
pub(crate) async fn unary<Req, Res>(
    waypoint: &Arc<Waypoint>,
    service: &ServiceKey,
    port: u16,
    path: &'static str,
    request: &Req,
    deadline: Duration,
) -> Result<Res, GrpcError>
where
    Req: prost::Message,
    Res: prost::Message + Default,
{
    let work = async {
        let request = asked(path, frame(request), deadline);
        let authority = calls::authority(service, port);
        let called = calls::send(waypoint, service, port, &authority, request, true).await?;
        let (head, body) = called.response.into_parts();
        if head.status != 200 || !is_grpc(&head.headers) {
            return Err(GrpcError::NotGrpc(head.status.as_u16()));
        }
        let (bytes, trailers) = calls::collect(body, PREFIX_BYTES + MESSAGE_BYTES_MAX).await?;
        drop(called.ticket);
        // A response without messages has its status in the head.
        match status(&trailers).or_else(|| status(&head.headers)) {
            Some(0) => Res::decode(message(bytes)?).map_err(GrpcError::Decode),
            Some(other) => Err(GrpcError::Status(other)),
            None => Err(GrpcError::Frame),
        }
    };
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(GrpcError::Timeout(deadline)))
}

fn asked(path: &'static str, body: Bytes, deadline: Duration) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // At most eight digits.
    let millis = deadline.as_millis().clamp(1, 99_999_999);
    if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
        headers.insert("grpc-timeout", value);
    }
    request
}

/// A message with its prefix.
fn frame(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    framed.freeze()
}

/// The one message of a body.
fn message(mut body: Bytes) -> Result<Bytes, GrpcError> {
    let Some((&[flag, a, b, c, d], rest)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(GrpcError::Frame);
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if flag != 0 || rest.len() != length {
        return Err(GrpcError::Frame);
    }
    Ok(body.split_off(PREFIX_BYTES))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{frame, message, status};

    #[test]
    fn a_message_is_framed_and_read_back() {
        let framed = frame(&"hello".to_owned());
        assert_eq!(framed[..5], [0, 0, 0, 0, 7]);
        let read = message(framed).unwrap();
        assert_eq!(<String as prost::Message>::decode(read).unwrap(), "hello");
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        for body in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab"] {
            assert!(message(Bytes::from_static(body)).is_err(), "{body:?}");
        }
        assert_eq!(message(Bytes::from_static(b"\0\0\0\0\0")).unwrap(), "");
    }

    #[test]
    fn a_status_that_is_no_number_is_none() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(status(&headers), None);
        headers.insert("grpc-status", "0x0".parse().unwrap());
        assert_eq!(status(&headers), None);
        headers.insert("grpc-status", "14".parse().unwrap());
        assert_eq!(status(&headers), Some(14));
    }
}
