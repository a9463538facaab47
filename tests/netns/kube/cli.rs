//! The command line against an API server, as somebody with a kubeconfig and nothing else uses it: waypoints are made,
//! shown and removed, the root is rotated without reaching into a pod, and the status tells what can be known. Whoever has
//! the console's token as well is shown what was seen.

use ambit_tests::lab::{Lab, Output, all_completed, ambit, http_peer, wait_until};
use serde_json::{Value, json};

use super::outages::REPLICAS;
use super::{SETTLED, kubectl};
use crate::cast::{self, namespace, pod, security, server};
use crate::waypoint::shop::{PORT, service};

/// Seconds where the product waits minutes. There is one replica, so nothing lags.
const SHORT: [&str; 3] =
    ["istiod.rotation-lag=6s", "istiod.rotation-confirm=3s", "istiod.rotation-nudge=20s"];
/// The Secret of the authority, and its annotations.
const SECRET: [&str; 4] = ["secret", "istio-ca-secret", "-n", "istio-system"];
const ASKED: &str = "ambit.internal/ca-request";
const TOLD: &str = "ambit.internal/ca-status";

#[test]
fn a_kubeconfig_is_enough_for_waypoints_the_root_and_the_status() {
    let Some(lab) = Lab::up_kube("kube-cli", &cast(), &SHORT) else { return };
    nobody_there(&lab);
    status(&lab);
    // A waypoint that is ending would hold the rotation up until it is gone.
    root(&lab);
    waypoints(&lab);
}

fn cast() -> Vec<Value> {
    let serve = [&*http_peer(), "serve", "--port", &PORT.to_string(), "--name", "web"].map(str::to_owned);
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    vec![
        namespace("shop", true),
        namespace("bank", false),
        pod("shop/web", "node1", &serve),
        service("shop/web", &json!({"app": "web"}), 80, PORT, "http"),
    ]
}

/// Runs `ambit ARGS…` on a node, with the administrator's kubeconfig.
#[track_caller]
fn cli(lab: &Lab, args: &[&str]) -> Output {
    let kubeconfig = lab.run_dir().join("kube/admin.kubeconfig").display().to_string();
    with(lab, &kubeconfig, args)
}

#[track_caller]
fn with(lab: &Lab, kubeconfig: &str, args: &[&str]) -> Output {
    let program = ambit();
    lab.on_node("node1", &[&[&*program][..], args, &["--kubeconfig", kubeconfig]].concat())
}

/// It must fail with this exit code and these words.
#[track_caller]
fn fails(output: &Output, code: i32, words: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert!(output.stderr.contains(words), "not {words:?}: {output:?}");
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in {output:?}"))
}

/// Cells of the row of a table that begins with these.
fn row<'a>(output: &'a Output, begin: &[&str]) -> Option<Vec<&'a str>> {
    let mut rows = output.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|cells| cells.starts_with(begin))
}

fn nobody_there(lab: &Lab) {
    let nobody = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{"name": "own", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "own", "user": {}}],
        "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
    });
    let file = lab.file("nobody.kubeconfig", &nobody.to_string());
    for args in [&["waypoint", "list"][..], &["ca", "status"], &["ca", "rotate"], &["status"]] {
        fails(&with(lab, &file, args), 69, "cannot be reached");
    }
    let other = cli(lab, &["waypoint", "list", "--context", "nosuch"]);
    fails(&other, 69, "nosuch");
}

fn waypoints(lab: &Lab) {
    let none = cli(lab, &["waypoint", "list", "-n", "shop"]);
    assert!(none.code == Some(0) && none.stderr.contains("no waypoint in namespace shop"), "{none:?}");
    fails(&cli(lab, &["waypoint", "apply", "-n", "nosuch"]), 1, "the cluster has no namespace nosuch");

    let made = cli(lab, &["waypoint", "apply", "-n", "shop", "--enroll-namespace"]);
    for line in
        ["waypoint shop/waypoint is programmed", "namespace shop labelled istio.io/use-waypoint=waypoint"]
    {
        assert!(made.code == Some(0) && made.stdout.contains(line), "not {line:?}: {made:?}");
    }
    let outside = cli(lab, &["waypoint", "apply", "-n", "bank", "--name", "edge", "--for", "workload"]);
    assert!(
        outside.code == Some(0) && outside.stderr.contains("namespace bank is not in the mesh"),
        "{outside:?}"
    );

    let listed = cli(lab, &["waypoint", "list", "-A"]);
    let heading = ["NAMESPACE", "NAME", "REVISION", "TRAFFIC", "TYPE", "PROGRAMMED"];
    assert_eq!(row(&listed, &["NAMESPACE"]).as_deref(), Some(&heading[..]), "{listed:?}");
    let shop = row(&listed, &["shop", "waypoint"]);
    assert_eq!(shop.as_deref(), Some(&["shop", "waypoint", "default", "service", "True"][..]), "{listed:?}");
    let bank = row(&listed, &["bank", "edge", "default", "workload"]);
    assert!(bank.is_some(), "{listed:?}");

    let mut told = None;
    wait_until("the waypoint is as it should be", SETTLED, || {
        let output = cli(lab, &["waypoint", "status", "-n", "shop"]);
        let is_well = output.code == Some(0);
        told = Some(output);
        is_well
    });
    let told = told.expect("it was asked");
    assert!(row(&told, &["shop", "waypoint", "True", "Programmed", "Programmed"]).is_some(), "{told:?}");
    assert!(row(&told, &["shop/web", "shop/waypoint"]).is_some(), "the service is not shown: {told:?}");
    assert!(told.stderr.contains("the control plane alone knows"), "{told:?}");

    not_in_force(lab);
    of_somebody_else(lab);
    removed(lab);
}

/// What a Gateway says of itself is told when the time is up.
fn not_in_force(lab: &Lab) {
    let _ = kubectl(lab, &["annotate", "gateway", "edge", "-n", "bank", "ambit.internal/replicas=0"]);
    let path = r#"jsonpath={.status.conditions[?(@.type=="Programmed")].reason}"#;
    wait_until("it says that it has no pods", SETTLED, || {
        kubectl(lab, &["get", "gateway", "edge", "-n", "bank", "-o", path]) == "NoResources"
    });
    let again = ["waypoint", "apply", "-n", "bank", "--name", "edge", "--for", "workload"];
    let waited = cli(lab, &[&again[..], &["--wait", "--timeout", "1s"]].concat());
    fails(&waited, 1, "Programmed=False NoResources");
    fails(&cli(lab, &["waypoint", "status", "-n", "bank"]), 1, "");
}

/// What another tool wrote is not taken from it.
fn of_somebody_else(lab: &Lab) {
    let theirs = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "theirs", "namespace": "bank"},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{
            "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": "All"}},
        }]},
    });
    let file = lab.file("theirs.json", &theirs.to_string());
    let _ = kubectl(lab, &["apply", "--server-side", "-f", &file]);
    let refused = cli(lab, &["waypoint", "apply", "-n", "bank", "--name", "theirs"]);
    fails(&refused, 1, "nothing was changed");
    let path = "jsonpath={.spec.listeners[0].allowedRoutes.namespaces.from}";
    assert_eq!(kubectl(lab, &["get", "gateway", "theirs", "-n", "bank", "-o", path]), "All");
}

fn removed(lab: &Lab) {
    fails(&cli(lab, &["waypoint", "delete", "nosuch", "-n", "shop"]), 1, "no waypoint shop/nosuch");
    let deleted = cli(lab, &["waypoint", "delete", "waypoint", "-n", "shop"]);
    assert!(
        deleted.code == Some(0) && deleted.stdout.contains("waypoint shop/waypoint deleted"),
        "{deleted:?}"
    );
    assert!(deleted.stderr.contains("still asked for by shop/web"), "{deleted:?}");
    let deleted = cli(lab, &["waypoint", "delete", "--all", "-n", "bank"]);
    assert!(deleted.code == Some(0) && deleted.stdout.lines().count() == 2, "{deleted:?}");
    assert_eq!(kubectl(lab, &["get", "gateways", "-A", "-o", "name"]).trim(), "");
    let _ = kubectl(lab, &["label", "namespace", "shop", "istio.io/use-waypoint-"]);
}

/// Nodes and captured pods are counted; what the API server does not know is empty, and parts that are not there (in a lab
/// they are no objects) are not well.
fn status(lab: &Lab) {
    let mut told = Value::Null;
    wait_until("the pod of the shop is counted as captured", SETTLED, || {
        let output = cli(lab, &["status", "-o", "json"]);
        assert_eq!(output.code, Some(1), "{output:?}");
        told = json_of(&output);
        let node1 = told["items"].as_array().into_iter().flatten().find(|node| node["node"] == "node1");
        node1.is_some_and(|node| node["captured"] == 1 && node["expected"] == 1)
    });
    let nodes = told["items"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 2, "{told:#}");
    assert!(nodes.iter().all(|node| node["synced"].is_null() && node["certificates"].is_null()), "{told:#}");
    let parts = told["parts"].as_array().expect("parts");
    assert!(parts.len() == 3 && parts.iter().all(|part| part["ready"].is_null()), "{told:#}");
    let shown = cli(lab, &["status", "--node", "node1"]);
    assert!(row(&shown, &["node1"]).is_some() && row(&shown, &["node2"]).is_none(), "{shown:?}");
    assert!(shown.stderr.contains("what an API server does not know"), "{shown:?}");
}

/// The root is rotated by the annotations of its Secret.
fn root(lab: &Lab) {
    let mut before = Value::Null;
    wait_until("the leader tells of the authority", SETTLED, || {
        let output = cli(lab, &["ca", "status", "-o", "json"]);
        let is_told = output.code == Some(0);
        if is_told {
            before = json_of(&output);
        }
        is_told
    });
    assert_eq!(
        (&before["phase"], before["items"].as_array().map(Vec::len)),
        (&json!("idle"), Some(1)),
        "{before:#}"
    );

    nonsense_is_refused(lab);
    fails(&cli(lab, &["ca", "rotate", "--abort"]), 1, "no rotation is under way");
    let begun = cli(lab, &["ca", "rotate"]);
    assert!(begun.code == Some(0) && begun.stdout.contains("every proxy trusts it"), "{begun:?}");
    fails(&cli(lab, &["ca", "rotate"]), 1, "a rotation is under way (waiting)");
    drop(cli(lab, &["ca", "rotate", "--resume"]).ok());
    let aborted = cli(lab, &["ca", "rotate", "--abort", "-o", "json"]);
    assert_eq!(aborted.code, Some(0), "{aborted:?}");
    assert_eq!(json_of(&aborted)["phase"], "idle", "{aborted:?}");
    assert_eq!(json_of(&aborted)["items"], before["items"], "an aborted rotation leaves the old root");

    let rotated = cli(lab, &["ca", "rotate", "--watch", "-o", "json"]);
    println!("a rotation by the command took {:?}", rotated.took);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let after = json_of(&rotated);
    assert_eq!(
        (&after["phase"], after["items"].as_array().map(Vec::len)),
        (&json!("idle"), Some(1)),
        "{after:#}"
    );
    assert_ne!(after["items"][0]["fingerprint"], before["items"][0]["fingerprint"], "{after:#}");
    assert_eq!(annotation(lab, ASKED), "", "a request that was answered is still there");
    let told: Value = serde_json::from_str(&annotation(lab, TOLD)).expect("JSON");
    let by = told["answer"]["by"].as_str().unwrap_or_default();
    assert!(!by.is_empty() && by != "unknown", "it does not say who asked: {told:#}");
    assert!(!told.to_string().contains("PRIVATE"));
}

/// What is no request is answered as such, and changes nothing.
fn nonsense_is_refused(lab: &Lab) {
    let request = json!({"id": "nonsense", "verb": "destroy", "generation": 0, "by": "nobody"}).to_string();
    let asked = format!("{ASKED}={request}");
    let annotated = [&["annotate"][..], &SECRET, &[&*asked]].concat();
    let _ = kubectl(lab, &annotated);
    let mut told = Value::Null;
    wait_until("it is refused", SETTLED, || {
        told = serde_json::from_str(&annotation(lab, TOLD)).unwrap_or_default();
        told["answer"]["outcome"] == "refused"
    });
    assert_eq!((&told["phase"], &told["generation"]), (&json!("idle"), &json!(0)), "{told:#}");
    assert_eq!(annotation(lab, ASKED), "");
}

/// An annotation of the Secret; empty if it has none.
#[track_caller]
fn annotation(lab: &Lab, name: &str) -> String {
    let path = format!("jsonpath={{.metadata.annotations.{}}}", name.replace('.', r"\."));
    kubectl(lab, &[&["get"][..], &SECRET, &["-o", &*path]].concat())
}

/// The console's token.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The two ends of a connection may attend different replicas: what both tell is one answer.
#[test]
fn a_kubeconfig_and_the_token_are_enough_for_what_was_seen() {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "shop/strict", &json!({"mtls": {"mode": "STRICT"}})),
        server("shop/echo", "node2"),
        pod("shop/caller", "node1", &[]),
        pod("legacy/stranger", "node1", &[]),
    ];
    let Some(lab) = Lab::up_kube("kube-seen", &cast, &["istiod_replicas=2"]) else { return };
    wait_until("both nodes attend a replica", SETTLED, || attached(&lab) == 2);
    not_for_everybody(&lab);
    let target = lab.target("shop/echo", 4, cast::PORT);
    let made = lab.call("shop/caller", &target, &["--connections", "25"]);
    assert_eq!(all_completed(&made), 25);
    let refused = lab.call("legacy/stranger", &target, &["--connections", "3", "--stall-timeout", "2s"]);
    assert_eq!(refused["ok"], false);
    wait_until("both edges are counted, each once", SETTLED, || {
        let told = cli(&lab, &["edges", "-o", "json"]);
        let is = |source: &str, key: &str, count: u64| {
            let edges = serde_json::from_str::<Value>(&told.stdout).unwrap_or_default();
            let mut edges = edges["items"].as_array().cloned().unwrap_or_default().into_iter();
            let is_it = |edge: &Value| {
                edge["source"]["workload"] == source && edge["destination"]["workload"] == "echo"
            };
            edges.any(|edge| is_it(&edge) && edge[key] == count)
        };
        is("caller", "connections", 25) && is("stranger", "denied", 3)
    });
    records(&lab);
    follows(&lab, &target);
}

/// How many proxies attend a replica, whichever.
fn attached(lab: &Lab) -> usize {
    let nodes = REPLICAS.iter().filter_map(|replica| replica.ask(lab, "/api/v1/nodes"));
    let count = |told: Value| {
        let nodes = told["items"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["attached"] == true).count()
    };
    nodes.map(count).sum()
}

/// Neither without the Secret nor without what the replicas know of it is anything shown.
fn not_for_everybody(lab: &Lab) {
    fails(&cli(lab, &["flows"]), 1, "there is no Secret istio-system/ambit-console");
    let literal = format!("--from-literal=token={TOKEN}");
    let secret = ["create", "secret", "generic", "ambit-console", "-n", "istio-system", &*literal];
    let _ = kubectl(lab, &secret);
    // The lab mounts no Secret: as in the first minutes after one was made.
    let early = cli(lab, &["edges"]);
    fails(&early, 1, "it does not take the token");
    assert!(!early.stderr.contains(TOKEN) && early.stdout.is_empty(), "{early:?}");
    let held = lab.run_dir().join("istiod/console-token");
    std::fs::write(&held, TOKEN).expect("a file of the lab");
    let wrong = lab.file("wrong-token", &TOKEN.replace('0', "1"));
    fails(&cli(lab, &["edges", "--console-token-file", &wrong]), 1, "it does not take the token");
    assert_eq!(cli(lab, &["edges"]).code, Some(0));
    let elsewhere = cli(lab, &["edges", "--root-namespace", "shop", "--console-token-file", &wrong]);
    fails(&elsewhere, 69, "no pod of istiod-lite is ready in namespace shop");
}

fn records(lab: &Lab) {
    let refused = cli(lab, &["flows", "-o", "json", "--verdict", "denied", "--direction", "inbound"]);
    let lines: Vec<&str> = refused.stdout.lines().collect();
    assert!(refused.code == Some(0) && lines.len() == 3, "{refused:?}");
    let shown = cli(lab, &["flows", "--code", "AMB2301", "--direction", "inbound"]);
    assert!(shown.stderr.contains("3 records shown; oldest record"), "{shown:?}");
    let elsewhere = cli(
        lab,
        &["flows", "-o", "json", "--verdict", "denied", "--node", "node1", "--direction", "inbound"],
    );
    assert!(elsewhere.code == Some(0) && elsewhere.stdout.is_empty(), "{elsewhere:?}");

    let last = cli(lab, &["why", "last"]);
    assert!(last.code == Some(0) && last.stdout.contains("AMB2301"), "{last:?}");
    let record: Value = serde_json::from_str(lines[0]).expect("a record");
    let id = record["conn_id"].as_str().expect("an id");
    let by_id = cli(lab, &["why", &id[..12], "-o", "json"]);
    assert_eq!(json_of(&by_id)["items"][0]["record"]["conn_id"], id, "{by_id:?}");

    let stat = json_of(&cli(lab, &["stat", "-n", "shop", "-o", "json"]));
    let echo = stat["items"].as_array().into_iter().flatten().find(|row| row["name"] == "echo");
    assert_eq!(echo.map(|row| row["denied"].clone()), Some(json!(3.0)), "{stat:#}");
    let map = cli(lab, &["map"]);
    assert!(map.stdout.contains("-[x]-> shop/echo"), "{map:?}");
    fails(&cli(lab, &["map", "--open"]), 1, "kubectl port-forward");
    fails(&cli(lab, &["get", "connections"]), 1, "sockets of its nodes");

    let suggested = cli(lab, &["policy", "suggest", "-n", "shop"]);
    let caller = "cluster.local/ns/shop/sa/default";
    assert!(suggested.code == Some(0) && suggested.stdout.contains(caller), "{suggested:?}");
    let file = lab.file("suggested.yaml", &suggested.stdout);
    let differs = json_of(&cli(lab, &["policy", "diff", &file, "-o", "json"]));
    assert!(differs["compared"].as_u64() > Some(0), "{differs:#}");
}

/// What happens is told as it happens.
fn follows(lab: &Lab, target: &str) {
    let load = lab.client("shop/caller", target, &["--rate", "5", "--duration", "30s"]);
    let tapped = cli(lab, &["tap", "--from-pod", "shop/caller", "--max", "3", "-o", "json"]);
    assert!(tapped.code == Some(0) && tapped.stdout.lines().count() == 3, "{tapped:?}");
    let events: Vec<Value> =
        tapped.stdout.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert!(events.iter().all(|event| event["event"] == "end"), "{events:#?}");
    let counted = json_of(&cli(lab, &["top", "--for", "3s", "-o", "json"]));
    let all = counted["items"].as_array().into_iter().flatten();
    assert!(all.filter_map(|row| row["count"].as_u64()).sum::<u64>() > 0, "{counted:#}");
    drop(load.stop());
}
