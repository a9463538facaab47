//! What a lab has to tell: the admin sockets of its programs, its objects, logs, and the rules in captured pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_lab::control::{self, Request};
use ambit_lab::link::Place;
use ambit_lab::schedule::waypoints::waypoint_of;
use ambit_lab::store::Kind;
use ambit_lab::{LabName, RunDir, manifests, tool};
use ambit_net::linux::netns::NetNs;
use ambit_runtime::clock;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::gather::{Gathered, LOG_BYTES_MAX, OBJECTS, Shape, Tail};
use crate::cmd::flows::ALL;
use crate::cmd::nodes::{Where, ask, no_lab};
use crate::cmd::status;
use crate::out::{self, Failure};

/// Captured pods whose rules are taken.
const RULES_MAX: usize = 256;
/// What a node agent writes on a captured pod.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// What a program is asked, the file that the answer becomes, what that is, and what is in it.
type Question = (&'static str, &'static str, &'static str, Shape);

const ZTUNNEL: &[Question] = &[
    ("/config_dump", "config_dump.json", "what the ztunnel knows", Shape::Json),
    ("/certificates", "certificates.json", "certificates of the node's identities", Shape::Json),
    ("/connections", "connections.json", "open connections", Shape::Json),
    ("/budget", "budget.json", "what it uses of what it may use", Shape::Json),
    ("/selftest", "selftest.json", "its tests of itself", Shape::Json),
    ("/healthz/ready?verbose", "ready.json", "which parts are ready", Shape::Json),
    ("/metrics", "metrics.txt", "metrics", Shape::Lines),
];

const CNI: &[Question] = &[
    ("/pods", "pods.json", "the node's pods and their state", Shape::Json),
    ("/metrics", "metrics.txt", "metrics", Shape::Lines),
];

const WAYPOINT: &[Question] = &[
    ("/config_dump", "config_dump.json", "what the waypoint knows", Shape::Json),
    ("/certificates", "certificates.json", "its certificates", Shape::Json),
    ("/healthz/ready?verbose", "ready.json", "which parts are ready", Shape::Json),
    ("/metrics", "metrics.txt", "metrics", Shape::Lines),
];

const ISTIOD: &[Question] = &[
    ("/config_dump", "config_dump.json", "what the control plane serves", Shape::Json),
    ("/sync", "sync.json", "what nodes and waypoints acknowledged or refused", Shape::Json),
    ("/api/v1/nodes", "nodes.json", "nodes and waypoints, with the first fault of each", Shape::Json),
    ("/api/v1/checks", "checks.json", "what is right and what is not", Shape::Json),
    ("/api/v1/certificates", "certificates.json", "roots, and how far a rotation is", Shape::Json),
    ("/api/v1/incidents", "incidents.json", "refusals and changes of configuration", Shape::Json),
    ("/api/v1/selftests", "selftests.json", "tests of each node", Shape::Json),
    ("/healthz/ready?verbose", "ready.json", "which parts are ready", Shape::Json),
    ("/metrics", "metrics.txt", "metrics", Shape::Lines),
];

/// Gathers everything of a lab, logs last: they take the room that is left.
///
/// # Errors
/// When there is no such lab.
pub(super) async fn gather(all: &mut Gathered, lab: &LabName, since: Duration) -> anyhow::Result<()> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(Failure::new(out::UNREACHABLE, no_lab(lab)).into());
    }
    let at = Where { name: lab.clone(), node: None };
    let pods = objects(all, &run);
    all.add_json("status.json", "ambit status -o json", status::envelope(&at).await);
    let told = control::ask(lab, &Request::Status, &mut out::say);
    all.add_json("lab/status.json", "ambit lab status -o json", told.map_err(|error| error.full()));
    all.add("lab/lab.json", "how the lab was started", Shape::Json, fs::read(run.config()));
    programs(all, &run, &at, &pods, since).await?;
    kernel(all, &run, &pods);
    logs(all, &run, &pods);
    Ok(())
}

/// The objects in force as the lab sees them; returns its pods.
fn objects(all: &mut Gathered, run: &RunDir) -> Vec<Value> {
    let (mut items, mut pods) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        match manifests::stored(run, *kind) {
            Ok(found) => {
                if *kind == Kind::Pod {
                    pods.clone_from(&found);
                }
                items.extend(found);
            }
            Err(error) => all.miss(&format!("{OBJECTS}: {}", kind.plural()), &error.full()),
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    all.add_json(OBJECTS, "objects in force, with their status", Ok::<_, String>(list));
    pods
}

async fn programs(
    all: &mut Gathered,
    run: &RunDir,
    at: &Where,
    pods: &[Value],
    since: Duration,
) -> anyhow::Result<()> {
    for node in at.nodes()? {
        let folder = format!("nodes/{}", node.name);
        let ztunnel = format!("{folder}/ztunnel");
        questions(all, &node.socket, &ztunnel, ZTUNNEL).await;
        flows(all, &node.socket, &ztunnel, since).await;
        questions(all, &node.agent, &format!("{folder}/cni"), CNI).await;
    }
    for (name, socket) in waypoints(run, pods) {
        let folder = format!("waypoints/{name}");
        questions(all, &socket, &folder, WAYPOINT).await;
        flows(all, &socket, &folder, since).await;
    }
    for replica in 0..=u16::MAX {
        let directory = run.istiod_replica(replica);
        if !directory.exists() {
            break;
        }
        let folder = if replica == 0 { "istiod".to_owned() } else { format!("istiod-{}", replica + 1) };
        questions(all, &directory.join("admin.sock"), &folder, ISTIOD).await;
    }
    Ok(())
}

/// The pods of waypoints, as `NAMESPACE-NAME`, and their sockets.
fn waypoints(run: &RunDir, pods: &[Value]) -> BTreeMap<String, PathBuf> {
    let of_waypoint = pods.iter().filter(|pod| waypoint_of(pod).is_some());
    let socket = |pod: &Value| {
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str)?;
        let (namespace, name) = name_of(pod);
        Some((format!("{namespace}-{name}"), run.pods().join(uid).join("admin.sock")))
    };
    of_waypoint.filter_map(socket).collect()
}

fn name_of(pod: &Value) -> (&str, &str) {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/metadata/namespace"), text("/metadata/name"))
}

async fn questions(all: &mut Gathered, socket: &Path, folder: &str, questions: &[Question]) {
    for (what, file, about, shape) in questions {
        let answer = ask(socket, what).await;
        all.add(&format!("{folder}/{file}"), about, *shape, answer);
    }
}

/// The records of a proxy since then; what it says of those that it lost stays.
async fn flows(all: &mut Gathered, socket: &Path, folder: &str, since: Duration) {
    let answer = ask(socket, &format!("/flows?last={ALL}")).await;
    let then = clock::wall().checked_sub(since).unwrap_or(std::time::SystemTime::UNIX_EPOCH);
    let oldest = humantime::format_rfc3339_millis(then).to_string();
    let records = answer.map(|body| recent(&body, &oldest));
    all.add(&format!("{folder}/flows.jsonl"), "flow records", Shape::Lines, records);
}

/// The lines that are no records, or records not older than that. Times of one form compare as texts.
fn recent(body: &[u8], oldest: &str) -> Vec<u8> {
    let is_recent = |line: &&[u8]| {
        let record: Option<Value> = serde_json::from_slice(line).ok();
        record.and_then(|record| record["time"].as_str().map(|time| time >= oldest)).unwrap_or(true)
    };
    body.split_inclusive(|byte| *byte == b'\n').filter(is_recent).flatten().copied().collect()
}

/// What the kernel is, and the rules that redirect in captured pods.
fn kernel(all: &mut Gathered, run: &RunDir, pods: &[Value]) {
    all.add("kernel/version.txt", "the kernel, as uname has it", Shape::Lines, fs::read("/proc/version"));
    all.add("kernel/modules.txt", "loaded modules", Shape::Lines, fs::read("/proc/modules"));
    let captured = pods.iter().filter(|pod| pod["metadata"]["annotations"][REDIRECTION] == "enabled");
    for (number, pod) in captured.enumerate() {
        let (namespace, name) = name_of(pod);
        let path = format!("kernel/rules/{namespace}-{name}.nft");
        if number >= RULES_MAX {
            all.miss(&path, &format!("the rules of {RULES_MAX} pods are taken and no more"));
            continue;
        }
        all.add(&path, "nft list ruleset in the pod's namespace", Shape::Lines, rules(run, pod));
    }
}

fn rules(run: &RunDir, pod: &Value) -> anyhow::Result<String> {
    let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).context("the pod has no uid")?;
    let (namespace, name) = name_of(pod);
    let netns = NetNs::open(&run.sandboxes().join(uid))?;
    let place = Place { name: format!("pod {namespace}/{name}"), netns };
    let told = tool::run(&place, "nft", &["--stateless", "list", "ruleset"], "");
    told.map_err(|error| anyhow::anyhow!(error.full()))
}

/// The logs of programs and of waypoints. What applications log is not the mesh's to hand out.
fn logs(all: &mut Gathered, run: &RunDir, pods: &[Value]) {
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in [run.logs(), run.kube().join("log")] {
        match fs::read_dir(&directory) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            // Only a lab over an API server has the second.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => all.miss(&directory.to_string_lossy(), &error.to_string()),
        }
    }
    let of_waypoint = |path: &Path| {
        pods.iter().filter(|pod| waypoint_of(pod).is_some()).any(|pod| {
            let (namespace, name) = name_of(pod);
            run.pod_log(namespace, name) == path
        })
    };
    let is_program = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with("pod-") || of_waypoint(path)
    };
    files.retain(is_program);
    files.sort();
    let count = files.len();
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("logs/{name}");
        all.add_log(&path, "the end of a log", count - number, Tail::of_file(file, LOG_BYTES_MAX));
    }
    all.miss("logs of applications", "they are not the mesh's; see: ambit lab logs pod/NAMESPACE/NAME");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_by_their_time_and_the_rest_stays() {
        let body = "{\"time\":\"2026-01-01T00:00:00.000Z\",\"n\":1}\n{\"time\":\"2026-01-02T00:00:00.000Z\",\"n\":2}\n{\"footer\":{\"lost\":3}}\n";
        let kept = String::from_utf8(recent(body.as_bytes(), "2026-01-01T12:00:00.000Z")).unwrap();
        let lines: Vec<&str> = kept.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("\"n\":2") && lines[1].contains("lost"), "{kept}");
    }
}
