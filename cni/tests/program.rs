//! The program itself: started in a node's namespace, fed from a folder, asked on its admin socket, stopped and killed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test program: what fails is to be loud")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambit_folder::Folder;
use ambit_manifest::{Kind, ObjectKey};
use ambit_net::seqpacket::SeqpacketConn;
use ambit_runtime::admin::client;
use rig::Rig;
use rig::ztunnel::FakeZtunnel;
use serde_json::{Value, json};
use tokio::time::timeout;

#[allow(dead_code, reason = "each test program uses its part of the rig")]
mod rig;

const PATIENCE: Duration = Duration::from_secs(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_ambit-cni");

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
    a_label_on_a_namespace_captures_its_pods_and_taking_it_away_releases_them
    killed_or_stopped_it_leaves_the_rules_and_finds_them_again
    a_stranger_at_the_socket_gets_nothing
}

struct World {
    dir: tempfile::TempDir,
    rig: Rig,
    folder: Folder,
}

/// The running program, killed at the end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("objects")).unwrap();
        std::fs::create_dir(dir.path().join("sandboxes")).unwrap();
        let rig = Rig::new();
        symlink(format!("/run/netns/{}", rig.pod.name), dir.path().join("sandboxes/u1")).unwrap();
        let world = Self { dir, rig, folder };
        world.label("none");
        world
            .folder
            .put(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "u1"},
                "spec": {"nodeName": "node1", "containers": [{"name": "app"}]},
                "status": {"phase": "Running", "podIPs": rig::POD.map(|ip| json!({"ip": ip}))},
            }))
            .unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn label(&self, mode: &str) {
        let labels = json!({"istio.io/dataplane-mode": mode});
        self.folder
            .put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))
            .unwrap();
    }

    async fn start(&self) -> Program {
        let child = self.rig.peer.netns.run(|| {
            Command::new(PROGRAM)
                .args(["--node", "node1", "--verify-interval", "200ms", "--leave-notice", "100ms"])
                .arg("--folder")
                .arg(self.path("objects"))
                .arg("--sandbox-dir")
                .arg(self.path("sandboxes"))
                .arg("--zds-socket")
                .arg(self.path("zds/ztunnel.sock"))
                .arg("--admin-socket")
                .arg(self.path("admin.sock"))
                .stdout(Stdio::null())
                .spawn()
        });
        let program = Program(child.unwrap().unwrap());
        self.wait("the program to be ready", || async {
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
        assert!(timeout(PATIENCE, done).await.is_ok(), "{what}: {:#}", self.pod());
    }

    fn pod(&self) -> Value {
        let key = ObjectKey::new(Kind::Pod, Some("shop"), "cart");
        Value::clone(&self.folder.object(&key).unwrap().value)
    }

    /// The annotation and the condition's reason.
    fn said(&self) -> (Option<String>, Option<String>) {
        let pod = self.pod();
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let reason = pod["status"]["conditions"].as_array().and_then(|list| text(&list.last()?["reason"]));
        (text(&pod["metadata"]["annotations"]["ambient.istio.io/redirection"]), reason)
    }

    async fn wait_said(&self, redirection: Option<&str>, reason: &str) {
        let want = (redirection.map(str::to_owned), Some(reason.to_owned()));
        self.wait(&format!("{want:?}"), || async { self.said() == want }).await;
    }

    async fn ask(&self, what: &str) -> String {
        let answer = client::get(&self.path("admin.sock"), what).await.unwrap();
        String::from_utf8(answer.body.to_vec()).unwrap()
    }
}

mod scene {
    use super::*;

    pub(super) async fn a_label_on_a_namespace_captures_its_pods_and_taking_it_away_releases_them() {
        let world = World::new();
        let _program = world.start().await;
        assert_eq!(world.said(), (None, None));
        world.label("ambient");
        world.wait_said(Some("pending"), "AMB1101").await;
        let ztunnel = FakeZtunnel::connect(&world.path("zds/ztunnel.sock")).await;
        world.wait_said(Some("enabled"), "Captured").await;
        assert_eq!(ztunnel.seen.borrow().serving["u1"], world.rig.pod.netns.id());

        let pods: Value = serde_json::from_str(&world.ask("/pods").await).unwrap();
        assert_eq!(
            (&pods[0]["uid"], &pods[0]["state"], &pods[0]["ztunnel"]),
            (&json!("u1"), &json!("captured"), &json!("held"))
        );
        let metrics = world.ask("/metrics").await;
        for line in [
            "ambit_workloads_expected{namespace=\"shop\"} 1",
            "ambit_workloads_captured{namespace=\"shop\"} 1",
        ] {
            assert!(metrics.contains(line), "{metrics}");
        }
        world.rig.pod.sh("nft flush ruleset");
        world
            .wait("the repair to be counted", || async {
                world
                    .ask("/metrics")
                    .await
                    .contains("ambit_capture_repairs_total{namespace=\"shop\",cause=\"rules-altered\"} 1")
            })
            .await;
        assert!(world.rig.pod.sh("nft list ruleset").contains("ambit capture"));

        world.label("none");
        world.wait_said(None, "AMB1001").await;
        world.wait("ztunnel to let go", || async { ztunnel.serving().is_empty() }).await;
        world.wait("the rules to go", || async { world.rig.pod.sh("nft list ruleset").is_empty() }).await;
        world
            .wait("the pod to be out", || async {
                world.ask("/pods?uid=u1").await.contains("\"state\":\"out\"")
            })
            .await;
    }

    pub(super) async fn killed_or_stopped_it_leaves_the_rules_and_finds_them_again() {
        let world = World::new();
        world.label("ambient");
        let socket = world.path("zds/ztunnel.sock");
        let mut program = world.start().await;
        let ztunnel = FakeZtunnel::connect(&socket).await;
        world.wait_said(Some("enabled"), "Captured").await;
        drop(ztunnel);
        let rules = world.rig.pod.sh("nft -a list ruleset | grep -v counter");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(program.0.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(program.0.wait().unwrap().success());
        assert!(!socket.exists());
        for _ in 0..2 {
            assert_eq!(
                world.rig.pod.sh("nft -a list ruleset | grep -v counter"),
                rules,
                "not one rule is touched"
            );
            // The second round begins after kill -9, with the socket's file left behind.
            let program = world.start().await;
            let ztunnel = FakeZtunnel::connect(&socket).await;
            world.wait("ztunnel to be given the pod", || async { ztunnel.serving() == ["u1"] }).await;
            drop(program);
            assert!(socket.exists());
        }
        assert_eq!(world.said().0.as_deref(), Some("enabled"));
    }

    /// T-90: the file's mode keeps strangers out; should it not, their uid does.
    pub(super) async fn a_stranger_at_the_socket_gets_nothing() {
        let world = World::new();
        world.label("ambient");
        let _program = world.start().await;
        let socket = world.path("zds/ztunnel.sock");
        assert_eq!(as_nobody(&socket), Err(std::io::ErrorKind::PermissionDenied));
        for (path, mode) in [(world.dir.path(), 0o755), (socket.parent().unwrap(), 0o755), (&*socket, 0o666)]
        {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(as_nobody(&socket), Ok(0), "the end, and no namespace");
        let ztunnel = FakeZtunnel::connect(&socket).await;
        world.wait("root to be served", || async { ztunnel.serving() == ["u1"] }).await;
    }
}

/// Says hello as an unprivileged user and returns the length of what comes back.
fn as_nobody(socket: &Path) -> Result<usize, std::io::ErrorKind> {
    let socket = socket.to_owned();
    // Only this thread gives up root.
    let stranger = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let conn = SeqpacketConn::connect(&socket).map_err(|e| {
                let cause = std::error::Error::source(&e).and_then(|c| c.downcast_ref::<std::io::Error>());
                cause.unwrap().kind()
            })?;
            // The other side may have hung up before the hello.
            let _ = conn.send(&[0x08, 0x01], None).await;
            let mut buffer = [0; 1024];
            let got = timeout(PATIENCE, conn.recv(&mut buffer)).await.unwrap();
            match got {
                Ok(got) => {
                    assert!(got.fds.is_empty());
                    Ok(got.len)
                }
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(0),
                Err(e) => Err(e.kind()),
            }
        })
    });
    stranger.join().unwrap()
}

#[test]
fn nonsense_is_refused_before_anything_is_touched() {
    let run = |args: &[&str]| Command::new(PROGRAM).args(args).env_clear().output().unwrap();
    for args in [&[][..], &["--folder", "/x"], &["--nodes", "a"], &["--source", "kube"], &["uninstall-node"]]
    {
        let out = run(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (folder, sandboxes, admin) = (path("objects"), path("sandboxes"), path("admin.sock"));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = path("ztunnel.sock");
    let args = [
        "--folder",
        &folder,
        "--node",
        "n",
        "--sandbox-dir",
        &sandboxes,
        "--zds-socket",
        &socket,
        "--admin-socket",
        &admin,
    ];
    let out = run(&args);
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("make it 700"), "{said}");
    let shown = run(&[&args[..], &["--print-config"]].concat());
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("node = n (flag)\n") && shown.contains("(default)\n"), "{shown}");
}
