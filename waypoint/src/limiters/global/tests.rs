//! What a rate limit service is asked, and what its answers mean.

use std::time::Duration;

use ambit_route::limit::Caller;
use ambit_route::model::{LimitKey, LimitScope, RateLimit, RouteConfig, RouteKey, Scheme};
use ambit_route::{Headers, Request, Rule, Selected, Table};
use ambit_types::{Identity, ServiceKey};
use ambit_xds::proto::envoy::config::core::v3::HeaderValue as Line;
use ambit_xds::proto::envoy::service::ratelimit::v3::RateLimitResponse;
use ambit_xds::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};

use super::{Over, Question, Verdict, lines, questions, read};

fn global(name: &str, keys: Vec<LimitKey>, domain: &str, millis: u64, fail_open: bool) -> RateLimit {
    let scope = LimitScope::Global {
        service: ServiceKey::new("shop", "limits.shop.svc.cluster.local"),
        port: 8081,
        domain: domain.into(),
        timeout: Duration::from_millis(millis),
        fail_open,
    };
    RateLimit { name: name.into(), keys, scope }
}

struct Lines(Vec<(&'static str, &'static str)>);

impl Headers for Lines {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |line| line.0 == name).map(|line| line.1.as_bytes())
    }
}

fn asked(limits: Vec<RateLimit>, headers: &[(&'static str, &'static str)]) -> Vec<Question> {
    let service = ServiceKey::new("shop", "web.shop.svc.cluster.local");
    let rule = ambit_route::model::Rule { rate_limits: limits, ..Default::default() };
    let route =
        ambit_route::model::HttpRoute { key: RouteKey::new("shop", "r"), created: 0, rules: vec![rule] };
    let frontend = ambit_route::model::Frontend {
        service: service.clone(),
        port: 80,
        producer: Some(ambit_route::model::Group::Http(vec![route])),
        consumers: Default::default(),
    };
    let (table, errors) = Table::compile(&RouteConfig { frontends: vec![frontend], ..Default::default() });
    assert!(errors.is_empty(), "{errors:?}");
    let fields = Lines(headers.to_vec());
    let request = Request {
        method: "GET",
        scheme: Scheme::Http,
        authority: "web.shop",
        port: 80,
        path: "/a",
        query: None,
        headers: &fields,
    };
    let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    let caller = Caller { identity: Some(&identity), address: Some([10, 0, 0, 7].into()) };
    let Selected::Rule(rule, _) = table.select(&service, None, &request) else { panic!("a rule") };
    questions(rule as &Rule, &request, &caller)
}

fn words(question: &Question) -> Vec<Vec<String>> {
    let entries = question.descriptors.iter().map(|d| &d.entries);
    entries.map(|all| all.iter().map(|e| format!("{}={}", e.key, e.value)).collect()).collect()
}

#[test]
fn limits_of_one_service_and_domain_are_one_question() {
    let fixed = LimitKey::Fixed { key: "plan".into(), value: "free".into() };
    let limits = vec![
        global("a", vec![LimitKey::Caller, LimitKey::CallerNamespace], "shop", 100, true),
        global("b", vec![LimitKey::CallerAddress, LimitKey::Method, LimitKey::Path], "shop", 50, false),
        global("c", vec![LimitKey::Header("x-user".into()), fixed], "other", 100, true),
        global("d", vec![], "other", 100, true),
    ];
    let questions = asked(limits, &[("x-user", "ann")]);
    assert_eq!(questions.len(), 2);
    let first = ["source_principal=spiffe://cluster.local/ns/shop/sa/cart", "source_namespace=shop"];
    let second = ["remote_address=10.0.0.7", "method=GET", "path=/a"];
    assert_eq!(words(&questions[0]), [&first[..], &second]);
    assert_eq!((questions[0].timeout, questions[0].fail_open), (Duration::from_millis(50), false));
    assert_eq!(words(&questions[1]), [&["x-user=ann", "plan=free"][..], &["generic_key=d"]]);
    assert!(questions[1].fail_open);
}

#[test]
fn what_the_request_lacks_is_not_asked_about() {
    let by_user = || global("a", vec![LimitKey::Header("x-user".into())], "shop", 100, true);
    assert_eq!(asked(vec![by_user()], &[]), []);
    let with_path = asked(vec![by_user(), global("b", vec![LimitKey::Path], "shop", 100, true)], &[]);
    assert_eq!(words(&with_path[0]), [["path=/a"]]);
}

fn line(key: &str, value: &str) -> Line {
    Line { key: key.to_owned(), value: value.to_owned(), ..Line::default() }
}

fn answer(code: Code) -> RateLimitResponse {
    let mut answer = RateLimitResponse::default();
    answer.set_overall_code(code);
    answer
}

fn over(answer: RateLimitResponse) -> Over {
    let verdict = read(answer);
    let Verdict::Over(over) = verdict else { panic!("{verdict:?}") };
    over
}

#[test]
fn only_ok_admits() {
    assert!(matches!(read(answer(Code::Ok)), Verdict::Within(_)));
    assert!(matches!(read(answer(Code::Unknown)), Verdict::None));
    let strange = RateLimitResponse { overall_code: 7, ..RateLimitResponse::default() };
    assert!(matches!(read(strange), Verdict::None));
    assert_eq!(over(answer(Code::OverLimit)).headers["x-envoy-ratelimited"], "true");
}

#[test]
fn a_refusal_says_when_the_last_limit_that_is_reached_begins_anew() {
    let status = |code: Code, seconds, nanos| {
        let mut status = DescriptorStatus { code: code.into(), ..DescriptorStatus::default() };
        let reset = status.duration_until_reset.get_or_insert_default();
        (reset.seconds, reset.nanos) = (seconds, nanos);
        status
    };
    let mut full = answer(Code::OverLimit);
    full.statuses =
        vec![status(Code::OverLimit, 3, 0), status(Code::OverLimit, 6, 1), status(Code::Ok, 99, 0)];
    assert_eq!(over(full.clone()).headers["retry-after"], "7");
    full.response_headers_to_add = vec![line("Retry-After", "60")];
    assert_eq!(over(full).headers["retry-after"], "60");
}

#[test]
fn lines_that_frame_or_that_only_the_mesh_sets_are_not_taken_over() {
    let raw = Line { key: "x-raw".into(), raw_value: vec![0xe9].into(), ..Line::default() };
    let taken = lines(&[
        line("x-ratelimit-remaining", "0"),
        line("content-length", "3"),
        line("Transfer-Encoding", "chunked"),
        line("x-ambit-reason", "AMB1001"),
        line("x-forwarded-client-cert", "By=me"),
        line("x_user", "ann"),
        line("bad name", "x"),
        line("x-bad", "a\r\nb"),
        raw,
    ]);
    let names: Vec<&str> = taken.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-ratelimit-remaining", "x-raw"]);
    let many: Vec<Line> = (0..100).map(|n| line(&format!("x-{n}"), "a")).collect();
    assert_eq!(lines(&many).len(), 32);
    assert!(lines(&[line("x-long", &"a".repeat(9000))]).is_empty());
}
