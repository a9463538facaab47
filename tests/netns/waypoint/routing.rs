//! Rows 1 and 3: weights, header matches and a policy by method, counted at the client and in the applications.

use serde_json::json;

use super::shop::{CLIENT, GRPC, PODS, Shop, WEB, backend, gateway, get_only, route};

/// Requests of a count.
const REQUESTS: u64 = 1000;
/// Five standard deviations of how many of them a backend of weight 10 in 100 is drawn for: wrong by chance in one run
/// of two million.
const SPREAD: u64 = 48;

#[test]
fn a_canary_a_header_and_a_method_decide_where_a_request_goes() {
    let Some(shop) = Shop::up("wp-routing", &[]) else { return };
    by_weight(&shop);
    by_weight_of_an_import(&shop);
    by_header(&shop);
    weights_of_nothing(&shop);
    by_method(&shop);
    what_arrives(&shop);
    without_gateway(&shop);
}

fn by_weight(shop: &Shop) {
    let canary = json!([{"backendRefs": [backend("web-v1", 90), backend("web-v2", 10)]}]);
    shop.under(&route("canary", "web", &canary), || {
        let load = shop.load(&format!("{WEB}/canary"), &["--requests", "1000", "--concurrency", "4"]);
        assert_eq!(load.count("/by_status/200"), REQUESTS, "{:#}", load.0);
        let (v1, v2) = (load.count("/by_peer/v1"), load.count("/by_peer/v2"));
        assert_eq!(v1 + v2, REQUESTS, "{:#}", load.0);
        assert!(v2.abs_diff(100) <= SPREAD, "{v2} of {REQUESTS} went to the canary of weight 10 in 100");
        let taken = PODS.map(|pod| shop.taken(&[pod], "/canary"));
        assert_eq!(taken, [v1, v2], "what the applications counted is not what the client was answered by");
        println!("canary 90/10: {v1} and {v2} of {REQUESTS}");
    });
}

/// A VirtualService in place of the route; its host may be written short, and its destinations name their only port or none.
fn by_weight_of_an_import(shop: &Shop) {
    let to = |host: &str, weight: u32| json!({"destination": {"host": host}, "weight": weight});
    let canary = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "canary", "namespace": "shop"},
        "spec": {"hosts": ["web"], "http": [
            {"match": [{"uri": {"exact": "/import/v2"}}], "route": [to("web-v2", 1)]},
            {"route": [to("web-v1", 90), to("web-v2.shop.svc.cluster.local", 10)]},
        ]},
    });
    shop.under(&canary, || {
        let load = shop.load(&format!("{WEB}/import"), &["--requests", "1000", "--concurrency", "4"]);
        assert_eq!(load.count("/by_status/200"), REQUESTS, "{:#}", load.0);
        let (v1, v2) = (load.count("/by_peer/v1"), load.count("/by_peer/v2"));
        assert_eq!(v1 + v2, REQUESTS, "{:#}", load.0);
        assert!(v2.abs_diff(100) <= SPREAD, "{v2} of {REQUESTS} went to the canary of weight 10 in 100");
        let first = shop.load(&format!("{WEB}/import/v2"), &["--requests", "50"]);
        assert_eq!(first.count("/by_peer/v2"), 50, "the first rule that agrees: {:#}", first.0);
        println!("canary 90/10 by VirtualService: {v1} and {v2} of {REQUESTS}");
    });
}

fn by_header(shop: &Shop) {
    let matched = json!([
        {"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}], "backendRefs": [backend("web-v2", 1)]},
        {"backendRefs": [backend("web-v1", 1)]},
    ]);
    shop.under(&route("header", "web", &matched), || {
        for (header, want) in
            [(&["--header", "x-canary: yes"][..], "v2"), (&[], "v1"), (&["--header", "x-canary: no"], "v1")]
        {
            let load = shop.load(&format!("{WEB}/header"), &[&["--requests", "50"], header].concat());
            assert_eq!(load.count(&format!("/by_peer/{want}")), 50, "{header:?}: {:#}", load.0);
        }
    });
}

/// A weight of zero is never drawn; a backend that is missing answers for its share.
fn weights_of_nothing(shop: &Shop) {
    let zero = json!([{"backendRefs": [backend("web-v1", 1), backend("web-v2", 0)]}]);
    shop.under(&route("zero", "web", &zero), || {
        let load = shop.load(&format!("{WEB}/zero"), &["--requests", "200", "--concurrency", "2"]);
        assert_eq!(load.count("/by_peer/v1"), 200, "{:#}", load.0);
    });
    let missing = json!([{"backendRefs": [backend("web-v1", 1), backend("nobody", 1)]}]);
    shop.under(&route("missing", "web", &missing), || {
        let load = shop.load(&format!("{WEB}/missing"), &["--requests", "400", "--concurrency", "4"]);
        let (served, refused) = (load.count("/by_status/200"), load.count("/by_status/500"));
        assert_eq!((served + refused, load.count("/by_peer/v1")), (400, served), "{:#}", load.0);
        // Five standard deviations of 400 draws at one half.
        assert!(refused.abs_diff(200) <= 50, "{refused} of 400 went to the backend that is missing");
        assert_eq!(shop.taken(&PODS, "/missing"), served, "the share of the missing one went elsewhere");
    });
}

fn by_method(shop: &Shop) {
    let url = format!("{WEB}/method");
    shop.under(&get_only(), || {
        for method in ["GET", "POST", "DELETE", "PUT"] {
            let told = shop.get(CLIENT, &url, &["--method", method]);
            if method == "GET" {
                assert_eq!(told.status(), 200, "{:#}", told.0);
                continue;
            }
            let seen = (told.status(), told.header("x-ambit-reason"), told.header("x-peer"));
            assert_eq!(seen, (403, "AMB2202", ""), "{method}: {:#}", told.0);
            assert!(told.body().contains("AMB2202"), "{method}: {:#}", told.0);
            assert!(!told.body().contains("get-only"), "the policy's name is told: {:#}", told.0);
        }
        let refused = shop.run(
            CLIENT,
            &["grpc", "unary", "--url", GRPC, "--deadline", "5s"],
            std::time::Duration::from_secs(30),
        );
        let seen = (&refused.0["code"], &refused.0["reason"]);
        assert_eq!(seen, (&json!(7), &json!("AMB2202")), "told in gRPC's words: {:#}", refused.0);
        assert_eq!(shop.taken(&PODS, "/method"), 1, "only what was allowed reached an application");
    });
    assert_eq!(shop.post(CLIENT, &url).status(), 200, "without the policy");
}

/// What an application gets is what the client sent.
fn what_arrives(shop: &Shop) {
    let args = ["--method", "PUT", "--body-bytes", "5000", "--header", "x-one: 1", "--header", "x-one: 2"];
    let told = shop.get(CLIENT, &format!("{WEB}/a/b?c=d&c=e"), &args);
    let answer = told.answer();
    assert_eq!((&answer["method"], &answer["path"]), (&json!("PUT"), &json!("/a/b?c=d&c=e")), "{answer:#}");
    assert_eq!(answer["host"], "web.shop.svc.cluster.local", "{answer:#}");
    assert_eq!(answer["headers"]["x-one"], json!(["1", "2"]), "{answer:#}");
    assert_eq!(answer["body"]["bytes"], 5000, "{answer:#}");
    let told = shop.get(CLIENT, &format!("{WEB}/trailers"), &["--header", "te: trailers"]);
    assert_eq!((told.status(), &told.0["trailers"]["x-sum"][0]), (200, &json!("of all")), "{:#}", told.0);
    let told = shop.get(CLIENT, &format!("{GRPC}/over-h2"), &["--http2"]);
    assert_eq!((told.status(), &told.answer()["version"]), (200, &json!("HTTP/2.0")), "{:#}", told.0);
}

/// The binding without its Gateway is refused; without the binding, it is L4 again.
fn without_gateway(shop: &Shop) {
    shop.lab.apply(&[get_only()]);
    assert_eq!(shop.post(CLIENT, &format!("{WEB}/removed")).status(), 403);
    shop.delete(&gateway());
    let told = shop.get(CLIENT, &format!("{WEB}/removed"), &["--timeout", "5s"]);
    assert_eq!(told.status(), 0, "answered although the waypoint that is required is gone: {:#}", told.0);
    shop.until_recorded("AMB3101");
    assert_eq!(shop.taken(&PODS, "/removed"), 0);
    let _ = shop.lab.lab(&["label", "namespace", "shop", "istio.io/use-waypoint-"]);
    shop.delete(&get_only());
    let told = shop.post(CLIENT, &format!("{WEB}/removed"));
    assert_eq!((told.status(), shop.taken(&PODS, "/removed")), (200, 1), "at L4: {:#}", told.0);
    let seen = shop.lab.flows(&["--from-pod", CLIENT, "--to-pod", "shop/web-v1"]);
    let other = shop.lab.flows(&["--from-pod", CLIENT, "--to-pod", "shop/web-v2"]);
    let is_direct = |flow: &serde_json::Value| flow["path"] == "hbone" || flow["path"] == "local";
    assert!(seen.iter().chain(&other).any(is_direct), "no connection went to an application directly");
}
