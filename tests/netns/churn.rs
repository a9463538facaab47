//! Pods come and go on reused addresses with swapped accounts: nothing is delivered to the wrong one, nothing leaks.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, all_completed, soak, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, account, namespace, pod, security, server, service};

const NODES: [&str; 2] = ["node1", "node2"];
const PARTS: [&str; 5] = ["ztunnel/node1", "ztunnel/node2", "cni/node1", "cni/node2", "istiod"];
/// What may come and go by itself: a connection being set up, a thread that waits for work.
const DESCRIPTORS_SPARE: usize = 8;
const THREADS_SPARE: usize = 4;
const TASKS_SPARE: usize = 16;

#[test]
fn reused_addresses_reach_the_pod_that_has_them_now() {
    let accounts = json!({"rules": [{"from": [{"source": {"serviceAccounts": ["shop/good"]}}]}]});
    let cast = [
        namespace("shop", true),
        account("shop/good"),
        account("shop/bad"),
        with_account(pod("shop/good", "node1", &[]), "good"),
        with_account(pod("shop/mate", "node2", &[]), "good"),
        server("shop/fixed", "node1"),
        server("shop/home", "node2"),
        behind_the_service(server("shop/anchor", "node1")),
        service("shop/pool", "pool", 80, PORT),
        security("AuthorizationPolicy", "shop/only-good", &accounts),
    ];
    let Some(lab) = Lab::up("churn", &cast, &[]) else { return };
    let cycles = if soak() { 500 } else { 25 };
    let warm = cycles / 5;
    let (mut before, mut load, mut lasting) = (Held::default(), None, 0);
    let (mut servers, mut clients) = (Accounts::new(), Accounts::new());
    for cycle in 0..cycles {
        if cycle == warm {
            let (all, passing) = series(&lab);
            (before, lasting) = (Held::now(&lab), all - passing);
            println!("{before:?}; {all} series, {passing} of pods that go");
            load = Some(pooled(&lab, cycles));
        }
        let (server, client) = one(&lab, cycle);
        servers.entry(server).or_default().push(of_server(cycle));
        clients.entry(client).or_default().push(of_client(cycle));
    }
    nothing_misdelivered(&load.expect("cycles came after the warm ones").stop());
    // A peer that is gone with its namespace says no goodbye: its tunnels end when it does not answer a ping.
    let mut grown = Vec::new();
    for _ in 0..75 {
        grown = before.grown(&Held::now(&lab));
        if grown.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(grown.is_empty(), "left of pods that are gone: {grown:#?}");
    handed_over("servers", &servers);
    handed_over("clients", &clients);
    // Series name the pods, and go a minute after them; what is left tells of pods that are there, and of reasons.
    let mut now = (0, 0);
    wait_until("no series is left of pods that are gone", Duration::from_secs(90), || {
        now = series(&lab);
        now.1 == 0
    });
    println!("{} series after {cycles} cycles, {lasting} of what stays after {warm}", now.0);
    assert!(now.0 <= lasting + 40, "{} series after {cycles} cycles, {lasting} after {warm}", now.0);
}

/// The accounts that an address has had, one after the other.
type Accounts = BTreeMap<IpAddr, Vec<&'static str>>;

/// Demands that addresses went from hand to hand between the accounts: many of the times that one was used again, and
/// most of the addresses that were used often. One that was used twice may have had one account by chance.
#[track_caller]
fn handed_over(whose: &str, accounts: &Accounts) {
    let pairs = || accounts.values().flat_map(|had| had.windows(2));
    let (again, swapped) = (pairs().count(), pairs().filter(|pair| pair[0] != pair[1]).count());
    let often = || accounts.values().filter(|had| had.len() >= 4);
    let (all, both) = (often().count(), often().filter(|had| had.iter().any(|a| *a != had[0])).count());
    println!("{whose}: {swapped} of {again} reuses by the other account; {both} of {all} addresses had both");
    assert!(swapped * 3 > again, "{whose}: {swapped} of {again} reuses changed the account: {accounts:?}");
    assert!(all > 0 && both * 2 > all, "{whose}: {both} of {all} addresses had both: {accounts:?}");
}

/// The sequence of Thue and Morse: whether an address is used again in the next cycle or in the one after, two times of
/// three it is by the other account.
fn of_server(cycle: usize) -> &'static str {
    if cycle.count_ones().is_multiple_of(2) { "good" } else { "bad" }
}

/// The same, shifted so far that it agrees with the server's half of the time.
fn of_client(cycle: usize) -> &'static str {
    of_server(cycle + 5)
}

/// Only servers of one account stand behind the service.
fn is_pooled(cycle: usize) -> bool {
    of_server(cycle) == "good"
}

/// Creates a server and a client, checks both, marks them for deletion; their addresses.
fn one(lab: &Lab, cycle: usize) -> (IpAddr, IpAddr) {
    let (name, other) = (format!("s{cycle}"), format!("c{cycle}"));
    let client = with_account(pod(&format!("shop/{other}"), "node2", &[]), of_client(cycle));
    let mut server = with_account(server(&format!("shop/{name}"), "node2"), of_server(cycle));
    if is_pooled(cycle) {
        server = behind_the_service(server);
    }
    let order = if cycle.is_multiple_of(3) { vec![client, server] } else { vec![server, client] };
    lab.apply(&order);
    let address = lab.address(&format!("shop/{name}"), 4);
    let target = std::net::SocketAddr::new(address, PORT).to_string();
    let expect = ["--expect-server", &name, "--connections", "3"];
    assert_eq!(all_completed(&lab.call("shop/good", &target, &expect)), 3, "cycle {cycle}");
    let fixed = lab.target("shop/fixed", 4, PORT);
    let summary =
        lab.call(&format!("shop/{other}"), &fixed, &["--connections", "1", "--stall-timeout", "2s"]);
    let allowed = of_client(cycle) == "good";
    assert_eq!(summary["ok"], allowed, "cycle {cycle}: the identity is that of the pod now: {summary:#}");
    on_its_node(lab, cycle, &target);
    let client = lab.address(&format!("shop/{other}"), 4);
    // Not waited for: the next ones take the addresses while others still learn of it.
    let _ = lab.lab(&["delete", "pod", &name, &other, "-n", "shop", "--no-wait"]);
    (address, client)
}

/// The same on the node itself, where no packet of it leaves and no certificate is shown: a pod that stays calls the
/// server of the cycle, whose client calls a server that stays.
#[track_caller]
fn on_its_node(lab: &Lab, cycle: usize, target: &str) {
    let (name, other) = (format!("s{cycle}"), format!("shop/c{cycle}"));
    let answered = lab.call("shop/mate", target, &["--expect-server", &name, "--connections", "1"]);
    assert_eq!(all_completed(&answered), 1, "cycle {cycle}");
    let home = lab.target("shop/home", 4, PORT);
    let called = lab.call(&other, &home, &["--connections", "1", "--stall-timeout", "2s"]);
    assert_eq!(called["ok"], of_client(cycle) == "good", "cycle {cycle}: {called:#}");
    let ends = [
        ("shop/mate".to_owned(), format!("shop/{name}"), "dst", of_server(cycle)),
        (other, "shop/home".to_owned(), "src", of_client(cycle)),
    ];
    for (from, to, end, account) in ends {
        let mut flows = Vec::new();
        wait_until(&format!("{from} to {to} is recorded"), Duration::from_secs(5), || {
            flows = newest(lab, &["--from-pod", &from, "--to-pod", &to]);
            !flows.is_empty()
        });
        for flow in flows {
            let identity = flow[end]["identity"].as_str().unwrap_or_default();
            let right = flow["path"] == "local" && identity.ends_with(&format!("/ns/shop/sa/{account}"));
            assert!(right, "cycle {cycle}: not local, or not {account}: {flow:#}");
        }
    }
}

/// The newest flow records of the node of the cycles' pods that pass further arguments.
fn newest(lab: &Lab, args: &[&str]) -> Vec<Value> {
    let of_node = ["flows", "-o", "json", "--node", "node2", "--last", "400"];
    let text = lab.ambit(&[&of_node[..], args].concat()).ok();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON from ambit flows")).collect()
}

/// Calls through the service all the time, to be answered by those behind it and nobody else.
fn pooled(lab: &Lab, cycles: usize) -> Background {
    let names: Vec<String> = (0..cycles).filter(|c| is_pooled(*c)).map(|c| format!("s{c}")).collect();
    let mut args = vec!["--rate", "30", "--duration", "3600s", "--expect-server", "anchor"];
    args.extend(names.iter().flat_map(|name| ["--expect-server", name]));
    lab.client("shop/good", "pool.shop:80", &args)
}

#[track_caller]
fn nothing_misdelivered(load: &ambit_tests::lab::Output) {
    let summary = summary(load);
    for failure in ["misdelivered", "damaged", "garbage"] {
        assert_eq!(summary["failures"][failure], Value::Null, "{summary:#}");
    }
    let answered = summary["servers"].as_object().expect("counts by server").len();
    println!("{} answered {} calls, {}", answered, summary["connections"], summary["failures"]);
    assert!(answered > 3, "nobody but {answered} answered: {summary:#}");
}

fn with_account(mut pod: Value, account: &str) -> Value {
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

fn behind_the_service(mut pod: Value) -> Value {
    pod["metadata"]["labels"]["app"] = json!("pool");
    pod
}

/// What could be left behind by pods that are gone.
#[derive(Debug, Default)]
struct Held {
    /// Open descriptors and threads of each program and the lab's own daemon.
    programs: Vec<(String, usize, usize)>,
    /// Named network namespaces of the lab.
    namespaces: usize,
    /// Live tasks of each program.
    tasks: Vec<usize>,
}

impl Held {
    fn now(lab: &Lab) -> Self {
        let status: Value =
            serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON from lab status");
        let daemon = ("daemon".to_owned(), status["daemonPid"].as_u64().expect("its pid"));
        let parts = PARTS.iter().map(|part| ((*part).to_owned(), lab.pid(part)));
        let count =
            |pid: u64, what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let programs = parts.chain([daemon]).map(|(name, pid)| (name, count(pid, "fd"), count(pid, "task")));
        let own = format!("{}-", lab.run_dir().file_name().expect("the lab's name").to_string_lossy());
        let all = fs::read_dir("/run/netns").expect("a lab is up").flatten();
        let namespaces = all.filter(|e| e.file_name().to_string_lossy().starts_with(&own)).count();
        Self { programs: programs.collect(), namespaces, tasks: tasks(lab, &status) }
    }

    /// What has become more than it may.
    fn grown(&self, now: &Self) -> Vec<String> {
        let mut grown = Vec::new();
        let mut check = |what: String, then: usize, now: usize, spare: usize| {
            if now > then + spare {
                grown.push(format!("{what}: {then} before, now {now}"));
            }
        };
        for ((name, fds, threads), (_, fds_now, threads_now)) in self.programs.iter().zip(&now.programs) {
            check(format!("descriptors of {name}"), *fds, *fds_now, DESCRIPTORS_SPARE);
            check(format!("threads of {name}"), *threads, *threads_now, THREADS_SPARE);
        }
        check("network namespaces".to_owned(), self.namespaces, now.namespaces, 0);
        for (part, (then, now)) in PARTS.iter().zip(self.tasks.iter().zip(&now.tasks)) {
            check(format!("tasks of {part}"), *then, *now, TASKS_SPARE);
        }
        grown
    }
}

/// Live tasks of each program, as its admin socket tells; `status` says where that is.
fn tasks(lab: &Lab, status: &Value) -> Vec<usize> {
    let of = |part: &&str| {
        let programs = status["programs"].as_array().expect("programs");
        let own = programs.iter().find(|p| p["target"] == **part).expect("the part is known");
        let socket = own["admin"].as_str().expect("a path");
        let ask = ["curl", "-s", "--unix-socket", socket, "http://localhost/metrics"];
        let text = lab.on_node("node1", &ask).ok();
        let line = text.lines().find_map(|l| l.strip_prefix("ambit_tasks_alive ")).expect("the gauge");
        line.trim().parse().expect("a number")
    };
    PARTS.iter().map(of).collect()
}

fn metrics(lab: &Lab, node: &str) -> String {
    lab.on_node(node, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok()
}

/// Metric series of all ztunnels, and how many of them name a server or a client of a cycle.
fn series(lab: &Lab) -> (usize, usize) {
    let text = NODES.map(|node| metrics(lab, node)).concat();
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    let of_a_cycle = |line: &&&str| {
        let names = line.split("_workload=\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.filter_map(|name| name.strip_prefix(['s', 'c'])).any(|rest| rest.parse::<usize>().is_ok())
    };
    (lines.len(), lines.iter().filter(of_a_cycle).count())
}
