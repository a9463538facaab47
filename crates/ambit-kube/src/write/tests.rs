//! What is sent for each way of writing, and what refusals say.

use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};

use super::{
    Once, Target, apply, apply_metadata, apply_status, create_once, delete, get, get_metadata, list, replace,
};
use crate::error::KubeError;
use crate::testing::{Asked, Reply, client};

fn config_map() -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "roots", "namespace": "shop" } })
}

#[tokio::test]
async fn an_apply_is_a_patch_under_our_name() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = seen.clone();
    let server = client(move |one: Asked| {
        let body = one.body.clone();
        asked.lock().unwrap().push(one);
        Reply::Json(200, body)
    });
    let back = apply(&server, "ambit-istiod", &config_map(), true).await.unwrap();
    assert_eq!(back, config_map());
    apply_status(&server, "ambit-istiod", &config_map(), false).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(
        (&seen[0].method, &*seen[0].path),
        (&Method::PATCH, "/api/v1/namespaces/shop/configmaps/roots")
    );
    assert!(seen[0].has("fieldManager=ambit-istiod") && seen[0].has("force=true"), "{}", seen[0].query);
    assert_eq!(seen[1].path, "/api/v1/namespaces/shop/configmaps/roots/status");
    assert!(!seen[1].has("force=true"));
}

#[tokio::test]
async fn a_refusal_names_the_verb_the_resource_and_the_rule() {
    let server = client(|_| Reply::status(403, "Forbidden"));
    let refused = apply(&server, "ambit-istiod", &config_map(), true).await.unwrap_err();
    let words = refused.to_string();
    assert!(words.starts_with("patch configmaps shop/roots: refused (HTTP 403)"), "{words}");
    assert!(
        words.contains(
            r#"apiGroups: [""], resources: ["configmaps"], verbs: ["patch"] in a Role of namespace shop"#
        ),
        "{words}"
    );
    assert!(!refused.is_passing());
    let status = apply_status(&server, "ambit-istiod", &config_map(), true).await.unwrap_err();
    assert!(status.to_string().contains(r#"["configmaps/status"]"#), "{status}");
}

#[tokio::test]
async fn what_exists_is_not_created_again() {
    let there = json!({ "kind": "ConfigMap", "metadata": { "uid": "first" } });
    let existing = there.clone();
    let server = client(move |asked: Asked| match asked.method {
        Method::POST => Reply::status(409, "AlreadyExists"),
        _ => Reply::Json(200, existing.clone()),
    });
    assert_eq!(create_once(&server, "m", &config_map()).await.unwrap(), Once::Existing(there));
    let free = client(|asked: Asked| Reply::Json(201, asked.body));
    assert_eq!(create_once(&free, "m", &config_map()).await.unwrap(), Once::Created(config_map()));
}

#[tokio::test]
async fn what_is_absent_is_no_failure() {
    let server = client(|_| Reply::status(404, "NotFound"));
    let target = Target::of(&config_map()).unwrap();
    assert_eq!(get(&server, &target).await.unwrap(), None);
    assert!(!delete(&server, &target, Some("uid")).await.unwrap());
    assert!(matches!(apply_status(&server, "m", &config_map(), true).await, Err(KubeError::NotFound { .. })));
}

#[tokio::test]
async fn of_what_is_secret_the_metadata_alone_is_asked_for() {
    let server = client(|asked: Asked| {
        let alone = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert!(asked.accept.contains(alone), "{}", asked.accept);
        Reply::Json(200, json!({ "method": asked.method.as_str(), "query": asked.query }))
    });
    let target = Target::of(&config_map()).unwrap();
    let found = get_metadata(&server, &target).await.unwrap().unwrap();
    assert_eq!(found["method"], "GET");
    let applied = apply_metadata(&server, "ambit-cli", &config_map(), true).await.unwrap();
    assert_eq!(applied["method"], "PATCH");
    assert!(applied["query"].as_str().unwrap().contains("fieldManager=ambit-cli"), "{applied}");
    let gone = client(|_| Reply::status(404, "NotFound"));
    assert_eq!(get_metadata(&gone, &target).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_follows_its_pages() {
    let server = client(|asked: Asked| {
        if asked.has("continue=next") {
            return Reply::Json(200, json!({ "metadata": {}, "items": [2] }));
        }
        Reply::Json(200, json!({ "metadata": { "continue": "next" }, "items": [1] }))
    });
    let target = Target::new("v1", "ConfigMap", None, "").unwrap();
    assert_eq!(list(&server, &target, Some("a=b"), None).await.unwrap(), [json!(1), json!(2)]);
}

#[tokio::test]
async fn incomplete_objects_are_not_sent() {
    let server = client(|_| panic!("nothing is sent"));
    for object in [json!({}), json!({ "apiVersion": "v1", "kind": "Moon", "metadata": { "name": "a" } })] {
        assert!(apply(&server, "m", &object, true).await.is_err());
    }
    assert!(matches!(
        replace(&server, "m", &config_map()).await,
        Err(KubeError::Incomplete("metadata.resourceVersion"))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let server = client(|_| Reply::Never);
    let given_up = apply(&server, "m", &config_map(), true).await.unwrap_err();
    assert!(matches!(given_up, KubeError::TimedOut { .. }) && given_up.is_passing(), "{given_up}");
}
