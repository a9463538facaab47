//! Wiring: builds the parts, connects them, waits for the end, drains.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::dns::Servers;
use ambit_net::grpc::ca_client::CaClient;
use ambit_net::socket::{Accepts, SocketFactory, SocketOptions, wildcard};
use ambit_net::tls::remaining::Remaining;
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
use tokio::sync::watch;
use tracing::{info, warn};

use crate::admin::DumpSource;
use crate::admit::describe;
use crate::config::Config;
use crate::connections::Connections;
use crate::heard::LastHeard;
use crate::inpod::{Workloads, protocol};
use crate::lookups::Lookups;
use crate::mesh::Mesh;
use crate::nearby::NodeAddresses;
use crate::proxy::{Pods, Proxy, Settings};
use crate::selftest::SelfTests;
use crate::stale::Pairs;
use crate::telemetry::{Held, Telemetry};
use crate::xds::Progress;
use crate::{admin, attend, identity, random, sealed, selftest, xds};

/// How long listeners wait for discovery at start; then pods are captured anyway, and refused by name (G14).
const SYNC_WAIT: Duration = Duration::from_secs(5);
/// How long they wait where a sealed state is in force: what the control plane says now is better, if it is there.
const LIVE_WAIT: Duration = Duration::from_millis(500);

/// Runs until a signal ends it.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, log: LogControl, metrics: Registry) -> anyhow::Result<()> {
    metrics.start_upkeep();
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("istio_build", "component" => "ztunnel", "tag" => version).set(1.0);
    for (variable, instead) in &config.environment.without_effect {
        warn!(variable, instead, "a setting of other proxies has no effect here");
    }
    let drain = Drain::new();
    let readiness = Readiness::new();
    let (discovery, captured) = (readiness.part("state manager"), readiness.part("workload proxy manager"));
    readiness.complete();
    let heard = Arc::new(LastHeard::new(clock::unix_seconds()));
    let proxy = Arc::new(proxy(&config, &heard));
    let mut sealed = sealed::open(&config);
    let state = admin::State { heard: heard.clone(), recorder: sealed.recorder() };
    let source = DumpSource::new(&config, proxy.clone(), state);
    let selftests = selftest::start(&proxy.settings, &drain);
    serve_surface(&config, (&source, &selftests), &readiness, (&log, &metrics), &drain)?;
    serve_tools(&config, &source, &drain);
    metrics.add(proxy.telemetry.source());
    metrics.add(Held::by(&proxy));
    metrics.add(Remaining::of(&proxy.certificates));
    metrics.add(heard.clone());
    proxy.telemetry.watch(proxy.mesh.clone());
    proxy.connections.watch(proxy.mesh.clone());

    let progress = xds::start(&config, &proxy.mesh, &heard, discovery, &mut sealed);
    attend::start(&config, &proxy, &selftests, progress.clone());
    // Before anybody asks for certificates: those that are there need not be waited for.
    sealed.adopt_certificates(&proxy);
    identity::follow(&proxy.mesh, &proxy.certificates);
    proxy.certificates.follow_roots(&config.ca().0.roots);
    let is_sealed = heard.is_sealed();
    sealed.keep(&config, &proxy, &heard, &drain);
    let pods = Workloads::new(proxy.clone(), drain.child(), captured);
    let (socket, ending) = (config.pods.inpod_uds.clone(), drain.clone());
    tasks::spawn("zds", async move {
        hold_back(progress, is_sealed).await;
        protocol::run(&socket, pods, &ending).await;
    });
    info!(node = config.node.node_name, version, "ztunnel started");
    let signal = end_signal().await?;
    let deadline = config.drain.deadline();
    info!(signal, ?deadline, "draining");
    let cut = drain_all(&proxy, &drain, deadline).await;
    info!(cut, "drained");
    Ok(())
}

/// Waits for discovery before pods are captured: a little where a sealed state is in force, longer where none is.
async fn hold_back(mut progress: watch::Receiver<Progress>, is_sealed: bool) {
    let enough = |progress: &Progress| match progress {
        Progress::Waiting => false,
        Progress::Unreachable => is_sealed,
        Progress::Synced => true,
    };
    let limit = if is_sealed { LIVE_WAIT } else { SYNC_WAIT };
    // A loop that is gone has nothing more to wait for.
    if tokio::time::timeout(limit, progress.wait_for(enough)).await.is_err() && !is_sealed {
        warn!(code = "AMB6001", "discovery has not answered; pods are captured and refused until it does");
    }
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
        nameservers: Arc::new(Servers::File(config.pods.resolv_conf.clone())),
        node_addresses: Arc::new(NodeAddresses::beside(&config.pods.inpod_uds)),
    };
    let lookups = if config.control.xds_on_demand { Lookups::on_demand() } else { Lookups::default() };
    Proxy {
        mesh: Mesh::with_lookups(World::new(config.node.node_name.clone()).snapshot(), lookups),
        certificates: CertificateStore::new(ca, Arc::new(random::number)),
        connections: Connections::new(telemetry.clone()),
        telemetry,
        pods: Pods::default(),
        pairs: Pairs::new(config.state.max_stale, heard.clone()),
        settings,
    }
}

/// Opens the admin socket, the metrics port and the readiness port.
fn serve_surface(
    config: &Config,
    (source, selftests): (&DumpSource, &SelfTests),
    readiness: &Readiness,
    (log, metrics): (&LogControl, &Registry),
    drain: &Drain,
) -> anyhow::Result<()> {
    let common = Routes::new().health(readiness);
    let socket = &config.surface.admin_socket;
    if !socket.as_os_str().is_empty() {
        let routes = admin::selftests(admin::routes(Routes::new(), source), selftests);
        let routes = routes.health(readiness).metrics(metrics).logging(log);
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
        let listener = own.listen_wide(wildcard(config.pods.ipv6_enabled, port), Accepts::default());
        let listener =
            listener.with_context(|| format!("listening on port {port} for metrics or readiness"))?;
        server::serve_tcp(listener, routes, drain);
    }
    Ok(())
}

/// Opens the port for tools that know Istio's ztunnel, if there is to be one. Traffic does not depend on it, so a port
/// that is taken is told and nothing more.
fn serve_tools(config: &Config, source: &DumpSource, drain: &Drain) {
    let Some(port) = config.admin_port() else { return };
    let own = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    match own.listen((Ipv4Addr::LOCALHOST, port).into(), Accepts::default()) {
        Ok(listener) => {
            server::serve_tcp(listener, admin::tools(source, &config.surface.admin_socket), drain)
        }
        Err(error) => warn!(
            port,
            error = describe(&error),
            "tools such as istioctl cannot ask; set AMBIT_ADMIN_PORT to a free port, or to 0 for none"
        ),
    }
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
