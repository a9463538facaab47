//! Who may call what, and what a refusal says.

use ambit_types::{AppProtocol, Reason};

use crate::rig::Setup;
use crate::rig::app::{App, answer};

const READS: &str = "{action: ALLOW, rules: [{to: [{operation: {methods: [GET], notPaths: [/admin*]}}]}]}";

#[tokio::test]
async fn a_policy_for_methods_and_paths_holds_for_every_spelling() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(READS).start().await;
    for (line, status, code) in [
        ("GET /", 200, ""),
        ("POST /", 403, "AMB2202"),
        ("get /", 403, "AMB2202"),
        ("GET /admin", 403, "AMB2202"),
        ("GET //admin", 403, "AMB2202"),
        ("GET /./admin", 403, "AMB2202"),
        ("GET /x/../admin", 403, "AMB2202"),
        ("GET /%61dmin", 403, "AMB2202"),
        ("GET /%2fadmin", 400, "AMB2207"),
        ("GET /x/..%2fadmin", 400, "AMB2207"),
        ("GET /%2561dmin", 400, "AMB2207"),
        ("GET /x/..;/admin", 400, "AMB2207"),
    ] {
        let answered = rig.get(line, &[]).await;
        assert_eq!((answered.status, answered.header("x-ambit-reason")), (status, code), "row {line}");
        assert!(!answered.body.contains("policy-0"), "the policy's name stays here: {}", answered.body);
    }
    assert_eq!(app.got().len(), 1);
    let denied = rig.until_written(12).await;
    assert_eq!(denied[1].reason, Some(Reason::HttpPolicyDenied));
}

#[tokio::test]
async fn an_escaped_plus_sign_is_judged_as_one_and_goes_on_as_it_came() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/a+b]}}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(deny).start().await;
    for (line, status) in [
        ("GET /a+b", 403),
        ("GET /a%2Bb", 403),
        ("GET /a%2bb", 403),
        ("GET /x/../a%2Bb", 403),
        ("GET /c+d", 200),
        ("GET /c%2bd?e=%2b", 200),
    ] {
        assert_eq!(rig.get(line, &[]).await.status, status, "row {line}");
    }
    let got: Vec<String> = app.got().into_iter().map(|got| got.line).collect();
    assert_eq!(got, ["GET /c+d", "GET /c%2Bd?e=%2b"]);
}

#[tokio::test]
async fn a_deny_names_its_code_and_the_record_its_policy() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let deny = "{action: DENY, rules: [{to: [{operation: {hosts: [secret.shop]}}]}]}";
    let allow = "{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}";
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(deny).dry_run(allow);
    let rig = setup.start().await;
    let secret = http::Request::get("/").header("host", "SECRET.shop.:80");
    let answered = rig.ask(secret.body(crate::rig::app::text("")).unwrap()).await;
    assert_eq!(answered.status, 403);
    assert_eq!(answered.body, "AMB2201 http-deny-rule-matched\n");
    let answered = rig.get("DELETE /", &[]).await;
    assert_eq!(answered.status, 200);
    let written = rig.until_written(2).await;
    assert_eq!(written[0].policy.as_deref(), Some("shop/policy-0"));
    assert_eq!(written[1].dry_run, ["deny by shop/policy-1"]);
}

#[tokio::test]
async fn grpc_callers_are_refused_in_their_own_words() {
    let app = App::start("web-0", true, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Grpc, &[app.ip]).policy(READS).start().await;
    let answered = rig.get("POST /shop.Cart/Add", &[("content-type", "application/grpc+proto")]).await;
    assert_eq!((answered.status, answered.header("grpc-status")), (200, "7"));
    assert_eq!(answered.header("grpc-message"), "AMB2202 http-policy-denied");
    assert_eq!(answered.body, "");
}

#[tokio::test]
async fn an_authorizer_that_cannot_be_asked_refuses() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let custom = "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/ask]}}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(custom).start().await;
    let answered = rig.get("GET /ask", &[]).await;
    assert_eq!((answered.status, answered.header("x-ambit-reason")), (403, "AMB2206"));
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
}

#[tokio::test]
async fn an_upgrade_and_the_wish_for_trailers_are_judged_by_their_headers() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let deny = "{action: DENY, rules: [{when: [{key: 'request.headers[upgrade]', values: [websocket]}]}, \
                {when: [{key: 'request.headers[te]', values: [trailers]}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(deny).start().await;
    for (headers, status) in [
        (&[("connection", "Upgrade"), ("upgrade", "websocket")][..], 403),
        (&[("connection", "Upgrade"), ("upgrade", "chat")], 200),
        // Such an upgrade is not asked for, and goes nowhere.
        (&[("upgrade", "websocket")], 200),
        (&[("connection", "te"), ("te", "trailers")], 403),
        (&[], 200),
    ] {
        let before = app.got().len();
        let answered = rig.get("GET /", headers).await;
        assert_eq!(answered.status, status, "row {headers:?}");
        assert_eq!(app.got().len() - before, usize::from(status == 200), "row {headers:?}");
    }
    let got = app.got();
    assert_eq!(got[0].headers["upgrade"], "chat");
    assert!(got[1..].iter().all(|got| !got.headers.contains_key("upgrade")));
}

#[tokio::test]
async fn refusals_of_head_have_no_body() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(READS).start().await;
    let mut sender = rig.http2().await;
    for (line, body) in [("HEAD /", ""), ("POST /", "AMB2202 http-policy-denied\n")] {
        let request = crate::rig::client::request2(line, &[], crate::rig::app::text(""));
        let response = crate::rig::within(sender.send_request(request)).await.unwrap();
        let answered = crate::rig::client::read(response).await;
        assert_eq!((answered.status, &*answered.body), (403, body), "row {line}");
        assert_eq!(answered.header("content-type"), "text/plain; charset=utf-8", "row {line}");
    }
}
