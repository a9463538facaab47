//! The record of a connection that was passed through.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ambit_policy::http::Decision;
use ambit_runtime::clock;
use ambit_types::{PolicyKey, Reason};

use super::Record;
use super::record::denying;
use crate::terminate::Call;
use crate::upstream::{Destination, Endpoint};

/// What is gathered of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    call: Arc<Call>,
    begun: Instant,
    started: SystemTime,
    is_opened: bool,
    policy: Option<PolicyKey>,
    rule: Option<usize>,
    reason: Option<Reason>,
    destination: Option<Arc<Destination>>,
    endpoint: Option<Arc<Endpoint>>,
    flag: &'static str,
    bytes: (u64, u64),
}

impl Connection {
    /// A connection is about to be passed on.
    pub(crate) fn new(call: &Arc<Call>) -> Self {
        Self {
            call: call.clone(),
            begun: clock::monotonic(),
            started: clock::wall(),
            is_opened: false,
            policy: None,
            rule: None,
            reason: None,
            destination: None,
            endpoint: None,
            flag: "-",
            bytes: (0, 0),
        }
    }

    /// Policies have decided.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.policy.clone_from(&decision.policy);
        self.rule = decision.rule;
    }

    /// Routes have.
    pub(crate) fn destined(&mut self, destination: &Arc<Destination>) {
        self.destination = Some(destination.clone());
    }

    /// An endpoint was reached.
    pub(crate) fn reached(&mut self, endpoint: &Arc<Endpoint>) {
        self.endpoint = Some(endpoint.clone());
        self.open();
    }

    /// It comes to nothing.
    pub(crate) fn refused(mut self, reason: Reason, policy: Option<String>) {
        tracing::debug!(conn = %self.call.id, code = reason.code(), policy, "a connection is refused");
        self.reason = Some(reason);
        self.flag = reason.flag();
    }

    /// It is over; none if it was cut.
    pub(crate) fn ended(mut self, bytes: Option<(u64, u64)>) {
        self.bytes = bytes.unwrap_or_default();
        self.flag = if bytes.is_some() { "-" } else { "UC" };
    }

    /// It counts as opened once, before it counts as closed: also one that comes to nothing.
    fn open(&mut self) {
        if !std::mem::replace(&mut self.is_opened, true) {
            let record = self.record();
            self.call.waypoint.observe.opened(&record);
        }
    }

    fn record(&self) -> Record<'_> {
        let call = &self.call;
        Record {
            method: None,
            path: "",
            authority: "",
            protocol: "tcp",
            version: None,
            code: 0,
            grpc_status: None,
            flag: self.flag,
            detail: "",
            reason: self.reason,
            policy: self.policy.as_ref().filter(|_| self.reason.and_then(denying).is_some()),
            decided_by: self.policy.as_ref(),
            rule: self.rule,
            audit: &[],
            dry_run: &[],
            route: None,
            source: call.source.as_deref(),
            source_identity: &call.peer.identity,
            source_address: call.peer.address,
            target: call.target.address(),
            service: call.target.service(),
            backend: self.destination.as_ref().and_then(|destination| destination.service()),
            destination: self.endpoint.as_ref().map(|endpoint| &*endpoint.workload),
            destination_address: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            is_encrypted: self.endpoint.as_ref().is_some_and(|endpoint| endpoint.expected.is_some()),
            attempts: 1,
            stopped: None,
            bytes_received: self.bytes.0,
            bytes_sent: self.bytes.1,
            messages: None,
            started: self.started,
            duration: clock::monotonic().saturating_duration_since(self.begun),
            until_answer: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            span: None,
            conn_id: call.id,
            error: None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open();
        let record = self.record();
        self.call.waypoint.observe.passed(&record);
    }
}
