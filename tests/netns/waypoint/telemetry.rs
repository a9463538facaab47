//! Row 12: one trace through three services, told to a collector in both protocols; and numbers, lines and records that
//! add up to what was sent, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ambit_tests::lab::wait_until;
use serde_json::{Value, json};

use super::called::{asked, metrics, peer_pod, series};
use super::shop::{CLIENT, GRPC, PORT, Shop, WEB, get_only, service};

/// The collector's pod, outside the mesh, and its ports.
const COLLECTOR: &str = "legacy/collector";
const BY_GRPC: u16 = 4317;
const BY_HTTP: u16 = 4318;
/// The services that call each other.
const CHAIN: [&str; 3] = ["a", "b", "c"];
/// A trace and a span of the client's own.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// Longest wait for what is told behind an answer's back.
const WAIT: Duration = Duration::from_secs(10);

fn chain() -> Vec<Value> {
    let (grpc, http, port) = (BY_GRPC.to_string(), BY_HTTP.to_string(), PORT.to_string());
    let args = ["collector", "--grpc-port", &grpc, "--http-port", &http];
    let ours = json!({"app": "collector"});
    let mut all = vec![
        peer_pod(COLLECTOR, "node1", &args, BY_HTTP),
        service("legacy/by-grpc", &ours, BY_GRPC, BY_GRPC, "grpc"),
        service("legacy/by-http", &ours, BY_HTTP, BY_HTTP, "http"),
    ];
    for (name, node) in CHAIN.into_iter().zip(["node1", "node2", "node1"]) {
        let key = format!("shop/{name}");
        all.push(peer_pod(&key, node, &["serve", "--port", &port, "--name", name], PORT));
        all.push(service(&key, &json!({"app": name}), 80, PORT, "http"));
    }
    all
}

fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

#[test]
fn a_chain_of_calls_is_one_trace_by_grpc() {
    chain_is_traced("wp-traces-grpc", "grpc", "by-grpc", BY_GRPC);
}

#[test]
fn a_chain_of_calls_is_one_trace_by_http() {
    chain_is_traced("wp-traces-http", "http/protobuf", "by-http", BY_HTTP);
}

fn chain_is_traced(lab: &str, protocol: &str, service: &str, port: u16) {
    let settings = [
        format!("waypoint.OTEL_EXPORTER_OTLP_ENDPOINT=http://{service}.legacy.svc.cluster.local:{port}"),
        format!("waypoint.OTEL_EXPORTER_OTLP_PROTOCOL={protocol}"),
        "waypoint.OTEL_TRACES_SAMPLER=always_on".to_owned(),
        "waypoint.OTEL_BSP_SCHEDULE_DELAY=200".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(shop) = Shop::with(lab, &chain(), &settings) else { return };
    for name in CHAIN {
        let url = format!("http://{}/ready", host(name));
        wait_until(&format!("{name} answers"), WAIT, || shop.get(CLIENT, &url, &[]).status() == 200);
    }
    let told_by = if protocol == "grpc" { "grpc" } else { "http" };
    // Begun by the client, and begun by the waypoint.
    let header = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let trace = called_in_chain(&shop, &["--header", &header], SPAN, told_by);
    assert_eq!(trace, TRACE, "the client's trace was not continued");
    let begun = called_in_chain(&shop, &[], "", told_by);
    assert_ne!(begun, TRACE, "a trace of its own");
}

/// Calls the first service, which calls the second, which calls the third; the trace that they saw, whose spans hang
/// together below `parent`.
#[track_caller]
fn called_in_chain(shop: &Shop, args: &[&str], parent: &str, told_by: &str) -> String {
    let [a, b, c] = CHAIN.map(|name| format!("http://{}/chain", host(name)));
    let told = shop.get(CLIENT, &format!("{a}?to={b}?to={c}"), args);
    assert_eq!(told.status(), 200, "{:#}", told.0);
    let mut answer = told.answer();
    let mut seen = Vec::new();
    for name in CHAIN {
        assert_eq!(answer["name"], name, "{:#}", told.0);
        let context = answer["headers"]["traceparent"][0].as_str().unwrap_or_default().to_owned();
        seen.push(context);
        answer = answer["next"]["answer"].clone();
    }
    let part = |context: &str, place: usize| context.split('-').nth(place).unwrap_or_default().to_owned();
    let trace = part(&seen[0], 1);
    assert_eq!(trace.len(), 32, "no trace arrived: {seen:?}");
    assert!(seen.iter().all(|context| part(context, 1) == trace), "several traces: {seen:?}");
    assert!(seen.iter().all(|context| part(context, 3) == "01"), "not recorded: {seen:?}");
    let spans = spans(shop, &trace);
    let last: Vec<String> = seen.iter().map(|context| part(context, 2)).collect();
    hang_together(&spans, parent, &last);
    for span in &spans {
        assert_eq!(span["protocol"], told_by, "{span:#}");
        assert!(span["program"].as_str().is_some_and(|name| !name.is_empty()), "{span:#}");
        assert_eq!(span["is_error"], false, "{span:#}");
    }
    trace
}

/// Waits for a trace's spans: two for each service.
#[track_caller]
fn spans(shop: &Shop, trace: &str) -> Vec<Value> {
    let path = format!("/spans?trace={trace}");
    let mut found = Vec::new();
    wait_until("every span was told", WAIT, || {
        found = asked(&shop.lab, COLLECTOR, BY_HTTP, &path).as_array().cloned().unwrap_or_default();
        found.len() >= 2 * CHAIN.len()
    });
    assert_eq!(found.len(), 2 * CHAIN.len(), "more spans than calls: {found:#?}");
    found
}

/// From the first parent on: what a service was asked, and below it how it was asked, whose span the service was told.
#[track_caller]
fn hang_together(spans: &[Value], first: &str, told: &[String]) {
    let (mut parent, mut since) = (first.to_owned(), 0);
    for (name, told) in CHAIN.into_iter().zip(told) {
        let below = |kind: &str, parent: &str| {
            let mut all = spans.iter().filter(|span| span["parent"] == parent && span["kind"] == kind);
            let one = all.next().unwrap_or_else(|| panic!("{name} has no {kind} below {parent}: {spans:#?}"));
            assert!(all.next().is_none(), "{name} has several of {kind} below {parent}: {spans:#?}");
            one.clone()
        };
        let server = below("SERVER", &parent);
        assert_eq!(server["attributes"]["server.address"], host(name), "{server:#}");
        assert_eq!(server["attributes"]["http.response.status_code"], 200, "{server:#}");
        assert_eq!(server["attributes"]["url.path"], "/chain", "{server:#}");
        let id = server["span"].as_str().unwrap_or_default();
        let client = below("CLIENT", id);
        assert_eq!(client["attributes"]["istio.upstream.workload"], name, "{client:#}");
        assert_eq!(client["span"], told.as_str(), "{name} was told another span: {client:#}");
        let (begun, sent) = (nanos(&server, "start"), nanos(&client, "start"));
        assert!(since <= begun && begun <= sent, "{name} was asked before its caller was: {spans:#?}");
        assert!(
            sent <= nanos(&client, "end") && nanos(&client, "end") <= nanos(&server, "end"),
            "{client:#}"
        );
        (parent, since) = (told.clone(), sent);
    }
}

fn nanos(span: &Value, key: &str) -> u64 {
    span[key].as_u64().expect("a time in nanoseconds")
}

/// What was called, how it was answered, and how that is told in gRPC: numbers of requests.
type Counts = BTreeMap<(String, String, String, String), u64>;

/// What [`send`] sends.
fn sent() -> Counts {
    let web = host("web");
    let grpc = host("grpc");
    let row = |service: &str, code: &str, protocol: &str, status: &str, count: u64| {
        ((service.to_owned(), code.to_owned(), protocol.to_owned(), status.to_owned()), count)
    };
    BTreeMap::from([
        row(&web, "200", "http", "unknown", 37),
        row(&web, "404", "http", "unknown", 11),
        row(&web, "403", "http", "unknown", 7),
        row(&web, "503", "http", "unknown", 5),
        row(&grpc, "200", "http", "unknown", 13),
        row(&grpc, "200", "grpc", "0", 3),
        row(&grpc, "200", "grpc", "5", 2),
    ])
}

#[test]
fn numbers_lines_and_records_add_up_to_what_was_sent() {
    let Some(shop) = Shop::up("wp-telemetry", &[]) else { return };
    let (counts, durations, lines) = (counts(&shop), durations(&shop), lines(&shop));
    send(&shop);
    let want = sent();
    let total: u64 = want.values().sum();
    let mut seen = Counts::new();
    wait_until("every request is counted", WAIT, || {
        seen = more(&counts, &self::counts(&shop));
        seen.values().sum::<u64>() >= total
    });
    assert_eq!(seen, want, "counted otherwise than sent");
    assert_eq!(self::durations(&shop) - durations, total, "durations of as many requests");
    logged(&shop, &lines, &want);
    recorded(&shop);
}

fn send(shop: &Shop) {
    let load = |url: &str, args: &[&str], status: &str, count: u64| {
        let requests = count.to_string();
        let load = shop.load(url, &[&["--requests", &requests], args].concat());
        let seen = (load.count("/sent"), load.count("/failed"), load.count(&format!("/by_status/{status}")));
        assert_eq!(seen, (count, 0, count), "{url}: {:#}", load.0);
    };
    load(&format!("{WEB}/ok"), &[], "200", 37);
    load(&format!("{WEB}/status/404"), &["--concurrency", "3"], "404", 11);
    shop.under(&get_only(), || load(&format!("{WEB}/refused"), &["--method", "POST"], "403", 7));
    load(&format!("{WEB}/status/503"), &[], "503", 5);
    load(&format!("{GRPC}/h2"), &["--http2"], "200", 13);
    for (kind, code, times) in [("unary", 0, 3), ("fail", 5, 2)] {
        for _ in 0..times {
            let args = ["grpc", kind, "--url", GRPC, "--code", "5"];
            let told = shop.run(CLIENT, &args, Duration::from_secs(30));
            assert_eq!(told.0["code"], code, "{:#}", told.0);
        }
    }
}

/// What the waypoint has counted of requests.
#[track_caller]
fn counts(shop: &Shop) -> Counts {
    let (text, mut all) = (metrics(shop), Counts::new());
    for (labels, count) in series(&text, "istio_requests_total") {
        assert_eq!(labels.get("reporter"), Some(&"waypoint"), "{labels:?}");
        let label = |name: &str| (*labels.get(name).unwrap_or(&"")).to_owned();
        let key = (
            label("destination_service"),
            label("response_code"),
            label("request_protocol"),
            label("grpc_response_status"),
        );
        *all.entry(key).or_default() += count;
    }
    all
}

/// How many requests' durations it has noted.
#[track_caller]
fn durations(shop: &Shop) -> u64 {
    let text = metrics(shop);
    series(&text, "istio_request_duration_milliseconds_count").iter().map(|(_, count)| count).sum()
}

/// What came to a count since it was `before`.
fn more(before: &Counts, now: &Counts) -> Counts {
    let mut all = Counts::new();
    for (key, count) in now {
        let came = count - before.get(key).copied().unwrap_or_default();
        if came > 0 {
            all.insert(key.clone(), came);
        }
    }
    all
}

/// Lines of the access log that tell of requests, by status.
#[track_caller]
fn lines(shop: &Shop) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for line in shop.lab.lab(&["logs", "waypoint/shop/waypoint"]).lines() {
        let columns: Vec<&str> = line.splitn(5, '\t').collect();
        if let [_, "info", "access", "request", fields] = columns[..] {
            let code = fields.split(' ').find_map(|field| field.strip_prefix("response_code="));
            *all.entry(code.unwrap_or("none").to_owned()).or_default() += 1;
        }
    }
    all
}

/// A line for each request, by status.
#[track_caller]
fn logged(shop: &Shop, before: &BTreeMap<String, u64>, sent: &Counts) {
    let mut want = before.clone();
    for ((_, code, ..), count) in sent {
        *want.entry(code.clone()).or_default() += count;
    }
    let mut seen = BTreeMap::new();
    wait_until("every request is logged", WAIT, || {
        seen = lines(shop);
        seen.values().sum::<u64>() >= want.values().sum::<u64>()
    });
    assert_eq!(seen, want, "lines of the access log");
}

/// A record for each request; the connection that carried it is known at the client's node by the same id.
#[track_caller]
fn recorded(shop: &Shop) {
    let records = |path: &str| -> Vec<Value> {
        let all = shop.lab.flows(&["--from-pod", CLIENT]);
        all.into_iter().filter(|flow| flow["path"] == "waypoint" && flow["http"]["path"] == path).collect()
    };
    let (served, refused) = (records("/ok"), records("/refused"));
    assert_eq!((served.len(), refused.len()), (37, 7), "records of requests");
    for record in &refused {
        let seen = (&record["verdict"], &record["code"], &record["http"]["status"]);
        assert_eq!(seen, (&json!("denied"), &json!("AMB2202"), &json!(403)), "{record:#}");
    }
    let all = [served, refused, records("/status/404"), records("/h2")].concat();
    let ids: BTreeSet<&str> = all.iter().filter_map(|record| record["conn_id"].as_str()).collect();
    assert!(ids.len() >= 4, "four clients had at least a connection each: {ids:?}");
    let mut joined: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    wait_until("the client's node has recorded every connection", WAIT, || {
        joined.clear();
        for flow in shop.lab.flows(&["--from-pod", CLIENT]) {
            if let Some(id) = flow["conn_id"].as_str().filter(|_| flow["direction"] == "outbound") {
                joined.entry(id.to_owned()).or_default().push(flow);
            }
        }
        ids.iter().all(|id| joined.contains_key(*id))
    });
    for id in ids {
        let [flow] = &joined[id][..] else { panic!("{id} is told more than once: {:#?}", joined[id]) };
        let seen = (&flow["node"], &flow["verdict"]);
        assert_eq!(seen, (&json!("node1"), &json!("allowed")), "{flow:#}");
    }
}
