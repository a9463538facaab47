//! Whether a request agrees with the conditions of a match: the only place where they are compared.
//!
//! Works on bytes, case-sensitively, without allocating: but for a header on several lines or an encoded query value
//! that a pattern has to see as one text. Paths that are compared as a whole or by segments are not here; the index
//! finds those, unless rules are tried in order.

use ambit_types::Str;

use crate::request::{Headers, Hidden};

mod asked;
mod pattern;
#[cfg(test)]
mod tests;

pub(crate) use asked::{Asked, Slots};
pub(crate) use pattern::Pattern;
pub use pattern::PatternError;

/// Something a request must fulfil.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// The method is this one.
    Method(Str),
    /// A header, by its name in lower case.
    Header(Str, Test),
    /// A query parameter, and where [`Asked`] has its value.
    Query(Str, usize, Test),
    /// The path is of this form.
    Path(Pattern),
    /// The path is this one.
    PathIs(Box<str>),
    /// The path begins with these letters.
    PathStart(Box<str>),
    /// The path begins with these segments; no slash at their end counts, and none are every path.
    PathBelow(Box<str>),
    /// The service of a gRPC call.
    GrpcService(Test),
    /// The method of a gRPC call.
    GrpcMethod(Test),
}

/// How a value is compared.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// Equal.
    Exact(Str),
    /// Of this form.
    Pattern(Pattern),
    /// There.
    Present,
    /// Not there.
    Absent,
}

/// What a condition reads of a request, so that conditions on the same thing can be told by its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Attribute {
    Method,
    Header(Str),
    Query(usize),
    GrpcService,
    GrpcMethod,
}

impl Condition {
    /// Whether the request fulfils it.
    pub(crate) fn agrees<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> bool {
        let request = asked.request;
        match self {
            Self::Method(method) => **method == *request.method,
            Self::Header(name, test) => header_agrees(test, request.header_lines(name)),
            Self::Query(_, slot, test) => test.agrees(asked.query_value(*slot)),
            Self::Path(pattern) => pattern.is_match(request.path.as_bytes()),
            Self::PathIs(path) => **path == *request.path,
            Self::PathStart(start) => request.path.starts_with(&**start),
            Self::PathBelow(prefix) => is_below(request.path, prefix),
            Self::GrpcService(test) => {
                test.agrees(request.grpc_call().map(|(service, _)| service.as_bytes()))
            }
            Self::GrpcMethod(test) => test.agrees(request.grpc_call().map(|(_, method)| method.as_bytes())),
        }
    }

    /// What it reads that was not kept of a request whose method and path were; none if it reads nothing of the kind.
    pub(crate) fn reads(&self, hidden: Hidden) -> Option<String> {
        match self {
            Self::Header(name, _) if **name == *"host" => hidden.host.then(|| "host".to_owned()),
            Self::Header(name, _) => Some(format!("header {name}")),
            Self::Query(name, ..) => Some(format!("query parameter {name}")),
            Self::Method(_)
            | Self::Path(_)
            | Self::PathIs(_)
            | Self::PathStart(_)
            | Self::PathBelow(_)
            | Self::GrpcService(_)
            | Self::GrpcMethod(_) => None,
        }
    }

    /// The one value that agrees, and what it is a value of; none if there may be several.
    pub(crate) fn only_value(&self) -> Option<(Attribute, &Str)> {
        match self {
            Self::Method(method) => Some((Attribute::Method, method)),
            Self::Header(name, Test::Exact(value)) => Some((Attribute::Header(name.clone()), value)),
            Self::Query(_, slot, Test::Exact(value)) => Some((Attribute::Query(*slot), value)),
            Self::GrpcService(Test::Exact(value)) => Some((Attribute::GrpcService, value)),
            Self::GrpcMethod(Test::Exact(value)) => Some((Attribute::GrpcMethod, value)),
            Self::Header(..)
            | Self::Query(..)
            | Self::Path(_)
            | Self::PathIs(_)
            | Self::PathStart(_)
            | Self::PathBelow(_)
            | Self::GrpcService(_)
            | Self::GrpcMethod(_) => None,
        }
    }
}

/// Whether a path begins with the segments of a prefix, as the tree of prefixes finds it.
fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !prefix.is_empty()))
}

impl Test {
    fn agrees(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Exact(want), Some(value)) => want.as_bytes() == value,
            (Self::Pattern(pattern), Some(value)) => pattern.is_match(value),
            (Self::Present, Some(_)) | (Self::Absent, None) => true,
            (Self::Exact(_) | Self::Pattern(_) | Self::Present, None) | (Self::Absent, Some(_)) => false,
        }
    }
}

/// Compares a header's lines as if they stood on one, joined by commas (RFC 9110 section 5.3).
fn header_agrees<'a>(test: &Test, mut lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let first = lines.next();
    let Some(second) = lines.next() else { return test.agrees(first) };
    let all = first.into_iter().chain([second]).chain(lines);
    match test {
        Test::Exact(want) => is_joined(want.as_bytes(), all),
        Test::Pattern(pattern) => pattern.is_match(&all.collect::<Vec<_>>().join(&b',')),
        Test::Present => true,
        Test::Absent => false,
    }
}

/// Whether a text is these lines joined by commas.
fn is_joined<'a>(text: &[u8], lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut rest = Some(text);
    for (index, line) in lines.enumerate() {
        let after_comma = if index == 0 { rest } else { rest.and_then(|r| r.strip_prefix(b",")) };
        rest = after_comma.and_then(|r| r.strip_prefix(line));
    }
    rest == Some(b"")
}
