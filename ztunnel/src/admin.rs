//! What people and tools may ask of a running ztunnel.

mod dump;
mod explain;
mod live;
mod tools;

use std::sync::Arc;

use ambit_runtime::admin::{Call, Reply, Routes};
use ambit_runtime::tasks;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

pub(crate) use explain::answer;
pub(crate) use live::{budget, newest};
pub use tools::tools;

use crate::config::Config;
use crate::heard::LastHeard;
use crate::proxy::Proxy;
use crate::sealed::Recorder;
use crate::selftest::SelfTests;
use crate::telemetry::{FlowRecord, Memory, StaleFor as _};

/// Records shown where nobody says how many.
const FLOWS_DEFAULT: usize = 100;
/// Lines that wait for a slow reader of `/flows?follow`.
const FOLLOW_LINES: usize = 256;

/// How fresh what is in force is, and what of it is sealed.
#[derive(Debug, Clone)]
pub struct State {
    /// When the control plane was last heard.
    pub heard: Arc<LastHeard>,
    /// What was sealed.
    pub recorder: Recorder,
}

impl State {
    fn to_json(&self) -> Value {
        let written = self.recorder.written().map(|written| {
            json!({
                "number": written.number,
                "resources": written.resources,
                "certificates": written.certificates,
            })
        });
        json!({
            "source": if self.heard.is_sealed() { "sealed" } else { "discovery" },
            "staleFor": self.heard.stale_for(),
            "sealed": written,
        })
    }
}

/// What `/config_dump` is made of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DumpSource {
    proxy: Arc<Proxy>,
    state: State,
    /// Version and settings.
    about: Arc<Value>,
}

impl DumpSource {
    /// A source for the process that was started with `config`, at its start.
    pub fn new(config: &Config, proxy: Arc<Proxy>, state: State) -> Self {
        Self { proxy, state, about: Arc::new(dump::about(config)) }
    }

    fn to_json(&self) -> Value {
        dump::config_dump(&self.proxy, &self.about, &self.state.to_json())
    }
}

/// Adds the routes about the mesh.
pub fn routes(routes: Routes, source: &DumpSource) -> Routes {
    let proxy = || source.proxy.clone();
    let (connections, flows, certificates, budget) = (proxy(), proxy(), proxy(), proxy());
    let asked = proxy();
    with_dump(routes, source)
        .get("/connections", move |_| {
            let reply = Reply::json(&live::connections(&connections));
            async move { reply }
        })
        .get("/certificates", move |_| {
            let reply = Reply::json(&dump::certificates(&certificates));
            async move { reply }
        })
        .get("/flows", move |call| {
            let reply = flow_records(&flows, &call);
            async move { reply }
        })
        .post("/explain", move |call| {
            let proxy = asked.clone();
            async move { explain::explain(&proxy, &call).await }
        })
        .get("/budget", move |_| {
            let reply = Reply::json(&live::budget(&budget));
            async move { reply }
        })
}

/// Adds what the node's tests of itself came to; null until the first ones have ended.
pub fn selftests(routes: Routes, tests: &SelfTests) -> Routes {
    let tests = tests.clone();
    routes.get("/selftest", move |_| {
        let reply = Reply::json(&tests.to_json());
        async move { reply }
    })
}

/// Adds `/config_dump`. That of a large mesh takes a while: no thread that carries traffic writes it.
fn with_dump(routes: Routes, source: &DumpSource) -> Routes {
    let source = source.clone();
    routes.get("/config_dump", move |_| {
        let source = source.clone();
        async move {
            let written = tokio::task::spawn_blocking(move || Reply::json(&source.to_json())).await;
            written.unwrap_or_else(|error| {
                Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the dump: {error}\n"))
            })
        }
    })
}

/// `?last=N`: newline-delimited JSON, then a footer that says how far back the ring goes and what it lost.
/// `?follow`: records as they come instead of the footer; a follower that is too slow is told what it lost.
fn flow_records(proxy: &Proxy, call: &Call) -> Reply {
    let ring = proxy.telemetry.ring();
    let most = match call.query.get("last").map(|n| n.parse()) {
        None => FLOWS_DEFAULT,
        Some(Ok(most)) => most,
        Some(Err(_)) => return Reply::text(StatusCode::BAD_REQUEST, "last= takes a number\n"),
    };
    let follow = call.query.contains_key("follow").then(|| ring.follow());
    let (records, memory) = ring.last(most);
    let (send, lines) = tokio::sync::mpsc::channel(FOLLOW_LINES);
    tasks::spawn("flows", async move {
        for record in records {
            if send.send(line(&record.to_json())).await.is_err() {
                return;
            }
        }
        let Some(mut news) = follow else {
            // Who is gone needs no footer.
            let _ = send.send(line(&footer(memory))).await;
            return;
        };
        loop {
            let next = match news.recv().await {
                Ok(record) => line(&FlowRecord::to_json(&record)),
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
