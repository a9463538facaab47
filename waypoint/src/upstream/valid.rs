//! Whether the head of a response may be passed on: one framing, and none where there can be no body.
//!
//! What is parsed already is judged here; what cannot be parsed never comes so far. A response that fails is
//! answered 502 and its connection is not used again, so that nothing of it is taken for the next response.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

#[cfg(test)]
mod tests;

/// What is wrong with a response, if anything is.
pub(super) fn fault(status: StatusCode, headers: &HeaderMap) -> Option<&'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Some("a response with several lengths");
    }
    // The library takes a list of equal lengths for one, and passes it on as it came.
    if length.is_some_and(|length| length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit)) {
        return Some("a response with a length that is none");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Some("a response with a length and a transfer coding");
        }
        // Nothing else was offered to the endpoint (RFC 9112 section 6.1).
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Some("a response with a transfer coding that nobody asked for");
        }
        if status == StatusCode::NO_CONTENT {
            return Some("a response that can have no body, with a transfer coding");
        }
    }
    let has_length = length.is_some_and(|length| length.as_bytes() != b"0");
    // A 304 tells the length of what it stands for (RFC 9110 section 8.6).
    (has_length && status == StatusCode::NO_CONTENT)
        .then_some("a response that can have no body, with a length")
}

/// Whether a response with this status never has a body, whatever its head says.
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
