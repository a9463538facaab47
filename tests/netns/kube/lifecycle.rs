//! An installation from before it is there until nothing of it is left: check, install, upgrade, uninstall.
//!
//! The first test has an API server with its controllers alone in a network namespace, and plays the one kubelet: pods
//! of the control plane are the real program with the rights that were installed, other pods only say that they are
//! ready. What stays on a node the second one looks for, in a lab, where the real agents run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, Output, ambit, not_run, wait_until};
use serde_json::{Value, json};

use super::SETTLED;
use crate::cast::{namespace, pod, server};

/// The namespace of the first test's cluster, and its only addresses: the API server's, those of pods.
const NETNS: &str = "t-lifecycle-cluster";
const SERVER: &str = "172.31.77.1";
const NODE_ADDRESS: &str = "172.31.77.254";
/// The tag of the images of what was installed before.
const PREVIOUS: &str = "previous";
/// Longest single command; an upgrade waits for one workload after the other.
const COMMAND: Duration = Duration::from_secs(180);
/// Names of objects that our programs make without a label of the installation.
const WRITTEN: [&str; 5] = [
    "istio-ca-root-cert",
    "istio-ca-secret",
    "istio-ca-rotation",
    "istiod-lite",
    "istio.io:istiod-ca:root-cert",
];

#[test]
fn what_was_installed_is_sound_is_upgraded_as_planned_and_leaves_nothing_in_the_cluster() {
    let Some(binary) = binary() else { return not_run("the program ambit-kube was not built: make kube") };
    let Some(lab) = Lab::adopt("lifecycle") else { return };
    let mut cluster = Cluster::start(&lab, &binary);
    before(&cluster);

    let tag = format!("image.tag={PREVIOUS}");
    drop(cluster.ambit(&["install", "-o", "apply", "--set", &tag]).ok());
    match previous() {
        Some(text) => {
            println!("upgraded from the manifests of the previous commit");
            let file = lab.file("previous.yaml", &text);
            let as_installed =
                ["apply", "--server-side", "--force-conflicts", "--field-manager=ambit-install", "-f", &file];
            drop(cluster.kubectl(&as_installed).ok());
        }
        None => println!(
            "upgraded from this commit's own manifests with another tag: no earlier ones are at hand"
        ),
    }
    cluster.is_sound();
    cluster.people_use_it();
    upgrades(&mut cluster);
    uninstalls(&mut cluster);
}

/// A cluster without the mesh is fit for it.
#[track_caller]
fn before(cluster: &Cluster<'_>) {
    let found = cluster.run(&["check", "--pre", "-o", "json"]);
    let found: Value = serde_json::from_str(&found.stdout).expect("JSON");
    for category in found["categories"].as_array().expect("categories") {
        let is_machine =
            category["categoryName"].as_str().is_some_and(|name| name.starts_with("This machine"));
        let checks = category["checks"].as_array().into_iter().flatten();
        let errors: Vec<&Value> = checks.filter(|check| check["result"] == "error").collect();
        if is_machine {
            println!("this machine as a node: {} errors", errors.len());
        } else {
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }
    // The same question after the fact is not answered with yes.
    assert_ne!(cluster.run(&["check"]).code, Some(0), "a mesh that is not there was found sound");
}

#[track_caller]
fn upgrades(cluster: &mut Cluster<'_>) {
    let plan = cluster.run(&["upgrade", "--plan"]).ok();
    for part in ["Deployment istio-system/istiod-lite", "DaemonSet istio-system/ztunnel", "restarts: "] {
        assert!(plan.contains(part), "the plan does not name {part:?}: {plan}");
    }
    let image = |line: &&str| line.contains("image: ") && line.contains(&format!(":{PREVIOUS} -> "));
    assert!(plan.lines().filter(image).count() >= 3, "the plan does not name the images: {plan}");
    assert!(cluster.image().ends_with(PREVIOUS), "a plan changed something");

    drop(cluster.ambit(&["upgrade"]).ok());
    assert!(!cluster.image().ends_with(PREVIOUS));
    assert_eq!(cluster.policy_of_failure(), "Fail", "an upgrade opened the webhook");
    cluster.is_sound();
    let plan = cluster.run(&["upgrade", "--plan"]).ok();
    assert_eq!(plan.trim(), "nothing to change");
}

#[track_caller]
fn uninstalls(cluster: &mut Cluster<'_>) {
    cluster.a_waypoint_is_made();
    drop(cluster.run(&["uninstall"]).ok());
    assert!(!cluster.image().is_empty(), "it was removed without --yes");
    assert_ne!(cluster.run(&["check", "--clean"]).code, Some(0), "an installation was called clean");
    assert!(!cluster.left().is_empty(), "the search for what is left finds nothing where all is there");

    drop(cluster.ambit(&["uninstall", "--yes", "--crds"]).ok());
    let clean = cluster.run(&["check", "--clean"]);
    assert_eq!(clean.code, Some(0), "{clean:?}");
    assert_eq!(cluster.left(), Vec::<String>::new(), "left in the cluster");
    assert!(cluster.planes.is_empty(), "a control plane still runs");
    // People's own objects stay.
    drop(cluster.kubectl(&["get", "gateway", "waypoint", "-n", "shop"]).ok());
}

/// The program with the parts of Kubernetes.
fn binary() -> Option<PathBuf> {
    let own = PathBuf::from(ambit());
    let folder = own.parent()?;
    let named = std::env::var_os("AMBIT_KUBE_BIN").map(PathBuf::from);
    let beside = [Some(folder.join("ambit-kube")), folder.parent().map(|up| up.join("kube/ambit-kube"))];
    named.into_iter().chain(beside.into_iter().flatten()).find(|path| path.is_file())
}

/// What the previous commit would have installed, with images of another tag; none without history, or if that commit
/// had no installation.
fn previous() -> Option<String> {
    let git = |args: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new("git");
        let output = command.arg("-C").arg(root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = git(&["ls-tree", "--name-only", "HEAD~1", "deploy/", "daemonset.yaml"])?;
    // What the webhook does in our absence the leader has set by now, and is not told again.
    let is_manifest = |path: &&str| path.ends_with(".yaml") && !path.ends_with("45-webhook.yaml");
    let paths: Vec<&str> = listed.lines().filter(is_manifest).collect();
    if !["deploy/30-istiod-lite.yaml", "daemonset.yaml"].iter().all(|needed| paths.contains(needed)) {
        return None;
    }
    let texts: Option<Vec<String>> =
        paths.iter().map(|path| git(&["show", &format!("HEAD~1:{path}")])).collect();
    let tag = format!(":{}", env!("CARGO_PKG_VERSION"));
    Some(texts?.join("\n---\n").replace(&tag, &format!(":{PREVIOUS}")))
}

/// An API server with its controllers, and the one node that the test plays.
struct Cluster<'a> {
    lab: &'a Lab,
    binary: PathBuf,
    folder: String,
    /// Ended after the programs that call it.
    planes: BTreeMap<String, Background>,
    addresses: BTreeMap<String, String>,
    server: Option<Background>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.planes.clear();
        drop(self.server.take());
        let _ = Command::new("ip").args(["netns", "del", NETNS]).output();
    }
}

impl<'a> Cluster<'a> {
    #[track_caller]
    fn start(lab: &'a Lab, binary: &Path) -> Self {
        // A killed run may have left it.
        let _ = Command::new("ip").args(["netns", "del", NETNS]).output();
        drop(tool(Command::new("ip").args(["netns", "add", NETNS])));
        let mut cluster = Self {
            lab,
            binary: binary.to_owned(),
            folder: lab.folder("cluster"),
            planes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            server: None,
        };
        for args in ["link set lo up", "link add mesh type bridge", "link set mesh up"] {
            drop(tool(cluster.inside("ip").args(args.split(' '))));
        }
        for address in [SERVER, NODE_ADDRESS] {
            cluster.add_address(address);
        }
        let mut up = cluster.inside(&binary.display().to_string());
        up.args(["up", "--dir", &cluster.folder, "--bind", SERVER, "--port", "6443", "--san", SERVER]);
        let up = Background::start(&mut up);
        wait_until("the API server serves", COMMAND, || up.stdout().contains("\"kubeconfig\""));
        cluster.server = Some(up);
        if let Some(definitions) = binary.parent().map(|beside| beside.join("crds")).filter(|it| it.is_dir())
        {
            let folder = definitions.display().to_string();
            drop(cluster.kubectl(&["apply", "--server-side", "-f", &folder]).ok());
            drop(cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).ok());
        }
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": {"kubernetes.io/os": "linux"}}}));
        cluster
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NETNS, program]).env("KUBECONFIG", self.admin());
        command
    }

    fn admin(&self) -> String {
        format!("{}/admin.kubeconfig", self.folder)
    }

    #[track_caller]
    fn add_address(&self, address: &str) {
        drop(tool(self.inside("ip").args(["address", "add", &format!("{address}/24"), "dev", "mesh"])));
    }

    #[track_caller]
    fn kubectl(&self, args: &[&str]) -> Output {
        let mut command = self.inside(&self.binary.display().to_string());
        Background::start(command.arg("kubectl").args(args)).finish(COMMAND)
    }

    #[track_caller]
    fn apply(&self, object: &Value) {
        let file = self.lab.file("object.json", &object.to_string());
        drop(self.kubectl(&["apply", "-f", &file]).ok());
    }

    /// Runs `ambit ARGS…` while nothing happens in the cluster.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        Background::start(self.inside(&ambit()).args(args)).finish(COMMAND)
    }

    /// Runs `ambit ARGS…` and does a kubelet's work meanwhile.
    #[track_caller]
    fn ambit(&mut self, args: &[&str]) -> Output {
        let mut command = Background::start(self.inside(&ambit()).args(args));
        while command.is_running() {
            self.tend();
        }
        let output = command.finish(COMMAND * 2);
        println!("ambit {}: {:?}", args.join(" "), output.took);
        output
    }

    /// Waits until a check finds no error.
    #[track_caller]
    fn is_sound(&mut self) {
        let checked = self.ambit(&["check", "--wait", "--timeout", "90s"]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        wait_until("the webhook refuses in its absence", SETTLED, || self.policy_of_failure() == "Fail");
    }

    fn policy_of_failure(&self) -> String {
        let path = "jsonpath={.webhooks[0].failurePolicy}";
        self.kubectl(&["get", "validatingwebhookconfiguration/istio-validator-istio-system", "-o", path]).ok()
    }

    /// The image of the control plane; nothing if there is none.
    fn image(&self) -> String {
        let path = "jsonpath={.spec.template.spec.containers[0].image}";
        self.kubectl(&["get", "deployment/istiod-lite", "-n", "istio-system", "-o", path]).stdout
    }

    /// Somebody enrols a namespace and writes a policy.
    #[track_caller]
    fn people_use_it(&mut self) {
        self.apply(&namespace("shop", true));
        let spec = json!({"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]});
        self.apply(&crate::cast::security("AuthorizationPolicy", "shop/own", &spec));
        wait_until("the namespace has the root of trust", SETTLED, || {
            self.tend();
            self.kubectl(&["get", "configmap/istio-ca-root-cert", "-n", "shop"]).code == Some(0)
        });
    }

    #[track_caller]
    fn a_waypoint_is_made(&mut self) {
        self.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        }));
        wait_until("its Deployment is made", SETTLED, || {
            self.tend();
            !self.kubectl(&["get", "deployments", "-n", "shop", "-o", "name"]).ok().trim().is_empty()
        });
    }

    /// What a kubelet and a scheduler do with every pod that needs it, once.
    fn tend(&mut self) {
        let pods = self.kubectl(&["get", "pods", "-A", "-o", "json"]).ok();
        let pods: Value = serde_json::from_str(&pods).expect("JSON");
        for pod in pods["items"].as_array().into_iter().flatten() {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            if !text("/metadata/deletionTimestamp").is_empty() {
                if let Some(plane) = self.planes.remove(name) {
                    drop(plane.stop());
                }
                let now =
                    ["delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", "--wait=false"];
                // It may be gone already.
                drop(self.kubectl(&now));
            } else if text("/spec/nodeName").is_empty() {
                self.bind(namespace, name);
            } else if text("/status/phase") != "Running" && self.runs(pod, name) {
                self.report(pod, namespace, name);
            }
        }
    }

    /// A pod that is gone by now is nobody's loss: the next round sees what is there.
    fn bind(&self, namespace: &str, name: &str) {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"namespace": namespace, "name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "node1"},
        });
        let file = self.lab.file("binding.json", &binding.to_string());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        drop(self.kubectl(&["create", "--raw", &path, "-f", &file]));
    }

    /// Whether what a pod is for runs: of the control plane's the program, which is started.
    #[track_caller]
    fn runs(&mut self, pod: &Value, name: &str) -> bool {
        if pod["spec"]["hostNetwork"] != true && !self.addresses.contains_key(name) {
            let address = format!("172.31.77.{}", self.addresses.len() + 2);
            self.add_address(&address);
            self.addresses.insert(name.to_owned(), address);
        }
        if pod["spec"]["serviceAccountName"] != "istiod" {
            return true;
        }
        if !self.planes.contains_key(name) {
            let plane = self.start_plane(name);
            self.planes.insert(name.to_owned(), plane);
        }
        let plane = &self.planes[name];
        format!("{}{}", plane.stdout(), plane.stderr()).contains("the admission webhook is served")
    }

    /// The real control plane, with the rights of its account and no others.
    #[track_caller]
    fn start_plane(&self, name: &str) -> Background {
        let account = ["create", "token", "istiod", "-n", "istio-system", "--duration=1h"];
        let token = self.kubectl(&account).ok();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "own",
            "clusters": [{"name": "own", "cluster": {
                "server": format!("https://{SERVER}:6443"),
                "certificate-authority": format!("{}/pki/ca.crt", self.folder),
            }}],
            "users": [{"name": "own", "user": {"token": token.trim()}}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
        });
        let file = self.lab.file(&format!("{name}.kubeconfig"), &kubeconfig.to_string());
        let state = self.lab.folder(&format!("{name}-state"));
        let address = &self.addresses[name];
        let program = Path::new(&ambit()).with_file_name("istiod-lite").display().to_string();
        let mut command = self.inside(&program);
        command.args(["--source", "kube", "--kubeconfig", &file, "--state-dir", &state, "--pod-name", name]);
        command.args([
            "--listen",
            &format!("{address}:15012"),
            "--webhook-listen",
            &format!("{address}:15017"),
        ]);
        command.args(["--admin-socket", &format!("{state}/admin.sock")]);
        command.env("AMBIT_WAYPOINT_IMAGE", "registry.ambit.internal/ambit/waypoint:test");
        Background::start(&mut command)
    }

    fn report(&self, pod: &Value, namespace: &str, name: &str) {
        let is_of_node = pod["spec"]["hostNetwork"] == true;
        let own = if is_of_node { NODE_ADDRESS } else { self.addresses[name].as_str() };
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let conditions = ["Initialized", "ContainersReady", "Ready", "PodScheduled"].map(condition);
        let status = json!({"status": {
            "phase": "Running", "podIP": own, "podIPs": [{"ip": own}],
            "hostIP": NODE_ADDRESS, "hostIPs": [{"ip": NODE_ADDRESS}],
            "conditions": conditions,
        }});
        let status = status.to_string();
        let args =
            ["patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &status];
        // It may be gone already; what is wrong otherwise shows, as nothing becomes ready.
        drop(self.kubectl(&args));
    }

    /// Everything in the cluster that is ours, or in which one of our programs wrote.
    #[track_caller]
    fn left(&self) -> Vec<String> {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).ok();
        // Events go by themselves after an hour.
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        let all = self.kubectl(&["get", &kinds.join(","), "-A", "--show-managed-fields", "-o", "json"]).ok();
        let all: Value = serde_json::from_str(&all).expect("JSON");
        let objects = all["items"].as_array().expect("items");
        assert!(!objects.is_empty(), "the cluster cannot be empty");
        objects.iter().filter(|object| is_ours(object)).map(named).collect()
    }
}

fn named(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let owners = object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    let owners: Vec<String> = owners.map(|o| format!("{}/{}", o["manager"], o["subresource"])).collect();
    let owners = owners.join(" ");
    format!("{} {}/{} by {owners}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

fn is_ours(object: &Value) -> bool {
    let metadata = &object["metadata"];
    // Controllers call themselves by the name of the program that holds them.
    let owners = metadata["managedFields"].as_array().into_iter().flatten();
    // Where a status was taken back, the server fills in the default of the definition, in the names of who had asked.
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is_default =
        object["status"]["addresses"].is_null() && conditions.into_iter().all(|c| c["reason"] == "Pending");
    let wrote = owners
        .filter(|owner| owner["subresource"] != "status" || !is_default)
        .filter_map(|owner| owner["manager"].as_str())
        .any(|name| name.starts_with("ambit") && name != "ambit-kube");
    let labels = &metadata["labels"];
    wrote
        || labels["app.kubernetes.io/part-of"] == "ambit"
        || labels["gateway.istio.io/managed"] == "istio.io-mesh-controller"
        || WRITTEN.iter().any(|name| metadata["name"] == *name)
        || metadata["name"] == "istio-system"
        || metadata["annotations"]["ambient.istio.io/redirection"].is_string()
}

#[track_caller]
fn tool(command: &mut Command) -> String {
    Background::start(command).finish(COMMAND).ok()
}

#[test]
fn uninstalling_leaves_no_rule_in_the_namespace_of_any_pod() {
    let cast = [namespace("shop", false), pod("shop/caller", "node1", &[]), server("shop/web", "node2")];
    let Some(lab) = Lab::up_kube("leaves", &cast, &[]) else { return };
    let pods = ["shop/caller", "shop/web"];
    let clean = pods.map(|pod| rules(&lab, pod));
    let _ = lab.lab(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"]);
    for (pod, clean) in pods.iter().zip(&clean) {
        wait_until("the pod is captured", SETTLED, || lab.is_captured(pod));
        assert_ne!(&rules(&lab, pod), clean, "a captured pod has no rule to be left behind");
    }
    // It has no Deployment here that an uninstall could end, and would write again what was removed.
    let _ = lab.lab(&["stop", "istiod"]);
    let kubeconfig = lab.run_dir().join("kube/admin.kubeconfig").display().to_string();
    let fabric = format!("{}-fabric", lab.name());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &fabric, &ambit(), "uninstall", "--yes", "--kubeconfig", &kubeconfig]);
    let said = tool(&mut command);
    assert!(said.contains("Namespace shop left the mesh"), "{said}");
    for (pod, clean) in pods.iter().zip(&clean) {
        assert!(!lab.is_captured(pod), "{pod} is still marked");
        // What translates for connections from before goes last.
        wait_until(&format!("nothing is left in the namespace of {pod}"), SETTLED, || {
            &rules(&lab, pod) == clean
        });
    }
}

/// Rules of packets and of routing in a pod's namespace, and the routes of all tables.
#[track_caller]
fn rules(lab: &Lab, pod: &str) -> String {
    let netns = format!("{}-pod-{}", lab.name(), pod.replace('/', "-"));
    let ask = |args: &str| tool(Command::new("ip").args(["netns", "exec", &netns]).args(args.split(' ')));
    // Not the main table, in which neighbours come and go.
    let local = |line: &&str| line.contains(" table ") && !line.contains("table local");
    let routes = ask("ip route show table all");
    let routes: Vec<&str> = routes.lines().filter(local).collect();
    let parts = [ask("nft list ruleset"), ask("ip -4 rule"), ask("ip -6 rule"), routes.join("\n")];
    parts.map(|part| part.trim().to_owned()).join("\n")
}
