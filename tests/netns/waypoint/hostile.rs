//! Row 9: hostile HTTP. Clients and upstreams that say two things at once get the right status and poison nobody; clients
//! that only cost are dismissed, in bounded memory, and others hardly notice.

mod answers;
mod corpus;
mod floods;

use ambit_tests::lab::http_peer;
use serde_json::{Value, json};

use super::shop::{PORT, Shop, service};
use crate::cast::pod;

/// The upstream without manners, and its service.
const WILD: &str = "shop/wild";
const HOST: &str = "wild.shop.svc.cluster.local";

/// That upstream, with its service.
fn wild() -> [Value; 2] {
    let port = PORT.to_string();
    let mut wild = pod(WILD, "node2", &[&*http_peer(), "wild", "--port", &port]);
    let listens = format!("ss -Hltn | grep -q ':{PORT} '");
    wild["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["sh", "-c", listens]}, "periodSeconds": 1});
    [wild, service(WILD, &json!({"app": "wild"}), 80, PORT, "http")]
}

/// What that upstream tells of itself, asked in its own pod.
#[track_caller]
fn told(shop: &Shop, path: &str) -> Value {
    let url = format!("http://127.0.0.1:{PORT}{path}");
    let answer = shop.lab.exec(WILD, &["curl", "-sS", "-m", "10", &url]).ok();
    serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e} in what the upstream told: {answer}"))
}
