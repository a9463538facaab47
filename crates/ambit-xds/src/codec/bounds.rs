//! Lists, texts, numbers and times within their bounds, for the resources of a waypoint.

use std::time::Duration;

use ambit_policy::http::unknown_features;
use ambit_types::{PolicyKey, ServiceKey, Str};
use prost::Message;

use super::{Malformed, Problem, required};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;

/// The message that a response carries.
pub(super) fn unpack<M: Message + Default>(any: &Any, what: &str) -> Result<M, Malformed> {
    M::decode(any.value.clone()).map_err(|cause| Malformed::at(what, Problem::Encoding(cause.to_string())))
}

/// Refuses a resource that needs a reader who knows more: read without that, it would mean something else.
pub(super) fn needs(names: &[String]) -> Result<(), Malformed> {
    let unknown = unknown_features(names.iter().map(String::as_str));
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Malformed::at("needs", Problem::Needs { names: unknown.join(", ") }))
}

/// A message that has to be there.
pub(super) fn present<'m, M>(field: &str, message: Option<&'m M>) -> Result<&'m M, Malformed> {
    message.ok_or_else(|| Malformed::at(field, Problem::Missing))
}

/// What a message in a field says, with the field named in what is wrong.
pub(super) fn within<T>(field: &str, read: Result<T, Malformed>) -> Result<T, Malformed> {
    read.map_err(|malformed| malformed.inside(field))
}

/// Reads each entry of a list of any length; the message bounds it.
pub(super) fn each<W, T>(
    field: &str,
    list: &[W],
    mut read: impl FnMut(&W) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    list.iter()
        .enumerate()
        .map(|(index, entry)| read(entry).map_err(|m| m.inside(&format!("{field}[{index}]"))))
        .collect()
}

/// Reads each entry of a list of at most `max`.
pub(super) fn each_of<W, T>(
    field: &str,
    list: &[W],
    max: usize,
    read: impl FnMut(&W) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    if list.len() > max {
        return Err(Malformed::at(field, Problem::TooMany { found: list.len(), max }));
    }
    each(field, list, read)
}

/// A text of at most `max` bytes.
pub(super) fn text(field: &str, text: &str, max: usize) -> Result<Str, Malformed> {
    if text.len() > max {
        return Err(Malformed::at(field, Problem::TooLong { bytes: text.len(), max }));
    }
    Ok(text.into())
}

/// Texts as they are.
pub(super) fn texts(list: &[String]) -> Vec<Str> {
    list.iter().map(|text| Str::from(&**text)).collect()
}

/// Texts as they go on the wire.
pub(super) fn encode_texts(list: &[Str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// A text that may be absent.
pub(super) fn maybe(text: Option<&String>) -> Option<Str> {
    text.map(|text| Str::from(&**text))
}

/// A number from `min` to `max`.
pub(super) fn number(field: &str, found: u32, (min, max): (u32, u32)) -> Result<u32, Malformed> {
    if (min..=max).contains(&found) {
        return Ok(found);
    }
    let [found, min, max] = [found, min, max].map(u64::from);
    Err(Malformed::at(field, Problem::Range { found, min, max }))
}

/// A number that fits the type of a status.
pub(super) fn status(field: &str, found: u32) -> Result<u16, Malformed> {
    let out_of_range = || Problem::Range { found: found.into(), min: 0, max: u16::MAX.into() };
    u16::try_from(found).map_err(|_| Malformed::at(field, out_of_range()))
}

/// A time from `min` to `max`.
pub(super) fn time(field: &str, nanos: u64, (min, max): (Duration, Duration)) -> Result<Duration, Malformed> {
    let found = Duration::from_nanos(nanos);
    if (min..=max).contains(&found) {
        return Ok(found);
    }
    Err(Malformed::at(field, Problem::Duration { found, min, max }))
}

/// Nanoseconds; what is longer than 584 years is written as that.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of a time that may be absent.
pub(super) fn maybe_nanos(time: Option<Duration>) -> Option<u64> {
    time.map(nanos)
}

/// A time that may be absent.
pub(super) fn maybe_time(nanos: Option<u64>) -> Option<Duration> {
    nanos.map(Duration::from_nanos)
}

/// A service; its parts have no slash, because names of resources are made of them.
pub(super) fn service(message: Option<&wire::ServiceRef>) -> Result<ServiceKey, Malformed> {
    let message = present("service", message)?;
    let namespace = required("service.namespace", &message.namespace)?;
    let hostname = required("service.hostname", &message.hostname)?;
    ServiceKey::parse(&format!("{namespace}/{hostname}"))
        .map_err(|cause| Malformed::at("service", Problem::Key(cause)))
}

pub(super) fn encode_service(key: &ServiceKey) -> wire::ServiceRef {
    wire::ServiceRef { namespace: key.namespace.to_string(), hostname: key.hostname.to_string() }
}

/// Namespace and name of an object, neither empty nor with a slash.
pub(super) fn object(field: &str, message: Option<&wire::ObjectRef>) -> Result<PolicyKey, Malformed> {
    let message = present(field, message)?;
    let part = |part: &str| format!("{field}.{part}");
    let namespace = required(&part("namespace"), &message.namespace)?;
    let name = required(&part("name"), &message.name)?;
    super::policy_key(field, &format!("{namespace}/{name}"))
}

pub(super) fn encode_object(namespace: &str, name: &str) -> wire::ObjectRef {
    wire::ObjectRef { namespace: namespace.to_owned(), name: name.to_owned() }
}
