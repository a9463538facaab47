//! Puts the parts together and runs them until the program is told to stop.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::admin::{Reply, Routes, server};
use ambit_runtime::drain::Drain;
use ambit_runtime::logging;
use ambit_runtime::metrics::{IDLE, Registry};
use ambit_runtime::readiness::Readiness;
use anyhow::Context as _;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::attend::{self, Attendant};
use crate::config::{Config, Source};
use crate::datapath::Datapath;
use crate::handoff::{Handoff, Limits};
use crate::install;
use crate::nearby;
use crate::reconcile::Reconciler;
use crate::reconcile::status::{Gauges, PodStatus};
use crate::reconcile::work::{Removal, Tools};
use crate::removal::{self, Remover};
use crate::source::{self, Objects};

/// Worker threads: the agent mostly waits.
const WORKERS: usize = 2;
/// Longest wait for work under way at the end; every rule stays as it is either way.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the program; returns when it was told to stop.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("ambit-cni")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(GRACE);
    result
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let log = logging::start(&config.log, config.log_format).context("starting the log")?;
    let registry = Registry::install(IDLE).context("starting the metrics")?;
    registry.start_upkeep();
    let (readiness, drain) = (Readiness::new(), Drain::new());
    let mut told = Told::listen()?;

    // Before the objects: where there are none yet, why is to be asked.
    let base = Routes::new().health(&readiness).metrics(&registry).logging(&log);
    serve_monitoring(config, &readiness, &registry, &drain).await?;
    let client = client(config).await?;
    let objects = open_source(config, client.clone(), &readiness, &drain);
    let waiting = drain.child();
    if client.is_some() {
        server::serve_unix(&config.admin_socket, base.clone(), &waiting)
            .context("opening the admin surface")?;
    }
    let objects = tokio::select! {
        objects = objects => objects?,
        signal = told.wait() => {
            info!(told = signal, "stopping before any object was seen; nothing was changed");
            drain.begin();
            return Ok(());
        }
    };
    waiting.begin();
    let remover = start(config, objects, &readiness, &drain)?;
    registry.add(Gauges::of(remover.status.clone()));
    readiness.complete();
    let routes = routes(base, remover.status.clone(), &remover);
    server::serve_unix(&config.admin_socket, routes, &drain).context("opening the admin surface")?;
    info!(node = config.node, source = ?config.source, socket = %config.zds_socket.display(), "started");

    let signal = told.wait().await;
    if is_the_end(config, client.as_ref()).await {
        info!(told = signal, "stopping, and the mesh leaves this node");
        remover.run().await;
        drain.begin();
        clear(config);
        return Ok(());
    }
    info!(told = signal, "stopping; captured pods stay captured");
    drain.begin();
    Ok(())
}

/// Metrics and health for those who may not use the admin socket.
async fn serve_monitoring(
    config: &Config,
    readiness: &Readiness,
    registry: &Registry,
    drain: &Drain,
) -> anyhow::Result<()> {
    let Some(address) = config.monitoring_listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    server::serve_tcp(listener, Routes::new().health(readiness).metrics(registry), drain);
    Ok(())
}

/// The signals that end the program.
struct Told {
    terminated: Signal,
    interrupted: Signal,
}

impl Told {
    fn listen() -> anyhow::Result<Self> {
        let terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        Ok(Self { terminated, interrupted })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminated.recv() => "SIGTERM",
            _ = self.interrupted.recv() => "SIGINT",
        }
    }
}

async fn client(config: &Config) -> anyhow::Result<Option<kube::Client>> {
    match config.source {
        Source::Folder => Ok(None),
        Source::Kube => {
            let client = ambit_kube::client::connect(config.kubeconfig.as_deref()).await;
            Ok(Some(client.context("finding the API server")?))
        }
    }
}

async fn open_source(
    config: &Config,
    client: Option<kube::Client>,
    readiness: &Readiness,
    drain: &Drain,
) -> anyhow::Result<Objects> {
    let ready = readiness.part("objects");
    if let Some(client) = client {
        let objects =
            source::cluster::open(client, &config.node, config.state_file.clone(), ready, drain).await;
        return objects.context("the program is told to stop");
    }
    let folder = config.folder.as_deref().context("--folder is missing")?;
    source::open(folder, &config.node, ready, drain)
        .with_context(|| format!("reading the objects in {}", folder.display()))
}

/// Starts everything that works on pods.
fn start(
    config: &Config,
    objects: Objects,
    readiness: &Readiness,
    drain: &Drain,
) -> anyhow::Result<Arc<Remover>> {
    let handoff = Handoff::start(&config.zds_socket, Limits::default(), drain)
        .context("offering the hand-over to ztunnel")?;
    if config.tell_node_addresses {
        nearby::follow(&config.zds_socket, drain);
    } else {
        nearby::forget(&config.zds_socket).context("removing the node's addresses")?;
    }
    let sandboxes = Arc::new(config.sandboxes().context("opening our own network namespace")?);
    let (removal, leaving) = watch::channel(Removal::Stay);
    let tools = Tools {
        datapath: Arc::new(Datapath::default()),
        sandboxes: Arc::clone(&sandboxes),
        handoff,
        patience: Limits::default().deadline,
        removal: leaving.clone(),
    };
    let (excluded, limits, ready) = (config.excluded(), config.limits(), readiness.part("pods"));
    let pods = objects.pods.clone();
    let status =
        Reconciler::start(tools, objects.announce, excluded.clone(), limits, objects.pods, ready, drain);
    let attendant = Attendant {
        pods: pods.clone(),
        namespaces: objects.namespaces,
        status: status.clone(),
        sandboxes,
        excluded: Arc::new(excluded),
        removal: leaving,
        limits: attend::Limits::default(),
    };
    if config.serves_plugin() {
        attendant.serve(&config.plugin.plugin_socket, drain).context("opening the CNI plugin's socket")?;
    }
    let plugin = match config.installer() {
        None => None,
        Some(installer) => {
            let following = install::follow(installer.clone(), readiness.part("plugin"), drain);
            Some((installer, Arc::new(following.context("starting to install the CNI plugin")?)))
        }
    };
    let (deadline, files) = (config.removal.release_deadline, removal::files_of(config));
    let progress = watch::Sender::default();
    Ok(Arc::new(Remover { progress, plugin, removal, status, pods, deadline, files }))
}

/// Whether the end of the program is that of the mesh on this node.
async fn is_the_end(config: &Config, client: Option<&kube::Client>) -> bool {
    if config.removal.uninstall_flag.exists() {
        return true;
    }
    match client {
        Some(client) => removal::is_orphaned(client, config).await,
        None => false,
    }
}

/// The last of our files: those that served until now, and folders that hold nothing else.
fn clear(config: &Config) {
    // Written by a task that may have had its last turn only now; in the folder of a socket, so before it.
    let _ = std::fs::remove_file(nearby::file_beside(&config.zds_socket));
    let sockets = [&config.plugin.plugin_socket, &config.zds_socket, &config.admin_socket];
    for socket in sockets {
        // Whoever served it may have done so already, and a folder that others use stays.
        let _ = std::fs::remove_file(socket);
        let _ = socket.parent().map(std::fs::remove_dir);
    }
}

/// `/pods`: every pod of the node with its state; `?uid=` picks one. `/uninstall`: POST takes the mesh off this node,
/// GET tells how far that is.
fn routes(base: Routes, pods: watch::Receiver<Arc<Vec<PodStatus>>>, remover: &Arc<Remover>) -> Routes {
    let (begin, show) = (Arc::clone(remover), Arc::clone(remover));
    base.get("/pods", move |call| {
        let list = Arc::clone(&pods.borrow());
        let reply = match call.query.get("uid") {
            None => Reply::json(&*list),
            Some(uid) => match list.iter().find(|pod| pod.uid == *uid) {
                Some(pod) => Reply::json(pod),
                None => Reply::text(StatusCode::NOT_FOUND, "no pod of this node has that uid\n"),
            },
        };
        std::future::ready(reply)
    })
    .get("/uninstall", move |_| {
        let progress = show.progress.borrow().clone();
        std::future::ready(Reply::json(&progress))
    })
    .post("/uninstall", move |_| {
        Arc::clone(&begin).begin();
        std::future::ready(Reply::text(StatusCode::ACCEPTED, "the mesh leaves this node\n"))
    })
}
