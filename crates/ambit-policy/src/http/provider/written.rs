//! A provider as people write it: an element of `extensionProviders` in Istio's mesh configuration, nothing interpreted.
//!
//! Only authorizers; elements for logs, traces and metrics are not read as this type. [`super::compile()`] reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Provider {
    /// What policies call it.
    pub name: String,
    /// Asked in HTTP.
    pub envoy_ext_authz_http: Option<Http>,
    /// Asked in gRPC.
    pub envoy_ext_authz_grpc: Option<Grpc>,
}

/// An authorizer that is asked in HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// `HOST` or `NAMESPACE/HOST`.
    pub service: String,
    /// Port of the service.
    pub port: u32,
    /// Longest wait, as `500ms`.
    pub timeout: Option<String>,
    /// Put before the path.
    pub path_prefix: String,
    /// Whether requests pass without an answer.
    pub fail_open: bool,
    /// Routes are always chosen after the answer, so this changes nothing.
    pub clear_route_cache: bool,
    /// Status without an answer, as text.
    pub status_on_error: String,
    /// The former name of `include_request_headers_in_check`.
    pub include_headers_in_check: Vec<String>,
    /// Headers that are sent.
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that are sent with these values.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// Not supported.
    pub include_request_body_in_check: Option<Body>,
    /// Headers of a yes for the request.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of a no for the client.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of a yes for the client.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// An authorizer that is asked in gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Grpc {
    /// `HOST` or `NAMESPACE/HOST`.
    pub service: String,
    /// Port of the service.
    pub port: u32,
    /// Longest wait, as `500ms`.
    pub timeout: Option<String>,
    /// Whether requests pass without an answer.
    pub fail_open: bool,
    /// Routes are always chosen after the answer, so this changes nothing.
    pub clear_route_cache: bool,
    /// Status without an answer, as text.
    pub status_on_error: String,
    /// Not supported.
    pub include_request_body_in_check: Option<Body>,
}

/// How much of the body is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Body {
    /// Most bytes.
    pub max_request_bytes: u32,
    /// Whether a longer body is cut.
    pub allow_partial_message: bool,
    /// Whether it is sent as bytes.
    pub pack_as_bytes: bool,
}
