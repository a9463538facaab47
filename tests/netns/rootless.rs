//! A lab of an ordinary user: the same commands, and nothing of it on the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use ambit_tests::lab::{Lab, ambit};
use serde_json::json;

use crate::cast::{PORT, namespace, pod, security, server};

/// Somebody without a name or a right on any machine.
const UID: u32 = 64_321;

/// The programs where that user can run them, and a place of the user's own.
struct User {
    folder: String,
    lab: String,
}

impl User {
    fn new(lab: &Lab) -> Self {
        let folder = lab.folder("user");
        let own = Path::new(&folder);
        let programs = Path::new(&ambit()).parent().expect("a folder").to_owned();
        for program in ["ambit", "ztunnel", "istiod-lite", "ambit-cni"] {
            fs::copy(programs.join(program), own.join(program)).expect("copying a program");
        }
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        open(own);
        open(own.parent().expect("the test's folder"));
        chown(own, Some(UID), Some(UID)).expect("chown");
        Self { folder, lab: lab.name().to_owned() }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(Path::new(&self.folder).join("ambit"));
        command.args(args).uid(UID).gid(UID).current_dir(&self.folder).env("AMBIT_LAB", &self.lab);
        command.output().expect("starting ambit")
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

#[test]
fn every_command_finds_the_lab_of_a_user_without_root() {
    let Some(lab) = Lab::adopt("rootless") else { return };
    let user = User::new(&lab);
    let program = format!("{}/ambit", user.folder);
    let mut echo = server("shop/echo", "node2");
    echo["spec"]["containers"][0]["command"][0] = json!(program);
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "shop/strict", &json!({"mtls": {"mode": "STRICT"}})),
        echo,
        pod("shop/caller", "node1", &[]),
        pod("legacy/stranger", "node1", &[]),
    ];
    let texts: Vec<String> = cast.iter().map(ToString::to_string).collect();
    let file = lab.file("cast.yaml", &texts.join("\n---\n"));
    let up = user.run(&["lab", "up", "-f", &file]);
    if up.status.code() == Some(1) {
        // A kernel that allows no user namespace: then the command that works is named.
        let told = String::from_utf8_lossy(&up.stderr).into_owned();
        assert!(told.contains("this machine refuses") && told.contains("sudo"), "{told}");
        return;
    }
    assert_eq!(up.status.code(), Some(0), "{}", String::from_utf8_lossy(&up.stderr));
    assert_eq!(lab.left().iter().filter(|l| l.starts_with("namespace")).count(), 0, "{:?}", lab.left());
    assert_eq!(lab.ambit(&["status"]).code, Some(69), "root has no lab of that name");

    let pods = user.ok(&["lab", "get", "pod", "echo", "-n", "shop", "-o", "json"]);
    let pods: serde_json::Value = serde_json::from_str(&pods).expect("JSON");
    let target = format!("{}:{PORT}", pods["status"]["podIP"].as_str().expect("an address"));
    let call = |from: &str, pod: &str| {
        let args = ["lab", "exec", "-n", from, pod, "--", &program, "echoer", "client", &target];
        user.run(&args).status.code()
    };
    assert_eq!(call("shop", "caller"), Some(0));
    assert_eq!(call("legacy", "stranger"), Some(1));
    assert!(user.ok(&["status"]).contains("node2"));
    assert!(user.ok(&["get", "workloads"]).contains("caller"));
    assert!(user.ok(&["get", "certificates"]).contains("/ns/shop/sa/default"));
    assert!(user.ok(&["flows"]).contains("shop/caller"));
    assert!(user.ok(&["why", "last"]).contains("AMB2301"));
    // A path is the user's own, also for a command that joins the lab.
    fs::write(Path::new(&user.folder).join("own.yaml"), namespace("own", false).to_string()).expect("a file");
    let _ = user.ok(&["lab", "apply", "-f", "own.yaml"]);
    let _ = user.ok(&["lab", "down"]);
    assert_eq!(user.run(&["status"]).status.code(), Some(69));
    assert!(!Path::new(&format!("/tmp/ambit-{UID}")).exists());
}
