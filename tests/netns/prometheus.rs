//! A real Prometheus that scrapes every program: what boards and rules ask is answered, and alerts fire in their
//! scenarios and in no others.
//!
//! A question is answered at once, or in the scenario of its alert; only what [`SILENT`] names need not be.
//! Rules are loaded with shorter times; with their own ones `promtool` holds them, where each alert has a scenario.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, wait_until};
use ambit_tests::peers;
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, security, server};
use crate::waypoint::shop::{CLIENT, OTHER, OUTSIDE, Shop, WEB, backend, get_only, route};

/// Where Prometheus runs, and answers.
const HOME: &str = "node1";
const API: &str = "http://127.0.0.1:9090/api/v1/query";
/// Port of ztunnel's and the waypoint's metrics, and the one that the control plane and the node agents are told.
const STATS: u16 = 15020;
const MONITORING: u16 = 15014;
/// The control plane's address in every lab.
const CONTROL_PLANE: &str = "172.30.0.254";
/// Denied by its node.
const LOCKED: &str = "other/locked";
/// Lets nobody in; on the node that its own tests are spoiled on.
const GUARDED: &str = "guarded/vault";
const SPOILED: &str = "node2";
const WAIT: Duration = Duration::from_secs(60);

/// What the rules wait for, and what they wait for here.
const SHORTER: [(&str, &str); 14] = [
    ("[1d]", "[60s]"),
    ("[6h]", "[10s]"),
    ("[1h]", "[10s]"),
    ("[30m]", "[10s]"),
    ("[15m]", "[60s]"),
    ("[5m]", "[10s]"),
    ("offset 12h", "offset 40s"),
    ("offset 15m", "offset 10s"),
    ("offset 5m", "offset 10s"),
    ("> 1200", "> 30"),
    ("for: 10m", "for: 3s"),
    ("for: 15m", "for: 3s"),
    ("for: 30s", "for: 3s"),
    ("> 600", "> 3"),
];
/// The same for the rest, which are whole minutes.
const MINUTES: [&str; 3] = ["for: 1m", "for: 2m", "for: 5m"];

/// Alerts about a machine that is busy or small: whether they fire here says nothing of the mesh.
const OF_MACHINE: [&str; 4] =
    ["AmbitLoopStall", "AmbitFdHeadroomLow", "AmbitConntrackHeadroomLow", "AmbitMemoryBudgetNear"];

/// Parts of questions that nothing here answers, because of what does not happen here.
const SILENT: [(&str, &str); 18] = [
    ("ambit_conntrack_used_ratio", "connection tracking in the namespaces"),
    ("ambit_memory_used_ratio", "a limit of memory"),
    ("ambit_config_rejected_total", "a record that a proxy refuses"),
    ("ambit_config_acked_revision_least) <", "a proxy that is connected and hangs"),
    ("ambit_certificate_issue_errors_total", "a certificate that is refused"),
    ("ambit_callers_refused_total", "a caller that is refused"),
    ("ambit_handshakes_failed_total", "a broken handshake with the control plane"),
    ("ambit_connections_shed_total", "more connections than the control plane takes"),
    ("ambit_flow_records_lost_total{cause!=\"ring\"}", "a follower that is too slow"),
    ("ambit_trace_spans_dropped_total", "a collector of traces"),
    ("ambit_waypoint_authorizer_answers_total", "an external authorizer"),
    ("ambit_waypoint_clients_dismissed_total", "a client that misbehaves"),
    ("ambit_waypoint_ejections_total", "outlier detection"),
    ("ambit_waypoint_jwks_fetches_total", "tokens"),
    ("ambit_waypoint_protocol_violations_total", "a client that breaks HTTP"),
    ("ambit_waypoint_retry_budget_spent_total", "a storm of retries"),
    ("ambit_waypoint_streams_refused_total", "a tunnel request that is refused"),
    ("ambit_waypoint_tunnels_refused_total", "a tunnel that is refused"),
];

/// Parts of questions that are answered in a scenario of theirs and not before.
const LATER: [&str; 3] = ["breakglass", "ambit_waypoint_unbound", "workload_manager_proxies_stopped_total"];

#[test]
fn prometheus_is_answered_and_alerts_fire_in_their_scenarios() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        peers::not_run("prometheus is missing; install it with: xtask/need.sh test");
        return;
    }
    let listen = format!("[::]:{MONITORING}");
    let settings = [
        format!("istiod.monitoring-listen={listen}"),
        format!("cni.monitoring-listen={listen}"),
        // So small that records are pushed out all the time, which is no alert.
        "ztunnel.AMBIT_FLOW_RECORDS=10".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(shop) = Shop::with("prometheus", &cast(), &settings) else { return };
    // So that discovery streams have ended once.
    let _ = shop.lab.lab(&["restart", "istiod"]);
    let prometheus = Prometheus::start(&shop.lab);
    prometheus.until_every_target_is_up();
    prometheus.until_answered(|| {
        traffic(&shop);
        failing(&shop);
    });

    let calm = || prometheus.until_calm(|| traffic(&shop));
    calm();
    (0..10).for_each(|_| prometheus.only(&[], || traffic(&shop)));
    prometheus.only(&["AmbitDeniedSpike"], || denied(&shop));
    prometheus.until_told("code:ambit_refusals", || denied(&shop));
    calm();
    bind_alias(&shop, "nowhere");
    prometheus.only(&["AmbitWaypointUnbound"], || ());
    prometheus.until_told("ambit_waypoint_unbound", || ());
    bind_alias(&shop, "none");
    calm();
    prometheus.only(&["AmbitSLOBurnFast", "AmbitSLOBurnSlow"], || failing(&shop));
    calm();
    break_glass(&shop, &prometheus);
    calm();
    let _ = shop.lab.lab(&["stop", "istiod"]);
    prometheus.only(&["AmbitControlPlaneStale"], || ());
    let _ = shop.lab.lab(&["start", "istiod"]);
    calm();
    without_ztunnel(&shop, &prometheus);
    let _ = shop.lab.lab(&["delete", "pod", "vault", "-n", "guarded"]);
    prometheus.until_told("workload_manager_proxies_stopped_total", || ());
    calm();
    // The last one: what it leaves lasts a minute.
    for _ in 0..3 {
        let before = shop.lab.pid("ztunnel/node2");
        let _ = shop.lab.lab(&["restart", "ztunnel/node2"]);
        prometheus.until_restarted(before, &shop.lab);
    }
    prometheus.only(&["AmbitNodeProxyRestarting"], || ());
    prometheus.has_told_all();
}

/// Somebody whom a node refuses, somebody whom it would refuse, a policy of the waypoint, and a pod that nobody may
/// call.
fn cast() -> Vec<Value> {
    let from = |principal: &str| {
        let principals = [format!("cluster.local/ns/{principal}")];
        json!({
            "selector": {"matchLabels": {"app": "locked"}}, "action": "DENY",
            "rules": [{"from": [{"source": {"principals": principals}}]}],
        })
    };
    let mut trial = security("AuthorizationPolicy", "other/trial", &from("other/sa/other"));
    let lost = json!({
        "matches": [{"path": {"type": "Exact", "value": "/lost"}}], "backendRefs": [backend("nobody", 1)],
    });
    trial["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
    vec![
        server(LOCKED, "node2"),
        namespace("guarded", true),
        server(GUARDED, SPOILED),
        security("AuthorizationPolicy", "guarded/nobody", &json!({"action": "ALLOW"})),
        security("AuthorizationPolicy", "other/no-client", &from("shop/sa/client")),
        trial,
        get_only(),
        route("web", "web", &json!([{"backendRefs": [backend("web", 1)]}, lost])),
    ]
}

/// One of each kind: allowed, refused by the waypoint, refused by a node, plaintext, and what a dry run would refuse.
fn traffic(shop: &Shop) {
    assert_eq!(shop.get(CLIENT, WEB, &[]).status(), 200);
    assert_eq!(shop.post(CLIENT, WEB).status(), 403);
    let target = shop.lab.target(LOCKED, 4, PORT);
    for (pod, is_let_in) in [(CLIENT, false), (OUTSIDE, true), (OTHER, true)] {
        assert_eq!(shop.lab.call(pod, &target, &["--connections", "1"])["ok"], is_let_in, "{pod}");
    }
}

/// Many refusals by a node at once.
fn denied(shop: &Shop) {
    let target = shop.lab.target(LOCKED, 4, PORT);
    assert_eq!(shop.lab.call(CLIENT, &target, &["--connections", "20"])["ok"], false);
}

/// Requests that fail, by their server and for want of one, among some that do not.
fn failing(shop: &Shop) {
    assert_eq!(shop.get(CLIENT, &format!("{WEB}/status/500"), &[]).status(), 500);
    assert_eq!(shop.get(CLIENT, &format!("{WEB}/lost"), &[]).status(), 500);
    assert_eq!(shop.get(CLIENT, WEB, &[]).status(), 200);
}

/// A break-glass is told of while it is open, whether somebody uses it or not; plaintext that only it lets in is told
/// of as well.
fn break_glass(shop: &Shop, prometheus: &Prometheus<'_>) {
    let target = shop.lab.target(GUARDED, 4, PORT);
    let is_let_in = || shop.lab.call(OUTSIDE, &target, &["--connections", "1"])["ok"] == true;
    assert!(!is_let_in(), "nobody may call");
    let open =
        ["breakglass", "open", "-n", "guarded", "--for", "10m", "--reason", "a test", "--by", "a test"];
    let _ = shop.lab.ambit(&open).ok();
    prometheus.only(&["AmbitBreakglassOpen"], || ());
    let both = ["AmbitBreakglassOpen", "AmbitPlaintextInStrictNamespace"];
    prometheus.only(&both, || assert!(is_let_in(), "the glass is open"));
    prometheus.until_told("breakglass", || assert!(is_let_in(), "the glass is open"));
    let _ = shop.lab.ambit(&["breakglass", "close", "-n", "guarded"]).ok();
    assert!(!is_let_in(), "the glass is closed");
}

/// A node loses its ztunnel, and gets one that cannot test itself: its tests play on the loopback address.
fn without_ztunnel(shop: &Shop, prometheus: &Prometheus<'_>) {
    let ztunnel = format!("ztunnel/{SPOILED}");
    let _ = shop.lab.lab(&["stop", &ztunnel]);
    prometheus.only(&["AmbitPodUnprotected"], || ());
    let loopback = |act: &str| {
        let _ = shop.lab.on_node(SPOILED, &["ip", "address", act, "127.0.0.1/8", "dev", "lo"]).ok();
    };
    loopback("del");
    let _ = shop.lab.lab(&["start", &ztunnel]);
    prometheus.until_only(&["AmbitSelfTestFailed"]);
    loopback("add");
    let _ = shop.lab.lab(&["restart", &ztunnel]);
    let locked = shop.lab.target(LOCKED, 4, PORT);
    wait_until("the node serves again", WAIT, || {
        let is_missed = "sum(ambit_workloads_expected) > sum(ambit_workloads_captured)";
        prometheus.ask(is_missed).is_empty()
            && (0..4).all(|_| shop.get(CLIENT, WEB, &["--timeout", "2s"]).status() == 200)
            && shop.lab.call(OTHER, &locked, &["--connections", "1"])["ok"] == true
    });
}

/// Binds a service to the waypoint of that name.
#[track_caller]
fn bind_alias(shop: &Shop, waypoint: &str) {
    let label = format!("istio.io/use-waypoint={waypoint}");
    let _ = shop.lab.lab(&["label", "--overwrite", "service", "alias", "-n", "shop", &label]);
}

/// A Prometheus on a node's network, which ends with this.
struct Prometheus<'a> {
    lab: &'a Lab,
    /// Questions without an answer so far, but for those that get none here.
    left: RefCell<BTreeSet<String>>,
    _program: Background,
}

impl<'a> Prometheus<'a> {
    #[track_caller]
    fn start(lab: &'a Lab) -> Self {
        let file =
            lab.file("prometheus.yml", &configuration(lab, &lab.file("rules.yml", &rules())).to_string());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-node-{HOME}", lab.name()), "prometheus"]);
        command.arg(format!("--config.file={file}"));
        command.arg(format!("--storage.tsdb.path={}", lab.folder("prometheus")));
        command.arg("--web.listen-address=127.0.0.1:9090");
        let left: BTreeSet<String> = questions().into_iter().filter(|query| !is_silent(query)).collect();
        assert!(left.len() > 50, "{left:#?}");
        Self { lab, left: RefCell::new(left), _program: Background::start(&mut command) }
    }

    /// What a question is answered now; nothing before Prometheus is up.
    #[track_caller]
    fn ask(&self, query: &str) -> Vec<Value> {
        let data = format!("query={query}");
        let told = self.lab.on_node(HOME, &["curl", "-sS", "-m", "10", "--data-urlencode", &data, API]);
        if told.code != Some(0) {
            return Vec::new();
        }
        let told: Value = serde_json::from_str(&told.stdout).expect("JSON from Prometheus");
        assert_eq!(told["status"], "success", "{query}: {told:#}");
        told["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn until_every_target_is_up(&self) {
        let want = targets(self.lab).len();
        wait_until("every target is scraped", WAIT, || self.ask("up == 1").len() == want);
    }

    /// Asks once more what has not been answered yet.
    #[track_caller]
    fn look(&self) {
        let left = self.left.take();
        *self.left.borrow_mut() = left.into_iter().filter(|query| self.ask(query).is_empty()).collect();
    }

    /// Waits, under traffic, until everything that boards and rules ask has an answer, as far as it can have one before
    /// the scenarios.
    #[track_caller]
    fn until_answered(&self, traffic: impl Fn()) {
        let missing = || self.left.borrow().iter().filter(|query| !is_later(query)).cloned().collect();
        let mut looks = 0;
        loop {
            traffic();
            self.look();
            let missing: Vec<String> = missing();
            if missing.is_empty() {
                return;
            }
            looks += 1;
            assert!(looks < 60, "not answered: {missing:#?}");
        }
    }

    /// Waits, under what `act` does, until all questions with this part have been answered once.
    #[track_caller]
    fn until_told(&self, part: &str, act: impl Fn()) {
        wait_until(&format!("what is asked of {part} is answered"), WAIT, || {
            act();
            self.look();
            !self.left.borrow().iter().any(|query| query.contains(part))
        });
    }

    /// Everything that can have an answer here has had one.
    #[track_caller]
    fn has_told_all(&self) {
        self.look();
        let left = self.left.borrow();
        assert!(left.is_empty(), "never answered: {left:#?}");
    }

    /// Waits, under traffic, until nothing fires or is about to, and nothing that happened before can make it.
    #[track_caller]
    fn until_calm(&self, traffic: impl Fn()) {
        let began = self.number("vector(time())").expect("a time");
        wait_until("no alert fires or is about to", 2 * WAIT, || {
            traffic();
            // All that has happened was scraped and looked at.
            let is_known = self.number("min(timestamp(up))").is_some_and(|scraped| scraped > began + 3.0);
            is_known && self.alerts("count_over_time(ALERTS[5s])").is_empty()
        });
    }

    /// What a question with one answer is answered.
    #[track_caller]
    fn number(&self, query: &str) -> Option<f64> {
        self.ask(query).first()?["value"][1].as_str()?.parse().ok()
    }

    /// Waits, under traffic, until exactly these alerts fire, and sees none of the others meanwhile.
    #[track_caller]
    fn only(&self, wanted: &[&str], traffic: impl Fn()) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        wait_until(&format!("{wanted:?} fire and nothing else"), WAIT, || {
            traffic();
            let now = self.firing();
            assert!(now.is_subset(&wanted), "{now:?} fire where {wanted:?} should");
            now == wanted
        });
    }

    /// The same after a scenario that has just ended: its alert may fire for a while.
    #[track_caller]
    fn until_only(&self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        wait_until(&format!("only {wanted:?} fire"), WAIT, || self.firing() == wanted);
    }

    /// Names of the alerts that fire.
    #[track_caller]
    fn firing(&self) -> BTreeSet<String> {
        self.alerts(r#"ALERTS{alertstate="firing"}"#)
    }

    /// Names of the alerts that a question selects, but for those about the machine.
    fn alerts(&self, query: &str) -> BTreeSet<String> {
        let all = self.ask(query);
        let names = all.iter().filter_map(|one| one["metric"]["alertname"].as_str());
        names.filter(|name| !OF_MACHINE.contains(name)).map(str::to_owned).collect()
    }

    /// Waits until the new process of `ztunnel/node2` was scraped.
    #[track_caller]
    fn until_restarted(&self, before: u64, lab: &Lab) {
        let started = r#"time() - ambit_start_time_seconds{job="ztunnel",instance="node2"} < 8"#;
        wait_until("the restarted ztunnel is scraped", WAIT, || {
            lab.pid("ztunnel/node2") != before && !self.ask(started).is_empty()
        });
        // Two starts within one scrape would count once.
        let settled = r#"time() - ambit_start_time_seconds{job="ztunnel",instance="node2"} > 3"#;
        wait_until("it has run for a while", WAIT, || !self.ask(settled).is_empty());
    }
}

/// Every program: its job, the name of its instance, its address.
#[track_caller]
fn targets(lab: &Lab) -> Vec<(&'static str, String, String)> {
    let mut all = vec![("istiod-lite", "istiod".to_owned(), format!("{CONTROL_PLANE}:{MONITORING}"))];
    for (node, pod) in [("node1", CLIENT), ("node2", LOCKED)] {
        let host =
            lab.get("pod", pod)["status"]["hostIP"].as_str().expect("an address of the node").to_owned();
        all.push(("ztunnel", node.to_owned(), format!("{host}:{STATS}")));
        all.push(("ambit-cni", node.to_owned(), format!("{host}:{MONITORING}")));
    }
    let status: Value =
        serde_json::from_str(&lab.lab(&["status", "-o", "json"])).expect("JSON from lab status");
    let pods = status["pods"].as_array().expect("pods");
    let names = pods.iter().filter(|pod| pod["namespace"] == "shop").filter_map(|pod| pod["name"].as_str());
    for name in names.filter(|name| name.starts_with("waypoint")) {
        all.push(("waypoint", name.to_owned(), lab.target(&format!("shop/{name}"), 4, STATS)));
    }
    all
}

/// Prometheus reads YAML, of which JSON is a part.
#[track_caller]
fn configuration(lab: &Lab, rules: &str) -> Value {
    let jobs: Vec<Value> = ["istiod-lite", "ztunnel", "ambit-cni", "waypoint"]
        .into_iter()
        .map(|job| {
            let own = targets(lab).into_iter().filter(|(of, ..)| *of == job);
            let configs = own.map(|(_, name, at)| json!({"targets": [at], "labels": {"instance": name}}));
            json!({"job_name": job, "honor_labels": true, "static_configs": configs.collect::<Vec<_>>()})
        })
        .collect();
    let every = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
    json!({"global": every, "rule_files": [rules], "scrape_configs": jobs})
}

fn deployed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rules, with shorter times.
fn rules() -> String {
    let text = deployed("alerts/ambit.rules.yaml");
    let text = SHORTER.iter().fold(text, |text, (long, short)| text.replace(long, short));
    MINUTES.iter().fold(text, |text, long| text.replace(&format!("{long}\n"), "for: 3s\n"))
}

/// Everything that boards ask, and what the rules compare, without the comparison.
fn questions() -> BTreeSet<String> {
    let boards = ["node", "mesh", "workload", "waypoint", "control-plane", "certificates"];
    let mut all = BTreeSet::new();
    for board in boards {
        let board: Value =
            serde_json::from_str(&deployed(&format!("dashboards/{board}.json"))).expect("a board is JSON");
        let panels = board["panels"].as_array().expect("panels").iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let chosen = board["templating"]["list"].as_array().expect("variables").iter();
        let series = chosen.filter_map(|one| one["definition"].as_str()?.strip_prefix("label_values("));
        let series = series.filter_map(|query| Some(query.rsplit_once(", ")?.0));
        all.extend(targets.filter_map(|target| target["expr"].as_str()).chain(series).map(filled));
    }
    let rules: Value = serde_saphyr::from_str(&rules()).expect("the rules are YAML");
    let groups = rules["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    all.extend(rules.filter_map(|rule| rule["expr"].as_str()).map(compared));
    all
}

/// A board's question with every choice made.
fn filled(query: &str) -> String {
    let window = query.replace("$__rate_interval", "30s");
    ["$instance", "$namespace", "$workload"].iter().fold(window, |query, choice| query.replace(choice, ".*"))
}

/// What an alert looks at: all before its first comparison that stands alone.
fn compared(expression: &str) -> String {
    let ends = [" > ", " < ", " == "].iter().filter_map(|sign| expression.find(sign));
    let left = ends.min().map_or(expression, |end| &expression[..end]);
    let is_whole = left.matches('(').count() == left.matches(')').count();
    if is_whole { left.to_owned() } else { expression.to_owned() }
}

/// Whether it is about something that does not happen here.
fn is_silent(query: &str) -> bool {
    SILENT.iter().any(|(part, _)| query.contains(part))
}

/// Whether it is about something that happens in a scenario alone.
fn is_later(query: &str) -> bool {
    // Conditions of several parts hold only there.
    let has = |word| query.split_whitespace().any(|one| one == word);
    has("and") || has("unless") || LATER.iter().any(|part| query.contains(part))
}
