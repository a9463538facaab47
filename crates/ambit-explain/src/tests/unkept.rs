//! A change of rules that read what no record keeps: it is never told as no change, nor as another than it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_policy::http::CustomOrder;
use ambit_policy::jwt::{self, RuleSet};
use ambit_route::model::{HttpMatch, NameMatch, Rule, ValueMatch};
use ambit_state::Change;
use ambit_state::waypoint::State;
use ambit_types::{Identity, Uid};
use serde_json::{Value, json};

use super::waypoints::{checking, ruled, snapshot, snapshot_with, to};
use crate::diff::{Diff, Told, diff};
use crate::suggest::{Allow, AllowRule, Caller};
use crate::{Flow, FlowEnd, FlowHttp, HttpQuestion, Verdict, View, explain};

const CHANGES: u64 = 200;
const CALLERS: [&str; 2] = ["web", "next"];
const METHODS: [&str; 2] = ["GET", "POST"];
const PATHS: [&str; 2] = ["/", "/new"];
/// What the header says that no record tells; empty for none.
const USERS: [&str; 3] = ["", "anna", "bob"];

/// What a waypoint goes by, by its key.
type Waypoints = BTreeMap<Uid, Arc<State>>;

fn waypoints(policies: &[Value], rules: Vec<Rule<HttpMatch>>) -> Waypoints {
    let names = ["p0", "p1", "p2", "p3"];
    let named: Vec<(&str, Value)> = names.into_iter().zip(policies.iter().cloned()).collect();
    let state = ruled(&named, rules);
    BTreeMap::from([(state.own.workload.uid.clone(), state)])
}

fn plain() -> Vec<Rule<HttpMatch>> {
    vec![to("/", "cart")]
}

/// A route that only takes a user's requests.
fn of_user(user: &str, path: &str, service: &str) -> Rule<HttpMatch> {
    let mut rule = to(path, service);
    let header = NameMatch { name: "x-user".into(), value: ValueMatch::Exact(user.into()) };
    rule.matches.iter_mut().for_each(|one| one.headers = vec![header.clone()]);
    rule
}

/// A rule that permits `user`.
fn allow_user(user: &str) -> Value {
    json!({"rules": [{"when": [{"key": "request.headers[x-user]", "values": [user]}]}]})
}

/// What the waypoint writes of a request.
fn record((caller, method, path): (&str, &str, &str), is_allowed: bool) -> Flow {
    let end = FlowEnd {
        workload: Some(caller.to_owned()),
        namespace: Some("shop".to_owned()),
        ..FlowEnd::default()
    };
    let http = FlowHttp {
        method: method.to_owned(),
        path: path.to_owned(),
        authority: "cart.shop".to_owned(),
        status: 200,
    };
    Flow {
        time: "2026-01-01T00:00:00.000Z".to_owned(),
        direction: Some("inbound".to_owned()),
        verdict: if is_allowed { "allowed" } else { "denied" }.to_owned(),
        code: (!is_allowed).then(|| "AMB2202".to_owned()),
        path: "waypoint".to_owned(),
        conn_id: format!("{caller}-{method}-{path}"),
        src: end,
        hbone_addr: Some("10.96.0.1:80".to_owned()),
        http: Some(http),
        connections: 1,
        ..Flow::default()
    }
}

fn compare(before: &Waypoints, after: &Waypoints, flows: &[Flow]) -> Diff {
    let mesh = snapshot("n1");
    let view = View::new(&mesh);
    diff(&view.with_waypoints(before), &view.with_waypoints(after), flows)
}

fn get(is_allowed: bool) -> Flow {
    record(("web", "GET", "/"), is_allowed)
}

#[test]
fn a_change_of_a_rule_on_a_header_is_unclear_and_says_why() {
    let (anna, bob) = (waypoints(&[allow_user("anna")], plain()), waypoints(&[allow_user("bob")], plain()));
    let found = compare(&anna, &bob, &[get(true)]);
    assert!(found.changes.is_empty(), "{:#?}", found.changes);
    let [flow] = &found.unclear_flows[..] else { panic!("{found:#?}") };
    assert!(flow.why.contains("header x-user"), "{}", flow.why);
    assert_eq!((&*flow.source, flow.request.as_deref(), flow.connections), ("shop/web", Some("GET /"), 1));
    // With the rule taken away it is certain what is, and not what was.
    assert_eq!(compare(&anna, &waypoints(&[], plain()), &[get(true)]).unclear_flows.len(), 1);
}

#[test]
fn a_change_of_a_route_by_header_is_unclear() {
    let old = waypoints(&[], plain());
    let beta = waypoints(&[], vec![to("/", "cart"), of_user("anna", "/", "next")]);
    let found = compare(&old, &beta, &[get(true)]);
    let [flow] = &found.unclear_flows[..] else { panic!("{found:#?}") };
    assert!(flow.why.contains("header x-user"), "{}", flow.why);
    // Where the path already says that the rule does not take it, nothing is unclear.
    let beta = waypoints(&[], vec![to("/", "cart"), of_user("anna", "/new", "next")]);
    let found = compare(&old, &beta, &[get(true)]);
    assert!(found.unclear_flows.is_empty() && found.changes.is_empty(), "{found:#?}");
}

#[test]
fn an_authorizer_that_was_not_asked_before_is_unclear() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]});
    let (old, asking) = (waypoints(&[], plain()), waypoints(std::slice::from_ref(&custom), plain()));
    let found = compare(&old, &asking, &[get(true)]);
    let [flow] = &found.unclear_flows[..] else { panic!("{found:#?}") };
    assert!(flow.why.contains("opa"), "{}", flow.why);
    let same = compare(&asking, &asking, &[get(true)]);
    assert!(same.unclear_flows.is_empty(), "its word is in the record: {same:#?}");
}

/// What a waypoint goes by that checks tokens, or asks authorizers first of all.
fn careful(policies: &[(&str, Value)], is_checking: bool) -> Waypoints {
    let written = json!({"issuer": "https://id.example", "jwksUri": "https://id.example/keys"});
    let written: jwt::written::Rule = serde_json::from_value(written).expect("a rule");
    let rule = jwt::compile(&written).expect("no mistake");
    let tokens = RuleSet::new(is_checking.then_some(rule));
    let state = checking(policies, CustomOrder::BeforeToken, tokens, plain());
    BTreeMap::from([(state.own.workload.uid.clone(), state)])
}

/// A policy for ztunnels that lets in nobody who is there.
fn closed() -> Change {
    let nobody = Identity::parse("spiffe://cluster.local/ns/shop/sa/nobody").expect("an identity");
    let rule = AllowRule { callers: [Caller::Identity(nobody)].into(), ports: [80].into() };
    let allow = Allow { name: "nobody".to_owned(), selector: BTreeMap::new(), rules: vec![rule] };
    Change::Policy(Arc::new(allow.policy("shop")))
}

fn assert_refused(found: &Diff) {
    let [change] = &found.changes[..] else { panic!("{found:#?}") };
    assert_eq!((change.before.verdict, change.after.verdict), (Verdict::Allow, Verdict::Deny), "{found:#?}");
    assert!(found.unclear_flows.is_empty(), "{found:#?}");
}

#[test]
fn what_is_refused_whatever_the_token_and_the_authorizer_say_is_a_change() {
    let custom = || ("ask", json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]}));
    let deny = || ("deny", json!({"action": "DENY", "rules": [{}]}));
    let open = careful(&[], false);
    // Rules of which nothing would be certain, and the same with one that refuses everything.
    for (doubtful, refusing) in [
        (careful(&[], true), careful(&[deny()], true)),
        (careful(&[custom()], false), careful(&[custom(), deny()], false)),
    ] {
        assert_eq!(compare(&open, &doubtful, &[get(true)]).unclear_flows.len(), 1);
        assert_refused(&compare(&open, &refusing, &[get(true)]));
    }
}

#[test]
fn what_a_ztunnel_refuses_is_a_change_whatever_the_waypoint_checks() {
    let (mesh, closed) = (snapshot("n1"), snapshot_with("n1", Some(closed())));
    let (open, checking) = (careful(&[], false), careful(&[], true));
    for (before, after) in [(&checking, &checking), (&checking, &open), (&open, &checking)] {
        let (before, after) =
            (View::new(&mesh).with_waypoints(before), View::new(&closed).with_waypoints(after));
        assert_refused(&diff(&before, &after, &[get(true)]));
    }
}

#[test]
fn what_was_let_in_by_a_header_and_is_certain_to_be_refused_is_a_change() {
    let (anna, nobody) = (waypoints(&[allow_user("anna")], plain()), waypoints(&[json!({})], plain()));
    assert_refused(&compare(&anna, &nobody, &[get(true)]));
    let routed = waypoints(&[], vec![to("/", "cart"), of_user("anna", "/", "next")]);
    let found = compare(&routed, &nobody, &[get(true)]);
    assert_refused(&found);
    assert_eq!(found.changes[0].before.route, None, "by which route it went is not known");
    // Of who was refused, it is not known whether a header would have helped.
    assert!(compare(&anna, &nobody, &[get(false)]).changes.is_empty());
}

#[test]
fn who_was_refused_loses_nothing_by_a_rule_that_refuses() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]});
    let (asking, nobody) = (waypoints(&[custom], plain()), waypoints(&[json!({})], plain()));
    assert_refused(&compare(&asking, &nobody, &[get(true)]));
    let found = compare(&asking, &nobody, &[get(false)]);
    assert!(found.changes.is_empty(), "the authorizer had said no: {found:#?}");
    assert_eq!(found.unclear_flows.len(), 1, "{found:#?}");
}

#[test]
fn what_was_seen_otherwise_than_the_rules_say_is_unclear() {
    let lock = json!({"rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]});
    let locked = waypoints(&[lock], plain());
    let found = compare(&locked, &locked, &[get(true)]);
    let [flow] = &found.unclear_flows[..] else { panic!("{found:#?}") };
    assert!(flow.why.contains("let in"), "{}", flow.why);
    assert!(compare(&locked, &locked, &[get(false)]).unclear_flows.is_empty());
    // A refusal for another reason than rules says nothing of rules.
    let open = waypoints(&[], plain());
    let failed = Flow { code: Some("AMB4002".to_owned()), ..get(false) };
    assert!(compare(&open, &open, &[failed]).unclear_flows.is_empty());
    assert_eq!(compare(&open, &open, &[get(false)]).unclear_flows.len(), 1);
}

#[test]
fn a_pair_without_its_request_is_unclear_where_requests_are_told_apart() {
    let pair = Flow { http: None, ..get(true) };
    let open = waypoints(&[], plain());
    let only_get = json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    let found = compare(&open, &waypoints(&[only_get], plain()), std::slice::from_ref(&pair));
    let [flow] = &found.unclear_flows[..] else { panic!("{found:#?}") };
    assert!(flow.why.contains("method"), "{}", flow.why);
    // Who calls is known of it, and so is where everything goes.
    let nobody = compare(&open, &waypoints(&[json!({})], plain()), std::slice::from_ref(&pair));
    let [change] = &nobody.changes[..] else { panic!("{nobody:#?}") };
    assert_eq!(change.after.verdict, Verdict::Deny);
    let long = Flow {
        http: Some(FlowHttp { path: format!("/{}", "x".repeat(255)), ..get(true).http.expect("a request") }),
        ..get(true)
    };
    let paths = json!({"rules": [{"to": [{"operation": {"paths": ["/x*"]}}]}]});
    let cut = compare(&open, &waypoints(&[paths], plain()), &[long]);
    assert_eq!(cut.unclear_flows.len(), 1, "{cut:#?}");
}

/// Draws that are the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(end).expect("a small number")).expect("a small number")
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn policy(&mut self) -> Value {
        let mut rule = json!({});
        if self.below(2) == 0 {
            let principal = format!("cluster.local/ns/shop/sa/{}", self.one(&CALLERS));
            rule["from"] = json!([{"source": {"principals": [principal]}}]);
        }
        match self.below(3) {
            0 => rule["to"] = json!([{"operation": {"methods": [self.one(&METHODS)]}}]),
            1 => rule["to"] = json!([{"operation": {"paths": [self.one(&PATHS)]}}]),
            _ => {}
        }
        if self.below(3) == 0 {
            let list = if self.below(3) == 0 { "notValues" } else { "values" };
            rule["when"] = json!([{"key": "request.headers[x-user]", list: [self.one(&USERS[1..])]}]);
        }
        json!({"action": self.one(&["ALLOW", "ALLOW", "DENY"]), "rules": [rule]})
    }

    fn waypoints(&mut self) -> Waypoints {
        let policies: Vec<Value> = (0..self.below(4)).map(|_| self.policy()).collect();
        let mut rules = plain();
        if self.below(3) == 0 {
            rules.push(of_user(self.one(&USERS[1..]), self.one(&PATHS), "next"));
        }
        if self.below(3) == 0 {
            rules.push(to("/new", "next"));
        }
        waypoints(&policies, rules)
    }
}

/// What really happens to a request with its header.
fn happens(waypoints: &Waypoints, flow: &Flow, user: &str) -> Told {
    let mesh = snapshot("n1");
    let mut question = flow.question().expect("it is whole");
    let headers = [("x-user".to_owned(), user.to_owned())].into_iter().filter(|(_, user)| !user.is_empty());
    let asked = question.http.take().expect("a request");
    question.http = Some(HttpQuestion { headers: headers.collect(), ..asked });
    Told::of(&explain(&View::new(&mesh).with_waypoints(waypoints), &question))
}

/// As a user would notice.
fn noticed(told: &Told) -> (Verdict, Option<&str>) {
    (told.verdict, told.route.as_deref().filter(|_| told.verdict == Verdict::Allow))
}

/// Whether a request that differs only in its header ends otherwise by either of the rules.
fn is_other_by_header(rules: [&Waypoints; 2], flow: &Flow, ends: [&Told; 2]) -> bool {
    let is_other = |user: &str| {
        let mut both = rules.iter().zip(ends);
        both.any(|(rules, end)| noticed(&happens(rules, flow, user)) != noticed(end))
    };
    USERS.into_iter().chain(["somebody"]).any(is_other)
}

#[test]
fn no_change_is_passed_over_and_none_is_told_that_does_not_happen() {
    let (mut certain, mut unclear, mut needless, mut quiet) = (0, 0, 0, 0);
    let all: Vec<(&str, &str, &str)> = CALLERS
        .into_iter()
        .flat_map(|caller| METHODS.into_iter().map(move |method| (caller, method)))
        .flat_map(|(caller, method)| PATHS.into_iter().map(move |path| (caller, method, path)))
        .collect();
    for seed in 0..CHANGES {
        let mut draws = Draws(seed);
        let (before, after) = (draws.waypoints(), draws.waypoints());
        for user in USERS {
            let seen = |asked| {
                let told = happens(&before, &record(asked, true), user);
                (record(asked, told.verdict == Verdict::Allow), told)
            };
            let seen: Vec<(Flow, Told)> = all.iter().copied().map(seen).collect();
            let flows: Vec<Flow> = seen.iter().map(|(flow, _)| flow.clone()).collect();
            let found = compare(&before, &after, &flows);
            for (flow, was) in &seen {
                let (source, http) = (&flow.src.workload, flow.http.as_ref().expect("a request"));
                let asked = format!("{} {}", http.method, http.path);
                let is_it = |from: &str, request: &Option<String>| {
                    from.strip_prefix("shop/") == source.as_deref() && request.as_ref() == Some(&asked)
                };
                let will = happens(&after, flow, user);
                let changed = found.changes.iter().find(|one| is_it(&one.source, &one.request));
                let is_unclear = found.unclear_flows.iter().any(|one| is_it(&one.source, &one.request));
                let context = format!("seed {seed}, user {user:?}: {flow:#?}\n{was} -> {will}");
                match changed {
                    Some(change) => {
                        assert_eq!(change.before.verdict, was.verdict, "{context}");
                        // Where it went is not always known of what was let in.
                        if change.after.verdict == Verdict::Allow || change.before.route.is_some() {
                            assert_eq!(noticed(&change.before), noticed(was), "{context}");
                        }
                        assert_eq!(noticed(&change.after), noticed(&will), "{context}");
                        certain += 1;
                    }
                    None if is_unclear => {
                        unclear += 1;
                        needless += u32::from(!is_other_by_header([&before, &after], flow, [was, &will]));
                    }
                    None => {
                        assert_eq!(noticed(was), noticed(&will), "{context}");
                        quiet += 1;
                    }
                }
            }
        }
    }
    // All three must be common, or nothing was shown.
    assert!(certain > 100 && unclear > 100 && quiet > 100, "{certain} {unclear} {quiet}");
    // Rules that only together decide the same for every header are not seen through; they are few.
    assert!(needless * 10 < unclear, "{needless} of {unclear} were told to be unclear and are not");
}
