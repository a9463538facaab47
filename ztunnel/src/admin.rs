//! What people and tools may ask of a running ztunnel.

mod dump;

use std::sync::Arc;

use ambit_runtime::admin::{Call, Reply, Routes};
use ambit_runtime::{clock, tasks};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::app::LastHeard;
use crate::proxy::Proxy;
use crate::sealed::Recorder;
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

/// Adds the routes about the mesh.
pub fn routes(routes: Routes, proxy: &Arc<Proxy>, about: Value, state: State) -> Routes {
    let (dump, connections, flows, certificates, budget) =
        (proxy.clone(), proxy.clone(), proxy.clone(), proxy.clone(), proxy.clone());
    routes
        .get("/config_dump", move |_| {
            let reply = Reply::json(&dump::config_dump(&dump, &about, &state.to_json()));
            async move { reply }
        })
        .get("/connections", move |_| {
            let reply = Reply::json(&dump::connections(&connections));
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
        .get("/budget", move |_| {
            let reply = Reply::json(&dump::budget(&budget));
            async move { reply }
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

/// When this process started, for `/config_dump`.
pub fn about(config: &crate::config::Config) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": config.node.node_name,
        "startedAt": humantime::format_rfc3339_millis(clock::wall()).to_string(),
        "sameNode": format!("{:?}", config.pods.same_node).to_lowercase(),
    })
}
