//! Flow records: the bounded memory of what this waypoint has seen, in the form that `ambit flows` and `ambit why`
//! read from every proxy.
//!
//! What the memory cannot keep it counts: who reads it learns how far back it goes and how much is missing before
//! that. A record of a request has the connection id of the tunnel stream that carried it, which ztunnel's record of
//! that stream has too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ambit_hbone::ConnId;
use ambit_runtime::admin::{Call, Reply, Routes};
use ambit_runtime::tasks;
use ambit_types::{Identity, PolicyKey, Reason, ServiceKey, Str, Workload};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Record;
use super::trace::TraceId;

mod told;

#[cfg(test)]
mod tests;

/// Records that are kept where nothing else is said (`AMBIT_FLOW_RECORDS`).
pub const RECORDS_DEFAULT: usize = 10_000;

/// Records of a reply that names no number.
const LAST_DEFAULT: usize = 1000;

/// Records a slow follower may be behind before it loses some (and is told).
const FOLLOW_RECORDS: usize = 1024;

/// Lines that wait for a slow reader.
const LINES: usize = 64;

/// Longest text of a client's in a flow record, in bytes: thousands are kept.
const TEXT_BYTES_MAX: usize = 256;

/// One end as a record shows it. Names are shared with the mesh: what is not read costs no text.
#[derive(Debug, Default)]
struct End {
    address: Option<SocketAddr>,
    workload: Option<Str>,
    controller: Option<Str>,
    namespace: Option<Str>,
    cluster: Option<Str>,
    identity: Option<Identity>,
}

/// What is told of a request beyond its connection.
#[derive(Debug)]
struct Http {
    method: String,
    path: String,
    authority: String,
    version: &'static str,
    status: u16,
    grpc_status: Option<u32>,
    route: Option<String>,
    backend: Option<ServiceKey>,
    attempts: u32,
    request_id: Option<String>,
    trace: Option<TraceId>,
    detail: &'static str,
}

/// One record.
#[derive(Debug)]
pub struct FlowRecord {
    ended: SystemTime,
    source: End,
    destination: End,
    target: SocketAddr,
    service: Option<ServiceKey>,
    is_refused: bool,
    reason: Option<Reason>,
    flag: &'static str,
    policy: Option<PolicyKey>,
    rule: Option<usize>,
    dry_run: Vec<String>,
    bytes_sent: u64,
    bytes_received: u64,
    millis: u64,
    conn_id: ConnId,
    error: Option<String>,
    http: Option<Http>,
}

/// The last flow records, oldest first out.
#[derive(Debug)]
pub struct Ring {
    node: Arc<str>,
    kept: Mutex<Kept>,
    records_max: usize,
    news: broadcast::Sender<Arc<FlowRecord>>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<FlowRecord>>,
    lost: u64,
}

/// What the ring holds of everything that there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How many records it holds.
    pub records: usize,
    /// How many it can hold.
    pub records_max: usize,
    /// When the request of its oldest record ended; none while it is empty.
    pub oldest: Option<SystemTime>,
    /// How many it has pushed out since the process started.
    pub lost: u64,
}

impl Ring {
    /// Remembers at most `records_max` records of the waypoint named `node`.
    pub fn new(node: &str, records_max: usize) -> Self {
        Self {
            node: Arc::from(node),
            kept: Mutex::default(),
            records_max: records_max.max(1),
            news: broadcast::Sender::new(FOLLOW_RECORDS),
        }
    }

    /// Adds a record, pushing out the oldest when full, which is counted.
    pub(super) fn push(&self, record: &Record<'_>) {
        let record = Arc::new(FlowRecord::of(record));
        let is_full = {
            let mut kept = self.lock();
            let is_full = kept.records.len() >= self.records_max;
            if is_full {
                kept.records.pop_front();
                kept.lost += 1;
            }
            kept.records.push_back(record.clone());
            is_full
        };
        if is_full {
            metrics::counter!("ambit_flow_records_lost_total", "cause" => "ring").increment(1);
        }
        // Nobody following is normal.
        let _ = self.news.send(record);
    }

    /// The last `most` records, oldest first, and what the ring holds at that moment.
    pub fn last(&self, most: usize) -> (Vec<Arc<FlowRecord>>, Memory) {
        let kept = self.lock();
        let records = kept.records.iter().skip(kept.records.len().saturating_sub(most)).cloned().collect();
        (records, self.of(&kept))
    }

    /// What the ring holds.
    pub fn memory(&self) -> Memory {
        self.of(&self.lock())
    }

    fn of(&self, kept: &Kept) -> Memory {
        Memory {
            records: kept.records.len(),
            records_max: self.records_max,
            oldest: kept.records.front().map(|record| record.ended),
            lost: kept.lost,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn of(workload: Option<&Workload>, address: SocketAddr, identity: Option<Identity>) -> Self {
        let text = |part: fn(&Workload) -> &Str| workload.map(part).filter(|text| !text.is_empty()).cloned();
        Self {
            address: Some(address),
            workload: text(|w| if w.name.is_empty() { &w.canonical_name } else { &w.name }),
            controller: text(|w| &w.workload_name),
            namespace: text(|w| &w.namespace),
            cluster: text(|w| &w.cluster_id),
            identity,
        }
    }

    /// Absent parts are left out.
    fn to_json(&self) -> Value {
        let text = |text: &Option<Str>| text.as_ref().map(ToString::to_string);
        let parts = [
            ("addr", self.address.map(|address| address.to_string())),
            ("workload", text(&self.workload)),
            ("controller", text(&self.controller)),
            ("namespace", text(&self.namespace)),
            ("cluster", text(&self.cluster)),
            ("identity", self.identity.as_ref().map(ToString::to_string)),
        ];
        let known = parts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
        Value::Object(known.collect())
    }
}

fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl FlowRecord {
    fn of(record: &Record<'_>) -> Self {
        let identity = record.destination.filter(|_| record.is_encrypted).map(Workload::identity);
        let reached = record.destination_address.unwrap_or(record.target);
        Self {
            ended: record.started + record.duration,
            source: End::of(record.source, record.source_address, Some(record.source_identity.clone())),
            destination: End::of(record.destination, reached, identity),
            target: record.target,
            service: record.service.cloned(),
            is_refused: record.is_refused(),
            reason: record.reason,
            flag: record.flag,
            policy: record.decided_by.cloned(),
            rule: record.rule,
            dry_run: record.dry_run.to_vec(),
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            millis: u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
            conn_id: record.conn_id,
            error: record.error.map(short),
            http: Http::of(record),
        }
    }

    /// The JSON form, which is that of ztunnel's records with `http` added. `path` is the way through the mesh there,
    /// so that of the request is `http.path`.
    pub fn to_json(&self, node: &str) -> Value {
        json!({
            "time": humantime::format_rfc3339_millis(self.ended).to_string(),
            "node": node,
            "direction": "inbound",
            "verdict": if self.is_refused { "denied" } else { "allowed" },
            "code": self.reason.map(Reason::code),
            "reason": self.reason.map(Reason::name),
            "policy": self.policy.as_ref().map(ToString::to_string),
            "rule": self.rule,
            "nearest": Value::Null,
            "dry_run": self.dry_run,
            "path": "waypoint",
            "conn_id": self.conn_id.to_string(),
            "src": self.source.to_json(),
            "dst": self.destination.to_json(),
            "service": self.service.as_ref().map(|key| &*key.hostname),
            "hbone_addr": self.target.to_string(),
            "response_flags": self.flag,
            "bytes_sent": self.bytes_sent,
            "bytes_recv": self.bytes_received,
            "duration_ms": self.millis,
            "error": self.error,
            "http": self.http.as_ref().map(Http::to_json),
        })
    }
}

impl Http {
    fn of(record: &Record<'_>) -> Option<Self> {
        Some(Self {
            method: short(record.method?),
            path: short(record.path),
            authority: short(record.authority),
            version: record.version.unwrap_or_default(),
            status: record.code,
            grpc_status: record.grpc_status,
            route: record.route.map(str::to_owned),
            backend: record.backend.cloned(),
            attempts: record.attempts,
            request_id: record.request_id.as_deref().map(short),
            trace: record.span.map(|span| span.trace),
            detail: record.detail,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "method": self.method,
            "path": self.path,
            "authority": self.authority,
            "version": self.version,
            "status": self.status,
            "grpc_status": self.grpc_status,
            "route": self.route,
            "backend": self.backend.as_ref().map(|key| &*key.hostname),
            "attempts": self.attempts,
            "request_id": self.request_id,
            "trace_id": self.trace.map(|trace| trace.to_string()),
            "detail": self.detail,
        })
    }
}

/// Adds `/flows`, as ztunnel has it.
///
/// `?last=N`: newline-delimited JSON, then a footer that says how far back the ring goes and what it lost.
/// `?follow`: records as they come instead of the footer; a follower that is too slow is told what it lost.
pub fn routes(routes: Routes, ring: &Arc<Ring>) -> Routes {
    let ring = ring.clone();
    routes.get("/flows", move |call| {
        let reply = reply(&ring, &call);
        async move { reply }
    })
}

fn reply(ring: &Arc<Ring>, call: &Call) -> Reply {
    let most = match call.query.get("last").map(|n| n.parse()) {
        None => LAST_DEFAULT,
        Some(Ok(most)) => most,
        Some(Err(_)) => return Reply::text(StatusCode::BAD_REQUEST, "last= takes a number\n"),
    };
    let follow = call.query.contains_key("follow").then(|| ring.news.subscribe());
    let (records, memory) = ring.last(most);
    let (send, lines) = tokio::sync::mpsc::channel(LINES);
    let node = ring.node.clone();
    tasks::spawn("flows", async move {
        for record in records {
            if send.send(line(&record.to_json(&node))).await.is_err() {
                return;
            }
        }
        let Some(mut news) = follow else {
            // Who is gone needs no footer.
            let _ = send.send(line(&footer(memory))).await;
            return;
        };
        loop {
            let received = tokio::select! {
                received = news.recv() => received,
                () = send.closed() => return,
            };
            let next = match received {
                Ok(record) => line(&record.to_json(&node)),
                Err(RecvError::Lagged(lost)) => {
                    metrics::counter!("ambit_flow_records_lost_total", "cause" => "follower").increment(lost);
                    line(&json!({"lost": lost}))
                }
                Err(RecvError::Closed) => return,
            };
            if send.send(next).await.is_err() {
                return;
            }
        }
    });
    Reply::stream(lines)
}

fn footer(memory: Memory) -> Value {
    let oldest = memory.oldest.map(|at| humantime::format_rfc3339_millis(at).to_string());
    json!({"footer": {
        "records": memory.records, "records_max": memory.records_max, "oldest": oldest, "lost": memory.lost,
    }})
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}
