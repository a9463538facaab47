//! Publishes the roots of the mesh: as a ConfigMap in every namespace whose pods need them, and as a ClusterTrustBundle
//! where the API server has such a thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::Str;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::api::{ApiError, At, Resource, Server, encoded};
use super::ledger::Ledger;
use super::{Lead, PARALLEL, PAUSE, TURN, chain, told};
use crate::ca::keeper::certificates_only;

/// Name of the ConfigMap, as every proxy of Istio expects it.
pub(super) const CONFIG_MAP: &str = crate::ca::secret::PUBLISHED;
/// Its only key.
const KEY: &str = "root-cert.pem";
/// Label of ours, without which one is not removed.
const OWN_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "ambit-istiod");
/// Name and signer of the ClusterTrustBundle.
const TRUST_BUNDLE: &str = "istio.io:istiod-ca:root-cert";
const SIGNER: &str = "istio.io/istiod-ca";
/// Time between two looks at everything.
const LOOK: Duration = Duration::from_secs(60);
/// The same for the ClusterTrustBundle while it is not served.
const UNSERVED: Duration = Duration::from_secs(600);
/// Time until the ClusterTrustBundle is written again after a failure that may pass.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(super) async fn run(
    lead: &Lead<'_>,
    mut changed: watch::Receiver<u64>,
    mut bundle: watch::Receiver<Arc<str>>,
) {
    let mut ledger: Ledger<Str, Arc<str>> = Ledger::default();
    let mut whole = Whole { written: None, look: clock::monotonic(), failures: 0 };
    let mut look = clock::monotonic();
    loop {
        changed.borrow_and_update();
        let roots = bundle.borrow_and_update().clone();
        // Without any root there is nothing to say: an empty file would cut everybody off.
        if !roots.is_empty() {
            ledger.want(wanted(lead, &roots));
            if clock::monotonic() >= look {
                survey(lead.server, &mut ledger, &roots).await;
                look = clock::monotonic() + LOOK;
            }
            whole.publish(lead.server, &roots).await;
            if turn(lead, &mut ledger).await {
                continue;
            }
        }
        let times = [ledger.next(), Some(look), Some(whole.look)];
        let until = times.into_iter().flatten().min().unwrap_or(look);
        rest(&mut changed, &mut bundle, until.max(clock::monotonic() + PAUSE)).await;
    }
}

/// Waits for a change of either, or a time.
async fn rest(changed: &mut watch::Receiver<u64>, bundle: &mut watch::Receiver<Arc<str>>, until: Instant) {
    tokio::select! {
        told = bundle.changed() => match told {
            Ok(()) => {}
            Err(_) => super::rest(changed, until).await,
        },
        () = super::rest(changed, until) => {}
    }
}

fn wanted(lead: &Lead<'_>, roots: &Arc<str>) -> BTreeMap<Str, Arc<str>> {
    let namespaces = lead.world.index().meshed_namespaces();
    // Proxies of nodes and the control plane are in the root namespace.
    let root = Str::from(lead.settings.root_namespace.as_str());
    namespaces.into_iter().chain([root]).map(|namespace| (namespace, roots.clone())).collect()
}

/// Reads every such ConfigMap there is: what says something else, or is not wanted, is marked.
async fn survey(server: &Server, ledger: &mut Ledger<Str, Arc<str>>, roots: &Arc<str>) {
    let mut found: BTreeSet<Str> = BTreeSet::new();
    let query = format!("fieldSelector={}", encoded(&format!("metadata.name={CONFIG_MAP}")));
    let result = server.list(Resource::CONFIG_MAP, &query, |live| {
        let namespace = live.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let namespace = Str::from(namespace);
        let is_wanted = ledger.wanted_of(&namespace).is_some();
        if is_wanted && says(live) == Some(roots) {
            ledger.done(&namespace, Some(roots.clone()));
        } else if is_wanted || is_own(live) {
            ledger.doubt(namespace.clone());
        }
        found.insert(namespace);
    });
    match result.await {
        Ok(()) => {
            let missing: Vec<Str> = ledger
                .wanted()
                .map(|(name, _)| name)
                .filter(|name| !found.contains(*name))
                .cloned()
                .collect();
            missing.into_iter().for_each(|namespace| ledger.doubt(namespace));
        }
        Err(error) => warn!(error = %chain(&error), "cannot look at the published roots"),
    }
}

fn says(live: &Value) -> Option<&str> {
    live.get("data")?.get(KEY)?.as_str()
}

fn is_own(live: &Value) -> bool {
    let label = live.pointer("/metadata/labels").and_then(|labels| labels.get(OWN_LABEL.0));
    label.is_some_and(|value| value == OWN_LABEL.1)
}

/// Writes and removes what is due; returns whether more may be.
async fn turn(lead: &Lead<'_>, ledger: &mut Ledger<Str, Arc<str>>) -> bool {
    let due = ledger.due(clock::monotonic(), TURN);
    let is_full = due.len() == TURN;
    let written = due.into_iter().map(|(namespace, roots)| async move {
        let result = match &roots {
            Some(roots) => write(lead.server, &namespace, roots).await,
            None => remove(lead.server, &namespace).await,
        };
        (namespace, roots, result)
    });
    let mut written = futures_util::stream::iter(written).buffer_unordered(PARALLEL);
    while let Some((namespace, roots, result)) = written.next().await {
        match result {
            Ok(()) => ledger.done(&namespace, roots),
            Err(error) => {
                let is_quiet = matches!(error, ApiError::Ending | ApiError::Gone);
                let failures = ledger.failed(&namespace, clock::monotonic(), error.is_hopeless());
                if !is_quiet {
                    told(&format_args!("ConfigMap {namespace}/{CONFIG_MAP}"), failures, &error);
                }
            }
        }
    }
    is_full
}

async fn write(server: &Server, namespace: &str, roots: &str) -> Result<(), ApiError> {
    let at = At { resource: Resource::CONFIG_MAP, namespace, name: CONFIG_MAP };
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "namespace": namespace, "name": CONFIG_MAP,
            "labels": {"istio.io/config": "true", OWN_LABEL.0: OWN_LABEL.1},
        },
        "data": {KEY: roots},
    });
    server.apply(at, &object).await?;
    metrics::counter!("ambit_lead_writes_total", "kind" => at.resource.kind).increment(1);
    Ok(())
}

async fn remove(server: &Server, namespace: &str) -> Result<(), ApiError> {
    let at = At { resource: Resource::CONFIG_MAP, namespace, name: CONFIG_MAP };
    let Some(live) = server.get(at).await? else { return Ok(()) };
    match live.pointer("/metadata/uid").and_then(Value::as_str) {
        Some(uid) if is_own(&live) => server.delete(at, uid).await,
        Some(_) | None => Ok(()),
    }
}

/// The roots for the whole cluster.
struct Whole {
    written: Option<Arc<str>>,
    look: Instant,
    /// In a row.
    failures: u32,
}

impl Whole {
    async fn publish(&mut self, server: &Server, roots: &Arc<str>) {
        let now = clock::monotonic();
        if self.written.as_ref() == Some(roots) && now < self.look {
            return;
        }
        if self.written.is_none() && now < self.look {
            return;
        }
        let at = At { resource: Resource::TRUST_BUNDLE, namespace: "", name: TRUST_BUNDLE };
        let object = json!({
            "apiVersion": at.resource.version, "kind": at.resource.kind,
            "metadata": {"name": TRUST_BUNDLE, "labels": {OWN_LABEL.0: OWN_LABEL.1}},
            // Comments, which make proxies fetch the roots again, are refused here.
            "spec": {"signerName": SIGNER, "trustBundle": certificates_only(roots)},
        });
        match server.apply(at, &object).await {
            Ok(_) => {
                (self.written, self.failures) = (Some(roots.clone()), 0);
                self.look = clock::monotonic() + UNSERVED;
            }
            Err(ApiError::NotServed { .. }) => {
                debug!("ClusterTrustBundle is not served; the roots are in ConfigMaps alone");
                (self.written, self.look) = (None, clock::monotonic() + UNSERVED);
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                told(&at, self.failures, &error);
                let again = if error.is_hopeless() { LOOK } else { AGAIN };
                (self.written, self.look) = (None, clock::monotonic() + again);
            }
        }
    }
}
