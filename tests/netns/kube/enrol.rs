//! Row 4: a label takes a namespace of fifty running pods into the mesh and out again, and nothing that runs notices.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, all_completed, soak, summary, wait_until};
use serde_json::{Value, json};

use super::{LABEL, SETTLED, kubectl, pod, wait_for, with_image, write};
use crate::cast::{PORT, namespace, oracle, server};

/// Pods of the namespace.
const PODS: usize = 50;
/// Longest time from the start of kubectl until every pod is captured, or released. A short run is on any machine.
const LONGEST: Duration = Duration::from_secs(3);
const LONGEST_IN_SHORT: Duration = Duration::from_secs(10);

#[test]
fn a_label_captures_fifty_running_pods_in_three_seconds_and_nothing_notices() {
    let outside = [namespace("legacy", false), server("legacy/outside", "node2")];
    let Some(lab) = Lab::up_kube("kube-enrol", &outside, &[]) else { return };
    let _ = kubectl(&lab, &["create", "namespace", "shop"]);
    wait_for(&lab, "--for=create", &["serviceaccount/default"]);
    let _ = kubectl(&lab, &["apply", "-f", &write(&lab, &cast())]);
    let _ = kubectl(&lab, &["wait", "-n", "shop", "--for=condition=Ready", "pods", "--all", "--timeout=80s"]);
    let before = lives(&lab);
    assert_eq!(before.len(), PODS, "{before:#?}");
    let targets = ["shop/echo", "legacy/outside"].map(|server| lab.target(server, 4, PORT));
    let held = targets.each_ref().map(|target| hold(&lab, target));

    let label = |change: &str| kubectl(&lab, &["label", "namespace", "shop", change]);
    changes(&lab, "captured", PODS, || label(&format!("{LABEL}=ambient")));
    wait_until("a new connection is carried by the mesh", SETTLED, || {
        let _ = all_completed(&lab.call("shop/caller", &targets[0], &["--connections", "1"]));
        !lab.flows(&["--from-pod", "shop/caller", "--to-pod", "shop/echo", "--verdict", "allowed"]).is_empty()
    });
    let inside = targets.each_ref().map(|target| hold(&lab, target));
    assert_eq!(lives(&lab), before, "a pod was restarted when it was captured");

    changes(&lab, "released", 0, || label(&format!("{LABEL}-")));
    for target in &targets {
        let _ = all_completed(&lab.call("shop/caller", target, &["--connections", "1"]));
    }
    assert_eq!(lives(&lab), before, "a pod was restarted when it was released");
    for (when, connections) in [("before", held), ("inside", inside)] {
        for connection in connections {
            let summary = summary(&connection.stop());
            assert_eq!(summary["ok"], true, "a connection opened {when} did not live on: {summary:#}");
        }
    }
}

/// One that calls, one that answers, and as many that only run as make fifty.
fn cast() -> Vec<Value> {
    let idle = json!({"name": "app", "command": ["sleep", "infinity"]});
    let others = (2..PODS).map(|n| pod(&format!("idle-{n}"), &with_image(idle.clone())));
    let own = [pod("caller", &with_image(idle.clone())), pod("echo", &with_image(oracle(PORT)))];
    own.into_iter().chain(others).collect()
}

/// Makes a change and waits until so many pods are captured; demands that it was in time.
#[track_caller]
fn changes(lab: &Lab, what: &str, count: usize, change: impl FnOnce() -> String) {
    let begun = clock::monotonic();
    let _ = change();
    wait_until(&format!("all pods are {what}"), SETTLED, || captured(lab) == count);
    let took = clock::monotonic() - begun;
    println!("{PODS} pods were {what} within {took:?} of the start of kubectl");
    let longest = if soak() { LONGEST } else { LONGEST_IN_SHORT };
    assert!(took < longest, "{PODS} pods were {what} only after {took:?}");
}

fn captured(lab: &Lab) -> usize {
    let is_captured =
        |pod: &&Value| pod["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled";
    pods(lab).iter().filter(is_captured).count()
}

fn pods(lab: &Lab) -> Vec<Value> {
    let list: Value =
        serde_json::from_str(&lab.lab(&["get", "pods", "-n", "shop", "-o", "json"])).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

/// Of every pod: who it is, how its containers run and since when, and its process.
fn lives(lab: &Lab) -> BTreeMap<String, Vec<Value>> {
    let status: Value = serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON");
    let processes = status["pods"].as_array().expect("pods");
    let life = |pod: &Value| {
        let name = &pod["metadata"]["name"];
        let own = processes.iter().find(|p| p["name"] == *name && p["namespace"] == "shop");
        let pid = own.expect("the lab runs it")["pid"].clone();
        assert!(pid.is_u64(), "no process runs in {name}");
        let container = &pod["status"]["containerStatuses"][0];
        let told = [&pod["metadata"]["uid"], &container["state"], &container["restartCount"]];
        (name.as_str().expect("a name").to_owned(), told.into_iter().cloned().chain([pid]).collect())
    };
    pods(lab).iter().map(life).collect()
}

/// Holds a connection of the caller that says something ten times a second; it fails if no answer comes.
fn hold(lab: &Lab, target: &str) -> Background {
    let args = ["--hold", "--connections", "1", "--duration", "120s", "--interval", "100ms"];
    let held = lab.client("shop/caller", target, &args);
    wait_until("the connection is held", Duration::from_secs(10), || held.stderr().contains("\"open\":1"));
    held
}
