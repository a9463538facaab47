//! Batches of changes: order, staging, removal, sharing, and agreement with a world built at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::model::{Action, Scope};
use ambit_types::{Network, Uid};
use proptest::prelude::*;

use crate::testing::{Caller, changes, policy, service_key, told, uid, world};
use crate::{Change, PodRef, Snapshot, World};

const CLIENT: &str = "pod shop/client 10.244.1.5";
const WEB: &str = "svc shop/web 10.96.0.1 ports=80";

fn endpoints(snapshot: &Snapshot, service: &str) -> Vec<String> {
    let entry = snapshot.service(&service_key(service));
    entry.map(|e| e.endpoints().iter().map(|w| w.name.to_string()).collect()).unwrap_or_default()
}

fn plan(world: &World, destination: &str) -> String {
    told(&Caller::new("shop/client").plan(&world.snapshot(), destination))
}

#[test]
fn workloads_may_come_before_their_service() {
    let mut world = world(&format!("{CLIENT}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    assert_eq!(plan(&world, "10.96.0.1:80"), "passthrough 10.96.0.1:80");
    let _ = world.apply(changes(WEB));
    assert_eq!(plan(&world, "10.96.0.1:80"), "hbone shop/a 10.244.2.1:80 of shop/web");
}

#[test]
fn a_service_that_goes_and_returns_finds_its_endpoints_again() {
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    let _ = world.apply(changes("-address shop/web.shop.svc.cluster.local"));
    assert!(world.snapshot().service(&service_key("shop/web")).is_none());
    let _ = world.apply(changes(WEB));
    assert_eq!(endpoints(&world.snapshot(), "shop/web"), ["a"]);
}

#[test]
fn a_service_that_begins_to_admit_unready_endpoints_finds_them() {
    // G12: upstream has dropped them.
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web unready"));
    assert_eq!(plan(&world, "10.96.0.1:80"), "AMB3002 no-healthy-endpoint");
    let _ = world.apply(changes(&format!("{WEB} unready-too")));
    assert_eq!(plan(&world, "10.96.0.1:80"), "hbone shop/a 10.244.2.1:80 of shop/web");
    let _ = world.apply(changes(WEB));
    assert_eq!(plan(&world, "10.96.0.1:80"), "AMB3002 no-healthy-endpoint");
}

#[test]
fn services_of_one_namespace_that_share_an_address_do_not_displace_each_other() {
    // G10: upstream keys the slot by namespace only; an update or removal of one loses the other.
    let one = "svc shop/a.example 10.7.0.1 ports=80";
    let two = "svc shop/b.example 10.7.0.1 ports=80";
    let pods = "pod shop/a 10.244.2.1 node=n2 backs=shop/a.example
         pod shop/b 10.244.2.2 node=n2 backs=shop/b.example";
    for order in [[one, two], [two, one]] {
        let mut world = world(&format!("{CLIENT}\n{pods}\n{}\n{}", order[0], order[1]));
        let of_a = "hbone shop/a 10.244.2.1:80 of shop/a.example";
        assert_eq!(plan(&world, "10.7.0.1:80"), of_a);
        let _ = world.apply(changes("pod shop/b 10.244.2.22 node=n2 backs=shop/b.example"));
        assert_eq!(plan(&world, "10.7.0.1:80"), of_a);
        let _ = world.apply(changes("-address shop/a.example"));
        assert_eq!(plan(&world, "10.7.0.1:80"), "hbone shop/b 10.244.2.22:80 of shop/b.example");
        let _ = world.apply(changes("-address shop/b.example"));
        assert_eq!(plan(&world, "10.7.0.1:80"), "passthrough 10.7.0.1:80");
    }
}

#[test]
fn endpoint_updates_of_a_range_leave_one_entry_with_the_latest_endpoints() {
    // G11: upstream piles up entries, and the oldest wins.
    let mut world = world(&format!("{CLIENT}\nsvc shop/lan range=203.0.113.0/24 ports=80"));
    for round in 1..5 {
        let _ = world.apply(changes(&format!("pod shop/a 10.244.2.{round} node=n2 backs=shop/lan")));
        assert_eq!(plan(&world, "203.0.113.9:80"), format!("hbone shop/a 10.244.2.{round}:80 of shop/lan"));
    }
    let _ = world.apply(changes("svc shop/lan range=203.0.113.0/25 ports=80"));
    assert_eq!(plan(&world, "203.0.113.200:80"), "passthrough 203.0.113.200:80");
    let _ = world.apply(changes("-address shop/lan.shop.svc.cluster.local"));
    assert_eq!(plan(&world, "203.0.113.9:80"), "passthrough 203.0.113.9:80");
}

#[test]
fn a_changed_service_leaves_its_old_addresses() {
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    let _ = world.apply(changes("svc shop/web 10.96.0.2 ports=80"));
    assert_eq!(plan(&world, "10.96.0.1:80"), "passthrough 10.96.0.1:80");
    assert_eq!(plan(&world, "10.96.0.2:80"), "hbone shop/a 10.244.2.1:80 of shop/web");
}

#[test]
fn a_changed_workload_leaves_its_old_addresses_and_services() {
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    let _ = world.apply(changes("pod shop/a 10.244.2.2 node=n2"));
    assert_eq!(plan(&world, "10.244.2.1:80"), "passthrough 10.244.2.1:80");
    assert_eq!(plan(&world, "10.244.2.2:80"), "hbone shop/a 10.244.2.2:80");
    assert_eq!(plan(&world, "10.96.0.1:80"), "AMB3002 no-healthy-endpoint");
}

#[test]
fn an_address_passes_on_when_its_new_pod_becomes_ready_and_when_its_old_one_ends() {
    let starts = "pod shop/z 10.244.2.1 node=n2 plain";
    let mut world = world(&format!("{CLIENT}\npod shop/a 10.244.2.1 node=n2\n{starts} unready"));
    let at = |world: &World| plan(world, "10.244.2.1:80");
    assert_eq!(at(&world), "hbone shop/a 10.244.2.1:80");
    let _ = world.apply(changes("pod shop/a 10.244.2.1 node=n2 unready"));
    assert_eq!(at(&world), "hbone shop/a 10.244.2.1:80");
    let _ = world.apply(changes(starts));
    assert_eq!(at(&world), "plain shop/z 10.244.2.1:80");
    let _ = world.apply(changes("-address Kubernetes//Pod/shop/a"));
    assert_eq!(at(&world), "plain shop/z 10.244.2.1:80");
}

#[test]
fn removals_name_a_uid_or_a_service_and_go_first() {
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    let before = world.snapshot().counts();
    for nothing in ["never/held", "a/b/c", "", "/", "10.244.2.1", "/10.244.2.1", "Kubernetes//Pod/shop/none"]
    {
        let applied = world.apply([Change::RemoveAddress(nothing.to_owned())]);
        assert_eq!(applied.snapshot.counts(), before, "{nothing:?}");
    }
    let _ =
        world.apply([Change::RemovePolicy("no slash".to_owned()), Change::RemovePolicy("a/b".to_owned())]);
    // Named last in the batch, yet applied first: the address passes to the newcomer.
    let _ = world.apply(changes(
        "pod shop/b 10.244.2.1 node=n2 backs=shop/web
         -address Kubernetes//Pod/shop/a",
    ));
    assert_eq!(plan(&world, "10.244.2.1:80"), "hbone shop/b 10.244.2.1:80");
    assert_eq!(endpoints(&world.snapshot(), "shop/web"), ["b"]);
}

#[test]
fn own_workloads_are_found_by_pod_and_address_and_kept_apart_from_their_predecessors() {
    // G16: upstream finds a re-created pod's predecessor by name.
    let mut world = world("pod shop/db-0 10.244.1.5 sa=db\npod shop/far 10.244.2.5 node=n2");
    let pod = |account: &str| PodRef {
        namespace: "shop".into(),
        service_account: account.into(),
        name: "db-0".into(),
    };
    let found = |world: &World, account: &str, address: Option<&str>| {
        let snapshot = world.snapshot();
        let address = address.map(|a| a.parse::<IpAddr>().unwrap());
        snapshot.own_workload(&pod(account), address).map(|w| w.addresses[0].to_string())
    };
    assert_eq!(found(&world, "db", None).as_deref(), Some("10.244.1.5"));
    assert_eq!(found(&world, "db", Some("10.244.1.5")).as_deref(), Some("10.244.1.5"));
    assert_eq!(found(&world, "db", Some("::ffff:10.244.1.5")).as_deref(), Some("10.244.1.5"));
    assert_eq!(found(&world, "db", Some("10.244.1.6")), None);
    assert_eq!(found(&world, "other", None), None);
    let _ = world.apply(changes("pod shop/db-0 10.244.1.6 sa=db"));
    assert_eq!(found(&world, "db", Some("10.244.1.6")).as_deref(), Some("10.244.1.6"));
    let _ = world.apply(changes("pod shop/db-0 10.244.2.6 sa=db node=n2"));
    assert_eq!(found(&world, "db", None), None, "it moved to another node");
    let names: Vec<String> = world.snapshot().own_workloads().map(|w| w.name.to_string()).collect();
    assert_eq!(names, [""; 0]);
}

#[test]
fn a_world_without_a_node_owns_nothing() {
    let mut world = World::new("");
    let applied = world.apply(changes("pod shop/a 10.244.1.5 node="));
    assert_eq!(applied.affected.len(), 0);
    assert_eq!(applied.snapshot.own_workloads().count(), 0);
}

#[test]
fn affected_are_own_workloads_whose_record_or_policies_changed() {
    let mut world = world("pod shop/a 10.244.1.5\npod shop/b 10.244.1.6\npod data/c 10.244.1.7");
    let names = |applied: crate::Applied| -> Vec<String> {
        applied.affected.iter().map(|u| u.to_string().rsplit('/').next().unwrap().to_owned()).collect()
    };
    let one = |scope, key| Change::from(policy(key, scope, Action::Deny));
    assert_eq!(names(world.apply(changes("pod shop/a 10.244.1.5"))), [""; 0], "the same again");
    assert_eq!(names(world.apply(changes("pod shop/a 10.244.1.5 np"))), ["a"]);
    assert_eq!(names(world.apply(changes("pod shop/far 10.244.2.5 node=n2"))), [""; 0]);
    assert_eq!(names(world.apply([one(Scope::Namespace, "shop/p")])), ["a", "b"]);
    assert_eq!(names(world.apply([one(Scope::Namespace, "shop/p")])), [""; 0], "the same again");
    assert_eq!(names(world.apply([one(Scope::Global, "root/p")])), ["c", "a", "b"]);
    assert_eq!(names(world.apply([one(Scope::WorkloadSelector, "shop/q")])), [""; 0]);
    assert_eq!(names(world.apply(changes("-policy root/p"))), ["c", "a", "b"]);
    assert_eq!(names(world.apply(changes("-address Kubernetes//Pod/shop/b"))), ["b"]);
}

#[test]
fn snapshots_do_not_change_and_share_what_did_not() {
    let mut world = world(&format!("{CLIENT}\n{WEB}\npod shop/a 10.244.2.1 node=n2 backs=shop/web"));
    let before = world.snapshot();
    let _ = world.apply(changes("pod shop/b 10.244.2.2 node=n2"));
    let after = world.snapshot();
    assert!(before.workload(&uid("shop/b")).is_none());
    assert!(Arc::ptr_eq(before.workload(&uid("shop/a")).unwrap(), after.workload(&uid("shop/a")).unwrap()));
    let web = service_key("shop/web");
    assert!(Arc::ptr_eq(before.service(&web).unwrap(), after.service(&web).unwrap()));
    let _ = world.apply(changes("-address Kubernetes//Pod/shop/a"));
    assert_eq!(endpoints(&before, "shop/web"), ["a"]);
    assert_eq!(endpoints(&world.snapshot(), "shop/web"), [""; 0]);
}

/// One step of a random history over few names, so that they collide.
fn step() -> impl Strategy<Value = String> {
    let pod =
        (0u8..4, 1u8..4, prop::bool::ANY, prop::sample::select(vec!["", "backs=shop/s0", "backs=shop/s1"]))
            .prop_map(|(n, ip, own, backs)| {
                let node = if own { "n1" } else { "n2" };
                format!("pod shop/p{n} 10.0.0.{ip} node={node} {backs}")
            });
    let service = (0u8..2, 1u8..3, 24u8..27)
        .prop_map(|(n, ip, length)| format!("svc shop/s{n} 10.96.0.{ip} range=192.0.2.0/{length} ports=80"));
    prop_oneof![
        4 => pod,
        2 => service,
        1 => (0u8..4).prop_map(|n| format!("-address Kubernetes//Pod/shop/p{n}")),
        1 => (0u8..2).prop_map(|n| format!("-address shop/s{n}.shop.svc.cluster.local")),
    ]
}

/// What a name stands for at the end of a history.
fn last_lines(history: &[Vec<String>]) -> Vec<String> {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for batch in history {
        let (removals, rest): (Vec<_>, Vec<_>) = batch.iter().partition(|l| l.starts_with('-'));
        for line in removals {
            let name = line.trim_start_matches("-address ");
            let name = name.trim_start_matches("Kubernetes//Pod/").replace(".shop.svc.cluster.local", "");
            last.remove(&name);
        }
        for line in rest {
            last.insert(line.split_whitespace().nth(1).unwrap().to_owned(), line.clone());
        }
    }
    last.into_values().collect()
}

proptest! {
    #[test]
    fn any_history_leads_to_the_world_that_its_end_describes(
        history in prop::collection::vec(prop::collection::vec(step(), 1..4), 0..20),
    ) {
        let mut lived = world(CLIENT);
        for batch in &history {
            let _ = lived.apply(changes(&batch.join("\n")));
        }
        let built = world(&format!("{CLIENT}\n{}", last_lines(&history).join("\n")));
        let (lived, built) = (lived.snapshot(), built.snapshot());
        prop_assert_eq!(lived.workloads(), built.workloads());
        let services = |s: &Snapshot| -> Vec<String> {
            let all = s.services();
            all.iter().map(|e| format!("{:?} {:?}", e.service(), e.endpoints())).collect()
        };
        prop_assert_eq!(services(&lived), services(&built));
        let own = |s: &Snapshot| s.own_workloads().map(|w| w.uid.clone()).collect::<Vec<Uid>>();
        prop_assert_eq!(own(&lived), own(&built));
        for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.96.0.1", "10.96.0.2", "192.0.2.1", "192.0.2.40", "192.0.2.100"] {
            let ip: IpAddr = ip.parse().unwrap();
            let net = Network::default();
            prop_assert_eq!(lived.workload_at(&net, ip), built.workload_at(&net, ip));
            let key = |s: &Snapshot| s.service_at(&net, ip, "shop").map(|e| e.service().key());
            prop_assert_eq!(key(&lived), key(&built));
        }
    }
}
