//! `cargo bench -p ambit-benches --bench decisions`: what one decision of a waypoint costs, without a network.
//!
//! Choosing a route among many and judging a request by many rules, in nanoseconds, as medians of timed loops. A
//! slope near 1 says that the size of the table does not matter. Nothing is asserted.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use ambit_policy::http::{self, CustomOrder, PolicySet, written};
use ambit_policy::normalize::{self, Received, normalize};
use ambit_route::model::{
    Backend, Frontend, Group, HttpMatch, HttpRoute, PathMatch, RouteKey, Rule, Scheme, Target,
};
use ambit_route::{Request, Selected, Table};
use ambit_types::{Identity, PolicyKey, ServiceKey, Str};

/// Sizes of the tables.
const ROUTES: [usize; 4] = [1, 100, 1_000, 10_000];
const RULES: [usize; 3] = [1, 100, 500];
/// Rules of one route, as many as the Gateway API allows.
const RULES_OF_ROUTE: usize = 16;
/// Requests that are decided in turn, spread over the table so that no single answer stays in the cache.
const REQUESTS: usize = 64;
/// Timed loops, of which the median counts, and decisions in each.
const LOOPS: usize = 41;
const LOOPS_QUICK: usize = 11;
/// Loops before them, for caches, branch predictors and the processor's clock.
const LOOPS_WARMING_UP: usize = 10;
const DECISIONS: usize = 20_000;
const DECISIONS_SLOW: usize = 500;
const PORT: u16 = 80;

/// Headers of a request as a browser's are: conditions on headers have to look through them.
const HEADERS: [(&str, &str); 6] = [
    ("user-agent", "bench/1.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate"),
    ("x-request-id", "0b6f8ab1-2f52-4f6a-8f5e-2a9f0d9b5c11"),
    ("x-tenant", "blue"),
    ("cookie", "session=abcdef"),
];

fn main() -> ExitCode {
    ambit_benches::decisions(measure)
}

fn measure(quick: bool) -> String {
    let loops = if quick { LOOPS_QUICK } else { LOOPS };
    let mut text = String::new();
    let routes: Vec<(usize, f64)> = ROUTES.iter().map(|n| (*n, route_ns(*n, loops))).collect();
    tell(&mut text, "route selection by exact path", "routes", &routes);
    let rules: Vec<(usize, f64)> = RULES.iter().map(|n| (*n, policy_ns(*n, loops, Hit::Spread))).collect();
    tell(&mut text, "policy decision, requests over all rules", "rules", &rules);
    let last: Vec<(usize, f64)> = RULES.iter().map(|n| (*n, policy_ns(*n, loops, Hit::None))).collect();
    tell(&mut text, "policy decision, no rule agrees", "rules", &last);
    text.push_str("budgets: 1,000 ns among 1,000 routes, 2,000 ns with 500 rules\n");
    text
}

/// One line a size, and the slope below.
fn tell(text: &mut String, what: &str, unit: &str, sizes: &[(usize, f64)]) {
    for (size, ns) in sizes {
        writeln!(text, "{what}, {unit} {size}: {ns:.0} ns").expect("writing to a String cannot fail");
    }
    if let (Some((few, low)), Some((many, high))) = (sizes.first(), sizes.last()) {
        writeln!(text, "{what}, slope from {few} to {many}: {:.2}", high / low)
            .expect("writing to a String cannot fail");
    }
}

/// Median nanoseconds of one call of `decide`, which is given the numbers from 0 up in turn.
fn median_ns(loops: usize, decisions: usize, mut decide: impl FnMut(usize)) -> f64 {
    let mut samples = Vec::with_capacity(loops);
    for index in 0..loops + LOOPS_WARMING_UP {
        let started = now();
        for number in 0..decisions {
            decide(number);
        }
        let ns = started.elapsed().as_secs_f64() * 1e9 / decisions as f64;
        if index >= LOOPS_WARMING_UP {
            samples.push(ns);
        }
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time and links no runtime")]
fn now() -> Instant {
    Instant::now()
}

fn path(number: usize) -> String {
    format!("/r/{number:05}")
}

/// Paths spread over a table of that size.
fn paths(size: usize) -> Vec<String> {
    (0..REQUESTS).map(|n| path(n * size / REQUESTS)).collect()
}

fn route_ns(count: usize, loops: usize) -> f64 {
    let service = ServiceKey::new("shop", "web.shop.svc.cluster.local");
    let mut table = Table::default();
    let errors = table.put(&frontend(&service, count));
    assert!(errors.is_empty(), "the benchmark's own routes are in order: {errors:?}");
    let paths = paths(count);
    let headers = HEADERS.as_slice();
    median_ns(loops, DECISIONS, |number| {
        let request = Request {
            method: "GET",
            scheme: Scheme::Http,
            authority: "web.shop",
            port: PORT,
            path: &paths[number % REQUESTS],
            query: None,
            headers,
        };
        let selected = table.select(&service, Some("mesh"), black_box(&request));
        assert!(matches!(black_box(selected), Selected::Rule(..)), "every path has a route");
    })
}

/// As many routes as it takes for `count` rules with a path each.
fn frontend(service: &ServiceKey, count: usize) -> Frontend {
    let numbers: Vec<usize> = (0..count).collect();
    let backend = || Backend {
        target: Target::Service { service: service.clone(), port: PORT },
        weight: 1,
        filters: Vec::new(),
    };
    let rule = |number: &usize| Rule {
        matches: vec![HttpMatch {
            path: Some(PathMatch::Exact(Str::from(path(*number)))),
            ..HttpMatch::default()
        }],
        backends: vec![backend()],
        ..Rule::default()
    };
    let routes = numbers.chunks(RULES_OF_ROUTE).enumerate().map(|(at, numbers)| HttpRoute {
        key: RouteKey::new("shop", format!("route-{at:03}")),
        created: 0,
        rules: numbers.iter().map(rule).collect(),
    });
    Frontend {
        service: service.clone(),
        port: PORT,
        producer: Some(Group::Http(routes.collect())),
        consumers: std::collections::BTreeMap::new(),
    }
}

/// Which rules requests agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    /// All of them in turn.
    Spread,
    /// None, so that all have to be ruled out.
    None,
}

fn policy_ns(count: usize, loops: usize, hit: Hit) -> f64 {
    let set = policies(count);
    let client = Identity::parse("spiffe://cluster.local/ns/mesh/sa/client").expect("an identity");
    let addresses = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    let connection = ambit_policy::Facts::new(Some(&client), addresses[0], addresses[1], PORT);
    let paths: Vec<String> = match hit {
        Hit::Spread => paths(count),
        Hit::None => vec!["/none".to_owned(); REQUESTS],
    };
    let options = normalize::Options::default();
    let targets: Vec<normalize::Target<'_>> =
        paths.iter().filter_map(|path| normalize(&received(path), &options).ok()).collect();
    assert_eq!(targets.len(), REQUESTS, "the benchmark's own paths are in order");
    let headers: Vec<(&str, &str)> = HEADERS.to_vec();
    median_ns(loops, if count > 1 { DECISIONS_SLOW } else { DECISIONS }, |number| {
        let target = &targets[number % REQUESTS];
        let request = http::Request { target, headers: &headers, remote: Some(addresses[0]), token: None };
        let facts = http::Facts::of_request(connection, request);
        let decision = http::decide(&set, black_box(&facts), &[]);
        assert_eq!(black_box(decision).is_allow(), hit == Hit::Spread);
    })
}

fn received(path: &str) -> Received<'_> {
    Received {
        method: b"GET",
        authority: Some(b"web.shop"),
        path: Some(path.as_bytes()),
        ..Received::default()
    }
}

/// One ALLOW policy whose rules have a path each, for callers of one namespace with one method and header.
fn policies(count: usize) -> PolicySet {
    let rule = |number: usize| written::Rule {
        from: Some(vec![written::From {
            source: Some(written::Source {
                namespaces: vec!["mesh".to_owned()],
                ..written::Source::default()
            }),
        }]),
        to: Some(vec![written::To {
            operation: Some(written::Operation {
                methods: vec!["GET".to_owned()],
                paths: vec![path(number)],
                ..written::Operation::default()
            }),
        }]),
        when: Some(vec![written::Condition {
            key: "request.headers[x-tenant]".to_owned(),
            values: vec!["blue".to_owned()],
            ..written::Condition::default()
        }]),
    };
    let policy = written::Policy {
        action: written::Action::Allow,
        provider: None,
        rules: Some((0..count).map(rule).collect()),
    };
    let compiled = http::compile(&PolicyKey::new("shop", "web"), &policy, false, &http::Options::default());
    let compiled = compiled.expect("the benchmark's own policy is in order");
    PolicySet::new([Arc::new(compiled)], [], CustomOrder::AfterToken)
}
