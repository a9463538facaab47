//! What `ambit lab status` shows: nodes, programs, waypoints, pods.

use serde_json::{Value, json};

use super::force;
use super::owner::Owner;
use super::pods::key_of;
use crate::fault::LinkFault;
use crate::programs::{PartState, Target, spec};
use crate::schedule::{self, ObjectName};
use crate::store::Kind;

/// Where a ztunnel serves its metrics, inside its node's namespace.
const METRICS_PORT: u16 = 15020;

/// The whole lab as one value.
pub(super) fn status(owner: &Owner) -> Value {
    let config = &owner.home.config;
    let nodes: Vec<Value> = config.nodes.iter().map(|node| node_status(owner, node)).collect();
    let programs: Vec<Value> = owner
        .programs
        .iter()
        .map(|(target, part)| program_status(owner, target, &part.state.borrow()))
        .collect();
    json!({
        "apiVersion": "cli.ambit.internal/v1", "kind": "LabStatus",
        "name": owner.home.lab.as_str(), "directory": owner.home.run.root(), "daemonPid": std::process::id(),
        "source": config.source, "kubeconfig": owner.home.kube.as_ref().map(|_| owner.home.run.kubeconfig()),
        "ipFamilies": config.families, "mesh": config.mesh, "revision": owner.store.snapshot().revision,
        "fabric": {"netns": owner.home.lab.fabric(), "bridge": crate::topology::BRIDGE},
        "nodes": nodes, "programs": programs, "waypoints": waypoints(owner), "pods": pods(owner),
    })
}

fn node_status(owner: &Owner, name: &str) -> Value {
    let here = || owner.lives.iter().filter(|(_, live)| live.life.plan.node == name);
    let snapshot = owner.store.snapshot();
    let captured =
        here().filter(|(pod, _)| snapshot.find(&key_of(pod)).is_some_and(force::is_captured)).count();
    let addresses: Vec<String> = owner.sites.get(name).map_or_else(Vec::new, |site| {
        site.node.index.fabric(site.families).iter().map(ToString::to_string).collect()
    });
    let fault = owner.links.get(name).cloned().unwrap_or_default();
    json!({
        "name": name, "netns": owner.home.lab.node(name), "addresses": addresses,
        "link": link(&fault), "fault": fault, "pods": here().count(), "captured": captured,
    })
}

fn link(fault: &LinkFault) -> String {
    if fault.cut {
        return "cut".to_owned();
    }
    let loss = (fault.loss_basis_points > 0)
        .then(|| format!("loss {}%", f64::from(fault.loss_basis_points) / 100.0));
    let rate = fault.rate.as_ref().map(|r| format!("rate {r}"));
    let mtu = fault.mtu_bytes.map(|m| format!("mtu {m}"));
    let all: Vec<String> = [loss, rate, mtu].into_iter().flatten().collect();
    if all.is_empty() { "ok".to_owned() } else { all.join(" ") }
}

fn program_status(owner: &Owner, target: &Target, state: &PartState) -> Value {
    let run = &owner.home.run;
    let (admin, metrics) = match target {
        Target::Kube(_) => (run.kubeconfig(), None),
        Target::Istiod => (run.istiod().join("admin.sock"), None),
        Target::Replica(replica) => (run.istiod_replica(*replica).join("admin.sock"), None),
        Target::Cni(node) => (run.node(node).join("cni-admin.sock"), None),
        Target::Ztunnel(node) => (
            run.node(node).join("ztunnel-admin.sock"),
            Some(format!("http://127.0.0.1:{METRICS_PORT}/metrics in {}", owner.home.lab.node(node))),
        ),
        Target::Pod { .. } | Target::Waypoint { .. } => return Value::Null,
    };
    let word = match (state.pid, state.ready, state.wanted) {
        (Some(_), true, _) => "ready",
        (Some(_), false, _) => "starting",
        (None, _, true) => "restarting",
        (None, _, false) => "stopped",
    };
    json!({
        "target": target.to_string(), "state": word, "pid": state.pid, "ready": state.ready,
        "restarts": state.restarts, "lastExitCode": state.last_code, "drainingPids": state.draining,
        "admin": admin, "metrics": metrics, "log": target.log(run),
    })
}

/// One entry a pod of a waypoint; a waypoint without pods has one without pod.
fn waypoints(owner: &Owner) -> Vec<Value> {
    let snapshot = owner.store.snapshot();
    let mut all = Vec::new();
    for (name, _) in schedule::waypoints::all(&snapshot) {
        let before = all.len();
        for (key, pod) in schedule::waypoints::pods_of(&snapshot, &name) {
            let pod_name = ObjectName { namespace: name.namespace.clone(), name: key.name.clone() };
            all.push(waypoint_status(owner, &name, &pod_name, pod));
        }
        if all.len() == before {
            all.push(json!({"gateway": name.to_string(), "state": "no pods", "ready": false}));
        }
    }
    all
}

fn waypoint_status(owner: &Owner, gateway: &ObjectName, name: &ObjectName, pod: &Value) -> Value {
    let live = owner.lives.get(name);
    let state = live.map(|l| l.life.state.borrow().clone());
    let netns = owner.home.lab.pod(&name.namespace, &name.name);
    let ready = super::waypoints::is_ready(pod);
    let word = match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) => "draining",
        None if ready => "ready",
        None => "starting",
    };
    json!({
        "gateway": gateway.to_string(), "target": format!("waypoint/{gateway}"), "pod": name.name,
        "node": pod.pointer("/spec/nodeName"), "state": word, "ready": ready,
        "pid": state.and_then(|s| s.process(None)),
        "admin": live.map(|l| spec::waypoint_admin(&owner.home.run, &l.uid)),
        "metrics": format!("http://127.0.0.1:{}/metrics in {netns}", schedule::waypoints::METRICS_PORT),
        "log": owner.home.run.pod_log(&name.namespace, &name.name),
    })
}

fn pods(owner: &Owner) -> Vec<Value> {
    let snapshot = owner.store.snapshot();
    let text = |pod: &Value, pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let of_kind = snapshot.of_kind(Kind::Pod);
    of_kind
        .map(|(key, pod)| {
            let ips = pod.pointer("/status/podIPs").and_then(Value::as_array);
            let addresses: Vec<&Value> = ips.into_iter().flatten().filter_map(|ip| ip.get("ip")).collect();
            let namespace = key.namespace.clone().unwrap_or_default();
            let name = ObjectName { namespace: namespace.clone(), name: key.name.clone() };
            let live = owner.lives.get(&name).map(|l| l.life.state.borrow().clone());
            let restarts: u32 = live.iter().flat_map(|s| s.containers.values()).map(|c| c.restarts).sum();
            let ready = force::condition(pod, "Ready").and_then(|c| c.get("status").cloned());
            let netns = owner.home.lab.pod(&namespace, &key.name);
            json!({
                "namespace": namespace, "name": key.name, "node": text(pod, "/spec/nodeName"),
                "addresses": addresses, "phase": text(pod, "/status/phase"), "ready": ready,
                "captured": force::is_captured(pod), "restarts": restarts, "netns": netns,
                "pid": live.and_then(|s| s.process(None)),
            })
        })
        .collect()
}
