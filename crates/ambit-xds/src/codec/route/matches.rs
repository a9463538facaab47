//! What requests have to be like.
//!
//! A comparison of an unknown kind makes its frontend unusable: a match without one of its conditions wants requests
//! that it was not written for.

use ambit_route::model::limits::{CONDITIONS_MAX, PATH_BYTES_MAX, PATTERN_BYTES_MAX};
use ambit_route::model::{GrpcMatch, HttpMatch, NameMatch, PathMatch, ValueMatch};

use crate::codec::bounds::{each_of, maybe, present, text, within};
use crate::codec::{Malformed, Problem, required};
use crate::proto::ambit::waypoint::v1 as wire;

/// A match and its message.
pub(in crate::codec) trait Match: Sized {
    /// The message.
    type Wire;

    fn decode(message: &Self::Wire) -> Result<Self, Malformed>;
    fn encode(&self) -> Self::Wire;
}

impl Match for HttpMatch {
    type Wire = wire::HttpMatch;

    fn decode(message: &Self::Wire) -> Result<Self, Malformed> {
        Ok(Self {
            path: message.path.as_ref().map(|path| within("path", path_match(path))).transpose()?,
            method: maybe(message.method.as_ref()),
            headers: names("headers", &message.headers)?,
            query: names("query", &message.query)?,
        })
    }

    fn encode(&self) -> Self::Wire {
        wire::HttpMatch {
            path: self.path.as_ref().map(encode_path),
            method: self.method.as_ref().map(ToString::to_string),
            headers: encode_names(&self.headers),
            query: encode_names(&self.query),
        }
    }
}

impl Match for GrpcMatch {
    type Wire = wire::GrpcMatch;

    fn decode(message: &Self::Wire) -> Result<Self, Malformed> {
        let (service, method) = (message.service.as_ref(), message.method.as_ref());
        Ok(Self {
            service: service.map(|one| within("service", value(one))).transpose()?,
            method: method.map(|one| within("method", value(one))).transpose()?,
            headers: names("headers", &message.headers)?,
        })
    }

    fn encode(&self) -> Self::Wire {
        wire::GrpcMatch {
            service: self.service.as_ref().map(encode_value),
            method: self.method.as_ref().map(encode_value),
            headers: encode_names(&self.headers),
        }
    }
}

fn path_match(message: &wire::PathMatch) -> Result<PathMatch, Malformed> {
    use wire::path_match::Kind;
    match &message.kind {
        Some(Kind::Exact(path)) => text("exact", path, PATH_BYTES_MAX).map(PathMatch::Exact),
        Some(Kind::Prefix(path)) => text("prefix", path, PATH_BYTES_MAX).map(PathMatch::Prefix),
        Some(Kind::Regex(pattern)) => text("regex", pattern, PATTERN_BYTES_MAX).map(PathMatch::Regex),
        Some(Kind::Start(start)) => text("start", start, PATH_BYTES_MAX).map(PathMatch::Start),
        None => Err(Malformed::at("kind", Problem::Missing)),
    }
}

fn encode_path(path: &PathMatch) -> wire::PathMatch {
    use wire::path_match::Kind;
    let kind = match path {
        PathMatch::Exact(path) => Kind::Exact(path.to_string()),
        PathMatch::Prefix(path) => Kind::Prefix(path.to_string()),
        PathMatch::Regex(pattern) => Kind::Regex(pattern.to_string()),
        PathMatch::Start(start) => Kind::Start(start.to_string()),
    };
    wire::PathMatch { kind: Some(kind) }
}

fn names(field: &str, list: &[wire::NameMatch]) -> Result<Vec<NameMatch>, Malformed> {
    each_of(field, list, CONDITIONS_MAX, |one| {
        let name = required("name", &one.name)?.into();
        Ok(NameMatch { name, value: within("value", value(present("kind", one.value.as_ref())?))? })
    })
}

fn encode_names(list: &[NameMatch]) -> Vec<wire::NameMatch> {
    let one = |one: &NameMatch| wire::NameMatch {
        name: one.name.to_string(),
        value: Some(encode_value(&one.value)),
    };
    list.iter().map(one).collect()
}

fn value(message: &wire::ValueMatch) -> Result<ValueMatch, Malformed> {
    use wire::value_match::Kind;
    match &message.kind {
        Some(Kind::Exact(exact)) => Ok(ValueMatch::Exact((&**exact).into())),
        Some(Kind::Regex(pattern)) => text("regex", pattern, PATTERN_BYTES_MAX).map(ValueMatch::Regex),
        Some(Kind::Present(())) => Ok(ValueMatch::Present),
        Some(Kind::Absent(())) => Ok(ValueMatch::Absent),
        None => Err(Malformed::at("kind", Problem::Missing)),
    }
}

fn encode_value(value: &ValueMatch) -> wire::ValueMatch {
    use wire::value_match::Kind;
    let kind = match value {
        ValueMatch::Exact(exact) => Kind::Exact(exact.to_string()),
        ValueMatch::Regex(pattern) => Kind::Regex(pattern.to_string()),
        ValueMatch::Present => Kind::Present(()),
        ValueMatch::Absent => Kind::Absent(()),
    };
    wire::ValueMatch { kind: Some(kind) }
}
