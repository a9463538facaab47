//! `ambit explain` beside real requests through a waypoint: what is told beforehand is what happens.
//!
//! Connections are compared in `policy`, row by row of its table.

use std::time::Duration;

use ambit_tests::lab::wait_until;
use serde_json::{Value, json};

use crate::cast::security;
use crate::waypoint::shop::{CLIENT, OTHER, Shop, V1, route};

/// The service behind [`V1`].
const TARGET: &str = "web-v1.shop.svc.cluster.local:80";

/// Who asks, how, and for what.
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PATHS: [&str; 5] = ["/public", "/public/a", "/publicity", "/private", "/public/a?q=1"];

/// Reads under `/public` for everybody, everything but DELETE for the shop's own client; `/private` has no route.
fn rules() -> [Value; 2] {
    let spec = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "web-v1"}],
        "rules": [
            {"to": [{"operation": {"methods": ["GET"], "paths": ["/public", "/public/*"]}}]},
            {"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}],
             "to": [{"operation": {"notMethods": ["DELETE"]}}]},
        ],
    });
    let prefix = |path: &str| json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}]});
    let routes = json!([prefix("/public"), prefix("/publicity"), prefix("/ready")]);
    [security("AuthorizationPolicy", "shop/explained", &spec), route("explained", "web-v1", &routes)]
}

#[test]
fn requests_are_explained_as_they_are_answered() {
    let Some(shop) = Shop::up("explain", &[]) else { return };
    shop.lab.apply(&rules());
    let ask = |client: &str, method: &str, path: &str| {
        shop.get(client, &format!("{V1}{path}"), &["--method", method, "--timeout", "5s"])
    };
    wait_until("policy and route are in force", Duration::from_secs(20), || {
        let refused = ask(OTHER, "POST", "/public").header("x-ambit-reason") == "AMB2202";
        refused && ask(CLIENT, "GET", "/private").header("x-ambit-reason") == "AMB3003"
    });
    let mut wrong = Vec::new();
    for client in [CLIENT, OTHER] {
        for (method, path) in METHODS.iter().flat_map(|method| PATHS.map(|path| (*method, path))) {
            let answer = ask(client, method, path);
            let args = ["explain", client, TARGET, "--method", method, "--path", path, "-o", "json"];
            let told = shop.lab.ambit(&args).ok();
            let told: Value = serde_json::from_str(&told).expect("JSON");
            let told = &told["items"][0];
            let code = answer.header("x-ambit-reason");
            let said = told["reason"]["code"].as_str().unwrap_or_default();
            let is_refused = told["verdict"] == "deny";
            let is_so = is_refused != code.is_empty() && said == code;
            let has_status = !is_refused || told["status"] == answer.status();
            if !is_so || !has_status {
                wrong.push(format!("{client} {method} {path}: {} {code}, told {told}", answer.status()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of 30 wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_story_names_every_step_and_what_to_ask_next() {
    let Some(shop) = Shop::up("story", &[]) else { return };
    shop.lab.apply(&rules());
    let args = ["explain", OTHER, TARGET, "--method", "POST", "--path", "/public"];
    let mut story = shop.lab.ambit(&args);
    wait_until("the policy is in force", Duration::from_secs(20), || {
        story = shop.lab.ambit(&args);
        story.stdout.contains("AMB2202")
    });
    for step in
        ["capture", "service", "waypoint", "tunnel", "certificate", "waypoint policy", "route", "policy"]
    {
        assert!(story.stdout.contains(step), "{step} is missing:\n{}", story.stdout);
    }
    assert!(story.stdout.contains("shop/explained rule 0 would match"), "{}", story.stdout);
    assert!(story.stderr.contains("ambit why AMB2202"), "{}", story.stderr);
    let unknown = shop.lab.ambit(&["explain", "shop", TARGET]);
    assert_eq!(unknown.code, Some(64), "{unknown:?}");
}
