//! Row 2: `tests/tables/routing/` through the lab. Every group has its own services, all of which lead to one
//! application a namespace, at a port for each service and port: the port tells which backend it was. A row whose
//! backends refuse connections has a group and ports of its own, on which the kernel refuses as many as the row says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, http_peer};
use serde_json::{Value, json};

use super::outcome::{Counts, Outcome};
use super::refusals::{self, Refusal};
use super::{PATIENCE, Report, application, bound, clients, gateway, pod_of, rename, send, service_of};
use crate::cast::{namespace, split};
use crate::waypoint::shop::told;

#[path = "../../../../crates/ambit-control/tests/routing/schema.rs"]
#[expect(
    dead_code,
    reason = "what compiling reports, and which rule took a request, only the pure driver sees"
)]
pub(super) mod schema;

use schema::{Group, Manifest, Row, Table};

const FILES: [(&str, &str); 6] = [
    ("conformance", include_str!("../../../tables/routing/conformance.yaml")),
    ("gateway", include_str!("../../../tables/routing/gateway.yaml")),
    ("precedence", include_str!("../../../tables/routing/precedence.yaml")),
    ("filters", include_str!("../../../tables/routing/filters.yaml")),
    ("backends", include_str!("../../../tables/routing/backends.yaml")),
    ("attempts", include_str!("../../../tables/routing/attempts.yaml")),
];
/// Namespace of the Gateway.
const HOME: &str = "shop";
/// Where the first application listens.
const FIRST_PORT: u16 = 10_000;
/// Longest answer of an application that a row waits for.
const AFTER_MAX: Duration = Duration::from_secs(2);
/// Longer than what a waypoint keeps of a body to send it again, in bytes.
const BODY_GONE: usize = 512 * 1024;
/// How long copies of requests may take to arrive after the answers.
const MIRRORED_WITHIN: Duration = Duration::from_secs(5);
/// How many times more requests a share is judged by that looked wrong at first.
const SECOND_LOOK: u64 = 5;

/// Rows that only exact time can decide, or that mean something else on a wire.
const LEFT_OUT: [(&str, &str); 3] = [
    ("just in time", "the answer comes a millisecond before the limit"),
    (
        "the last attempt has what is left",
        "what is left after three attempts is shorter than a busy machine's pauses",
    ),
    ("a response lists what it exposes", "the application's answer has more headers than the pure driver's"),
];

#[test]
fn every_routing_table_holds_through_a_waypoint() {
    let tables: Vec<(&str, Table)> =
        FILES.iter().map(|(name, text)| (*name, Table::read(name, text))).collect();
    let mut world = World::of(&tables);
    let (mut report, mut cases, mut objects, mut number) = (Report::default(), Vec::new(), Vec::new(), 0);
    for (file, table) in &tables {
        for group in &table.groups {
            let shared = number;
            objects.extend(world.group(table, group, shared));
            number += 1;
            for (at, row) in group.when.iter().enumerate() {
                let mut own = shared;
                if let Some(times) = refusals::of(row) {
                    own = number;
                    number += 1;
                    world.refuse(table, own, times);
                    objects.extend(world.group(table, group, own));
                }
                let name = format!("{file} / {} / {}", group.name, row.name);
                cases.extend(Case::new(table, row, name, (own, at), &mut report));
            }
        }
    }
    let Some(lab) = Lab::up("wp-routes", &world.cast(), &[]) else { return };
    refusals::begin(&lab, &world.refusals);
    let barred = apply(&lab, objects);
    let (barred, cases): (Vec<Case<'_>>, Vec<Case<'_>>) =
        cases.into_iter().partition(|case| barred.contains(&rename::prefix(case.group)));
    barred.iter().for_each(|case| report.left_out(&case.name, "the API server itself refuses such a route"));
    let outcomes = world.run(&lab, &cases, 1);
    let doubtful = |(_, outcome): &(&Case<'_>, &Outcome)| outcome.is_doubtful();
    let again: Vec<Case<'_>> =
        cases.iter().zip(&outcomes).filter(doubtful).map(|(case, _)| case.again(SECOND_LOOK)).collect();
    let mut second = world.run(&lab, &again, SECOND_LOOK).into_iter();
    for (case, first) in cases.iter().zip(outcomes) {
        let outcome = if first.is_doubtful() { second.next().unwrap_or(first) } else { first };
        report.ran(&case.name, outcome.problems);
    }
    // What definitions refuse never comes to a waypoint: one row of twenty.
    report.end("routing tables", if barred.is_empty() { 95 } else { 90 });
}

/// Applies the objects but for those that the definitions of an API server refuse; the groups that these belong to. A
/// folder has no such definitions.
#[track_caller]
fn apply(lab: &Lab, mut objects: Vec<Value>) -> BTreeSet<String> {
    let mut barred = BTreeSet::new();
    loop {
        let file = lab
            .file("routes.json", &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
        let told = lab.start(&["lab", "apply", "-f", &file]).finish(PATIENCE);
        let is_barred = |object: &Value| {
            let named = object["metadata"]["name"].as_str().unwrap_or_default();
            // Its definition, or the webhook.
            told.code != Some(0)
                && told.stderr.contains("invalid")
                && told.stderr.contains(&format!("/{named}: "))
        };
        let names =
            objects.iter().filter(|object| is_barred(object)).filter_map(|o| o["metadata"]["name"].as_str());
        let found: BTreeSet<String> =
            names.filter_map(|name| name.split_inclusive('-').next()).map(str::to_owned).collect();
        if found.is_empty() {
            drop(told.ok());
            return barred;
        }
        let of_group = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            found.iter().any(|prefix| name.starts_with(prefix))
        };
        objects.retain(|object| !of_group(object));
        barred.extend(found);
    }
}

/// A name's namespace and own name.
fn parted<'n>(table: &'n Table, name: &'n str) -> (&'n str, &'n str) {
    name.split_once('/').unwrap_or((&table.namespace, name))
}

/// Applications' ports by service (`NAMESPACE/NAME`) and port.
type Ports = BTreeMap<(String, u16), u16>;

/// Which port of an application stands for which port of which service (`NAMESPACE/NAME`).
pub(super) struct World {
    ports: Ports,
    /// Of groups that have ports of their own.
    own: BTreeMap<usize, Ports>,
    /// How many connections the ports of a group refuse, in each application's pod.
    refusals: Vec<Refusal>,
    clients: BTreeSet<String>,
    next: u16,
}

impl World {
    fn of(tables: &[(&str, Table)]) -> Self {
        let (mut ports, mut clients, mut next) = (Ports::new(), BTreeSet::new(), FIRST_PORT);
        for (_, table) in tables {
            add(&mut ports, table, &mut next);
            let rows = table.groups.iter().flat_map(|group| &group.when);
            clients.insert(table.namespace.clone());
            clients.extend(rows.filter_map(|row| row.client.clone()));
        }
        Self { ports, own: BTreeMap::new(), refusals: Vec::new(), clients, next }
    }

    /// Gives a group ports of its own, which refuse so many connections before they take any.
    fn refuse(&mut self, table: &Table, number: usize, times: u32) {
        let mut ports = Ports::new();
        add(&mut ports, table, &mut self.next);
        let mut by_pod: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for ((service, _), target) in &ports {
            by_pod.entry(pod_behind(service)).or_default().push(*target);
        }
        let each = by_pod.into_iter().map(|(pod, ports)| Refusal { pod, ports, times });
        self.refusals.extend(each);
        self.own.insert(number, ports);
    }

    /// All ports, those of single groups too.
    fn all(&self) -> impl Iterator<Item = (&(String, u16), &u16)> {
        self.ports.iter().chain(self.own.values().flatten())
    }

    fn applications(&self) -> BTreeMap<String, Vec<u16>> {
        let mut all: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for ((service, _), target) in self.all() {
            all.entry(pod_behind(service)).or_default().push(*target);
        }
        all
    }

    fn cast(&self) -> Vec<Value> {
        let mut cast = vec![gateway(HOME)];
        let spaces = self.applications().into_keys().map(|app| split(&app).0.to_owned());
        let spaces: BTreeSet<String> = spaces.chain([HOME.to_owned()]).collect();
        let named = spaces.difference(&self.clients);
        cast.extend(named.map(|space| namespace(space, true)));
        let accounts: Vec<String> = self.clients.iter().map(|space| format!("{space}/client")).collect();
        cast.extend(clients(accounts.iter().map(String::as_str)));
        cast.extend(self.applications().iter().map(|(key, ports)| application(key, "node2", ports)));
        cast
    }

    /// Services and routes of a group.
    fn group(&self, table: &Table, group: &Group, number: usize) -> Vec<Value> {
        let prefix = rename::prefix(number);
        let specs: String = group.given.iter().map(|given| given.spec.to_string()).collect();
        let addressed = |name: &str| group.when.iter().any(|row| parted_target(table, &row.to).0.1 == name);
        let mut objects = Vec::new();
        for (key, of) in &table.services {
            let (space, name) = parted(table, key);
            if !specs.contains(&format!("\"name\":\"{name}\"")) && !addressed(name) {
                continue;
            }
            let places = self.own.get(&number).unwrap_or(&self.ports);
            let target = |port: &u16| places[&(format!("{space}/{name}"), *port)];
            let ports: Vec<_> = of.iter().map(|(port, about)| (*port, &*about.name, target(port))).collect();
            objects.push(bound(service_of(&format!("{space}/{prefix}{name}"), "apps", &ports), HOME));
        }
        let place = |at: usize| u64::try_from(at).expect("few");
        let routes = group.given.iter().enumerate();
        objects.extend(routes.map(|(at, given)| manifest(table, given, place(at), &prefix)));
        objects
    }

    /// Sends all rows; what came of each.
    fn run(&self, lab: &Lab, cases: &[Case<'_>], times: u64) -> Vec<Outcome> {
        let mut seen: Vec<Value> = vec![Value::Null; cases.len()];
        let pods: BTreeSet<&str> = cases.iter().map(|case| &*case.client).collect();
        for pod in pods {
            let of: Vec<usize> = (0..cases.len()).filter(|at| cases[*at].client == pod).collect();
            let requests: Vec<Value> = of.iter().map(|at| self.addressed(lab, &cases[*at])).collect();
            for (at, told) in of.into_iter().zip(send(lab, pod, &requests, 4)) {
                seen[at] = told;
            }
        }
        let end = clock::monotonic() + MIRRORED_WITHIN;
        loop {
            let (counts, refused) = (self.counts(lab), refusals::counted(lab, &self.refusals));
            let outcomes: Vec<Outcome> = cases
                .iter()
                .zip(&seen)
                .map(|(case, seen)| {
                    let ports = self.own.get(&case.group).into_iter().flat_map(BTreeMap::values);
                    let refused = ports.filter_map(|port| refused.get(port)).sum();
                    Outcome::new(case, seen, (&counts, refused), self, times)
                })
                .collect();
            if clock::monotonic() > end || !outcomes.iter().any(|outcome| outcome.may_still_come) {
                return outcomes;
            }
        }
    }

    /// The request of a case, to the pod itself where the row says so.
    fn addressed(&self, lab: &Lab, case: &Case<'_>) -> Value {
        let mut request = case.request.clone();
        if case.row.to.starts_with("pod/") {
            let ((space, name), port) = parted_target(case.table, &case.row.to);
            let service = format!("{space}/{name}");
            let pod = pod_behind(&service);
            request["address"] = json!(lab.target(&pod, 4, self.ports[&(service, port)]));
        }
        request
    }

    /// What the applications counted, asked inside their pods.
    fn counts(&self, lab: &Lab) -> Counts {
        let mut counts = Counts::new();
        for (pod, ports) in self.applications() {
            let url = format!("http://127.0.0.1:{}/count", ports[0]);
            let command = [&*http_peer(), "get", "--url", &url];
            let answer = told(&lab.spawn(&pod, &command).finish(PATIENCE)).answer();
            for (name, count) in answer["keys"].as_object().into_iter().flatten() {
                let Some((key, port)) = name.split_once(' ') else { continue };
                let port = port.parse().expect("a port");
                counts.entry(key.to_owned()).or_default().insert(port, count.as_u64().expect("a count"));
            }
        }
        counts
    }

    /// `NAMESPACE/NAME:PORT` of an application's port.
    pub(super) fn service_at(&self, target: u16) -> Option<String> {
        let found = self.all().find(|(_, at)| **at == target);
        found.map(|((service, port), _)| format!("{service}:{port}"))
    }
}

/// Gives every port of a table's services a port of an application.
fn add(ports: &mut Ports, table: &Table, next: &mut u16) {
    for (name, of) in &table.services {
        let (space, name) = parted(table, name);
        for port in of.keys() {
            ports.entry((format!("{space}/{name}"), *port)).or_insert_with(|| {
                *next += 1;
                *next
            });
        }
    }
}

/// The application of a service (`NAMESPACE/NAME`).
fn pod_behind(service: &str) -> String {
    format!("{}/apps", split(service).0)
}

/// Namespace and name of `[pod/]SERVICE:PORT`, and the port.
fn parted_target<'n>(table: &'n Table, to: &'n str) -> ((&'n str, &'n str), u16) {
    let (name, port) = to.rsplit_once(':').expect("SERVICE:PORT");
    let name = name.strip_prefix("pod/").unwrap_or(name);
    (parted(table, name), port.parse().expect("a port"))
}

/// A route of the table as a manifest, with the group's prefix at its own name and at those of services.
fn manifest(table: &Table, given: &Manifest, position: u64, prefix: &str) -> Value {
    let kinds = [
        ("HTTPRoute", &given.http),
        ("GRPCRoute", &given.grpc),
        ("TLSRoute", &given.tls),
        ("TCPRoute", &given.tcp),
    ];
    let named = kinds.into_iter().find_map(|(kind, name)| Some((kind, name.as_ref()?)));
    let (kind, name) = named.expect("a kind and a name");
    let (space, name) = parted(table, name);
    let mut spec = given.spec.clone();
    rename::references(&mut spec, prefix);
    for parent in spec["parentRefs"].as_array_mut().into_iter().flatten() {
        parent["group"] = json!("");
    }
    let created = given.created.unwrap_or(position);
    let stamp = format!("1970-01-01T{:02}:{:02}:{:02}Z", created / 3600, created / 60 % 60, created % 60);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": format!("{prefix}{name}"), "namespace": space, "creationTimestamp": stamp},
        "spec": spec,
    })
}

/// A row that is run.
pub(super) struct Case<'t> {
    pub(super) table: &'t Table,
    pub(super) row: &'t Row,
    /// File, group and row.
    pub(super) name: String,
    /// By which applications count its requests.
    pub(super) key: String,
    group: usize,
    client: String,
    request: Value,
}

impl<'t> Case<'t> {
    /// The row as a request; none if it cannot be run, which is noted.
    fn new(
        table: &'t Table,
        row: &'t Row,
        name: String,
        (group, at): (usize, usize),
        report: &mut Report,
    ) -> Option<Self> {
        let key = format!("g{group}r{at}");
        match request(table, row, group, &key) {
            Ok(request) => {
                let space = row.client.as_deref().unwrap_or(&table.namespace);
                let client = pod_of(&format!("{space}/client"));
                Some(Self { table, row, name, key, group, client, request })
            }
            Err(why) => {
                report.left_out(&name, &why);
                None
            }
        }
    }

    /// The same with more requests, counted apart.
    fn again(&self, more: u64) -> Self {
        let key = format!("{}again", self.key);
        let mut request: Value =
            serde_json::from_str(&self.request.to_string().replace(&self.key, &key)).expect("it was JSON");
        request["times"] = json!(self.row.times * more);
        let (name, client) = (self.name.clone(), self.client.clone());
        Self { table: self.table, row: self.row, name, key, group: self.group, client, request }
    }
}

/// What `http-peer rows` sends for a row, or why the row cannot be run.
fn request(table: &Table, row: &Row, group: usize, key: &str) -> Result<Value, String> {
    if let Some((_, why)) = LEFT_OUT.iter().find(|(name, _)| *name == row.name) {
        return Err((*why).to_owned());
    }
    if !row.is_for("mesh") {
        return Err("it is for other drivers only".to_owned());
    }
    // What is refused does not reach the application.
    let reaches = row.upstream.iter().filter(|value| value.as_str() != Some("refused"));
    let deeds: Vec<String> = reaches.map(deed).collect::<Result<_, _>>()?;
    let ((space, name), port) = parted_target(table, &row.to);
    let address = format!("{}{name}.{space}.svc.cluster.local:{port}", rename::prefix(group));
    let script = [&[key.to_owned()], &deeds[..]].concat().join(" ");
    let sent = &row.request;
    if sent.stream || sent.sni.is_some() {
        let lines = [["x-peer-row".to_owned(), script]];
        let raw = super::raw::request("GET", "/", &[name.to_owned()], &lines);
        let raw = super::raw::hexadecimal(&raw);
        return Ok(json!({"address": address, "raw": raw, "sni": sent.sni, "times": row.times}));
    }
    let mut headers = vec![["x-peer-row".to_owned(), script]];
    for (name, value) in &sent.headers {
        let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values = value.as_array().map_or_else(|| vec![one(value)], |all| all.iter().map(one).collect());
        headers.extend(values.into_iter().map(|value| [name.clone(), value]));
    }
    if sent.grpc.is_some() {
        headers.push(["content-type".to_owned(), "application/grpc".to_owned()]);
        headers.push(["te".to_owned(), "trailers".to_owned()]);
    }
    if sent.headers.keys().any(|name| name.eq_ignore_ascii_case("upgrade")) {
        headers.push(["connection".to_owned(), "upgrade".to_owned()]);
    }
    let call = sent.grpc.as_ref().map(|call| format!("/{call}"));
    let method = if call.is_some() { "POST" } else { "GET" };
    let host = row.to.rsplit_once(':').map_or(&*row.to, |(name, _)| name).trim_start_matches("pod/");
    Ok(json!({
        "address": address,
        "method": sent.method.as_deref().unwrap_or(method),
        "path": call.or_else(|| sent.path.clone()).unwrap_or_else(|| "/".to_owned()),
        "host": sent.host.as_deref().unwrap_or(host),
        "headers": headers,
        "http2": table.services.values().any(|of| of.get(&port).is_some_and(|about| about.name == "grpc")),
        "body_bytes": if sent.body.as_deref() == Some("gone") { BODY_GONE } else { 0 },
        "times": row.times,
    }))
}

/// What an application is told to do with an attempt, or why it cannot.
fn deed(value: &Value) -> Result<String, String> {
    match (value.as_u64(), value.as_str()) {
        (Some(status), _) => return Ok(status.to_string()),
        (None, Some(word @ ("reset" | "hang"))) => return Ok(word.to_owned()),
        (None, Some("refusedStream")) => return Err("HTTP/1.1 to the application has no streams".to_owned()),
        (None, Some(other)) => panic!("upstream {other}"),
        (None, None) => {}
    }
    let time = |name: &str| {
        let text = value.get(name).and_then(Value::as_str)?;
        Some(humantime::parse_duration(text).unwrap_or_else(|e| panic!("{text}: {e}")))
    };
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    let mut parts = Vec::new();
    parts.extend(number("status").map(|status| status.to_string()));
    parts.extend(number("grpc").map(|code| format!("grpc={code}")));
    if let Some(pause) = time("retryAfter") {
        if pause.subsec_millis() > 0 {
            return Err("Retry-After counts whole seconds".to_owned());
        }
        parts.push(format!("retry={}", pause.as_secs()));
    }
    if let Some(after) = time("after") {
        if after > AFTER_MAX {
            return Err(format!("an answer after {after:?} is too long to wait for"));
        }
        parts.push(format!("after={}", after.as_millis()));
    }
    Ok(parts.join(","))
}
