//! Trace context: a trace continued, or begun where there is none, and what goes on to the endpoint. Pure.
//!
//! W3C Trace Context Level 2 (sections 3 and 4) first; where a request has none that can be read, B3 is read. What
//! goes on is always W3C, and B3 as well if the client spoke it, so that neither names a span that is not its parent.

mod b3;
mod sampler;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub use sampler::{Root, Sampler};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on, in bytes (section 3.3.1.5 asks for at least as many).
const STATE_BYTES_MAX: usize = 512;

/// Members of a `tracestate` (section 3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;

/// The id of a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// An id of 128 random bits.
    pub fn from_random(random: u128) -> Self {
        Self(random.max(1))
    }

    /// Its 16 bytes, the first digits first.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The span of one request at this waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// This span; never zero.
    pub span: u64,
    /// The caller's span; 0 where the trace begins here.
    pub parent: u64,
    /// Whether it is to be recorded, here and behind us.
    pub is_sampled: bool,
}

/// What a request says of the trace it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: TraceId,
    parent: u64,
    /// None where the caller leaves it to us, which only B3 can.
    is_sampled: Option<bool>,
}

/// The context as each attempt sends it on. A copy of a request (a mirror) is no attempt, so a clone stays at the
/// request's own span.
#[derive(Debug)]
pub(crate) struct Trail {
    span: Span,
    /// The span that the next attempt names as its parent.
    current: Arc<AtomicU64>,
    b3: b3::Forms,
}

/// Joins the trace of a request, or begins one, and writes the headers that go on.
pub(crate) fn join(
    headers: &mut HeaderMap,
    sampler: &Sampler,
    trace: impl FnOnce() -> u128,
    span: impl FnOnce() -> u64,
) -> (Span, Trail) {
    let forms = b3::Forms::of(headers);
    let given = w3c(headers);
    let is_w3c = given.is_some();
    let given = given.or_else(|| b3::read(headers));
    let id = given.map_or_else(|| TraceId::from_random(trace()), |given| given.trace);
    let is_sampled = sampler.decides(id, given.and_then(|given| given.is_sampled));
    let span =
        Span { trace: id, span: span().max(1), parent: given.map_or(0, |given| given.parent), is_sampled };
    let trail = Trail { span, current: Arc::new(AtomicU64::new(span.span)), b3: forms };
    // A state belongs to the `traceparent` that it came with.
    match state(headers).filter(|_| is_w3c) {
        Some(state) => drop(headers.insert(&TRACESTATE, state)),
        None => drop(headers.remove(&TRACESTATE)),
    }
    trail.write_all(headers);
    (span, trail)
}

/// The context of a `traceparent`; none if there is none, or several, or anything else than one.
fn w3c(headers: &HeaderMap) -> Option<Context> {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    parse(only.to_str().ok()?.trim_matches([' ', '\t']))
}

/// Reads a `traceparent` (section 3.2).
fn parse(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_sound = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    // Version ff is forbidden; later versions may add parts behind the flags.
    if !is_sound || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    Some(Context {
        trace: TraceId(u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?),
        parent: u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?,
        is_sampled: Some(u8::from_str_radix(flags, 16).ok()? & 1 == 1),
    })
}

/// Lower-case digits only (section 3.2.2).
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The `tracestate` that goes on: all lines as one, cut behind whole members.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept = String::new();
    let lines = headers.get_all(&TRACESTATE).iter().map(HeaderValue::to_str);
    // A line that is no text makes all of it unreadable.
    let lines: Vec<&str> = lines.collect::<Result<_, _>>().ok()?;
    let members = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|m| !m.is_empty());
    for member in members.take(STATE_MEMBERS_MAX) {
        if !member.contains('=') {
            return None;
        }
        if kept.len() + member.len() + usize::from(!kept.is_empty()) > STATE_BYTES_MAX {
            break;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(member);
    }
    HeaderValue::from_str(&kept).ok().filter(|value| !value.is_empty())
}

impl Trail {
    /// The next attempt has a span of its own.
    pub(crate) fn attempt(&self, span: u64) {
        self.current.store(span.max(1), Ordering::Relaxed);
    }

    /// The same for who tells it which attempt is next.
    pub(crate) fn shared(&self) -> Self {
        Self { span: self.span, current: self.current.clone(), b3: self.b3 }
    }

    /// Names the attempt at hand in the headers of its request. What a filter has taken out stays out.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if self.current.load(Ordering::Relaxed) != self.span.span && headers.contains_key(&TRACEPARENT) {
            self.write_all(headers);
        }
    }

    fn write_all(&self, headers: &mut HeaderMap) {
        let Span { trace, is_sampled, .. } = self.span;
        let current = self.current.load(Ordering::Relaxed);
        // Flags that are not known are not passed on.
        let text = format!("00-{trace}-{current:016x}-{:02x}", u8::from(is_sampled));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(&TRACEPARENT, value);
        }
        self.b3.write(headers, &Span { span: current, ..self.span });
    }
}

impl Clone for Trail {
    fn clone(&self) -> Self {
        Self { span: self.span, current: Arc::new(AtomicU64::new(self.span.span)), b3: self.b3 }
    }
}
