//! The one record a connection leaves in the log, written once at its end; and one at its start, for who debugs.
//!
//! ztunnel's fields come first, in its order, then ours. Names of things are strings, which the plain format quotes;
//! addresses are none.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_types::{Identity, Reason};
use tracing::{debug, error, info, warn};

#[cfg(test)]
mod tests;

/// Which side of the workload a connection was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Direction {
    /// `inbound` or `outbound`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What is known of one end; unknown parts stay empty and are left out.
#[derive(Debug, Clone, Default)]
pub struct End<'a> {
    /// Its address.
    pub addr: Option<SocketAddr>,
    /// Pod name, else canonical service.
    pub workload: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its identity, only where one was established.
    pub identity: Option<&'a Identity>,
    /// Its cluster.
    pub cluster: &'a str,
}

/// What a connection came to.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    /// Bytes the reporting workload sent.
    pub bytes_sent: u64,
    /// Bytes the reporting workload received.
    pub bytes_recv: u64,
    /// From accept to end.
    pub duration: Duration,
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The client's end.
    pub src: End<'a>,
    /// The server's end.
    pub dst: End<'a>,
    /// Authority of the tunnel request, if there was a tunnel.
    pub hbone_addr: &'a str,
    /// Host name of the service that was addressed.
    pub service: &'a str,
    /// Seen from the workload.
    pub direction: Direction,
    /// What it came to; none while it lives.
    pub totals: Option<Totals>,
    /// Why it was refused or cut, or what is worth knowing about it.
    pub reason: Option<Reason>,
    /// The policy that decided.
    pub policy: &'a str,
    /// `local`, `hbone`, `waypoint`, `plaintext`, `probe` or `passthrough`.
    pub path: &'a str,
    /// On whose behalf the client's end connected, by the word of a waypoint that may say so.
    pub client: Option<&'a Identity>,
    /// Connection id, 32 hex digits, the same in both ends' records.
    pub conn_id: &'a str,
    /// Failure in words.
    pub error: Option<&'a str>,
    /// Seconds since the control plane was last heard, when it is away.
    pub stale_for: Option<u64>,
}

macro_rules! write_record {
    ($level:ident, $r:expr, $message:literal) => {{
        let r: &Record<'_> = $r;
        let lasted = r.totals.map(|totals| totals.duration.as_millis());
        $level!(
            target: "access",
            {src.addr = r.src.addr.map(display),
            src.workload = present(r.src.workload),
            src.namespace = present(r.src.namespace),
            src.identity = r.src.identity.map(ToString::to_string),
            src.cluster = present(r.src.cluster),
            dst.addr = r.dst.addr.map(display),
            dst.hbone_addr = present(r.hbone_addr).map(display),
            dst.service = present(r.service),
            dst.workload = present(r.dst.workload),
            dst.namespace = present(r.dst.namespace),
            dst.identity = r.dst.identity.map(ToString::to_string),
            dst.cluster = present(r.dst.cluster),
            direction = r.direction.as_str(),
            bytes_sent = r.totals.map(|totals| totals.bytes_sent),
            bytes_recv = r.totals.map(|totals| totals.bytes_recv),
            duration = lasted.map(|ms| format!("{ms}ms")),
            error = r.error,
            duration_ms = lasted.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            code = r.reason.map(|reason| reason.code()),
            reason = r.reason.map(|reason| reason.name()),
            policy = present(r.policy),
            path = r.path,
            client.identity = r.client.map(ToString::to_string),
            conn.id = present(r.conn_id),
            stale_for = r.stale_for},
            $message
        );
    }};
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Whether anybody wants to hear of connections that begin.
pub fn wants_opened() -> bool {
    tracing::enabled!(target: "access", tracing::Level::DEBUG)
}

/// Writes that a connection was let in: DEBUG.
pub fn opened(record: &Record<'_>) {
    write_record!(debug, record, "connection opened");
}

/// Writes the record of a connection that was decided about, whether or not it was let in: INFO, or ERROR if it failed.
pub fn complete(record: &Record<'_>) {
    if record.error.is_some() {
        write_record!(error, record, "connection complete");
    } else {
        write_record!(info, record, "connection complete");
    }
}

/// Writes the record of a connection that was refused before there was anything to decide: WARN, without totals.
pub fn refused(record: &Record<'_>) {
    let without = Record { totals: None, ..record.clone() };
    write_record!(warn, &without, "connection failed");
}
