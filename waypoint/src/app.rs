//! Wiring: builds the parts, connects them, opens the listener when all is there, waits for the end, drains.

use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::socket::{Accepts, SocketFactory, SocketOptions, wildcard};
use ambit_net::tls::remaining::Remaining;
use ambit_net::tls::store::CertificateStore;
use ambit_runtime::admin::{Routes, server};
use ambit_runtime::drain::Drain;
use ambit_runtime::logging::LogControl;
use ambit_runtime::metrics::Registry;
use ambit_runtime::readiness::{Part, Readiness};
use ambit_runtime::tasks;
use ambit_types::{Identity, Str};
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::discovery::{self, Following, Held, Make, Outputs, Parts, TellProviders};
use crate::keys::Keys;
use crate::observe::export::{self, Exporter};
use crate::observe::{self, Setup, flows};
use crate::sessions::Sessions;
use crate::{Hooks, Observe, Waypoint, admin, attend, external, random, terminate};

/// Runs until a signal ends it.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, log: LogControl, metrics: Registry) -> anyhow::Result<()> {
    metrics.start_upkeep();
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("istio_build", "component" => "waypoint", "tag" => version).set(1.0);
    let (drain, readiness) = (Drain::new(), Readiness::new());
    let (certificates, identity) = certificates(&config)?;
    // A drain of its own: probes, metrics and the admin socket answer while it is under way.
    let traffic = drain.child();
    let exporter = export::start(&config.traces, config.gateway(), &drain).context("exporting traces")?;
    let observe = observe(&config, exporter.clone());
    metrics.add(observe.series.clone());
    let (hooks, providers) = hooks(&config)?;
    let make = make(hooks, &config, &certificates, &observe, &traffic);
    let parts = Parts { discovery: readiness.part("discovery"), own: readiness.part("own workload") };
    let opening =
        Opening { certificate: readiness.part("certificate"), listener: readiness.part("listener") };
    let running = readiness.part("running");
    running.set(true);
    readiness.complete();

    let Following { waypoint, told } = discovery::start(&config, Outputs { make, providers }, parts);
    metrics.add(Remaining::of(&certificates));
    metrics.add(told.clone());
    metrics.add(Held::by(&waypoint));
    let source = admin::Source::new(&config, waypoint.clone(), told, certificates.clone());
    attend::start(&config, &observe, &source);
    serve_surface(&config, (&source, &observe), &readiness, (&log, &metrics), &drain)?;
    info!(pod = config.node.pod_name, gateway = config.gateway(), version, "waypoint started");
    let signal = tokio::select! {
        signal = end_signal() => signal?,
        failure = opening.open(&config, waypoint, &certificates, identity) => return Err(failure),
    };
    running.set(false);
    let deadline = config.drain.deadline();
    info!(signal, ?deadline, open = traffic.open(), "draining");
    let announce = config.bounds.limits().drain_announce;
    let cut = drain_all(&traffic, announce, deadline).await;
    info!(cut, "drained");
    if let Some(exporter) = exporter {
        exporter.finish().await;
    }
    drain.finish(Duration::ZERO).await;
    Ok(())
}

/// Whom the request path asks about tokens and by CUSTOM policies, how it learns whom these may ask, and the key of
/// sessions.
fn hooks(config: &Config) -> anyhow::Result<(Hooks, TellProviders)> {
    let providers = external::Providers::default();
    let key = config.sessions.session_key_file.as_deref();
    let sessions = key.map(Sessions::read).transpose().context("reading AMBIT_SESSION_KEY_FILE")?;
    let sessions = sessions.flatten().unwrap_or_default();
    let hooks = Hooks { external: Arc::new(providers.clone()), sessions, ..Hooks::default() };
    let mut settings = config.tokens.settings();
    let control = [config.discovery().0.address, config.ca().0.address];
    settings.guard.control = control.iter().filter_map(|address| host(address)).collect();
    let hooks = hooks.with_keys(Keys::new(settings));
    Ok((hooks, Box::new(move |known| providers.tell(known))))
}

/// The host of an address of the control plane, with or without a scheme.
fn host(address: &str) -> Option<Str> {
    let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority: http::uri::Authority = authority.split('/').next()?.parse().ok()?;
    Some(authority.host().trim_matches(['[', ']']).into())
}

/// Where records go: to the log, to the ring of flow records, and as spans to `exporter`.
fn observe(config: &Config, exporter: Option<Exporter>) -> Arc<Observe> {
    Observe::logging(Setup {
        node: config.node.pod_name.clone(),
        flow_records: config.surface.flow_records,
        sampler: config.traces.sampler,
        exporter,
    })
}

/// What makes the waypoint of its first state.
fn make(
    hooks: Hooks,
    config: &Config,
    certificates: &CertificateStore,
    observe: &Arc<Observe>,
    drain: &Drain,
) -> Make {
    let limits = config.bounds.limits();
    let (certificates, observe, drain) = (certificates.clone(), observe.clone(), drain.clone());
    Box::new(move |state| {
        Waypoint::new(
            state,
            certificates.clone(),
            hooks.clone(),
            limits.clone(),
            observe.clone(),
            drain.clone(),
        )
    })
}

/// The certificates, with the own one asked for: it need not wait for discovery.
fn certificates(config: &Config) -> anyhow::Result<(CertificateStore, Identity)> {
    let identity = config.identity().context(
        "the own identity, of TRUST_DOMAIN, POD_NAMESPACE and SERVICE_ACCOUNT; which of them is no name?",
    )?;
    let (target, caller) = config.ca();
    let ca = Arc::new(CaClient::new(target, caller, config.control.secret_ttl));
    let certificates = CertificateStore::new(ca, Arc::new(random::number));
    certificates.prefetch(&identity);
    certificates.follow_roots(&config.ca().0.roots);
    Ok((certificates, identity))
}

/// What stands between the start and the first request, beside discovery.
struct Opening {
    certificate: Part,
    listener: Part,
}

impl Opening {
    /// Opens the tunnel port once the waypoint knows what it goes by and has its certificate. Returns only what went
    /// wrong.
    async fn open(
        self,
        config: &Config,
        mut waypoints: watch::Receiver<Option<Arc<Waypoint>>>,
        certificates: &CertificateStore,
        expected: Identity,
    ) -> anyhow::Error {
        let waypoint = loop {
            let there = waypoints.borrow_and_update().clone();
            if let Some(waypoint) = there {
                break waypoint;
            }
            if waypoints.changed().await.is_err() {
                return anyhow::anyhow!("discovery has ended before it was complete; the log says why");
            }
        };
        observe::watch(&waypoint);
        let identity = waypoint.state().own.identity();
        if identity != expected {
            warn!(%identity, %expected, "discovery says another identity than the settings; it is the one that counts");
            certificates.prefetch(&identity);
            certificates.forget(&expected);
        }
        certificate(certificates, &identity).await;
        self.certificate.set(true);
        let listener = match listen(config, config.surface.hbone_port) {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        tasks::spawn("waypoint-listener", terminate::listen(waypoint, listener));
        self.listener.set(true);
        info!(port = config.surface.hbone_port, %identity, "serving");
        std::future::pending().await
    }
}

/// Waits for the own certificate; each failure is told by the store.
async fn certificate(certificates: &CertificateStore, identity: &Identity) {
    let mut received = certificates.received();
    loop {
        received.mark_unchanged();
        if certificates.get(identity).await.is_ok() {
            return;
        }
        // The store holds the sender, and the store is ours.
        let _ = received.changed().await;
    }
}

/// Listens on every address; a kernel without IPv6 still has IPv4.
fn listen(config: &Config, port: u16) -> anyhow::Result<TcpListener> {
    let own = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    let listener = own.listen_wide(wildcard(config.surface.ipv6_enabled, port), Accepts::default());
    listener.with_context(|| format!("listening on port {port}; is it taken?"))
}

/// Opens the admin socket, the metrics port and the readiness port.
fn serve_surface(
    config: &Config,
    (source, observe): (&admin::Source, &Observe),
    readiness: &Readiness,
    (log, metrics): (&LogControl, &Registry),
    drain: &Drain,
) -> anyhow::Result<()> {
    let socket = &config.surface.admin_socket;
    if !socket.as_os_str().is_empty() {
        let routes = flows::routes(admin::routes(Routes::new(), source), &observe.flows);
        let routes = routes.health(readiness).metrics(metrics).logging(log);
        server::serve_unix(socket, routes, drain).with_context(|| {
            format!(
                "opening the admin socket; set AMBIT_ADMIN_SOCKET to a writable path, not {}",
                socket.display()
            )
        })?;
    }
    let stats = listen(config, config.surface.stats_port).context("opening the port of the metrics")?;
    server::serve_tcp(stats, Routes::new().metrics(metrics), drain);
    let ready = listen(config, config.surface.readiness_port).context("opening the port of readiness")?;
    server::serve_tcp(ready, Routes::new().health(readiness), drain);
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

/// Goes on as ever for as long as others take to hear that it is not ready; then stops accepting, tells every client to
/// go (GOAWAY), waits for what is open until `deadline` is over, cuts the rest; how much that was. A second SIGINT ends
/// the wait.
async fn drain_all(traffic: &Drain, announce: Duration, deadline: Duration) -> usize {
    let announce = announce.min(deadline / 2);
    let drained = async {
        tokio::time::sleep(announce).await;
        traffic.finish(deadline - announce).await
    };
    let int = async {
        match signal(SignalKind::interrupt()) {
            Ok(mut int) => drop(int.recv().await),
            // Without it the deadline ends the wait.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        cut = drained => cut,
        () = int => traffic.open(),
    }
}
