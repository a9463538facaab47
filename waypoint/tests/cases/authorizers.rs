//! CUSTOM policies with somebody to ask: authorizers behind their own proxies, in gRPC and in HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_policy::http::provider::{compile, written};
use ambit_route::model::{Connections, Destination as Treated, DestinationPolicy};
use ambit_types::AppProtocol;
use ambit_xds::proto::envoy::config::core::v3::{HeaderValue as Line, HeaderValueOption};
use ambit_xds::proto::envoy::service::auth::v3::check_response::HttpResponse;
use ambit_xds::proto::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use ambit_xds::proto::envoy::r#type::v3::HttpStatus;
use ambit_xds::proto::google::rpc::Status;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use prost::Message as _;
use waypoint::Hooks;
use waypoint::external::Providers;

use crate::rig::app::{App, Body, answer, text};
use crate::rig::client::{request, request2};
use crate::rig::{Rig, Setup, identity, service_key};

const ASK: &str = "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/ask*]}}]}]}";
const GRPC: &str = "{name: opa, envoyExtAuthzGrpc: {service: shop/authz.shop.svc.cluster.local, port: 80}}";

fn hooks(yaml: &str) -> Hooks {
    let written: written::Provider = serde_saphyr::from_str(yaml).expect("the form of a provider");
    let provider = compile(&written).expect("a sound provider");
    let providers = Providers::default();
    providers.tell([(provider.name.clone(), Arc::new(provider))].into());
    Hooks { external: Arc::new(providers), ..Hooks::default() }
}

/// A waypoint for `web`, whose requests to `/ask` need a yes of `authz`.
async fn rig(web: &App, authz: &App, protocol: AppProtocol, provider: &str) -> Rig {
    let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
    let mut setup = setup.service("authz", protocol, &[authz.ip]).policy(ASK);
    setup.services.iter_mut().for_each(|service| service.canonical = true);
    setup.hooks = hooks(provider);
    setup.start().await
}

async fn web() -> App {
    App::start("web-0", false, |_, _| async { answer(200, "ok") }).await
}

/// An authorizer in gRPC that answers always the same, and what it was asked.
async fn grpc(response: CheckResponse) -> (App, Arc<Mutex<Vec<CheckRequest>>>) {
    let asked: Arc<Mutex<Vec<CheckRequest>>> = Arc::default();
    let notes = asked.clone();
    let app = App::start("authz-0", true, move |_, request: Request<Incoming>| {
        let (notes, response) = (notes.clone(), response.clone());
        async move {
            assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            notes.lock().unwrap().push(CheckRequest::decode(body.slice(5..)).unwrap());
            message(&response)
        }
    })
    .await;
    (app, asked)
}

/// A response of gRPC with one message.
fn message(message: &CheckResponse) -> Response<Body> {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap());
    framed.extend_from_slice(&encoded);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).map_err(|never| match never {});
    let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn line(name: &str, value: &str) -> HeaderValueOption {
    let header = Line { key: name.into(), value: value.into(), ..Line::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

fn yes(ok: OkHttpResponse) -> CheckResponse {
    CheckResponse { status: Some(Status::default()), http_response: Some(HttpResponse::OkResponse(ok)) }
}

fn no(denied: DeniedHttpResponse) -> CheckResponse {
    let status = Some(Status { code: 7, ..Status::default() });
    CheckResponse { status, http_response: Some(HttpResponse::DeniedResponse(denied)) }
}

#[tokio::test]
async fn a_yes_in_grpc_changes_request_and_response_and_nothing_that_identifies() {
    let web = web().await;
    let (authz, asked) = grpc(yes(OkHttpResponse {
        headers: vec![
            line("x-user", "ann"),
            HeaderValueOption { append: Some(true), ..line("x-team", "two") },
            line("host", "evil"),
            line("content-length", "5"),
            line("x-forwarded-client-cert", "By=evil"),
            line("x-ambit-client", "evil"),
        ],
        headers_to_remove: vec!["x-secret".into(), "host".into()],
        response_headers_to_add: vec![line("set-cookie", "a=b"), line("x-ambit-reason", "evil")],
        ..OkHttpResponse::default()
    }))
    .await;
    let rig = rig(&web, &authz, AppProtocol::Grpc, GRPC).await;
    let sent = [("x-user", "root"), ("x-team", "one"), ("x-secret", "s"), ("x-many", "a"), ("x-many", "b")];
    let answered = rig.get("GET /ask?q=1", &sent).await;
    assert_eq!((answered.status, answered.header("set-cookie")), (200, "a=b"));
    assert_eq!(answered.header("x-ambit-reason"), "");

    let got = web.got().remove(0);
    let lines = |name: &str| -> Vec<&str> {
        got.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!((lines("x-user"), lines("x-team")), (vec!["ann"], vec!["one", "two"]));
    assert_eq!((lines("x-secret"), lines("host")), (vec![], vec!["web.shop"]));
    assert!(lines("x-forwarded-client-cert")[0].ends_with("/sa/cart"));
    assert_eq!((lines("content-length"), lines("x-ambit-client")), (vec![], vec![]));

    let asked = asked.lock().unwrap()[0].attributes.clone().unwrap();
    let principal = |name: &str| identity("shop", name).to_string();
    assert_eq!(asked.source.unwrap().principal, principal("cart"));
    assert_eq!(asked.destination.unwrap().principal, principal("waypoint"));
    let told = asked.request.unwrap().http.unwrap();
    assert_eq!(
        (told.method.as_str(), told.path.as_str(), told.host.as_str()),
        ("GET", "/ask?q=1", "web.shop")
    );
    assert_eq!((told.headers["x-many"].as_str(), told.headers["x-user"].as_str()), ("a,b", "root"));
    assert_eq!((told.protocol.as_str(), told.size), ("HTTP/1.1", -1));

    let tunnel = authz.proxy.asked().remove(0);
    assert_eq!(tunnel.peer, identity("shop", "waypoint"), "by the waypoint's own certificate");
    assert!(!tunnel.headers.contains_key("x-ambit-client"), "on nobody's behalf");
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
    assert_eq!(authz.got().len(), 1, "only what the policy matches is asked about");
}

#[tokio::test]
async fn a_no_in_grpc_says_what_the_authorizer_says() {
    let web = web().await;
    let (authz, _) = grpc(no(DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![
            line("www-authenticate", "Basic"),
            line("transfer-encoding", "gzip"),
            line("content-type", "text/html"),
        ],
        body: "who are you?".into(),
    }))
    .await;
    let rig = rig(&web, &authz, AppProtocol::Grpc, GRPC).await;
    let answered = rig.get("GET /ask", &[]).await;
    assert_eq!((answered.status, answered.body.as_str()), (401, "who are you?"));
    assert_eq!(
        (answered.header("www-authenticate"), answered.header("content-type")),
        ("Basic", "text/html")
    );
    assert_eq!((answered.header("x-ambit-reason"), answered.header("transfer-encoding")), ("AMB2205", ""));
    let answered = rig.get("POST /ask", &[("content-type", "application/grpc")]).await;
    assert_eq!((answered.status, answered.header("grpc-status")), (200, "16"));
    assert_eq!((answered.header("content-type"), answered.body.as_str()), ("application/grpc", ""));
    assert_eq!(web.got().len(), 0);
    assert_eq!(rig.until_written(1).await[0].flag, "UAEX");
}

#[tokio::test]
async fn an_authorizer_in_http_gets_what_is_listed_and_gives_what_is_listed() {
    let web = web().await;
    let authz = App::start("authz-0", false, |_, request: Request<Incoming>| async move {
        let is_known = request.headers().contains_key("authorization");
        let response = Response::builder().status(if is_known { 200 } else { 302 });
        let response = response.header("x-user", "ann").header("x-other", "o").header("location", "/login");
        response.header("x-why", "unknown").header("connection", "x-gone").body(text("told")).unwrap()
    })
    .await;
    let provider = "{name: opa, envoyExtAuthzHttp: {service: authz.shop.svc.cluster.local, port: 80, pathPrefix: /check/, \
         includeRequestHeadersInCheck: [x-a*], includeAdditionalHeadersInCheck: {x-mesh: 'yes'}, \
         headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-other], headersToDownstreamOnDeny: [x-why]}}";
    let rig = rig(&web, &authz, AppProtocol::Http11, provider).await;
    let answered = rig.get("PUT /ask?q=1", &[("authorization", "me"), ("x-ab", "1"), ("x-b", "2")]).await;
    assert_eq!((answered.status, answered.header("x-other"), answered.header("x-why")), (200, "o", ""));
    let question = authz.got().remove(0);
    assert_eq!(question.line, "PUT /check/ask?q=1");
    let told = |name: &str| question.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!((told("host").as_deref(), told("authorization").as_deref()), (Some("web.shop"), Some("me")));
    assert_eq!(
        (told("x-ab").as_deref(), told("x-mesh").as_deref(), told("x-b")),
        (Some("1"), Some("yes"), None)
    );
    let got = web.got().remove(0);
    assert_eq!((got.headers["x-user"].to_str().unwrap(), got.headers.get("x-other")), ("ann", None));

    let answered = rig.get("GET /ask", &[]).await;
    assert_eq!((answered.status, answered.body.as_str()), (302, "told"));
    assert_eq!((answered.header("location"), answered.header("x-why")), ("/login", "unknown"));
    assert_eq!((answered.header("x-user"), answered.header("x-ambit-reason")), ("", "AMB2205"));
    assert_eq!(web.got().len(), 1);
}

#[tokio::test]
async fn without_an_answer_the_provider_says_what_happens() {
    let silent = || {
        App::start("authz-0", false, |_, _| async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            answer(200, "too late")
        })
    };
    let failing = || App::start("authz-0", false, |_, _| async { answer(500, "broken") });
    let closing = || App::raw("authz-0", |_| async {});
    let provider = |more: &str| {
        format!(
            "{{name: opa, envoyExtAuthzHttp: {{service: shop/authz.shop.svc.cluster.local, port: 80, timeout: 300ms{more}}}}}"
        )
    };
    let grpc =
        "{name: opa, envoyExtAuthzGrpc: {service: shop/authz.shop.svc.cluster.local, port: 80}}".to_owned();
    let gone = "{name: opa, envoyExtAuthzGrpc: {service: shop/gone.shop, port: 80}}".to_owned();
    let rows = [
        ("it is silent", silent().await, provider(""), 403),
        ("it is silent", silent().await, provider(", statusOnError: '503'"), 503),
        ("it is silent", silent().await, provider(", failOpen: true"), 200),
        ("it fails", failing().await, provider(""), 403),
        ("it fails", failing().await, provider(", failOpen: true"), 200),
        ("it breaks off", closing().await, provider(", statusOnError: '500'"), 500),
        ("it is no gRPC", failing().await, grpc, 403),
        ("it is not there", failing().await, gone, 403),
    ];
    for (what, authz, provider, want) in rows {
        let web = web().await;
        let rig = rig(&web, &authz, AppProtocol::Http11, &provider).await;
        let answered = rig.get("GET /ask", &[]).await;
        assert_eq!(answered.status, want, "{what}: {provider}");
        let reason = if want == 200 { "" } else { "AMB2206" };
        assert_eq!(answered.header("x-ambit-reason"), reason, "{what}: {provider}");
        assert_eq!(web.got().len(), usize::from(want == 200), "{what}: {provider}");
    }
}

#[tokio::test]
async fn an_answer_beyond_its_bounds_is_none() {
    let many = |n: usize| (0..n).map(|n| line(&format!("x-{n}"), "v")).collect::<Vec<_>>();
    let broken = vec![line("x-a", "b\r\nhost: evil")];
    let rows = [
        yes(OkHttpResponse { headers: many(65), ..OkHttpResponse::default() }),
        yes(OkHttpResponse { headers: vec![line("x", &"v".repeat(17 << 10))], ..OkHttpResponse::default() }),
        no(DeniedHttpResponse { body: "b".repeat(65 << 10), ..DeniedHttpResponse::default() }),
        yes(OkHttpResponse { headers: broken, ..OkHttpResponse::default() }),
        CheckResponse::default(),
    ];
    for response in rows {
        let web = web().await;
        let (authz, _) = grpc(response).await;
        let rig = rig(&web, &authz, AppProtocol::Grpc, GRPC).await;
        let answered = rig.get("GET /ask", &[]).await;
        assert_eq!((answered.status, answered.header("x-ambit-reason")), (403, "AMB2206"));
        assert_eq!(web.got().len(), 0);
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_even_if_the_provider_fails_open() {
    let web = web().await;
    let (authz, _) = grpc(yes(OkHttpResponse::default())).await;
    let open = GRPC.replace("port: 80", "port: 80, failOpen: true");
    let rig = rig(&web, &authz, AppProtocol::Grpc, &open).await;
    let mut asked = request("GET /ask", &[], text(""));
    asked.headers_mut().insert("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(rig.ask(asked).await.status, 403);
    assert_eq!((web.got().len(), authz.got().len()), (0, 0));
    assert_eq!(rig.get("GET /ask", &[]).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_question() {
    let web = web().await;
    let authz = App::start("authz-0", true, |_, _| std::future::pending::<Response<Body>>()).await;
    let patient = GRPC.replace("port: 80", "port: 80, timeout: 10s");
    let rig = rig(&web, &authz, AppProtocol::Grpc, &patient).await;
    let mut sender = rig.http2().await;
    let asking = crate::rig::start(async move {
        // Nobody waits for this one to the end.
        let _ = sender.send_request(request2("GET /ask", &[], text(Bytes::new()))).await;
    });
    authz.until_got(1).await;
    asking.abort();
    assert_eq!(rig.until_written(1).await[0].flag, "DC");
    assert_eq!(web.got().len(), 0);
}

#[tokio::test]
async fn a_provider_means_no_service_that_only_a_tenant_calls_so() {
    let provider = "{name: opa, envoyExtAuthzGrpc: {service: authz.shop.svc.cluster.local, port: 80}}";
    for (namespace, canonical, want) in
        [("shop", true, 200), ("shop", false, 403), ("istio-system", false, 200)]
    {
        let web = web().await;
        let (authz, asked) = grpc(yes(OkHttpResponse::default())).await;
        let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
        let mut setup = setup.service("authz", AppProtocol::Grpc, &[authz.ip]).policy(ASK);
        let service = &mut setup.services[1];
        let before = service.key();
        (service.namespace, service.canonical) = (namespace.into(), canonical);
        let after = service.key();
        for workload in &mut setup.workloads {
            if workload.services.remove(&before).is_some() {
                workload.services.insert(after.clone(), Vec::new());
            }
        }
        setup.hooks = hooks(provider);
        let rig = setup.start().await;
        assert_eq!(rig.get("GET /ask", &[]).await.status, want, "{namespace} {canonical}");
        assert_eq!(asked.lock().unwrap().len(), usize::from(want == 200), "{namespace} {canonical}");
    }
}

/// With one request at a time a second one finds no place.
fn one_at_a_time() -> Treated {
    let connections = Connections { requests_max: 1, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..DestinationPolicy::default() };
    Treated { service: service_key("authz"), policy }
}

#[tokio::test]
async fn a_flood_does_not_open_a_provider_that_fails_open() {
    let web = web().await;
    let authz = App::start("authz-0", true, |_, _| std::future::pending::<Response<Body>>()).await;
    let open = GRPC.replace("port: 80", "port: 80, timeout: 10s, failOpen: true");
    let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
    let mut setup =
        setup.service("authz", AppProtocol::Grpc, &[authz.ip]).policy(ASK).treated(one_at_a_time());
    setup.hooks = hooks(&open);
    let rig = setup.start().await;
    let mut sender = rig.http2().await;
    let first = crate::rig::start(async move {
        let _ = sender.send_request(request2("GET /ask", &[], text(Bytes::new()))).await;
    });
    authz.until_got(1).await;
    assert_eq!(rig.get("GET /ask", &[]).await.status, 403);
    assert!(web.got().is_empty());
    first.abort();
}
