//! Wiring: builds the parts, connects them, waits for the end, drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::socket::{SocketFactory, SocketOptions, wildcard};
use ambit_net::tls::store::CertificateStore;
use ambit_runtime::admin::{Routes, server};
use ambit_runtime::drain::Drain;
use ambit_runtime::logging::LogControl;
use ambit_runtime::metrics::Registry;
use ambit_runtime::readiness::Readiness;
use ambit_runtime::{clock, tasks};
use ambit_state::World;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::connections::Connections;
use crate::inpod::{Workloads, protocol};
use crate::lookups::Lookups;
use crate::mesh::Mesh;
use crate::proxy::{Pods, Proxy, Settings};
use crate::telemetry::{StaleFor, Telemetry};
use crate::{admin, identity, random, xds};

/// How long listeners wait for discovery at start; then pods are captured anyway, and refused by name (G14).
const SYNC_WAIT: Duration = Duration::from_secs(5);

/// When the control plane was last heard.
#[derive(Debug, Default)]
pub struct LastHeard(AtomicU64);

impl LastHeard {
    /// The control plane is there.
    pub fn here(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The control plane has just gone away.
    pub fn gone(&self) {
        // Already away keeps the earlier moment.
        let _ = self.0.compare_exchange(0, clock::unix_seconds(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl StaleFor for LastHeard {
    fn stale_for(&self) -> Option<u64> {
        let since = self.0.load(Ordering::Relaxed);
        (since > 0).then(|| clock::unix_seconds().saturating_sub(since))
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, log: LogControl, metrics: Registry) -> anyhow::Result<()> {
    metrics.start_upkeep();
    for (variable, instead) in &config.environment.without_effect {
        warn!(variable, instead, "a setting of other proxies has no effect here");
    }
    let drain = Drain::new();
    let readiness = Readiness::new();
    let heard = Arc::new(LastHeard(AtomicU64::new(clock::unix_seconds())));
    let proxy = Arc::new(proxy(&config, &heard));
    serve_surface(&config, &proxy, &readiness, (&log, &metrics), &drain)?;
    metrics.add(proxy.telemetry.source());
    proxy.telemetry.watch(proxy.mesh.clone());
    proxy.connections.watch(proxy.mesh.clone());
    identity::follow(&proxy.mesh, &proxy.certificates);

    let discovery = readiness.part("state manager");
    let synced =
        xds::start(&config, World::new(config.node.node_name.clone()), &proxy.mesh, &heard, discovery);
    let pods = Workloads::new(proxy.clone(), drain.child(), readiness.part("workload proxy manager"));
    let (socket, ending) = (config.pods.inpod_uds.clone(), drain.clone());
    tasks::spawn("zds", async move {
        if tokio::time::timeout(SYNC_WAIT, synced).await.is_err() {
            warn!(
                code = "AMB6001",
                "discovery has not answered; pods are captured and refused until it does"
            );
        }
        protocol::run(&socket, pods, &ending).await;
    });
    info!(node = config.node.node_name, version = env!("CARGO_PKG_VERSION"), "ztunnel started");
    let signal = end_signal().await?;
    let deadline = config.drain.deadline();
    info!(signal, ?deadline, "draining");
    let cut = drain_all(&proxy, &drain, deadline).await;
    info!(cut, "drained");
    Ok(())
}

pub(crate) fn proxy(config: &Config, heard: &Arc<LastHeard>) -> Proxy {
    let (target, caller) = config.ca();
    let ca = Arc::new(CaClient::new(target, caller, config.control.secret_ttl));
    let telemetry = Telemetry::new(&config.node.node_name, config.surface.flow_records, heard.clone());
    let settings = Settings {
        same_node: config.pods.same_node.into(),
        connect_timeout: config.pods.connect_timeout,
        tunnel: Arc::new(config.tunnel_settings()),
        pool: config.pool_limits(),
        sockets: Arc::new(config.pod_sockets()),
        original_source: config.pods.enable_orig_src,
        response_baggage: config.tunnels.response_baggage,
        ipv6: config.pods.ipv6_enabled,
        pod_connections_max: config.pods.pod_connections_max,
        pod_handshakes_max: config.pods.pod_handshakes_max,
        per_source: config.per_source(),
    };
    let lookups = if config.control.xds_on_demand { Lookups::on_demand() } else { Lookups::default() };
    Proxy {
        mesh: Mesh::with_lookups(World::new(config.node.node_name.clone()).snapshot(), lookups),
        certificates: CertificateStore::new(ca, Arc::new(random::number)),
        connections: Connections::new(telemetry.clone()),
        telemetry,
        pods: Pods::default(),
        settings,
    }
}

/// Opens the admin socket, the metrics port and the readiness port.
fn serve_surface(
    config: &Config,
    proxy: &Arc<Proxy>,
    readiness: &Readiness,
    (log, metrics): (&LogControl, &Registry),
    drain: &Drain,
) -> anyhow::Result<()> {
    let common = Routes::new().health(readiness);
    let socket = &config.surface.admin_socket;
    if !socket.as_os_str().is_empty() {
        let routes = admin::routes(common.clone().metrics(metrics).logging(log), proxy, admin::about(config));
        server::serve_unix(socket, routes, drain).with_context(|| {
            format!(
                "opening the admin socket; set AMBIT_ADMIN_SOCKET to a writable path, not {}",
                socket.display()
            )
        })?;
    }
    let own = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    for (port, routes) in
        [(config.stats_port(), Routes::new().metrics(metrics)), (config.surface.readiness_port, common)]
    {
        let address: SocketAddr = wildcard(config.pods.ipv6_enabled, port);
        // A kernel without IPv6 still has IPv4.
        let listener = own.listen(address, false).or_else(|_| own.listen(wildcard(false, port), false));
        let listener =
            listener.with_context(|| format!("listening on port {port} for metrics or readiness"))?;
        server::serve_tcp(listener, routes, drain);
    }
    Ok(())
}

async fn end_signal() -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}

/// Stops accepting, waits for open connections, cuts the rest. A second SIGINT ends the wait.
async fn drain_all(proxy: &Proxy, drain: &Drain, deadline: Duration) -> usize {
    drain.begin();
    let pods = proxy.pods.all();
    // All pods at once: the deadline is the process's, not each pod's.
    let waits = pods.iter().map(|pod| pod.drain.finish(deadline));
    let all = async { futures_util::future::join_all(waits).await.into_iter().sum() };
    let mut int = signal(SignalKind::interrupt()).ok();
    tokio::select! {
        cut = all => cut,
        () = async { match &mut int { Some(int) => drop(int.recv().await), None => std::future::pending().await } } => 0,
    }
}
