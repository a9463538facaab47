//! `when`: one attribute by its key.

use super::values::{self, Lists, Reader};
use crate::http::model::{Condition, HeaderName};
use crate::http::problem::Problem;
use crate::http::written;
use crate::jwt::ClaimPath;
use crate::normalize::header::is_taken_off;

/// Every key, those with a name in brackets included.
pub(in crate::http) const KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[NAME]",
    "request.headers[NAME]",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Keys that other versions or meshes know.
const UNSUPPORTED: &[&str] = &["destination.namespace", "destination.name", "destination.user"];

/// The same with a name in brackets or behind a dot.
const UNSUPPORTED_PREFIXES: &[&str] = &["destination.labels[", "experimental.envoy.filters."];

/// Reads one condition; nothing if it has a mistake.
pub(super) fn condition(
    reader: &mut Reader<'_>,
    at: &str,
    written: &written::Condition,
) -> Option<Condition> {
    use Condition as C;
    let key = &*written.key;
    if written.values.is_empty() && written.not_values.is_empty() {
        reader.bad(at, Problem::NoValues);
    }
    let lists = Lists::of(at, "values", &written.values, &written.not_values);
    reader.token_in_time(at, "key", key.starts_with("request.auth."));
    match key {
        "source.ip" => reader.values(&lists, values::range).map(C::SourceIp),
        "remote.ip" => reader.values(&lists, values::range).map(C::RemoteIp),
        "destination.ip" => reader.values(&lists, values::range).map(C::DestinationIp),
        "destination.port" => reader.values(&lists, values::port).map(C::DestinationPort),
        "source.namespace" => reader.values(&lists, values::namespace).map(C::Namespace),
        "source.principal" => reader.principals(&lists).map(C::Principal),
        "source.serviceAccount" => reader.accounts(&lists).map(C::ServiceAccount),
        "source.trustDomain" => reader.values(&lists, values::trust_domain).map(C::TrustDomain),
        "request.auth.principal" => reader.values(&lists, values::request_principal).map(C::RequestPrincipal),
        "request.auth.audiences" => reader.values(&lists, values::text).map(C::Audience),
        "request.auth.presenter" => reader.values(&lists, values::text).map(C::Presenter),
        "connection.sni" => reader.values(&lists, values::text).map(C::ServerName),
        named => match named_attribute(named) {
            Ok(Named::Host) => reader.values(&lists, values::host).map(C::Host),
            Ok(Named::Header(name)) => reader.values(&lists, values::text).map(|v| C::Header(name, v)),
            Ok(Named::Claim(path)) => reader.values(&lists, values::text).map(|v| C::Claim(path, v)),
            Err(problem) => {
                reader.bad(&format!("{at}.key"), problem);
                None
            }
        },
    }
}

/// An attribute with a name of its own.
enum Named {
    Host,
    Header(HeaderName),
    Claim(ClaimPath),
}

fn named_attribute(key: &str) -> Result<Named, Problem> {
    if let Some(names) = key.strip_prefix("request.auth.claims") {
        return claim(names).map(Named::Claim).ok_or(Problem::ClaimPath);
    }
    if let Some(name) = key.strip_prefix("request.headers") {
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = name.and_then(HeaderName::parse).ok_or(Problem::HeaderName)?;
        return match name.as_str() {
            // The header Host is the authority, whatever the version of HTTP.
            "host" => Ok(Named::Host),
            name if is_taken_off(name) => Err(Problem::InternalHeader),
            _ => Ok(Named::Header(name)),
        };
    }
    let unsupported = UNSUPPORTED.contains(&key) || UNSUPPORTED_PREFIXES.iter().any(|p| key.starts_with(p));
    match key {
        "" => Err(Problem::Missing),
        _ if unsupported => Err(Problem::UnsupportedKey),
        _ => Err(Problem::UnknownKey),
    }
}

/// `[a][b]`.
fn claim(names: &str) -> Option<ClaimPath> {
    let inner = names.strip_prefix('[')?.strip_suffix(']')?;
    ClaimPath::new(inner.split("]["))
}
