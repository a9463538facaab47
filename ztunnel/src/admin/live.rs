//! What goes on in this process now: open connections, and what it uses of what it may use.

use std::cmp::Reverse;
use std::sync::Arc;

use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_runtime::metrics::processor_seconds;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::flow::Flow;
use crate::proxy::Proxy;

/// Live connections.
pub(super) fn connections(proxy: &Proxy) -> Value {
    shown(&proxy.connections.flows())
}

/// The newest live connections, at most so many, the newest first.
pub(crate) fn newest(proxy: &Proxy, most: usize) -> Value {
    let mut flows = proxy.connections.flows();
    flows.sort_by_key(|flow| Reverse(flow.started));
    flows.truncate(most);
    shown(&flows)
}

fn shown(flows: &[Arc<Flow>]) -> Value {
    let now = clock::monotonic();
    let one = |flow: &Arc<Flow>| {
        let (sent, received) = flow.workload_bytes();
        let direction = match flow.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        json!({
            "conn_id": flow.id.to_string(),
            "direction": direction,
            "path": flow.path.as_str(),
            "src": crate::telemetry::json_end(&flow.src),
            "client": flow.client.as_ref().map(ToString::to_string),
            "dst": crate::telemetry::json_end(&flow.route.dst),
            "service": flow.route.service.as_ref().map(|s| s.hostname.to_string()),
            "hbone_addr": flow.route.hbone_addr.as_deref(),
            "bytes_sent": sent,
            "bytes_recv": received,
            "age_ms": u64::try_from(now.saturating_duration_since(flow.started).as_millis()).unwrap_or(u64::MAX),
        })
    };
    flows.iter().map(one).collect()
}

/// What the process uses of what it may use.
pub(crate) fn budget(proxy: &Proxy) -> Value {
    let memory = proxy.telemetry.ring().memory();
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    json!({
        "resident_bytes": resident_bytes(),
        "cpu_seconds": processor_seconds(),
        "descriptors_open": descriptors,
        "descriptors_max": getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft).ok(),
        "connections_open": proxy.connections.flows().len(),
        "pod_connections_max": proxy.settings.pod_connections_max,
        "flow_records": memory.records,
        "flow_records_max": memory.records_max,
        "flow_records_lost": memory.lost,
    })
}

/// Memory of the process that is in RAM; none where the kernel does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
