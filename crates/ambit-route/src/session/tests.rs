//! Rows of sessions: marks that are ours, marks that are not, cookies.

use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use super::*;
use crate::model::{
    self, Destination, DestinationPolicy, Frontend, Group, HttpRoute, RouteConfig, RouteKey, Scheme, Target,
};
use crate::{Plan, Table};

/// Not a keyed hash, but different for different bytes, which is what the rows need.
fn mac(bytes: &[u8]) -> [u8; 16] {
    (u128::from(xxh64(bytes, 1)) << 64 | u128::from(xxh64(bytes, 2))).to_be_bytes()
}

fn rule(number: usize, name: Option<&str>) -> RuleId {
    RuleId { route: RouteKey::new("shop", "web"), rule: number, name: name.map(Into::into) }
}

fn cookie(life: CookieLife, timeout: Option<u64>) -> Persistence {
    Persistence {
        name: "stay".into(),
        carrier: PersistenceCarrier::Cookie { path: "/".into(), life },
        absolute_timeout: timeout.map(Duration::from_secs),
    }
}

#[test]
fn a_mark_is_read_back_by_its_rule_and_no_other() {
    let service = ServiceKey::new("shop", "web");
    let pod = "c//Pod/shop/web-1".into();
    let session = Session { tag: tag((&service, 80), &pod, &mac), began: 1_700_000_000 };
    assert_ne!(session.tag, tag((&service, 81), &pod, &mac), "a pod behind another port is another endpoint");
    let persistence = cookie(CookieLife::Session, None);
    let mark = session.mark(&Scope::Rule(&rule(0, None)), &mac);
    let read = |mark: &str, rule: &RuleId| {
        Session::read(mark.as_bytes(), &Scope::Rule(rule), &persistence, session.began, &mac)
    };
    assert_eq!(read(&mark, &rule(0, None)), Some(session));
    assert_eq!(read(&mark, &rule(1, None)), None);
    assert_eq!(read(&mark, &rule(0, Some("a"))), None);
    let named = session.mark(&Scope::Rule(&rule(0, Some("a"))), &mac);
    assert_eq!(read(&named, &rule(3, Some("a"))), Some(session), "a named rule may move");
    assert!(!mark.contains("web"), "{mark}");
    let of_service = Scope::Service(&service, 80);
    let mark = session.mark(&of_service, &mac);
    let read = |scope: Scope<'_>| Session::read(mark.as_bytes(), &scope, &persistence, session.began, &mac);
    assert_eq!(read(of_service), Some(session));
    assert_eq!(read(Scope::Service(&service, 81)), None);
    assert_eq!(read(Scope::Rule(&rule(0, None))), None);
}

#[test]
fn forged_and_garbled_marks_are_nothing() {
    let session = Session { tag: 7, began: 100 };
    let (own, persistence) = (rule(0, None), cookie(CookieLife::Session, None));
    let mark = session.mark(&Scope::Rule(&own), &mac);
    let parts: Vec<&str> = mark.split('.').collect();
    let (first, second, third) = (parts[0], parts[1], parts[2]);
    for forged in [
        String::new(),
        "..".to_owned(),
        format!("{first}.{second}"),
        format!("{mark}.1"),
        format!("{mark}0"),
        format!("0000000000000008.{second}.{third}"),
        format!("{first}.65.{third}"),
        format!("{first}.{second}.{}", "0".repeat(32)),
        format!("{first}.{second}.+{}", &third[1..]),
        format!("{first}.{}.{third}", "f".repeat(17)),
        format!("{first}.{second}.ä{}", &third[2..]),
    ] {
        assert_eq!(
            Session::read(forged.as_bytes(), &Scope::Rule(&own), &persistence, 100, &mac),
            None,
            "{forged}"
        );
    }
    assert_eq!(Session::read(b"\xff.\xff.\xff", &Scope::Rule(&own), &persistence, 100, &mac), None);
}

#[test]
fn a_session_ends_at_its_absolute_timeout() {
    let (session, own) = (Session { tag: 7, began: 100 }, rule(0, None));
    let mark = session.mark(&Scope::Rule(&own), &mac);
    for (timeout, now, alive) in
        [(None, 1_000_000, true), (Some(60), 159, true), (Some(60), 160, false), (Some(60), 50, true)]
    {
        let persistence = cookie(CookieLife::Session, timeout);
        let got = Session::read(mark.as_bytes(), &Scope::Rule(&own), &persistence, now, &mac);
        assert_eq!(got.is_some(), alive, "{timeout:?} at {now}");
    }
}

#[test]
fn cookies_carry_their_attributes() {
    let session = Session { tag: 7, began: 100 };
    let header = Persistence { carrier: PersistenceCarrier::Header, ..cookie(CookieLife::Session, None) };
    for (persistence, is_https, want) in [
        (cookie(CookieLife::Session, None), false, Some("stay=m; Path=/; HttpOnly; SameSite=Strict")),
        (
            cookie(CookieLife::Session, Some(60)),
            true,
            Some("stay=m; Path=/; HttpOnly; SameSite=Strict; Secure"),
        ),
        (
            cookie(CookieLife::Permanent, Some(60)),
            false,
            Some("stay=m; Path=/; Max-Age=50; HttpOnly; SameSite=Strict"),
        ),
        (header, false, None),
    ] {
        assert_eq!(set_cookie(&persistence, &session, "m", is_https, 110).as_deref(), want);
    }
}

#[test]
fn marks_are_found_where_they_are_carried() {
    let headers = [("Cookie", "a=1; stay=m1"), ("Stay", "m2")];
    let request = Request {
        method: "GET",
        scheme: Scheme::Http,
        authority: "",
        port: 80,
        path: "/",
        query: None,
        headers: &headers[..],
    };
    let by_cookie = cookie(CookieLife::Session, None);
    let by_header = Persistence { carrier: PersistenceCarrier::Header, ..by_cookie.clone() };
    assert_eq!(carried(&by_cookie, &request), Some(&b"m1"[..]));
    assert_eq!(carried(&by_header, &request), Some(&b"m2"[..]));
}

/// A table whose service `web` is split between `v1` and `v2`, with a rule that keeps sessions if `of_rule`, else with
/// `v2` keeping them.
fn table(of_rule: bool) -> Table {
    let keeps = || Some(cookie(CookieLife::Session, None));
    let backend = |name: &str, weight| {
        let target = Target::Service { service: ServiceKey::new("shop", name), port: 80 };
        model::Backend { target, weight, filters: Vec::new() }
    };
    let rule = model::Rule {
        backends: vec![backend("v1", 1), backend("v2", 0)],
        persistence: keeps().filter(|_| of_rule),
        ..model::Rule::default()
    };
    let route = HttpRoute { key: RouteKey::new("shop", "web"), created: 0, rules: vec![rule] };
    let frontend = Frontend {
        service: ServiceKey::new("shop", "web"),
        port: 80,
        producer: Some(Group::Http(vec![route])),
        consumers: Default::default(),
    };
    let policy = DestinationPolicy { persistence: keeps().filter(|_| !of_rule), ..Default::default() };
    let destinations = vec![Destination { service: ServiceKey::new("shop", "v2"), policy }];
    let (table, errors) = Table::compile(&RouteConfig { frontends: vec![frontend], destinations });
    assert!(errors.is_empty(), "{errors:?}");
    table
}

#[test]
fn a_session_stands_before_the_weights_as_long_as_its_endpoint_is_there() {
    let (web, v2) = (ServiceKey::new("shop", "web"), ServiceKey::new("shop", "v2"));
    let seal = Seal { mac: &mac, now: 100 };
    let pod = tag((&v2, 80), &"c//Pod/shop/v2-0".into(), &mac);
    for of_rule in [true, false] {
        let table = table(of_rule);
        let asked = |line: &str, is_there: bool| {
            let headers = [("cookie", line.to_owned())];
            let request = Request {
                method: "GET",
                scheme: Scheme::Http,
                authority: "",
                port: 80,
                path: "/",
                query: None,
                headers: &headers[..],
            };
            let selected = table.select(&web, None, &request);
            let exists = |target: Option<&Target>, tag: u64| {
                is_there && tag == pod && target.is_some_and(|target| target.to_string() == "shop/v2:80")
            };
            let held = selected.session(&table, Some((&web, 80)), &request, &seal, exists);
            let Plan::Forward(forward) = selected.plan_of(&request, 0, held.as_ref()) else {
                panic!("it goes on")
            };
            let rule = forward.by.map(|(rule, _)| rule);
            let told = table.stay(rule, (&v2, 80)).unwrap().told(pod, held.map(|h| h.session), &seal);
            (forward.target().unwrap().to_string(), told.map(|(name, value)| format!("{name}: {value}")))
        };
        let (first, told) = asked("a=b", true);
        assert_eq!(first, "shop/v1:80", "by weight");
        let told = told.unwrap();
        let mark = told.strip_prefix("set-cookie: ").and_then(|line| line.split(';').next()).unwrap();
        assert_eq!(asked(mark, true), ("shop/v2:80".to_owned(), None), "of the rule: {of_rule}");
        assert_eq!(asked(mark, false).0, "shop/v1:80", "its endpoint is gone");
        assert_eq!(asked(&format!("{mark}0"), true).0, "shop/v1:80", "forged");
    }
}
