//! Workloads that have a name instead of an address (a ServiceEntry with DNS resolution): resolved by nameservers that are
//! asked from within the client's pod, and refused with AMB5001 where no usable answer comes.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, peer, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, server, split};

const CLIENT: &str = "shop/client";
const FAILED: &str = "AMB5001";
/// Longer than all attempts for one name take.
const PATIENCE: &str = "8s";

/// Names that do not resolve, and what stands in the record.
const FAILURES: [(&str, &str); 6] = [
    ("nx.test", "does not exist (NXDOMAIN)"),
    ("fail.test", "answers \"Server Failure\""),
    ("other.test", "answers \"Query Refused\""),
    ("garbage.test", "is no DNS answer to the question"),
    ("silent.test", "no answer from nameserver"),
    ("ip-127-0-0-1.loops.test", "which is loopback"),
];

/// A service at a virtual address, port 80, whose host name DNS resolves.
fn entry(key: &str, vip: &str, host: &str, endpoints: &[&str]) -> Value {
    let (namespace, name) = split(key);
    let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({"address": address})).collect();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [host], "addresses": [vip], "resolution": "DNS", "location": "MESH_EXTERNAL",
            "ports": [{"number": 80, "name": "tcp", "protocol": "TCP", "targetPort": PORT}],
            "endpoints": endpoints,
        },
    })
}

/// How the nameserver is told to answer with an address.
fn named(verb: &str, address: IpAddr) -> String {
    format!("{verb}-{}.answers.test", address.to_string().replace('.', "-"))
}

#[test]
fn names_are_resolved_from_the_pod_or_refused_with_the_nameservers_word() {
    let files = tempfile::TempDir::new().expect("a temporary folder");
    let conf = files.path().join("resolv.conf");
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        pod(CLIENT, "node1", &[]),
        server("legacy/web", "node2"),
        pod("legacy/dns", "node2", &["python3", &peer("dns.py"), "0.0.0.0"]),
    ];
    let setting = format!("ztunnel.AMBIT_RESOLV_CONF={}", conf.display());
    let Some(lab) = Lab::up("names", &cast, &[&setting]) else { return };

    let web = lab.address("legacy/web", 4);
    let (direct, alias) = (named("ip", web), named("alias", web));
    let mut entries = vec![
        entry("shop/direct", "10.97.0.1", &direct, &[]),
        entry("shop/alias", "10.97.0.2", &alias, &[]),
        // Whichever of them a connection draws: the one that does not exist gives way.
        entry("shop/either", "10.97.0.3", "either.test", &["nx.either.test", &direct]),
    ];
    let rows = FAILURES.iter().zip(10..);
    entries.extend(rows.clone().map(|((host, _), last)| {
        entry(&format!("shop/failure-{last}"), &format!("10.97.0.{last}"), host, &[])
    }));
    lab.apply(&entries);

    // Nobody says yet whom to ask.
    refused(&lab, "10.97.0.1:80", "reading the nameservers from");
    fs::write(&conf, format!("nameserver {}\n", lab.address("legacy/dns", 4))).expect("a file");
    wait_until("names are resolved", Duration::from_secs(20), || {
        lab.call(CLIENT, "10.97.0.1:80", &["--connections", "1", "--stall-timeout", PATIENCE])["ok"] == true
    });

    for vip in ["10.97.0.1:80", "10.97.0.2:80", "10.97.0.3:80"] {
        let summary = lab.call(CLIENT, vip, &["--connections", "20"]);
        assert_eq!(all_completed(&summary), 20, "{vip}");
        assert_eq!(summary["servers"]["web"], 20, "{vip}");
    }
    asked_from_the_pod(&lab, &direct);
    goes_to(&lab, web);
    for ((_, want), last) in rows {
        refused(&lab, &format!("10.97.0.{last}:80"), want);
    }
}

/// The nameserver saw the pod's own address, and was not asked for every connection.
#[track_caller]
fn asked_from_the_pod(lab: &Lab, host: &str) {
    let question = format!("asked by {} for {host}", lab.address(CLIENT, 4));
    let times = lab.log_lines(&question).len();
    assert!((1..30).contains(&times), "{times} times {question:?}: {:#?}", lab.log_lines("asked by"));
}

/// Records tell of the workload, and of the address that was used.
#[track_caller]
fn goes_to(lab: &Lab, web: IpAddr) {
    let at = format!("{web}:{PORT}");
    let flows = lab.flows(&["--from-pod", CLIENT]);
    let found =
        flows.iter().filter(|flow| flow["dst"]["addr"] == at.as_str() && flow["verdict"] == "allowed");
    let paths: Vec<&Value> = found.map(|flow| &flow["path"]).collect();
    assert!(paths.len() >= 60 && paths.iter().all(|path| **path == "plaintext"), "{paths:?} in {flows:#?}");
}

/// A connection fails, and its record says why.
#[track_caller]
fn refused(lab: &Lab, target: &str, want: &str) {
    let summary = lab.call(CLIENT, target, &["--connections", "1", "--stall-timeout", PATIENCE]);
    assert_eq!(summary["ok"], false, "{target} was answered: {summary:#}");
    let is_it = |flow: &Value| {
        flow["code"] == FAILED
            && flow["verdict"] == "denied"
            && flow["dst"]["addr"] == target
            && flow["error"].as_str().is_some_and(|error| error.contains(want))
    };
    wait_until(&format!("{target} is refused: {want}"), Duration::from_secs(5), || {
        lab.flows(&["--from-pod", CLIENT]).iter().any(is_it)
    });
}
