//! The parts of a leader against a script of an API server: what is written, what is left alone, and when it stops.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_control::input::{
    EndpointSlice, Event, Gateway, GatewayClass, Key, Kind, Labels, Namespace, Object, Service, SliceEndpoint,
};
use ambit_control::{Name, index};
use ambit_manifest::{Kind as Written, Location, ObjectKey, Problem};
use ambit_runtime::drain::Drain;
use ambit_types::{Str, written};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::waypoint::{self, CLASS, CONTROLLER};
use super::{LeadParts, Settings, start};
use crate::world::World;

mod server;

use server::{Script, State};

const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/wp";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/wp";
const SERVICE: &str = "/api/v1/namespaces/shop/services/wp";
const CLASS_PATH: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/istio-waypoint";

/// A leader at work.
struct Cast {
    script: Arc<Script>,
    world: Arc<World>,
    leader: watch::Sender<bool>,
    changed: watch::Sender<u64>,
    bundle: watch::Sender<Arc<str>>,
    problems: watch::Sender<Arc<[Problem]>>,
    drain: Drain,
}

impl Cast {
    fn start() -> Self {
        let world = Arc::new(World::new(index::Settings::default()));
        let class = GatewayClass { name: CLASS.into(), labels: Labels::new(), controller: CONTROLLER.into() };
        world.apply(vec![Event::Put(Object::GatewayClass(class))]);
        let script = Script::new();
        script.state().unserved.insert("clustertrustbundles".to_owned());
        Self::with(script, world)
    }

    fn with(script: Arc<Script>, world: Arc<World>) -> Self {
        let (leader, leads) = watch::channel(true);
        let (changed, changes) = watch::channel(0);
        let (bundle, bundles) = watch::channel(Arc::<str>::from("ROOT 1"));
        let (problems, refused) = watch::channel(Arc::from(Vec::new()));
        let drain = Drain::new();
        drop(start(LeadParts {
            client: script.client(),
            leader: leads,
            world: world.clone(),
            changed: changes,
            bundle: bundles,
            problems: refused,
            settings: settings(),
            drain: drain.clone(),
        }));
        Self { script, world, leader, changed, bundle, problems, drain }
    }

    fn apply(&self, events: Vec<Event>) {
        self.world.apply(events);
        self.changed.send_modify(|count| *count += 1);
    }

    async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        self.script.until(what, holds).await;
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

fn settings() -> Settings {
    Settings {
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        instance: "istiod-lite-0".to_owned(),
        waypoints: Some(waypoint::objects::Settings {
            image: "waypoint:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: Vec::new(),
            control_plane: "https://istiod.istio-system.svc:15012".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            replicas_min: 1,
            replicas_max: 5,
            cpu_percent: 80,
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            grace_seconds: 30,
            log: "info".to_owned(),
        }),
    }
}

fn gateway(name: &str) -> Event {
    let listener = written::Listener {
        name: "mesh".to_owned(),
        port: 15008,
        protocol: "HBONE".to_owned(),
        ..written::Listener::default()
    };
    Event::Put(Object::Gateway(Box::new(Gateway {
        name: Name::new("shop", name),
        uid: Str::from("u-1"),
        generation: 1,
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: written::Gateway {
            gateway_class_name: CLASS.to_owned(),
            listeners: vec![listener],
            ..written::Gateway::default()
        },
        has_address: false,
    })))
}

fn written_gateway(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"gatewayClassName": CLASS},
    })
}

fn service(name: &str, labels: &[(&str, &str)]) -> Event {
    let address: IpAddr = "10.2.0.9".parse().expect("an address");
    Event::Put(Object::Service(Box::new(Service {
        name: Name::new("shop", name),
        created: 0,
        labels: labels.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect(),
        annotations: Labels::new(),
        selector: Labels::new(),
        cluster_ips: vec![address],
        ports: Vec::new(),
        external_name: false,
        node_local: false,
        traffic_distribution: None,
        publish_not_ready: false,
        ip_families_v6: Vec::new(),
    })))
}

fn endpoints(ready: bool) -> Event {
    let address = "10.1.0.4".parse().expect("an address");
    Event::Put(Object::EndpointSlice(EndpointSlice {
        name: Name::new("shop", "wp-1"),
        service: Str::from("wp"),
        ports: Vec::new(),
        endpoints: vec![SliceEndpoint { address, ready, pod: None }],
    }))
}

fn namespace(name: &str, mode: &str) -> Event {
    let labels = [(Str::from("istio.io/dataplane-mode"), Str::from(mode))];
    Event::Put(Object::Namespace(Namespace {
        name: Str::from(name),
        labels: labels.into_iter().collect(),
        annotations: Labels::new(),
    }))
}

/// The status and the reason of a condition.
fn condition(state: &State, path: &str, kind: &str) -> Option<(String, String)> {
    let all = state.objects.get(path)?.pointer("/status/conditions")?.as_array()?;
    let one = all.iter().find(|one| one["type"] == kind)?;
    Some((one["status"].as_str()?.to_owned(), one["reason"].as_str()?.to_owned()))
}

fn says(state: &State, path: &str, kind: &str, status: &str, reason: &str) -> bool {
    condition(state, path, kind) == Some((status.to_owned(), reason.to_owned()))
}

fn events(state: &State) -> Vec<&Value> {
    let is_event = |path: &&String| path.starts_with("/apis/events.k8s.io/v1/");
    state.objects.iter().filter(|(path, _)| is_event(path)).map(|(_, event)| event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_becomes_a_waypoint_and_says_when_it_can_be_reached() {
    let cast = Cast::start();
    cast.script.put(GATEWAY, written_gateway("wp"));
    cast.apply(vec![gateway("wp")]);
    for path in [
        DEPLOYMENT,
        SERVICE,
        "/api/v1/namespaces/shop/serviceaccounts/wp",
        "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/wp",
        "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/wp",
    ] {
        cast.until(path, |state| state.objects.contains_key(path)).await;
    }
    cast.until("it waits for its address", |state| {
        says(state, GATEWAY, "Programmed", "False", "AddressNotAssigned")
    })
    .await;
    cast.apply(vec![service("wp", &[]), endpoints(true)]);
    cast.until("it can be reached", |state| says(state, GATEWAY, "Programmed", "True", "Programmed")).await;
    let gateway = cast.script.object(GATEWAY).expect("a gateway");
    assert_eq!(gateway["status"]["addresses"][0]["value"], "10.2.0.9");
    assert_eq!(gateway["status"]["addresses"][1]["value"], "wp.shop.svc.cluster.local");
    assert_eq!(gateway["status"]["listeners"][0]["name"], "mesh");
    assert!(events(&cast.script.state()).is_empty(), "starting is nothing to warn of");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_not_written_again() {
    let cast = Cast::start();
    cast.script.put(GATEWAY, written_gateway("wp"));
    cast.apply(vec![gateway("wp"), service("wp", &[]), endpoints(true)]);
    cast.until("it can be reached", |state| says(state, GATEWAY, "Programmed", "True", "Programmed")).await;
    cast.until("the class is ours", |state| says(state, CLASS_PATH, "Accepted", "True", "Accepted")).await;
    let config = "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert";
    cast.until("roots", |state| state.objects.contains_key(config)).await;
    let before = cast.script.writes();
    // A change that can be waited for, with others around it that change nothing.
    cast.apply(Vec::new());
    cast.apply(vec![namespace("jobs", "ambient")]);
    cast.apply(Vec::new());
    let last = "/api/v1/namespaces/jobs/configmaps/istio-ca-root-cert";
    cast.until("roots of another namespace", |state| state.objects.contains_key(last)).await;
    let lines = cast.script.state().log.clone();
    let writes: Vec<&String> = lines.iter().filter(|line| !line.starts_with("GET ")).skip(before).collect();
    assert!(writes.iter().all(|line| line.contains("istio-ca-root-cert")), "{writes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_somebody_else_is_left_alone_and_named() {
    let cast = Cast::start();
    let foreign =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wp", "namespace": "shop"}});
    cast.script.put(SERVICE, foreign);
    cast.script.put(GATEWAY, written_gateway("wp"));
    cast.apply(vec![gateway("wp"), service("wp", &[]), endpoints(true)]);
    cast.until("it says so", |state| says(state, GATEWAY, "Programmed", "False", "Invalid")).await;
    cast.until("an Event says so", |state| !events(state).is_empty()).await;
    let state = cast.script.state();
    let note = events(&state)[0]["note"].as_str().unwrap_or_default();
    assert!(note.contains("Service shop/wp exists and was not made for this waypoint"), "{note}");
    assert!(state.objects.contains_key(DEPLOYMENT), "the others are made");
    assert!(
        !state.log.iter().any(|line| line.starts_with("PATCH") && line.contains(SERVICE)),
        "never touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_waypoint_that_cannot_be_made_does_not_stop_the_others() {
    let cast = Cast::start();
    let words = r#"deployments.apps is forbidden: User "x" cannot patch resource "deployments""#;
    cast.script.state().refused.push(("PATCH ".to_owned() + DEPLOYMENT, 403, words.to_owned()));
    cast.script.put(GATEWAY, written_gateway("wp"));
    cast.apply(vec![gateway("wp"), gateway("zz")]);
    let other = "/apis/apps/v1/namespaces/shop/deployments/zz";
    cast.until("the other", |state| state.objects.contains_key(other)).await;
    cast.until("it says so", |state| says(state, GATEWAY, "Programmed", "False", "Pending")).await;
    let gateway = cast.script.object(GATEWAY).expect("a gateway");
    let message = gateway["status"]["conditions"][1]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(r#"resources: ["deployments"], verbs: ["patch"]"#), "{message}");
    cast.script.state().refused.clear();
    cast.until("it is tried again", |state| state.objects.contains_key(DEPLOYMENT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_gateway_is_removed_and_only_that() {
    let made = |gateway: &str, manager: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": gateway, "namespace": "shop",
                "labels": {
                    "gateway.istio.io/managed": "istio.io-mesh-controller",
                    "gateway.networking.k8s.io/gateway-name": gateway,
                },
                "ownerReferences": [{"kind": "Gateway", "name": gateway, "uid": "u-1"}],
                "managedFields": [{"manager": manager}],
            },
        })
    };
    let script = Script::new();
    let path = |name: &str| format!("/apis/apps/v1/namespaces/shop/deployments/{name}");
    script.put(&path("gone"), made("gone", "ambit-istiod"));
    script.put(&path("unread"), made("unread", "ambit-istiod"));
    script.put(&path("foreign"), made("foreign", "istio.io/gateway-controller"));
    let unread = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/unread";
    script.put(unread, written_gateway("unread"));
    let cast = Cast::with(script, Arc::new(World::new(index::Settings::default())));
    let gone = path("gone");
    cast.until("removed", |state| !state.objects.contains_key(&gone)).await;
    cast.until("the others were asked for", |state| {
        state.log.iter().any(|line| line.starts_with("GET") && line.contains(unread))
    })
    .await;
    let state = cast.script.state();
    assert!(
        state.objects.contains_key(&path("unread")),
        "its Gateway is there, though the mesh knows it not"
    );
    assert!(state.objects.contains_key(&path("foreign")), "another controller's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_removed_is_made_again() {
    let cast = Cast::start();
    cast.script.put(GATEWAY, written_gateway("wp"));
    cast.apply(vec![gateway("wp"), service("wp", &[]), endpoints(true)]);
    cast.until("made", |state| says(state, GATEWAY, "Programmed", "True", "Programmed")).await;
    cast.script.state().objects.remove(SERVICE);
    cast.apply(vec![Event::Remove(Key::new(Kind::Service, Name::new("shop", "wp")))]);
    cast.until("made again", |state| state.objects.contains_key(SERVICE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_waypoint_keeps_its_pods_when_a_scaler_gets_them() {
    let scaler = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/wp";
    let count = |state: &State| state.objects.get(DEPLOYMENT).map(|live| live["spec"]["replicas"].clone());
    let annotated = |number: &str| {
        let Event::Put(Object::Gateway(mut one)) = gateway("wp") else { panic!("a gateway is put") };
        let pair = (Str::from(waypoint::objects::REPLICAS), Str::from(number));
        one.annotations = [pair].into_iter().collect();
        Event::Put(Object::Gateway(one))
    };
    let cast = Cast::start();
    cast.script.put(GATEWAY, written_gateway("wp"));
    for (fixed, kept) in [("5", 5), ("0", 1)] {
        cast.apply(vec![annotated(fixed)]);
        cast.until("as many as are asked for", |state| {
            count(state) == fixed.parse::<u64>().ok().map(Value::from)
        })
        .await;
        cast.until("no scaler", |state| !state.objects.contains_key(scaler)).await;
        cast.apply(vec![gateway("wp")]);
        // It is written after the Deployment.
        cast.until("a scaler", |state| state.objects.contains_key(scaler)).await;
        assert_eq!(count(&cast.script.state()), Some(json!(kept)), "after {fixed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_say_whether_they_have_their_waypoint_and_stop_saying_it() {
    let cast = Cast::start();
    let path = "/api/v1/namespaces/shop/services/web";
    let web =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}});
    cast.script.put(path, web);
    cast.apply(vec![service("web", &[("istio.io/use-waypoint", "wp")])]);
    let kind = "istio.io/WaypointBound";
    cast.until("not bound", |state| says(state, path, kind, "False", "WaypointIsNotReady")).await;
    cast.until("an Event says so", |state| !events(state).is_empty()).await;
    cast.apply(vec![service("web", &[])]);
    cast.until("says nothing", |state| condition(state, path, kind).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_leader_said_is_taken_back_when_it_is_not_so_any_more() {
    let script = Script::new();
    let path = "/api/v1/namespaces/shop/services/web";
    let said = json!({"type": "istio.io/WaypointBound", "status": "True", "reason": "WaypointAccepted"});
    script.put(
        path,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "status": {"conditions": [said]},
        }),
    );
    let cast = Cast::with(script, Arc::new(World::new(index::Settings::default())));
    cast.until("taken back", |state| condition(state, path, "istio.io/WaypointBound").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_where_pods_need_them_and_follow_the_bundle() {
    let cast = Cast::start();
    let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps/istio-ca-root-cert");
    let holds = |state: &State, namespace: &str, roots: &str| {
        state.objects.get(&path(namespace)).is_some_and(|map| map["data"]["root-cert.pem"] == roots)
    };
    cast.apply(vec![namespace("shop", "ambient"), namespace("plain", "none")]);
    cast.until("published", |state| holds(state, "shop", "ROOT 1") && holds(state, "istio-system", "ROOT 1"))
        .await;
    cast.bundle.send_replace(Arc::from("ROOT 1\nROOT 2"));
    cast.until("both roots", |state| {
        holds(state, "shop", "ROOT 1\nROOT 2") && holds(state, "istio-system", "ROOT 1\nROOT 2")
    })
    .await;
    cast.apply(vec![namespace("shop", "none")]);
    cast.until("removed", |state| !state.objects.contains_key(&path("shop"))).await;
    let state = cast.script.state();
    assert!(!state.objects.contains_key(&path("plain")), "nobody needs it there");
    assert!(state.objects.contains_key(&path("istio-system")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_of_somebody_else_is_left_alone() {
    let script = Script::new();
    let foreign = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": CLASS},
        "spec": {"controllerName": "example.com/other"},
    });
    script.put(CLASS_PATH, foreign);
    let cast = Cast::with(script, Arc::new(World::new(index::Settings::default())));
    let get = format!("GET {CLASS_PATH}");
    let roots = "/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert";
    cast.until("looked at", |state| {
        state.log.iter().any(|line| line.contains(&get)) && state.objects.contains_key(roots)
    })
    .await;
    let state = cast.script.state();
    assert!(
        !state.log.iter().any(|line| line.starts_with("P") && line.contains("gatewayclasses")),
        "not touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_leadership_drops_calls_that_are_under_way() {
    let cast = Cast::start();
    let held = Arc::new(());
    cast.script.state().silent = Some((format!("PATCH {DEPLOYMENT}"), held.clone()));
    cast.apply(vec![gateway("wp")]);
    cast.until("a call is under way", |state| {
        state.log.iter().any(|line| line.starts_with("PATCH") && line.contains(DEPLOYMENT))
    })
    .await;
    cast.leader.send_replace(false);
    // The script and this test hold it still; the call does no more. It would wait for an answer for seconds otherwise.
    let waited = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while Arc::strong_count(&held) > 2 {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "the call goes on");
    let writes = cast.script.writes();
    cast.apply(vec![namespace("shop", "ambient")]);
    cast.script.state().silent = None;
    cast.leader.send_replace(true);
    cast.until("made by the next leadership", |state| state.objects.contains_key(DEPLOYMENT)).await;
    assert!(cast.script.writes() > writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_says_so_until_it_can() {
    let cast = Cast::start();
    let policy = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/odd";
    let route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/odd";
    for (path, version, kind) in [
        (policy, "security.istio.io/v1", "AuthorizationPolicy"),
        (route, "gateway.networking.k8s.io/v1", "HTTPRoute"),
    ] {
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "odd", "namespace": "shop"}});
        cast.script.put(path, object);
    }
    let problem = |kind: Written| Problem {
        location: Location { file: Arc::from("kubernetes"), line: 1, column: 1 },
        object: Some(ObjectKey::new(kind, Some("shop"), "odd")),
        field: "spec.rules".to_owned(),
        message: "is no list".to_owned(),
        nearest: None,
        other: None,
    };
    let both: Arc<[Problem]> =
        Arc::from(vec![problem(Written::AuthorizationPolicy), problem(Written::HTTPRoute)]);
    cast.problems.send_replace(both);
    cast.apply(Vec::new());
    cast.until("refused", |state| says(state, policy, "Accepted", "False", "Invalid")).await;
    cast.until("one Event each", |state| events(state).len() == 2).await;
    cast.problems.send_replace(Arc::from(Vec::new()));
    cast.apply(Vec::new());
    cast.until("taken back", |state| condition(state, policy, "Accepted").is_none()).await;
}
