//! Puts the parts together and runs them until the program is told to stop.

use std::fs::{DirBuilder, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_control::Name;
use ambit_net::grpc::services::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use ambit_net::grpc::services::istio_certificate_service_server::IstioCertificateServiceServer;
use ambit_runtime::admin::{Routes, server};
use ambit_runtime::drain::Drain;
use ambit_runtime::metrics::{IDLE, Registry};
use ambit_runtime::readiness::Readiness;
use ambit_runtime::{clock, logging, tasks};
use ambit_xds::node::WaypointKey;
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::{debug, error, info};

use crate::ca::authn::Verifier;
use crate::ca::service::{CertificateService, Gate};
use crate::ca::sign::ServerNames;
use crate::ca::{Audit, Authority, store};
use crate::config::{Config, Source};
use crate::push::Publisher;
use crate::push::service::DiscoveryService;
use crate::report::{self, Sources};
use crate::tls;
use crate::watch::{Feed, Update};
use crate::world::World;

/// Longest unary call.
const CALL: Duration = Duration::from_secs(20);
/// Largest certificate request with everything around it.
const CERTIFICATE_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Largest discovery request: a node that reconnects names everything it holds.
const DISCOVERY_REQUEST_BYTES_MAX: usize = 64 << 20;
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
    let mut running = start(config, &drain).await?;

    let routes = running.routes.clone().metrics(&registry).logging(&log);
    server::serve_unix(&config.surface.admin_socket, routes, &drain).context("opening the admin surface")?;
    if let Some(address) = config.surface.monitoring_listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        server::serve_tcp(listener, Routes::new().health(&running.readiness).metrics(&registry), &drain);
    }
    info!(listen = %running.listen, folder = %config.objects.folder.display(), "started");

    let result = tokio::select! {
        _ = terminated.recv() => Ok("SIGTERM"),
        _ = interrupted.recv() => Ok("SIGINT"),
        lost = &mut running.lost => Err(lost.unwrap_or("a part of the program ended")),
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
    /// Resolves if the program cannot go on.
    pub lost: oneshot::Receiver<&'static str>,
}

/// Starts everything but logs, metrics and the admin surface; stops when `drain` does.
///
/// # Errors
/// What kept it from starting.
pub async fn start(config: &Config, drain: &Drain) -> anyhow::Result<Running> {
    let readiness = Readiness::new();
    let (objects, serving) = (readiness.part("objects"), readiness.part("serving"));
    let authority = open_authority(config)?;
    let world = Arc::new(World::new(config.index()));
    let (publisher, sources) = (Arc::new(Publisher::default()), Arc::new(Sources::default()));
    let (feed, first) = match config.objects.source {
        Source::Folder => Feed::folder(&config.objects.folder)
            .with_context(|| format!("reading the objects in {}", config.objects.folder.display()))?,
    };
    let (on_loss, lost) = oneshot::channel();
    let follower = Follower { world, publisher, sources };
    follower.take(first);
    objects.set(true);
    let routes = report::routes(&follower.sources, &follower.world, &follower.publisher).health(&readiness);

    let gate = open_gate(config, follower.world.clone())?;
    let listener = TcpListener::bind(config.surface.listen)
        .await
        .with_context(|| format!("listening on {}", config.surface.listen))?;
    let listen = listener.local_addr().context("asking for our own address")?;
    let settings = tls::settings(&authority, &server_names(config, listen), drain)?;
    let connections = ReceiverStream::new(tls::accept(listener, settings, drain));
    let certificates = CertificateService::new(gate.clone(), authority);
    let discovery =
        DiscoveryService::new(gate, follower.publisher.clone(), config.surface.stream_age_max, drain);
    let serve = grpc(certificates, discovery, connections, drain.clone());
    drop(tasks::spawn("grpc", drain.track(serve)));
    drop(tasks::spawn("objects", follower.follow(feed, drain.clone(), on_loss)));
    serving.set(true);
    Ok(Running { listen, readiness, routes, lost })
}

async fn grpc(
    certificates: CertificateService,
    discovery: DiscoveryService,
    connections: ReceiverStream<std::io::Result<tls::Connection>>,
    drain: Drain,
) {
    let certificates = IstioCertificateServiceServer::new(certificates)
        .max_decoding_message_size(CERTIFICATE_REQUEST_BYTES_MAX);
    let discovery = AggregatedDiscoveryServiceServer::new(discovery)
        .max_decoding_message_size(DISCOVERY_REQUEST_BYTES_MAX);
    let served = Server::builder()
        .timeout(CALL)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .add_service(certificates)
        .add_service(discovery)
        .serve_with_incoming_shutdown(connections, async move { drain.draining().await })
        .await;
    if let Err(cause) = served {
        error!(%cause, "serving ended");
    }
}

fn open_authority(config: &Config) -> anyhow::Result<Arc<Authority>> {
    let state = &config.surface.state_dir;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.with_context(|| format!("making the folder {}", state.display()))?;
    let authority = store::open(&state.join("ca"), &config.mesh.trust_domain, clock::wall())?;
    let bundle = state.join("root-cert.pem");
    store::replace(&bundle, authority.roots_pem().as_bytes())?;
    readable(&bundle)?;
    Ok(Arc::new(authority))
}

/// The trust bundle is public.
fn readable(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o644))
        .with_context(|| format!("making {} readable", path.display()))
}

fn open_gate(config: &Config, world: Arc<World>) -> anyhow::Result<Arc<Gate>> {
    let verifier = Verifier::open(&config.callers.token_issuer_keys, config.expected_token())?;
    let path = config.surface.state_dir.join("audit.jsonl");
    let audit = Audit::open(&path).with_context(|| format!("opening the audit log {}", path.display()))?;
    Ok(Arc::new(Gate::new(verifier, config.rules(), audit, world)))
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

/// Takes in what the source says, the only writer of the world.
struct Follower {
    world: Arc<World>,
    publisher: Arc<Publisher>,
    sources: Arc<Sources>,
}

impl Follower {
    async fn follow(self, mut feed: Feed, drain: Drain, on_loss: oneshot::Sender<&'static str>) {
        loop {
            let update = tokio::select! {
                update = feed.next() => update,
                () = drain.draining() => return,
            };
            match update {
                Some(update) => self.take(update),
                None => {
                    // Nobody listens any more only while the program ends anyway.
                    let _ = on_loss.send("the source of objects is gone");
                    return;
                }
            }
        }
    }

    fn take(&self, update: Update) {
        let Update { events, revision, problems } = update;
        let changed = events.len();
        let delta = self.world.apply(events);
        self.sources.tell(&delta);
        self.publisher.publish(revision, delta);
        {
            let index = self.world.index();
            let is_replica = |gateway: &WaypointKey, pod: &str, node: &str| {
                let name = Name::new(gateway.namespace.clone(), gateway.name.clone());
                index.waypoints().contains_key(&name)
                    && index
                        .pods_on(node)
                        .any(|p| p.name.namespace == gateway.namespace && *p.name.name == *pod)
            };
            self.publisher.forget(|node| index.node(node).is_some(), is_replica);
        }
        self.sources.take(revision, problems);
        debug!(revision, changed, "took in a change");
    }
}
