//! Following kinds on a scripted API server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_manifest::{Kind, Located, Problem};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Batch, Scope, Selection, State, watch, watch_as};
use crate::testing::{Asked, Reply, client, status};

const SOON: Duration = Duration::from_secs(20);

/// Watches that will be opened, in order; a test holds the other ends.
#[derive(Clone, Default)]
struct Script {
    watches: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn push(&self, reply: Reply) {
        self.watches.lock().unwrap().push_back(reply);
    }

    /// A watch whose events the test sends.
    fn open(&self) -> mpsc::Sender<Value> {
        let (sender, receiver) = mpsc::channel(64);
        self.push(Reply::Events(receiver));
        sender
    }

    fn queries(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn client(&self) -> Client {
        let script = self.clone();
        client(move |asked: Asked| {
            script.asked.lock().unwrap().push(format!("{}?{}", asked.path, asked.query));
            let next = script.watches.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Reply::status(500, "InternalError"))
        })
    }
}

fn service(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(),
            "managedFields": [{ "fieldsV1": {} }],
        },
        "spec": { "clusterIP": "10.0.0.1" },
    })
}

fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn bookmark(version: u64, listed: bool) -> Value {
    let annotations = if listed { json!({ "k8s.io/initial-events-end": "true" }) } else { json!({}) };
    event(
        "BOOKMARK",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "resourceVersion": version.to_string(), "annotations": annotations },
        }),
    )
}

fn services() -> Scope {
    Scope { kinds: vec![Selection::all(Kind::Service)] }
}

async fn next<T>(batches: &mut mpsc::Receiver<Batch<T>>) -> Batch<T> {
    timeout(SOON, batches.recv()).await.expect("a batch in time").expect("a batch")
}

fn names(objects: &[Located]) -> Vec<&str> {
    objects.iter().map(|object| object.key.name.as_str()).collect()
}

/// Two services listed by watch.
async fn listed(script: &Script) -> (mpsc::Sender<Value>, State, mpsc::Receiver<Batch>) {
    let events = script.open();
    for line in [event("ADDED", service("a", 1)), event("ADDED", service("b", 2)), bookmark(5, true)] {
        events.send(line).await.unwrap();
    }
    let (state, batches) = timeout(SOON, watch(script.client(), services())).await.expect("a state in time");
    (events, state, batches)
}

#[tokio::test]
async fn the_first_state_is_the_whole_listing_and_changes_follow() {
    let script = Script::default();
    let (events, state, mut batches) = listed(&script).await;
    assert_eq!((names(&state.objects), state.revision), (vec!["a", "b"], 5));
    assert!(state.objects[0].value["metadata"].get("managedFields").is_none());
    assert!(script.queries()[0].contains("sendInitialEvents=true"), "{:?}", script.queries());

    events.send(event("MODIFIED", service("a", 6))).await.unwrap();
    events.send(event("ADDED", service("c", 7))).await.unwrap();
    events.send(event("DELETED", service("b", 8))).await.unwrap();
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    let mut revision = 0;
    while revision < 8 {
        let batch = next(&mut batches).await;
        changed.extend(batch.changed.iter().map(|o| o.key.name.clone()));
        removed.extend(batch.removed.iter().map(ToString::to_string));
        revision = batch.revision;
    }
    assert_eq!((changed, removed), (vec!["a".to_owned(), "c".to_owned()], vec!["Service shop/b".to_owned()]));
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let script = Script::default();
    let (events, _, mut batches) = listed(&script).await;
    let more = script.open();
    events.send(bookmark(9, false)).await.unwrap();
    drop(events);
    more.send(event("ADDED", service("c", 10))).await.unwrap();
    assert_eq!(names(&next(&mut batches).await.changed), ["c"]);
    let second = &script.queries()[1];
    assert!(second.contains("resourceVersion=9") && !second.contains("sendInitialEvents"), "{second}");
}

#[tokio::test]
async fn after_the_server_forgot_a_listing_finds_what_vanished() {
    let script = Script::default();
    let (events, _, mut batches) = listed(&script).await;
    let again = script.open();
    events.send(json!({ "type": "ERROR", "object": status(410, "Expired") })).await.unwrap();
    // a is as it was, b is gone, c is new.
    for line in [event("ADDED", service("a", 1)), event("ADDED", service("c", 11)), bookmark(12, true)] {
        again.send(line).await.unwrap();
    }
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    while removed.is_empty() {
        let batch = next(&mut batches).await;
        changed.extend(batch.changed.iter().map(|o| o.key.name.clone()));
        removed.extend(batch.removed.iter().map(ToString::to_string));
        assert!(batch.stale.is_empty());
    }
    assert_eq!((changed, removed), (vec!["c".to_owned()], vec!["Service shop/b".to_owned()]));
}

#[tokio::test]
async fn a_lost_server_keeps_the_state_and_is_told() {
    let script = Script::default();
    let (events, _, mut batches) = listed(&script).await;
    for _ in 0..3 {
        script.push(Reply::status(403, "Forbidden"));
    }
    let again = script.open();
    drop(events);
    let batch = next(&mut batches).await;
    assert!(batch.changed.is_empty() && batch.removed.is_empty());
    let words = batch.stale.join("\n");
    assert!(words.starts_with("services: watch services of the cluster: refused (HTTP 403)"), "{words}");
    assert!(words.contains(r#"resources: ["services"], verbs: ["watch"] in a ClusterRole"#), "{words}");

    again.send(event("MODIFIED", service("a", 20))).await.unwrap();
    let mut batch = next(&mut batches).await;
    while batch.changed.is_empty() || !batch.stale.is_empty() {
        batch = next(&mut batches).await;
    }
    assert_eq!(names(&batch.changed), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_opens_and_fails_each_time_is_told_and_listed_anew() {
    let script = Script::default();
    let (events, _, mut batches) = listed(&script).await;
    // Each opens well and then fails: the server cannot read what it would have to send from there.
    for _ in 0..5 {
        let failing = script.open();
        let failure = json!({ "type": "ERROR", "object": status(500, "InternalError") });
        failing.send(failure).await.unwrap();
    }
    let again = script.open();
    for line in [event("ADDED", service("a", 1)), event("ADDED", service("c", 31)), bookmark(32, true)] {
        again.send(line).await.unwrap();
    }
    drop(events);
    let (mut changed, mut removed, mut was_stale) = (Vec::new(), Vec::new(), false);
    let mut is_stale = true;
    while removed.is_empty() || is_stale {
        let batch = next(&mut batches).await;
        changed.extend(batch.changed.iter().map(|o| o.key.name.clone()));
        removed.extend(batch.removed.iter().map(ToString::to_string));
        is_stale = !batch.stale.is_empty();
        was_stale |= is_stale;
    }
    assert!(was_stale, "nobody was told");
    assert_eq!((changed, removed), (vec!["c".to_owned()], vec!["Service shop/b".to_owned()]));
    let queries = script.queries();
    let anew: Vec<_> = queries.iter().map(|query| query.contains("sendInitialEvents=true")).collect();
    assert_eq!(anew, [true, false, false, false, false, false, true], "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_stays_quiet_is_well_again_before_its_first_event() {
    let script = Script::default();
    let (events, _, mut batches) = listed(&script).await;
    for _ in 0..3 {
        script.push(Reply::status(403, "Forbidden"));
    }
    let _quiet = script.open();
    drop(events);
    assert!(!next(&mut batches).await.stale.is_empty());
    assert!(next(&mut batches).await.stale.is_empty(), "still told as lost");
}

#[tokio::test]
async fn a_server_that_does_not_list_by_watch_is_read_in_pages() {
    let script = Script::default();
    script.push(Reply::status(422, "Invalid"));
    script.push(Reply::Json(200, json!({ "metadata": { "continue": "more" }, "items": [service("a", 1)] })));
    script.push(Reply::Json(
        200,
        json!({ "metadata": { "resourceVersion": "30" }, "items": [service("b", 2)] }),
    ));
    let events = script.open();
    let (state, mut batches) =
        timeout(SOON, watch(script.client(), services())).await.expect("a state in time");
    assert_eq!((names(&state.objects), state.revision), (vec!["a", "b"], 30));
    events.send(event("ADDED", service("c", 31))).await.unwrap();
    assert_eq!(names(&next(&mut batches).await.changed), ["c"]);
    let queries = script.queries();
    assert!(queries[2].contains("continue=more"), "{queries:?}");
    assert!(queries[3].contains("resourceVersion=30"), "{queries:?}");
}

fn policy(name: &str, version: u64, action: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": version.to_string() },
        "spec": { "action": action, "rules": [{}] },
    })
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_later_is_waited_for_and_nonsense_is_isolated() {
    let crd = Arc::new(Mutex::new(false));
    let (events, receiver) = mpsc::channel(64);
    let stream = Arc::new(Mutex::new(Some(receiver)));
    let installed = crd.clone();
    let server = client(move |asked: Asked| {
        if !*installed.lock().unwrap() {
            return Reply::status(404, "NotFound");
        }
        match asked.path.as_str() {
            "/apis/security.istio.io/v1" => Reply::Json(
                200,
                json!({ "groupVersion": "security.istio.io/v1", "resources": [{
                    "name": "authorizationpolicies", "kind": "AuthorizationPolicy", "namespaced": true,
                    "singularName": "", "verbs": ["list", "watch"],
                }] }),
            ),
            "/apis/security.istio.io/v1/authorizationpolicies" => {
                stream.lock().unwrap().take().map_or(Reply::Never, Reply::Events)
            }
            _ => Reply::status(404, "NotFound"),
        }
    });
    let scope = Scope { kinds: vec![Selection::all(Kind::AuthorizationPolicy)] };
    let (state, mut batches) = timeout(SOON, watch(server, scope)).await.expect("not waited for");
    assert!(state.objects.is_empty() && state.problems.is_empty());

    *crd.lock().unwrap() = true;
    for line in [
        event("ADDED", policy("good", 1, "DENY")),
        event("ADDED", policy("bad", 2, "PERHAPS")),
        event("ADDED", json!({ "metadata": { "name": 7 } })),
        bookmark(3, true),
    ] {
        events.send(line).await.unwrap();
    }
    let mut good = Vec::new();
    let mut batch = next(&mut batches).await;
    loop {
        good.extend(batch.changed.iter().map(|o| o.key.name.clone()));
        if !good.is_empty() && !batch.problems.is_empty() {
            break;
        }
        batch = next(&mut batches).await;
    }
    assert_eq!(good, ["good"]);
    let of_bad = batch.problems.iter().find(|p| p.object.as_ref().is_some_and(|key| key.name == "bad"));
    assert_eq!(of_bad.map(|p| p.field.as_str()), Some("spec.action"), "{:?}", batch.problems);

    // The good one turns bad: it stays as it was. The bad one turns good: its problem goes.
    events.send(event("MODIFIED", policy("good", 4, "NEVER"))).await.unwrap();
    events.send(event("MODIFIED", policy("bad", 5, "ALLOW"))).await.unwrap();
    let mut batch = next(&mut batches).await;
    while batch.revision < 5 {
        batch = next(&mut batches).await;
    }
    assert!(batch.removed.is_empty());
    let wrong: Vec<_> =
        batch.problems.iter().filter_map(|p| p.object.as_ref()).map(|k| k.name.as_str()).collect();
    assert_eq!(wrong, ["good"]);
}

#[tokio::test]
async fn pods_are_read_lean_and_refusals_of_the_caller_are_problems() {
    let pod = |name: &str, version: u64| {
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": "u", "resourceVersion": version.to_string(),
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{ "fieldsV1": { "f:spec": {} } }],
            },
            "spec": {
                "serviceAccountName": "cart", "nodeName": "n1", "volumes": [{ "name": "v" }],
                "containers": [{
                    "name": "c", "image": "i", "env": [{ "name": "A", "value": "b" }],
                    "ports": [{ "containerPort": 80, "name": "http" }],
                    "livenessProbe": { "httpGet": { "port": "http" } },
                }],
            },
            "status": {
                "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }],
                "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null }],
                "containerStatuses": [{ "name": "c" }],
            },
        })
    };
    let script = Script::default();
    let events = script.open();
    for line in [event("ADDED", pod("a", 1)), event("ADDED", pod("refused", 2)), bookmark(3, true)] {
        events.send(line).await.unwrap();
    }
    let make = |located: Located| -> Result<Located, Vec<Problem>> {
        if located.key.name == "refused" {
            Err(vec![located.problem("spec", "not this one")])
        } else {
            Ok(located)
        }
    };
    let scope = Scope { kinds: vec![Selection::all(Kind::Pod)] };
    let (state, _batches) = timeout(SOON, watch_as(script.client(), scope, make)).await.expect("in time");
    assert_eq!(names(&state.objects), ["a"]);
    assert_eq!(state.problems.len(), 1);
    let ambit_manifest::Object::Pod(read) = &*state.objects[0].object else { panic!("a pod") };
    let (spec, status) = (read.spec.as_ref().unwrap(), read.status.as_ref().unwrap());
    assert_eq!(spec.service_account_name.as_deref(), Some("cart"));
    assert!(spec.containers[0].liveness_probe.is_some() && spec.containers[0].image.is_none());
    assert!(read.metadata.creation_timestamp.is_some());
    assert_eq!(status.pod_ips.as_ref().unwrap()[0].ip, "10.1.0.1");
    assert_eq!(status.conditions.as_ref().unwrap()[0].type_, "Ready");
}

#[tokio::test]
async fn everything_ends_when_nobody_listens() {
    let script = Script::default();
    let (events, _, batches) = listed(&script).await;
    drop(batches);
    timeout(SOON, events.closed()).await.expect("the watch is given up");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_a_server_does_not_know_for_a_moment_costs_no_object() {
    let known = Arc::new(Mutex::new(true));
    let streams = Script::default();
    let (is_known, script) = (known.clone(), streams.clone());
    let server = client(move |asked: Asked| match asked.path.as_str() {
        _ if !*is_known.lock().unwrap() => Reply::status(404, "NotFound"),
        "/apis/security.istio.io/v1" => {
            let resource = json!({
                "name": "authorizationpolicies", "kind": "AuthorizationPolicy", "namespaced": true,
                "singularName": "", "verbs": ["list", "watch"],
            });
            Reply::Json(200, json!({ "groupVersion": "security.istio.io/v1", "resources": [resource] }))
        }
        _ => script.watches.lock().unwrap().pop_front().unwrap_or(Reply::Never),
    });
    let list = async |events: &mpsc::Sender<Value>| {
        events.send(event("ADDED", policy("lock", 1, "DENY"))).await.unwrap();
        events.send(bookmark(2, true)).await.unwrap();
    };
    let first = streams.open();
    list(&first).await;
    let scope = Scope { kinds: vec![Selection::all(Kind::AuthorizationPolicy)] };
    let (state, mut batches) = timeout(SOON, watch(server, scope)).await.expect("a state in time");
    assert_eq!(names(&state.objects), ["lock"]);

    let second = streams.open();
    *known.lock().unwrap() = false;
    drop(first);
    let moment = timeout(Duration::from_secs(4), batches.recv()).await;
    assert!(moment.is_err(), "{moment:?}");
    *known.lock().unwrap() = true;
    list(&second).await;
    let nothing = timeout(Duration::from_secs(4), batches.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");

    // Gone for good, its objects are.
    *known.lock().unwrap() = false;
    drop(second);
    assert_eq!(next(&mut batches).await.removed.len(), 1);
}
