//! B3, the headers of older tracers: one line `b3: TRACE-SPAN-SAMPLED[-PARENT]`, or several `x-b3-…`.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::{Context, Span, TraceId};

static SINGLE: HeaderName = HeaderName::from_static("b3");
static TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The forms in which a client spoke B3, and in which it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forms {
    is_single: bool,
    is_multiple: bool,
}

impl Forms {
    /// The forms that a request has.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let multiple = [&TRACE, &SPAN, &PARENT, &SAMPLED, &FLAGS];
        Self {
            is_single: headers.contains_key(&SINGLE),
            is_multiple: multiple.iter().any(|name| headers.contains_key(*name)),
        }
    }

    /// Writes a span in those forms, in place of what the client wrote.
    pub(super) fn write(self, headers: &mut HeaderMap, span: &Span) {
        let sampled = u8::from(span.is_sampled);
        let line = |text: String| HeaderValue::from_str(&text).ok();
        if self.is_single
            && let Some(value) = line(format!("{}-{:016x}-{sampled}", span.trace, span.span))
        {
            headers.insert(&SINGLE, value);
        }
        if self.is_multiple {
            let parts = [
                (&TRACE, line(span.trace.to_string())),
                (&SPAN, line(format!("{:016x}", span.span))),
                (&SAMPLED, line(sampled.to_string())),
            ];
            for name in [&PARENT, &FLAGS] {
                headers.remove(name);
            }
            for (name, value) in parts {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// The context of a request that speaks B3; the single line counts before the several.
pub(super) fn read(headers: &HeaderMap) -> Option<Context> {
    match only(headers, &SINGLE) {
        Some(line) => single(line),
        None => multiple(headers),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())?.to_str().ok()
}

fn single(line: &str) -> Option<Context> {
    let mut parts = line.split('-');
    let (trace, parent) = (trace(parts.next()?)?, span(parts.next()?)?);
    let is_sampled = match parts.next() {
        None => None,
        Some("1" | "d") => Some(true),
        Some("0") => Some(false),
        Some(_) => return None,
    };
    // The caller's own parent is nothing to us, but it has to be one.
    if parts.next().is_some_and(|parent| span(parent).is_none()) || parts.next().is_some() {
        return None;
    }
    Some(Context { trace, parent, is_sampled })
}

fn multiple(headers: &HeaderMap) -> Option<Context> {
    let (trace, parent) = (trace(only(headers, &TRACE)?)?, span(only(headers, &SPAN)?)?);
    let is_debug = only(headers, &FLAGS) == Some("1");
    let is_sampled = match only(headers, &SAMPLED) {
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        Some(_) | None => None,
    };
    Some(Context { trace, parent, is_sampled: if is_debug { Some(true) } else { is_sampled } })
}

/// 64 or 128 bits.
fn trace(text: &str) -> Option<TraceId> {
    let is_hex = matches!(text.len(), 16 | 32) && text.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|id| is_hex && *id != 0).map(TraceId)
}

fn span(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|id| is_hex && *id != 0)
}
