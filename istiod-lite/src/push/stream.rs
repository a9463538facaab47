//! One discovery stream: moves messages between the client and its state machine.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_xds::node::Caller;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use ambit_xds::server::{Connection, Limits, Resources, StreamError};
use aws_lc_rs::rand;
use tokio::sync::{mpsc, watch};
use tokio::time;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::{Open, Publisher, Subject};
use crate::ca::authn::Token;
use crate::ca::callers::Role;
use crate::ca::service::{Gate, Visitor};

/// Longest wait for a client's first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// What a stream works with.
pub(super) struct Shared {
    pub(super) gate: Arc<Gate>,
    pub(super) visitor: Visitor,
    pub(super) open: Open,
    pub(super) publisher: Arc<Publisher>,
    pub(super) latest: watch::Receiver<Arc<Resources>>,
    pub(super) age_max: Duration,
    pub(super) drain: Drain,
}

impl Shared {
    /// The state machine for what the caller is; from here on it is known by its name.
    fn connect(&mut self, role: &Role, stated: Caller) -> Result<Connection, Status> {
        let node = self.visitor.token.node.to_string();
        let latest = self.latest.borrow_and_update().clone();
        Ok(match role {
            Role::Node => Connection::new(node, latest, Limits::default()),
            Role::Waypoint(gateway) => {
                let (gateway, pod) = (gateway.clone(), stated.pod_name);
                let subject = Subject::Waypoint { gateway: gateway.clone(), pod, node: node.clone() };
                self.open = self.publisher.open(subject)?;
                Connection::for_waypoint(node, gateway, latest, Limits::default())
            }
        })
    }
}

/// Serves a stream to its end; an error is told to the client.
pub(super) async fn serve(
    shared: Shared,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) {
    let node = shared.visitor.token.node.clone();
    if let Err(status) = run(shared, requests, &responses).await {
        let (code, reason) = (status.code(), status.message());
        if matches!(code, Code::ResourceExhausted | Code::InvalidArgument) {
            warn!(%node, ?code, reason, "a stream is ended: its client asks for what no proxy does, or for too much");
        } else {
            debug!(%node, ?code, reason, "a stream is ended with a status");
        }
        // A client that reads nothing any more learns it from the connection's end.
        let _ = responses.try_send(Err(status));
    }
}

async fn run(
    mut shared: Shared,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) -> Result<(), Status> {
    let ends = clock::monotonic() + age(shared.age_max);
    let first = time::timeout(FIRST_REQUEST, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no first request within 10 s"))??;
    let Some(first) = first else { return Ok(()) };
    let stated = check_node(&shared.visitor.token, first.node.as_ref())?;
    let role = shared.gate.role(&shared.visitor, &stated)?;
    let mut connection = shared.connect(&role, stated)?;
    let mut response = connection.handle_request(first, clock::monotonic()).map_err(|e| status(&e))?;
    let mut is_beyond = false;
    loop {
        if let Some(response) = response.take() {
            responses.try_send(Ok(response)).map_err(|_| Status::aborted("the client takes no responses"))?;
        }
        if !is_beyond && connection.has_too_many_names() {
            is_beyond = true;
            let client = &shared.open.subject;
            warn!(%client, "a client comes with more names than are kept; it is served everything");
        }
        shared
            .open
            .report(connection.acked_revision().unwrap_or_default(), connection.rejections().collect());
        let wakes = connection.next_deadline().map_or(ends, |deadline| deadline.min(ends));
        response = tokio::select! {
            request = requests.message() => match request? {
                Some(request) => {
                    connection.handle_request(request, clock::monotonic()).map_err(|e| status(&e))?
                }
                None => return Ok(()),
            },
            changed = shared.latest.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                // One whose node or pod was removed or replaced meanwhile learns nothing more.
                shared.gate.still_trusted(&shared.visitor, &role)?;
                let latest = shared.latest.borrow_and_update().clone();
                connection.handle_change(latest, clock::monotonic())
            }
            () = time::sleep_until(wakes.into()) => {
                let now = clock::monotonic();
                if now >= ends {
                    // The client opens another one, and shows a fresh token for it.
                    return Ok(());
                }
                connection.handle_timeout(now).map_err(|e| status(&e))?
            }
            () = responses.closed() => return Ok(()),
            () = shared.drain.draining() => return Err(Status::unavailable("the control plane is leaving")),
        };
    }
}

/// What the client says of itself must be what its token proves.
pub(crate) fn check_node(token: &Token, node: Option<&Node>) -> Result<Caller, Status> {
    let caller = Caller::decode(node).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let differs = if caller.namespace != *token.namespace {
        Some(("namespace", &caller.namespace, &token.namespace))
    } else if caller.node_name != *token.node {
        Some(("node", &caller.node_name, &token.node))
    } else {
        let account = caller.service_account.as_ref().filter(|account| **account != *token.service_account);
        account.map(|account| ("service account", account, &token.service_account))
    };
    match differs {
        Some((what, stated, proven)) => {
            info!(what, stated, %proven, "a client is not who it says");
            Err(Status::permission_denied(format!(
                "the stream's {what} is {stated:?}, its token says {proven:?}"
            )))
        }
        None => Ok(caller),
    }
}

fn status(error: &StreamError) -> Status {
    match error {
        StreamError::UnknownType { .. } | StreamError::LongName { .. } => {
            Status::invalid_argument(error.to_string())
        }
        StreamError::TooManyNames { .. } | StreamError::TooManyDeclared { .. } => {
            Status::resource_exhausted(error.to_string())
        }
        StreamError::NoAnswer { .. } => Status::deadline_exceeded(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

/// The longest age, give or take a tenth, so that streams opened together do not end together.
pub(crate) fn age(max: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without a draw the middle does as well.
    if rand::fill(&mut byte).is_err() {
        byte = [128];
    }
    max * 9 / 10 + max / 5 * u32::from(byte[0]) / 255
}
