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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::config::{Config, Source};
use crate::datapath::Datapath;
use crate::handoff::{Handoff, Limits};
use crate::reconcile::Reconciler;
use crate::reconcile::status::PodStatus;
use crate::reconcile::work::Tools;
use crate::sandbox::Sandboxes;
use crate::source;

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
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;

    let objects = match config.source {
        Source::Folder => source::open(&config.folder, &config.node, readiness.part("objects"), &drain)
            .with_context(|| format!("reading the objects in {}", config.folder.display()))?,
    };
    let handoff = Handoff::start(&config.zds_socket, Limits::default(), &drain)
        .context("offering the hand-over to ztunnel")?;
    let tools = Tools {
        datapath: Arc::new(Datapath::default()),
        sandboxes: Arc::new(
            Sandboxes::new(&config.sandbox_dir).context("opening our own network namespace")?,
        ),
        handoff,
        patience: Limits::default().deadline,
    };
    let ready = readiness.part("pods");
    let (excluded, limits) = (config.excluded(), config.limits());
    let pods = Reconciler::start(tools, objects.announce, excluded, limits, objects.pods, ready, &drain);
    let routes = routes(pods).health(&readiness).metrics(&registry).logging(&log);
    server::serve_unix(&config.admin_socket, routes, &drain).context("opening the admin surface")?;
    info!(node = config.node, folder = %config.folder.display(), socket = %config.zds_socket.display(), "started");

    let told = tokio::select! {
        _ = terminated.recv() => "SIGTERM",
        _ = interrupted.recv() => "SIGINT",
    };
    info!(told, "stopping; captured pods stay captured");
    drain.begin();
    Ok(())
}

/// `/pods`: every pod of the node with its state; `?uid=` picks one.
fn routes(pods: watch::Receiver<Arc<Vec<PodStatus>>>) -> Routes {
    Routes::new().get("/pods", move |call| {
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
}
