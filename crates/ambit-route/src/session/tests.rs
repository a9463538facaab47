//! Rows of sessions: marks that are ours, marks that are not, cookies.

use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use super::*;
use crate::model::{RouteKey, Scheme};

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
    let session = Session { tag: tag(&"c//Pod/shop/web-1".into(), &mac), began: 1_700_000_000 };
    let persistence = cookie(CookieLife::Session, None);
    let mark = session.mark(&rule(0, None), &mac);
    let read =
        |mark: &str, rule: &RuleId| Session::read(mark.as_bytes(), rule, &persistence, session.began, &mac);
    assert_eq!(read(&mark, &rule(0, None)), Some(session));
    assert_eq!(read(&mark, &rule(1, None)), None);
    assert_eq!(read(&mark, &rule(0, Some("a"))), None);
    let named = session.mark(&rule(0, Some("a")), &mac);
    assert_eq!(read(&named, &rule(3, Some("a"))), Some(session), "a named rule may move");
    assert!(!mark.contains("web"), "{mark}");
}

#[test]
fn forged_and_garbled_marks_are_nothing() {
    let session = Session { tag: 7, began: 100 };
    let (own, persistence) = (rule(0, None), cookie(CookieLife::Session, None));
    let mark = session.mark(&own, &mac);
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
        assert_eq!(Session::read(forged.as_bytes(), &own, &persistence, 100, &mac), None, "{forged}");
    }
    assert_eq!(Session::read(b"\xff.\xff.\xff", &own, &persistence, 100, &mac), None);
}

#[test]
fn a_session_ends_at_its_absolute_timeout() {
    let (session, own) = (Session { tag: 7, began: 100 }, rule(0, None));
    let mark = session.mark(&own, &mac);
    for (timeout, now, alive) in
        [(None, 1_000_000, true), (Some(60), 159, true), (Some(60), 160, false), (Some(60), 50, true)]
    {
        let persistence = cookie(CookieLife::Session, timeout);
        let got = Session::read(mark.as_bytes(), &own, &persistence, now, &mac);
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
