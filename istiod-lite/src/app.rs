//! Puts the parts together and runs them until the program is told to stop.

use std::fs::DirBuilder;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::services::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use ambit_net::grpc::services::istio_certificate_service_server::IstioCertificateServiceServer;
use ambit_net::grpc::services::observer_server::ObserverServer;
use ambit_runtime::admin::{Routes, server};
use ambit_runtime::drain::Drain;
use ambit_runtime::metrics::{IDLE, Registry};
use ambit_runtime::readiness::{Part, Readiness};
use ambit_runtime::{clock, logging, tasks};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::{error, info};

use crate::ca::authn::Verifier;
use crate::ca::keeper::{Keeper, Seen, Settings, keep_file};
use crate::ca::service::{CertificateService, Gate};
use crate::ca::sign::ServerNames;
use crate::ca::{Audit, store};
use crate::config::{Config, Source};
use crate::console;
use crate::follower::Follower;
use crate::kube::{Kube, Shared};
use crate::listen;
use crate::observe::AttendService;
use crate::push::service::DiscoveryService;
use crate::report;
use crate::tls;
use crate::watch::{Feed, Update};
use crate::world::World;

/// Longest unary call.
const CALL: Duration = Duration::from_secs(20);
/// Largest certificate request with everything around it.
const CERTIFICATE_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Largest discovery request: a node that reconnects names everything it holds.
const DISCOVERY_REQUEST_BYTES_MAX: usize = 64 << 20;
/// Largest message of a proxy that attends: a summary of every pair it may tell apart.
const ATTEND_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Streams of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Bytes of a call's headers; a token is the largest of them.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// When a silent connection is asked whether it lives, and how long it may take to answer.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);

/// Runs the program; returns when it was told to stop.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("istiod-lite")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let log = logging::start(&config.surface.log, config.surface.log_format).context("starting the log")?;
    let registry = Registry::install(IDLE).context("starting the metrics")?;
    registry.start_upkeep();
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let drain = Drain::new();
    let start = Start::default();
    // An API server may be away for long when we start: until then we are alive, and not ready.
    if let Some(address) = config.surface.monitoring_listen {
        let listener = listen::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let routes = Routes::new().health(&start.readiness).metrics(&registry);
        server::serve_tcp(listener, routes, &drain);
    }
    let begun = tokio::select! {
        _ = terminated.recv() => Err("SIGTERM"),
        _ = interrupted.recv() => Err("SIGINT"),
        begun = begin(config, &drain, start) => Ok(begun?),
    };
    let result = match begun {
        Err(told) => Ok(told),
        Ok(mut running) => {
            registry.add(running.gauges.clone());
            let routes = running.routes.clone().metrics(&registry).logging(&log);
            server::serve_unix(&config.surface.admin_socket, routes, &drain)
                .context("opening the admin surface")?;
            info!(listen = %running.listen, source = ?config.objects.source, "started");
            tokio::select! {
                _ = terminated.recv() => Ok("SIGTERM"),
                _ = interrupted.recv() => Ok("SIGINT"),
                lost = &mut running.lost => Err(lost.unwrap_or("a part of the program ended")),
            }
        }
    };
    let cut = drain.finish(config.surface.drain_grace).await;
    match result {
        Ok(told) => info!(told, cut, "stopped"),
        Err(lost) => anyhow::bail!("{lost}; see the log"),
    }
    Ok(())
}

/// The running program, without its admin surface.
#[derive(Debug)]
pub struct Running {
    /// Where it serves.
    pub listen: SocketAddr,
    /// Its parts.
    pub readiness: Readiness,
    /// What the admin surface shows.
    pub routes: Routes,
    /// What the metrics tell of what is served.
    pub gauges: Arc<report::Gauges>,
    /// Resolves if the program cannot go on.
    pub lost: oneshot::Receiver<&'static str>,
}

/// What is there before anything else: parts that are not ready.
struct Start {
    readiness: Readiness,
    authority: Part,
    objects: Part,
    serving: Part,
}

impl Default for Start {
    fn default() -> Self {
        let readiness = Readiness::new();
        let (authority, objects) = (readiness.part("authority"), readiness.part("objects"));
        let serving = readiness.part("serving");
        readiness.complete();
        Self { readiness, authority, objects, serving }
    }
}

/// Starts everything but logs, metrics and the admin surface; stops when `drain` does. With an API server as its source
/// it waits until everything has been listed, for as long as that takes.
///
/// # Errors
/// What kept it from starting.
pub async fn start(config: &Config, drain: &Drain) -> anyhow::Result<Running> {
    begin(config, drain, Start::default()).await
}

async fn begin(config: &Config, drain: &Drain, start: Start) -> anyhow::Result<Running> {
    let Start { readiness, authority, objects, serving } = start;
    let kube = match config.objects.source {
        Source::Folder => None,
        Source::Kube => Some(Kube::open(config).await?),
    };
    let keeper = open_keeper(config, kube.as_ref(), drain).await?;
    authority.set(true);
    let (feed, first) = open_feed(config, kube.as_ref()).await?;
    let (on_loss, lost) = oneshot::channel();
    let follower = Follower::new(config, objects);
    follower.take(first);
    let routes = report::routes(&follower.sources, &follower.world, &follower.publisher)
        .merge(keeper.routes())
        .health(&readiness);
    let parts = parts(&follower, &keeper);
    let routes = routes.merge(console::routes(&parts));

    let gauges = report::Gauges::of(&follower.world, &follower.publisher);
    let gate = open_gate(config, kube.as_ref(), follower.world.clone())?;
    let audit = gate.audit.clone();
    let listener = listen::bind(config.surface.listen)
        .await
        .with_context(|| format!("listening on {}", config.surface.listen))?;
    let listen = listener.local_addr().context("asking for our own address")?;
    let settings = tls::settings(keeper.signer(), &server_names(config, listen), drain)?;
    console::start(&config.console, &parts, &settings, drain).await?;
    let connections = ReceiverStream::new(tls::accept(listener, settings.clone(), drain));
    let certificates = CertificateService::new(gate.clone(), keeper.signer());
    let age_max = config.surface.stream_age_max;
    let (hub, changed) = (follower.hub.clone(), follower.changed.subscribe());
    let attend = AttendService::new(gate.clone(), hub, changed, age_max, drain);
    let discovery = DiscoveryService::new(gate, follower.publisher.clone(), age_max, drain);
    // Who leads writes, so nobody leads before he knows everything.
    let leader = match &kube {
        Some(kube) => kube.elect(config, drain),
        None => watch::channel(true).1,
    };
    if let Some(kube) = &kube {
        let (world, changed) = (follower.world.clone(), follower.changed.subscribe());
        let (bundle, leader) = (keeper.bundle_changes(), leader.clone());
        let problems = follower.problems.subscribe();
        kube.start(config, Shared { world, changed, problems, bundle, leader, tls: settings }, drain).await?;
    }
    let seen = Seen { world: follower.world.clone(), publisher: follower.publisher.clone() };
    drop(tasks::spawn("authority", keeper.follow(seen, audit, leader, drain.clone())));
    let serve = grpc(certificates, discovery, attend, connections, drain.clone());
    drop(tasks::spawn("grpc", drain.track(serve)));
    drop(tasks::spawn("objects", follower.follow(feed, drain.clone(), on_loss)));
    serving.set(true);
    Ok(Running { listen, readiness, routes, gauges, lost })
}

/// What the API reads.
fn parts(follower: &Follower, keeper: &Keeper) -> console::Parts {
    console::Parts {
        world: follower.world.clone(),
        publisher: follower.publisher.clone(),
        sources: follower.sources.clone(),
        keeper: keeper.clone(),
        gathered: Arc::new(follower.hub.clone()),
        changed: follower.changed.subscribe(),
        live: console::Live::default(),
    }
}

async fn open_feed(config: &Config, kube: Option<&Kube>) -> anyhow::Result<(Feed, Update)> {
    match (kube, &config.objects.folder) {
        (Some(kube), _) => Ok(Feed::kube(kube.client.clone(), &config.mesh.root_namespace).await),
        (None, Some(folder)) => {
            Feed::folder(folder).with_context(|| format!("reading the objects in {}", folder.display()))
        }
        (None, None) => anyhow::bail!("no folder of objects is named; set --folder"),
    }
}

async fn grpc(
    certificates: CertificateService,
    discovery: DiscoveryService,
    attend: AttendService,
    connections: ReceiverStream<std::io::Result<tls::Connection>>,
    drain: Drain,
) {
    let certificates = IstioCertificateServiceServer::new(certificates)
        .max_decoding_message_size(CERTIFICATE_REQUEST_BYTES_MAX);
    let discovery = AggregatedDiscoveryServiceServer::new(discovery)
        .max_decoding_message_size(DISCOVERY_REQUEST_BYTES_MAX);
    let attend = ObserverServer::new(attend).max_decoding_message_size(ATTEND_MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .timeout(CALL)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .add_service(certificates)
        .add_service(discovery)
        .add_service(attend)
        .serve_with_incoming_shutdown(connections, async move { drain.draining().await })
        .await;
    if let Err(cause) = served {
        error!(%cause, "serving ended");
    }
}

/// The authority: on disk, or in the cluster. Its bundle is kept in the state folder, too.
async fn open_keeper(config: &Config, kube: Option<&Kube>, drain: &Drain) -> anyhow::Result<Keeper> {
    let state = &config.surface.state_dir;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.with_context(|| format!("making the folder {}", state.display()))?;
    let keeper = match kube {
        Some(kube) => kube.keeper(config).await,
        None => {
            let (domain, life) = (config.mesh.trust_domain.clone(), config.certificates.leaf_ttl);
            Keeper::on_disk(&state.join("ca"), Settings::new(domain, life, true), clock::wall())?
        }
    };
    let (path, bundle) = (state.join("root-cert.pem"), keeper.bundle_changes());
    store::replace(&path, bundle.borrow().as_bytes())?;
    drop(tasks::spawn("bundle-file", keep_file(path, bundle, drain.clone())));
    Ok(keeper)
}

fn open_gate(config: &Config, kube: Option<&Kube>, world: Arc<World>) -> anyhow::Result<Arc<Gate>> {
    let verifier = match kube {
        Some(kube) => kube.verifier(config),
        None => Verifier::open(&config.callers.token_issuer_keys, config.expected_token())?,
    };
    let path = config.surface.state_dir.join("audit.jsonl");
    let audit = Audit::open(&path).with_context(|| format!("opening the audit log {}", path.display()))?;
    Ok(Arc::new(Gate::new(verifier, config.rules(), Arc::new(audit), world)))
}

/// Names under which clients look for us: the service's, and where we listen.
fn server_names(config: &Config, listen: SocketAddr) -> ServerNames {
    let (namespace, domain) = (&config.mesh.root_namespace, &config.mesh.cluster_domain);
    let mut hosts = vec![format!("istiod.{namespace}.svc"), format!("istiod.{namespace}.svc.{domain}")];
    hosts.extend(config.surface.server_names.iter().filter(|name| !name.is_empty()).cloned());
    let ip: IpAddr = listen.ip().to_canonical();
    if ip.is_loopback() {
        hosts.push("localhost".to_owned());
    }
    // An address that stands for all addresses is nobody's name.
    let addresses = if ip.is_unspecified() { Vec::new() } else { vec![ip] };
    ServerNames { hosts, addresses, identity: config.identity() }
}
