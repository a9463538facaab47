//! Row 7: an external authorizer in both protocols and a rate limit service, each a real server in a pod of the mesh: what
//! they say is done, and what is done when they say nothing.

use std::time::Duration;

use ambit_tests::lab::wait_until;
use serde_json::{Value, json};

use super::called::{asked, metrics, peer_pod, series};
use super::shop::{CLIENT, GRPC, OUTSIDE, PODS, SOON, Shop, Told, V1, WEB, service, traffic};
use crate::cast::{namespace, security};

/// The authorizer's pod, in a namespace without a waypoint.
const AUTHZ: &str = "iam/authz";
/// Its ports.
const BY_GRPC: u16 = 9191;
const BY_HTTP: u16 = 9192;
/// Where nobody listens.
const NOBODY: u16 = 9199;
/// How long a provider may take, and the rate limit service.
const LIMIT: Duration = Duration::from_millis(500);
/// Who asks.
const ASKER: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";
/// About whom.
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/client";
/// The pod behind [`V1`].
const POD: [&str; 1] = [PODS[0]];
/// The rate limit service's pod and port.
const LIMITS: &str = "shop/limits";
const BY_RLS: u16 = 8081;

/// Providers by name: each that closes has one beside it that opens.
fn providers() -> Vec<Value> {
    let grpc = |name: &str, service: &str| {
        let host = format!("iam/{service}.iam.svc.cluster.local");
        json!({"name": name, "envoyExtAuthzGrpc": {"service": host, "port": BY_GRPC, "timeout": "500ms"}})
    };
    let http = |name: &str, service: &str| {
        json!({"name": name, "envoyExtAuthzHttp": {
            "service": format!("iam/{service}.iam.svc.cluster.local"), "port": BY_HTTP, "timeout": "500ms",
            "pathPrefix": "/check", "statusOnError": "503",
            "includeRequestHeadersInCheck": ["x-authz"],
            "headersToUpstreamOnAllow": ["x-user"],
            "headersToDownstreamOnAllow": ["set-cookie"],
            "headersToDownstreamOnDeny": ["x-why"],
        }})
    };
    let closed = [
        grpc("grpc", "by-grpc"),
        http("http", "by-http"),
        // A service without any pod, and a pod where nobody listens.
        grpc("gone", "gone"),
        http("deaf", "deaf"),
    ];
    let open = closed.clone().map(|mut provider| {
        provider["name"] = json!(format!("{}-open", provider["name"].as_str().unwrap_or_default()));
        for kind in ["envoyExtAuthzGrpc", "envoyExtAuthzHttp"] {
            if provider[kind].is_object() {
                provider[kind]["failOpen"] = json!(true);
            }
        }
        provider
    });
    closed.into_iter().chain(open).collect()
}

/// A policy that has a provider asked about what is below the path of its name, and about every call of gRPC.
fn ask(provider: &Value) -> Value {
    let name = provider["name"].as_str().expect("a provider's name");
    let paths = [format!("/{name}/*")];
    let mut rules = vec![json!({"to": [{"operation": {"paths": paths}}]})];
    let mut targets = vec![json!({"group": "", "kind": "Service", "name": "web"})];
    if name == "gone" {
        targets.push(json!({"group": "", "kind": "Service", "name": "grpc"}));
        rules.push(json!({"to": [{"operation": {"paths": ["/ambit.test.Echo/*"]}}]}));
    }
    let spec = json!({
        "targetRefs": targets, "action": "CUSTOM", "provider": {"name": name}, "rules": rules,
    });
    security("AuthorizationPolicy", &format!("shop/ask-{name}"), &spec)
}

/// Only one identity may call the authorizer, and nobody without a tunnel.
fn only(identity: &str) -> Value {
    let spec = json!({"action": "ALLOW", "rules": [{"from": [{"source": {"principals": [identity]}}]}]});
    security("AuthorizationPolicy", "iam/only", &spec)
}

fn authorizers() -> Vec<Value> {
    let providers = providers();
    let (grpc, http) = (BY_GRPC.to_string(), BY_HTTP.to_string());
    let pod = peer_pod(AUTHZ, "node2", &["authz", "--grpc-port", &grpc, "--http-port", &http], BY_HTTP);
    let mesh = json!({"extensionProviders": providers}).to_string();
    let (ours, nobody) = (json!({"app": "authz"}), json!({"app": "nobody"}));
    let mut all = vec![
        namespace("istio-system", false),
        namespace("iam", true),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh},
        }),
        pod,
        service("iam/by-grpc", &ours, BY_GRPC, BY_GRPC, "grpc"),
        service("iam/by-http", &ours, BY_HTTP, BY_HTTP, "http"),
        service("iam/gone", &nobody, BY_GRPC, BY_GRPC, "grpc"),
        service("iam/deaf", &ours, BY_HTTP, NOBODY, "http"),
        security("PeerAuthentication", "iam/default", &json!({"mtls": {"mode": "STRICT"}})),
        only("cluster.local/ns/shop/sa/waypoint"),
    ];
    all.extend(providers.iter().map(ask));
    all
}

/// A request below the path of a provider's name, that says what its authorizer is to answer.
#[track_caller]
fn wish(shop: &Shop, provider: &str, wish: &str, more: &[&str]) -> Told {
    let header = format!("x-authz: {wish}");
    shop.get(CLIENT, &format!("{WEB}/{provider}/{wish}?a=b"), &[&["--header", &header], more].concat())
}

#[test]
fn an_authorizer_decides_and_without_its_word_nobody_passes() {
    let Some(shop) = Shop::up("wp-authz", &authorizers()) else { return };
    allowed_by_grpc(&shop);
    allowed_by_http(&shop);
    denied(&shop);
    without_an_answer(&shop);
    grpc_in_its_own_words(&shop);
    not_told(&shop);
    asked_through_the_mesh(&shop);
}

/// What the client claims itself, beside what it wishes.
const CLAIMS: [&str; 6] =
    ["--header", "x-user: forged", "--header", "x-groups: own", "--header", "x-secret: hidden"];

fn allowed_by_grpc(shop: &Shop) {
    let told = wish(shop, "grpc", "allow", &CLAIMS);
    assert_eq!((told.status(), told.header("x-seen")), (200, "grpc"), "{:#}", told.0);
    let arrived = told.answer()["headers"].clone();
    assert_eq!(arrived["x-user"], json!(["ann"]), "set in place of the client's: {arrived:#}");
    assert_eq!(arrived["x-secret"], Value::Null, "taken away: {arrived:#}");
    let lines = arrived["x-groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    assert_eq!(lines.collect::<Vec<_>>().join(","), "own,told", "appended: {arrived:#}");
    let told = asked(&shop.lab, AUTHZ, BY_HTTP, "/count");
    assert_eq!((&told["grpc"], &told["http"]), (&json!(1), &json!(0)), "{told:#}");
    let last = &told["last"];
    assert_eq!((&last["source"], &last["destination"]), (&json!(CALLER), &json!(ASKER)), "{last:#}");
    let request = (&last["method"], &last["path"], &last["host"], &last["headers"]["x-user"]);
    let want =
        (&json!("GET"), &json!("/grpc/allow?a=b"), &json!("web.shop.svc.cluster.local"), &json!("forged"));
    assert_eq!(request, want, "{last:#}");
}

fn allowed_by_http(shop: &Shop) {
    let _ = asked(&shop.lab, AUTHZ, BY_HTTP, "/count/reset");
    let told = wish(shop, "http", "allow", &CLAIMS);
    assert_eq!((told.status(), told.header("set-cookie")), (200, "seen=http"), "{:#}", told.0);
    let arrived = told.answer()["headers"].clone();
    assert_eq!(arrived["x-user"], json!(["ann"]), "set in place of the client's: {arrived:#}");
    assert_eq!(arrived["x-unlisted"], Value::Null, "not listed: {arrived:#}");
    let told = asked(&shop.lab, AUTHZ, BY_HTTP, "/count");
    assert_eq!((&told["grpc"], &told["http"]), (&json!(0), &json!(1)), "{told:#}");
    let last = &told["last"];
    assert_eq!(last["path"], "/check/http/allow?a=b", "{last:#}");
    assert_eq!(last["headers"]["x-secret"], Value::Null, "told although it is not listed: {last:#}");
}

fn denied(shop: &Shop) {
    for (provider, body) in [("grpc", "not today, by gRPC"), ("http", "not today, by HTTP")] {
        for name in [provider.to_owned(), format!("{provider}-open")] {
            let told = wish(shop, &name, "deny", &[]);
            let seen = (told.status(), told.header("x-ambit-reason"), told.header("x-why"), told.body());
            assert_eq!(seen, (401, "AMB2205", "as asked", body), "{name}: {:#}", told.0);
            assert!(told.header("www-authenticate").starts_with("Test "), "{name}: {:#}", told.0);
            let taken = shop.taken(&PODS, &format!("/{name}/deny"));
            assert_eq!(taken, 0, "{name}: it reached the application");
        }
    }
}

/// Hangs, fails, or is not there: refused in its time, or let through where the provider says so.
fn without_an_answer(shop: &Shop) {
    let before = failed_open(shop);
    // Provider, what its authorizer is to do, status, and whether the refusal takes as long as it may.
    let rows = [
        ("grpc", "hang", 403, true),
        ("grpc", "error", 403, false),
        ("http", "hang", 503, true),
        ("http", "error", 503, false),
        ("gone", "allow", 403, false),
        ("deaf", "allow", 503, false),
    ];
    for (provider, does, status, takes_all) in rows {
        let told = wish(shop, provider, does, &[]);
        let row = format!("{provider}, {does}");
        assert_eq!(
            (told.status(), told.header("x-ambit-reason")),
            (status, "AMB2206"),
            "{row}: {:#}",
            told.0
        );
        assert!(told.took() < LIMIT + SOON, "{row}: after {:?}", told.took());
        let least = if takes_all { LIMIT - Duration::from_millis(20) } else { Duration::ZERO };
        assert!(told.took() >= least, "{row}: given up after {:?}", told.took());
        assert_eq!(shop.taken(&PODS, &format!("/{provider}/{does}")), 0, "{row}: it reached the application");
        let told = wish(shop, &format!("{provider}-open"), does, &[]);
        assert_eq!(told.status(), 200, "{row}, fails open: {:#}", told.0);
        assert!(told.took() < LIMIT + SOON, "{row}, fails open: after {:?}", told.took());
    }
    assert_eq!(
        failed_open(shop) - before,
        rows.len() as u64,
        "requests that passed without a word are counted"
    );
}

#[track_caller]
fn failed_open(shop: &Shop) -> u64 {
    let text = metrics(shop);
    let all = series(&text, "ambit_waypoint_authorizer_answers_total").into_iter();
    all.filter(|(labels, _)| labels.get("result") == Some(&"failed open")).map(|(_, count)| count).sum()
}

fn grpc_in_its_own_words(shop: &Shop) {
    let told = shop.run(CLIENT, &["grpc", "unary", "--url", GRPC], Duration::from_secs(30));
    assert_eq!((&told.0["code"], &told.0["reason"]), (&json!(7), &json!("AMB2206")), "{:#}", told.0);
}

/// What cannot be told to an authorizer is refused also where it fails open: its sender could have made it so.
fn not_told(shop: &Shop) {
    let script = format!(
        "curl -s -m 10 -o /dev/null -w '%{{http_code}}' -H 'x-authz: allow' -H \"$(printf 'x-odd: \\377')\" {WEB}/grpc-open/odd"
    );
    let status = shop.lab.exec(CLIENT, &["sh", "-c", &script]).ok();
    assert_eq!((&*status, shop.taken(&PODS, "/grpc-open/odd")), ("403", 0), "a header that is no UTF-8");
}

/// The authorizer's own policy lets in nobody but the waypoint, by its certificate.
fn asked_through_the_mesh(shop: &Shop) {
    for from in [CLIENT, OUTSIDE] {
        let url = format!("http://by-http.iam.svc.cluster.local:{BY_HTTP}/count");
        let told = shop.get(from, &url, &["--timeout", "5s"]);
        assert_eq!(told.status(), 0, "{from} reached the authorizer: {:#}", told.0);
    }
    shop.lab.apply(&[only("cluster.local/ns/shop/sa/somebody")]);
    for (provider, status) in [("grpc", 403), ("http", 503)] {
        let is_refused = || {
            let told = wish(shop, provider, "allow", &[]);
            (told.status(), told.header("x-ambit-reason")) == (status, "AMB2206")
        };
        // Connections that are open are decided anew, too.
        wait_until(&format!("the waypoint cannot ask by {provider}"), Duration::from_secs(5), is_refused);
    }
    shop.lab.apply(&[only("cluster.local/ns/shop/sa/waypoint")]);
    for provider in ["grpc", "http"] {
        wait_until(&format!("{provider} answers again"), Duration::from_secs(10), || {
            wish(shop, provider, "allow", &[]).status() == 200
        });
    }
}

fn limiters() -> Vec<Value> {
    let port = BY_RLS.to_string();
    let aside = |mut service: Value| {
        service["metadata"]["labels"] = json!({"istio.io/use-waypoint": "none"});
        service
    };
    vec![
        peer_pod(LIMITS, "node2", &["rls", "--port", &port, "--limit", "x-user:3"], BY_RLS),
        aside(service(LIMITS, &json!({"app": "limits"}), BY_RLS, BY_RLS, "grpc")),
        aside(service("shop/no-limits", &json!({"app": "nobody"}), BY_RLS, BY_RLS, "grpc")),
    ]
}

/// A limit by user and caller that a service counts.
fn limit(service: &str, fails_open: bool) -> Value {
    let global = json!({
        "service": {"name": service, "port": BY_RLS}, "domain": "shop", "timeout": "500ms",
        "failOpen": fails_open,
    });
    let keys = json!([{"type": "Caller"}, {"type": "Header", "name": "x-user"}]);
    traffic("web-v1", json!({"rateLimits": [{"name": "users", "keys": keys, "global": global}]}))
}

/// A request of a user.
#[track_caller]
fn of_user(shop: &Shop, user: &str) -> Told {
    shop.get(CLIENT, &format!("{V1}/counted"), &["--header", &format!("x-user: {user}")])
}

#[test]
fn a_rate_limit_service_counts_for_the_waypoint() {
    let Some(shop) = Shop::up("wp-rls", &limiters()) else { return };
    shop.under(&limit("limits", false), || {
        counted(&shop);
        for user in ["hang", "error"] {
            refused_without_an_answer(&of_user(&shop, user), user);
        }
        assert_eq!(shop.taken(&POD, "/counted"), 5, "what was refused reached the application");
    });
    shop.under(&limit("limits", true), || {
        for user in ["hang", "error"] {
            let told = of_user(&shop, user);
            assert_eq!(told.status(), 200, "{user}, fails open: {:#}", told.0);
            assert!(told.took() < LIMIT + SOON, "{user}, fails open: after {:?}", told.took());
        }
        // It fails open, which is not to say that it limits nobody.
        let told = of_user(&shop, "a");
        assert_eq!((told.status(), told.header("x-ambit-reason")), (429, "AMB2208"), "{:#}", told.0);
    });
    shop.under(&limit("no-limits", false), || refused_without_an_answer(&of_user(&shop, "a"), "down"));
    shop.under(&limit("no-limits", true), || {
        let told = of_user(&shop, "a");
        assert_eq!(told.status(), 200, "down, fails open: {:#}", told.0);
    });
}

/// Three of one user, one of another, one of nobody; the fourth of the first is too much.
fn counted(shop: &Shop) {
    let load = shop.load(&format!("{V1}/counted"), &["--requests", "5", "--header", "x-user: a"]);
    let seen = (load.count("/by_status/200"), load.count("/by_status/429"), load.count("/by_reason/AMB2208"));
    assert_eq!(seen, (3, 2, 2), "{:#}", load.0);
    let told = of_user(shop, "a");
    let seen = (told.status(), told.header("x-ambit-reason"), told.header("x-envoy-ratelimited"));
    assert_eq!(seen, (429, "AMB2208", "true"), "{:#}", told.0);
    let seen = (told.header("retry-after"), told.header("x-limited-by"));
    assert_eq!(seen, ("30", "rls"), "{:#}", told.0);
    let told = of_user(shop, "b");
    assert_eq!((told.status(), told.header("x-limited-by")), (200, "rls"), "{:#}", told.0);
    assert_eq!(told.answer()["headers"]["x-counted"], json!(["yes"]), "{:#}", told.0);
    let told = asked(&shop.lab, LIMITS, BY_RLS, "/count");
    let descriptor = json!([["source_principal", CALLER], ["x-user", "b"]]);
    let last = json!({"domain": "shop", "descriptors": [descriptor], "hits_addend": 1});
    assert_eq!((&told["questions"], &told["last"]), (&json!(7), &last), "{told:#}");
    // Without the header there is no descriptor, and so there is no question.
    let nobody = shop.get(CLIENT, &format!("{V1}/counted"), &[]);
    assert_eq!(nobody.status(), 200, "{:#}", nobody.0);
    assert_eq!(asked(&shop.lab, LIMITS, BY_RLS, "/count")["questions"], 7);
}

#[track_caller]
fn refused_without_an_answer(told: &Told, row: &str) {
    assert_eq!((told.status(), told.header("x-ambit-reason")), (503, "AMB2209"), "{row}: {:#}", told.0);
    assert!(told.took() < LIMIT + SOON, "{row}: after {:?}", told.took());
}
