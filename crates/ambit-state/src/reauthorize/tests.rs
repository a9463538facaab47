//! Verdicts for new and live connections, as policies and workloads change.

use ambit_policy::Facts;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch};
use ambit_types::PolicyKey;

use crate::testing::{changes, identity, policy, uid, world};
use crate::{Admission, Change, Open, Snapshot, World, authorize, explain, reauthorize};

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
