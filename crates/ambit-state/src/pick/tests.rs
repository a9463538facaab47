//! Ranks, weights and fairness of picks.

use std::collections::BTreeMap;

use super::Ask;
use crate::Snapshot;
use crate::testing::{service_key, uid, world};

/// How often each endpoint is drawn in 6000 evenly spread draws.
fn shares(snapshot: &Snapshot, source: &str, tried: &[&str]) -> BTreeMap<String, usize> {
    let tried: Vec<_> = tried.iter().map(|t| uid(t)).collect();
    let source = snapshot.workload(&uid(source)).unwrap();
    let entry = snapshot.service(&service_key("shop/web")).unwrap();
    let mut shares = BTreeMap::new();
    for i in 0..6000u64 {
        let draw = (u64::MAX / 6000) * i;
        let ask = Ask { source, port: 80, waypoint: false, tried: &tried, draw };
        if let Some(picked) = entry.pick(&ask) {
            *shares.entry(picked.workload.name.to_string()).or_default() += 1;
        }
    }
    shares
}

#[track_caller]
fn check(text: &str, want: &[(&str, usize)]) {
    check_without(text, &[], want);
}

#[track_caller]
fn check_without(text: &str, tried: &[&str], want: &[(&str, usize)]) {
    let client = "pod shop/client 10.244.1.5 region=r1 zone=z1";
    let snapshot = world(&format!("{client}\n{text}")).snapshot();
    let found = shares(&snapshot, "shop/client", tried);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, want.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{text}");
    for (name, share) in want {
        assert!(found[*name].abs_diff(*share) <= 2, "{name}: {} where {share} is meant", found[*name]);
    }
}

const ONE: &str = "pod shop/a 10.244.2.1 node=n2 backs=shop/web";

#[test]
fn equal_endpoints_get_equal_shares() {
    let rest = "pod shop/b 10.244.2.2 node=n2 backs=shop/web
         pod shop/c 10.244.2.3 node=n2 backs=shop/web";
    check(&format!("svc shop/web ports=80\n{ONE}\n{rest}"), &[("a", 2000), ("b", 2000), ("c", 2000)]);
    check_without(&format!("svc shop/web ports=80\n{ONE}\n{rest}"), &["shop/b"], &[("a", 3000), ("c", 3000)]);
}

#[test]
fn capacity_is_weight_and_none_at_all_is_no_endpoint() {
    let text = "svc shop/web ports=80
         pod shop/a 10.244.2.1 backs=shop/web capacity=1
         pod shop/b 10.244.2.2 backs=shop/web capacity=5
         pod shop/c 10.244.2.3 backs=shop/web capacity=0";
    check(text, &[("a", 1000), ("b", 5000)]);
    check_without(text, &["shop/b"], &[("a", 6000)]);
    check("svc shop/web ports=80\npod shop/a 10.244.2.1 backs=shop/web capacity=0", &[]);
    check(
        &format!(
            "svc shop/web ports=80\n{ONE} capacity=4294967295\npod shop/b 10.244.2.2 backs=shop/web capacity=4294967295"
        ),
        &[("a", 3000), ("b", 3000)],
    );
}

#[test]
fn unready_and_unreachable_endpoints_are_left_out() {
    let text = |service: &str| {
        format!(
            "svc shop/web ports=80 {service}
             {ONE}
             pod shop/sick 10.244.2.2 backs=shop/web unready
             pod shop/nowhere backs=shop/web
             pod shop/abroad 10.9.0.1 network=other backs=shop/web"
        )
    };
    check(&text(""), &[("a", 6000)]);
    check(&text("unready-too"), &[("a", 3000), ("sick", 3000)]);
}

#[test]
fn strict_uses_only_endpoints_that_match_every_scope() {
    let pods = "pod shop/here 10.244.1.1 backs=shop/web region=r1 zone=z1
         pod shop/zone 10.244.2.1 node=n2 backs=shop/web region=r1 zone=z1
         pod shop/away 10.244.3.1 node=n3 backs=shop/web region=r2 zone=z1";
    check(&format!("svc shop/web ports=80 mode=strict:node\n{pods}"), &[("here", 6000)]);
    check(
        &format!("svc shop/web ports=80 mode=strict:region,zone\n{pods}"),
        &[("here", 3000), ("zone", 3000)],
    );
    check(
        &format!("svc shop/web ports=80 mode=strict:subzone\n{pods}"),
        &[("away", 2000), ("here", 2000), ("zone", 2000)],
    );
    check("svc shop/web ports=80 mode=strict:node\npod shop/a 10.244.2.1 node=n2 backs=shop/web", &[]);
}

#[test]
fn failover_uses_the_best_rank_and_the_next_only_when_that_was_tried() {
    // Ranks for network, region, zone: all 5, net and region 4, net 3, region and zone only 2, region only 1, none 0.
    let ranked = [
        ("five", "region=r1 zone=z1"),
        ("four", "region=r1 zone=z2"),
        ("three", "region=r2 zone=z1"),
        ("two", "region=r1 zone=z1 network=other gateway=shop/gw"),
        ("one", "region=r1 zone=z2 network=other gateway=shop/gw"),
        ("zero", "region=r2 zone=z1 network=other gateway=shop/gw"),
    ];
    let pods: Vec<String> = ranked
        .iter()
        .enumerate()
        .map(|(i, (name, keys))| format!("pod shop/{name} 10.244.2.{i} node=n2 backs=shop/web {keys}"))
        .collect();
    let text = format!("svc shop/web ports=80 mode=failover:network,region,zone\n{}", pods.join("\n"));
    for best in 0..ranked.len() {
        let tried: Vec<String> = ranked[..best].iter().map(|(name, _)| format!("shop/{name}")).collect();
        let tried: Vec<&str> = tried.iter().map(String::as_str).collect();
        check_without(&text, &tried, &[(ranked[best].0, 6000)]);
    }
}

#[test]
fn failover_stops_at_the_first_scope_that_differs() {
    // Zone names repeat in other regions: without its region a zone does not count.
    check(
        "svc shop/web ports=80 mode=failover:region,zone
         pod shop/zone 10.244.2.1 node=n2 backs=shop/web region=r2 zone=z1
         pod shop/none 10.244.2.2 node=n2 backs=shop/web region=r2 zone=z2",
        &[("none", 3000), ("zone", 3000)],
    );
    check(
        "svc shop/web ports=80 mode=failover:cluster,node
         pod shop/near 10.244.1.1 backs=shop/web
         pod shop/far 10.244.2.1 node=n2 backs=shop/web",
        &[("near", 6000)],
    );
}

#[test]
fn workloads_of_other_places_are_ranked_for_themselves() {
    // Tables are kept for the place that asks first; another place must not be served with them.
    let snapshot = world(
        "pod shop/client 10.244.1.5 zone=z1
         pod shop/abroad 10.244.1.6 zone=z2
         svc shop/web ports=80 mode=strict:zone
         pod shop/a 10.244.2.1 node=n2 backs=shop/web zone=z1
         pod shop/b 10.244.2.2 node=n2 backs=shop/web zone=z2",
    )
    .snapshot();
    for _ in 0..2 {
        assert_eq!(shares(&snapshot, "shop/client", &[]).into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(shares(&snapshot, "shop/abroad", &[]).into_keys().collect::<Vec<_>>(), ["b"]);
    }
}
