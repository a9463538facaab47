//! What people and tools may ask of a running waypoint.

mod dump;
mod explain;

use std::sync::Arc;

use ambit_net::tls::store::CertificateStore;
use ambit_runtime::admin::{Reply, Routes};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use explain::answer;

use crate::Waypoint;
use crate::config::Config;
use crate::discovery::Told;

/// What `/config_dump` is made of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    waypoint: watch::Receiver<Option<Arc<Waypoint>>>,
    told: Arc<Told>,
    pub(crate) certificates: CertificateStore,
    /// Version, pod and Gateway.
    about: Arc<Value>,
}

impl Source {
    /// A source for the process that was started with `config`.
    pub fn new(
        config: &Config,
        waypoint: watch::Receiver<Option<Arc<Waypoint>>>,
        told: Arc<Told>,
        certificates: CertificateStore,
    ) -> Self {
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pod": config.node.pod_name,
            "namespace": config.node.pod_namespace,
            "gateway": config.gateway(),
            "limits": format!("{:?}", config.bounds.limits()),
        });
        Self { waypoint, told, certificates, about: Arc::new(about) }
    }

    /// Waits until there is a waypoint; for ever if there will be none.
    pub(crate) async fn complete(&self) {
        let mut waypoint = self.waypoint.clone();
        if waypoint.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Adds `/config_dump`, `/certificates` and `/explain`.
pub fn routes(routes: Routes, source: &Source) -> Routes {
    let (whole, held) = (source.clone(), source.certificates.clone());
    let asked = source.clone();
    routes
        .get("/config_dump", move |_| {
            let source = whole.clone();
            async move {
                // That of a large mesh takes a while: no thread that carries traffic writes it.
                let write = move || Reply::json(&dump::config_dump(&source));
                tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| {
                    Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the dump: {error}\n"))
                })
            }
        })
        .get("/certificates", move |_| {
            let reply = Reply::json(&dump::certificates(&held));
            async move { reply }
        })
        .post("/explain", move |call| {
            let reply = explain::explain(&asked, &call);
            async move { reply }
        })
}
