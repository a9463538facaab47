//! What operators see of connections, held against what ztunnel shows: the metrics of both nodes, the access logs of
//! both ends.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::cast::{account, namespace, pod, security, service};

const PORT: u16 = 7100;
/// What a client says, in bytes, and what it is answered: not the same, so that neither is taken for the other.
const SAID: u64 = 300;
const ANSWERED: u64 = 700;
const WAIT: Duration = Duration::from_secs(10);
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/default";
const STRAY: &str = "spiffe://cluster.local/ns/shop/sa/stray";

/// Hears each client out, then answers; one that has gone, such as a probe, is no trouble.
const PROGRAM: &str = r"
import socket, sys
server = socket.create_server(('', int(sys.argv[1])))
while True:
    client, _ = server.accept()
    try:
        while client.recv(4096):
            pass
        client.sendall(b'x' * int(sys.argv[2]))
    except OSError:
        pass
    client.close()
";

/// A server, somebody who may call it, somebody who may not, and somebody outside the mesh.
fn cast() -> Vec<Value> {
    let mut echo = pod("shop/echo", "node2", &[]);
    echo["spec"]["containers"] = json!([{
        "name": "app",
        "command": ["python3", "-c", PROGRAM, PORT.to_string(), ANSWERED.to_string()],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }]);
    let mut stray = pod("shop/stray", "node1", &[]);
    stray["spec"]["serviceAccountName"] = json!("stray");
    let principals = ["cluster.local/ns/shop/sa/stray"];
    let deny = json!({"action": "DENY", "rules": [{"from": [{"source": {"principals": principals}}]}]});
    vec![
        namespace("shop", true),
        namespace("legacy", false),
        account("shop/stray"),
        security("AuthorizationPolicy", "shop/no-stray", &deny),
        echo,
        service("shop/echo", "echo", 80, PORT),
        pod("shop/caller", "node1", &[]),
        stray,
        pod("legacy/outsider", "node1", &[]),
    ]
}

#[test]
fn both_nodes_count_and_log_each_connection_as_ztunnel_does() {
    let settings = ["ip_families=ipv4", "log_level=info,access=debug"];
    let Some(lab) = Lab::up("observed", &cast(), &settings) else { return };
    let server = lab.address("shop/echo", 4);
    let vip = lab.get("service", "shop/echo")["spec"]["clusterIP"].clone();
    let vip: IpAddr = vip.as_str().and_then(|ip| ip.parse().ok()).expect("an address of the service");
    assert_eq!(talk(&lab, "shop/caller", (vip, 80).into()), ANSWERED, "the allowed connection");
    let denied = lab.call("shop/stray", &format!("{vip}:80"), &["--connections", "1"]);
    assert_eq!(denied["ok"], false, "the denied connection");
    assert_eq!(talk(&lab, "legacy/outsider", (server, PORT).into()), ANSWERED, "the plaintext connection");
    // Where a tunnel is expected this is no handshake; all it gets is an alert.
    assert_ne!(talk(&lab, "legacy/outsider", (server, 15008).into()), ANSWERED, "what is no TLS");
    let nodes = counted(&lab);
    for row in &ROWS {
        labelled(&nodes[row.node], row);
    }
    nodes.iter().for_each(in_form);
    named_as_asked(&lab);
    allowed_is_logged(&lab, server);
    denied_is_logged(&lab);
    plaintext_is_logged(&lab);
    no_handshake_is_logged(&lab);
}

/// Says something and hears the other side out; how many bytes came back.
fn talk(lab: &Lab, pod: &str, to: SocketAddr) -> u64 {
    let mut tcp = lab.connect_from(pod, to);
    tcp.set_nonblocking(false).expect("a socket");
    tcp.set_read_timeout(Some(WAIT)).expect("a socket");
    // Who is not understood may be reset while it speaks, or before the answer is read.
    let words = vec![b'x'; usize::try_from(SAID).expect("it is small")];
    let _ = tcp.write_all(&words).and_then(|()| tcp.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    answer.len() as u64
}

/// What a node counts of the connections of a workload.
struct Row {
    /// Its place among the nodes.
    node: usize,
    reporter: &'static str,
    workload: &'static str,
    flag: &'static str,
    security: &'static str,
    source: &'static str,
    service: &'static str,
    /// What was said and answered.
    bytes: (u64, u64),
}

const NODES: [&str; 2] = ["node1", "node2"];

const ROWS: [Row; 5] = [
    row(0, "source", "caller", "-", SERVER),
    row(1, "destination", "caller", "-", SERVER),
    row(0, "source", "stray", "DENY", STRAY),
    row(1, "destination", "stray", "DENY", STRAY),
    Row { security: "unknown", service: "unknown", ..row(1, "destination", "outsider", "-", "unknown") },
];

/// A connection through a tunnel to the service; with a flag it was refused.
const fn row(
    node: usize,
    reporter: &'static str,
    workload: &'static str,
    flag: &'static str,
    source: &'static str,
) -> Row {
    let bytes = if flag.len() == 1 { (SAID, ANSWERED) } else { (0, 0) };
    let (security, service) = ("mutual_tls", "echo.shop.svc.cluster.local");
    Row { node, reporter, workload, flag, security, source, service, bytes }
}

/// Waits until every connection is counted as closed.
#[track_caller]
fn counted(lab: &Lab) -> [Scrape; 2] {
    let scrape = || {
        NODES.map(|node| Scrape(lab.on_node(node, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok()))
    };
    let mut nodes = scrape();
    wait_until("every connection is counted", WAIT, || {
        nodes = scrape();
        ROWS.iter().all(|row| nodes[row.node].count("connections_closed", row, row.flag) == 1)
    });
    nodes
}

/// Demands the counts and the labels of a row's connection.
#[track_caller]
fn labelled(scrape: &Scrape, row: &Row) {
    let failed = u64::from(row.flag != "-");
    let counts = [
        ("connections_opened", "-", 1),
        ("connections_closed", row.flag, 1),
        ("connections_failed", row.flag, failed),
        ("received_bytes", "-", row.bytes.0),
        ("sent_bytes", "-", row.bytes.1),
    ];
    for (name, flag, want) in counts {
        let told = scrape.count(name, row, flag);
        assert_eq!(told, want, "{name} of {} at {}: {}", row.workload, row.reporter, scrape.0);
    }
    let name = if row.service == "unknown" { "unknown" } else { "echo" };
    let namespace = if row.workload == "outsider" { "legacy" } else { "shop" };
    let want = [
        ("source_canonical_service", row.workload),
        ("source_workload_namespace", namespace),
        ("source_principal", row.source),
        ("source_app", row.workload),
        ("source_cluster", "Kubernetes"),
        ("destination_service", row.service),
        ("destination_service_name", name),
        ("destination_service_namespace", if name == "unknown" { "unknown" } else { "shop" }),
        ("destination_workload", "echo"),
        ("destination_canonical_service", "echo"),
        ("destination_workload_namespace", "shop"),
        // Discovery knows it, also where nothing was proven.
        ("destination_principal", SERVER),
        ("request_protocol", "tcp"),
        ("connection_security_policy", row.security),
    ];
    let (labels, _) = scrape.find("connections_closed", row, row.flag).pop().expect("it was counted");
    for (label, want) in want {
        assert_eq!(labels[label], want, "{label} of {} at {}", row.workload, row.reporter);
    }
}

/// The text of a node's metrics.
struct Scrape(String);

impl Scrape {
    /// Labels and values of the series of a family that tell of a row's workload, with a flag.
    fn find(&self, family: &str, row: &Row, flag: &str) -> Vec<(BTreeMap<&str, &str>, u64)> {
        let start = format!("istio_tcp_{family}_total{{");
        let series = self.0.lines().filter_map(|line| line.strip_prefix(&*start)?.rsplit_once("} "));
        let of_the_row = |labels: &BTreeMap<&str, &str>| {
            let want =
                [("reporter", row.reporter), ("source_workload", row.workload), ("response_flags", flag)];
            want.iter().all(|(label, value)| labels.get(label) == Some(value))
        };
        let parsed = series.map(|(labels, value)| {
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            let labels = pairs.map(|(label, value)| (label, value.trim_matches('"'))).collect();
            (labels, value.parse().expect("a whole number"))
        });
        parsed.filter(|(labels, _)| of_the_row(labels)).collect()
    }

    fn count(&self, family: &str, row: &Row, flag: &str) -> u64 {
        self.find(family, row, flag).iter().map(|(_, value)| value).sum()
    }

    /// The value of the only series of a name without labels, or with exactly these.
    fn value(&self, series: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Demands that the text has the name by which the scraper asked for it.
#[track_caller]
fn named_as_asked(lab: &Lab) {
    let rows = [
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("text/plain", "text/plain; charset=utf-8"),
    ];
    for (accept, want) in rows {
        let url = "http://127.0.0.1:15020/stats/prometheus";
        let header = format!("Accept: {accept}");
        let ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{content_type}", "-H", &header, url];
        assert_eq!(lab.on_node("node1", &ask).ok(), want, "asked for {accept}");
    }
}

/// Demands that a scrape is OpenMetrics, and has what is not about connections.
#[track_caller]
fn in_form(scrape: &Scrape) {
    let text = &scrape.0;
    assert!(text.ends_with("\n# EOF\n") && !text.contains("\n\n"), "{text}");
    assert!(text.contains("# TYPE istio_tcp_connections_opened counter\n"), "{text}");
    let build = format!("istio_build{{component=\"ztunnel\",tag=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.value(&build), Some(1.0), "{text}");
    for kind in ["istio_xds_message_total", "istio_xds_message_bytes_total"] {
        let of_addresses = format!("{kind}{{url=\"type.googleapis.com/istio.workload.Address\"}}");
        assert!(scrape.value(&of_addresses).is_some_and(|n| n > 0.0), "{of_addresses} in {text}");
    }
    let positive = [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "tokio_num_workers",
        "tokio_num_alive_tasks",
        "ambit_root_remaining_seconds",
        "ambit_certificate_remaining_seconds_count",
    ];
    for name in positive {
        assert!(scrape.value(name).is_some_and(|n| n > 0.0), "{name} in {text}");
    }
    for name in ["tokio_global_queue_depth", "ambit_tunnel_streams", "ambit_policy_unresolved_refs"] {
        assert!(scrape.value(name).is_some(), "{name} in {text}");
    }
    assert!(text.contains("\nistio_tcp_sockets_open{reporter=\""), "{text}");
}

/// A line of the access log.
#[derive(Debug)]
struct Line {
    level: String,
    message: String,
    /// As they are written, in their order.
    fields: Vec<(String, String)>,
}

impl Line {
    /// Reads a line of a program's log; none if it is not of the access log.
    fn read(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.splitn(5, '\t').collect();
        let [_, level, "access", message, fields] = columns[..] else { return None };
        let (mut rest, mut read) = (fields, Vec::new());
        while let Some((name, after)) = rest.split_once('=') {
            let length = match after.strip_prefix('"') {
                // None of the values that are looked at here has a quote inside.
                Some(text) => text.find('"').map_or(after.len(), |at| at + 2),
                None => after.find(' ').unwrap_or(after.len()),
            };
            let (value, next) = after.split_at(length);
            read.push((name.trim_start().to_owned(), value.to_owned()));
            rest = next;
        }
        Some(Self { level: level.to_owned(), message: message.to_owned(), fields: read })
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        names.join(" ")
    }

    fn get(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| name == field).map_or("", |(_, value)| value)
    }

    /// Demands the values of fields, as they are written.
    #[track_caller]
    fn says(&self, want: &[(&str, &str)]) {
        for (field, value) in want {
            assert_eq!(self.get(field), *value, "{field} of {self:?}");
        }
    }
}

/// Waits for the line of a node with a message and a field that begins so.
#[track_caller]
fn logged(lab: &Lab, node: &str, message: &str, field: &str, value: &str) -> Line {
    let part = format!("ztunnel/{node}");
    let is_it = |line: &Line| line.message == message && line.get(field).starts_with(value);
    let mut found = Vec::new();
    wait_until(&format!("{part} logs {message} with {field}={value}"), WAIT, || {
        found = lab.lab(&["logs", &part]).lines().filter_map(Line::read).filter(is_it).collect();
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// Fields of both ends of a tunnel.
const ENDS: &str = "src.addr src.workload src.namespace src.identity src.cluster dst.addr dst.hbone_addr \
                    dst.service dst.workload dst.namespace dst.identity dst.cluster direction";

#[track_caller]
fn allowed_is_logged(lab: &Lab, server: IpAddr) {
    let lines = NODES.map(|node| {
        let opened = logged(lab, node, "connection opened", "src.workload", "\"caller\"");
        assert_eq!((&*opened.level, opened.names()), ("debug", format!("{ENDS} path conn.id")), "{opened:?}");
        logged(lab, node, "connection complete", "src.workload", "\"caller\"")
    });
    let (tunnel, at) = (format!("{server}:15008"), format!("{server}:{PORT}"));
    let identity = format!("\"{SERVER}\"");
    for line in &lines {
        let names = format!("{ENDS} bytes_sent bytes_recv duration duration_ms path conn.id");
        assert_eq!((&*line.level, line.names()), ("info", names), "{line:?}");
        line.says(&[
            ("src.namespace", "\"shop\""),
            ("src.identity", &identity),
            ("src.cluster", "\"Kubernetes\""),
            ("dst.addr", &tunnel),
            ("dst.hbone_addr", &at),
            ("dst.service", "\"echo.shop.svc.cluster.local\""),
            ("dst.workload", "\"echo\""),
            ("dst.namespace", "\"shop\""),
            ("dst.identity", &identity),
            ("duration", &format!("\"{}ms\"", line.get("duration_ms"))),
            ("path", "\"hbone\""),
        ]);
    }
    // Each end tells what its own workload sent and received.
    let [outbound, inbound] = &lines;
    let (said, answered) = (SAID.to_string(), ANSWERED.to_string());
    outbound.says(&[("direction", "\"outbound\""), ("bytes_sent", &said), ("bytes_recv", &answered)]);
    inbound.says(&[("direction", "\"inbound\""), ("bytes_sent", &answered), ("bytes_recv", &said)]);
    assert_eq!(outbound.get("conn.id"), inbound.get("conn.id"));
}

#[track_caller]
fn denied_is_logged(lab: &Lab) {
    let [outbound, inbound] =
        NODES.map(|node| logged(lab, node, "connection complete", "src.workload", "\"stray\""));
    for (line, policy) in [(&outbound, ""), (&inbound, " policy")] {
        let totals = "bytes_sent bytes_recv duration error duration_ms";
        let names = format!("{ENDS} {totals} code reason{policy} path conn.id");
        assert_eq!((&*line.level, line.names()), ("error", names), "{line:?}");
        let identity = format!("\"{STRAY}\"");
        line.says(&[
            ("src.identity", &identity),
            ("bytes_sent", "0"),
            ("bytes_recv", "0"),
            ("code", "\"AMB2103\""),
            ("reason", "\"deny-rule-matched\""),
        ]);
    }
    inbound.says(&[("direction", "\"inbound\""), ("policy", "\"shop/no-stray\"")]);
    assert!(inbound.get("error").contains("shop/no-stray"), "{inbound:?}");
}

#[track_caller]
fn plaintext_is_logged(lab: &Lab) {
    let line = logged(lab, "node2", "connection complete", "src.workload", "\"outsider\"");
    let names = "src.addr src.workload src.namespace src.cluster dst.addr dst.workload dst.namespace dst.cluster \
                 direction bytes_sent bytes_recv duration duration_ms code reason path conn.id";
    assert_eq!((&*line.level, &*line.names()), ("info", names), "{line:?}");
    let (said, answered) = (SAID.to_string(), ANSWERED.to_string());
    line.says(&[
        ("direction", "\"inbound\""),
        ("bytes_sent", &answered),
        ("bytes_recv", &said),
        ("code", "\"AMB2302\""),
        ("path", "\"plaintext\""),
    ]);
}

/// What never became a connection of the mesh is told without totals.
#[track_caller]
fn no_handshake_is_logged(lab: &Lab) {
    let from = format!("{}:", lab.address("legacy/outsider", 4));
    let line = logged(lab, "node2", "connection failed", "src.addr", &from);
    let names =
        "src.addr dst.addr dst.workload dst.namespace dst.cluster direction error code reason path conn.id";
    assert_eq!((&*line.level, &*line.names()), ("warn", names), "{line:?}");
    line.says(&[("direction", "\"inbound\""), ("code", "\"AMB2008\"")]);
}
