//! Verdicts for new and live connections, as policies and workloads change.

use ambit_policy::Facts;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch};
use ambit_types::PolicyKey;

use crate::testing::{changes, identity, policy, uid, world};
use crate::{Admission, Change, Open, Snapshot, World, authorize, explain, reauthorize, speaks_for_others};

const MESH: &str = "
    pod shop/web 10.244.1.5 probes=8080
    pod shop/db 10.244.1.6
    pod data/web 10.244.1.7
    pod shop/far 10.244.2.5 node=n2";

fn strict() -> Policy {
    let mut all = policy("istio-system/istio_converted_static_strict", Scope::WorkloadSelector, Action::Deny);
    let mut one = Match::default();
    one.principals.none.push(StringMatch::Presence);
    all.rules = vec![Rule { clauses: vec![Clause { matches: vec![one] }], unevaluable: Vec::new() }];
    all
}

fn verdict(snapshot: &Snapshot, pod: &str, peer: Option<&str>) -> String {
    let peer = peer.map(identity);
    let facts = Facts::new(peer.as_ref(), [10, 244, 2, 9].into(), [10, 244, 1, 5].into(), 8080);
    authorize(snapshot, &uid(pod), &facts).to_string()
}

fn open(id: u64, pod: &str, peer: Option<&str>, admission: Admission) -> Open {
    let (namespace, _) = pod.split_once('/').unwrap();
    Open {
        id,
        workload: uid(pod),
        own: identity(&format!("{namespace}/default")),
        peer: peer.map(identity),
        client: None,
        believed: false,
        source: [10, 244, 2, 9].into(),
        destination: "10.244.1.5:8080".parse().unwrap(),
        admission,
    }
}

fn cut(snapshot: &Snapshot, open: &[Open]) -> Vec<String> {
    reauthorize(snapshot, open).into_iter().map(|(id, decision)| format!("{id} {decision}")).collect()
}

#[test]
fn scopes_say_whom_a_policy_covers() {
    let refused = |key: &str| format!("AMB2103 deny-rule-matched by {key} rule 0");
    for (key, scope, rows) in [
        ("root/p", Scope::Global, [true, true, true]),
        ("shop/p", Scope::Namespace, [true, true, false]),
        ("data/p", Scope::Namespace, [false, false, true]),
        ("shop/p", Scope::WorkloadSelector, [false, false, false]),
    ] {
        let mut world = world(MESH);
        let snapshot = world.apply([policy(key, scope, Action::Deny).into()]).snapshot;
        for (pod, covered) in ["shop/web", "shop/db", "data/web"].into_iter().zip(rows) {
            let want = if covered { refused(key) } else { "allow".to_owned() };
            assert_eq!(verdict(&snapshot, pod, Some("a/b")), want, "{key} {scope:?} on {pod}");
        }
    }
    let mut world = world(&format!("{MESH}\npod shop/web 10.244.1.5 policies=shop/p"));
    let snapshot = world.apply([policy("shop/p", Scope::WorkloadSelector, Action::Deny).into()]).snapshot;
    assert_eq!(verdict(&snapshot, "shop/web", Some("a/b")), refused("shop/p"));
    assert_eq!(verdict(&snapshot, "shop/db", Some("a/b")), "allow");
}

#[test]
fn a_namespace_does_not_cover_one_that_begins_alike() {
    let mut world = world("pod shop/web 10.244.1.5\npod shop2/web 10.244.1.6");
    let snapshot = world.apply([policy("shop/p", Scope::Namespace, Action::Deny).into()]).snapshot;
    assert_eq!(verdict(&snapshot, "shop2/web", Some("a/b")), "allow");
}

#[test]
fn an_unknown_workload_refuses() {
    let snapshot = world(MESH).snapshot();
    assert_eq!(verdict(&snapshot, "shop/new", Some("a/b")), "AMB6002 workload-unknown");
    assert_eq!(verdict(&snapshot, "shop/far", Some("a/b")), "AMB6002 workload-unknown");
}

#[test]
fn a_named_policy_that_is_absent_removed_or_rejected_refuses() {
    // G2, T-25.
    let mut world = world(&format!("{MESH}\npod shop/web 10.244.1.5 policies=shop/p"));
    let unresolved = "AMB2105 policy-unresolved by shop/p";
    let ask = |world: &World| verdict(&world.snapshot(), "shop/web", Some("a/b"));
    assert_eq!(ask(&world), unresolved);
    let allow = policy("shop/p", Scope::WorkloadSelector, Action::Allow);
    let _ = world.apply([allow.clone().into()]);
    assert_eq!(ask(&world), "allow by shop/p rule 0");
    let _ = world.apply(changes("-policy shop/p"));
    assert_eq!(ask(&world), unresolved);
    let reject = Change::PolicyRejected { key: allow.key.clone(), scope: Some(Scope::WorkloadSelector) };
    let _ = world.apply([reject.clone()]);
    assert_eq!(ask(&world), unresolved);
    let _ = world.apply([allow.into()]);
    // A bad successor does not displace a good version.
    let _ = world.apply([reject, policy("shop/q", Scope::Namespace, Action::Allow).into()]);
    assert_eq!(ask(&world), "allow by shop/p rule 0");
}

#[test]
fn a_rejected_policy_refuses_wherever_it_might_have_applied() {
    // G3: a policy of a namespace is named by nobody, yet must not be skipped.
    let cases = [
        ("shop/p", Some(Scope::Namespace), ["deny", "deny", "allow"]),
        // What cannot be read at all may be one for the whole mesh.
        ("shop/p", None, ["deny", "deny", "deny"]),
        ("istio-system/p", None, ["deny", "deny", "deny"]),
        ("root/p", Some(Scope::Global), ["deny", "deny", "deny"]),
        ("shop/p", Some(Scope::WorkloadSelector), ["allow", "allow", "allow"]),
    ];
    for (key, scope, rows) in cases {
        let mut world = world(MESH);
        let key = PolicyKey::parse(key).unwrap();
        let snapshot = world.apply([Change::PolicyRejected { key: key.clone(), scope }]).snapshot;
        for (pod, want) in ["shop/web", "shop/db", "data/web"].into_iter().zip(rows) {
            let want =
                if want == "deny" { format!("AMB2105 policy-unresolved by {key}") } else { want.to_owned() };
            assert_eq!(verdict(&snapshot, pod, Some("a/b")), want, "{key} {scope:?} on {pod}");
        }
        let _ = world.apply(changes(&format!("-policy {key}")));
        assert_eq!(verdict(&world.snapshot(), "shop/web", Some("a/b")), "allow");
    }
}

#[test]
fn a_policy_that_changes_scope_leaves_the_old_one() {
    let mut world = world(MESH);
    let _ = world.apply([policy("shop/p", Scope::Global, Action::Deny).into()]);
    let _ = world.apply([policy("shop/p", Scope::Namespace, Action::Deny).into()]);
    assert_eq!(verdict(&world.snapshot(), "data/web", Some("a/b")), "allow");
    assert!(verdict(&world.snapshot(), "shop/web", Some("a/b")).starts_with("AMB2103"));
}

#[test]
fn a_new_deny_cuts_live_connections_it_matches_and_no_others() {
    let mut world = world(MESH);
    let live = [
        open(1, "shop/web", Some("a/b"), Admission::Policy),
        open(2, "shop/web", Some("jobs/cron"), Admission::Policy),
        open(3, "data/web", Some("jobs/cron"), Admission::Policy),
    ];
    assert_eq!(cut(&world.snapshot(), &live), [""; 0]);
    let mut deny = policy("shop/lock", Scope::Namespace, Action::Deny);
    let mut one = Match::default();
    one.service_accounts.any.push(ServiceAccount { namespace: "jobs".into(), name: "cron".into() });
    deny.rules[0].clauses.push(Clause { matches: vec![one] });
    let applied = world.apply([deny.into()]);
    assert_eq!(applied.affected.iter().cloned().collect::<Vec<_>>(), [uid("shop/db"), uid("shop/web")]);
    assert_eq!(cut(&applied.snapshot, &live), ["2 AMB2103 deny-rule-matched by shop/lock rule 0"]);
}

#[test]
fn a_removed_allow_among_others_cuts_whom_it_alone_admitted() {
    let mut world = world(MESH);
    let mut narrow = policy("shop/narrow", Scope::Namespace, Action::Allow);
    let mut one = Match::default();
    one.namespaces.any.push(StringMatch::Exact("a".into()));
    narrow.rules[0].clauses.push(Clause { matches: vec![one] });
    let _ = world.apply([narrow.into(), policy("shop/wide", Scope::Namespace, Action::Allow).into()]);
    let live = [
        open(1, "shop/web", Some("a/b"), Admission::Policy),
        open(2, "shop/web", Some("c/d"), Admission::Policy),
    ];
    assert_eq!(cut(&world.snapshot(), &live), [""; 0]);
    let applied = world.apply(changes("-policy shop/wide"));
    assert_eq!(cut(&applied.snapshot, &live), ["2 AMB2104 policy-denied"]);
}

#[test]
fn a_policy_newly_named_by_a_workload_applies_to_live_connections() {
    // G1: upstream goes on with the workload as it was at accept.
    let mut world = world(MESH);
    let _ = world.apply([strict().into()]);
    let live = [
        open(1, "shop/web", None, Admission::Policy),
        open(2, "shop/web", Some("a/b"), Admission::Policy),
        open(3, "shop/db", None, Admission::Policy),
    ];
    assert_eq!(cut(&world.snapshot(), &live), [""; 0]);
    let relabelled = "pod shop/web 10.244.1.5 policies=istio-system/istio_converted_static_strict";
    let applied = world.apply(changes(relabelled));
    assert_eq!(applied.affected.iter().cloned().collect::<Vec<_>>(), [uid("shop/web")]);
    assert_eq!(
        cut(&applied.snapshot, &live),
        ["1 AMB2301 plaintext-refused by istio-system/istio_converted_static_strict rule 0"]
    );
}

#[test]
fn live_probes_stay_while_their_port_is_declared() {
    let text = "pod shop/web 10.244.1.5 policies=istio-system/istio_converted_static_strict";
    let mut world = world(&format!("{text} probes=8080"));
    let _ = world.apply([strict().into()]);
    let live = [open(1, "shop/web", None, Admission::Probe), open(2, "shop/web", None, Admission::Policy)];
    let ids = |s: &Snapshot| reauthorize(s, &live).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(&world.snapshot()), [2]);
    let _ = world.apply(changes(text));
    assert_eq!(ids(&world.snapshot()), [1, 2]);
}

#[test]
fn a_workload_that_became_somebody_else_loses_its_connections_and_a_vanished_one_keeps_them() {
    let mut world = world(MESH);
    let live = [open(1, "shop/web", Some("a/b"), Admission::Policy)];
    let _ = world.apply(changes("pod shop/web 10.244.1.5 sa=other"));
    assert_eq!(cut(&world.snapshot(), &live), ["1 AMB2005 identity-mismatch"]);
    let _ = world.apply(changes("-address Kubernetes//Pod/shop/web"));
    assert_eq!(cut(&world.snapshot(), &live), [""; 0]);
}

#[test]
fn any_workload_can_be_explained() {
    let mut world = world(MESH);
    let snapshot = world.apply([policy("shop/p", Scope::Namespace, Action::Deny).into()]).snapshot;
    let far = snapshot.workload(&uid("shop/far")).unwrap();
    let facts = Facts::new(None, [10, 0, 0, 1].into(), [10, 244, 2, 5].into(), 80);
    assert_eq!(
        explain(&snapshot, far, &facts).decision.to_string(),
        "AMB2103 deny-rule-matched by shop/p rule 0"
    );
}

#[test]
fn a_service_that_gets_a_waypoint_takes_nobody_past_it_nor_keeps_who_is_there() {
    let mut world = world(MESH);
    let backs = "pod shop/web 10.244.1.5 probes=8080 backs=shop/web\npod shop/gate 10.244.2.9 node=n2 sa=gate backs=shop/gate";
    let services = "svc shop/gate 10.96.0.9 ports=15008\nsvc shop/web 10.96.0.1 ports=80->8080";
    let before = world.apply(changes(&format!("{backs}\n{services}"))).snapshot;
    let live = [
        open(1, "shop/web", Some("shop/cart"), Admission::Policy),
        open(2, "shop/web", Some("shop/gate"), Admission::Policy),
        open(3, "shop/web", None, Admission::Probe),
    ];
    assert_eq!(verdict(&before, "shop/web", Some("shop/cart")), "allow");
    assert_eq!(cut(&before, &live), [""; 0]);

    let applied = world.apply(changes("svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate"));
    assert!(applied.affected.contains(&uid("shop/web")), "its live connections are looked at again");
    let bound = applied.snapshot;
    assert_eq!(verdict(&bound, "shop/web", Some("shop/cart")), "AMB3102 waypoint-bypassed");
    assert_eq!(verdict(&bound, "shop/web", Some("shop/gate")), "allow");
    assert_eq!(cut(&bound, &live), ["1 AMB3102 waypoint-bypassed"]);
    let (peer, own) = (identity("shop/cart"), bound.workload(&uid("shop/web")).unwrap());
    let facts = Facts::new(Some(&peer), [10, 244, 2, 9].into(), [10, 244, 1, 5].into(), 8080);
    assert_eq!(explain(&bound, own, &facts).decision, authorize(&bound, &uid("shop/web"), &facts));
}

/// `shop/web` is behind `shop/gate`.
const BEHIND: &str = "
    pod shop/web 10.244.1.5 probes=8080 backs=shop/web
    pod shop/gate-0 10.244.2.9 node=n2 sa=gate backs=shop/gate
    svc shop/gate 10.96.0.9 ports=15008
    svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate";

fn naming(action: Action, name: &str, account: &str) -> Policy {
    let mut policy = policy(&format!("shop/{name}"), Scope::Namespace, action);
    let mut one = Match::default();
    let (namespace, account) = account.split_once('/').unwrap();
    one.service_accounts.any.push(ServiceAccount { namespace: namespace.into(), name: account.into() });
    policy.rules[0].clauses.push(Clause { matches: vec![one] });
    policy
}

/// A connection of the waypoint on behalf of somebody.
fn carried(id: u64, client: Option<&str>) -> Open {
    let open = open(id, "shop/web", Some("shop/gate"), Admission::Policy);
    Open { client: client.map(identity), believed: true, ..open }
}

/// The verdict about it, which its explanation has to agree with.
fn carried_verdict(snapshot: &Snapshot, client: Option<&str>) -> String {
    let open = carried(1, client);
    let decision = authorize(snapshot, &open.workload, &open.facts(snapshot));
    let own = snapshot.workload(&open.workload).unwrap();
    assert_eq!(explain(snapshot, own, &open.facts(snapshot)).decision, decision, "explain disagrees");
    decision.to_string()
}

#[test]
fn only_the_waypoint_of_the_port_speaks_for_others() {
    let more = "pod shop/lone 10.244.1.8 waypoint=shop/gate\npod shop/new 10.244.1.9 backs=shop/new";
    let snapshot = world(&format!("{BEHIND}\n{more}")).snapshot();
    for (pod, peer, port, want) in [
        ("shop/web", "shop/gate", 8080, Some(true)),
        ("shop/web", "shop/cart", 8080, Some(false)),
        ("shop/web", "data/gate", 8080, Some(false)),
        // No waypoint is on the way there.
        ("shop/web", "shop/gate", 9090, Some(false)),
        ("shop/lone", "shop/gate", 9090, Some(true)),
        ("shop/new", "shop/gate", 8080, None),
        ("shop/never", "shop/gate", 8080, Some(false)),
    ] {
        let got = speaks_for_others(&snapshot, &uid(pod), &identity(peer), port);
        assert_eq!(got, want, "{peer} at {pod}:{port}");
    }
}

#[test]
fn a_client_behind_the_waypoint_is_denied_as_if_it_came_itself() {
    let mut world = world(BEHIND);
    let live = [carried(1, Some("jobs/cron")), carried(2, Some("shop/cart")), carried(3, None)];
    assert_eq!(cut(&world.snapshot(), &live), [""; 0]);
    let applied = world.apply([naming(Action::Deny, "lock", "jobs/cron").into()]);
    let denied = "AMB2103 deny-rule-matched by shop/lock rule 0";
    assert_eq!(cut(&applied.snapshot, &live), [format!("1 {denied}")]);
    assert_eq!(carried_verdict(&applied.snapshot, Some("jobs/cron")), denied);
    assert_eq!(carried_verdict(&applied.snapshot, Some("shop/cart")), "allow");
    let applied = world.apply([naming(Action::Deny, "lock", "shop/gate").into()]);
    assert_eq!(cut(&applied.snapshot, &live).len(), 3, "the waypoint may be denied as well");
}

#[test]
fn an_allow_may_name_the_client_or_the_waypoint() {
    for (named, rows) in [
        ("shop/gate", [(Some("jobs/cron"), true), (Some("shop/cart"), true), (None, true)]),
        ("shop/cart", [(Some("jobs/cron"), false), (Some("shop/cart"), true), (None, false)]),
    ] {
        let mut world = world(BEHIND);
        let snapshot = world.apply([naming(Action::Allow, "some", named).into()]).snapshot;
        for (client, want) in rows {
            let want = if want { "allow by shop/some rule 0" } else { "AMB2104 policy-denied" };
            assert_eq!(carried_verdict(&snapshot, client), want, "{client:?} where {named} is allowed");
        }
    }
}

#[test]
fn who_is_no_waypoint_any_more_keeps_the_denials_of_its_client_and_not_what_that_was_allowed() {
    let mut world = world(BEHIND);
    let live = [carried(1, Some("shop/cart")), carried(2, Some("jobs/cron"))];
    let _ = world.apply([naming(Action::Allow, "some", "shop/cart").into()]);
    assert_eq!(cut(&world.snapshot(), &live), ["2 AMB2104 policy-denied"]);
    let unbound = world.apply(changes("svc shop/web 10.96.0.1 ports=80->8080")).snapshot;
    assert_eq!(cut(&unbound, &live).len(), 2, "shop/gate itself is not allowed");
    let _ = world.apply([naming(Action::Allow, "some", "shop/gate").into()]);
    let denied = world.apply([naming(Action::Deny, "lock", "jobs/cron").into()]).snapshot;
    assert_eq!(cut(&denied, &live), ["2 AMB2103 deny-rule-matched by shop/lock rule 0"]);
    assert_eq!(carried_verdict(&denied, Some("shop/cart")), "allow by shop/some rule 0");
    assert_eq!(carried_verdict(&unbound, Some("shop/cart")), "AMB2104 policy-denied");
}

#[test]
fn the_word_of_a_waypoint_counts_as_soon_as_it_is_known_to_be_one() {
    let unbound = BEHIND.replace("8080 waypoint=shop/gate", "8080");
    let mut world = world(&unbound);
    let _ = world.apply([naming(Action::Deny, "lock", "jobs/cron").into()]);
    let early =
        |id, peer| Open { peer: Some(identity(peer)), believed: false, ..carried(id, Some("jobs/cron")) };
    let live = [early(1, "shop/gate"), early(2, "shop/cart")];
    assert_eq!(cut(&world.snapshot(), &live), [""; 0], "it is nobody's business whom they name");
    let bound = world.apply(changes("svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate")).snapshot;
    let denied = "AMB2103 deny-rule-matched by shop/lock rule 0";
    assert_eq!(cut(&bound, &live), [format!("1 {denied}"), "2 AMB3102 waypoint-bypassed".to_owned()]);
}

#[test]
fn a_waypoint_without_instances_takes_nothing_new_and_keeps_what_is_open() {
    let mut world = world(BEHIND);
    let live = [carried(1, Some("shop/cart"))];
    let unready = "pod shop/gate-0 10.244.2.9 node=n2 sa=gate unready backs=shop/gate";
    let snapshot = world.apply(changes(unready)).snapshot;
    assert_eq!(cut(&snapshot, &live), [""; 0]);
    assert_eq!(verdict(&snapshot, "shop/web", Some("shop/cart")), "AMB3102 waypoint-bypassed");
    let gone = world.apply(changes("-address Kubernetes//Pod/shop/gate-0"));
    assert!(gone.affected.is_empty(), "nobody here is looked at again");
    assert_eq!(verdict(&gone.snapshot, "shop/web", Some("shop/cart")), "AMB3102 waypoint-bypassed");
}

#[test]
fn a_service_that_has_not_arrived_is_waited_for_and_then_refuses() {
    let mut world = world("pod shop/web 10.244.1.5 probes=8080 backs=shop/web");
    let live = [
        open(1, "shop/web", Some("shop/cart"), Admission::Policy),
        open(2, "shop/web", None, Admission::Probe),
    ];
    let snapshot = world.snapshot();
    assert_eq!(verdict(&snapshot, "shop/web", Some("shop/cart")), "AMB2105 policy-unresolved");
    assert_eq!(cut(&snapshot, &live), ["1 AMB2105 policy-unresolved"]);
    let told = world.apply(changes("svc shop/web 10.96.0.1 ports=80->8080"));
    assert!(told.affected.contains(&uid("shop/web")));
    assert_eq!(cut(&told.snapshot, &live), [""; 0]);
}
