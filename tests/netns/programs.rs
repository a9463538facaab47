//! Real programs across nodes and on one node, by address and by name: nothing they do differs from a direct connection.

use std::time::Duration;

use ambit_tests::lab::{Background, Lab, all_completed, peer, soak, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server, service};

/// Servers by the path that leads to them.
const SERVERS: [(&str, &str); 2] = [("far", "hbone"), ("near", "local")];
/// Ports of the programs: nginx, redis, MariaDB, iperf3, WebSocket.
const PROGRAMS: [u16; 5] = [8080, 6379, 3306, 5201, 8000];
/// A port where nobody listens.
const CLOSED: u16 = 4999;
const WAIT: Duration = Duration::from_secs(20);

fn cast() -> Vec<Value> {
    let mut objects = vec![namespace("shop", true), pod("shop/caller", "node1", &[])];
    for (name, node) in [("far", "node2"), ("near", "node1")] {
        objects.push(server(&format!("shop/{name}"), node));
        for (suffix, port) in [
            ("http", 8080),
            ("redis", 6379),
            ("mariadb", 3306),
            ("iperf", 5201),
            ("ws", 8000),
            ("closed", CLOSED),
        ] {
            objects.push(service(&format!("shop/{name}-{suffix}"), name, port, port));
        }
        objects.push(service(&format!("shop/{name}-echo"), name, 80, PORT));
    }
    objects
}

#[test]
fn programs_work_across_nodes_and_on_one_node_ipv4() {
    check("programs4", "ipv4", &[4]);
}

#[test]
fn programs_work_across_nodes_and_on_one_node_ipv6() {
    check("programs6", "ipv6", &[6]);
}

#[test]
fn programs_work_across_nodes_and_on_one_node_dual_stack() {
    check("programs46", "dual", &[4, 6]);
}

#[track_caller]
fn check(name: &str, families: &str, used: &[u8]) {
    let Some(lab) = Lab::up(name, &cast(), &[&format!("ip_families={families}")]) else { return };
    for (server, path) in SERVERS {
        let addresses = used.iter().map(|family| bracketed(&lab, server, *family));
        let hosts: Vec<String> = addresses.chain([format!("{server}-SUFFIX.shop")]).collect();
        let running = start(&lab, server);
        for host in &hosts {
            let at = |suffix: &str| host.replace("SUFFIX", suffix);
            http(&lab, &at("http"), server);
            redis(&lab, &at("redis"));
            mariadb(&lab, &at("mariadb"));
            websocket(&lab, &at("ws"));
            half_close(&lab, &at("ws"));
            iperf(&lab, &at("iperf"));
            closed_port(&lab, &at("closed"));
        }
        drop(running);
        // Before the many: a node remembers its newest records only.
        took_the_path(&lab, server, path, &PROGRAMS, hosts.len());
        let addresses = used.iter().map(|family| lab.target(&format!("shop/{server}"), *family, PORT));
        for target in addresses.chain([format!("{server}-echo.shop:80")]) {
            let summary = lab.call("shop/caller", &target, &["--connections", "2000"]);
            assert_eq!(all_completed(&summary), 2000, "{target}");
            assert_eq!(summary["servers"][server], 2000, "{target}: {summary:#}");
        }
        let named = format!("{server}-echo.shop:80");
        let summary = lab.call("shop/caller", &named, &["--connections", "200", "--half-close"]);
        assert_eq!(all_completed(&summary), 200);
        took_the_path(&lab, server, path, &[PORT], 2000);
    }
}

/// Demands that whatever is recorded of the caller and a server went by one path, and that each end recorded so many
/// connections to each of the ports at least.
#[track_caller]
fn took_the_path(lab: &Lab, server: &str, path: &str, ports: &[u16], at_least: usize) {
    let to = format!("shop/{server}");
    let mut flows = Vec::new();
    wait_until(&format!("{at_least} connections to {ports:?} of {server}, at both ends"), WAIT, || {
        flows = lab.flows(&["--from-pod", "shop/caller", "--to-pod", &to]);
        let count = |end: &str, port: u16| {
            flows.iter().filter(|f| f["direction"] == end && port_of(f) == Some(port)).count()
        };
        ports.iter().all(|port| ["outbound", "inbound"].iter().all(|end| count(end, *port) >= at_least))
    });
    let beside: Vec<&Value> = flows.iter().filter(|f| f["path"] != path).collect();
    assert!(beside.is_empty(), "connections to {server} took another path than {path}: {beside:#?}");
    let elsewhere = lab.flows(&["--from-pod", "shop/caller"]);
    let elsewhere: Vec<&Value> =
        elsewhere.iter().filter(|f| !["hbone", "local"].map(Value::from).contains(&f["path"])).collect();
    assert!(elsewhere.is_empty(), "connections left the mesh: {elsewhere:#?}");
}

/// The application's port: that of the tunnel is recorded beside it.
fn port_of(flow: &Value) -> Option<u16> {
    let whereto = flow["hbone_addr"].as_str().or_else(|| flow["dst"]["addr"].as_str())?;
    whereto.rsplit_once(':')?.1.parse().ok()
}

fn bracketed(lab: &Lab, server: &str, family: u8) -> String {
    let address = lab.address(&format!("shop/{server}"), family);
    if family == 4 { address.to_string() } else { format!("[{address}]") }
}

/// Starts every server program in a pod and waits until each listens.
fn start(lab: &Lab, server: &str) -> Vec<Background> {
    let pod = format!("shop/{server}");
    let folder = lab.folder(server);
    let _ = lab.exec(&pod, &["chmod", "755", &folder]);
    let data = format!("{folder}/data.bin");
    let mebibytes = if soak() { "1024" } else { "64" };
    let make = format!("head -c {mebibytes}M /dev/urandom > {data}");
    drop(lab.exec(&pod, &["sh", "-c", &make]).ok());
    let config = format!(
        "daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; \
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         server {{ listen [::]:8080 ipv6only=off; root {folder}; }} }}"
    );
    let config = lab.file(&format!("{server}.conf"), &config);
    let options = format!(
        "--no-defaults --user=root --datadir={folder}/db --innodb-log-file-size=4M --innodb-buffer-pool-size=16M \
         --innodb-use-native-aio=0 --innodb-flush-method=nosync"
    );
    let database = format!(
        "mkdir -p {folder}/db-tmp && mariadb-install-db {options} --auth-root-authentication-method=normal --skip-test-db && exec mariadbd {options} \
         --socket={folder}/db.sock --pid-file={folder}/db.pid --bind-address=* --port=3306 --skip-grant-tables \
         --skip-networking=0"
    );
    let mut running = [
        lab.spawn(&pod, &["nginx", "-c", &config, "-e", &format!("{folder}/error.log")]),
        lab.spawn(&pod, &["redis-server", "--save", "", "--protected-mode", "no", "--bind", "*", "-::*"]),
        lab.spawn(&pod, &["sh", "-c", &database]),
        lab.spawn(&pod, &["iperf3", "-s"]),
        lab.spawn(&pod, &["python3", &peer("websocket.py"), "serve", "8000"]),
    ];
    for (port, program) in ["8080", "6379", "3306", "5201", "8000"].into_iter().zip(&mut running) {
        wait_until(&format!("port {port} of {server} listens"), Duration::from_secs(60), || {
            assert!(program.is_running(), "what should listen at {port} has ended");
            let listens = format!("ss -Hltn | grep -q ':{port} '");
            lab.exec(&pod, &["sh", "-c", &listens]).code == Some(0)
        });
    }
    running.into()
}

#[track_caller]
fn http(lab: &Lab, host: &str, server: &str) {
    let want = lab.exec("shop/caller", &["sha256sum", &format!("{}/data.bin", lab.folder(server))]).ok();
    let fetch = format!("set -o pipefail; curl -sSf -g -m 600 http://{host}:8080/data.bin | sha256sum");
    let got = lab.spawn("shop/caller", &["bash", "-c", &fetch]).finish(Duration::from_secs(600)).ok();
    assert_eq!(first_word(&got), first_word(&want), "what came from {host}");
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

#[track_caller]
fn redis(lab: &Lab, host: &str) {
    let call =
        |args: &[&str]| lab.exec("shop/caller", &[&["redis-cli", "-h", bare(host)], args].concat()).ok();
    assert_eq!(call(&["set", "key", host]).trim(), "OK");
    assert_eq!(call(&["get", "key"]).trim(), host);
    assert_eq!(call(&["-r", "200", "incr", "n"]).lines().count(), 200);
}

#[track_caller]
fn mariadb(lab: &Lab, host: &str) {
    let query = "select concat('sum ', sum(seq)) from seq_1_to_10000";
    let args = [
        "mariadb",
        "--no-defaults",
        "--skip-ssl",
        "-N",
        "-D",
        "mysql",
        "-u",
        "root",
        "-h",
        bare(host),
        "-e",
        query,
    ];
    assert_eq!(lab.exec("shop/caller", &args).ok().trim(), "sum 50005000");
}

#[track_caller]
fn websocket(lab: &Lab, host: &str) {
    let output = lab.exec("shop/caller", &["python3", &peer("websocket.py"), "call", bare(host), "8000"]);
    assert_eq!(output.ok().trim(), "200 messages came back");
}

/// The server answers only after we have finished sending.
#[track_caller]
fn half_close(lab: &Lab, host: &str) {
    let script = format!("printf 'one\\ntwo\\n' | nc -N -w 10 {} 8000", bare(host));
    let output = lab.exec("shop/caller", &["sh", "-c", &script]).ok();
    assert!(output.contains("400 Bad Request: 8 bytes"), "after the half-close: {output:?}");
}

#[track_caller]
fn iperf(lab: &Lab, host: &str) {
    let seconds = if soak() { "30" } else { "2" };
    for direction in [&[][..], &["-R"][..]] {
        let args = [&["iperf3", "-c", bare(host), "-J", "-t", seconds], direction].concat();
        let output = lab.spawn("shop/caller", &args).finish(Duration::from_secs(60)).ok();
        let report: Value = serde_json::from_str(&output).expect("iperf3's report");
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
        println!("{host} {direction:?}: {:.2} Gbit/s", rate / 1e9);
        assert!(rate > 5e7, "{host} {direction:?}: {rate} bit/s");
    }
}

/// Refused as a direct connection is: not accepted, or reset; an orderly end would be an empty answer.
#[track_caller]
fn closed_port(lab: &Lab, host: &str) {
    const NOT_CONNECTED: i32 = 7;
    const RESET: i32 = 56;
    let url = format!("http://{host}:{CLOSED}/");
    let output = lab.spawn("shop/caller", &["curl", "-sS", "-g", "-m", "5", &url]).finish(WAIT);
    assert!(matches!(output.code, Some(NOT_CONNECTED | RESET)), "{host}: refused, not {output:?}");
    assert!(output.took < Duration::from_secs(1), "{host}: refused only after {:?}", output.took);
}
