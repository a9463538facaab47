//! Discovery: what the control plane says becomes a [`State`], and is in force before it is acknowledged.
//!
//! One response is one batch and one new state. Nothing is in force before everything has arrived once and the
//! waypoint knows its own record, because policies that are still on their way would be missing. From then on the
//! loss of the control plane changes nothing.

mod build;
mod held;
mod policies;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ambit_net::grpc::follow::{Subscriber, follow};
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::single;
use ambit_runtime::readiness::Part;
use ambit_runtime::{clock, tasks};
use ambit_types::Reason;
use ambit_xds::client::{Client, Content, Limits, Store, Update};
use ambit_xds::node::{NodeIdentity, text};
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::{Applied, State, Waypoint, random};

pub use build::{Builder, Faults, Names, Providers};
pub use held::Held;

/// Makes the waypoint of its first state.
pub type Make = Box<dyn Fn(State) -> Arc<Waypoint> + Send>;

/// Who is told whom CUSTOM policies may ask, before a policy that names one is in force.
pub type TellProviders = Box<dyn Fn(Providers) + Send>;

/// Who is told what follows from discovery.
pub struct Outputs {
    /// Makes the waypoint; called once.
    pub make: Make,
    /// Told of providers; called for each change.
    pub providers: TellProviders,
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outputs")
    }
}

/// What discovery has told so far, for people.
#[derive(Debug)]
pub struct Told {
    configuration: ArcSwap<(Store, Faults)>,
    is_complete: AtomicBool,
    /// Seconds since 1970; 0 while the control plane is there.
    away_since: AtomicU64,
}

impl Told {
    /// Nothing yet, at `now`, in seconds since 1970.
    fn new(now: u64) -> Self {
        Self {
            configuration: ArcSwap::default(),
            is_complete: AtomicBool::new(false),
            away_since: AtomicU64::new(now),
        }
    }

    /// Routes and policies as they came, and what is wrong in the rules of routes.
    pub fn configuration(&self) -> Arc<(Store, Faults)> {
        self.configuration.load_full()
    }

    /// Whether everything has arrived once.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// When the control plane went away, seconds since 1970; none while it is there.
    pub fn away_since(&self) -> Option<u64> {
        Some(self.away_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }
}

impl Source for Told {
    fn write(&self, text: &mut String) {
        let away = self.away_since().map_or(0, |since| clock::unix_seconds().saturating_sub(since));
        single(text, "ambit_control_plane_away_seconds", "gauge", away);
    }
}

/// What follows from discovery.
#[derive(Debug)]
pub struct Following {
    /// The waypoint, as soon as there is one; it goes by the newest state from then on.
    pub waypoint: watch::Receiver<Option<Arc<Waypoint>>>,
    /// What has been told.
    pub told: Arc<Told>,
}

/// Parts of readiness that discovery marks.
#[derive(Debug)]
pub struct Parts {
    /// Everything has arrived once.
    pub discovery: Part,
    /// The waypoint's own record is known.
    pub own: Part,
}

/// Starts to follow the control plane; the waypoint is made of the first state that is complete.
pub fn start(config: &Config, outputs: Outputs, parts: Parts) -> Following {
    let (target, caller) = config.discovery();
    let (discovery, following) = Discovery::new(config, outputs, parts);
    tasks::spawn("discovery", follow(target, caller, discovery, random::number));
    following
}

/// Everything the loop owns.
struct Discovery {
    client: Client,
    builder: Builder,
    outputs: Outputs,
    waypoint: watch::Sender<Option<Arc<Waypoint>>>,
    told: Arc<Told>,
    parts: Parts,
    /// Whether this stream has said everything.
    is_confirmed: bool,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Discovery")
    }
}

impl Discovery {
    fn new(config: &Config, outputs: Outputs, parts: Parts) -> (Self, Following) {
        let (sender, waypoint) = watch::channel(None);
        let told = Arc::new(Told::new(clock::unix_seconds()));
        let names = Names {
            uid: config.uid(),
            namespace: (&*config.node.pod_namespace).into(),
            gateway: config.gateway().into(),
        };
        let basis = Applied { trusted_hops: config.bounds.trusted_hops, ..Applied::default() };
        let discovery = Self {
            client: Client::for_waypoint(node(config), config.gateway(), Limits::default()),
            builder: Builder::new(&config.node.node_name, names, basis),
            outputs,
            waypoint: sender,
            told: told.clone(),
            parts,
            is_confirmed: false,
        };
        (discovery, Following { waypoint, told })
    }

    /// Makes the newest state the one that requests are decided by, if there is a whole one.
    fn publish(&mut self) {
        if let Some(providers) = self.builder.take_providers() {
            (self.outputs.providers)(providers);
        }
        self.told
            .configuration
            .store(Arc::new((self.builder.store().clone(), self.builder.faults().clone())));
        if !self.client.is_synced() {
            return;
        }
        let Some(state) = self.builder.state() else { return };
        let running = self.waypoint.borrow().clone();
        match running {
            Some(waypoint) => waypoint.publish(state),
            None => {
                info!(own = %state.own.workload.uid, identity = %state.own.identity(), "the own record is known");
                self.parts.own.set(true);
                self.waypoint.send_replace(Some((self.outputs.make)(state)));
            }
        }
    }

    fn note_progress(&mut self) {
        let now = clock::unix_seconds();
        metrics::gauge!("ambit_config_last_ack_timestamp_seconds")
            .set(u32::try_from(now).map_or(0.0, f64::from));
        if self.is_confirmed || !self.client.is_confirmed() {
            return;
        }
        self.is_confirmed = true;
        self.told.away_since.store(0, Ordering::Relaxed);
        if self.told.is_complete.swap(true, Ordering::Relaxed) {
            return;
        }
        info!("discovery is complete");
        self.parts.discovery.set(true);
        if self.waypoint.borrow().is_none() {
            let uid = self.builder.uid();
            warn!(
                %uid,
                code = Reason::WorkloadUnknown.code(),
                "discovery does not know this pod; are POD_NAME, POD_NAMESPACE and CLUSTER_ID those of its record?"
            );
        }
    }
}

impl Subscriber for Discovery {
    fn begin(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.client.on_connect()
    }

    fn respond(&mut self, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
        let (update, receipt) = self.client.handle_response(response);
        report(&update);
        self.builder.take(update);
        // What the acknowledgement says is true when it is sent: after this returns.
        let acknowledged = receipt.applied(&mut self.client);
        self.publish();
        self.note_progress();
        acknowledged.request
    }

    fn ended(&mut self) {
        self.client.on_disconnect();
        self.is_confirmed = false;
        // Already away keeps the earlier moment.
        let now = clock::unix_seconds();
        let _ = self.told.away_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What the waypoint says of itself.
pub(crate) fn node(config: &Config) -> NodeIdentity {
    let node = &config.node;
    let more = [
        ("CLUSTER_ID", &*node.cluster_id),
        ("NETWORK", &*node.network),
        ("SERVICE_ACCOUNT", &*node.service_account),
    ];
    let said = more.into_iter().filter(|(_, value)| !value.is_empty());
    NodeIdentity {
        ip: node.instance_ip,
        pod_name: node.pod_name.clone(),
        namespace: node.pod_namespace.clone(),
        node_name: node.node_name.clone(),
        metadata: said.map(|(name, value)| (name.to_owned(), text(value))).collect::<BTreeMap<_, _>>(),
    }
}

/// Tells once what cannot be used, and what was read as less than it says.
fn report(update: &Update) {
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
    }
}
