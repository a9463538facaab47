//! One connection as a log record and as a flow record.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use ambit_policy::Verdict;
use ambit_runtime::access_log::{self, Direction, Record, Totals};
use ambit_runtime::flows::{Field, Fields};
use ambit_runtime::metrics::values::{NAMESPACES, POLICIES};
use ambit_types::Reason;
use serde_json::{Map, Value, json};

use crate::flow::{End, Flow, Outcome, dry_run_text};

/// Calls `write` with the access-log form of a connection, which tells what it came to once it has ended.
pub(super) fn with_access_record(flow: &Flow, stale_for: Option<u64>, write: impl FnOnce(&Record<'_>)) {
    let ended = flow.ended();
    let outcome = ended.map(|(_, outcome)| outcome);
    let policy = outcome.and_then(|o| o.policy.as_ref()).map(ToString::to_string).unwrap_or_default();
    let conn_id = flow.id.to_string();
    let (bytes_sent, bytes_recv) = flow.workload_bytes();
    write(&Record {
        src: log_end(&flow.src),
        dst: log_end(&flow.route.dst),
        hbone_addr: flow.route.hbone_addr.as_deref().unwrap_or_default(),
        service: flow.route.service.as_ref().map_or("", |s| &*s.hostname),
        direction: flow.direction,
        totals: ended.map(|(duration, _)| Totals { bytes_sent, bytes_recv, duration: *duration }),
        reason: outcome.and_then(|o| o.reason),
        policy: &policy,
        path: flow.path.as_str(),
        client: flow.client.as_ref(),
        conn_id: &conn_id,
        error: outcome.and_then(|o| o.error.as_deref()),
        stale_for,
    });
}

fn log_end(end: &End) -> access_log::End<'_> {
    let workload = end.workload.as_deref();
    let asserted = end.asserted.as_deref();
    let name = workload.map(|w| if w.name.is_empty() { &w.canonical_name } else { &w.name });
    access_log::End {
        addr: end.addr,
        workload: name.or_else(|| asserted.map(|b| &b.service_name)).map_or("", |s| s),
        namespace: workload
            .map(|w| &w.namespace)
            .or_else(|| asserted.map(|b| &b.namespace))
            .map_or("", |s| s),
        identity: end.identity.as_ref(),
        cluster: workload.map(|w| &w.cluster_id).or_else(|| asserted.map(|b| &b.cluster)).map_or("", |s| s),
    }
}

/// What a port asks of plaintext. DISABLE is PERMISSIVE to a node: discovery tells of STRICT alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaintextMode {
    /// None but probes.
    Strict,
    /// As policy has it.
    Permissive,
}

impl PlaintextMode {
    /// The word in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
        }
    }
}

/// Counts what is told of a connection as soon as it is let in for `reason`: that only a break-glass let it in, and
/// that it is plaintext, to a port of which mode.
pub(super) fn count_let_in(flow: &Flow, reason: Option<Reason>, plaintext: Option<PlaintextMode>) {
    let namespace = || flow.route.dst.workload.as_ref().map(|w| w.namespace.to_string()).unwrap_or_default();
    if reason == Some(Reason::BreakglassAdmitted) {
        metrics::counter!("ambit_breakglass_admitted_total", "namespace" => NAMESPACES.of(namespace()))
            .increment(1);
    }
    let Some(mode) = plaintext.map(PlaintextMode::as_str) else { return };
    let cause = match reason {
        Some(Reason::ProbeAdmitted) => "probe",
        Some(Reason::BreakglassAdmitted) => "breakglass",
        _ => "permissive",
    };
    metrics::counter!(
        "ambit_plaintext_accepted_total",
        "namespace" => NAMESPACES.of(namespace()), "mode" => mode, "cause" => cause
    )
    .increment(1);
}

/// Counts what dry-run policies would have refused.
pub(super) fn count_shadow_denied(outcome: &Outcome) {
    let refusals = outcome.dry_run.iter().filter(|would| matches!(would.verdict, Verdict::Deny));
    for would in refusals {
        let policy = would.policy.as_ref().map(ToString::to_string).unwrap_or_default();
        metrics::counter!("ambit_policy_shadow_denied_total", "policy" => POLICIES.of(policy)).increment(1);
    }
}

/// One flow record: what `ambit flows` shows.
#[derive(Debug, Clone)]
pub struct FlowRecord {
    node: Arc<str>,
    flow: Arc<Flow>,
}

impl FlowRecord {
    /// A record of an ended connection.
    pub fn new(node: &Arc<str>, flow: Arc<Flow>) -> Self {
        Self { node: node.clone(), flow }
    }

    /// When the connection ended.
    pub fn at(&self) -> SystemTime {
        let lasted = self.flow.ended().map(|(lasted, _)| *lasted).unwrap_or_default();
        self.flow.started_wall + lasted
    }

    /// The JSON form: flat where `ambit flows` filters, nested where it describes an end.
    pub fn to_json(&self) -> Value {
        let flow = &*self.flow;
        let Some((lasted, outcome)) = flow.ended() else { return Value::Null };
        let (bytes_sent, bytes_recv) = flow.workload_bytes();
        let direction = match flow.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        let verdict = if outcome.is_failure() { "denied" } else { "allowed" };
        json!({
            "time": humantime::format_rfc3339_millis(self.at()).to_string(),
            "node": &*self.node,
            "direction": direction,
            "verdict": verdict,
            "opened": flow.was_opened(),
            "code": outcome.reason.map(Reason::code),
            "reason": outcome.reason.map(Reason::name),
            "policy": outcome.policy.as_ref().map(ToString::to_string),
            "rule": outcome.rule,
            "nearest": outcome.nearest,
            "dry_run": outcome.dry_run.iter().map(dry_run_text).collect::<Vec<_>>(),
            "path": flow.path.as_str(),
            "conn_id": flow.id.to_string(),
            "src": json_end(&flow.src),
            "client": flow.client.as_ref().map(ToString::to_string),
            "dst": json_end(&flow.route.dst),
            "service": flow.route.service.as_ref().map(|s| s.hostname.to_string()),
            "hbone_addr": flow.route.hbone_addr.as_deref(),
            "bytes_sent": bytes_sent,
            "bytes_recv": bytes_recv,
            "duration_ms": u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            "error": outcome.error,
        })
    }
}

/// The same fields as in the JSON form, so that a record that is not meant need not be written.
impl Fields for FlowRecord {
    fn field(&self, field: Field) -> Option<Cow<'_, str>> {
        let flow = &*self.flow;
        let (_, outcome) = flow.ended()?;
        let (src, dst) = (|| log_end(&flow.src), || log_end(&flow.route.dst));
        let known = |text: &'_ str| (!text.is_empty()).then(|| Cow::Owned(text.to_owned()));
        let shown = |text: Option<String>| text.map(Cow::Owned);
        match field {
            Field::Time => shown(Some(humantime::format_rfc3339_millis(self.at()).to_string())),
            Field::Node => Some(Cow::Borrowed(&*self.node)),
            Field::Direction => Some(Cow::Borrowed(match flow.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            })),
            Field::Verdict => Some(Cow::Borrowed(if outcome.is_failure() { "denied" } else { "allowed" })),
            Field::Code => outcome.reason.map(|reason| Cow::Borrowed(reason.code())),
            Field::Policy => shown(outcome.policy.as_ref().map(ToString::to_string)),
            Field::Path => Some(Cow::Borrowed(flow.path.as_str())),
            Field::ConnId => shown(Some(flow.id.to_string())),
            Field::SrcAddr => shown(src().addr.map(|addr| addr.to_string())),
            Field::SrcWorkload => known(src().workload),
            Field::SrcController => controller(&flow.src).map(Cow::Borrowed),
            Field::SrcNamespace => known(src().namespace),
            Field::SrcIdentity => shown(src().identity.map(ToString::to_string)),
            Field::SrcCluster => known(src().cluster),
            Field::DstAddr => shown(dst().addr.map(|addr| addr.to_string())),
            Field::DstWorkload => known(dst().workload),
            Field::DstController => controller(&flow.route.dst).map(Cow::Borrowed),
            Field::DstNamespace => known(dst().namespace),
            Field::DstIdentity => shown(dst().identity.map(ToString::to_string)),
            Field::DstCluster => known(dst().cluster),
            Field::Service => flow.route.service.as_ref().map(|s| Cow::Borrowed(&*s.hostname)),
            Field::HboneAddr => flow.route.hbone_addr.as_deref().map(Cow::Borrowed),
            Field::HttpMethod
            | Field::HttpPath
            | Field::HttpAuthority
            | Field::HttpStatus
            | Field::HttpVersion
            | Field::TraceId => None,
        }
    }
}

/// Name of the controller of an end, if discovery knows one.
fn controller(end: &End) -> Option<&str> {
    let workload = end.workload.as_deref()?;
    Some(&*workload.workload_name).filter(|name| !name.is_empty())
}

/// One end in JSON; absent parts are left out.
pub(crate) fn json_end(end: &End) -> Value {
    let logged = log_end(end);
    let mut object = Map::new();
    if let Some(addr) = logged.addr {
        object.insert("addr".to_owned(), Value::from(addr.to_string()));
    }
    let parts = [
        ("workload", logged.workload),
        ("controller", controller(end).unwrap_or_default()),
        ("namespace", logged.namespace),
        ("cluster", logged.cluster),
    ];
    for (key, text) in parts {
        if !text.is_empty() {
            object.insert(key.to_owned(), Value::from(text));
        }
    }
    if let Some(identity) = logged.identity {
        object.insert("identity".to_owned(), Value::from(identity.to_string()));
    }
    if end.workload.is_none() && end.asserted.is_some() {
        object.insert("asserted".to_owned(), Value::from(true));
    }
    Value::Object(object)
}
