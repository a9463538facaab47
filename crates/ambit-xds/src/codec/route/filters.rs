//! Filters of a rule or backend.
//!
//! One of an unknown kind, or with a part of an unknown kind, is an unsupported filter: its rule answers 500.

use ambit_route::model::limits::{FILTERS_MAX, HEADER_CHANGES_MAX, PATH_BYTES_MAX, RESPOND_BYTES_MAX};
use ambit_route::model::{
    Cors, Filter, Fraction, HeaderChange, Mirror, PathChange, Redirect, Respond, Rewrite, Scheme,
};
use ambit_types::Str;

use super::backends;
use crate::codec::bounds::{each_of, encode_texts, maybe, present, status, text, texts, within};
use crate::codec::{Malformed, Notes, port, required};
use crate::proto::ambit::waypoint::v1 as wire;
use wire::filter::Kind;

/// Reads the filters of a rule or backend.
pub(super) fn decode(list: &[wire::Filter], notes: &mut Notes) -> Result<Vec<Filter>, Malformed> {
    each_of("filters", list, FILTERS_MAX, |one| filter(one, notes))
}

fn filter(message: &wire::Filter, notes: &mut Notes) -> Result<Filter, Malformed> {
    match &message.kind {
        Some(Kind::RequestHeaders(one)) => {
            within("request_headers", headers(one)).map(Filter::RequestHeaders)
        }
        Some(Kind::ResponseHeaders(one)) => {
            within("response_headers", headers(one)).map(Filter::ResponseHeaders)
        }
        Some(Kind::Redirect(one)) => within("redirect", redirect(one, notes)),
        Some(Kind::Rewrite(one)) => within("rewrite", rewrite(one, notes)),
        Some(Kind::Mirror(one)) => within("mirror", mirror(one, notes)).map(Filter::Mirror),
        Some(Kind::Cors(one)) => Ok(Filter::Cors(cors(one))),
        Some(Kind::Respond(one)) => within("respond", respond(one)).map(Filter::Respond),
        Some(Kind::Unsupported(what)) => Ok(Filter::Unsupported { what: (&**what).into() }),
        None => Ok(unsupported("a filter of an unknown kind", notes)),
    }
}

fn unsupported(what: &str, notes: &mut Notes) -> Filter {
    notes.add("filters", format_args!("{what}; its rule answers 500"));
    Filter::Unsupported { what: what.into() }
}

fn headers(message: &wire::HeaderChange) -> Result<HeaderChange, Malformed> {
    let lines = |field, list: &[wire::Header]| {
        each_of(field, list, HEADER_CHANGES_MAX, |one| {
            Ok((Str::from(required("name", &one.name)?), Str::from(&*one.value)))
        })
    };
    let name = |name: &String| required("", name).map(Str::from);
    Ok(HeaderChange {
        set: lines("set", &message.set)?,
        add: lines("add", &message.add)?,
        remove: each_of("remove", &message.remove, HEADER_CHANGES_MAX, name)?,
    })
}

fn redirect(message: &wire::Redirect, notes: &mut Notes) -> Result<Filter, Malformed> {
    let scheme = match wire::Scheme::try_from(message.scheme) {
        Ok(wire::Scheme::Unspecified) => None,
        Ok(wire::Scheme::Http) => Some(Scheme::Http),
        Ok(wire::Scheme::Https) => Some(Scheme::Https),
        Err(_) => return Ok(unsupported("a redirect to an unknown scheme", notes)),
    };
    let Ok(path) = path_change(message.path.as_ref())? else {
        return Ok(unsupported("a redirect to an unknown kind of path", notes));
    };
    Ok(Filter::Redirect(Redirect {
        scheme,
        hostname: maybe(message.hostname.as_ref()),
        path,
        port: message.port.map(|number| port("port", number)).transpose()?,
        status: message.status.map(|number| status("status", number)).transpose()?,
    }))
}

fn rewrite(message: &wire::Rewrite, notes: &mut Notes) -> Result<Filter, Malformed> {
    let Ok(path) = path_change(message.path.as_ref())? else {
        return Ok(unsupported("a rewrite to an unknown kind of path", notes));
    };
    Ok(Filter::Rewrite(Rewrite { hostname: maybe(message.hostname.as_ref()), path }))
}

/// A change of the path that is of no known kind.
struct Unknown;

fn path_change(message: Option<&wire::PathChange>) -> Result<Result<Option<PathChange>, Unknown>, Malformed> {
    use wire::path_change::Kind;
    let Some(message) = message else { return Ok(Ok(None)) };
    let change = match &message.kind {
        Some(Kind::Full(path)) => PathChange::Full(text("path.full", path, PATH_BYTES_MAX)?),
        Some(Kind::Prefix(path)) => PathChange::Prefix(text("path.prefix", path, PATH_BYTES_MAX)?),
        None => return Ok(Err(Unknown)),
    };
    Ok(Ok(Some(change)))
}

fn mirror(message: &wire::Mirror, notes: &mut Notes) -> Result<Mirror, Malformed> {
    let target = backends::target(present("target", message.target.as_ref())?, notes);
    Ok(Mirror { target: within("target", target)?, fraction: fraction(message.fraction.as_ref())? })
}

/// Reads a share, which has to be there: neither all nor none is meant by leaving it out.
pub(super) fn fraction(message: Option<&wire::Fraction>) -> Result<Fraction, Malformed> {
    let message = present("fraction", message)?;
    Ok(Fraction { numerator: message.numerator, denominator: message.denominator })
}

pub(super) fn encode_fraction(fraction: Fraction) -> wire::Fraction {
    wire::Fraction { numerator: fraction.numerator, denominator: fraction.denominator }
}

fn cors(message: &wire::Cors) -> Cors {
    Cors {
        allow_origins: texts(&message.allow_origins),
        allow_methods: texts(&message.allow_methods),
        allow_headers: texts(&message.allow_headers),
        expose_headers: texts(&message.expose_headers),
        allow_credentials: message.allow_credentials,
        max_age_seconds: message.max_age_seconds,
    }
}

fn respond(message: &wire::Respond) -> Result<Respond, Malformed> {
    let body = text("body", &message.body, RESPOND_BYTES_MAX)?;
    Ok(Respond { status: status("status", message.status)?, body })
}

/// Writes the filters of a rule or backend.
pub(super) fn encode(list: &[Filter]) -> Vec<wire::Filter> {
    list.iter().map(|one| wire::Filter { kind: Some(encode_kind(one)) }).collect()
}

fn encode_kind(filter: &Filter) -> Kind {
    match filter {
        Filter::RequestHeaders(one) => Kind::RequestHeaders(encode_headers(one)),
        Filter::ResponseHeaders(one) => Kind::ResponseHeaders(encode_headers(one)),
        Filter::Redirect(one) => Kind::Redirect(encode_redirect(one)),
        Filter::Rewrite(one) => Kind::Rewrite(wire::Rewrite {
            hostname: one.hostname.as_ref().map(ToString::to_string),
            path: one.path.as_ref().map(encode_path_change),
        }),
        Filter::Mirror(one) => Kind::Mirror(wire::Mirror {
            target: Some(backends::encode_target(&one.target)),
            fraction: Some(encode_fraction(one.fraction)),
        }),
        Filter::Cors(one) => Kind::Cors(wire::Cors {
            allow_origins: encode_texts(&one.allow_origins),
            allow_methods: encode_texts(&one.allow_methods),
            allow_headers: encode_texts(&one.allow_headers),
            expose_headers: encode_texts(&one.expose_headers),
            allow_credentials: one.allow_credentials,
            max_age_seconds: one.max_age_seconds,
        }),
        Filter::Respond(one) => {
            Kind::Respond(wire::Respond { status: one.status.into(), body: one.body.to_string() })
        }
        Filter::Unsupported { what } => Kind::Unsupported(what.to_string()),
    }
}

fn encode_headers(change: &HeaderChange) -> wire::HeaderChange {
    let lines = |list: &[(Str, Str)]| {
        list.iter()
            .map(|(name, value)| wire::Header { name: name.to_string(), value: value.to_string() })
            .collect()
    };
    wire::HeaderChange {
        set: lines(&change.set),
        add: lines(&change.add),
        remove: encode_texts(&change.remove),
    }
}

fn encode_redirect(redirect: &Redirect) -> wire::Redirect {
    let scheme = match redirect.scheme {
        None => wire::Scheme::Unspecified,
        Some(Scheme::Http) => wire::Scheme::Http,
        Some(Scheme::Https) => wire::Scheme::Https,
    };
    wire::Redirect {
        scheme: scheme.into(),
        hostname: redirect.hostname.as_ref().map(ToString::to_string),
        path: redirect.path.as_ref().map(encode_path_change),
        port: redirect.port.map(u32::from),
        status: redirect.status.map(u32::from),
    }
}

fn encode_path_change(change: &PathChange) -> wire::PathChange {
    use wire::path_change::Kind;
    let kind = match change {
        PathChange::Full(path) => Kind::Full(path.to_string()),
        PathChange::Prefix(path) => Kind::Prefix(path.to_string()),
    };
    wire::PathChange { kind: Some(kind) }
}
