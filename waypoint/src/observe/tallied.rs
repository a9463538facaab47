//! Requests and connections as what summaries count.

use std::time::Duration;

use ambit_types::{Identity, Str, Workload};
use ambit_xds::observe::{Example, Key, Side, Tally};
use ambit_xds::proto::ambit::observe::v1::Reporter;

use super::Record;

/// Statuses of gRPC that are the server's failure.
const GRPC_FAILED: [u32; 6] = [2, 4, 8, 13, 14, 15];

/// Counts a request.
pub(super) fn request(tally: &Tally, record: &Record<'_>) {
    let Some(cell) = tally.cell(key(record), || ends(record)) else { return };
    let grpc_failed = record.grpc_status.is_some_and(|status| GRPC_FAILED.contains(&status));
    let is_failed = record.code == 0 || record.code >= 500 || grpc_failed;
    cell.request(micros(record.duration), is_failed);
    cell.moved(record.bytes_received, record.bytes_sent);
}

/// Counts a connection that was passed through.
pub(super) fn connection(tally: &Tally, record: &Record<'_>) {
    let Some(cell) = tally.cell(key(record), || ends(record)) else { return };
    if !record.is_refused() {
        cell.open();
        cell.close();
    }
    cell.end();
    cell.moved(record.bytes_received, record.bytes_sent);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn key(record: &Record<'_>) -> Key {
    let proven = record.destination.filter(|_| record.is_encrypted).map(Workload::identity);
    Key {
        reporter: Reporter::Waypoint,
        source: side(record.source, Some(record.source_identity.clone())),
        destination: side(record.destination, proven),
        service: record.service.map_or_else(Str::default, |service| service.hostname.clone()),
        port: record.target.port(),
        path: "waypoint",
        is_denied: record.is_refused(),
        reason: record.reason,
        policy: record.decided_by.cloned(),
        client: None,
    }
}

fn side(workload: Option<&Workload>, identity: Option<Identity>) -> Side {
    let named = |w: &Workload| match w.workload_name.is_empty() {
        true => w.name.clone(),
        false => w.workload_name.clone(),
    };
    Side {
        namespace: workload.map(|w| w.namespace.clone()).unwrap_or_default(),
        workload: workload.map(named).unwrap_or_default(),
        identity,
        node: workload.map(|w| w.node.clone()).unwrap_or_default(),
        // Whoever reaches a waypoint has an identity.
        address: None,
    }
}

fn ends(record: &Record<'_>) -> [Example; 2] {
    let pod = |workload: Option<&Workload>| workload.map(|w| w.name.clone()).unwrap_or_default();
    let source = Example { pod: pod(record.source), address: record.source_address.to_string() };
    // What was addressed: a question about it goes the same way.
    [source, Example { pod: pod(record.destination), address: record.target.to_string() }]
}
