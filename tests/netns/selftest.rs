//! Each node tests itself: the result stands in `status` and in the metrics, and nothing of it among what pods did.

use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use serde_json::Value;

use crate::cast::{namespace, pod};

/// The rows of `ambit status`.
fn nodes(lab: &Lab) -> Vec<Value> {
    // Its exit code says whether all is well; what it prints is wanted either way.
    let told = lab.ambit(&["status", "-o", "json"]).stdout;
    let list: Value = serde_json::from_str(&told).expect("JSON from ambit status");
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn every_node_tests_itself_and_says_so() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[])];
    let Some(lab) = Lab::up("selftest", &cast, &[]) else { return };
    let tested = |node: &Value| !node["selftest"].is_null();
    wait_until("both nodes have tested themselves", Duration::from_secs(30), || {
        let nodes = nodes(&lab);
        nodes.len() == 2 && nodes.iter().all(tested)
    });
    for node in nodes(&lab) {
        let report = &node["selftest"];
        assert_eq!((&report["passed"], &report["total"]), (&5.into(), &5.into()), "{report:#}");
        let codes: Vec<&str> =
            report["tests"].as_array().into_iter().flatten().filter_map(|one| one["code"].as_str()).collect();
        assert_eq!(codes, ["AMB2104", "AMB2005", "AMB2003", "AMB2301"], "{report:#}");
        let name = node["node"].as_str().expect("a name");
        let metrics = lab.on_node(name, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok();
        let passed = metrics.lines().filter(|l| l.starts_with("ambit_selftest_result{") && l.ends_with(" 1"));
        assert_eq!(passed.count(), 5, "{metrics}");
        let last_run =
            metrics.lines().find_map(|line| line.strip_prefix("ambit_selftest_last_run_timestamp_seconds "));
        let at = last_run.and_then(|seconds| seconds.parse::<f64>().ok()).expect("when the last run ended");
        let reported = report["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok());
        let reported = reported.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        // A run may end between the two questions.
        assert!(at + 1.0 >= reported.expect("a time").as_secs_f64(), "{last_run:?} {report:#}");
        let refused = metrics.lines().find(|line| line.starts_with("ambit_connections_refused_total{"));
        assert_eq!(refused, None, "the self-test counts among the node's connections");
    }
    let shown = lab.ambit(&["status"]).stdout;
    assert_eq!(shown.matches("5/5").count(), 2, "{shown}");
    let flows = lab.flows(&[]);
    assert!(!flows.iter().any(|flow| flow.to_string().contains("selftest")), "{flows:?}");
}
