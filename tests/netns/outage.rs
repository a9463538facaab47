//! The control plane stops, the world changes, it comes back: no error meanwhile, and the change is in force at once,
//! also where a ztunnel was restarted meanwhile and had only what it had sealed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, all_completed, soak, summary, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::cast::{PORT, account, namespace, pod, security, server, service};

const CONNECT: [&str; 6] = ["--connections", "1", "--connect-timeout", "1s", "--stall-timeout", "1s"];
const PATIENCE: Duration = Duration::from_secs(10);

/// Across nodes and on one node.
const SERVERS: [&str; 2] = ["shop/echo", "shop/near"];
/// Ticks of a second in `/proc`.
const USER_HZ: f64 = 100.0;

#[test]
fn traffic_goes_on_without_control_plane_and_changes_follow_its_return() {
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        pod("shop/other", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("outage", &cast, &[]) else { return };
    let (length, patience) = if soak() { ("120s", 180) } else { ("10s", 40) };
    let targets = SERVERS.map(|server| lab.target(server, 4, PORT));
    let args = ["--hold", "--connections", "5", "--duration", length, "--interval", "200ms"];
    let held = lab.client("shop/caller", &targets[0], &args);
    wait_until("the connections are held", Duration::from_secs(5), || held.stderr().contains("\"open\":5"));
    let _ = lab.lab(&["stop", "istiod"]);
    let policy = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["7000"]}}]}]});
    let file = lab.file("change.yaml", &security("AuthorizationPolicy", "shop/lock", &policy).to_string());
    let _ = lab.lab(&["apply", "--no-wait", "-f", &file]);
    let load = lab.client("shop/caller", "echo.shop:80", &["--rate", "50", "--duration", length]);
    // A pod that had not spoken before: known, so it speaks now.
    for target in &targets {
        assert_eq!(all_completed(&lab.call("shop/other", target, &["--connections", "20"])), 20);
    }
    let patience = Duration::from_secs(patience);
    let _ = all_completed(&summary(&load.finish(patience)));
    assert_eq!(all_completed(&summary(&held.finish(patience))), 5);

    let asking = ["--rate", "20", "--duration", "60s"];
    let _asking = targets.map(|target| lab.client("shop/caller", &target, &asking));
    let _ = lab.lab(&["start", "istiod"]);
    let returned = started(lab.pid("istiod"));
    for server in SERVERS {
        let took =
            denied_since(&lab, server).duration_since(returned).expect("denied by what was read since");
        println!("{server}: the change is in force {took:?} after the control plane's start");
        assert!(took < Duration::from_secs(2), "{server}: the change was in force only after {took:?}");
    }
}

/// When a process was started.
fn started(pid: u64) -> SystemTime {
    let read = |path: &str| fs::read_to_string(path).expect("proc is mounted and the process runs");
    let stat = read(&format!("/proc/{pid}/stat"));
    // Field 22; the second one, the name, may have spaces and ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").expect("the name in parentheses");
    let ticks: f64 = fields.split(' ').nth(19).and_then(|f| f.parse().ok()).expect("field 22");
    let up: f64 = read("/proc/uptime").split(' ').next().and_then(|f| f.parse().ok()).expect("the uptime");
    clock::wall() - Duration::from_secs_f64((up - ticks / USER_HZ).max(0.0))
}

/// Waits until the server's node refuses a connection by the new policy; when it first did.
#[track_caller]
fn denied_since(lab: &Lab, server: &str) -> SystemTime {
    let (mut first, of) = (None, ["--to-pod", server, "--code", "AMB2103", "--verdict", "denied"]);
    wait_until(&format!("{server} refuses by shop/lock"), Duration::from_secs(20), || {
        let flows = lab.flows(&of);
        let by_it = flows.iter().find(|f| f["direction"] == "inbound" && f["policy"] == "shop/lock");
        first = by_it.and_then(|f| humantime::parse_rfc3339(f["time"].as_str()?).ok());
        first.is_some()
    });
    first.expect("it was found")
}

/// A node that has not heard the control plane for longer than it may lets in whom it has let in before, and no other.
#[test]
fn past_the_bound_on_age_only_pairs_that_were_seen_connect() {
    let mut late = pod("shop/late", "node1", &[]);
    late["spec"]["serviceAccountName"] = json!("late");
    let cast = [
        namespace("shop", true),
        account("shop/late"),
        pod("shop/caller", "node1", &[]),
        late,
        server("shop/echo", "node2"),
    ];
    let Some(lab) = Lab::up("stale", &cast, &["ztunnel.AMBIT_STATE_MAX_STALE=3s"]) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    assert_eq!(all_completed(&lab.call("shop/caller", &target, &["--connections", "3"])), 3);
    let _ = lab.lab(&["stop", "istiod"]);
    wait_until("the server's node is too old", PATIENCE, || {
        state(&lab, "node2")["staleFor"].as_u64().is_some_and(|seconds| seconds > 3)
    });
    assert_eq!(all_completed(&lab.call("shop/caller", &target, &["--connections", "3"])), 3);
    assert_ne!(lab.call("shop/late", &target, &CONNECT)["ok"], true, "it had never called");
    let denied = lab.flows(&["--code", "AMB6006", "--verdict", "denied"]);
    assert!(denied.iter().any(|flow| flow["direction"] == "inbound"), "{denied:#?}");
    let _ = lab.lab(&["start", "istiod"]);
    wait_until("the control plane is heard", PATIENCE, || {
        lab.call("shop/late", &target, &CONNECT)["ok"] == true
    });
}

/// G14, G15: without control plane a restarted node goes on with what it knew, says so, and takes what comes later.
#[test]
fn a_node_that_restarts_without_control_plane_serves_whom_it_knows() {
    let Some(lab) = Lab::up("sealed", &known_mesh(), &[]) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    let allowed = |from: &str| lab.call(from, &target, &CONNECT)["ok"] == true;
    assert!(allowed("shop/caller") && !allowed("shop/denied"));
    wait_until("both nodes have sealed all they know", PATIENCE, || {
        state(&lab, "node1")["sealed"]["certificates"] == 2
            && state(&lab, "node2")["sealed"]["certificates"] == 1
    });
    let _ = lab.lab(&["stop", "istiod"]);
    let parts = ["ztunnel/node1", "ztunnel/node2"];
    let before = parts.map(|part| lab.pid(part));
    for part in parts {
        let _ = lab.lab(&["kill", part]);
    }
    let took = wait_until("a connection completes", Duration::from_secs(2), || allowed("shop/caller"));
    println!("first connection {} ms after both ztunnels were killed", took.as_millis());
    assert!(parts.iter().zip(before).all(|(part, pid)| ![0, pid].contains(&lab.pid(part))), "both are new");
    // A service name, a pod that speaks for the first time, many at once.
    assert_eq!(all_completed(&lab.call("shop/caller", "echo.shop:80", &["--connections", "20"])), 20);
    assert!(!allowed("shop/denied"), "what was denied before is denied still");
    let denials = lab.flows(&["--code", "AMB2103"]);
    assert!(denials.iter().any(|flow| flow["policy"] == "shop/lock"), "{denials:#?}");
    for node in ["node1", "node2"] {
        let state = state(&lab, node);
        assert!(state["source"] == "sealed" && state["staleFor"].is_u64(), "{node}: {state}");
    }

    // The world changes: somebody else is denied, and one policy is gone.
    let change = lab.file("change.yaml", &lock("caller").to_string());
    let _ = lab.lab(&["apply", "--no-wait", "-f", &change]);
    let _ = lab.lab(&["delete", "--no-wait", "authorizationpolicy", "spare", "-n", "shop"]);
    let _ = lab.lab(&["start", "istiod"]);
    let took = wait_until("the change is in force", Duration::from_secs(2), || !allowed("shop/caller"));
    println!("the change is in force {} ms after the control plane was ready", took.as_millis());
    assert!(allowed("shop/denied"));
    for node in ["node1", "node2"] {
        wait_until("what is in force is live", PATIENCE, || state(&lab, node)["source"] == "discovery");
        let policies = dump(&lab, node)["policies"].as_array().cloned().unwrap_or_default();
        assert!(policies.iter().all(|policy| policy["name"] != "spare"), "{node}: {policies:#?}");
    }
}

/// A break-glass ends while the control plane is away: at a node that heard of it, and at one that was restarted and had
/// only what it had sealed. What only it let in is cut, and refused from then on.
#[test]
fn a_break_glass_ends_without_control_plane() {
    let nobody = security("AuthorizationPolicy", "shop/nobody", &json!({"action": "ALLOW"}));
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
        nobody,
    ];
    let Some(lab) = Lab::up("glass", &cast, &[]) else { return };
    let [far, near] = SERVERS.map(|server| lab.target(server, 4, PORT));
    let is_let_in = |target: &str| lab.call("shop/caller", target, &CONNECT)["ok"] == true;
    assert!(!is_let_in(&far) && !is_let_in(&near), "nobody may call");
    wait_until("node2 has sealed all it knows", PATIENCE, || {
        state(&lab, "node2")["sealed"]["certificates"] == 1
    });
    let sealed = || state(&lab, "node2")["sealed"]["number"].as_u64().unwrap_or(0);
    let before = sealed();
    let open = ["breakglass", "open", "-n", "shop", "--for", "30s", "--reason", "a test", "--by", "a test"];
    let _ = lab.ambit(&open).ok();
    let (ends, opened) = (clock::monotonic() + Duration::from_secs(30), clock::wall());
    assert!(is_let_in(&far) && is_let_in(&near), "the glass is open");
    let args = ["--hold", "--connections", "1", "--duration", "60s", "--interval", "100ms"];
    let held = lab.client("shop/caller", &near, &args);
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    wait_until("the pass is sealed", PATIENCE, || sealed() > before);
    let _ = lab.lab(&["stop", "istiod"]);
    let _ = lab.lab(&["kill", "ztunnel/node2"]);
    wait_until("the pass is in force after the restart", PATIENCE, || is_let_in(&far));
    assert!(clock::monotonic() < ends, "the machine is too slow for this test");

    wait_until("both nodes refuse again", Duration::from_secs(45), || !is_let_in(&far) && !is_let_in(&near));
    let late = clock::monotonic().saturating_duration_since(ends);
    println!("refused again at most {late:?} after the end");
    assert!(late < Duration::from_secs(5), "refused only {late:?} after the end");
    wait_until("the held connection is cut", PATIENCE, || held.stderr().contains("\"event\":\"failed\""));
    // The calls before may have been let in and cut, right at the end; these come after it.
    assert!(!is_let_in(&far) && !is_let_in(&near), "it stays refused");
    for server in SERVERS {
        let denied = ["--to-pod", server, "--code", "AMB2104", "--verdict", "denied"];
        let is_later = |flow: &Value| {
            let time = flow["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok());
            time.is_some_and(|time| time > opened)
        };
        wait_until("the refusal is recorded", PATIENCE, || lab.flows(&denied).iter().any(is_later));
    }
    wait_until("the cut is recorded", PATIENCE, || {
        !lab.flows(&["--to-pod", "shop/near", "--code", "AMB2107"]).is_empty()
    });
    // A restart after the end does not open it again.
    let _ = lab.lab(&["kill", "ztunnel/node2"]);
    wait_until("the state is in force", PATIENCE, || state(&lab, "node2")["source"] == "sealed");
    assert!(!is_let_in(&far), "the pass is over");
}

#[test]
fn a_sealed_state_that_was_altered_is_refused_and_the_one_before_serves() {
    let Some(lab) = Lab::up("altered", &known_mesh(), &[]) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    // The server's node is the one that decides.
    wait_until("certificates are sealed", PATIENCE, || state(&lab, "node2")["sealed"]["certificates"] == 1);
    let number = |lab: &Lab| state(lab, "node2")["sealed"]["number"].as_u64().unwrap_or(0);
    let first = number(&lab);
    lab.apply(&[lock("nobody")]);
    assert_eq!(lab.call("shop/denied", &target, &CONNECT)["ok"], true);
    wait_until("a newer one is sealed", PATIENCE, || number(&lab) > first);
    let _ = lab.lab(&["stop", "istiod"]);
    let newest = seals(&lab, "node2").pop().expect("at least two files");
    let mut bytes = fs::read(&newest).expect("a file of root's");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("a file of root's");
    let _ = lab.lab(&["kill", "ztunnel/node2"]);
    wait_until("a connection completes", Duration::from_secs(2), || {
        lab.call("shop/caller", &target, &CONNECT)["ok"] == true
    });
    assert_eq!(lab.call("shop/denied", &target, &CONNECT)["ok"], false, "it denies as the state before did");
    let name = newest.file_name().expect("a file").to_string_lossy().into_owned();
    let told = lab.log_lines("AMB6005");
    assert!(told.len() == 1 && told[0].contains(&name), "{told:#?}");
}

#[test]
fn a_disk_that_is_full_or_read_only_costs_a_warning_and_nothing_else() {
    let Some(lab) = Lab::up("fulldisk", &known_mesh(), &[]) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    wait_until("the state is sealed", PATIENCE, || state(&lab, "node1")["sealed"]["certificates"] == 2);
    let disk = Disk::over(&lab.run_dir().join("nodes/node1/state"));
    disk.fill();
    let load = lab.client("shop/caller", &target, &["--rate", "50", "--duration", "8s"]);
    let warned = || lab.log_lines("the state cannot be sealed").len();
    lab.apply(&[lock("nobody")]);
    wait_until("the gap is told", PATIENCE, || warned() == 1);
    disk.make_read_only();
    // Changes go on being applied, and connections are made.
    lab.apply(&[lock("denied")]);
    assert_eq!(lab.call("shop/denied", &target, &CONNECT)["ok"], false);
    let _ = all_completed(&summary(&load.finish(Duration::from_secs(30))));
    drop(disk);
    wait_until("it is sealed again", Duration::from_secs(15), || {
        !lab.log_lines("the state is sealed again").is_empty()
    });
    assert_eq!(warned(), 1, "{:#?}", lab.log_lines("the state cannot be sealed"));
}

/// Two callers on one node, a server on the other that denies one of them, and a policy that is not needed.
fn known_mesh() -> Vec<Value> {
    let mut denied = pod("shop/denied", "node1", &[]);
    denied["spec"]["serviceAccountName"] = json!("denied");
    let spare = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9999"]}}]}]});
    vec![
        namespace("shop", true),
        account("shop/denied"),
        pod("shop/caller", "node1", &[]),
        denied,
        server("shop/echo", "node2"),
        service("shop/echo", "echo", 80, PORT),
        lock("denied"),
        security("AuthorizationPolicy", "shop/spare", &spare),
    ]
}

/// The policy that denies one caller: `denied`, or by its service account `default` the pod `caller`.
fn lock(caller: &str) -> Value {
    let account = if caller == "caller" { "default" } else { caller };
    let principal = format!("cluster.local/ns/shop/sa/{account}");
    let rules = json!([{"from": [{"source": {"principals": [principal]}}]}]);
    security("AuthorizationPolicy", "shop/lock", &json!({"action": "DENY", "rules": rules}))
}

/// Everything a node's ztunnel tells; null while it does not answer.
fn dump(lab: &Lab, node: &str) -> Value {
    let socket = lab.run_dir().join("nodes").join(node).join("ztunnel-admin.sock");
    let socket = socket.display().to_string();
    let answer = lab.on_node(node, &["curl", "-s", "--unix-socket", &socket, "http://localhost/config_dump"]);
    serde_json::from_str(&answer.stdout).unwrap_or_default()
}

/// How fresh a node's knowledge is, and what of it is sealed.
fn state(lab: &Lab, node: &str) -> Value {
    dump(lab, node)["state"].clone()
}

/// A node's sealed files, oldest first.
fn seals(lab: &Lab, node: &str) -> Vec<PathBuf> {
    let folder = lab.run_dir().join("nodes").join(node).join("state");
    let number = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("state-")?.strip_suffix(".seal")?.parse().ok()
    };
    let entries = fs::read_dir(folder).expect("a directory of root's").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| number(path).is_some()).collect();
    files.sort_by_key(number);
    files
}

/// A small disk in a directory's place, until it is dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn over(at: &Path) -> Self {
        let options = Some("size=64k,mode=0700");
        mount(Some("small"), at, Some("tmpfs"), MsFlags::empty(), options).expect("root mounts");
        Self { at: at.to_owned() }
    }

    /// Leaves no room for another byte.
    fn fill(&self) {
        assert!(fs::write(self.at.join("filler"), vec![0; 1 << 20]).is_err(), "the disk has an end");
    }

    fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.at, None::<&str>, flags, None::<&str>).expect("root mounts");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached, because a write may be on its way.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}
