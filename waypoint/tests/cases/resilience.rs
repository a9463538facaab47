//! Endpoints that misbehave: how often, how long, and what the client gets in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ambit_route::model::{
    Backoff, Connections, Consent, Destination, DestinationPolicy, LimitKey, LimitScope, Outlier, RateLimit,
    Retry, RetryBudget, Rule, Timeouts,
};
use ambit_types::{AppProtocol, Reason};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::rig::app::{App, answer, text};
use crate::rig::client::{read, request};
use crate::rig::{Setup, service_key, start, within, workload};
use crate::routing::to;

fn quick(retry: Retry) -> Retry {
    let backoff = Backoff { base: Duration::from_millis(1), max: Duration::from_millis(2) };
    Retry { backoff, ..retry }
}

fn retrying(attempts: u32) -> Rule<ambit_route::model::HttpMatch> {
    Rule { retry: Some(quick(Retry::of_codes(attempts, vec![503]))), ..to("web") }
}

#[tokio::test]
async fn failures_that_are_listed_are_tried_again_exactly_so_often() {
    let app = App::start("web-0", false, |n, _| async move {
        if n % 4 == 3 { answer(200, "at last") } else { answer(503, "not yet") }
    })
    .await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let rig = setup.http("web", vec![retrying(3)]).start().await;
    let answered = rig.get("GET /", &[]).await;
    assert_eq!((answered.status, answered.body.as_str(), app.got().len()), (200, "at last", 4));
    assert_eq!(rig.until_written(1).await[0].attempts, 4);
}

#[tokio::test]
async fn the_last_answer_is_what_the_client_gets() {
    let app = App::start("web-0", false, |_, _| async { answer(503, "never") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let rig = setup.http("web", vec![retrying(2)]).start().await;
    let answered = rig.get("GET /", &[]).await;
    assert_eq!((answered.status, answered.body.as_str(), app.got().len()), (503, "never", 3));
    let answered = rig.get("POST /", &[]).await;
    assert_eq!((answered.status, app.got().len()), (503, 4), "a method that is not safe to repeat");
}

#[tokio::test]
async fn short_bodies_are_sent_again_and_long_ones_are_not() {
    let app = App::start("web-0", false, |n, request| async move {
        let bytes = request.into_body().collect().await.unwrap().to_bytes().len();
        if n == 0 { answer(503, "no") } else { http::Response::new(text(bytes.to_string())) }
    })
    .await;
    let rule = Rule {
        retry: Some(Retry { consent: Consent::AnyMethod, ..quick(Retry::of_codes(2, vec![503])) }),
        ..to("web")
    };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule.clone()]);
    let rig = setup.start().await;
    let answered = rig.ask(request("POST /", &[], text(vec![7; 60_000]))).await;
    assert_eq!((answered.body.as_str(), app.got().len()), ("60000", 2));

    let app = App::start("web-0", false, |_, request| async move {
        let _ = request.into_body().collect().await;
        answer(503, "no")
    })
    .await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule]);
    let rig = setup.start().await;
    let answered = rig.ask(request("POST /", &[], text(vec![7; 70_000]))).await;
    assert_eq!((answered.status, app.got().len()), (503, 1));
}

#[tokio::test]
async fn a_budget_bounds_repetition() {
    let app = App::start("web-0", false, |_, _| async { answer(503, "no") }).await;
    let retry_budget = RetryBudget {
        percent: 20,
        min_retries: 2,
        min_interval: Duration::from_secs(60),
        ..Default::default()
    };
    let policy = DestinationPolicy { retry_budget, ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![retrying(5)]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    for _ in 0..20 {
        assert_eq!(rig.get("GET /", &[]).await.status, 503);
    }
    let extra = app.got().len() - 20;
    assert!((2..=6).contains(&extra), "{extra} repetitions of 20 requests");
}

#[tokio::test]
async fn a_budget_that_is_spent_answers_503() {
    let retry_budget = RetryBudget { percent: 0, min_retries: 0, ..Default::default() };
    let rule = || Rule { retry: Some(quick(Retry::of_codes(2, vec![500]))), ..to("web") };
    let treated = || Destination {
        service: service_key("web"),
        policy: DestinationPolicy { retry_budget, ..Default::default() },
    };
    let app = App::start("web-0", false, |_, _| async { answer(500, "no") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule()]);
    let rig = setup.treated(treated()).start().await;
    let answered = rig.get("GET /", &[]).await;
    assert_eq!((answered.status, app.got().len()), (503, 1));
    assert_ne!(answered.body, "no");
    let answered = rig.get("POST /", &[]).await;
    assert_eq!((answered.status, answered.body.as_str()), (500, "no"), "nothing was to be repeated");
    let records = rig.until_written(2).await;
    assert_eq!((records[0].flag, records[0].attempts), ("URX", 1));
}

#[tokio::test]
async fn time_that_is_over_is_504() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        answer(200, "too late")
    })
    .await;
    let timeouts = |request, backend_request| Timeouts {
        request: Some(Duration::from_millis(request)),
        backend_request: Some(Duration::from_millis(backend_request)),
        idle: None,
    };
    let whole = Rule { timeouts: timeouts(200, 0), ..to("web") };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![whole]);
    let rig = setup.start().await;
    let answered = rig.get("GET /", &[]).await;
    assert_eq!((answered.status, answered.header("x-ambit-reason"), app.got().len()), (504, "AMB3008", 1));
    assert_eq!(rig.until_written(1).await[0].flag, "UT");

    let calls = App::start("web-0", true, |_, _| std::future::pending()).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[calls.ip]);
    let rig = setup.http("web", vec![Rule { timeouts: timeouts(200, 0), ..to("web") }]).start().await;
    let answered = rig.get("GET /", &[("content-type", "application/grpc")]).await;
    assert_eq!((answered.header("grpc-status"), calls.got().len()), ("4", 1));

    let each = Rule { timeouts: timeouts(5000, 100), ..retrying(2) };
    let app = App::start("web-0", false, |n, _| async move {
        if n < 2 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        answer(200, "third")
    })
    .await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![each]);
    let rig = setup.start().await;
    let answered = rig.get("GET /", &[]).await;
    assert_eq!((answered.body.as_str(), app.got().len()), ("third", 3));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_passed_over() {
    let up = App::start("web-1", false, |_, _| async { answer(200, "up") }).await;
    let down = crate::rig::fresh_ip();
    let rig = Setup::new().service("web", AppProtocol::Http11, &[down, up.ip]).start().await;
    // Not more than the budget of repetitions allows in any case.
    for _ in 0..10 {
        assert_eq!(rig.get("GET /", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_taken_for_whole() {
    let app = App::raw("web-0", |mut tcp| async move {
        let mut bytes = [0; 4096];
        let _ = tcp.read(&mut bytes).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut sender = rig.http1().await;
    // The reset may overtake the head, as it may on a socket.
    if let Ok(response) = sender.send_request(request("GET /", &[], text(""))).await {
        assert_eq!(response.status(), 200);
        assert!(within(response.into_body().collect()).await.is_err());
    }
    let written = &rig.until_written(1).await[0];
    assert_eq!((written.code, written.flag), (200, "UC"));
}

#[tokio::test]
async fn responses_that_are_none_are_failures_and_close() {
    for (wrong, status) in [
        ("HTTP/1.1 99999 X\r\n\r\n", 502),
        ("nonsense\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 502),
        ("", 503),
    ] {
        let app = App::raw("web-0", move |mut tcp| async move {
            let mut bytes = [0; 4096];
            let _ = tcp.read(&mut bytes).await;
            let _ = tcp.write_all(wrong.as_bytes()).await;
        })
        .await;
        let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
        let answered = rig.get("GET /", &[]).await;
        assert_eq!((answered.status, app.connections.load(Ordering::SeqCst)), (status, 1), "row {wrong:?}");
    }
}

#[tokio::test]
async fn failing_endpoints_are_left_out() {
    let bad = App::start("web-0", false, |_, _| async { answer(500, "bad") }).await;
    let good = App::start("web-1", false, |_, _| async { answer(200, "good") }).await;
    let outlier = Outlier { consecutive_errors: 3, ..Outlier::default() };
    let policy = DestinationPolicy { outlier: Some(outlier), ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[bad.ip, good.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    for _ in 0..60 {
        rig.get("GET /", &[]).await;
    }
    assert_eq!((bad.got().len(), good.got().len()), (3, 57));
}

#[tokio::test]
async fn who_was_tried_is_remembered_over_a_change_of_the_endpoints() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let busy = App::start("web-1", false, move |n, _| {
        let waits = waits.clone();
        async move {
            if n == 0 {
                waits.notified().await;
            }
            answer(503, "busy")
        }
    })
    .await;
    let spare = App::start("web-0", false, |_, _| async { answer(200, "spare") }).await;
    let fresh = App::start("web-2", false, |_, _| async { answer(200, "fresh") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[spare.ip, busy.ip]);
    // It gets nothing while the other one is there.
    setup.workloads[0].capacity = 0;
    let mut rig = setup.http("web", vec![retrying(1)]).start().await;
    let mut sender = rig.http1().await;
    let asked = start(async move { sender.send_request(request("GET /", &[], text(""))).await });
    busy.until_got(1).await;
    // The place of the one that was tried is another's now.
    rig.change(|setup| {
        setup.workloads.remove(0);
        let mut added = workload("shop", "web-2", fresh.ip);
        added.services.insert(service_key("web"), Vec::new());
        setup.workloads.push(added);
    });
    go.notify_one();
    let answered = read(within(asked).await.unwrap().unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str(), busy.got().len()), (200, "fresh", 1));
}

#[tokio::test]
async fn an_endpoint_whose_proxy_denies_a_client_is_not_left_out() {
    let strict = App::start("web-0", false, |_, _| async { answer(200, "strict") }).await;
    let open = App::start("web-1", false, |_, _| async { answer(200, "open") }).await;
    strict.proxy.denies.store(true, Ordering::SeqCst);
    let outlier = Outlier { consecutive_errors: 1, ..Outlier::default() };
    let policy = DestinationPolicy { outlier: Some(outlier), ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[strict.ip, open.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    for _ in 0..40 {
        rig.get("GET /", &[]).await;
    }
    let records = rig.until_written(40).await;
    assert!(records.iter().all(|record| record.attempts == 1), "who is denied is not sent elsewhere");
    let denied = records.iter().filter(|record| record.reason == Some(Reason::PolicyDenied)).count();
    assert_eq!(strict.proxy.asked().len(), denied);
    assert!(denied > 1, "the one denial left it out for everybody");
    strict.proxy.denies.store(false, Ordering::SeqCst);
    for _ in 0..40 {
        assert_eq!(rig.get("GET /", &[]).await.status, 200);
    }
    assert!(!strict.got().is_empty());
}

#[tokio::test]
async fn a_destination_has_no_more_under_way_than_it_may() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer(200, "ok")
    })
    .await;
    let connections = Connections { requests_max: 1, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    let slow = rig.get("GET /", &[]);
    let refused = async {
        app.until_got(1).await;
        rig.get("GET /", &[]).await
    };
    let (slow, refused) = tokio::join!(slow, refused);
    assert_eq!((slow.status, refused.status, app.got().len()), (200, 503, 1));
    assert!(rig.until_written(2).await.iter().any(|record| record.flag == "UO"));
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
}

#[tokio::test]
async fn more_requests_than_a_limit_admits_are_told_to_wait() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let scope = LimitScope::Local { requests: 2, interval: Duration::from_secs(60), burst: 0 };
    let keys = vec![LimitKey::Header("x-user".into())];
    let rule = Rule { rate_limits: vec![RateLimit { name: "few".into(), keys, scope }], ..to("web") };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule]);
    let rig = setup.start().await;
    for (user, want) in [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("a", 429)] {
        let answered = rig.get("GET /", &[("x-user", user)]).await;
        assert_eq!(answered.status, want, "row {user}");
        assert_eq!(answered.header("retry-after").is_empty(), want == 200);
    }
    assert_eq!(rig.until_written(5).await[2].flag, "RL");
}

#[tokio::test]
async fn waiting_requests_share_the_connections_there_may_be() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer(200, "ok")
    })
    .await;
    let connections = Connections { connections_max: 1, pending_max: 100, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    let all = (0..10).map(|_| rig.get("GET /", &[]));
    let all = within(futures_util::future::join_all(all)).await;
    assert!(all.iter().all(|answered| answered.status == 200));
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_nothing_new() {
    let one = App::start("web-0", false, |_, _| async { answer(200, "one") }).await;
    let two = App::start("web-1", false, |_, _| async { answer(200, "two") }).await;
    let mut rig = Setup::new().service("web", AppProtocol::Http11, &[one.ip, two.ip]).start().await;
    let mut sender = rig.http1().await;
    for _ in 0..10 {
        let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
        assert_eq!(read(response).await.status, 200);
        within(sender.ready()).await.unwrap();
    }
    rig.change(|setup| setup.workloads.retain(|workload| &*workload.name != "web-0"));
    let before = one.got().len();
    for _ in 0..10 {
        let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
        assert_eq!(read(response).await.body, "two");
        within(sender.ready()).await.unwrap();
    }
    assert_eq!(one.got().len(), before);
}
