//! Objects as an API server serves them: newer fields, statuses, and the policies in which nothing is overlooked.

use serde_json::{Value, json};

use crate::{Kind, SERVED, read_served};

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "orders", "namespace": "shop", "uid": "u-1", "resourceVersion": "41", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:spec": {} } }],
            "newerThanWeAre": true,
        },
        "spec": spec,
        "status": { "conditions": [], "newer": 1 },
    })
}

#[test]
fn what_the_server_adds_is_passed_over_and_what_is_needed_survives() {
    let read = read_served(policy(json!({ "action": "DENY", "rules": [{}] }))).unwrap();
    assert_eq!(read.key.to_string(), "AuthorizationPolicy shop/orders");
    assert_eq!(&*read.location.file, SERVED);
    let metadata = read.object.metadata();
    assert_eq!(metadata.uid.as_deref(), Some("u-1"));
    assert_eq!(metadata.resource_version.as_deref(), Some("41"));
    assert_eq!(metadata.generation, Some(3));
    assert!(metadata.creation_timestamp.is_some());
    assert!(metadata.managed_fields.is_none());
    assert!(read.value["metadata"].get("managedFields").is_none());
}

#[test]
fn a_condition_of_a_policy_is_never_overlooked() {
    let newer = json!({ "rules": [{ "from": [{ "source": { "moons": ["full"] } }] }] });
    let problems = read_served(policy(newer)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].field, "spec.rules[0].from[0].source.moons");
    assert_eq!(
        problems[0].object.as_ref().map(ToString::to_string).as_deref(),
        Some("AuthorizationPolicy shop/orders")
    );
}

#[test]
fn a_condition_of_an_egress_policy_is_never_overlooked() {
    let policy = |spec: Value| {
        json!({
            "apiVersion": "ambit.internal/v1alpha1", "kind": "EgressPolicy",
            "metadata": { "name": "out", "namespace": "shop" }, "spec": spec, "status": { "newer": 1 },
        })
    };
    let read = read_served(policy(json!({ "allow": [{ "ports": [443] }] }))).unwrap();
    assert_eq!(read.key.to_string(), "EgressPolicy shop/out");
    let newer = json!({ "allow": [{ "ports": [443], "serverNames": ["example.com"] }] });
    let problems = read_served(policy(newer)).unwrap_err();
    assert_eq!(problems[0].field, "spec.allow[0].serverNames");
    let wider = json!({ "selector": { "matchExpressions": [] } });
    assert_eq!(read_served(policy(wider)).unwrap_err()[0].field, "spec.selector.matchExpressions");
}

#[test]
fn a_newer_field_of_a_route_is_passed_over_but_a_wrong_value_is_not() {
    let route = |spec: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "cart", "namespace": "shop" }, "spec": spec,
        })
    };
    let parent = json!([{ "name": "gate" }]);
    let read = read_served(route(json!({ "parentRefs": parent, "newer": { "a": 1 } }))).unwrap();
    assert_eq!(read.kind(), Kind::HTTPRoute);
    let problems = read_served(route(json!({ "parentRefs": 7 }))).unwrap_err();
    assert_eq!(problems[0].field, "spec.parentRefs");
}

#[test]
fn kinds_of_kubernetes_itself_are_taken_as_served() {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "istio.io/dataplane-mode": "of-a-newer-mesh" } },
    });
    assert!(read_served(namespace).is_ok());
}

#[test]
fn what_is_no_object_is_a_problem() {
    for value in
        [json!(null), json!([]), json!({}), json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {} })]
    {
        assert!(read_served(value.clone()).is_err(), "{value}");
    }
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "a": deep });
    }
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": deep });
    assert!(read_served(pod).unwrap_err()[0].message.contains("nested deeper"));
}

#[test]
fn a_newer_field_of_an_import_is_not_overlooked() {
    let import = |spec: Value| {
        read_served(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "cart", "namespace": "shop" }, "spec": spec, "status": { "newer": 1 },
        }))
    };
    let to = json!([{ "destination": { "host": "cart", "subset": "v1" }, "weight": 1 }]);
    let read = import(json!({ "hosts": ["cart"], "tcp": [{ "route": [] }], "http": [{ "route": to }] }));
    assert_eq!(read.expect("fields that are known").kind(), Kind::VirtualService);
    let rule = json!({ "match": [{ "moons": ["full"] }], "mirrorPercentage": { "value": 0.5 } });
    let problems = import(json!({ "hosts": ["cart"], "http": [rule] })).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].field, "spec.http[0].match[0].moons");
}
