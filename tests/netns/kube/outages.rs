//! Parts of the cluster's and of the mesh's control plane are killed under traffic: no connection notices, and what is
//! changed after their return is in force at once.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, all_completed, kept_its_rate, soak, summary, wait_until};
use serde_json::{Value, json};

use super::kubectl;
use crate::cast::{PORT, namespace, pod, security, server, service};

/// The replicas of the control plane, as parts of the lab, with their admin sockets and pods.
pub(super) const REPLICAS: [Replica; 2] = [
    Replica { part: "istiod", socket: "istiod/admin.sock", pod: "istiod-lite-1" },
    Replica { part: "istiod/2", socket: "istiod-2/admin.sock", pod: "istiod-lite-2" },
];
/// How long it takes at most until somebody leads: a lease that nobody renews, and some looks.
pub(super) const ELECTED: Duration = Duration::from_secs(40);
const LABEL: &str = "istio.io/dataplane-mode";
const ONCE: [&str; 6] = ["--connections", "1", "--connect-timeout", "1s", "--stall-timeout", "1s"];
/// Connections a second, of each of two loads.
const RATE: u64 = 25;
/// How long a load around a kill lasts, in seconds.
const AROUND: u64 = 8;
/// How long anything is waited for before the test fails without a measured time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) part: &'static str,
    pub(super) socket: &'static str,
    pub(super) pod: &'static str,
}

impl Replica {
    /// What its admin surface answers; none while it does not run.
    pub(super) fn ask(self, lab: &Lab, path: &str) -> Option<Value> {
        let socket = lab.run_dir().join(self.socket).display().to_string();
        let url = format!("http://localhost{path}");
        let answer = lab.on_node("node1", &["curl", "-sS", "-m", "5", "--unix-socket", &socket, &url]);
        serde_json::from_str(&answer.stdout).ok()
    }

    /// Nodes that have a stream to it.
    fn nodes(self, lab: &Lab) -> usize {
        let sync = self.ask(lab, "/sync").unwrap_or_default();
        let nodes = sync["nodes"].as_array().into_iter().flatten();
        nodes.filter(|node| node["connected"] == true).count()
    }
}

/// Who leads, by its own word.
pub(super) fn leader(lab: &Lab) -> Option<Replica> {
    let leads = |replica: &Replica| replica.ask(lab, "/ca/status").is_some_and(|told| told["leads"] == true);
    REPLICAS.into_iter().find(leads)
}

/// How soon after a return a change has to be in force. A short run may be on a machine that does much else.
fn limit() -> Duration {
    Duration::from_secs(if soak() { 5 } else { 15 })
}

/// How long the API server is away, in seconds.
fn away() -> u64 {
    if soak() { 120 } else { 10 }
}

fn cast() -> Vec<Value> {
    vec![
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        pod("shop/quiet", "node1", &[]),
        pod("shop/other", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/vault", "node2"),
        service("shop/echo", "echo", 80, PORT),
    ]
}

#[test]
fn whatever_of_the_control_planes_is_killed_traffic_goes_on_and_changes_follow_its_return() {
    let Some(lab) = Lab::up_kube("outages", &cast(), &["istiod_replicas=2"]) else { return };
    let vault = lab.target("shop/vault", 4, PORT);
    let changes = Changes { lab: &lab, vault: &vault };
    wait_until("a replica leads", ELECTED, || leader(&lab).is_some());
    changes.follow(0, "nothing, for comparison", clock::monotonic());
    the_leader(&lab, &changes);
    the_replica_that_serves(&lab, &changes);
    the_api_server(&lab, &changes);
    the_store(&lab, &changes);
}

fn the_leader(lab: &Lab, changes: &Changes<'_>) {
    let killed = leader(lab).expect("a replica leads");
    let holder = ["get", "lease", "istiod-lite", "-n", "istio-system", "-o"];
    let holder = kubectl(lab, &[&holder[..], &["jsonpath={.spec.holderIdentity}"]].concat());
    assert!(holder.starts_with(&format!("{}_", killed.pod)), "{killed:?} says it leads, but {holder} does");
    let begun = clock::monotonic();
    under_load(lab, AROUND, || {
        let _ = lab.lab(&["kill", killed.part]);
        changes.follow(1, "the leader was killed", clock::monotonic());
    });
    // The killed one is back at once, as somebody else, and may be who leads next.
    wait_until("a replica leads again", ELECTED, || leader(lab).is_some());
    println!("a replica leads {:?} after the leader was killed", clock::monotonic() - begun);
}

fn the_replica_that_serves(lab: &Lab, changes: &Changes<'_>) {
    let serving = || REPLICAS.into_iter().max_by_key(|replica| replica.nodes(lab));
    wait_until("every node is served", PATIENCE, || served(lab) == 2);
    let killed = serving().expect("there are replicas");
    assert!(killed.nodes(lab) > 0, "{killed:?} serves nobody");
    under_load(lab, AROUND, || {
        let _ = lab.lab(&["kill", killed.part]);
        let begun = clock::monotonic();
        changes.follow(2, "the replica that serves was killed", begun);
        wait_until("every node is served again", limit(), || served(lab) == 2);
    });
}

/// Nodes with a stream to any replica.
fn served(lab: &Lab) -> usize {
    REPLICAS.into_iter().map(|replica| replica.nodes(lab)).sum()
}

fn the_api_server(lab: &Lab, changes: &Changes<'_>) {
    let (length, patience) = (format!("{}s", away()), Duration::from_secs(away() + 60));
    under_load(lab, away() + AROUND, || {
        let _ = lab.lab(&["kill", "apiserver"]);
        // The lab starts it again at once; it is to stay away.
        let _ = lab.lab(&["stop", "apiserver"]);
        let asked = lab.ambit(&["lab", "kubectl", "get", "namespaces", "--request-timeout=2s"]);
        assert_ne!(asked.code, Some(0), "the API server still answers: {asked:?}");
        // A pod that had not spoken before.
        let quiet = lab.client("shop/quiet", "echo.shop:80", &["--rate", "10", "--duration", &length]);
        let _ = all_completed(&summary(&quiet.finish(patience)));
        assert!(leader(lab).is_none() || away() < 15, "who cannot renew the lease still leads");
        let _ = lab.lab(&["start", "apiserver"]);
        changes.follow(3, "the API server was away", clock::monotonic());
    });
    wait_until("a replica leads again", ELECTED, || leader(lab).is_some());
}

fn the_store(lab: &Lab, changes: &Changes<'_>) {
    under_load(lab, AROUND, || {
        let _ = lab.lab(&["kill", "etcd"]);
        // Each returns once the part does its work, which for the API server includes its store.
        for part in ["etcd", "apiserver"] {
            let _ = lab.lab(&["start", part]);
        }
        changes.follow(4, "etcd was killed", clock::monotonic());
    });
}

/// Does something while connections are opened all the time, to a service and to a pod; none of them may fail.
#[track_caller]
fn under_load(lab: &Lab, seconds: u64, act: impl FnOnce()) {
    let (rate, length) = (RATE.to_string(), format!("{seconds}s"));
    let targets = ["echo.shop:80".to_owned(), lab.target("shop/echo", 4, PORT)];
    let args = ["--rate", &rate, "--duration", &length];
    let loads = targets.map(|target| lab.client("shop/caller", &target, &args));
    act();
    for load in loads {
        let load = summary(&load.finish(Duration::from_secs(seconds + 120)));
        assert_eq!(all_completed(&load), kept_its_rate(&load, RATE));
    }
}

/// Changes that are made again and again, and seen in force.
struct Changes<'a> {
    lab: &'a Lab,
    /// Where the pod is that a policy closes.
    vault: &'a str,
}

impl Changes<'_> {
    /// A new pod, a policy and a label, all written now; how long after `returned` each is in force.
    #[track_caller]
    fn follow(&self, round: usize, what: &str, returned: Instant) {
        let Self { lab, vault } = self;
        let (late, lock) = (format!("shop/late-{round}"), format!("shop/lock-{round}"));
        let mut pod = server(&late, "node2");
        pod["spec"]["containers"][0]["image"] = json!("example.com/shop/app:1");
        let closed = json!({"selector": {"matchLabels": {"app": "vault"}}, "action": "DENY", "rules": [{}]});
        let items = [pod, security("AuthorizationPolicy", &lock, &closed)];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let file = lab.file("late.json", &list.to_string());
        let _ = kubectl(lab, &["apply", "-f", &file]);
        let mode = if round.is_multiple_of(2) { "none" } else { "ambient" };
        let label = format!("{LABEL}={mode}");
        let _ = kubectl(lab, &["label", "pod", "other", "-n", "shop", "--overwrite", &label]);

        self.done(what, "the policy", returned, || lab.call("shop/caller", vault, &ONCE)["ok"] == false);
        self.done(what, "the label", returned, || lab.is_captured("shop/other") == (mode == "ambient"));
        self.done(what, "the pod", returned, || {
            address(lab, &late).is_some_and(|target| lab.call("shop/caller", &target, &ONCE)["ok"] == true)
                && lab.is_captured(&late)
        });
        // Open again for the next round.
        let _ = kubectl(lab, &["delete", "authorizationpolicy", &format!("lock-{round}"), "-n", "shop"]);
        wait_until("the vault is open", PATIENCE, || lab.call("shop/caller", vault, &ONCE)["ok"] == true);
    }

    /// Waits for a change, and measures.
    #[track_caller]
    fn done(&self, what: &str, change: &str, returned: Instant, is_in_force: impl FnMut() -> bool) {
        let name = self.lab.name();
        wait_until(&format!("{name}, {what}: {change}"), PATIENCE, is_in_force);
        let took = clock::monotonic() - returned;
        println!("{what}: {change} is in force after {took:?}");
        assert!(took < limit(), "{what}: {change} was in force only after {took:?}");
    }
}

/// Where a pod's oracle listens, once it has an address.
fn address(lab: &Lab, pod: &str) -> Option<String> {
    let (namespace, name) = pod.split_once('/')?;
    let asked = lab.ambit(&["lab", "get", "pod", name, "-n", namespace, "-o", "json"]);
    let object: Value = serde_json::from_str(&asked.stdout).ok()?;
    let ip: IpAddr = object["status"]["podIP"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, PORT).to_string())
}
