//! The record of a connection that was passed through.

use std::sync::Arc;
use std::time::Instant;

use ambit_policy::http::Decision;
use ambit_runtime::clock;
use ambit_types::{PolicyKey, Reason};

use super::Record;
use crate::terminate::Call;
use crate::upstream::{Destination, Endpoint};

/// What is gathered of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    call: Arc<Call>,
    begun: Instant,
    policy: Option<PolicyKey>,
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
            policy: None,
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
    }

    /// Routes have.
    pub(crate) fn destined(&mut self, destination: &Arc<Destination>) {
        self.destination = Some(destination.clone());
    }

    /// An endpoint was reached.
    pub(crate) fn reached(&mut self, endpoint: &Arc<Endpoint>) {
        self.endpoint = Some(endpoint.clone());
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
}

impl Drop for Connection {
    fn drop(&mut self) {
        let call = &self.call;
        let record = Record {
            method: None,
            path: "",
            authority: "",
            protocol: "tcp",
            code: 0,
            grpc_status: None,
            flag: self.flag,
            detail: "",
            reason: self.reason,
            policy: self.policy.as_ref().filter(|_| self.reason.is_some()),
            decided_by: self.policy.as_ref(),
            audit: &[],
            dry_run: &[],
            route: None,
            source: call.source.as_deref(),
            source_identity: &call.peer.identity,
            source_address: call.peer.address,
            service: call.target.service(),
            backend: self.destination.as_ref().and_then(|destination| destination.service()),
            destination: self.endpoint.as_ref().map(|endpoint| &*endpoint.workload),
            destination_address: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            is_encrypted: self.endpoint.as_ref().is_some_and(|endpoint| endpoint.expected.is_some()),
            attempts: 1,
            stopped: None,
            bytes_received: self.bytes.0,
            bytes_sent: self.bytes.1,
            duration: clock::monotonic().saturating_duration_since(self.begun),
            until_answer: None,
            user_agent: None,
            request_id: None,
            span: None,
            conn_id: call.id,
            error: None,
        };
        call.waypoint.observe.passed(&record);
    }
}
