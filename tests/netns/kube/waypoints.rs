//! Row 8: a Gateway is made, changed and removed with kubectl, and services ask for waypoints they have, lack or may not
//! use: what becomes of the traffic, and what the objects say of themselves.
//!
//! That a request went through a waypoint shows in the id that it gives to every request; a service without one hands
//! over what the client sent.

use std::time::Duration;

use ambit_tests::lab::{Lab, http_peer, wait_until};
use serde_json::{Value, json};

use super::{SETTLED, kubectl, write};
use crate::cast::{namespace, pod, split};
use crate::waypoint::shop::{PORT, Told, gateway, route, service, told};

/// What a waypoint is made of.
const PIECES: [&str; 5] = ["deployment", "service", "serviceaccount", "hpa", "pdb"];
/// The pods that ask and answer.
const CLIENT: &str = "shop/client";
const WEB_POD: &str = "shop/web";
const VAULT_POD: &str = "bank/vault";
/// Their services.
const WEB: &str = "http://web.shop.svc.cluster.local";
const VAULT: &str = "http://vault.bank.svc.cluster.local";
/// The condition of a service that asks for a waypoint.
const BOUND: &str = "istio.io/WaypointBound";
/// The label by which one does.
const USE: &str = "istio.io/use-waypoint";
/// A condition of somebody else.
const THEIRS: &str = "example.com/Theirs";
/// How long pods of a waypoint may take to end: their grace, and what the cluster needs before it.
const DRAINED: Duration = Duration::from_secs(60);
/// Requests that must all be refused.
const TRIES: usize = 5;

#[test]
fn a_waypoint_follows_its_gateway_from_its_making_to_its_end() {
    let Some(lab) = Lab::up_kube("kube-waypoints", &cast(), &[]) else { return };
    served(&lab, WEB, Way::Direct);
    asked_for_before_it_is_there(&lab);
    made(&lab);
    routed(&lab);
    quiet(&lab);
    changed(&lab);
    of_another_namespace(&lab);
    scaled_to_nothing(&lab);
    given_to_the_scaler(&lab);
    asked_for_in_vain(&lab);
    removed(&lab);
}

fn cast() -> Vec<Value> {
    let application = |key: &str, node: &str| {
        let (_, name) = split(key);
        pod(key, node, &[&*http_peer(), "serve", "--port", &PORT.to_string(), "--name", name])
    };
    let mut vault = service("bank/vault", &json!({"app": "vault"}), 80, PORT, "http");
    vault["metadata"]["labels"] = json!({USE: "waypoint", "istio.io/use-waypoint-namespace": "shop"});
    vec![
        namespace("shop", true),
        namespace("bank", true),
        pod(CLIENT, "node1", &[]),
        application(WEB_POD, "node2"),
        application(VAULT_POD, "node1"),
        service("shop/web", &json!({"app": "web"}), 80, PORT, "http"),
        vault,
    ]
}

/// A service that asks for a waypoint is closed until it has it, and says what is missing.
fn asked_for_before_it_is_there(lab: &Lab) {
    let _ = kubectl(lab, &["label", "service", "web", "-n", "shop", &format!("{USE}=waypoint")]);
    let said = says(lab, "service", "shop/web", BOUND, ("False", "WaypointIsNotReady"));
    let message = word(&said, "message");
    assert!(message.contains("there is no waypoint shop/waypoint"), "{said:#}");
    assert!(message.contains("AMB3101"), "{said:#}");
    unbound(lab, "before its Gateway", "/early");
    // Somebody else says something of the service, too: that stays whatever is said here.
    let theirs = json!([{"op": "add", "path": "/status/conditions/-", "value": {
        "type": THEIRS, "status": "True", "reason": "Known", "message": "theirs",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }}]);
    let patch = ["patch", "service", "web", "-n", "shop", "--subresource=status", "--type=json", "-p"];
    let _ = kubectl(lab, &[&patch[..], &[&*theirs.to_string()]].concat());
}

/// The Gateway becomes its objects, which are its own, and says how it can be reached.
fn made(lab: &Lab) {
    let _ = kubectl(lab, &["apply", "-f", &write(lab, &[gateway()])]);
    let programmed = says(lab, "gateway", "shop/waypoint", "Programmed", ("True", "Programmed"));
    let gateway = get(lab, "gateway", "shop/waypoint").expect("it was applied");
    let generation = &gateway["metadata"]["generation"];
    assert_eq!(&programmed["observedGeneration"], generation, "{gateway:#}");
    for (kind, reason) in [("Accepted", "Accepted"), ("ResolvedRefs", "ResolvedRefs")] {
        let said = says(lab, "gateway", "shop/waypoint", kind, ("True", reason));
        assert_eq!(&said["observedGeneration"], generation, "{kind}: {said:#}");
    }
    for kind in PIECES {
        let piece = get(lab, kind, "shop/waypoint").unwrap_or_else(|| panic!("there is no {kind}"));
        let (labels, owner) = (&piece["metadata"]["labels"], &piece["metadata"]["ownerReferences"][0]);
        assert_eq!(
            (&owner["kind"], &owner["uid"]),
            (&json!("Gateway"), &gateway["metadata"]["uid"]),
            "{kind}"
        );
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "waypoint", "{kind}");
        assert_eq!(labels["gateway.istio.io/managed"], "istio.io-mesh-controller", "{kind}");
    }
    let cluster_ip = &get(lab, "service", "shop/waypoint").expect("just seen")["spec"]["clusterIP"];
    let addresses = gateway["status"]["addresses"].as_array().expect("addresses");
    assert!(addresses.contains(&json!({"type": "IPAddress", "value": cluster_ip})), "{addresses:#?}");
    let host = json!({"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"});
    assert!(addresses.contains(&host), "{addresses:#?}");
    let listener = &gateway["status"]["listeners"][0];
    assert_eq!(listener["name"], "mesh", "{listener:#}");
    for (kind, status) in [("Accepted", "True"), ("Programmed", "True"), ("Conflicted", "False")] {
        assert_eq!(of_type(&listener["conditions"], kind)["status"], status, "{listener:#}");
    }
    let bound = says(lab, "service", "shop/web", BOUND, ("True", "WaypointAccepted"));
    assert_eq!(bound["message"], "Successfully attached to waypoint shop/waypoint");
    served(lab, WEB, Way::Waypoint);
    assert_eq!(condition(lab, "service", "shop/web", THEIRS)["reason"], "Known", "somebody else's is gone");
}

/// A route of the service is carried out, and says so.
fn routed(lab: &Lab) {
    let set = json!({"set": [{"name": "x-routed", "value": "yes"}]});
    let rules = json!([{
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": set}],
        "backendRefs": [{"name": "web", "port": 80}],
    }]);
    let _ = kubectl(lab, &["apply", "-f", &write(lab, &[route("marked", "web", &rules)])]);
    wait_until("the route is carried out", SETTLED, || ask(lab, WEB, "/routed").header("x-routed") == "yes");
    let mut parent = Value::Null;
    wait_until("the route says so", SETTLED, || {
        let object = get(lab, "httproute", "shop/marked").expect("it was applied");
        parent = object["status"]["parents"][0].clone();
        let accepted = of_type(&parent["conditions"], "Accepted");
        accepted["status"] == "True" && accepted["observedGeneration"] == object["metadata"]["generation"]
    });
    assert_eq!(parent["controllerName"], "istio.io/gateway-controller", "{parent:#}");
    assert_eq!(of_type(&parent["conditions"], "ResolvedRefs")["status"], "True", "{parent:#}");
    let _ = kubectl(lab, &["delete", "httproute", "marked", "-n", "shop"]);
    wait_until("it is carried out no more", SETTLED, || {
        ask(lab, WEB, "/routed").header("x-routed").is_empty()
    });
}

/// What is as it should be is not written again, whatever else changes.
fn quiet(lab: &Lab) {
    let versions = || {
        let version = |kind: &str, key: &str| {
            let object = get(lab, kind, key).expect("it is there");
            object["metadata"]["resourceVersion"].clone()
        };
        // Nobody else writes these; a Deployment and a budget have controllers of their own.
        [("gateway", "shop/waypoint"), ("service", "shop/waypoint"), ("service", "shop/web")]
            .map(|(kind, key)| version(kind, key))
    };
    let before = versions();
    let _ = kubectl(lab, &["create", "namespace", "elsewhere"]);
    let _ = kubectl(lab, &["label", "namespace", "elsewhere", "istio.io/dataplane-mode=ambient"]);
    wait_until("the leader went round", SETTLED, || {
        get(lab, "configmap", "elsewhere/istio-ca-root-cert").is_some()
    });
    assert_eq!(versions(), before, "something was written that had not changed");
}

/// What the Gateway asks for is asked of its objects, and what it cannot have is refused and changes nothing.
fn changed(lab: &Lab) {
    let before = condition(lab, "gateway", "shop/waypoint", "ResolvedRefs")["lastTransitionTime"].clone();
    let wanted = json!({"labels": {"team": "a"}, "annotations": {"example.com/note": "b"}});
    patch(lab, &json!({"spec": {"infrastructure": wanted}}));
    for kind in PIECES {
        wait_until(&format!("the {kind} follows"), SETTLED, || {
            let piece = get(lab, kind, "shop/waypoint").unwrap_or_default();
            piece["metadata"]["labels"]["team"] == "a"
                && piece["metadata"]["annotations"]["example.com/note"] == "b"
        });
    }
    patch(lab, &json!({"spec": {"infrastructure": null}}));
    for kind in PIECES {
        wait_until(&format!("the {kind} follows back"), SETTLED, || {
            let piece = get(lab, kind, "shop/waypoint").unwrap_or_default();
            piece["metadata"].is_object() && piece["metadata"]["labels"].get("team").is_none()
        });
    }
    patch(lab, &json!({"spec": {"listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}));
    let refused = says(lab, "gateway", "shop/waypoint", "Accepted", ("False", "UnsupportedProtocol"));
    assert_eq!(refused["message"], "Expected a single listener on port 15008 with protocol \"HBONE\"");
    let listeners = get(lab, "gateway", "shop/waypoint").expect("it is there")["status"]["listeners"].clone();
    assert_eq!(listeners[0]["name"], "http", "{listeners:#}");
    assert_eq!(of_type(&listeners[0]["conditions"], "Accepted")["status"], "False", "{listeners:#}");
    for kind in PIECES {
        assert!(get(lab, kind, "shop/waypoint").is_some(), "{kind}: what was made before stays");
    }
    patch(lab, &json!({"spec": {"listeners": gateway()["spec"]["listeners"]}}));
    says(lab, "gateway", "shop/waypoint", "Accepted", ("True", "Accepted"));
    served(lab, WEB, Way::Waypoint);
    let after = condition(lab, "gateway", "shop/waypoint", "ResolvedRefs")["lastTransitionTime"].clone();
    assert_eq!(after, before, "a status that stayed the same has another time");
}

/// A service of another namespace has the waypoint if its listener allows that, and is closed if not.
fn of_another_namespace(lab: &Lab) {
    let closed = |when: &str, path: &str| {
        let said = says(lab, "service", "bank/vault", BOUND, ("False", "AttachmentDenied"));
        let message = word(&said, "message");
        assert!(
            message.contains("missing allowedRoutes?") && message.contains("AMB3104"),
            "{when}: {said:#}"
        );
        wait_until(&format!("{when}: it is closed"), SETTLED, || ask(lab, VAULT, "/closing").status() != 200);
        let denied = || lab.flows(&["--from-pod", CLIENT, "--verdict", "denied"]).len();
        let recorded = denied();
        for _ in 0..TRIES {
            let told = ask(lab, VAULT, path);
            assert!([0, 403, 421, 503].contains(&told.status()), "{when}: {:#}", told.0);
            let is_answer = told.status() != 0;
            assert!(!is_answer || told.header("x-ambit-reason").starts_with("AMB"), "{when}: {:#}", told.0);
            if !is_answer {
                wait_until(&format!("{when}: the refusal is recorded"), SETTLED, || denied() > recorded);
            }
        }
        assert_eq!(taken(lab, VAULT_POD, path), 0, "{when}: it reached the application");
    };
    closed("its own namespace alone may attach", "/denied-at-first");
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "bank"}});
    let mut listener = gateway()["spec"]["listeners"][0].clone();
    listener["allowedRoutes"] = json!({"namespaces": {"from": "Selector", "selector": selector}});
    patch(lab, &json!({"spec": {"listeners": [listener]}}));
    let said = says(lab, "service", "bank/vault", BOUND, ("True", "WaypointAccepted"));
    assert_eq!(said["message"], "Successfully attached to waypoint shop/waypoint");
    served(lab, VAULT, Way::Waypoint);
    listener["allowedRoutes"] = json!({"namespaces": {"from": "Same"}});
    patch(lab, &json!({"spec": {"listeners": [listener]}}));
    closed("allowed no more", "/denied-again");
}

/// Without pods, by the Gateway's annotation or by somebody's hand, everything is refused and the Gateway says why.
fn scaled_to_nothing(lab: &Lab) {
    let annotate = ["annotate", "gateway", "waypoint", "-n", "shop"];
    let scale = ["scale", "deployment", "waypoint", "-n", "shop"];
    for (when, act, end) in [
        (
            "annotated",
            [&annotate[..], &["ambit.internal/replicas=0"]].concat(),
            [&annotate[..], &["ambit.internal/replicas-"]].concat(),
        ),
        ("scaled", [&scale[..], &["--replicas=0"]].concat(), [&scale[..], &["--replicas=1"]].concat()),
    ] {
        let _ = kubectl(lab, &act);
        says(lab, "gateway", "shop/waypoint", "Programmed", ("False", "NoResources"));
        let gateway = get(lab, "gateway", "shop/waypoint").expect("it is there");
        assert!(!gateway["status"]["addresses"].as_array().expect("addresses").is_empty(), "they are kept");
        wait_until(&format!("{when}: no pod runs"), SETTLED, || {
            let deployment = get(lab, "deployment", "shop/waypoint").unwrap_or_default();
            deployment["spec"]["replicas"] == 0 && deployment["status"]["replicas"].as_u64().unwrap_or(0) == 0
        });
        unbound(lab, when, &format!("/{when}"));
        let _ = kubectl(lab, &end);
        says(lab, "gateway", "shop/waypoint", "Programmed", ("True", "Programmed"));
        served(lab, WEB, Way::Waypoint);
    }
    for kind in PIECES {
        wait_until(&format!("the {kind} is back"), SETTLED, || get(lab, kind, "shop/waypoint").is_some());
    }
}

/// Pods of a fixed number stay when a scaler takes them over: the API server's default is one.
fn given_to_the_scaler(lab: &Lab) {
    let annotate = ["annotate", "gateway", "waypoint", "-n", "shop"];
    let replicas =
        |lab: &Lab| get(lab, "deployment", "shop/waypoint").unwrap_or_default()["spec"]["replicas"].clone();
    let _ = kubectl(lab, &[&annotate[..], &["ambit.internal/replicas=2"]].concat());
    wait_until("two pods are asked for", SETTLED, || replicas(lab) == 2);
    wait_until("the scaler is gone", SETTLED, || get(lab, "hpa", "shop/waypoint").is_none());
    let _ = kubectl(lab, &[&annotate[..], &["ambit.internal/replicas-"]].concat());
    // It is written after the Deployment.
    wait_until("the scaler is back", SETTLED, || get(lab, "hpa", "shop/waypoint").is_some());
    assert_eq!(replicas(lab), 2, "the waypoint lost a pod");
    served(lab, WEB, Way::Waypoint);
}

/// A waypoint that does not exist closes the service; `ambit waypoint apply` makes it, and `delete` takes it away.
fn asked_for_in_vain(lab: &Lab) {
    let change = |to: &str| {
        let _ =
            kubectl(lab, &["label", "service", "web", "-n", "shop", "--overwrite", &format!("{USE}={to}")]);
    };
    change("nosuch");
    let said = says(lab, "service", "shop/web", BOUND, ("False", "WaypointIsNotReady"));
    assert!(word(&said, "message").contains("there is no waypoint shop/nosuch"), "{said:#}");
    unbound(lab, "one that does not exist", "/nosuch");
    drop(lab.ambit(&["waypoint", "apply", "-n", "shop", "--name", "nosuch"]).ok());
    says(lab, "gateway", "shop/nosuch", "Programmed", ("True", "Programmed"));
    says(lab, "service", "shop/web", BOUND, ("True", "WaypointAccepted"));
    served(lab, WEB, Way::Waypoint);
    drop(lab.ambit(&["waypoint", "delete", "nosuch", "-n", "shop"]).ok());
    gone(lab, "shop/nosuch");
    unbound(lab, "removed by its command", "/nosuch-again");
    change("waypoint");
    served(lab, WEB, Way::Waypoint);
    assert_eq!(condition(lab, "service", "shop/web", THEIRS)["reason"], "Known", "somebody else's is gone");
}

/// With the Gateway everything goes that was made for it; a service that still asks for it is closed, and one that does
/// not is served without it.
fn removed(lab: &Lab) {
    let _ = kubectl(lab, &["delete", "gateway", "waypoint", "-n", "shop", "--timeout=30s"]);
    gone(lab, "shop/waypoint");
    unbound(lab, "without its Gateway", "/orphan");
    let _ = kubectl(lab, &["label", "service", "web", "-n", "shop", &format!("{USE}-")]);
    served(lab, WEB, Way::Direct);
    wait_until("the service says nothing of waypoints", SETTLED, || {
        condition(lab, "service", "shop/web", BOUND).is_null()
    });
    assert_eq!(condition(lab, "service", "shop/web", THEIRS)["reason"], "Known", "somebody else's is gone");
}

/// Which way requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Waypoint,
}

/// Waits until requests arrive by this way.
#[track_caller]
fn served(lab: &Lab, url: &str, way: Way) {
    wait_until(&format!("{url} is served: {way:?}"), SETTLED, || {
        let told = ask(lab, url, "/served");
        let has_id = || !told.answer()["headers"]["x-request-id"].is_null();
        told.status() == 200 && has_id() == (way == Way::Waypoint)
    });
}

/// Nobody comes past a waypoint that is not there: refused at once, with the reason, and never at the application.
#[track_caller]
fn unbound(lab: &Lab, when: &str, path: &str) {
    wait_until(&format!("{when}: it is closed"), SETTLED, || ask(lab, WEB, "/closing").status() != 200);
    let recorded = lab.flows(&["--code", "AMB3101"]).len();
    for _ in 0..TRIES {
        let told = ask(lab, WEB, path);
        assert_ne!(told.status(), 200, "{when}: {:#}", told.0);
        assert!(told.took() < Duration::from_secs(2), "{when}: refused late: {:#}", told.0);
    }
    assert_eq!(taken(lab, WEB_POD, path), 0, "{when}: it reached the application");
    wait_until(&format!("{when}: AMB3101 is recorded"), SETTLED, || {
        lab.flows(&["--code", "AMB3101"]).len() > recorded
    });
}

/// Waits until nothing is left of a waypoint.
#[track_caller]
fn gone(lab: &Lab, key: &str) {
    for kind in PIECES {
        wait_until(&format!("{kind} {key} is gone"), SETTLED, || get(lab, kind, key).is_none());
    }
    let (namespace, name) = split(key);
    let of = format!("gateway.networking.k8s.io/gateway-name={name}");
    wait_until(&format!("no pod of {key} is left"), DRAINED, || {
        kubectl(lab, &["get", "pods", "-n", namespace, "-l", &of, "-o", "name"]).trim().is_empty()
    });
}

/// One request of the client.
#[track_caller]
fn ask(lab: &Lab, url: &str, path: &str) -> Told {
    let url = format!("{url}{path}");
    let args = [&*http_peer(), "get", "--url", &url, "--timeout", "3s"].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    told(&lab.exec(CLIENT, &args))
}

/// How many requests to a path an application took, asked in its own pod.
#[track_caller]
fn taken(lab: &Lab, pod: &str, path: &str) -> u64 {
    let url = format!("http://127.0.0.1:{PORT}/count");
    let told = told(&lab.exec(pod, &[&*http_peer(), "get", "--url", &url]));
    told.answer()["paths"][path].as_u64().unwrap_or_default()
}

/// An object as the API server has it (`NAMESPACE/NAME`).
#[track_caller]
fn get(lab: &Lab, kind: &str, key: &str) -> Option<Value> {
    let (namespace, name) = split(key);
    let text = kubectl(lab, &["get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json"]);
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("JSON from kubectl"))
}

/// A condition of an object; null if it has none of that type.
#[track_caller]
fn condition(lab: &Lab, kind: &str, key: &str, of: &str) -> Value {
    get(lab, kind, key).map(|object| of_type(&object["status"]["conditions"], of)).unwrap_or_default()
}

fn of_type(conditions: &Value, kind: &str) -> Value {
    let mut all = conditions.as_array().into_iter().flatten();
    all.find(|one| one["type"] == kind).cloned().unwrap_or_default()
}

/// Waits until an object says something of itself.
#[track_caller]
fn says(lab: &Lab, kind: &str, key: &str, of: &str, (status, reason): (&str, &str)) -> Value {
    let mut said = Value::Null;
    wait_until(&format!("{kind} {key} says {of}={status} {reason}"), SETTLED, || {
        said = condition(lab, kind, key, of);
        said["status"] == status && said["reason"] == reason
    });
    said
}

fn word<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}

/// Changes the shop's Gateway.
#[track_caller]
fn patch(lab: &Lab, change: &Value) {
    let _ = kubectl(
        lab,
        &["patch", "gateway", "waypoint", "-n", "shop", "--type=merge", "-p", &change.to_string()],
    );
}
