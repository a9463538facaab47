//! Discovery: keeps a stream to the control plane, applies what it says as one batch each, answers when it is in force.
//!
//! Losing the control plane changes nothing for what is known; every failure waits before the next attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::grpc::xds_stream::{StreamError, XdsStream};
use ambit_runtime::readiness::Part;
use ambit_runtime::{clock, tasks};
use ambit_state::Change;
use ambit_types::{PolicyKey, Reason};
use ambit_xds::client::backoff::{self, Backoff};
use ambit_xds::client::{Client, Content, Limits, Mode, Update};
use ambit_xds::codec::Address;
use ambit_xds::node::{NodeIdentity, text};
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::admit::describe;
use crate::config::{Config, node_metadata};
use crate::heard::LastHeard;
use crate::lookups::Desk;
use crate::mesh::Mesh;
use crate::random;
use crate::sealed::{Recorder, Restored, Sealed};
use crate::writer::Writer;

/// How far discovery has come since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No answer yet, and none refused.
    Waiting,
    /// The first attempt has failed; further ones follow.
    Unreachable,
    /// Everything has arrived once and is in force.
    Synced,
}

/// Between two looks for questions without answer, and for names that nobody asks for.
const TICK: Duration = Duration::from_secs(1);

/// Everything one discovery loop owns.
struct Discovery {
    target: Target,
    caller: Caller,
    client: Client,
    mesh: Mesh,
    writer: Writer,
    heard: Arc<LastHeard>,
    ready: Part,
    progress: watch::Sender<Progress>,
    recorder: Recorder,
    desk: Desk,
}

/// Starts discovery and tells how far it comes (at once to the end without a control plane).
///
/// A sealed state that was found is in force when this returns.
pub fn start(
    config: &Config,
    mesh: &Mesh,
    heard: &Arc<LastHeard>,
    ready: Part,
    sealed: &mut Sealed,
) -> watch::Receiver<Progress> {
    let (progress, told) = watch::channel(Progress::Waiting);
    let Some((target, caller)) = config.discovery() else {
        ready.set(true);
        heard.here();
        progress.send_replace(Progress::Synced);
        return told;
    };
    let mode = if config.control.xds_on_demand { Mode::OnDemand } else { Mode::Wildcard };
    let mut discovery = Discovery {
        target,
        caller,
        client: Client::new(node(config), mode, Limits::default()),
        mesh: mesh.clone(),
        writer: Writer::start(mesh.clone(), &config.node.node_name),
        heard: heard.clone(),
        ready,
        progress,
        recorder: sealed.recorder(),
        desk: mesh.lookups().take_desk(),
    };
    if let Some(restored) = sealed.take_restored() {
        discovery.restore(restored);
    }
    tasks::spawn("discovery", discovery.run());
    told
}

/// What the node says of itself.
pub(crate) fn node(config: &Config) -> NodeIdentity {
    let (metadata, unreadable) = node_metadata(config);
    for name in unreadable {
        warn!(variable = name, "the variable is no JSON and is left out of the node's metadata");
    }
    let metadata: BTreeMap<String, Value> = metadata.into_iter().map(|(k, v)| (k, to_proto(v))).collect();
    NodeIdentity {
        ip: config.node.instance_ip,
        pod_name: config.node.pod_name.clone(),
        namespace: config.node.pod_namespace.clone(),
        node_name: config.node.node_name.clone(),
        metadata,
    }
}

fn to_proto(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Json::String(s) => return text(s),
        Json::Array(all) => Kind::ListValue(ListValue { values: all.into_iter().map(to_proto).collect() }),
        Json::Object(all) => {
            Kind::StructValue(Struct { fields: all.into_iter().map(|(k, v)| (k, to_proto(v))).collect() })
        }
    };
    Value { kind: Some(kind) }
}

impl Discovery {
    async fn run(mut self) {
        let mut backoff = Backoff::new(backoff::Limits::default());
        loop {
            let mut answered = None;
            let ended = self.stream(&mut answered).await;
            let since = |at| clock::monotonic().saturating_duration_since(at);
            // A server that takes streams and never answers is not healthy, however long that lasts.
            let lasted = answered.map_or(Duration::ZERO, since);
            self.client.on_disconnect();
            self.heard.gone();
            self.progress.send_if_modified(|progress| {
                let is_first = *progress == Progress::Waiting;
                if is_first {
                    *progress = Progress::Unreachable;
                }
                is_first
            });
            let reason = match &ended {
                StreamError::Channel(_) => "ConnectionError",
                StreamError::Status(_) => "Error",
                StreamError::Closed => "Complete",
                _ => "Error",
            };
            metrics::counter!("istio_xds_connection_terminations_total", "reason" => reason).increment(1);
            let wait = backoff.after(lasted, u32::try_from(random::number() >> 32).unwrap_or(u32::MAX));
            debug!(
                error = describe(&ended),
                ?wait,
                code = Reason::ControlPlaneUnreachable.code(),
                "no discovery"
            );
            self.desk.meanwhile(&mut self.client, tokio::time::sleep(wait)).await;
        }
    }

    /// One stream from its first requests to its end; notes when it was first answered.
    async fn stream(&mut self, answered: &mut Option<Instant>) -> StreamError {
        let first = self.client.on_connect();
        let opening = XdsStream::open(&self.target, &self.caller, first);
        let mut stream = match self.desk.meanwhile(&mut self.client, opening).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        info!(address = self.target.address, "discovery stream open");
        let mut tick = tokio::time::interval(TICK);
        loop {
            let request = tokio::select! {
                response = stream.next() => match response {
                    Ok(response) => {
                        answered.get_or_insert_with(clock::monotonic);
                        self.respond(response)
                    }
                    Err(error) => {
                        warn!(error = describe(&error), "discovery stream ended; what is known stays in force");
                        return error;
                    }
                },
                asked = self.desk.next() => {
                    self.desk.take(asked, &mut self.client, clock::monotonic());
                    self.client.poll_lookups()
                }
                _ = tick.tick() => self.forget(),
            };
            if let Some(request) = request
                && let Err(error) = stream.send(request).await
            {
                return error;
            }
        }
    }

    /// Puts a response of the control plane in force; what to answer.
    fn respond(&mut self, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
        let url = response.type_url.clone();
        let resources = response.resources.iter().filter_map(|one| one.resource.as_ref());
        let bytes: usize = resources.map(|resource| resource.value.len()).sum();
        metrics::counter!("istio_xds_message_bytes_total", "url" => url.clone()).increment(bytes as u64);
        metrics::counter!("istio_xds_message_total", "url" => url).increment(1);
        let request = self.take(response);
        self.note_progress();
        request
    }

    /// Gives up questions without answer, and lets go of what nobody asked for of late; what to tell the server.
    fn forget(&mut self) -> Option<DeltaDiscoveryRequest> {
        let now = clock::monotonic();
        self.desk.expire(&mut self.client, now);
        let (names, request) = self.client.forget_idle(now)?;
        debug!(names = names.len(), "names that nobody asks for are no longer followed");
        self.writer.apply(names.into_iter().map(Change::RemoveAddress).collect());
        request
    }

    /// Puts a response in force; the acknowledgement, if a stream is there to take it.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
        let copy = self.recorder.is_on().then(|| response.clone());
        let (update, receipt) = self.client.handle_response(response);
        if let Some(copy) = copy {
            self.recorder.note(copy, &update);
        }
        self.apply(update);
        let acknowledged = receipt.applied(&mut self.client);
        self.desk.answered(&acknowledged.answered);
        acknowledged.request
    }

    /// Puts a sealed state in force until the control plane answers, which then says what has changed since.
    fn restore(&mut self, restored: Restored) {
        self.writer.not_before(restored.heard_at);
        for response in restored.responses {
            // No stream is there that an acknowledgement could go to.
            drop(self.take(response));
        }
        let heard_at = UNIX_EPOCH + Duration::from_secs(restored.heard_at);
        let heard_at = humantime::format_rfc3339_seconds(heard_at).to_string();
        self.heard.sealed(restored.heard_at);
        self.ready.ready_with(format!("sealed state is in force, the control plane was heard at {heard_at}"));
        metrics::gauge!("ambit_sealed_state_in_force").set(1.0);
        let (workloads, services) = self.mesh.snapshot().counts();
        let number = restored.number;
        info!(number, heard_at, workloads, services, "sealed state is in force until discovery is complete");
    }

    fn note_progress(&mut self) {
        let now = clock::unix_seconds();
        metrics::gauge!("ambit_config_last_ack_timestamp_seconds")
            .set(u32::try_from(now).map_or(0.0, f64::from));
        if !self.client.is_confirmed() {
            return;
        }
        let is_back = self.heard.since().is_some();
        self.heard.here();
        self.recorder.complete(is_back);
        if *self.progress.borrow() != Progress::Synced {
            info!("discovery is complete");
            self.ready.set(true);
            self.progress.send_replace(Progress::Synced);
            metrics::gauge!("ambit_sealed_state_in_force").set(0.0);
        }
    }

    /// Puts one response in force.
    fn apply(&mut self, update: Update) {
        for rejected in &update.rejected {
            metrics::counter!("ambit_config_rejected_total").increment(1);
            warn!(
                resource = rejected.name,
                error = %rejected.reason,
                code = Reason::ConfigRejected.code(),
                "a resource cannot be used; what was held under its name stays in force"
            );
        }
        for (name, notes) in update.notes.iter().filter(|(_, notes)| !notes.is_empty()) {
            warn!(resource = name, notes = ?notes.as_slice(), "a resource was read as less than it says");
        }
        if let Content::Unknown { type_url } = &update.content {
            warn!(type_url, "the control plane sent something nobody asked for");
            return;
        }
        self.writer.apply(changes(update));
    }
}

/// What an update changes in the world.
pub fn changes(update: Update) -> Vec<Change> {
    match update.content {
        Content::Addresses { upserts, removed } => {
            let upsert = |address| match address {
                Address::Workload(workload) => Change::Workload(workload),
                Address::Service(service) => Change::Service(service),
            };
            removed.into_iter().map(Change::RemoveAddress).chain(upserts.into_iter().map(upsert)).collect()
        }
        Content::Policies { upserts, removed } => {
            let reject = |rejected: ambit_xds::client::Rejected| {
                let key = PolicyKey::parse(&rejected.name).ok()?;
                Some(Change::PolicyRejected { key, scope: rejected.scope })
            };
            removed
                .into_iter()
                .map(Change::RemovePolicy)
                .chain(upserts.into_iter().map(Change::Policy))
                .chain(update.rejected.into_iter().filter_map(reject))
                .collect()
        }
        // A node's client subscribes to nothing of a waypoint's, so that never comes.
        Content::Waypoint(_) | Content::Unknown { .. } => Vec::new(),
    }
}
