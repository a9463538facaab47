//! W3C Trace Context: a trace continued, or begun where there is none (Level 2, sections 3 and 4). Pure.

use ambit_hbone::ConnId;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on, in bytes.
const STATE_BYTES_MAX: usize = 512;

/// The span of one request at this waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: ConnId,
    /// This span.
    pub span: u64,
    /// The caller's span; 0 where the trace begins here.
    pub parent: u64,
    /// Whether the caller records it.
    pub is_sampled: bool,
}

/// Joins the trace of a request, or begins one, and writes the header that goes on.
pub(crate) fn join(
    headers: &mut HeaderMap,
    trace: impl FnOnce() -> u128,
    span: impl FnOnce() -> u64,
) -> Span {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    let only = lines.next().filter(|_| lines.next().is_none()).and_then(|value| value.to_str().ok());
    let read = only.and_then(|text| Some((ConnId::from_traceparent(text)?, parent(text)?)));
    let is_joined = read.is_some();
    let (trace, (parent, flags)) = read.unwrap_or_else(|| (ConnId::from_random(trace()), (0, 0)));
    let span = Span { trace, span: span().max(1), parent, is_sampled: flags & 1 == 1 };
    // Flags that are not known are not passed on.
    let text = format!("00-{trace}-{:016x}-{:02x}", span.span, flags & 1);
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(&TRACEPARENT, value);
    }
    let state: usize = headers.get_all(&TRACESTATE).iter().map(HeaderValue::len).sum();
    if !is_joined || state > STATE_BYTES_MAX {
        headers.remove(&TRACESTATE);
    }
    span
}

/// Span and flags of a header whose form has been checked; none if the span is all zero.
fn parent(text: &str) -> Option<(u64, u8)> {
    let mut parts = text.split('-').skip(2);
    let span = u64::from_str_radix(parts.next()?, 16).ok().filter(|span| *span != 0)?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some((span, flags))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::join;

    #[test]
    fn traces_are_joined_or_begun() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (given, want, keeps_state) in [
            (Some(good), "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01", true),
            (None, "00-00000000000000000000000000000005-0000000000000007-00", false),
            (Some("00-x"), "00-00000000000000000000000000000005-0000000000000007-00", false),
            (
                Some("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"),
                "00-00000000000000000000000000000005-0000000000000007-00",
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("tracestate", HeaderValue::from_static("a=b"));
            if let Some(given) = given {
                headers.insert("traceparent", HeaderValue::from_static(given));
            }
            join(&mut headers, || 5, || 7);
            assert_eq!(headers["traceparent"], want, "row {given:?}");
            assert_eq!(headers.contains_key("tracestate"), keeps_state, "row {given:?}");
        }
    }
}
