//! The values that conditions compare with, each list and each text within its bound.

use std::fmt::Display;

use ambit_policy::http::model::{Glob, PathMatch, RequestPrincipal, Template};
use ambit_policy::http::{SERVICE_ACCOUNTS_MAX, VALUE_BYTES_MAX, VALUES_MAX};
use ambit_policy::model::{ServiceAccount, StringMatch, Values};
use ipnet::IpNet;

use crate::codec::bounds::{each_of, encode_object, text};
use crate::codec::{Malformed, Problem, network, port, required};
use crate::proto::ambit::waypoint::v1 as wire;
use wire::text_match::Kind;

/// Most names of one trust domain, under each of which a principal is listed.
const TRUST_DOMAINS_MAX: usize = 16;

/// What another name of its trust domain may add to a principal, in bytes.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Reads both lists of one attribute.
fn both<W, T>(
    any: &[W],
    none: &[W],
    max: usize,
    read: impl Fn(&W) -> Result<T, Malformed>,
) -> Result<Values<T>, Malformed> {
    Ok(Values { any: each_of("any", any, max, &read)?, none: each_of("none", none, max, &read)? })
}

pub(super) fn texts(message: &wire::TextValues) -> Result<Values<StringMatch>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| text_match(one, VALUE_BYTES_MAX))
}

/// Principals stand there under every name of the mesh's trust domain.
pub(super) fn principals(message: &wire::TextValues) -> Result<Values<StringMatch>, Malformed> {
    let bytes_max = VALUE_BYTES_MAX + TRUST_DOMAIN_BYTES_MAX;
    both(&message.any, &message.none, VALUES_MAX * TRUST_DOMAINS_MAX, |one| text_match(one, bytes_max))
}

/// An empty text would agree with everything, or with nothing; neither is ever meant.
fn text_match(message: &wire::TextMatch, bytes_max: usize) -> Result<StringMatch, Malformed> {
    let read = |field, given: &String| text(field, required(field, given)?, bytes_max);
    match &message.kind {
        Some(Kind::Exact(exact)) => read("exact", exact).map(StringMatch::Exact),
        Some(Kind::Prefix(prefix)) => read("prefix", prefix).map(StringMatch::Prefix),
        Some(Kind::Suffix(suffix)) => read("suffix", suffix).map(StringMatch::Suffix),
        Some(Kind::Presence(())) => Ok(StringMatch::Presence),
        None => Err(Malformed::at("kind", Problem::Missing)),
    }
}

pub(super) fn globs(message: &wire::WordValues) -> Result<Values<Glob>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| {
        let pattern = text("", required("", one)?, VALUE_BYTES_MAX)?;
        if pattern.contains('/') {
            return Err(Malformed::at("", Problem::Form { text: one.clone(), what: "namespace" }));
        }
        Ok(Glob::new(pattern))
    })
}

pub(super) fn request_principals(message: &wire::WordValues) -> Result<Values<RequestPrincipal>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| {
        text("", one, VALUE_BYTES_MAX)?;
        let form = || Problem::Form { text: one.clone(), what: "token principal" };
        RequestPrincipal::parse(one).ok_or_else(|| Malformed::at("", form()))
    })
}

pub(super) fn accounts(message: &wire::AccountValues) -> Result<Values<ServiceAccount>, Malformed> {
    both(&message.any, &message.none, SERVICE_ACCOUNTS_MAX, |one| {
        Ok(ServiceAccount {
            namespace: text("namespace", required("namespace", &one.namespace)?, VALUE_BYTES_MAX)?,
            name: text("name", required("name", &one.name)?, VALUE_BYTES_MAX)?,
        })
    })
}

pub(super) fn ranges(message: &wire::RangeValues) -> Result<Values<IpNet>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| network::range("range", &one.address, one.length))
}

pub(super) fn ports(message: &wire::PortValues) -> Result<Values<u16>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| port("", *one))
}

pub(super) fn paths(message: &wire::PathValues) -> Result<Values<PathMatch>, Malformed> {
    both(&message.any, &message.none, VALUES_MAX, |one| match &one.kind {
        Some(wire::path_value::Kind::Text(wanted)) => {
            text_match(wanted, VALUE_BYTES_MAX).map(PathMatch::Text).map_err(|m| m.inside("text"))
        }
        Some(wire::path_value::Kind::Template(written)) => {
            text("template", written, VALUE_BYTES_MAX)?;
            let form = || Problem::Form { text: written.clone(), what: "path template" };
            Template::parse(written).map(PathMatch::Template).map_err(|_| Malformed::at("template", form()))
        }
        None => Err(Malformed::at("kind", Problem::Missing)),
    })
}

fn encode_list<T, W>(values: &[T], one: impl Fn(&T) -> W) -> Vec<W> {
    values.iter().map(one).collect()
}

pub(super) fn encode_texts(values: &Values<StringMatch>) -> wire::TextValues {
    wire::TextValues {
        any: encode_list(&values.any, encode_text),
        none: encode_list(&values.none, encode_text),
    }
}

fn encode_text(wanted: &StringMatch) -> wire::TextMatch {
    let kind = match wanted {
        StringMatch::Exact(text) => Kind::Exact(text.to_string()),
        StringMatch::Prefix(text) => Kind::Prefix(text.to_string()),
        StringMatch::Suffix(text) => Kind::Suffix(text.to_string()),
        StringMatch::Presence => Kind::Presence(()),
    };
    wire::TextMatch { kind: Some(kind) }
}

/// Values that are written as people write them.
pub(super) fn words<T: Display>(values: &Values<T>) -> wire::WordValues {
    wire::WordValues {
        any: encode_list(&values.any, T::to_string),
        none: encode_list(&values.none, T::to_string),
    }
}

pub(super) fn encode_accounts(values: &Values<ServiceAccount>) -> wire::AccountValues {
    let one = |account: &ServiceAccount| encode_object(&account.namespace, &account.name);
    wire::AccountValues { any: encode_list(&values.any, one), none: encode_list(&values.none, one) }
}

pub(super) fn encode_ranges(values: &Values<IpNet>) -> wire::RangeValues {
    let one = |range: &IpNet| {
        let (address, length) = network::encode_net(*range);
        wire::Range { address, length }
    };
    wire::RangeValues { any: encode_list(&values.any, one), none: encode_list(&values.none, one) }
}

pub(super) fn encode_ports(values: &Values<u16>) -> wire::PortValues {
    let one = |port: &u16| u32::from(*port);
    wire::PortValues { any: encode_list(&values.any, one), none: encode_list(&values.none, one) }
}

pub(super) fn encode_paths(values: &Values<PathMatch>) -> wire::PathValues {
    use wire::path_value::Kind;
    let one = |path: &PathMatch| {
        let kind = match path {
            PathMatch::Text(wanted) => Kind::Text(encode_text(wanted)),
            PathMatch::Template(template) => Kind::Template(template.to_string()),
        };
        wire::PathValue { kind: Some(kind) }
    };
    wire::PathValues { any: encode_list(&values.any, one), none: encode_list(&values.none, one) }
}
