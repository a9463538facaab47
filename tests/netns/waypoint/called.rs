//! Pods of the services that a waypoint itself calls, and what was read of them and of the waypoint.
//!
//! Whatever is asked here is asked in the pod it is about, where nothing of the mesh is in between.

use std::collections::BTreeMap;

use ambit_tests::lab::{Lab, http_peer};
use serde_json::{Value, json};

use super::shop::Shop;
use crate::cast::split;

/// A pod of `http-peer` with these arguments, labelled `app` with its name, ready once it listens on a port. It is asked
/// inside: a port that the node may probe is open to the node.
pub(super) fn peer_pod(key: &str, node: &str, args: &[&str], port: u16) -> Value {
    let (namespace, name) = split(key);
    let command: Vec<String> =
        std::iter::once(http_peer()).chain(args.iter().map(|arg| (*arg).to_owned())).collect();
    let listens = format!("ss -Hltn | grep -q ':{port} '");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "app",
                "command": command,
                "ports": [{"containerPort": port}],
                "readinessProbe": {"exec": {"command": ["sh", "-c", listens]}, "periodSeconds": 1},
            }],
        },
    })
}

/// What a pod's own HTTP port answers.
#[track_caller]
pub(super) fn asked(lab: &Lab, pod: &str, port: u16, path: &str) -> Value {
    let url = format!("http://127.0.0.1:{port}{path}");
    let text = lab.exec(pod, &["curl", "-sSg", "-m", "10", &url]).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in what {pod} tells at {path}: {text}"))
}

/// The text of the waypoint's metrics.
#[track_caller]
pub(super) fn metrics(shop: &Shop) -> String {
    let status = shop.lab.lab(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON from lab status");
    let mut pods = status["pods"].as_array().into_iter().flatten().filter(|pod| pod["namespace"] == "shop");
    let found = pods.find_map(|pod| pod["name"].as_str().filter(|name| name.starts_with("waypoint")));
    let pod = format!("shop/{}", found.expect("a pod of the waypoint"));
    shop.lab.exec(&pod, &["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"]).ok()
}

/// Labels and values of the series of a name. No value has a comma in it.
pub(super) fn series<'a>(text: &'a str, name: &str) -> Vec<(BTreeMap<&'a str, &'a str>, u64)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    let parsed = lines.map(|(labels, value)| {
        let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = pairs.map(|(label, value)| (label, value.trim_matches('"'))).collect();
        (labels, value.parse().expect("a whole number"))
    });
    parsed.collect()
}
