//! Routes of other namespaces: they change what their own clients send, and get nobody past a policy.

use std::sync::Arc;

use ambit_policy::http::{Answer, Ask};
use ambit_policy::jwt::{self, RuleSet, SignatureError, SignedToken, Verifier, written};
use ambit_route::model::{
    Filter, Fraction, Frontend, Group, HeaderChange, HttpMatch, HttpRoute, Mirror, PathChange, Rewrite,
    RouteKey, Rule, Target,
};
use ambit_types::AppProtocol;
use ambit_types::service::Port;
use ambit_xds::ext_authz::Way;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use waypoint::Hooks;
use waypoint::hooks::{Answering, Asked, Checked, External, FieldChange};

use super::routing::to;
use crate::rig::app::{App, answer, text};
use crate::rig::client::{Read, read, request};
use crate::rig::{PORT, Rig, Setup, identity, service_key, start, within};

const NOT_ADMIN: &str = "{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}";

/// Rules of a namespace for its own clients of `web`.
fn consumer(mut setup: Setup, namespace: &str, rules: Vec<Rule<HttpMatch>>) -> Setup {
    let route = HttpRoute { key: RouteKey::new(namespace, "route"), created: 0, rules };
    let group = (namespace.into(), Group::Http(vec![route]));
    let web = service_key("web");
    match setup.routes.frontends.iter_mut().find(|frontend| frontend.service == web) {
        Some(frontend) => _ = frontend.consumers.insert(group.0, group.1),
        None => setup.routes.frontends.push(Frontend {
            service: web,
            port: PORT,
            producer: None,
            consumers: [group].into(),
        }),
    }
    setup
}

async fn app(name: &'static str) -> App {
    App::start(&format!("{name}-0"), false, move |_, _| async move { answer(200, name) }).await
}

/// One request of a client of a namespace to `web`.
async fn ask(rig: &Rig, namespace: &str, line: &str, headers: &[(&str, &str)]) -> Read {
    let tunnel = rig.tunnel_of(&identity(namespace, "cart")).await;
    let stream = rig.connect_with(&tunnel, "10.9.0.1:80", &[]).await.expect("the waypoint serves it");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    start(connection);
    read(within(sender.send_request(request(line, headers, text("")))).await.expect("a response")).await
}

fn set(name: &str, value: &str) -> Filter {
    let set = vec![(name.into(), value.into())];
    Filter::RequestHeaders(HeaderChange { set, ..HeaderChange::default() })
}

fn rewrite(host: Option<&str>, path: Option<&str>) -> Filter {
    let path = path.map(|path| PathChange::Full(path.into()));
    Filter::Rewrite(Rewrite { hostname: host.map(Into::into), path })
}

fn with(filters: Vec<Filter>) -> Vec<Rule<HttpMatch>> {
    vec![Rule { filters, ..to("web") }]
}

#[tokio::test]
async fn what_a_consumer_makes_of_a_request_is_judged_again() {
    let web = app("web").await;
    let deny = "{action: DENY, rules: [{to: [{operation: {hosts: [secret.shop]}}]}, \
                {when: [{key: 'request.headers[x-role]', values: [admin]}]}]}";
    for (filter, want) in [
        (rewrite(None, Some("/admin")), (403, "AMB2201")),
        (rewrite(None, Some("/admin/users")), (403, "AMB2201")),
        (rewrite(Some("secret.shop"), None), (403, "AMB2201")),
        (set("x-role", "admin"), (403, "AMB2201")),
        (rewrite(Some("other.shop"), Some("/to")), (200, "")),
        (set("x-role", "guest"), (200, "")),
    ] {
        let row = format!("{filter:?}");
        let setup =
            Setup::new().service("web", AppProtocol::Http11, &[web.ip]).policy(NOT_ADMIN).policy(deny);
        let rig = consumer(setup, "evil", with(vec![filter])).start().await;
        let before = web.got().len();
        let answered = ask(&rig, "evil", "GET /public", &[]).await;
        assert_eq!((answered.status, answered.header("x-ambit-reason")), want, "{row}");
        assert_eq!(web.got().len() - before, usize::from(want.0 == 200), "{row}");
        // Nobody else is concerned.
        assert_eq!(ask(&rig, "shop", "GET /public", &[]).await.status, 200, "{row}");
    }
}

#[tokio::test]
async fn what_was_judged_is_what_is_sent() {
    let web = app("web").await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]).policy(NOT_ADMIN);
    let filters = vec![rewrite(Some("Other.Shop"), Some("/to")), set("x-set", "1")];
    let rig = consumer(setup, "evil", with(filters)).start().await;
    assert_eq!(ask(&rig, "evil", "GET /public?q=1", &[("x-kept", "2")]).await.status, 200);
    let got = web.got().remove(0);
    assert_eq!((&*got.line, &got.headers["host"]), ("GET /to?q=1", &HeaderValue::from_static("other.shop")));
    assert_eq!(
        (&got.headers["x-set"], &got.headers["x-kept"]),
        (&"1".parse().unwrap(), &"2".parse().unwrap())
    );
}

#[tokio::test]
async fn a_consumer_says_nothing_that_its_clients_could_not() {
    let web = app("web").await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
    let filters = vec![Filter::RequestHeaders(HeaderChange {
        set: vec![("x_user".into(), "root".into()), ("x-request-id".into(), "none of it".into())],
        remove: vec!["x-forwarded-proto".into()],
        ..HeaderChange::default()
    })];
    let rig = consumer(setup, "evil", with(filters)).start().await;
    assert_eq!(ask(&rig, "evil", "GET /", &[]).await.status, 200);
    let got = web.got().remove(0).headers;
    assert!(!got.contains_key("x_user"), "{got:?}");
    let certificate = got["x-forwarded-client-cert"].to_str().unwrap();
    assert!(certificate.ends_with("URI=spiffe://cluster.local/ns/evil/sa/cart"), "{certificate}");
    assert_eq!(got["x-forwarded-proto"], "http");
    assert_eq!(got["x-request-id"].len(), 36);
}

#[tokio::test]
async fn a_backend_with_policies_of_its_own_is_asked_unless_its_own_namespace_splits() {
    let (web, payments) = (app("web").await, app("payments").await);
    let mesh = || {
        let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
        let setup = setup.service("payments", AppProtocol::Http11, &[payments.ip]);
        setup.policy_of(
            "payments",
            "{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]}",
        )
    };
    let rig = consumer(mesh(), "evil", vec![to("payments")]).start().await;
    let answered = ask(&rig, "evil", "GET /", &[]).await;
    assert_eq!((answered.status, answered.header("x-ambit-reason")), (403, "AMB2201"));
    assert_eq!(rig.until_written(1).await[0].policy.as_deref(), Some("shop/payments-0"));
    assert!(payments.got().is_empty());
    assert_eq!(ask(&rig, "evil", "POST /", &[]).await.body, "payments");
    // As in Istio: whoever has the service called splits what comes to it.
    let rig = mesh().http("web", vec![to("payments")]).start().await;
    assert_eq!(ask(&rig, "evil", "GET /", &[]).await.body, "payments");
}

#[tokio::test]
async fn another_port_of_the_service_is_judged_as_that_port() {
    let web = app("web").await;
    let denied = "{action: DENY, rules: [{to: [{operation: {ports: ['81']}}]}]}";
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]).policy(denied);
    let admin = Port { service_port: 81, ..setup.services[0].ports[0] };
    setup.services[0].ports.push(admin);
    let mut rule = to("web");
    rule.backends[0].target = Target::Service { service: service_key("web"), port: 81 };
    let rig = consumer(setup, "evil", vec![rule]).start().await;
    let answered = ask(&rig, "evil", "GET /", &[]).await;
    assert_eq!((answered.status, answered.header("x-ambit-reason")), (403, "AMB2201"));
    assert!(web.got().is_empty());
    assert_eq!(ask(&rig, "shop", "GET /", &[]).await.status, 200);
}

#[tokio::test]
async fn a_copy_that_may_not_be_sent_is_not_and_the_request_goes_on() {
    let (web, payments) = (app("web").await, app("payments").await);
    let setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]);
    let setup = setup.service("payments", AppProtocol::Http11, &[payments.ip]);
    let setup = setup.policy_of("payments", "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}");
    let target = Target::Service { service: service_key("payments"), port: PORT };
    let mirror = Filter::Mirror(Mirror { target, fraction: Fraction::ALL });
    let rig = consumer(setup, "evil", with(vec![mirror])).start().await;
    assert_eq!(ask(&rig, "evil", "GET /refused", &[]).await.body, "web");
    assert_eq!(ask(&rig, "evil", "POST /sent", &[]).await.body, "web");
    payments.until_got(1).await;
    let lines: Vec<String> = payments.got().into_iter().map(|got| got.line).collect();
    assert_eq!(lines, ["POST /sent"]);
}

/// Allows everything, and says who called and for which path.
struct Naming;

impl External for Naming {
    fn check<'a>(&'a self, _: &'a Ask, asked: Asked<'a>) -> Answering<'a> {
        let change = |name: &'static str, value: &str| FieldChange {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_str(value).expect("a value"),
            way: Way::Set,
        };
        let request = vec![change("x-user", "ann"), change("x-path", asked.path)];
        Box::pin(std::future::ready(Checked { request, ..Checked::plain(Answer::Allowed) }))
    }
}

#[tokio::test]
async fn what_an_authorizer_said_stands() {
    let custom = "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/ask*]}}]}]}";
    let forged = Filter::RequestHeaders(HeaderChange {
        set: vec![("x-user".into(), "root".into())],
        remove: vec!["x-path".into()],
        ..HeaderChange::default()
    });
    for (path, told) in [(None, "/ask"), (Some("/ask/more"), "/ask/more"), (Some("/other"), "/ask")] {
        let web = app("web").await;
        let mut setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]).policy(custom);
        setup.hooks = Hooks { external: Arc::new(Naming), ..Hooks::default() };
        let rewritten = path.map(|path| rewrite(None, Some(path)));
        let filters = [forged.clone()].into_iter().chain(rewritten).collect();
        let rig = consumer(setup, "evil", with(filters)).start().await;
        assert_eq!(ask(&rig, "evil", "GET /ask", &[("x-user", "me")]).await.status, 200);
        let got = web.got().remove(0).headers;
        assert_eq!((&got["x-user"], &got["x-path"]), (&"ann".parse().unwrap(), &told.parse().unwrap()));
        assert_eq!(got.get_all("x-user").iter().count(), 1, "{path:?}");
    }
}

/// Takes every signature for sound.
struct Believing;

impl Verifier for Believing {
    fn verify(&self, _: &jwt::Rule, _: &SignedToken<'_>) -> Result<(), SignatureError> {
        Ok(())
    }
}

fn token(subject: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"iss":"issuer","sub":"{subject}"}}"#);
    format!("{}.{}.{}", encode(r#"{"alg":"ES256"}"#), encode(&claims), encode("signature"))
}

#[tokio::test]
async fn headers_that_tell_claims_come_from_tokens_only() {
    let web = app("web").await;
    let needed = "{action: ALLOW, rules: [{from: [{source: {requestPrincipals: [issuer/ann]}}]}, \
                  {to: [{operation: {paths: [/open]}}]}]}";
    let rule = written::Rule {
        issuer: "issuer".to_owned(),
        jwks_uri: Some("http://127.0.0.1:1/keys".to_owned()),
        output_claim_to_headers: vec![written::ClaimToHeader {
            header: "x-sub".to_owned(),
            claim: "sub".to_owned(),
        }],
        ..written::Rule::default()
    };
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[web.ip]).policy(needed);
    setup.tokens = RuleSet::new([jwt::compile(&rule).expect("a rule")]);
    setup.hooks = Hooks { verifier: Arc::new(Believing), ..Hooks::default() };
    let rig = consumer(setup, "evil", with(vec![set("x-sub", "root")])).start().await;
    let ann = format!("Bearer {}", token("ann"));
    assert_eq!(ask(&rig, "evil", "GET /", &[("authorization", &ann)]).await.status, 200);
    assert_eq!(ask(&rig, "evil", "GET /open", &[]).await.status, 200);
    let got = web.got();
    assert_eq!(got[0].headers.get_all("x-sub").iter().collect::<Vec<_>>(), ["ann"]);
    assert!(!got[0].headers.contains_key("authorization"));
    assert!(!got[1].headers.contains_key("x-sub"));
    assert_eq!(ask(&rig, "evil", "GET /", &[]).await.status, 403);
}
