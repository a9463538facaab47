//! The one record a connection leaves in the log, written once at its end.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_types::{Identity, Reason};
use tracing::{error, info, warn};

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
    /// Bytes the reporting workload sent.
    pub bytes_sent: u64,
    /// Bytes the reporting workload received.
    pub bytes_recv: u64,
    /// From accept to end.
    pub duration: Duration,
    /// Why it was refused or cut, or what is worth knowing about it.
    pub reason: Option<Reason>,
    /// The policy that decided.
    pub policy: &'a str,
    /// `local`, `hbone`, `waypoint`, `plaintext`, `probe` or `passthrough`.
    pub path: &'a str,
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
        $level!(
            target: "access",
            {src.addr = r.src.addr.map(display),
            src.workload = present(r.src.workload),
            src.namespace = present(r.src.namespace),
            src.identity = r.src.identity.map(display),
            src.cluster = present(r.src.cluster),
            dst.addr = r.dst.addr.map(display),
            dst.hbone_addr = present(r.hbone_addr),
            dst.service = present(r.service),
            dst.workload = present(r.dst.workload),
            dst.namespace = present(r.dst.namespace),
            dst.identity = r.dst.identity.map(display),
            dst.cluster = present(r.dst.cluster),
            direction = r.direction.as_str(),
            bytes_sent = r.bytes_sent,
            bytes_recv = r.bytes_recv,
            duration = %format_args!("{}ms", r.duration.as_millis()),
            duration_ms = u64::try_from(r.duration.as_millis()).unwrap_or(u64::MAX),
            code = r.reason.map(|reason| reason.code()),
            reason = r.reason.map(|reason| reason.name()),
            policy = present(r.policy),
            path = r.path,
            conn.id = present(r.conn_id),
            stale_for = r.stale_for,
            error = r.error},
            $message
        );
    }};
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Writes the record of a connection that was relayed: INFO, or ERROR if it failed.
pub fn complete(record: &Record<'_>) {
    if record.error.is_some() {
        write_record!(error, record, "connection complete");
    } else {
        write_record!(info, record, "connection complete");
    }
}

/// Writes the record of a connection that was refused before anything was relayed.
pub fn refused(record: &Record<'_>) {
    write_record!(warn, record, "connection failed");
}
