//! The shop: a namespace bound to a waypoint, two versions of a service, a gRPC service, and clients of three kinds.
//!
//! Only acts and reads; what must come of it stands in the rows.

use std::fs;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, Output, http_peer, wait_until};
use serde_json::{Value, json};

use crate::cast::{account, namespace, pod, split};

/// Where the applications listen.
pub(crate) const PORT: u16 = 8080;
/// Enrolled, of the shop's own service account `client`.
pub(crate) const CLIENT: &str = "shop/client";
/// Enrolled, of another namespace.
pub(crate) const OTHER: &str = "other/other";
/// Not in the mesh.
pub(crate) const OUTSIDE: &str = "legacy/outside";
/// Both versions.
pub(crate) const WEB: &str = "http://web.shop.svc.cluster.local";
/// The first version alone: one endpoint, so that its counts are those of the whole service.
pub(crate) const V1: &str = "http://web-v1.shop.svc.cluster.local";
/// The gRPC service.
pub(crate) const GRPC: &str = "http://grpc.shop.svc.cluster.local:9000";
/// The pods behind [`WEB`].
pub(crate) const PODS: [&str; 2] = ["shop/web-v1", "shop/web-v2"];
/// Beyond it, an answer counts as late.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// The lab with its shop.
pub(crate) struct Shop {
    pub(crate) lab: Lab,
}

/// What `http-peer` told of one request or call.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) Value);

impl Told {
    /// The HTTP status; 0 without an answer.
    pub(crate) fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap_or_default()
    }

    /// The first value of a header of the answer; empty without one.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.0["headers"][name][0].as_str().unwrap_or_default()
    }

    /// What went wrong; empty if nothing did.
    pub(crate) fn error(&self) -> &str {
        self.0["error"].as_str().unwrap_or_default()
    }

    /// The answer's text.
    pub(crate) fn body(&self) -> &str {
        self.0["body"].as_str().unwrap_or_default()
    }

    /// What the application told of the request.
    #[track_caller]
    pub(crate) fn answer(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|e| panic!("{e} in the answer of {:#}", self.0))
    }

    /// How long it took.
    pub(crate) fn took(&self) -> Duration {
        Duration::from_millis(self.0["took_ms"].as_u64().unwrap_or(u64::MAX))
    }

    /// A number of a load's counts, by its path of names.
    pub(crate) fn count(&self, path: &str) -> u64 {
        self.0.pointer(path).and_then(Value::as_u64).unwrap_or_default()
    }
}

impl Shop {
    /// Brings it up with further objects; none if this machine cannot, which is said.
    #[track_caller]
    pub(crate) fn up(name: &str, more: &[Value]) -> Option<Self> {
        Self::with(name, more, &[])
    }

    /// Brings it up with further objects and settings (`KEY=VALUE`) of the lab.
    #[track_caller]
    pub(crate) fn with(name: &str, more: &[Value], settings: &[&str]) -> Option<Self> {
        let cast = [cast(), more.to_vec()].concat();
        let shop = Self { lab: Lab::up(name, &cast, settings)? };
        for (client, url) in [(CLIENT, WEB), (CLIENT, V1), (OTHER, WEB)] {
            wait_until(&format!("{client} is answered by {url}"), Duration::from_secs(20), || {
                shop.get(client, &format!("{url}/ready"), &["--timeout", "2s"]).status() == 200
            });
        }
        shop.reset_counts();
        Some(shop)
    }

    /// Starts the peer's client in a pod.
    #[track_caller]
    pub(crate) fn begin(&self, pod: &str, args: &[&str]) -> Background {
        self.lab.spawn(pod, &[&[&*http_peer()], args].concat())
    }

    /// Runs the peer's client in a pod.
    #[track_caller]
    pub(crate) fn run(&self, pod: &str, args: &[&str], patience: Duration) -> Told {
        told(&self.begin(pod, args).finish(patience))
    }

    /// One request from a pod.
    #[track_caller]
    pub(crate) fn get(&self, pod: &str, url: &str, args: &[&str]) -> Told {
        self.run(pod, &[&["get", "--url", url], args].concat(), Duration::from_secs(60))
    }

    /// One request by POST from a pod.
    #[track_caller]
    pub(crate) fn post(&self, pod: &str, url: &str) -> Told {
        self.get(pod, url, &["--method", "POST", "--timeout", "5s"])
    }

    /// Many requests of the client.
    #[track_caller]
    pub(crate) fn load(&self, url: &str, args: &[&str]) -> Told {
        self.run(CLIENT, &[&["load", "--url", url], args].concat(), Duration::from_secs(85))
    }

    /// Starts many requests of the client, and waits for the first answer.
    #[track_caller]
    pub(crate) fn begin_load(&self, url: &str, args: &[&str]) -> Background {
        let mut load = self.begin(CLIENT, &[&["load", "--url", url], args].concat());
        wait_until("the load has an answer", Duration::from_secs(10), || {
            assert!(load.is_running(), "the load ended early: {}{}", load.stdout(), load.stderr());
            load.stderr().contains("first answer")
        });
        load
    }

    /// What the application in a pod counted.
    #[track_caller]
    pub(crate) fn counts(&self, pod: &str) -> Told {
        let told = self.get(pod, &format!("http://127.0.0.1:{PORT}/count"), &[]);
        Told(told.answer())
    }

    /// How many requests to a path the applications of some pods took.
    #[track_caller]
    pub(crate) fn taken(&self, pods: &[&str], path: &str) -> u64 {
        pods.iter().map(|pod| self.counts(pod).0["paths"][path].as_u64().unwrap_or_default()).sum()
    }

    /// Sets the counts of every application back.
    #[track_caller]
    pub(crate) fn reset_counts(&self) {
        for pod in [PODS[0], PODS[1], "shop/grpc"] {
            let told = self.get(pod, &format!("http://127.0.0.1:{PORT}/count/reset"), &[]);
            assert_eq!(told.status(), 200, "{pod}: {:#}", told.0);
        }
    }

    /// Runs `act` while an object is in force, and takes it away again.
    #[track_caller]
    pub(crate) fn under(&self, object: &Value, act: impl FnOnce()) {
        self.lab.apply(std::slice::from_ref(object));
        self.reset_counts();
        act();
        self.delete(object);
    }

    /// Takes an object away.
    #[track_caller]
    pub(crate) fn delete(&self, object: &Value) {
        let word = |of: &Value| of.as_str().expect("an object's kind and names").to_owned();
        let kind = word(&object["kind"]).to_lowercase();
        let (name, place) = (word(&object["metadata"]["name"]), word(&object["metadata"]["namespace"]));
        let _ = self.lab.lab(&["delete", &kind, &name, "-n", &place]);
    }

    /// The processes of the waypoint's pods.
    #[track_caller]
    pub(crate) fn waypoint_pids(&self) -> Vec<u64> {
        let status = self.lab.lab(&["status", "-o", "json"]);
        let status: Value = serde_json::from_str(&status).expect("JSON from lab status");
        let pods = status["pods"].as_array().cloned().unwrap_or_default();
        let of_waypoint = |pod: &&Value| {
            pod["namespace"] == "shop"
                && pod["name"].as_str().is_some_and(|name| name.starts_with("waypoint"))
        };
        pods.iter()
            .filter(of_waypoint)
            .filter_map(|pod| pod["pid"].as_u64().filter(|pid| *pid != 0))
            .collect()
    }

    /// Resident memory of the waypoint's processes in KiB.
    #[track_caller]
    pub(crate) fn waypoint_rss_kib(&self) -> u64 {
        self.waypoint_programs().into_iter().map(rss_kib).sum()
    }

    /// The waypoint's own processes: a pod's first one only holds its namespaces.
    #[track_caller]
    pub(crate) fn waypoint_programs(&self) -> Vec<u64> {
        let children = |pid: u64| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok()).collect::<Vec<_>>()
        };
        let is_waypoint = |pid: &u64| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "waypoint")
        };
        let all = self.waypoint_pids().into_iter().flat_map(|pid| [vec![pid], children(pid)].concat());
        let found: Vec<u64> = all.filter(is_waypoint).collect();
        assert!(!found.is_empty(), "no waypoint runs");
        found
    }

    /// Waits for a recorded connection with a reason code.
    #[track_caller]
    pub(crate) fn until_recorded(&self, code: &str) {
        wait_until(&format!("{code} is recorded"), Duration::from_secs(10), || {
            !self.lab.flows(&["--code", code]).is_empty()
        });
    }
}

#[track_caller]
pub(crate) fn told(output: &Output) -> Told {
    assert_eq!(output.code, Some(0), "http-peer: {}\n{}", output.stdout, output.stderr);
    let line = output.stdout.lines().last().unwrap_or_default();
    Told(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in what http-peer told: {output:?}")))
}

#[track_caller]
fn rss_kib(pid: u64) -> u64 {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident process");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// An HTTPRoute of the shop for one of its services.
pub(crate) fn route(name: &str, service: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": service}], "rules": rules},
    })
}

/// A backend of a rule.
pub(crate) fn backend(service: &str, weight: u32) -> Value {
    json!({"name": service, "port": 80, "weight": weight})
}

/// A TrafficPolicy of one of the shop's services, named after it.
pub(crate) fn traffic(service: &str, mut spec: Value) -> Value {
    spec["targetRefs"] = json!([{"group": "", "kind": "Service", "name": service}]);
    json!({
        "apiVersion": "ambit.internal/v1", "kind": "TrafficPolicy",
        "metadata": {"name": service, "namespace": "shop"}, "spec": spec,
    })
}

/// A policy of [`WEB`] and [`GRPC`] that allows GET and nothing else: no call of gRPC is one.
pub(crate) fn get_only() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "get-only", "namespace": "shop"},
        "spec": {
            "targetRefs": [
                {"group": "", "kind": "Service", "name": "web"},
                {"group": "", "kind": "Service", "name": "grpc"},
            ],
            "action": "ALLOW",
            "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
        },
    })
}

/// The Gateway that makes the waypoint.
pub(crate) fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "waypoint", "namespace": "shop", "labels": {"istio.io/waypoint-for": "service"},
        },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

fn cast() -> Vec<Value> {
    let mut shop = namespace("shop", true);
    shop["metadata"]["labels"]["istio.io/use-waypoint"] = json!("waypoint");
    let mut alias = service("shop/alias", &json!({"app": "web"}), 80, PORT, "http");
    alias["metadata"]["labels"] = json!({"istio.io/use-waypoint": "none"});
    vec![
        shop,
        namespace("other", true),
        namespace("legacy", false),
        gateway(),
        account("shop/client"),
        account("other/other"),
        of_account(pod(CLIENT, "node1", &[])),
        of_account(pod(OTHER, "node2", &[])),
        pod(OUTSIDE, "node1", &[]),
        application(PODS[0], "node1", "web", "v1"),
        application(PODS[1], "node2", "web", "v2"),
        application("shop/grpc", "node2", "grpc", "v1"),
        service("shop/web", &json!({"app": "web"}), 80, PORT, "http"),
        service("shop/web-v1", &json!({"app": "web", "version": "v1"}), 80, PORT, "http"),
        service("shop/web-v2", &json!({"app": "web", "version": "v2"}), 80, PORT, "http"),
        alias,
        service("shop/grpc", &json!({"app": "grpc"}), 9000, PORT, "kubernetes.io/h2c"),
    ]
}

/// The same pod with the service account of its own name.
fn of_account(mut pod: Value) -> Value {
    pod["spec"]["serviceAccountName"] = pod["metadata"]["name"].clone();
    pod
}

/// A pod of `http-peer`. Its readiness is asked inside: a port that the node may probe is open to the node.
fn application(key: &str, node: &str, app: &str, version: &str) -> Value {
    let (namespace, name) = split(key);
    let (peer, port) = (http_peer(), PORT.to_string());
    let listens = format!("ss -Hltn | grep -q ':{PORT} '");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, "version": version}},
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "app",
                "command": [peer, "serve", "--port", port, "--name", version],
                "ports": [{"containerPort": PORT}],
                "readinessProbe": {"exec": {"command": ["sh", "-c", listens]}, "periodSeconds": 1},
            }],
        },
    })
}

/// A service (`NAMESPACE/NAME`) whose port says what is spoken there.
pub(crate) fn service(key: &str, selector: &Value, port: u16, target: u16, protocol: &str) -> Value {
    let (namespace, name) = split(key);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": selector,
            "ports": [{"name": "main", "port": port, "targetPort": target, "appProtocol": protocol}],
        },
    })
}
