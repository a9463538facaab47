//! Row 14: objects that are wrong. What is no object at all is refused at once, with file, line and field; what refers to
//! what is not there, or cannot be carried out, says so in its conditions and in `ambit status`. Beside it, everything
//! that is right goes on, also what stood in its own place before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use serde::Deserialize;
use serde_json::{Value, json};

use super::called::peer_pod;
use super::shop::{CLIENT, PORT, Told, told};
use crate::cast::{account, namespace, pod};

mod broken;

use broken::{BROKEN, Broken};

const TABLE: &str = include_str!("../../tables/conditions.yaml");
/// What a command says about input it cannot use.
const BAD_INPUT: i32 = 65;
/// Longest wait for what the control plane says.
const WAIT: Duration = Duration::from_secs(5);
/// The service that all of it is about.
const WEB: &str = "http://web.shop.svc.cluster.local";

/// The rows that are run here: every kind of object, and every way to be wrong.
const CHOSEN: [&str; 23] = [
    "a parent that is not there",
    "a port that the parent does not have",
    "an alias as parent",
    "a parent without an address",
    "a parent that no waypoint serves",
    "one parent of two",
    "a backend that is not there",
    "a backend of another kind",
    "a backend that speaks TLS",
    "a backend of another namespace",
    "a mirror that leads nowhere",
    "a weaker kind on the same port",
    "a stronger kind on the same port",
    "a pattern that is none",
    "a path that no request has",
    "a rewrite and a redirect",
    "a filter twice",
    "a header that frames the message",
    "time-outs the wrong way round",
    "a traffic policy for a service that is not there",
    "a virtual service for what it does not own",
    "an authorization policy for a service that is not there",
    "tokens for nothing",
];

#[derive(Debug, Deserialize)]
struct Table {
    world: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    given: String,
    /// Conditions by object (`KIND NAMESPACE/NAME`).
    says: BTreeMap<String, Vec<String>>,
    /// Requests, as `PATH STATUS` or `PATH BACKEND`.
    #[serde(default)]
    still: Vec<String>,
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| serde_saphyr::from_str(part).expect("the table holds manifests")).collect()
}

/// The table's world as the lab can have it: addresses are the lab's own, and there are pods behind the services.
fn cast(world: &str) -> Vec<Value> {
    let mut all = documents(world);
    for object in &mut all {
        let (kind, name) = (word(object, "/kind"), word(object, "/metadata/name"));
        match &*kind {
            "Namespace" => object["metadata"]["labels"]["istio.io/dataplane-mode"] = json!("ambient"),
            "Gateway" => drop(object.as_object_mut().and_then(|fields| fields.remove("status"))),
            "Service" => at_home(object, &name),
            _ => {}
        }
    }
    let port = PORT.to_string();
    let mut client = pod(CLIENT, "node1", &[]);
    client["spec"]["serviceAccountName"] = json!("client");
    all.extend([namespace("bank", true), account(CLIENT), client]);
    for (name, node) in [("a", "node2"), ("web", "node1")] {
        let args = ["serve", "--port", &port, "--name", name];
        all.push(peer_pod(&format!("shop/{name}"), node, &args, PORT));
    }
    // A namespace comes before what is in it.
    all.sort_by_key(|object| object["kind"] != "Namespace");
    all
}

fn at_home(service: &mut Value, name: &str) {
    let spec = service["spec"].as_object_mut().expect("a service's spec");
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.remove("clusterIP");
    }
    if spec.get("type").is_none() {
        spec.insert("selector".to_owned(), json!({"app": name}));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port["targetPort"] = json!(PORT);
    }
}

fn word(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A lab of the table's world.
struct World {
    lab: Lab,
    rows: Vec<Row>,
}

impl World {
    #[track_caller]
    fn up(name: &str) -> Option<Self> {
        let table: Table = serde_saphyr::from_str(TABLE).expect("the table has the form its head describes");
        let world = Self { lab: Lab::up(name, &cast(&table.world), &[])?, rows: table.rows };
        wait_until("the good route is in force", Duration::from_secs(20), || world.sent("/good") == "a");
        Some(world)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Told {
        let url = format!("{WEB}{path}");
        let peer = ambit_tests::lab::http_peer();
        let args = [&*peer, "get", "--url", &url, "--timeout", "5s"];
        told(&self.lab.spawn(CLIENT, &args).finish(Duration::from_secs(30)))
    }

    /// Which service answered, or else with which status.
    #[track_caller]
    fn sent(&self, path: &str) -> String {
        let told = self.get(path);
        match told.status() {
            200 => told.header("x-peer").to_owned(),
            status => status.to_string(),
        }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> Value {
        let socket = self.lab.run_dir().join("istiod/admin.sock").display().to_string();
        let url = format!("http://localhost{path}");
        let answer = self.lab.on_node("node1", &["curl", "-sS", "--unix-socket", &socket, &url]).ok();
        serde_json::from_str(&answer).expect("JSON from an admin socket")
    }

    /// What the conditions of an object say, in order; none if it has no report.
    #[track_caller]
    fn says(&self, object: &str) -> Option<Vec<String>> {
        let dump = self.ask("/config_dump");
        let mut reports = dump["reports"].as_array().into_iter().flatten();
        let report = reports.find(|report| named(report) == object)?;
        let words = |one: &Value| {
            let part = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            format!("{}={} {}: {}", part("type"), part("status"), part("reason"), part("message"))
        };
        Some(report["conditions"].as_array().into_iter().flatten().map(words).collect())
    }

    /// Waits until the conditions of an object are these.
    #[track_caller]
    fn until_said(&self, row: &str, object: &str, want: &[String]) {
        let mut said = None;
        let end = ambit_runtime::clock::monotonic() + WAIT;
        while said.as_deref() != Some(want) {
            assert!(ambit_runtime::clock::monotonic() < end, "{row}: {object} says {said:#?}, not {want:#?}");
            said = self.says(object);
        }
    }

    /// The generations of an object's conditions are that of the object.
    #[track_caller]
    fn of_its_generation(&self, row: &str, object: &str) {
        let (kind, name) = object.split_once(' ').expect("KIND NAME");
        // Who stores it may count generations or not; without one it is 0.
        let stored = self.lab.get(&kind.to_lowercase(), name);
        let generation = stored["metadata"]["generation"].as_i64().unwrap_or_default();
        let dump = self.ask("/config_dump");
        let mut reports = dump["reports"].as_array().into_iter().flatten();
        let report = reports.find(|report| named(report) == object).expect("it has a report");
        for condition in report["conditions"].as_array().into_iter().flatten() {
            assert_eq!(condition["generation"], generation, "{row}: {object}: {condition:#}");
        }
    }

    /// Whether `ambit status` names an object, for people and for programs.
    #[track_caller]
    fn is_shown(&self, object: &str) -> bool {
        let table = self.lab.ambit(&["status"]);
        let json = self.lab.ambit(&["status", "-o", "json"]);
        let json: Value = serde_json::from_str(&json.stdout).expect("JSON from ambit status");
        let in_json = json["reports"].as_array().into_iter().flatten().any(|report| named(report) == object);
        let in_table = table.stdout.lines().any(|line| line.starts_with(&format!("{object} ")));
        assert_eq!(in_json, in_table, "{object} in ambit status: {}\n{json:#}", table.stdout);
        in_json
    }

    #[track_caller]
    fn delete(&self, object: &Value) {
        let kind = word(object, "/kind").to_lowercase();
        let (name, place) = (word(object, "/metadata/name"), word(object, "/metadata/namespace"));
        drop(self.lab.lab(&["delete", &kind, &name, "-n", &place]));
    }
}

fn named(report: &Value) -> String {
    format!("{} {}", word(report, "/kind"), word(report, "/name"))
}

fn is_fault(words: &str) -> bool {
    words.contains("=False ") || words.starts_with("PartiallyInvalid")
}

#[test]
fn a_broken_object_says_what_is_wrong_and_its_siblings_stay_in_force() {
    let Some(world) = World::up("wp-conditions") else { return };
    let chosen: Vec<&Row> = world.rows.iter().filter(|row| CHOSEN.contains(&&*row.name)).collect();
    assert_eq!(chosen.len(), CHOSEN.len(), "rows of the table that are run here");
    assert!(3 * chosen.len() >= world.rows.len(), "{} of {} rows", chosen.len(), world.rows.len());
    for row in chosen {
        let file = world.lab.file("given.yaml", &row.given);
        drop(world.lab.lab(&["apply", "-f", &file]));
        for (object, want) in &row.says {
            world.until_said(&row.name, object, want);
            world.of_its_generation(&row.name, object);
            let is_faulty = want.iter().any(|words| is_fault(words));
            assert_eq!(world.is_shown(object), is_faulty, "{}: {object} in ambit status", row.name);
        }
        for want in &row.still {
            let (path, _) = want.split_once(' ').expect("PATH OUTCOME");
            assert_eq!(format!("{path} {}", world.sent(path)), *want, "{}", row.name);
        }
        drop(world.lab.lab(&["delete", "-f", &file]));
        assert_eq!(world.sent("/good"), "a", "after: {}", row.name);
    }
    fails_closed(&world);
    takes_the_place_of_a_good_one(&world);
}

/// A policy that cannot be carried out lets nobody through rather than everybody.
fn fails_closed(world: &World) {
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "action": "DENY",
            "rules": [{"to": [{"operation": {"paths": ["/admin?x=1"]}}]}],
        },
    });
    world.lab.apply(std::slice::from_ref(&policy));
    let object = "AuthorizationPolicy shop/p";
    wait_until("the policy says so", WAIT, || {
        let said = world.says(object).unwrap_or_default();
        said.iter().any(|words| {
            words.starts_with("WaypointAccepted=False Invalid: rules[0].to[0].operation.paths[0]:")
        })
    });
    assert!(world.is_shown(object));
    assert_eq!(world.sent("/good"), "403", "a policy that cannot be carried out");
    world.delete(&policy);
    assert_eq!(world.sent("/good"), "a", "without it");
}

/// Well-formed, and leading nowhere: what it replaced is not in force any more, and its sibling is.
fn takes_the_place_of_a_good_one(world: &World) {
    let route = |name: &str, path: &str, backend: &str| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
                "rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"name": backend, "port": 80}]}],
            },
        })
    };
    world.lab.apply(&[route("sibling", "/sibling", "a")]);
    world.lab.apply(&[route("good", "/good", "gone")]);
    assert_eq!((&*world.sent("/good"), &*world.sent("/sibling")), ("500", "a"));
    assert!(world.is_shown("HTTPRoute shop/good") && !world.is_shown("HTTPRoute shop/sibling"));
    world.lab.apply(&[route("good", "/good", "a")]);
    assert_eq!((&*world.sent("/good"), &*world.sent("/sibling")), ("a", "a"));
    assert!(!world.is_shown("HTTPRoute shop/good"));
}

#[test]
fn a_manifest_that_is_none_is_refused_with_its_place_and_the_good_one_stays() {
    let Some(world) = World::up("wp-refused") else { return };
    let revision =
        || fs::read_to_string(world.lab.run_dir().join("objects/.revision")).expect("its revision");
    let mut wrong = Vec::new();
    for Broken { line, field, manifest } in &BROKEN {
        let before = revision();
        let file = world.lab.file("broken.yaml", manifest);
        let output = world.lab.ambit(&["lab", "apply", "-f", &file]);
        let place = output.stderr.contains(&format!("broken.yaml:{line}:"));
        let is_named = output.stderr.contains(&format!(" {field}: "));
        if output.code != Some(BAD_INPUT) || !place || !is_named || revision() != before {
            wrong.push(format!("{field}: exit {:?}: {}", output.code, output.stderr));
        }
        if world.sent("/good") != "a" {
            wrong.push(format!("{field}: the route that is in force is not any more"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
    in_the_folder(&world);
}

/// A file of people's own holds a route; each broken one takes its place, and the route stays in force.
fn in_the_folder(world: &World) {
    let file = world.lab.run_dir().join("objects/dropped.yaml");
    let good = BROKEN[0].manifest.replace("matchez", "matches").replace("good", "dropped");
    put(&file, &good);
    wait_until("the route of the file is in force", WAIT, || world.sent("/dropped") == "a");
    for Broken { line, field, manifest } in &BROKEN[..9] {
        put(&file, &manifest.replace("good", "dropped"));
        wait_until(&format!("{field} is reported at its place"), WAIT, || {
            let sync = world.ask("/sync");
            let mut problems = sync["problems"].as_array().into_iter().flatten();
            problems.any(|one| {
                let at = &one["location"];
                one["field"] == *field && at["line"] == *line && at["file"].as_str() == file.to_str()
            })
        });
        let status = world.lab.ambit(&["status"]).stdout;
        let place = format!("dropped.yaml:{line}:");
        let is_told = status.lines().any(|told| told.contains(&place) && told.contains(field));
        assert!(is_told, "{field} in ambit status: {status}");
        assert_eq!((&*world.sent("/dropped"), &*world.sent("/good")), ("a", "a"), "{field}");
        put(&file, &good);
        wait_until(&format!("{field} is mended"), WAIT, || world.ask("/sync")["problems"] == json!([]));
    }
    assert!(!world.lab.ambit(&["status"]).stdout.contains("dropped.yaml"), "what is mended is told");
}

/// Puts a file in place in one step.
fn put(file: &Path, text: &str) {
    let unfinished = file.with_file_name(".unfinished");
    fs::write(&unfinished, text).expect("the folder is root's");
    fs::rename(&unfinished, file).expect("the folder is root's");
}
