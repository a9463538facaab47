//! What is different where the objects live in an API server: its controllers do what the lab does over a folder, and
//! the lab is scheduler, kubelet and proxy to them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::{admin, clock, tasks};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::act::Work;
use super::force::{Mesh, Outlook};
use super::nodes::merge;
use super::owner::Owner;
use super::{commands, network, pods, report};
use crate::address::Families;
use crate::config::LabConfig;
use crate::control::{Call, Request};
use crate::error::LabError;
use crate::kube::settings::Driver;
use crate::kube::{self, Cluster, Kubectl, front, members, node, request, settle};
use crate::link::Place;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::programs::{Home, Programs, Target};
use crate::schedule::ObjectName;
use crate::store::{Kind, ObjectKey, Snapshot};

/// Where the control plane publishes the mesh's roots, and under which key.
const BUNDLE: (&str, &str) = ("istio-ca-root-cert", "root-cert.pem");
/// How long that may take from its start.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts the API server and makes what every cluster has: the mesh's definitions, nodes, namespaces.
pub(super) async fn start(
    (lab, run): (&LabName, &RunDir),
    config: &LabConfig,
    runner: &Path,
    fabric: &Arc<Place>,
) -> Result<Cluster, LabError> {
    let cluster = Cluster::start((lab, run), config, runner, fabric).await?;
    tokio::task::block_in_place(|| cluster.apply_manifests(config, fabric, run))?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube::NAMESPACE}});
    cluster.api.post_once("/api/v1/namespaces", &namespace).await?;
    node::register(&cluster.api, &config.topology(), config.families).await?;
    if config.mesh {
        front::declare(&cluster.api, config).await?;
    }
    Ok(cluster)
}

/// The `kubectl` that changes objects, if the lab was told to use it.
pub(super) fn driver(config: &LabConfig, fabric: &Arc<Place>, run: &RunDir) -> Option<Arc<Kubectl>> {
    let wanted = config.kube.driver == Driver::Kubectl;
    wanted.then(|| Arc::new(Kubectl::new(config.kube.binary.clone(), Arc::clone(fabric), run.clone())))
}

/// Keeps alive what has to be told again and again: nodes, and the tokens of the mesh's programs.
pub(super) async fn keep(owner: &Owner, cluster: &Arc<Cluster>) -> Result<(), LabError> {
    let (home, config) = (&owner.home, &owner.home.config);
    for (_, part) in owner.programs.iter() {
        let (mut state, wake) = (part.state.clone(), Arc::clone(&owner.wake));
        // Whether a program is ready stands in its pod and in the endpoints of its service.
        tasks::spawn("program state", async move {
            while state.changed().await.is_ok() {
                wake.notify_one();
            }
        });
    }
    let beats = node::keep_alive(cluster.api.clone(), config.topology(), config.families);
    tasks::spawn("nodes", beats);
    if !config.mesh {
        return Ok(());
    }
    let declared = members::declare(&cluster.api, config).await?;
    let tokens = members::credentials(cluster, config, &home.run, &declared)?;
    let Some(site) = owner.sites.values().next() else { return Ok(()) };
    for (bearer, file) in &tokens {
        site.issuer.renew(bearer, file).await?;
    }
    let every = tokens.iter().map(|(bearer, _)| bearer.refresh_after()).min();
    if let Some(every) = every {
        tasks::spawn("program tokens", crate::token::keep_fresh(Arc::clone(&site.issuer), tokens, every));
    }
    Ok(())
}

/// Does everything that the objects ask for and that is not so yet.
pub(super) fn reconcile(owner: &mut Owner) -> Result<(), LabError> {
    report_programs(owner)?;
    write_bundle(owner)?;
    pods::report(owner)?;
    let mut outlook = pods::schedule(owner)?;
    pods::converge(owner)?;
    outlook.unfinished = settle::unfinished(&owner.store.snapshot());
    outlook.rules = network::carry_out(owner);
    owner.outlook.send_if_modified(|now| {
        let changed = *now != outlook;
        *now = outlook;
        changed
    });
    Ok(())
}

/// The pods that a kubelet of the lab sees to, as the scheduler should see them.
pub(super) fn pods(objects: &Snapshot) -> Vec<Pod> {
    let mut pods = objects.pods();
    pods.retain(|pod| !members::is_member(pod));
    for pod in &mut pods {
        let named = pinned(pod);
        if let Some(spec) = pod.spec.as_mut().filter(|spec| spec.node_name.is_none()) {
            spec.node_name = named;
        }
    }
    pods
}

/// Whether the API server itself knows the node of a pod: before that, a token for it would name none.
pub(super) fn is_bound(owner: &Owner, pod: &Pod) -> bool {
    let key = pods::key_of(&ObjectName::of(&pod.metadata));
    owner.store.server().is_none_or(|server| server.mirror.serves(&key, "/spec/nodeName"))
}

/// The node that a pod's affinity names, as that of a DaemonSet's pod does.
fn pinned(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    named.values.as_ref()?.first().cloned()
}

/// Writes how the mesh's programs are: into their pods, and into the endpoints of the control plane's service.
fn report_programs(owner: &Owner) -> Result<(), LabError> {
    let config = &owner.home.config;
    if !config.mesh {
        return Ok(());
    }
    let mut replicas = Vec::new();
    for member in members::all(config) {
        let is_ready = owner.programs.part(&member.target).is_ok_and(|part| part.state.borrow().ready);
        let replica = match &member.target {
            Target::Istiod => Some(0),
            Target::Replica(replica) => Some(*replica),
            _ => None,
        };
        replicas.extend(replica.map(|_| is_ready));
        let Some(site) = owner.sites.get(&member.node) else { continue };
        let status = members::status(&member, site.node.index, config.families, is_ready);
        let why = if is_ready { "" } else { "the program is not ready" };
        owner.store.change(&member.key(), |pod| {
            merge(pod, "", json!({"status": status}));
            for condition in ["PodScheduled", "Initialized"] {
                report::set_condition(pod, condition, true, "");
            }
            for condition in ["ContainersReady", "Ready"] {
                report::set_condition(pod, condition, is_ready, why);
            }
        })?;
    }
    let endpoints = front::endpoints(config, &replicas);
    owner.store.change(&front::slice_key(), |slice| slice["endpoints"] = endpoints.clone())
}

/// Puts the mesh's roots, as the control plane publishes them, where the node proxies read them.
fn write_bundle(owner: &Owner) -> Result<(), LabError> {
    let (name, key) = BUNDLE;
    let snapshot = owner.store.snapshot();
    let map = snapshot.find(&ObjectKey::new(Kind::ConfigMap, Some(kube::NAMESPACE), name));
    let published = map.and_then(|map| map.get("data")?.get(key)?.as_str()).map(str::to_owned);
    // Until it is published there is what the first control plane shows beside its state.
    let Some(bundle) = published.or_else(|| fs::read_to_string(owner.home.run.istiod().join(key)).ok())
    else {
        return Ok(());
    };
    let path = owner.home.run.root_bundle();
    if fs::read_to_string(&path).is_ok_and(|old| old == bundle) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, bundle)
        .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&fresh, &path));
    written.map_err(LabError::file("writing", path))
}

/// Waits until the mesh's roots are there.
///
/// # Errors
/// If they are not in time.
pub(super) async fn trust_bundle(home: &Home) -> Result<(), LabError> {
    let (name, _) = BUNDLE;
    let path = home.run.root_bundle();
    let until = clock::monotonic() + BUNDLE_PATIENCE;
    while !path.is_file() {
        if clock::monotonic() >= until {
            let logs = home.lab.command("logs istiod");
            return Err(LabError::Failed(format!(
                "the control plane has not published the mesh's roots as ConfigMap {}/{name} within {} s; see: {logs}",
                kube::NAMESPACE,
                BUNDLE_PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Carries out what the command line asks of the objects beside the loop; anything else is given back.
pub(super) fn take(owner: &Owner, call: Call) -> Option<Call> {
    let Some(server) = owner.store.server() else { return Some(call) };
    let Call { request, lines, gone } = call;
    let (work, wait): (Work, _) = match request {
        Request::Apply { objects, wait } => (request::apply(server, objects).boxed(), wait),
        Request::Delete { objects, ignore_missing, wait } => {
            let limit = wait.map(Duration::from_millis);
            (request::delete(server, objects, ignore_missing, limit).boxed(), wait)
        }
        Request::Mark { object, annotations, changes, wait } => {
            (request::mark(server, object, annotations, changes).boxed(), wait)
        }
        request @ (Request::Up { .. }
        | Request::Act { .. }
        | Request::Link { .. }
        | Request::Objects { .. }
        | Request::Status
        | Request::PodProcess { .. }) => return Some(Call { request, lines, gone }),
    };
    let before = (owner.store.snapshot(), owner.outlook.borrow().clone());
    let later = owner.later.clone();
    tasks::spawn("change", async move {
        match work.await {
            Err(error) => commands::end(&lines, Err(error)),
            Ok(()) => {
                // A loop that has ended is a lab that goes down.
                let then = Box::new(move |owner: &mut Owner| commands::settle(owner, &before, wait, lines));
                let _ = later.send(then).await;
            }
        }
    });
    None
}

/// Adds what the cluster's controllers have not done yet about these very objects.
pub(super) fn look_ahead(outlook: &mut Outlook, objects: &Snapshot, families: Families) {
    outlook.unfinished = settle::unfinished(objects);
    outlook.rules.extend(settle::stale_endpoints(objects, families));
}

/// What the control planes that run say together.
pub(super) async fn ask(home: &Home, programs: &Programs) -> Mesh {
    let mut all = Vec::new();
    for replica in 0..home.config.kube.istiod_replicas {
        let Ok(part) = programs.part(&Target::istiod(replica)) else { continue };
        if !part.state.borrow().wanted {
            continue;
        }
        let socket = home.run.istiod_replica(replica).join("admin.sock");
        let sync = match admin::client::get(&socket, "/sync").await {
            Ok(answer) => serde_json::from_slice::<Value>(&answer.body)
                .map_err(|e| format!("its /sync is no JSON: {e}")),
            Err(e) => Err(e.to_string()),
        };
        match sync {
            Ok(sync) => all.push(sync),
            Err(why) => return Mesh::Silent(why),
        }
    }
    if all.is_empty() { Mesh::Stopped } else { Mesh::Sync(kube::sync::merged(&all)) }
}
