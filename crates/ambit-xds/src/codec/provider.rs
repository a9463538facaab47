//! `ambit.waypoint.v1.ExtensionProvider` and [`Provider`]: whom CUSTOM policies ask.
//!
//! Every provider goes through the check that the mesh configuration goes through, so what is refused there is refused
//! here too.

use ambit_policy::http::provider::{
    Check, HEADERS_MAX, HttpCheck, Invalid, Provider, StringMatch, TIMEOUT, compile, written,
};

use super::bounds::{nanos, needs, number, time, unpack};
use super::{Malformed, Problem};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;

/// Statuses that a refusal may have.
const STATUSES: (u32, u32) = (400, 599);

/// Name of its resource: `NAME`.
pub fn name(provider: &Provider) -> String {
    provider.name.to_string()
}

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode_any(any: &Any) -> Result<Provider, Malformed> {
    decode(&unpack(any, "extension_provider")?)
}

/// Reads a provider.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable. A way of asking of an unknown kind is such a field.
pub fn decode(message: &wire::ExtensionProvider) -> Result<Provider, Malformed> {
    needs(&message.needs)?;
    let timeout = time("timeout_nanos", message.timeout_nanos, TIMEOUT)?;
    number("status_on_error", message.status_on_error, STATUSES)?;
    let invalid = |all: Vec<Invalid>| {
        let first = all.into_iter().next();
        first.map_or_else(
            || Malformed::at("", Problem::Missing),
            |one| Malformed::at(one.at, Problem::Provider(one.problem)),
        )
    };
    // The time is checked as a number.
    let provider = compile(&as_written(message)?).map_err(invalid)?;
    Ok(Provider { timeout, ..provider })
}

/// The provider as the mesh configuration would say it, but for the time.
fn as_written(message: &wire::ExtensionProvider) -> Result<written::Provider, Malformed> {
    use wire::extension_provider::Check as Wire;
    let service = match message.namespace.as_str() {
        "" => message.hostname.clone(),
        namespace => format!("{namespace}/{}", message.hostname),
    };
    let (port, fail_open) = (message.port, message.fail_open);
    let status_on_error = message.status_on_error.to_string();
    let mut provider = written::Provider { name: message.name.clone(), ..written::Provider::default() };
    match &message.check {
        None => return Err(Malformed::at("check", Problem::Missing)),
        Some(Wire::Grpc(())) => {
            let grpc = written::Grpc { service, port, fail_open, status_on_error, ..Default::default() };
            provider.envoy_ext_authz_grpc = Some(grpc);
        }
        Some(Wire::Http(check)) => {
            let found = check.additional_headers.len();
            if found > HEADERS_MAX {
                return Err(Malformed::at(
                    "http.additional_headers",
                    Problem::TooMany { found, max: HEADERS_MAX },
                ));
            }
            let additional = check.additional_headers.iter();
            let additional = additional.map(|one| (one.name.clone(), one.value.clone())).collect();
            provider.envoy_ext_authz_http = Some(written::Http {
                service,
                port,
                fail_open,
                status_on_error,
                path_prefix: check.path_prefix.clone(),
                include_request_headers_in_check: check.request_headers.clone(),
                include_additional_headers_in_check: additional,
                headers_to_upstream_on_allow: check.upstream_on_allow.clone(),
                headers_to_downstream_on_allow: check.downstream_on_allow.clone(),
                headers_to_downstream_on_deny: check.downstream_on_deny.clone(),
                ..written::Http::default()
            });
        }
    }
    Ok(provider)
}

/// Writes a provider as a message of its type.
pub fn encode_any(provider: &Provider) -> Any {
    Any::pack(super::EXTENSION_PROVIDER, &encode(provider))
}

/// Writes a provider.
pub fn encode(provider: &Provider) -> wire::ExtensionProvider {
    use wire::extension_provider::Check as Wire;
    let Provider { name, service, port, timeout, fail_open, status_on_error, check } = provider;
    wire::ExtensionProvider {
        name: name.to_string(),
        namespace: service.namespace.as_deref().unwrap_or_default().to_owned(),
        hostname: service.hostname.to_string(),
        port: (*port).into(),
        timeout_nanos: nanos(*timeout),
        fail_open: *fail_open,
        status_on_error: (*status_on_error).into(),
        check: Some(match check {
            Check::Grpc => Wire::Grpc(()),
            Check::Http(http) => Wire::Http(encode_http(http)),
        }),
        needs: Vec::new(),
    }
}

fn encode_http(check: &HttpCheck) -> wire::HttpCheck {
    let names = |list: &[StringMatch]| list.iter().map(ToString::to_string).collect();
    let additional = check.additional_headers.iter();
    wire::HttpCheck {
        path_prefix: check.path_prefix.to_string(),
        request_headers: names(&check.request_headers),
        additional_headers: additional
            .map(|(name, value)| wire::Header { name: name.to_string(), value: value.to_string() })
            .collect(),
        upstream_on_allow: names(&check.upstream_on_allow),
        downstream_on_allow: names(&check.downstream_on_allow),
        downstream_on_deny: names(&check.downstream_on_deny),
    }
}
