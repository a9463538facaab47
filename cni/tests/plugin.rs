//! The CNI plugin as a container runtime calls it, against the agent that installed it, and the agent's way off a node.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test program: what fails is to be loud")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ambit_folder::Folder;
use ambit_runtime::admin::client;
use rig::Rig;
use rig::ztunnel::FakeZtunnel;
use serde_json::{Value, json};
use tokio::time::timeout;

#[allow(dead_code, reason = "each test program uses its part of the rig")]
mod rig;

const PATIENCE: Duration = Duration::from_secs(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_ambit-cni");
const LIST: &str = "{\n  \"name\": \"n\",\n  \"cniVersion\": \"1.0.0\",\n  \"plugins\": [\n    {\"type\": \"bridge\"}\n  ]\n}\n";

macro_rules! in_namespaces {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            if rig::possible(stringify!($name)) {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
                    .block_on(scene::$name());
            }
        }
    )*};
}

in_namespaces! {
    a_pod_of_the_mesh_starts_only_once_it_is_captured_and_served
    others_start_at_once_and_taking_down_never_waits
    off_the_node_nothing_is_left
    without_an_agent_the_node_is_cleaned_all_the_same
}

struct World {
    dir: tempfile::TempDir,
    rig: Rig,
    folder: Folder,
}

/// The running agent, killed at the end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    /// A pod that has been scheduled but has neither address nor process yet; no directory names its namespace.
    fn new(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("objects")).unwrap();
        for name in ["sandboxes", "bin", "net.d"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("net.d/10-a.conflist"), LIST).unwrap();
        let labels = json!({"istio.io/dataplane-mode": mode});
        folder
            .put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))
            .unwrap();
        folder
            .put(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "u1"},
                "spec": {"nodeName": "node1", "containers": [{"name": "app"}]},
                "status": {"phase": "Pending"},
            }))
            .unwrap();
        Self { dir, rig: Rig::new(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, word: Option<&str>) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(word).args(["--node", "node1", "--verify-interval", "200ms", "--leave-notice", "100ms"]);
        command.args(["--chained-cni-plugin", "true", "--release-deadline", "2s"]);
        for (flag, name) in [
            ("--folder", "objects"),
            ("--sandbox-dir", "sandboxes"),
            ("--zds-socket", "zds/ztunnel.sock"),
            ("--admin-socket", "admin.sock"),
            ("--plugin-socket", "agent/plugin.sock"),
            ("--mounted-cni-bin-dir", "bin"),
            ("--mounted-cni-net-dir", "net.d"),
            ("--state-file", "agent/pods.json"),
            ("--uninstall-flag", "agent/uninstall"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command.stdout(Stdio::null());
        command
    }

    async fn start(&self) -> Program {
        let child = self.rig.peer.netns.run(|| self.command(None).spawn());
        let program = Program(child.unwrap().unwrap());
        self.wait("the agent to be ready", || async {
            client::get(&self.path("admin.sock"), "/healthz/ready").await.is_ok_and(|a| a.status.is_success())
        })
        .await;
        program
    }

    async fn wait<F: Future<Output = bool>>(&self, what: &str, until: impl Fn() -> F) {
        let done = async {
            while !until().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(PATIENCE, done).await.is_ok(), "{what}");
    }

    /// Calls the installed binary as a container runtime does, with the entry that the agent wrote.
    fn call(&self, command: &str, namespace: &str) -> Output {
        let list: Value = serde_json::from_str(&self.conf()).unwrap();
        let mut network = list["plugins"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(network["type"], "ambit-cni");
        network["cniVersion"] = list["cniVersion"].clone();
        network["name"] = list["name"].clone();
        let ips: Vec<Value> = rig::POD.iter().map(|ip| json!({"address": format!("{ip}/32")})).collect();
        network["prevResult"] = json!({"cniVersion": "1.0.0", "ips": ips});
        let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=cart;K8S_POD_UID=u1");
        let mut child = Command::new(self.path("bin/ambit-cni"))
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", format!("/run/netns/{}", self.rig.pod.name))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(network.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn conf(&self) -> String {
        std::fs::read_to_string(self.path("net.d/10-a.conflist")).unwrap()
    }

    fn rules(&self) -> String {
        self.rig.pod.sh("nft list ruleset")
    }
}

fn said(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

mod scene {
    use super::*;

    pub(super) async fn a_pod_of_the_mesh_starts_only_once_it_is_captured_and_served() {
        let world = World::new("ambient");
        let _program = world.start().await;
        // Without a ztunnel it waits, but nothing gets past the rules.
        let refused = tokio::task::block_in_place(|| world.call("ADD", "shop"));
        assert_eq!((refused.status.code(), &said(&refused)["code"]), (Some(1), &json!(11)), "{refused:?}");
        assert!(said(&refused)["msg"].as_str().unwrap().contains("ztunnel"), "{refused:?}");
        assert!(said(&refused)["details"].as_str().unwrap().contains("shop/cart"), "{refused:?}");
        assert!(world.rules().contains("ambit capture"));
        let ztunnel = FakeZtunnel::connect(&world.path("zds/ztunnel.sock")).await;
        let started = tokio::task::block_in_place(|| world.call("ADD", "shop"));
        assert_eq!(started.status.code(), Some(0), "{started:?}");
        assert_eq!(said(&started)["ips"].as_array().unwrap().len(), rig::POD.len(), "passed on as it came");
        assert_eq!(ztunnel.seen.borrow().serving["u1"], world.rig.pod.netns.id());
        assert!(world.rules().contains("ambit capture"));
        assert_eq!(tokio::task::block_in_place(|| world.call("CHECK", "shop")).status.code(), Some(0));
    }

    pub(super) async fn others_start_at_once_and_taking_down_never_waits() {
        let world = World::new("none");
        let program = world.start().await;
        let started = tokio::task::block_in_place(|| world.call("ADD", "shop"));
        assert_eq!(started.status.code(), Some(0), "{started:?}");
        assert!(world.rules().is_empty());
        drop(program);
        // The agent is away: excluded pods start, others wait; nothing keeps a sandbox from being taken down.
        for (command, namespace, code) in [("ADD", "kube-system", 0), ("DEL", "shop", 0), ("ADD", "shop", 1)]
        {
            let output = tokio::task::block_in_place(|| world.call(command, namespace));
            assert_eq!(output.status.code(), Some(code), "{command} {namespace} {output:?}");
        }
    }

    pub(super) async fn off_the_node_nothing_is_left() {
        let world = World::new("ambient");
        let mut program = world.start().await;
        let ztunnel = FakeZtunnel::connect(&world.path("zds/ztunnel.sock")).await;
        assert_eq!(tokio::task::block_in_place(|| world.call("ADD", "shop")).status.code(), Some(0));
        let output = tokio::task::block_in_place(|| world.command(Some("uninstall-node")).output().unwrap());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(world.conf(), LIST, "every byte as before");
        assert!(!world.path("bin/ambit-cni").exists());
        assert!(world.rules().is_empty());
        assert!(ztunnel.serving().is_empty());
        let key = ambit_manifest::ObjectKey::new(ambit_manifest::Kind::Pod, Some("shop"), "cart");
        let pod = Value::clone(&world.folder.object(&key).unwrap().value);
        assert_eq!(pod.pointer("/metadata/annotations/ambient.istio.io~1redirection"), None, "{pod:#}");
        assert!(!pod["status"].to_string().contains("ambit.internal"), "{pod:#}");
        // Told by a file that its end is that of the mesh, it leaves no socket either.
        std::fs::write(world.path("agent/uninstall"), "").unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(program.0.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(program.0.wait().unwrap().success());
        for gone in ["agent/plugin.sock", "zds/ztunnel.sock", "admin.sock"] {
            assert!(!world.path(gone).exists(), "{gone}");
        }
    }

    pub(super) async fn without_an_agent_the_node_is_cleaned_all_the_same() {
        let world = World::new("ambient");
        let program = world.start().await;
        let _ztunnel = FakeZtunnel::connect(&world.path("zds/ztunnel.sock")).await;
        assert_eq!(tokio::task::block_in_place(|| world.call("ADD", "shop")).status.code(), Some(0));
        drop(program);
        std::os::unix::fs::symlink(format!("/run/netns/{}", world.rig.pod.name), world.path("sandboxes/u1"))
            .unwrap();
        assert!(world.rules().contains("ambit capture"));
        let cleaned =
            world.rig.peer.netns.run(|| world.command(Some("uninstall-node")).output().unwrap()).unwrap();
        assert!(cleaned.status.success(), "{cleaned:?}");
        assert!(world.rules().is_empty());
        assert_eq!(world.conf(), LIST);
    }
}
