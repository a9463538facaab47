//! What tells requests apart for a limit: as bytes for buckets, as words for a rate limit service.

use std::io::Write;
use std::net::IpAddr;

use ambit_types::path::compared;
use ambit_types::{Identity, Str};
use xxhash_rust::xxh64::xxh64;

use crate::model::LimitKey;
use crate::request::{Headers, Request};

/// Bytes of one part of a key that are remembered as they are. What is longer is told apart by a hash of it, so that
/// long headers take no more memory than short ones.
const PART_BYTES_MAX: usize = 128;

/// Who sends a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// Its proven identity.
    pub identity: Option<&'a Identity>,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// Writes the key of a request for a [`super::Limiter`] into `out`. What the request lacks counts as empty: leaving a
/// header out is a key like any other, not a way around the limit.
pub fn key<H: Headers + ?Sized>(
    keys: &[LimitKey],
    request: &Request<'_, H>,
    caller: &Caller<'_>,
    out: &mut Vec<u8>,
) {
    out.clear();
    for key in keys {
        let begin = out.len();
        append(key, request, caller, out);
        // The length behind each part, so that no two lists of parts have the same bytes.
        let length = u64::try_from(out.len() - begin).unwrap_or(u64::MAX);
        if out.len() - begin > PART_BYTES_MAX {
            let hash = xxh64(&out[begin..], 0);
            out.truncate(begin + PART_BYTES_MAX);
            out.extend_from_slice(&hash.to_be_bytes());
        }
        out.extend_from_slice(&length.to_be_bytes());
    }
}

/// The descriptor of a request for a rate limit service (`envoy.extensions.common.ratelimit.v3`), entry by entry.
/// None if the request lacks one of its parts: such a descriptor is not asked about.
pub fn descriptor<H: Headers + ?Sized>(
    keys: &[LimitKey],
    request: &Request<'_, H>,
    caller: &Caller<'_>,
) -> Option<Vec<(Str, String)>> {
    let entry = |key: &LimitKey| {
        let mut value = Vec::new();
        let is_there = append(key, request, caller, &mut value);
        is_there.then(|| (name(key), String::from_utf8_lossy(&value).into_owned()))
    };
    keys.iter().map(entry).collect()
}

/// Appends what a request has for a key; false if it has nothing.
fn append<H: Headers + ?Sized>(
    key: &LimitKey,
    request: &Request<'_, H>,
    caller: &Caller<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let written = match key {
        LimitKey::Caller => caller.identity.map(|identity| write!(out, "{identity}")),
        LimitKey::CallerNamespace => caller.identity.map(|identity| write!(out, "{}", identity.namespace())),
        LimitKey::CallerAddress => caller.address.map(|address| write!(out, "{}", address.to_canonical())),
        LimitKey::Method => Some(write!(out, "{}", request.method)),
        LimitKey::Path => Some(write!(out, "{}", compared(request.path))),
        LimitKey::Fixed { value, .. } => Some(write!(out, "{value}")),
        LimitKey::Header(name) => {
            let mut lines = request.header_lines(name).peekable();
            lines.peek().is_some().then(|| {
                lines.enumerate().try_for_each(|(position, line)| {
                    let comma: &[u8] = if position > 0 { b"," } else { b"" };
                    out.write_all(comma).and_then(|()| out.write_all(line))
                })
            })
        }
    };
    written.map(|written| written.expect("writing to a Vec cannot fail")).is_some()
}

/// The name of a key in a descriptor.
fn name(key: &LimitKey) -> Str {
    match key {
        LimitKey::Caller => "source_principal".into(),
        LimitKey::CallerNamespace => "source_namespace".into(),
        LimitKey::CallerAddress => "remote_address".into(),
        LimitKey::Method => "method".into(),
        LimitKey::Path => "path".into(),
        LimitKey::Header(name) => name.clone(),
        LimitKey::Fixed { key, .. } => key.clone(),
    }
}
