//! STRICT: plaintext is refused at once with a code, the node's probes of declared ports pass, nothing else from there.
//!
//! Probes come from the gateway address of the node's pods, which the Node object does not list, as with most networks.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, all_completed, peer, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, oracle, pod, security};

/// A port that listens and that no manifest declares.
const HIDDEN: u16 = 7999;
/// Ports that only probes name: HTTP by the port's name, gRPC, TCP.
const PROBED: [u16; 3] = [8081, 8082, 8083];

fn cast() -> Vec<Value> {
    let mut echo = pod("shop/echo", "node2", &[]);
    let mut hidden = oracle(HIDDEN);
    for key in ["ports", "readinessProbe"] {
        let _ = hidden.as_object_mut().expect("an object").remove(key);
    }
    echo["spec"]["containers"] = json!([oracle(PORT), hidden]);
    vec![
        namespace("istio-system", false),
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "istio-system/default", &json!({"mtls": {"mode": "STRICT"}})),
        echo,
        probed(),
        pod("shop/caller", "node1", &[]),
        pod("legacy/far", "node1", &[]),
        pod("legacy/near", "node2", &[]),
    ]
}

/// A pod that is ready and stays alive only by probes of every kind. One that fails restarts its container.
fn probed() -> Value {
    let [http, grpc, tcp] = PROBED;
    let kinds = [
        (http, json!({"httpGet": {"path": "/healthz", "port": "web"}})),
        (grpc, json!({"grpc": {"port": grpc}})),
        (tcp, json!({"tcpSocket": {"port": tcp}})),
    ];
    let containers = kinds.map(|(port, check)| {
        let with = |rest: Value| {
            let mut probe = check.clone();
            probe.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
            probe
        };
        let mut container = json!({
            "name": format!("health-{port}"),
            "command": ["python3", peer("health.py"), port.to_string()],
            "startupProbe": with(json!({"periodSeconds": 1, "failureThreshold": 30})),
            "readinessProbe": with(json!({"periodSeconds": 1})),
            "livenessProbe": with(json!({"periodSeconds": 1, "failureThreshold": 1})),
        });
        if port == http {
            container["ports"] = json!([{"name": "web", "containerPort": port}]);
        }
        container
    });
    let mut pod = pod("shop/probed", "node2", &[]);
    pod["spec"]["containers"] = json!(containers);
    pod
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_ipv4() {
    check("strict4", "ipv4", &[4]);
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_ipv6() {
    check("strict6", "ipv6", &[6]);
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_dual_stack() {
    check("strict46", "dual", &[4, 6]);
}

#[track_caller]
fn check(name: &str, families: &str, used: &[u8]) {
    // It comes up only if the node's readiness probes of the declared ports pass.
    let Some(lab) = Lab::up(name, &cast(), &[&format!("ip_families={families}")]) else { return };
    for family in used {
        let (open, hidden) =
            (lab.target("shop/echo", *family, PORT), lab.target("shop/echo", *family, HIDDEN));
        for target in [&open, &hidden] {
            for client in ["legacy/far", "legacy/near"] {
                refused(&lab, target, client, || lab.call(client, target, &["--connections", "1"]));
            }
            assert_eq!(all_completed(&lab.call("shop/caller", target, &["--connections", "5"])), 5);
        }
        assert_eq!(from_node(&lab, "node2", &open)["ok"], true, "the node does not reach a declared port");
        refused(&lab, &hidden, "the pod's node", || from_node(&lab, "node2", &hidden));
        refused(&lab, &open, "another node", || from_node(&lab, "node1", &open));
    }
    probes_pass(&lab);
}

/// Demands that a plain connection fails within a second, and that the server's node records it once, and why.
#[track_caller]
fn refused(lab: &Lab, target: &str, who: &str, call: impl Fn() -> Value) {
    let recorded = || {
        let flows = lab.flows(&["--to-pod", "shop/echo", "--code", "AMB2301", "--verdict", "denied"]);
        flows.iter().filter(|f| f["direction"] == "inbound" && f["dst"]["addr"] == target).count()
    };
    let before = recorded();
    let summary = call();
    assert_eq!(summary["ok"], false, "{who} reached {target} in plaintext");
    let took = summary["duration_ms"].as_u64().expect("milliseconds");
    assert!(took < 1000, "{who} was refused only after {took} ms: {summary:#}");
    wait_until(&format!("the refusal of {who} at {target} is recorded"), Duration::from_secs(5), || {
        recorded() == before + 1
    });
}

fn from_node(lab: &Lab, node: &str, target: &str) -> Value {
    let ambit = ambit_tests::lab::ambit();
    summary(&lab.on_node(node, &[&ambit, "echoer", "client", target, "--connections", "1"]))
}

/// Probes of every kind are admitted as such, by the proxy there is and by the one that replaces it.
#[track_caller]
fn probes_pass(lab: &Lab) {
    admitted_since(lab, "");
    let (before, restarted) = (lab.pid("ztunnel/node2"), clock::wall());
    let _ = lab.lab(&["restart", "ztunnel/node2"]);
    assert_ne!(before, lab.pid("ztunnel/node2"), "the proxy was not replaced");
    admitted_since(lab, &humantime::format_rfc3339_millis(restarted).to_string());
    for pod in ["shop/echo", "shop/probed"] {
        let status = lab.get("pod", pod)["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        assert!(
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"),
            "{pod}: {status:#}"
        );
        let containers = status["containerStatuses"].as_array().expect("containers");
        assert!(containers.iter().all(|c| c["restartCount"] == 0), "a probe of {pod} failed: {status:#}");
    }
}

/// Waits until a probe of every declared port was admitted after a time (RFC 3339, UTC).
#[track_caller]
fn admitted_since(lab: &Lab, time: &str) {
    for (pod, port) in PROBED.map(|port| ("shop/probed", port)).into_iter().chain([("shop/echo", PORT)]) {
        wait_until(&format!("a probe of {pod}:{port} is recorded"), Duration::from_secs(10), || {
            let flows = lab.flows(&["--to-pod", pod, "--code", "AMB2304", "--verdict", "allowed"]);
            let port = format!(":{port}");
            flows.iter().any(|f| {
                f["time"].as_str() > Some(time)
                    && f["path"] == "probe"
                    && f["dst"]["addr"].as_str().is_some_and(|a| a.ends_with(&port))
            })
        });
    }
}

/// Connects from an address; ends with 0 if the connection stays open for a second or is answered.
const FROM: &str = "
import socket, sys
source, host, port = sys.argv[1:]
with socket.create_connection((host, int(port)), 2, (source, 0)) as tcp:
    tcp.settimeout(1)
    try:
        open = len(tcp.recv(1)) == 1
    except TimeoutError:
        open = True
    except ConnectionError:
        open = False
sys.exit(0 if open else 1)
";

/// An address that the node has got, which no object names: a bridge's, a tunnel's.
const ADDRESS: &str = "10.99.9.9";

#[test]
fn probes_pass_from_any_address_for_as_long_as_the_node_has_it() {
    let Some(lab) = Lab::up("near", &cast(), &["ip_families=ipv4"]) else { return };
    let set = |word: &str| {
        let _ = lab.on_node("node2", &["ip", "address", word, &format!("{ADDRESS}/32"), "dev", "lo"]).ok();
    };
    let reaches = |port: u16| {
        let target = lab.target("shop/echo", 4, port);
        let (host, port) = target.rsplit_once(':').expect("an address");
        lab.on_node("node2", &["python3", "-c", FROM, ADDRESS, host, port]).code == Some(0)
    };
    let file = lab.run_dir().join("nodes/node2/node-addresses");
    let is_told = || std::fs::read_to_string(&file).is_ok_and(|all| all.lines().any(|one| one == ADDRESS));
    assert!(!is_told(), "it is told before it is there");

    set("add");
    wait_until("the address is told to ztunnel", Duration::from_secs(10), is_told);
    wait_until("a probe from it passes", Duration::from_secs(5), || reaches(PORT));
    assert!(!reaches(HIDDEN), "it opened a port that nobody declares for probes");

    set("del");
    wait_until("it is told no more", Duration::from_secs(10), || !is_told());
}

/// The handshake of a redirected connection is the proxy's, and a `tcpSocket` probe asks for no more than that.
#[test]
fn a_tcp_probe_of_a_port_that_nothing_listens_on_fails() {
    let cast = [namespace("istio-system", false), namespace("shop", true), pod("shop/caller", "node2", &[])];
    let Some(lab) = Lab::up("deaf", &cast, &["ip_families=dual"]) else { return };
    let gate = format!("{}/open", lab.folder("gate"));
    let mut deaf = pod("shop/deaf", "node2", &[]);
    deaf["spec"]["containers"] = json!([{
        "name": "late",
        "command": ["sh", "-c", format!("until [ -e {gate} ]; do sleep 0.05; done; exec python3 {} 8083", peer("health.py"))],
        "readinessProbe": {"tcpSocket": {"port": 8083}, "periodSeconds": 1},
    }]);
    let deaf = lab.file("deaf.json", &deaf.to_string());
    let applying = lab.start(&["lab", "apply", "-f", &deaf]);
    wait_until("the pod is there", Duration::from_secs(5), || {
        lab.ambit(&["lab", "get", "pod", "deaf", "-n", "shop"]).code == Some(0)
    });
    let ready = || {
        let conditions = lab.get("pod", "shop/deaf")["status"]["conditions"].clone();
        conditions
            .as_array()
            .and_then(|c| c.iter().find(|c| c["type"] == "Ready").cloned())
            .unwrap_or_default()
    };
    wait_until("a probe of the captured pod was refused", Duration::from_secs(20), || {
        assert_ne!(ready()["status"], "True", "it is ready though nothing listens");
        lab.is_captured("shop/deaf") && ready()["message"].as_str().is_some_and(|m| m.contains("refused"))
    });
    std::fs::write(&gate, "").expect("the folder is the test's");
    let _ = applying.finish(Duration::from_secs(20)).ok();
    assert_eq!(ready()["status"], "True", "it is not ready though something listens");
}
