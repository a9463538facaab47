//! The lab's own commands as a person types them: what they wait for, what they leave, and their exit codes.

use std::time::Duration;

use ambit_tests::lab::{Lab, Output, ambit, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server, service};

/// A pod whose only container ends with an exit code at once, and is not started again.
fn job(key: &str, code: u8) -> Value {
    let mut job = pod(key, "node1", &["sh", "-c", &format!("exit {code}")]);
    job["spec"]["restartPolicy"] = json!("Never");
    job
}

/// Applies objects with a short patience, whatever comes of it.
#[track_caller]
fn apply(lab: &Lab, objects: &[Value], further: &[&str]) -> Output {
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    let file = lab.file("applied.yaml", &texts.join("\n---\n"));
    lab.ambit(&[&["lab", "apply", "-f", &file], further].concat())
}

fn phase(lab: &Lab, pod: &str) -> Value {
    lab.get("pod", pod)["status"]["phase"].clone()
}

#[test]
fn a_pod_that_never_gets_ready_holds_up_nobody_else() {
    let cast = [
        namespace("shop", false),
        job("shop/failed", 3),
        job("shop/done", 0),
        pod("shop/caller", "node1", &[]),
    ];
    let Some(lab) = Lab::up("unready", &cast, &[]) else { return };
    assert_eq!(phase(&lab, "shop/failed"), "Failed");
    assert_eq!(phase(&lab, "shop/done"), "Succeeded");

    let sick = pod("shop/sick", "node1", &["sh", "-c", "exit 1"]);
    let _ = apply(&lab, &[sick], &["--no-wait"]).ok();
    wait_until("it keeps ending", Duration::from_secs(10), || {
        lab.get("pod", "shop/sick")["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(2)
    });
    let policy = security("AuthorizationPolicy", "shop/open", &json!({"rules": [{}]}));
    let _ = apply(&lab, &[policy], &["--timeout", "10s"]).ok();
    let label = ["lab", "label", "namespace", "shop", "istio.io/dataplane-mode=ambient", "--timeout", "15s"];
    let _ = lab.ambit(&label).ok();
    assert!(lab.is_captured("shop/caller"), "returned before the label was in force");
    let _ = lab.ambit(&["lab", "delete", "pod", "done", "-n", "shop", "--timeout", "10s"]).ok();

    // What a change makes itself, it does answer for.
    let mut worse = pod("shop/worse", "node1", &["sleep", "600"]);
    worse["spec"]["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["false"]}});
    let worse = apply(&lab, &[worse], &["--timeout", "2s"]);
    assert_eq!(worse.code, Some(1), "{worse:?}");
    assert!(worse.stderr.contains("pod shop/worse is Running and not ready"), "{}", worse.stderr);
    assert!(!worse.stderr.contains("sick"), "{}", worse.stderr);
}

/// The process of a pod's first container; none while it is stopped.
fn pid(lab: &Lab, pod: &str) -> Option<u64> {
    let status: Value =
        serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON from lab status");
    let (namespace, name) = crate::cast::split(pod);
    let pods = status["pods"].as_array().expect("pods");
    pods.iter().find(|p| p["name"] == name && p["namespace"] == namespace).expect("the pod")["pid"].as_u64()
}

#[track_caller]
fn assert_works(lab: &Lab, when: &str) {
    let target = lab.target("shop/echo", 4, PORT);
    let summary = lab.call("shop/caller", &target, &["--connections", "3"]);
    assert_eq!(summary["ok"], true, "{when}: {summary:#}");
}

#[test]
fn a_pod_is_stopped_started_restarted_and_killed_and_the_command_waits_for_it() {
    let mut stubborn =
        pod("shop/stubborn", "node1", &["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]);
    stubborn["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        stubborn,
        job("shop/done", 0),
    ];
    let Some(lab) = Lab::up("pods", &cast, &[]) else { return };
    let first = pid(&lab, "shop/echo");
    assert!(first.is_some());
    for _ in 0..2 {
        let _ = lab.lab(&["stop", "pod/shop/echo"]);
        assert_eq!(pid(&lab, "shop/echo"), None, "stop returned while it still runs");
    }
    let target = lab.target("shop/echo", 4, PORT);
    assert_eq!(lab.call("shop/caller", &target, &["--connections", "1"])["ok"], false);
    // Other changes do not start it again, and nothing waits for it.
    let policy = security("AuthorizationPolicy", "shop/open", &json!({"rules": [{}]}));
    let _ = apply(&lab, &[policy], &["--timeout", "10s"]).ok();
    assert_eq!(pid(&lab, "shop/echo"), None, "it came back by itself");
    let inside = lab.exec("shop/echo", &["true"]);
    assert!(inside.code == Some(1) && inside.stderr.contains("lab start pod/shop/echo"), "{inside:?}");
    let killed = lab.ambit(&["lab", "kill", "pod/shop/echo"]);
    assert!(killed.code == Some(1) && killed.stderr.contains("lab start pod/shop/echo"), "{killed:?}");

    let _ = lab.lab(&["start", "pod/shop/echo"]);
    let second = pid(&lab, "shop/echo");
    assert!(second.is_some() && second != first, "{second:?}");
    assert_works(&lab, "right after start");
    let _ = lab.lab(&["start", "pod/shop/echo"]);
    assert_eq!(pid(&lab, "shop/echo"), second, "it ran already");

    let _ = lab.lab(&["restart", "pod/shop/echo"]);
    let third = pid(&lab, "shop/echo");
    assert!(third.is_some() && third != second, "{third:?}");
    assert_works(&lab, "right after restart");

    let _ = lab.lab(&["kill", "pod/shop/echo"]);
    assert_ne!(pid(&lab, "shop/echo"), third, "kill returned before it had ended");
    // Its readiness from before may still stand while it starts.
    wait_until("it comes back by itself and serves", Duration::from_secs(20), || {
        let back = pid(&lab, "shop/echo").is_some_and(|now| Some(now) != third);
        back && lab.call("shop/caller", &target, &["--connections", "1"])["ok"] == true
    });

    let _ = lab.lab(&["stop", "pod/shop/stubborn"]);
    assert_eq!(pid(&lab, "shop/stubborn"), None, "what ignores SIGTERM is killed after its grace");
    let finished = lab.ambit(&["lab", "start", "pod/shop/done"]);
    assert!(finished.code == Some(1) && finished.stderr.contains("has finished"), "{finished:?}");
    assert_eq!(lab.ambit(&["lab", "stop", "pod/shop/none"]).code, Some(1));
    assert_eq!(lab.ambit(&["lab", "stop", "pod/none"]).code, Some(64));
}

#[test]
fn every_command_of_the_contract_does_what_it_says() {
    let talker = pod("shop/talker", "node1", &["sh", "-c", "while :; do date +%s%N; sleep 0.2; done"]);
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        talker,
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("walk", &cast, &[]) else { return };
    objects(&lab);
    commands_in_pods(&lab);
    logs(&lab);
    links(&lab);
    starts(&lab);
    deletions(&lab);
}

#[track_caller]
fn objects(lab: &Lab) {
    let get = |args: &[&str]| lab.ambit(&[&["lab", "get"], args].concat());
    let table = get(&["pods", "-n", "shop"]).ok();
    assert!(table.starts_with("NAME "), "{table}");
    for word in ["READY", "STATUS", "RESTARTS", "IP", "NODE", "CAPTURED", "caller", "echo", "talker"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    let everywhere = get(&["po", "-A"]).ok();
    assert!(everywhere.starts_with("NAMESPACE ") && everywhere.contains("shop "), "{everywhere}");
    assert_eq!(get(&["Pod", "-n", "shop", "-o", "name"]).ok(), "pod/caller\npod/echo\npod/talker\n");
    let yaml = get(&["svc", "echo", "-n", "shop", "-o", "yaml"]).ok();
    assert!(yaml.contains("kind: Service") && yaml.contains("clusterIP"), "{yaml}");
    assert!(get(&["pods", "-n", "shop", "-o", "yaml"]).ok().contains("kind: List"));
    let list: Value = serde_json::from_str(&get(&["ns", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(list["kind"], "List");
    let empty = get(&["pods"]);
    assert!(
        empty.code == Some(0) && empty.stdout.is_empty() && empty.stderr.contains("-n shop"),
        "{empty:?}"
    );
    let unknown = get(&["podz"]);
    assert!(unknown.code == Some(64) && unknown.stderr.contains("did you mean"), "{unknown:?}");
    let missing = get(&["pod", "none", "-n", "shop"]);
    assert!(missing.code == Some(1) && missing.stdout.is_empty(), "{missing:?}");
    // Somebody who forgot the namespace is told where the object is.
    let elsewhere = get(&["pod", "echo"]);
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains("-n shop"), "{elsewhere:?}");

    let mark = |args: &[&str]| lab.ambit(&[&["lab"], args, &["-n", "shop"]].concat());
    let note = |lab: &Lab| lab.get("pod", "shop/echo")["metadata"]["annotations"]["team/note"].clone();
    let _ = mark(&["annotate", "pod", "echo", "team/note=a=b"]).ok();
    assert_eq!(note(lab), "a=b");
    let _ = mark(&["annotate", "pod", "echo", "team/note-"]).ok();
    assert_eq!(note(lab), Value::Null);
    let _ = mark(&["label", "pod", "echo", "tier=back", "zone=a"]).ok();
    assert_eq!(lab.get("pod", "shop/echo")["metadata"]["labels"]["zone"], "a");
    assert_eq!(mark(&["label", "pod", "echo", "nothing"]).code, Some(64));
    assert_eq!(mark(&["label", "pod", "none", "a=b"]).code, Some(1));
    let broken = lab
        .file("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: shop}\nspce: {}\n");
    let refused = lab.ambit(&["lab", "apply", "-f", &broken]);
    assert!(refused.code == Some(65) && refused.stderr.contains("broken.yaml:4:1"), "{refused:?}");
}

#[track_caller]
fn commands_in_pods(lab: &Lab) {
    let line = format!(
        "printf hello | {} lab exec --name {} -n shop caller -- sh -c 'cat; echo oops >&2; exit 7'",
        ambit(),
        lab.name()
    );
    let output = std::process::Command::new("sh").args(["-c", &line]).output().expect("a shell");
    let told = (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice());
    assert_eq!(told, (Some(7), b"hello".as_slice(), b"oops\n".as_slice()));
    assert_eq!(lab.exec("shop/caller", &["hostname"]).ok().trim(), "caller");
    let resolver = lab.exec("shop/caller", &["cat", "/etc/resolv.conf"]).ok();
    assert!(resolver.contains("search shop.svc.cluster.local"), "{resolver}");
    assert_eq!(lab.exec("shop/caller", &["no-such-program"]).code, Some(127));
    assert_eq!(lab.exec("shop/caller", &["sh", "-c", "kill -9 $$"]).code, Some(137));
    let elsewhere = lab.exec("default/caller", &["true"]);
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains("shop/caller"), "{elsewhere:?}");
}

#[track_caller]
fn logs(lab: &Lab) {
    for part in ["istiod", "ztunnel/node1", "cni/node2", "pod/shop/talker"] {
        assert!(!lab.lab(&["logs", part]).is_empty(), "{part} has said nothing");
    }
    let follow = lab.start(&["lab", "logs", "-f", "pod/shop/talker"]);
    let lines = || follow.stdout().lines().count();
    wait_until("what there is", Duration::from_secs(5), || lines() > 0);
    let before = lines();
    wait_until("what comes", Duration::from_secs(5), || lines() > before + 2);
    drop(follow.stop());
    for (part, code) in [("pod/shop/none", 1), ("ztunnel/node9", 1), ("everything", 64)] {
        let refused = lab.ambit(&["lab", "logs", part]);
        assert!(refused.code == Some(code) && !refused.stderr.is_empty(), "{part}: {refused:?}");
    }
}

fn link(lab: &Lab, node: &str) -> String {
    let status: Value =
        serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON from lab status");
    let nodes = status["nodes"].as_array().expect("nodes").clone();
    nodes.iter().find(|n| n["name"] == node).expect("the node")["link"].as_str().expect("text").to_owned()
}

#[track_caller]
fn links(lab: &Lab) {
    let target = lab.target("shop/echo", 4, PORT);
    let works = |args: &[&str]| {
        let short = ["--connections", "1", "--connect-timeout", "2s", "--stall-timeout", "2s"];
        lab.call("shop/caller", &target, &[&short, args].concat())["ok"] == true
    };
    assert!(works(&[]));
    let _ = lab.lab(&["cut", "node2"]);
    assert_eq!(link(lab, "node2"), "cut");
    assert!(!works(&[]), "a connection passed a cut link");
    let _ = lab.lab(&["heal", "node2"]);
    assert_eq!(link(lab, "node2"), "ok");
    wait_until("a healed link carries again", Duration::from_secs(20), || works(&[]));
    let _ = lab.lab(&["shape", "node2", "--loss", "1", "--rate", "20mbit", "--mtu", "1400"]);
    assert_eq!(link(lab, "node2"), "loss 1% rate 20mbit mtu 1400");
    // With one packet in a hundred lost, one attempt may take longer than its patience.
    wait_until("a shaped link carries", Duration::from_secs(30), || works(&["--payload-bytes", "256KiB"]));
    // As narrow as IPv6 works with, and back: nothing of it stays.
    let _ = lab.lab(&["shape", "node2", "--mtu", "1280"]);
    let _ = lab.lab(&["heal", "node2"]);
    assert_eq!(link(lab, "node2"), "ok");
    for family in [4, 6] {
        let target = lab.target("shop/echo", family, PORT);
        wait_until("a healed link carries both families", Duration::from_secs(20), || {
            lab.call("shop/caller", &target, &["--connections", "1", "--connect-timeout", "2s"])["ok"] == true
        });
    }
    let wrong: [(&[&str], i32); 5] = [
        (&["shape", "node2"], 64),
        (&["shape", "node2", "--loss", "200"], 64),
        (&["shape", "node2", "--rate", "fast"], 64),
        (&["cut", "node9"], 1),
        (&["heal", "node9"], 1),
    ];
    for (args, code) in wrong {
        let refused = lab.ambit(&[&["lab"], args].concat());
        assert!(refused.code == Some(code) && !refused.stderr.is_empty(), "{args:?}: {refused:?}");
    }
}

#[track_caller]
fn starts(lab: &Lab) {
    let again = lab.ambit(&["lab", "up"]);
    assert!(again.code == Some(1) && again.stderr.contains("already up"), "{again:?}");
    let setting = lab.ambit(&["lab", "up", "--name", "t-walk-set", "--set", "colour=red"]);
    assert!(setting.code == Some(64) && setting.stderr.contains("ip_families"), "{setting:?}");
    for args in [&["status"][..], &["get", "pods"], &["cut", "node1"], &["exec", "x", "--", "true"]] {
        let nowhere = lab.ambit(&[&["lab"], args, &["--name", "t-walk-none"]].concat());
        let nowhere = if args[0] == "exec" {
            lab.ambit(&["lab", "--name", "t-walk-none", "exec", "x", "--", "true"])
        } else {
            nowhere
        };
        assert!(nowhere.code == Some(69) && nowhere.stderr.contains("lab up"), "{args:?}: {nowhere:?}");
    }
    for view in [&["status"][..], &["get", "workloads"], &["flows"], &["why", "last"]] {
        let nowhere = lab.ambit(&[view, &["--name", "t-walk-none"]].concat());
        assert!(nowhere.code == Some(69) && nowhere.stderr.contains("lab up"), "{view:?}: {nowhere:?}");
    }
    let nothing = lab.ambit(&["lab", "down", "--name", "t-walk-none"]);
    assert!(nothing.code == Some(0) && nothing.stderr.contains("nothing to remove"), "{nothing:?}");
    assert_eq!(lab.ambit(&["lab", "restart", "ztunnel/node9"]).code, Some(1));
    assert_eq!(lab.ambit(&["lab", "restart", "gateway"]).code, Some(64));
    let before = lab.pid("cni/node1");
    let _ = lab.lab(&["restart", "cni/node1"]);
    assert_ne!(lab.pid("cni/node1"), before);
}

#[track_caller]
fn deletions(lab: &Lab) {
    let _ = lab.lab(&["delete", "pod", "talker", "-n", "shop"]);
    assert_eq!(lab.ambit(&["lab", "get", "pod", "talker", "-n", "shop"]).code, Some(1), "still there");
    let again = ["lab", "delete", "pod", "talker", "-n", "shop"];
    assert_eq!(lab.ambit(&again).code, Some(1));
    let _ = lab.ambit(&[&again[..], &["--ignore-not-found"]].concat()).ok();
    let file = lab.file("gone.yaml", &service("shop/echo", "echo", 80, PORT).to_string());
    let _ = lab.lab(&["delete", "-f", &file]);
    assert_eq!(lab.ambit(&["lab", "get", "svc", "echo", "-n", "shop"]).code, Some(1));
    let _ = lab.lab(&["delete", "namespace", "shop"]);
    assert!(!lab.lab(&["get", "pods", "-A"]).contains("shop"));
}

#[test]
fn a_killed_daemon_leaves_nothing_that_the_next_command_does_not_remove() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::adopt("daemon-killed") else { return };
    let before = lab.machine();
    let texts: Vec<String> = cast.iter().map(Value::to_string).collect();
    let file = lab.file("cast.yaml", &texts.join("\n---\n"));
    let _ = lab.lab(&["up", "-f", &file]);
    let kill_daemon = || {
        let status: Value = serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON");
        let daemon = status["daemonPid"].as_i64().and_then(|p| i32::try_from(p).ok()).expect("a pid");
        kill(Pid::from_raw(daemon), Signal::SIGKILL).expect("it runs");
        wait_until("nobody answers", Duration::from_secs(5), || {
            lab.ambit(&["lab", "status"]).code == Some(69)
        });
    };
    kill_daemon();
    let gone = lab.ambit(&["lab", "status"]);
    assert!(gone.code == Some(69) && gone.stderr.contains("lab down --name t-daemon-killed"), "{gone:?}");
    let _ = lab.lab(&["down"]);
    assert_eq!(lab.left(), Vec::<String>::new());
    assert_eq!(lab.changed_since(&before), Vec::<String>::new(), "the machine is not as it was");
    let _ = lab.lab(&["down"]);
    // Another start also finds its way through the remains.
    let _ = lab.ambit(&["lab", "up"]).ok();
    kill_daemon();
    let again = lab.ambit(&["lab", "up"]);
    assert!(again.code == Some(0) && again.stderr.contains("removed what an earlier lab"), "{again:?}");
}

/// In a mount namespace with a `/run` of its own, where every lab is one of this test's.
#[test]
fn down_all_removes_every_lab() {
    let Some(lab) = Lab::adopt("all") else { return };
    let script = lab.file(
        "all.sh",
        "set -e; mount -t tmpfs tmpfs /run\n\
         for lab in t-all-1 t-all-2; do $AMBIT lab up --name $lab --nodes 1 --without-mesh; done\n\
         $AMBIT lab down --all\n\
         test -z \"$(ls /run/netns)\" && test ! -e /run/ambit\n\
         $AMBIT lab down --all\n",
    );
    let mut command = std::process::Command::new("unshare");
    let output = command.args(["-m", "sh", &script]).env("AMBIT", ambit()).output().expect("unshare");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("lab t-all-1: removed") && told.contains("lab t-all-2: removed"), "{told}");
    assert!(told.contains("no lab is up"), "{told}");
}
