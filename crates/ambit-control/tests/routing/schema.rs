//! The routing tables as written: services, routes in force, requests and what must come of them.
//!
//! `tests/tables/routing/README.md` explains the form. How rows are run is the driver's affair.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One file of rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Namespace of names that are written without one, and of clients that are not named.
    pub(crate) namespace: String,
    /// Services by name, with their ports by number.
    pub(crate) services: BTreeMap<String, BTreeMap<u16, Port>>,
    /// Cases by the routes in force.
    pub(crate) groups: Vec<Group>,
}

/// A port of a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    /// Its name.
    pub(crate) name: String,
}

/// Cases under one set of routes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// What it shows, or the conformance test it is.
    pub(crate) name: String,
    /// The only routes in force.
    pub(crate) given: Vec<Manifest>,
    /// Errors that compiling them reports, as `ROUTE FIELD: WORDS`.
    #[serde(default)]
    pub(crate) reported: Vec<String>,
    /// The cases.
    pub(crate) when: Vec<Row>,
}

/// A route in the table's shorthand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Name, if it is an HTTPRoute.
    #[serde(rename = "HTTPRoute")]
    pub(crate) http: Option<String>,
    /// Name, if it is a GRPCRoute.
    #[serde(rename = "GRPCRoute")]
    pub(crate) grpc: Option<String>,
    /// Name, if it is a TLSRoute.
    #[serde(rename = "TLSRoute")]
    pub(crate) tls: Option<String>,
    /// Name, if it is a TCPRoute.
    #[serde(rename = "TCPRoute")]
    pub(crate) tcp: Option<String>,
    /// Name, if it is a VirtualService.
    #[serde(rename = "VirtualService")]
    pub(crate) import: Option<String>,
    /// Creation in seconds; the order of the list if it is not given.
    pub(crate) created: Option<u64>,
    /// As in the manifest, word for word.
    pub(crate) spec: Value,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// What it shows; unique in its group.
    pub(crate) name: String,
    /// Namespace of the client's identity.
    pub(crate) client: Option<String>,
    /// Service and port that the client connects to.
    pub(crate) to: String,
    /// What it sends.
    #[serde(default)]
    pub(crate) request: Sent,
    /// How often; 1 unless said.
    #[serde(default = "once")]
    pub(crate) times: u64,
    /// What backends do, attempt by attempt; the last goes on. They answer 200 at once unless said.
    #[serde(default)]
    pub(crate) upstream: Vec<Value>,
    /// What must come of it.
    pub(crate) expect: Expect,
    /// Drivers that run it; all if empty.
    #[serde(default)]
    pub(crate) only: Vec<String>,
}

fn once() -> u64 {
    1
}

/// What a client sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Sent {
    /// GET unless said.
    pub(crate) method: Option<String>,
    /// Path and query; `/` unless said.
    pub(crate) path: Option<String>,
    /// Host header; the service's name unless said.
    pub(crate) host: Option<String>,
    /// Header lines: a text, or a list of texts for several lines.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Value>,
    /// `SERVICE/METHOD` of a gRPC call, in place of method and path.
    pub(crate) grpc: Option<String>,
    /// Server name of a TLS connection that is passed through, in place of everything else.
    pub(crate) sni: Option<String>,
    /// A connection that is passed through, without TLS.
    #[serde(default)]
    pub(crate) stream: bool,
    /// Name of the cookie or header that the client repeats in further requests, as the last answer told it.
    pub(crate) stays: Option<String>,
    /// `held` (it can be sent again), `gone`; held unless said.
    pub(crate) body: Option<String>,
}

/// What must come of a case. What is not given is not looked at, but for `status`, which is 200 unless said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Expect {
    /// HTTP status that the client sees.
    #[serde(default = "success")]
    pub(crate) status: u16,
    /// gRPC status that the client sees.
    pub(crate) grpc: Option<u32>,
    /// Backend as `SERVICE:PORT`.
    pub(crate) backend: Option<String>,
    /// Percent of the requests by backend, or by status for those without one.
    #[serde(default)]
    pub(crate) share: BTreeMap<String, u64>,
    /// Rule that took it, as `ROUTE N` or `ROUTE NAME`.
    pub(crate) rule: Option<String>,
    /// What the backend sees.
    pub(crate) sees: Option<Seen>,
    /// Header lines that the client sees; null for none of that name.
    #[serde(default)]
    pub(crate) response: BTreeMap<String, Option<String>>,
    /// The `Location` that the client sees.
    pub(crate) location: Option<String>,
    /// Percent of the requests that each mirror sees.
    #[serde(default)]
    pub(crate) mirrored: BTreeMap<String, u64>,
    /// How many attempts are made.
    pub(crate) attempts: Option<u32>,
    /// Body of an answer.
    pub(crate) body: Option<String>,
}

fn success() -> u16 {
    200
}

/// What a backend sees.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    /// Path and query.
    pub(crate) path: Option<String>,
    /// Host.
    pub(crate) host: Option<String>,
    /// Header lines joined by commas; null for none of that name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Option<String>>,
}

impl Table {
    /// Reads a file.
    pub(crate) fn read(name: &str, text: &str) -> Self {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Row {
    /// Whether a driver (`pure`, `mesh`) runs the row.
    pub(crate) fn is_for(&self, driver: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == driver)
    }
}
