//! A run in which the mesh's programs do everything that they do in a cluster, but for what takes minutes.

use std::time::Duration;

use ambit::bundle::PARTS;
use ambit_tests::lab::{Lab, wait_until};
use serde_json::{Value, json};

use super::super::{LABEL, SETTLED, kubectl};
use crate::cast::{PORT, namespace, pod, server, service};

/// The five objects of a waypoint.
const PIECES: [&str; 5] = [
    "deployment/web-waypoint",
    "service/web-waypoint",
    "serviceaccount/web-waypoint",
    "poddisruptionbudget/web-waypoint",
    "horizontalpodautoscaler/web-waypoint",
];
const WEBHOOK: &str = "istio-validator-istio-system";
/// How long what was made for a Gateway may stay after it: the cluster has ten seconds to collect it.
const COLLECTED: Duration = Duration::from_secs(60);

/// Who is there from the start.
pub(super) fn cast() -> Vec<Value> {
    vec![
        namespace("shop", false),
        namespace("team", true),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node1"),
        service("shop/web", "echo", 80, PORT),
    ]
}

/// Runs it.
#[track_caller]
pub(super) fn run(lab: &Lab) {
    the_webhook_is_asked(lab);
    let _ = kubectl(lab, &["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    wait_until("a labelled pod is captured", SETTLED, || lab.is_captured("shop/echo"));
    root(lab, "shop", "create");
    the_class_is_made_again(lab);
    let file = lab.file("mesh.json", &items(&mesh()));
    let _ = kubectl(lab, &["apply", "-f", &file]);
    wait_until("every object shows how it stands", SETTLED, || all_told(lab));
    waypoint(lab, "create", SETTLED);
    broken_objects_are_told_of(lab);
    // Its roots go with the label.
    root(lab, "team", "create");
    let _ = kubectl(lab, &["label", "namespace", "team", &format!("{LABEL}-")]);
    root(lab, "team", "delete");
    // The cluster leaves what was made, and the leader collects it.
    let _ = kubectl(lab, &["delete", "gateway", "web-waypoint", "-n", "shop", "--cascade=orphan"]);
    waypoint(lab, "delete", COLLECTED);
}

/// The webhook refuses in our absence only once the API server was seen to ask it.
fn the_webhook_is_asked(lab: &Lab) {
    wait_until("the webhook is asked", SETTLED, || {
        let path = "jsonpath={.webhooks[0].failurePolicy}";
        kubectl(lab, &["get", "validatingwebhookconfiguration", WEBHOOK, "-o", path]) == "Fail"
    });
}

fn root(lab: &Lab, namespace: &str, event: &str) {
    let until = format!("--for={event}");
    let map = "configmap/istio-ca-root-cert";
    let _ = kubectl(lab, &["wait", "-n", namespace, &until, map, "--timeout=30s"]);
}

fn waypoint(lab: &Lab, event: &str, within: Duration) {
    let (until, within) = (format!("--for={event}"), format!("--timeout={}s", within.as_secs()));
    let _ = kubectl(lab, &[&["wait", "-n", "shop", &until, &within], &PIECES[..]].concat());
}

fn the_class_is_made_again(lab: &Lab) {
    let class = "gatewayclass/istio-waypoint";
    let _ = kubectl(lab, &["delete", class]);
    let _ = kubectl(lab, &["wait", "--for=create", class, "--timeout=30s"]);
    let _ = kubectl(lab, &["wait", "--for=condition=Accepted", class, "--timeout=30s"]);
}

/// Of each kind with a status of ours one object, each named `web`, but for the Gateway.
fn mesh() -> Vec<Value> {
    let object = |version: &str, kind: &str, spec: Value| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": {"namespace": "shop", "name": "web"}, "spec": spec,
        })
    };
    let route = |kind: &str, more: Value| {
        let mut spec = json!({
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        });
        more.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
        object("gateway.networking.k8s.io/v1", kind, spec)
    };
    let target = json!([{"group": "", "kind": "Service", "name": "web"}]);
    let nobody = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}]);
    let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
    let mut gateway = object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        json!({"gatewayClassName": "istio-waypoint", "listeners": [listener]}),
    );
    gateway["metadata"]["name"] = json!("web-waypoint");
    let entry = json!({
        "hosts": ["api.example.com"], "resolution": "DNS",
        "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
    });
    let mut all =
        vec![service("shop/web", "echo", 80, PORT), object("networking.istio.io/v1", "ServiceEntry", entry)];
    for user in &mut all {
        user["metadata"]["labels"] = json!({"istio.io/use-waypoint": "web-waypoint"});
    }
    all.extend([
        gateway,
        object(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            json!({"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]}),
        ),
        object(
            "security.istio.io/v1",
            "RequestAuthentication",
            json!({"targetRefs": nobody, "jwtRules": [{"issuer": "https://id.example"}]}),
        ),
        object(
            "ambit.internal/v1",
            "TrafficPolicy",
            json!({"targetRefs": target, "fault": {"abort": {"httpStatus": 503, "percent": 1}}}),
        ),
        object("ambit.internal/v1alpha1", "EgressPolicy", json!({"allow": [{"ports": [443]}]})),
        object(
            "networking.istio.io/v1",
            "VirtualService",
            json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}),
        ),
        route("HTTPRoute", json!({})),
        route("GRPCRoute", json!({})),
        route("TCPRoute", json!({})),
        route("TLSRoute", json!({"hostnames": ["web.example.com"]})),
    ]);
    all
}

/// Whether every object named `web` says something of itself.
fn all_told(lab: &Lab) -> bool {
    let kinds = "services,serviceentries,authorizationpolicies,requestauthentications,trafficpolicies,\
                 egresspolicies,virtualservices,httproutes,grpcroutes,tcproutes,tlsroutes";
    let found: Value =
        serde_json::from_str(&kubectl(lab, &["get", kinds, "-n", "shop", "-o", "json"])).expect("JSON");
    let items = found["items"].as_array().expect("items");
    let is_told = |item: &&Value| {
        ["conditions", "parents"]
            .iter()
            .any(|field| item["status"][field].as_array().is_some_and(|a| !a.is_empty()))
    };
    let named = items.iter().filter(|item| item["metadata"]["name"] == "web");
    named.filter(is_told).count() == kinds.split(',').count()
}

/// What comes past admission and cannot be read shows that in its status or in an Event; the next leader says so again.
fn broken_objects_are_told_of(lab: &Lab) {
    let _ = kubectl(lab, &["delete", "validatingwebhookconfiguration", WEBHOOK]);
    let broken = [
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"namespace": "shop", "name": "broken"},
            "spec": {
                "selector": {"matchLabels": {"app": "nobody"}}, "portLevelMtls": {"0": {"mode": "STRICT"}},
            },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"namespace": "shop", "name": "broken"}, "spec": {"address": "300.1.1.1"},
        }),
    ];
    let file = lab.file("broken.json", &items(&broken));
    let _ = kubectl(lab, &["apply", "-f", &file]);
    wait_until("a policy says that it cannot be read", SETTLED, || {
        let path = "jsonpath={.status.conditions[*].reason}";
        kubectl(lab, &["get", "peerauthentication", "broken", "-n", "shop", "-o", path]).contains("Invalid")
    });
    wait_until("an Event says that an entry cannot be read", SETTLED, || !events(lab).is_empty());
    // It gives its lease back and leads again, and keeps the webhook that is there at its start.
    let _ = lab.lab(&["stop", "istiod"]);
    let webhook = PARTS.iter().find(|part| part.path.ends_with("45-webhook.yaml")).expect("it is installed");
    let installed = lab.file("webhook.yaml", webhook.text);
    let _ = kubectl(lab, &["apply", "--server-side", "--force-conflicts", "-f", &installed]);
    let _ = lab.lab(&["start", "istiod"]);
    wait_until("the Event is counted up", SETTLED, || {
        events(lab).iter().any(|event| event["series"]["count"].as_u64() >= Some(2))
    });
    the_webhook_is_asked(lab);
    let _ = kubectl(lab, &["delete", "-f", &file]);
}

/// Events about the entry that cannot be read.
fn events(lab: &Lab) -> Vec<Value> {
    let text = kubectl(lab, &["get", "events.events.k8s.io", "-n", "shop", "-o", "json"]);
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let all = found["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|event| event["regarding"]["kind"] == "WorkloadEntry").collect()
}

fn items(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}
