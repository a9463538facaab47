//! Who may tell of what.

use std::sync::Arc;

use super::*;

const NOW: u64 = 1_000_000_000;

fn who(node: &str, gateway: Option<&str>) -> Who {
    Who {
        name: node.to_owned(),
        node: node.to_owned(),
        gateway: gateway.map(|name| Name::new("shop", name)),
        version: "1".to_owned(),
        instance: 1,
    }
}

fn binding(gateway: &str) -> GatewayAddress {
    let host = format!("{gateway}.shop.svc.cluster.local");
    GatewayAddress {
        destination: Destination::Hostname(ServiceKey::new("shop", host)),
        hbone_mtls_port: 15008,
    }
}

fn workload(namespace: &str, name: &str, node: &str, last: u8) -> Workload {
    let mut workload =
        Workload::new(format!("Kubernetes//Pod/{namespace}/{name}-1"), namespace, format!("{name}-1"));
    workload.workload_name = name.into();
    workload.node = node.into();
    workload.addresses = vec![IpAddr::from([10, 0, 0, last])];
    workload
}

/// `web` and `db` on n1, `bank/vault` on n2; the service `db` is bound to the waypoint, and so is the workload `web`.
fn delta() -> Delta {
    let mut web = workload("shop", "web", "n1", 1);
    web.waypoint = Some(binding("waypoint"));
    let mut db = workload("shop", "db", "n1", 2);
    let mut service = Service::new("shop", "db", "db.shop.svc.cluster.local");
    service.waypoint = Some(binding("waypoint"));
    db.services.insert(service.key(), Vec::new());
    let vault = workload("bank", "vault", "n2", 3);
    let other = Service::new("bank", "vault", "vault.bank.svc.cluster.local");
    let workloads = [web, db, vault].map(|one| (one.uid.clone(), Arc::new(one)));
    let services = [service, other].map(|one| (one.key(), Arc::new(one)));
    Delta { workloads: workloads.into(), services: services.into(), ..Delta::default() }
}

fn places() -> Places {
    let mut places = Places::default();
    places.take(&delta(), NOW);
    places
}

fn end(namespace: &str, workload: &str, last: u8) -> Option<End> {
    Some(End {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        pod: format!("{workload}-1"),
        address: format!("10.0.0.{last}:80"),
        node: "elsewhere".to_owned(),
        ..End::default()
    })
}

fn pair(reporter: Reporter, source: Option<End>, destination: Option<End>) -> Pair {
    Pair { reporter: reporter.into(), source, destination, path: "hbone".to_owned(), ..Pair::default() }
}

#[test]
fn a_ztunnel_speaks_for_pods_of_its_node_only() {
    use Reporter::{Destination, Source, Unspecified, Waypoint};
    let (web, vault) = (|| end("shop", "web", 1), || end("bank", "vault", 3));
    let rows = [
        (pair(Source, web(), vault()), Ok(())),
        (pair(Destination, vault(), web()), Ok(())),
        (pair(Source, vault(), web()), Err(Misfit::Workload)),
        (pair(Destination, web(), vault()), Err(Misfit::Workload)),
        (pair(Source, end("bank", "web", 1), vault()), Err(Misfit::Workload)),
        (pair(Source, None, vault()), Err(Misfit::Workload)),
        // It does not know the pod yet, whose address says enough.
        (pair(Source, end("", "", 1), vault()), Ok(())),
        (pair(Source, end("", "", 3), vault()), Err(Misfit::Workload)),
        (pair(Waypoint, web(), vault()), Err(Misfit::Reporter)),
        (pair(Unspecified, web(), vault()), Err(Misfit::Reporter)),
        (Pair { path: "waypoint".to_owned(), ..pair(Destination, vault(), web()) }, Err(Misfit::Path)),
    ];
    for (mut pair, want) in rows {
        let shown = format!("{pair:?}");
        assert_eq!(places().check(&who("n1", None), &mut pair, NOW), want, "{shown}");
    }
}

#[test]
fn of_its_own_end_only_what_is_true_stands() {
    let forged = End {
        pod: "vault-1".to_owned(),
        address: "10.0.0.3:80".to_owned(),
        ..end("shop", "web", 1).unwrap()
    };
    let mut pair = pair(Reporter::Destination, end("bank", "vault", 3), Some(forged));
    assert_eq!(places().check(&who("n1", None), &mut pair, NOW), Ok(()));
    let own = pair.destination.unwrap();
    assert_eq!((&*own.node, &*own.pod, &*own.address, &*own.workload), ("n1", "", "", "web"));
}

#[test]
fn a_waypoint_speaks_of_what_is_bound_to_it_only() {
    let to = |service: &str, destination: Option<End>| Pair {
        service: service.to_owned(),
        ..pair(Reporter::Waypoint, end("bank", "vault", 3), destination)
    };
    let (db, nobody) = ("db.shop.svc.cluster.local", None);
    let rows = [
        ("waypoint", to(db, end("shop", "db", 2)), Ok(())),
        ("waypoint", to(db, nobody.clone()), Ok(())),
        ("waypoint", to("waypoint.shop.svc.cluster.local", nobody.clone()), Ok(())),
        ("waypoint", to("", end("shop", "web", 1)), Ok(())),
        ("waypoint", to("vault.bank.svc.cluster.local", end("bank", "vault", 3)), Err(Misfit::Unbound)),
        ("waypoint", to("", end("bank", "vault", 3)), Err(Misfit::Unbound)),
        ("waypoint", to("", end("shop", "db", 2)), Err(Misfit::Unbound)),
        ("waypoint", to("", nobody), Err(Misfit::Unbound)),
        ("other", to(db, end("shop", "db", 2)), Err(Misfit::Unbound)),
        (
            "waypoint",
            pair(Reporter::Source, end("shop", "web", 1), end("shop", "db", 2)),
            Err(Misfit::Reporter),
        ),
    ];
    for (gateway, mut pair, want) in rows {
        let shown = format!("{pair:?}");
        assert_eq!(places().check(&who("n1", Some(gateway)), &mut pair, NOW), want, "{gateway}: {shown}");
    }
}

#[test]
fn a_waypoint_chooses_neither_how_it_is_reached_nor_which_workloads_are_named() {
    let mut pair = Pair {
        service: "db.shop.svc.cluster.local".to_owned(),
        client: "spiffe://m/ns/shop/sa/web".to_owned(),
        ..pair(Reporter::Waypoint, end("shop", "web", 1), end("bank", "vault", 3))
    };
    assert_eq!(places().check(&who("n1", Some("waypoint")), &mut pair, NOW), Ok(()));
    let named = pair.destination.unwrap();
    assert_eq!((&*pair.path, &*pair.client, &*named.workload, &*named.pod), ("waypoint", "", "", ""));
}

/// A summary may be late: of a pod that ended it tells for a while.
#[test]
fn what_is_gone_may_be_told_of_for_a_while() {
    let mut places = places();
    let removed =
        Delta { removed_workloads: delta().workloads.keys().cloned().collect(), ..Delta::default() };
    places.take(&removed, NOW + 10);
    let check = |places: &Places, now| {
        let mut pair = pair(Reporter::Source, end("shop", "web", 1), None);
        places.check(&who("n1", None), &mut pair, now)
    };
    assert_eq!(check(&places, NOW + 10 + GRACE), Ok(()));
    assert_eq!(check(&places, NOW + 11 + GRACE), Err(Misfit::Workload));
    places.take(&Delta::default(), NOW + 11 + GRACE);
    assert!(places.gone.is_empty() && !places.claims.keys().any(|claim| matches!(claim, Claim::Runs(..))));
    // A pod that comes back is one again, and one that moves is no more where it was.
    places.take(&delta(), NOW + 5000);
    let mut moved = workload("shop", "web", "n2", 1);
    moved.waypoint = Some(binding("waypoint"));
    let moved = Delta { workloads: [(moved.uid.clone(), Arc::new(moved))].into(), ..Delta::default() };
    places.take(&moved, NOW + 5000);
    assert_eq!(check(&places, NOW + 5001 + GRACE), Err(Misfit::Workload));
}

#[test]
fn a_claim_about_a_node_is_good_while_one_workload_makes_it_so() {
    let pod = |number: u8| {
        let mut pod = workload("shop", "web", "n1", number);
        pod.uid = Uid::from(format!("Kubernetes//Pod/shop/web-{number}"));
        pod.name = format!("web-{number}").into();
        (pod.uid.clone(), Arc::new(pod))
    };
    let both = Delta { workloads: [pod(1), pod(2)].into(), ..Delta::default() };
    let mut places = Places::default();
    places.take(&both, NOW);
    // The same ones again, as after a restart of the source.
    places.take(&both, NOW);
    assert!(places.claims.is_empty() && places.gone.is_empty(), "{:?}", places.claims);
    let runs = Claim::Runs("n1".into(), "shop".into(), "web".into());
    let named = |number: u8| Claim::Pod("n1".into(), "shop".into(), format!("web-{number}").into());
    let holds = |number: u8| Claim::Holds("n1".into(), IpAddr::from([10, 0, 0, number]));
    let good = |places: &Places, now: u64| {
        [&runs, &named(1), &holds(1), &named(2), &holds(2)].map(|claim| places.has(claim, now))
    };
    assert_eq!(good(&places, NOW), [true; 5]);
    let gone = |number: u8| Delta { removed_workloads: [pod(number).0].into(), ..Delta::default() };
    places.take(&gone(1), NOW + 10);
    assert_eq!(good(&places, NOW + 10 + GRACE), [true; 5]);
    assert_eq!(good(&places, NOW + 11 + GRACE), [true, false, false, true, true]);
    places.take(&gone(2), NOW + 20);
    assert_eq!(good(&places, NOW + 20 + GRACE), [true, false, false, true, true]);
    assert_eq!(good(&places, NOW + 21 + GRACE), [false; 5]);
    // It comes back, and goes again, while the first time is still remembered.
    places.take(&both, NOW + 30);
    places.take(&gone(1), NOW + 40);
    places.take(&Delta::default(), NOW + 35 + GRACE);
    assert_eq!(good(&places, NOW + 40 + GRACE), [true; 5]);
    places.take(&Delta::default(), NOW + 41 + GRACE);
    assert_eq!(good(&places, NOW + 41 + GRACE), [true, false, false, true, true]);
    assert!(places.claims.is_empty() && places.gone.is_empty(), "{:?}", places.claims);
}
