//! Limits that are counted here.

use std::time::Duration;

use ambit_route::limit::Caller;
use ambit_route::model::{
    Frontend, Group, HttpRoute, LimitKey, LimitScope, RateLimit, RouteConfig, RouteKey, Scheme,
};
use ambit_route::{Headers, Request, Selected, Table};
use ambit_runtime::clock;
use ambit_types::{Identity, ServiceKey};

use super::{KEYS_MAX, Limiters};

struct User(String);

impl Headers for User {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        (name == "x-user").then_some(self.0.as_bytes()).into_iter()
    }
}

/// A service whose one rule has a limit of this name, one request a minute.
fn limited(name: &str, keys: Vec<LimitKey>) -> (ServiceKey, Table) {
    let service = ServiceKey::new("shop", "web.shop.svc.cluster.local");
    let scope = LimitScope::Local { requests: 1, interval: Duration::from_secs(60), burst: 0 };
    let limit = RateLimit { name: name.into(), keys, scope };
    let rule = ambit_route::model::Rule { rate_limits: vec![limit], ..Default::default() };
    let route = HttpRoute { key: RouteKey::new("shop", "r"), created: 0, rules: vec![rule] };
    let producer = Some(Group::Http(vec![route]));
    let frontend = Frontend { service: service.clone(), port: 80, producer, consumers: Default::default() };
    let (table, errors) = Table::compile(&RouteConfig { frontends: vec![frontend], ..Default::default() });
    assert!(errors.is_empty(), "{errors:?}");
    (service, table)
}

/// How many of these requests a limit of one a minute admits, and the keys it remembers then.
fn admitted(keys: Vec<LimitKey>, requests: impl Iterator<Item = (&'static str, String)>) -> (usize, usize) {
    let limiters = Limiters::default();
    let count = sent(&limiters, &limited("one", keys), requests);
    let held = limiters.0.lock().unwrap();
    (count, held.values().map(|(_, limiter)| limiter.keys()).sum())
}

/// How many of these requests are admitted.
fn sent(
    limiters: &Limiters,
    (service, table): &(ServiceKey, Table),
    requests: impl Iterator<Item = (&'static str, String)>,
) -> usize {
    let now = clock::monotonic();
    let one = |(account, user): (&str, String)| {
        let identity = Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap();
        let headers = User(user);
        let (authority, path) = ("web.shop", "/");
        let (method, scheme) = ("GET", Scheme::Http);
        let request = Request { method, scheme, authority, port: 80, path, query: None, headers: &headers };
        let Selected::Rule(rule, _) = table.select(service, None, &request) else { panic!("a rule") };
        let caller = Caller { identity: Some(&identity), address: None };
        limiters.admit(rule, &request, &caller, now).is_ok()
    };
    requests.map(one).filter(|is_admitted| *is_admitted).count()
}

#[test]
fn callers_are_told_apart_by_their_identity_and_not_by_what_they_say() {
    let requests = [("cart", "a"), ("cart", "b"), ("web", "a"), ("web", "c")];
    let requests = requests.into_iter().map(|(account, user)| (account, user.to_owned()));
    assert_eq!(admitted(vec![LimitKey::Caller], requests), (2, 2));
}

#[test]
fn inventing_values_of_a_header_gains_nothing() {
    let invented = (0..KEYS_MAX + 500).map(|n| ("cart", format!("{n}{}", "x".repeat(n % 3000))));
    let (count, held) = admitted(vec![LimitKey::Header("x-user".into())], invented);
    assert_eq!((count, held), (KEYS_MAX + 1, KEYS_MAX), "those beyond share one bucket");
}

#[test]
fn limits_that_are_gone_or_say_nothing_are_forgotten() {
    let limiters = Limiters::default();
    let (old, new) = (limited("old", Vec::new()), limited("new", Vec::new()));
    let one = || std::iter::once(("cart", String::new()));
    assert_eq!(sent(&limiters, &old, one()), 1);
    limiters.retain(&old.1);
    assert_eq!(sent(&limiters, &old, one()), 0, "a change elsewhere fills no bucket");
    limiters.retain(&new.1);
    assert!(limiters.0.lock().unwrap().is_empty());
    assert_eq!(sent(&limiters, &new, one()), 1);
    let now = clock::monotonic();
    limiters.sweep(now);
    assert_eq!(limiters.0.lock().unwrap().len(), 1, "its bucket is empty");
    limiters.sweep(now + Duration::from_secs(61));
    assert!(limiters.0.lock().unwrap().is_empty());
}
