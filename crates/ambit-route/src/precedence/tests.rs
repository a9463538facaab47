//! The index in large: what is found among many, and that nobody is walked past who need not be.

use super::*;
use crate::matcher::{Condition, Test};
use crate::model::{RouteKey, Scheme};
use crate::request::split_target;

fn rank(specificity: [u32; 4], name: &str) -> Rank {
    Rank {
        is_stand_in: false,
        specificity: std::cmp::Reverse(specificity),
        created: 0,
        route: RouteKey::new("shop", name),
        position: (0, 0),
    }
}

fn entry(place: Place, rule: u32, conditions: Vec<Condition>) -> (Place, Candidate) {
    let headers = u32::try_from(conditions.len()).expect("few");
    let rank = rank([0, 0, headers, 0], &format!("r{rule:05}"));
    (place, Candidate { rank, conditions: conditions.into(), rule })
}

fn header(name: &str, value: &str) -> Condition {
    Condition::Header(name.into(), Test::Exact(value.into()))
}

fn find(index: &Index, target: &str, headers: &[(&str, &str)]) -> Option<u32> {
    let (path, query) = split_target(target);
    let (scheme, authority) = (Scheme::Http, "web");
    index.find(&Request { method: "GET", scheme, authority, port: 80, path, query, headers })
}

#[test]
fn each_of_ten_thousand_paths_leads_to_its_rule() {
    let path = |n: u32| format!("/svc{}/v{}/item{n}", n % 100, n % 7);
    let exact = (0..5_000).map(|n| entry(Place::Exact(path(n).into()), n, Vec::new()));
    let prefix = (5_000..10_000).map(|n| entry(Place::Prefix(path(n).into()), n, Vec::new()));
    let index = Index::new(exact.chain(prefix).collect());
    for n in 0..10_000 {
        assert_eq!(find(&index, &path(n), &[]), Some(n));
        let below = (n >= 5_000).then_some(n);
        assert_eq!(find(&index, &format!("{}/more", path(n)), &[]), below);
        assert_eq!(find(&index, &format!("{}more", path(n)), &[]), None);
    }
}

#[test]
fn an_escaped_plus_sign_leads_where_a_bare_one_does() {
    let path = |path: &str| Place::Exact(path.into());
    let start = Condition::PathStart("/c+".into());
    let index = Index::new(vec![
        entry(path("/a+b"), 0, Vec::new()),
        entry(Place::Prefix("/x+y".into()), 1, Vec::new()),
        entry(Place::Prefix("".into()), 2, vec![start]),
    ]);
    for (target, want) in [
        ("/a+b", Some(0)),
        ("/a%2Bb", Some(0)),
        ("/x%2By/z%2B", Some(1)),
        ("/c%2Bd", Some(2)),
        ("/a%2Db", None),
    ] {
        assert_eq!(find(&index, target, &[]), want, "{target}");
    }
}

#[test]
fn each_of_ten_thousand_tenants_on_one_path_leads_to_its_rule() {
    let anywhere = || Place::Prefix("".into());
    let tenants = (0..10_000).map(|n| entry(anywhere(), n, vec![header("tenant", &format!("t{n}"))]));
    let all = entry(anywhere(), 20_000, Vec::new());
    let special = entry(anywhere(), 20_001, vec![header("tenant", "t7"), header("beta", "1")]);
    let index = Index::new(tenants.chain([all, special]).collect());
    for n in (0..10_000).step_by(97) {
        assert_eq!(find(&index, "/", &[("Tenant", &format!("t{n}"))]), Some(n));
    }
    assert_eq!(find(&index, "/x", &[("tenant", "t7"), ("beta", "1")]), Some(20_001));
    assert_eq!(find(&index, "/x", &[("tenant", "t7"), ("beta", "2")]), Some(7));
    assert_eq!(find(&index, "/x", &[("tenant", "t99999")]), Some(20_000));
    assert_eq!(find(&index, "/x", &[]), Some(20_000));
    // On two lines the value is neither of them.
    assert_eq!(find(&index, "/x", &[("tenant", "t7"), ("tenant", "t8")]), Some(20_000));
}

#[test]
fn the_longest_prefix_that_agrees_wins_over_nodes_without_matches() {
    let place = |prefix: &str| Place::Prefix(prefix.into());
    let index = Index::new(vec![
        entry(place("/"), 0, Vec::new()),
        entry(place("/a/b/c/d"), 1, vec![header("x", "1")]),
        entry(place("/a/b/"), 2, vec![header("x", "2")]),
        entry(place("/a"), 3, Vec::new()),
    ]);
    for (target, headers, want) in [
        ("/a/b/c/d/e", &[("x", "1")][..], 1),
        ("/a/b/c/d", &[("x", "2")], 2),
        ("/a/b/c", &[("x", "1")], 3),
        ("/a/b/", &[("x", "2")], 2),
        ("/a/bb", &[("x", "2")], 3),
        ("/ab", &[], 0),
        ("//a", &[], 0),
        ("/", &[], 0),
    ] {
        assert_eq!(find(&index, target, headers), Some(want), "{target} {headers:?}");
    }
    assert_eq!(find(&index, "*", &[]), None, "OPTIONS * has no path");
    assert_eq!(find(&Index::default(), "/", &[]), None);
}

#[test]
fn stand_ins_come_after_everything_that_could_be_read() {
    let (place, mut stand_in) = entry(Place::Prefix("".into()), 0, vec![header("x", "1"), header("y", "1")]);
    stand_in.rank.is_stand_in = true;
    let index =
        Index::new(vec![(place, stand_in), entry(Place::Prefix("".into()), 1, vec![header("x", "1")])]);
    assert_eq!(find(&index, "/", &[("x", "1"), ("y", "1")]), Some(1));
}

#[test]
fn texts_are_ordered_exact_then_by_length() {
    let order = [(true, 900), (true, 3), (true, 1), (false, 900), (false, 1)];
    let ranks = order.map(|(exact, length)| text_specificity(exact, length));
    assert!(ranks.is_sorted_by(|a, b| a > b) && ranks[4] > 0, "{ranks:?}");
    assert!(text_specificity(false, usize::MAX) < text_specificity(true, 0));
}

/// What was not kept and decides which rule takes `GET` of a path, with nothing else hidden than headers and queries.
fn read(index: &Index, path: &str, hidden: Hidden) -> Vec<String> {
    let none: &[(&str, &str)] = &[];
    let (scheme, authority) = (Scheme::Http, "web");
    let request = Request { method: "GET", scheme, authority, port: 80, path, query: None, headers: none };
    index.depends_on(&request, hidden).into_iter().collect()
}

#[test]
fn what_was_not_kept_is_read_where_it_decides_and_nowhere_else() {
    let kept = Hidden::default();
    let beta = || header("beta", "1");
    let of_query = Condition::Query("tenant".into(), 0, Test::Present);
    let index = Index::new(vec![
        entry(Place::Exact("/a".into()), 0, vec![beta()]),
        entry(Place::Exact("/b".into()), 1, Vec::new()),
        entry(Place::Exact("/a+b".into()), 6, vec![beta()]),
        entry(Place::Prefix("/p+q".into()), 7, vec![beta()]),
        entry(Place::Prefix("/c".into()), 2, vec![of_query, Condition::Method("GET".into())]),
        entry(Place::Prefix("/d".into()), 3, vec![beta(), Condition::Method("POST".into())]),
        entry(Place::Prefix("/e".into()), 4, vec![header("host", "web")]),
        entry(Place::Prefix("".into()), 5, Vec::new()),
    ]);
    assert_eq!(read(&index, "/a", kept), ["header beta"]);
    for escaped in ["/a+b", "/a%2Bb", "/p+q/x", "/p%2Bq/x"] {
        assert_eq!(read(&index, escaped, kept), ["header beta"], "{escaped}");
    }
    assert!(read(&index, "/b", kept).is_empty());
    assert_eq!(read(&index, "/c/x", kept), ["query parameter tenant"]);
    assert!(read(&index, "/d", kept).is_empty(), "of another method");
    assert!(read(&index, "/e", kept).is_empty(), "hosts are kept");
    assert_eq!(read(&index, "/e", Hidden { host: true, ..kept }), ["host"]);
    assert!(read(&index, "/f", kept).is_empty());
    let nothing = Hidden { host: true, request: true };
    assert_eq!(read(&index, "/f", nothing), [WHOLE_REQUEST]);
    let one = Index::new(vec![entry(Place::Prefix("".into()), 0, Vec::new())]);
    assert!(read(&one, "/f", nothing).is_empty(), "every request goes the same way");
}
