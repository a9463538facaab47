//! The standard labels of requests and connections, in the order that dashboards know them.
//!
//! All of them are closed sets: names that the control plane gave, identities that a certificate proved, and words of
//! ours. Nothing that a client writes (host, path, header) becomes one.

use std::fmt::Write as _;

use ambit_types::{Identity, ServiceKey, Uid, Workload};

use super::Record;

/// Longest label value, in bytes: names longer than Kubernetes permits are nobody's.
const VALUE_BYTES_MAX: usize = 253;

/// The largest status that gRPC knows; an application may write others, and any number of them.
const GRPC_STATUS_MAX: u32 = 16;

/// The largest status of HTTP that has a meaning (RFC 9110 section 15); an application may write more.
const STATUS_MAX: u16 = 599;

/// The status of HTTP that gRPC comes with, whatever its own is.
const STATUS_OF_GRPC: u16 = 200;

/// What tells one set of series from another; cheap to build and compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: Option<Uid>,
    identity: Identity,
    service: Option<ServiceKey>,
    destination: Option<Uid>,
    is_encrypted: bool,
    answer: Option<Answer>,
}

/// The part of a key that tells how a request ended; connections have none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answer {
    protocol: &'static str,
    code: Option<u16>,
    grpc_status: Option<u32>,
    flag: &'static str,
}

impl Key {
    /// The key of a request.
    pub(super) fn of_request(record: &Record<'_>) -> Self {
        let answer = Answer {
            protocol: protocol(record),
            code: code(record),
            grpc_status: grpc_status(record),
            flag: record.flag,
        };
        Self { answer: Some(answer), ..Self::of_connection(record) }
    }

    /// The key of a connection, however it ended.
    pub(super) fn of_connection(record: &Record<'_>) -> Self {
        Self {
            source: record.source.map(|workload| workload.uid.clone()),
            identity: record.source_identity.clone(),
            service: record.service.cloned(),
            destination: record.destination.map(|workload| workload.uid.clone()),
            is_encrypted: record.is_encrypted,
            answer: None,
        }
    }

    /// The workloads that the series tell of.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Uid> {
        self.source.iter().chain(&self.destination)
    }
}

/// Labels as a scrape shows them, around `response_flags`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    before: String,
    after: String,
}

impl Text {
    /// The labels of a request.
    pub(super) fn of_request(record: &Record<'_>) -> Self {
        let mut labels = Labels::of_ends(record);
        labels.push("request_protocol", protocol(record));
        let code = code(record).map(|code| code.to_string());
        labels.push("response_code", &code.unwrap_or_default());
        let grpc = grpc_status(record).map(|status| status.to_string());
        labels.push("grpc_response_status", &grpc.unwrap_or_default());
        Self::around(labels, record)
    }

    /// The labels of a connection.
    pub(super) fn of_connection(record: &Record<'_>) -> Self {
        let mut labels = Labels::of_ends(record);
        labels.push("request_protocol", "tcp");
        Self::around(labels, record)
    }

    fn around(Labels(before): Labels, record: &Record<'_>) -> Self {
        let mut after = Labels(String::new());
        let security = match (record.destination, record.is_encrypted) {
            (None, _) => "unknown",
            (Some(_), true) => "mutual_tls",
            (Some(_), false) => "none",
        };
        after.push("connection_security_policy", security);
        Self { before, after: format!(",{}", after.0) }
    }

    /// The label of the set that is counted instead of all those that there are too many of.
    pub(super) fn overflow() -> Self {
        Self { before: "overflow=\"true\"".to_owned(), after: String::new() }
    }

    /// All labels, with a flag.
    pub(super) fn with(&self, flag: &str) -> String {
        format!("{},response_flags=\"{flag}\"{}", self.before, self.after)
    }
}

/// Whether it is gRPC's or plain HTTP, whatever its version.
fn protocol(record: &Record<'_>) -> &'static str {
    if record.protocol == "grpc" { "grpc" } else { "http" }
}

fn code(record: &Record<'_>) -> Option<u16> {
    Some(record.code).filter(|code| *code <= STATUS_MAX)
}

/// Where it may stand: with every status of HTTP, an application had a series for each of thousands of pairs.
fn grpc_status(record: &Record<'_>) -> Option<u32> {
    let may_have = record.protocol == "grpc" && record.code == STATUS_OF_GRPC;
    record.grpc_status.filter(|status| may_have && *status <= GRPC_STATUS_MAX)
}

/// `name="value",…`.
struct Labels(String);

impl Labels {
    fn push(&mut self, name: &str, value: &str) {
        let is_known = !value.is_empty() && value.len() <= VALUE_BYTES_MAX;
        let Self(text) = self;
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{name}=\"{}\"", escaped(if is_known { value } else { "unknown" }));
    }

    /// Who reports, both ends, and the service that was called.
    fn of_ends(record: &Record<'_>) -> Self {
        let mut labels = Self(String::with_capacity(1024));
        let service = record.service;
        let host = service.map(|key| &*key.hostname).unwrap_or_default();
        labels.push("reporter", "waypoint");
        let source = Described::of(record.source);
        // Proven, whatever is known of the address.
        let namespace = match source.namespace {
            "" => record.source_identity.namespace(),
            known => known,
        };
        labels.push("source_workload", source.workload);
        labels.push("source_canonical_service", source.service);
        labels.push("source_canonical_revision", source.revision());
        labels.push("source_workload_namespace", namespace);
        labels.push("source_principal", &record.source_identity.to_string());
        labels.push("source_app", source.service);
        labels.push("source_version", source.version);
        labels.push("source_cluster", source.cluster);
        let destination = Described::of(record.destination);
        let principal = record.destination.map(|workload| workload.identity().to_string());
        labels.push("destination_workload", destination.workload);
        labels.push("destination_workload_namespace", destination.namespace);
        labels.push("destination_principal", &principal.unwrap_or_default());
        labels.push("destination_app", destination.service);
        labels.push("destination_version", destination.version);
        labels.push("destination_service", host);
        labels.push("destination_canonical_service", destination.service);
        labels.push("destination_canonical_revision", destination.revision());
        labels.push("destination_service_name", host.split('.').next().unwrap_or_default());
        labels.push("destination_service_namespace", service.map(|key| &*key.namespace).unwrap_or_default());
        labels.push("destination_cluster", destination.cluster);
        labels
    }
}

/// A label value between its quotes.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The describing words of one end.
#[derive(Default)]
struct Described<'a> {
    workload: &'a str,
    service: &'a str,
    version: &'a str,
    namespace: &'a str,
    cluster: &'a str,
}

impl<'a> Described<'a> {
    fn of(workload: Option<&'a Workload>) -> Self {
        let Some(known) = workload else { return Self::default() };
        Self {
            workload: &known.workload_name,
            service: &known.canonical_name,
            version: if known.canonical_revision.is_empty() { "latest" } else { &known.canonical_revision },
            namespace: &known.namespace,
            cluster: &known.cluster_id,
        }
    }

    /// Dashboards expect a revision of everybody, also of whom they do not know.
    fn revision(&self) -> &'a str {
        if self.version.is_empty() { "latest" } else { self.version }
    }
}
