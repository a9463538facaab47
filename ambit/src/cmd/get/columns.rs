//! Which columns each kind has, as `istioctl ztunnel-config` names them; more of them when somebody asks for `wide`.

use std::time::Duration;

use ambit_runtime::clock;
use serde_json::Value;

use super::Kind;
use crate::cmd::nodes::{cell, or_dash, short_id, text};
use crate::out;

/// The table of one kind.
pub(super) fn table(kind: Kind, items: &[Value], wide: bool) -> String {
    let (columns, more) = match kind {
        Kind::Workloads => (WORKLOADS, WORKLOADS_WIDE),
        Kind::Services => (SERVICES, SERVICES_WIDE),
        Kind::Policies => (POLICIES, POLICIES_WIDE),
        Kind::Certificates => (CERTIFICATES, CERTIFICATES_WIDE),
        Kind::Connections => (CONNECTIONS, CONNECTIONS_WIDE),
    };
    let columns: Vec<&Column> = columns.iter().chain(more.iter().filter(|_| wide)).collect();
    let rows: Vec<Value> = match kind {
        Kind::Certificates => items.iter().flat_map(certificates).collect(),
        Kind::Workloads | Kind::Services | Kind::Policies | Kind::Connections => items.to_vec(),
    };
    let heading: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let cells = |row: &Value| -> Vec<String> { columns.iter().map(|(_, cell)| or_dash(cell(row))).collect() };
    out::table(&heading, &rows.iter().map(cells).collect::<Vec<_>>())
}

type Column = (&'static str, fn(&Value) -> String);

const WORKLOADS: &[Column] = &[
    ("NAMESPACE", |v| text(v, "namespace")),
    ("POD NAME", |v| text(v, "name")),
    ("ADDRESS", |v| words(v, "workloadIps")),
    ("NODE", |v| text(v, "node")),
    ("WAYPOINT", waypoint),
    ("PROTOCOL", |v| text(v, "protocol")),
];

const WORKLOADS_WIDE: &[Column] = &[
    ("STATUS", |v| text(v, "status")),
    ("SERVICE ACCOUNT", |v| text(v, "serviceAccount")),
    ("POLICIES", |v| words(v, "authorizationPolicies")),
    ("SERVICES", |v| words(v, "services")),
];

const SERVICES: &[Column] = &[
    ("NAMESPACE", |v| text(v, "namespace")),
    ("SERVICE NAME", |v| text(v, "name")),
    ("SERVICE VIP", addresses),
    ("WAYPOINT", waypoint),
    ("ENDPOINTS", endpoints),
];

const SERVICES_WIDE: &[Column] = &[
    ("PORTS", ports),
    ("LOAD BALANCER", |v| text(&v["loadBalancer"], "mode")),
    ("HOSTNAME", |v| text(v, "hostname")),
];

const POLICIES: &[Column] = &[
    ("NAMESPACE", |v| text(v, "namespace")),
    ("POLICY NAME", |v| text(v, "name")),
    ("ACTION", |v| text(v, "action")),
    ("SCOPE", |v| text(v, "scope")),
];

const POLICIES_WIDE: &[Column] = &[
    ("RULES", |v| v["rules"].as_array().map_or(0, Vec::len).to_string()),
    ("DRY RUN", |v| text(v, "dryRun")),
];

const CERTIFICATES: &[Column] = &[
    ("CERTIFICATE NAME", |v| text(v, "identity")),
    ("TYPE", |v| text(v, "type")),
    ("STATUS", |v| text(v, "state")),
    ("VALID CERT", |v| text(v, "valid")),
    ("SERIAL NUMBER", |v| text(v, "serialNumber")),
    ("NOT AFTER", |v| text(v, "expirationTime")),
    ("NOT BEFORE", |v| text(v, "validFrom")),
];

const CERTIFICATES_WIDE: &[Column] =
    &[("NODE", |v| text(v, "reportedBy")), ("LAST ERROR", |v| text(v, "lastError"))];

const CONNECTIONS: &[Column] = &[
    ("WORKLOAD", |v| end(ends(v).0)),
    ("DIRECTION", |v| text(v, "direction")),
    ("LOCAL", |v| text(ends(v).0, "addr")),
    ("REMOTE", |v| text(ends(v).1, "addr")),
    ("REMOTE TARGET", |v| format!("{} {}", end(ends(v).1), text(v, "hbone_addr")).trim().to_owned()),
    ("PROTOCOL", |v| text(v, "path").to_uppercase()),
    ("ID", short_id),
];

const CONNECTIONS_WIDE: &[Column] = &[
    ("NODE", |v| text(v, "reportedBy")),
    ("AGE", age),
    ("BYTES SENT", |v| cell(v, "bytes_sent")),
    ("BYTES RECEIVED", |v| cell(v, "bytes_recv")),
    ("SERVICE", |v| text(v, "service")),
    ("WHOLE ID", |v| text(v, "conn_id")),
];

/// One row a certificate: the workload's own, those that issued it, the roots that it trusts.
fn certificates(item: &Value) -> Vec<Value> {
    let list = |key: &str| item[key].as_array().cloned().unwrap_or_default();
    let chain = list("certChain");
    let kinds = std::iter::once("Leaf").chain(std::iter::repeat("Intermediate"));
    // Without a certificate the row still says why.
    let chain = if chain.is_empty() { vec![Value::Null] } else { chain };
    let own = kinds.zip(chain);
    own.chain(list("rootCerts").into_iter().map(|root| ("Root", root)))
        .map(|(kind, c)| row(item, kind, &c))
        .collect()
}

fn row(item: &Value, kind: &str, certificate: &Value) -> Value {
    let mut row = item.clone();
    let valid = match kind {
        "Leaf" => item["valid"].clone(),
        _ => Value::from(is_in_time(&text(certificate, "expirationTime"))),
    };
    let fields = certificate.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    let own = [("type".to_owned(), Value::from(kind)), ("valid".to_owned(), valid)];
    if let Some(row) = row.as_object_mut() {
        row.extend(fields.chain(own));
    }
    row
}

fn is_in_time(not_after: &str) -> bool {
    humantime::parse_rfc3339(not_after).is_ok_and(|end| end > clock::wall())
}

/// The workload that the record is about and the other one.
fn ends(v: &Value) -> (&Value, &Value) {
    if v["direction"] == "inbound" { (&v["dst"], &v["src"]) } else { (&v["src"], &v["dst"]) }
}

fn end(end: &Value) -> String {
    match (text(end, "namespace"), text(end, "workload")) {
        (namespace, name) if !name.is_empty() => format!("{name}.{namespace}"),
        (_, _) => text(end, "addr"),
    }
}

fn age(v: &Value) -> String {
    let seconds = v["age_ms"].as_u64().unwrap_or(0) / 1000;
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn words(v: &Value, key: &str) -> String {
    v[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

/// Addresses of a service without their network.
fn addresses(v: &Value) -> String {
    let all = v["vips"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.map(|a| a.rsplit('/').next().unwrap_or(a)).collect::<Vec<_>>().join(",")
}

fn ports(v: &Value) -> String {
    let all = v["ports"].as_object().into_iter().flatten();
    all.map(|(port, target)| format!("{port}->{target}")).collect::<Vec<_>>().join(",")
}

fn endpoints(v: &Value) -> String {
    let all = v["endpoints"].as_object().map_or(0, serde_json::Map::len);
    let healthy =
        v["endpoints"].as_object().into_iter().flatten().filter(|(_, e)| e["status"] == "Healthy").count();
    format!("{healthy}/{all}")
}

fn waypoint(v: &Value) -> String {
    let at = &v["waypoint"];
    if at.is_null() {
        return "None".to_owned();
    }
    format!("{}:{}", text(at, "destination"), text(at, "hboneMtlsPort"))
}
