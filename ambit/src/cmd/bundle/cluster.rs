//! What the API server of a cluster has to tell: objects, what was installed, events, logs and metrics of our pods.
//!
//! Secrets are not read at all. What only the programs' own sockets tell is on the nodes and named as missing.

use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use ambit_manifest::Kind;
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::gather::{Gathered, OBJECTS, Shape, Tail};
use crate::bundle::{self, NAMESPACE, PART_OF};
use crate::cmd::install::cluster::name_of;
use crate::out::{self, Failure};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest wait for all objects of a kind.
const LIST: Duration = Duration::from_secs(120);
/// Newest lines of a log that are asked for.
const LOG_LINES_MAX: u32 = 50_000;
/// Most bytes that an API server sends of a log.
const LOG_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Events of our namespace that are asked for.
const EVENTS_MAX: u32 = 1000;
/// Pods whose logs are taken.
const PODS_MAX: usize = 1000;
/// Label of what was made for waypoints, with its value.
const OF_WAYPOINTS: (&str, &str) = ("gateway.istio.io/managed", "istio.io-mesh-controller");

/// What a cluster has and an archive of it lacks, and why.
const NOT_HAD: &[(&str, &str)] = &[
    (
        "config dumps, connections, flow records and self-tests of ztunnels, waypoints and control plane",
        "they are told on sockets of the nodes and pods, which no API server leads to",
    ),
    ("objects.json: secrets", "Secrets of a cluster are not read"),
    ("kernel facts and rules of captured pods", "they are on the nodes; see: ambit check --pre on a node"),
    ("status.json", "ambit status asks a lab; see: ambit check"),
];

/// Gathers everything of a cluster, logs last: they take the room that is left.
///
/// # Errors
/// When the API server answers nothing.
pub(super) async fn gather(all: &mut Gathered, client: &Client, since: Duration) -> anyhow::Result<()> {
    let version = get(client, "/version").await;
    if let Err(error) = &version {
        let text = format!("the API server does not answer: {error}");
        return Err(Failure::new(out::UNREACHABLE, text).into());
    }
    all.add_json("cluster/version.json", "version of the API server", version);
    let pods = objects(all, client).await;
    installed(all, client).await;
    let lists = [
        ("events", format!("/api/v1/namespaces/{NAMESPACE}/events?limit={EVENTS_MAX}")),
        ("leases", format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases?limit={EVENTS_MAX}")),
    ];
    for (what, path) in lists {
        let file = format!("cluster/{what}.json");
        all.add_json(&file, &format!("{what} of namespace {NAMESPACE}"), get(client, &path).await);
    }
    for (what, why) in NOT_HAD {
        all.miss(what, why);
    }
    let ours: Vec<&Value> = pods.iter().filter(|pod| is_ours(pod)).collect();
    for pod in ours.iter().skip(PODS_MAX) {
        all.miss(&format!("logs of {}", name_of(pod)), &format!("{PODS_MAX} pods are asked and no more"));
    }
    let asked = &ours[..ours.len().min(PODS_MAX)];
    metrics(all, client, asked).await;
    logs(all, client, asked, since).await;
    Ok(())
}

/// Objects of every kind that the mesh reads, but for Secrets; returns the pods.
async fn objects(all: &mut Gathered, client: &Client) -> Vec<Value> {
    let (mut items, mut pods) = (Vec::new(), Vec::new());
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Secret) {
        match list(client, kind).await {
            Ok(found) => {
                if kind == Kind::Pod {
                    pods.clone_from(&found);
                }
                items.extend(found);
            }
            Err(why) => all.miss(&format!("{OBJECTS}: {}", kind.plural()), &why),
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    all.add_json(OBJECTS, "objects in force, with their status", Ok::<_, String>(list));
    pods
}

/// The objects of a kind, in the first of its versions that is served, each saying what it is.
async fn list(client: &Client, kind: Kind) -> Result<Vec<Value>, String> {
    for version in kind.api_versions() {
        let target = Target::new(version, kind.as_str(), None, "").map_err(|error| error.to_string())?;
        let found = timeout(LIST, write::list(client, &target, None, None));
        let mut found = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(KubeError::NotFound { .. })) => continue,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {} s", LIST.as_secs())),
        };
        for object in &mut found {
            object["apiVersion"] = json!(version);
            object["kind"] = json!(kind.as_str());
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        return Ok(found);
    }
    Err("the kind is not served".to_owned())
}

/// What this version installs, as it is there.
async fn installed(all: &mut Gathered, client: &Client) {
    let known = match bundle::everything() {
        Ok(known) => known,
        Err(error) => return all.miss("cluster/installed.json", &error.to_string()),
    };
    let mut items = Vec::new();
    for object in known.iter().filter(|object| object["kind"] != "Secret") {
        let name = format!("cluster/installed.json: {}", name_of(object));
        let target = match Target::of(object) {
            Ok(target) => target,
            Err(error) => {
                all.miss(&name, &error.to_string());
                continue;
            }
        };
        match timeout(ANSWER, write::get(client, &target)).await {
            Ok(Ok(Some(live))) => items.push(live),
            Ok(Ok(None)) => all.miss(&name, "it is not there"),
            Ok(Err(error)) => all.miss(&name, &error.to_string()),
            Err(_) => all.miss(&name, &no_answer()),
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    all.add_json("cluster/installed.json", "what an installation is made of", Ok::<_, String>(list));
}

/// Whether a pod runs one of our programs.
fn is_ours(pod: &Value) -> bool {
    let has = |(label, value): (&str, &str)| pod["metadata"]["labels"][label] == value;
    (pod["metadata"]["namespace"] == NAMESPACE && has(PART_OF)) || has(OF_WAYPOINTS)
}

fn name_and_namespace(pod: &Value) -> (&str, &str) {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/metadata/namespace"), text("/metadata/name"))
}

/// The port on which a pod's program tells its metrics; none if it tells them nowhere.
fn metrics_port(pod: &Value) -> Option<u64> {
    let annotations = &pod["metadata"]["annotations"];
    let told = annotations["prometheus.io/port"].as_str().and_then(|port| port.parse().ok());
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let is_named = |port: &&Value| port["name"].as_str().is_some_and(|name| name.contains("metrics"));
    told.or_else(|| ports.find(is_named).and_then(|port| port["containerPort"].as_u64()))
}

async fn metrics(all: &mut Gathered, client: &Client, pods: &[&Value]) {
    for pod in pods {
        let (namespace, name) = name_and_namespace(pod);
        let file = format!("pods/{namespace}/{name}/metrics.txt");
        let Some(port) = metrics_port(pod) else {
            all.miss(&file, "the pod names no port of metrics");
            continue;
        };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        all.add(&file, "metrics", Shape::Lines, text(client, &path).await);
    }
}

/// A log that can be asked for.
struct Log {
    path: String,
    file: String,
}

async fn logs(all: &mut Gathered, client: &Client, pods: &[&Value], since: Duration) {
    let wanted: Vec<Log> = pods.iter().flat_map(|pod| logs_of(pod, since)).collect();
    for (number, log) in wanted.iter().enumerate() {
        let told = text(client, &log.path).await.map(Tail::of_text).map_err(std::io::Error::other);
        all.add_log(&log.file, "the end of a log", wanted.len() - number, told);
    }
}

/// The logs of a pod's containers, and of those that were restarted what they said before.
fn logs_of(pod: &Value, since: Duration) -> Vec<Log> {
    let (namespace, name) = name_and_namespace(pod);
    let restarted = |container: &str| {
        let mut states = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        states.any(|state| state["name"] == container && state["restartCount"].as_u64() > Some(0))
    };
    let log = |container: &str, before: bool| {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&timestamps=true&\
             tailLines={LOG_LINES_MAX}&limitBytes={LOG_ANSWER_BYTES_MAX}&sinceSeconds={}&previous={before}",
            since.as_secs().max(1)
        );
        let more = if before { "-before" } else { "" };
        Log { path, file: format!("pods/{namespace}/{name}/{container}{more}.log") }
    };
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut logs = Vec::new();
    for container in containers.filter_map(|container| container["name"].as_str()) {
        logs.push(log(container, false));
        logs.extend(restarted(container).then(|| log(container, true)));
    }
    logs
}

fn no_answer() -> String {
    format!("no answer within {} s", ANSWER.as_secs())
}

async fn get(client: &Client, path: &str) -> Result<Value, String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match timeout(ANSWER, client.request::<Value>(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(no_answer()),
    }
}

async fn text(client: &Client, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match timeout(ANSWER, client.request_text(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(no_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_pods_are_told_by_their_labels() {
        let pod = |namespace: &str, label: &str, value: &str| json!({"metadata": {"namespace": namespace, "name": "a", "labels": {label: value}}});
        let rows = [
            (pod(NAMESPACE, PART_OF.0, PART_OF.1), true),
            (pod("shop", PART_OF.0, PART_OF.1), false),
            (pod("shop", OF_WAYPOINTS.0, OF_WAYPOINTS.1), true),
            (pod(NAMESPACE, "app", "other"), false),
        ];
        for (pod, want) in rows {
            assert_eq!(is_ours(&pod), want, "{pod}");
        }
    }

    #[test]
    fn a_restarted_container_has_two_logs() {
        let pod = json!({
            "metadata": {"namespace": "istio-system", "name": "ztunnel-x"},
            "spec": {"containers": [{"name": "ztunnel"}, {"name": "ambit-cni"}]},
            "status": {"containerStatuses": [{"name": "ztunnel", "restartCount": 2}]},
        });
        let files: Vec<String> =
            logs_of(&pod, Duration::from_secs(60)).into_iter().map(|log| log.file).collect();
        let of = |name: &str| format!("pods/istio-system/ztunnel-x/{name}.log");
        assert_eq!(files, [of("ztunnel"), of("ztunnel-before"), of("ambit-cni")]);
        let paths = logs_of(&pod, Duration::from_secs(60));
        assert!(paths[1].path.contains("previous=true") && paths[0].path.contains("sinceSeconds=60&"));
    }

    #[test]
    fn the_port_of_metrics_is_the_one_that_the_pod_names() {
        let told = json!({"metadata": {"annotations": {"prometheus.io/port": "15020"}}});
        let named = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "ports": [{"name": "x", "containerPort": 1}, {"name": "http-metrics", "containerPort": 2}]},
        ]}});
        assert_eq!(
            (metrics_port(&told), metrics_port(&named), metrics_port(&json!({}))),
            (Some(15020), Some(2), None)
        );
    }
}
