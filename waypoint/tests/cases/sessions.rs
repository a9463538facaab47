//! Clients that stay with an endpoint: by cookie and header, by rule and service, against the weights, and what is done
//! with marks that are of no use.

use ambit_route::model::{
    CookieLife, Destination, DestinationPolicy, HttpMatch, Outlier, Persistence, PersistenceCarrier, Rule,
};
use ambit_types::AppProtocol;

use crate::rig::app::{App, answer};
use crate::rig::client::Read;
use crate::rig::{Rig, Setup, service_key};
use crate::routing::{backend, to};

/// Requests of a session; that so many go to one of two endpoints by chance happens once in a million times.
const REQUESTS: usize = 20;

fn cookie() -> Persistence {
    let carrier = PersistenceCarrier::Cookie { path: "/shop".into(), life: CookieLife::Session };
    Persistence { name: "stay".into(), carrier, absolute_timeout: None }
}

fn header() -> Persistence {
    Persistence { name: "X-Stay".into(), carrier: PersistenceCarrier::Header, absolute_timeout: None }
}

fn keeping(persistence: Persistence) -> Rule<HttpMatch> {
    Rule { persistence: Some(persistence), ..to("web") }
}

async fn named(name: &'static str) -> App {
    App::start(name, false, move |_, _| async move { answer(200, name) }).await
}

/// The mark that a response's cookie carries, with its name.
fn mark(read: &Read) -> Option<String> {
    let line = read.header("set-cookie");
    line.split_once(';').map(|(pair, _)| pair.to_owned())
}

/// Which endpoints answer requests with such a header.
async fn answered(rig: &Rig, name: &str, value: &str) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..REQUESTS {
        let read = rig.get("GET /", &[(name, value)]).await;
        assert_eq!(read.status, 200);
        names.push(read.body);
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[tokio::test]
async fn a_cookie_of_a_rule_leads_back_to_its_endpoint() {
    let (one, two) = (named("web-0").await, named("web-1").await);
    let setup = Setup::new().service("web", AppProtocol::Http11, &[one.ip, two.ip]);
    let mut rig = setup.http("web", vec![keeping(cookie())]).start().await;
    assert_eq!(answered(&rig, "cookie", "other=1").await, ["web-0", "web-1"], "nobody stays by itself");
    let first = rig.get("GET /", &[]).await;
    let line = first.header("set-cookie");
    assert!(line.ends_with("; Path=/shop; HttpOnly; SameSite=Strict"), "{line}");
    for told in ["web-", "Pod", &one.ip.to_string(), &two.ip.to_string()] {
        assert!(!line.contains(told), "{told} stands in {line}");
    }
    let mark = mark(&first).unwrap();
    assert_eq!(answered(&rig, "cookie", &format!("a=b; {mark}")).await, std::slice::from_ref(&first.body));
    let again = rig.get("GET /", &[("cookie", mark.as_str())]).await;
    assert_eq!(again.header("set-cookie"), "", "a client that knows is not told again");
    // Its endpoint goes: another takes over, and says so.
    rig.change(|setup| setup.workloads.retain(|workload| *workload.name != *first.body));
    let moved = rig.get("GET /", &[("cookie", mark.as_str())]).await;
    assert_ne!(moved.body, first.body);
    assert!(self::mark(&moved).is_some_and(|other| other != mark), "{:?}", moved.headers);
}

#[tokio::test]
async fn a_mark_that_is_not_ours_is_none() {
    let (one, two) = (named("web-0").await, named("web-1").await);
    let setup = Setup::new().service("web", AppProtocol::Http11, &[one.ip, two.ip]);
    let rig = setup.http("web", vec![keeping(cookie())]).start().await;
    let mark = mark(&rig.get("GET /", &[]).await).unwrap();
    for wrong in [format!("{mark}0"), mark.replace('=', "=0"), "stay=".to_owned(), "stay=..".to_owned()] {
        assert_eq!(answered(&rig, "cookie", &wrong).await, ["web-0", "web-1"], "row {wrong}");
        assert_ne!(
            rig.get("GET /", &[("cookie", wrong.as_str())]).await.header("set-cookie"),
            "",
            "row {wrong}"
        );
    }
}

#[tokio::test]
async fn a_header_leads_back_and_is_told_each_time() {
    let (one, two) = (named("web-0").await, named("web-1").await);
    let setup = Setup::new().service("web", AppProtocol::Http11, &[one.ip, two.ip]);
    let rig = setup.http("web", vec![keeping(header())]).start().await;
    let first = rig.get("GET /", &[]).await;
    let mark = first.header("x-stay").to_owned();
    assert!(!mark.is_empty(), "{:?}", first.headers);
    assert_eq!(answered(&rig, "x-stay", &mark).await, [first.body]);
    assert_eq!(rig.get("GET /", &[("x-stay", mark.as_str())]).await.header("x-stay"), mark);
}

#[tokio::test]
async fn a_service_without_routes_keeps_its_clients() {
    let (one, two) = (named("web-0").await, named("web-1").await);
    let policy = DestinationPolicy { persistence: Some(cookie()), ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[one.ip, two.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    let first = rig.get("GET /", &[]).await;
    let mark = mark(&first).unwrap();
    assert_eq!(answered(&rig, "cookie", &mark).await, [first.body]);
}

#[tokio::test]
async fn a_session_outlives_a_change_of_weights() {
    let (one, two) = (named("v1-0").await, named("v2-0").await);
    let split = |v1, v2| Rule {
        backends: vec![backend("v1", v1), backend("v2", v2)],
        persistence: Some(cookie()),
        ..Rule::default()
    };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", vec![split(0, 1)]);
    let setup = setup.service("v1", AppProtocol::Http11, &[one.ip]);
    let mut rig = setup.service("v2", AppProtocol::Http11, &[two.ip]).start().await;
    let first = rig.get("GET /", &[]).await;
    assert_eq!(first.body, "v2-0");
    let mark = mark(&first).unwrap();
    rig.change(|setup| {
        setup.routes.frontends.clear();
        let changed = std::mem::replace(setup, Setup::new()).http("web", vec![split(1, 0)]);
        *setup = changed;
    });
    assert_eq!(rig.get("GET /", &[]).await.body, "v1-0");
    assert_eq!(answered(&rig, "cookie", &mark).await, ["v2-0"]);
}

#[tokio::test]
async fn an_endpoint_that_is_left_out_keeps_nobody() {
    let bad = App::start("web-0", false, |_, request| async move {
        if request.uri().path() == "/fail" { answer(500, "web-0") } else { answer(200, "web-0") }
    })
    .await;
    let good = named("web-1").await;
    let outlier = Outlier { consecutive_errors: 1, ..Outlier::default() };
    let policy =
        DestinationPolicy { outlier: Some(outlier), persistence: Some(header()), ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[bad.ip, good.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    let mark = loop {
        let read = rig.get("GET /", &[]).await;
        if read.body == "web-0" {
            break read.header("x-stay").to_owned();
        }
    };
    assert_eq!(rig.get("GET /fail", &[("x-stay", mark.as_str())]).await.status, 500);
    let moved = rig.get("GET /", &[("x-stay", mark.as_str())]).await;
    assert_eq!(moved.body, "web-1");
    assert_ne!(moved.header("x-stay"), mark);
}
