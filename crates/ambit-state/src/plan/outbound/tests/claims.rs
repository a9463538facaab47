//! Several that claim one address: which of them is meant, and that nobody takes over the address of another.

use super::{check, check_as};
use crate::testing::Caller;

#[test]
fn of_two_claimants_of_an_address_the_pod_wins_then_hbone_whatever_the_order() {
    let pod = "pod shop/real 10.244.2.40 node=n2 plain";
    let entry = "entry shop/vm 10.244.2.40 node=n2";
    for text in [format!("{pod}\n{entry}"), format!("{entry}\n{pod}")] {
        check(&text, &[("10.244.2.40:80", "plain shop/real 10.244.2.40:80")]);
    }
    let a = "entry shop/a 10.244.2.41 plain";
    let b = "entry shop/b 10.244.2.41 node=n2";
    for text in [format!("{a}\n{b}"), format!("{b}\n{a}")] {
        check(&text, &[("10.244.2.41:80", "hbone shop/b 10.244.2.41:80")]);
    }
    check(
        &format!("{a}\n{b}\n-address Kubernetes/WorkloadEntry/shop/b"),
        // Removals of a batch go first: the removal finds nothing, and b stays.
        &[("10.244.2.41:80", "hbone shop/b 10.244.2.41:80")],
    );
}

#[test]
fn a_pod_that_ends_does_not_keep_its_address_from_the_one_that_has_it_now() {
    let both = |one: &str, other: &str| [format!("{one}\n{other}"), format!("{other}\n{one}")];
    let ends = "pod shop/a-ends 10.244.2.42 node=n2 unready";
    for text in both(ends, "pod shop/b-has 10.244.2.42 node=n2 plain") {
        check(&text, &[("10.244.2.42:80", "plain shop/b-has 10.244.2.42:80")]);
    }
    // While neither is ready, the one that speaks HBONE.
    for text in both(ends, "pod shop/0-starts 10.244.2.42 node=n2 plain unready") {
        check(&text, &[("10.244.2.42:80", "hbone shop/a-ends 10.244.2.42:80")]);
    }
    // Health makes no pod of what is none, and decides nothing among these.
    for text in both(ends, "entry shop/vm 10.244.2.42 plain") {
        check(&text, &[("10.244.2.42:80", "hbone shop/a-ends 10.244.2.42:80")]);
    }
    for text in both("entry shop/a 10.244.2.43 node=n2 unready", "entry shop/b 10.244.2.43 plain") {
        check(&text, &[("10.244.2.43:80", "hbone shop/a 10.244.2.43:80")]);
    }
}

#[test]
fn no_service_takes_over_the_address_of_a_pod_and_no_range_that_of_any_workload() {
    // T-50: only names that a namespace owns.
    let thief = "svc evil/trap.example 10.244.2.7 ports=80
         svc shop/all.example range=10.0.0.0/8 ports=80
         pod evil/trap 10.244.2.99 node=n2 backs=evil/trap.example backs=shop/all.example";
    check(thief, &[("10.244.2.7:80", "hbone shop/far 10.244.2.7:80")]);
    // A record that is no pod may share its address with a service that fronts it.
    check(
        "svc shop/vm.example 10.5.0.1 ports=80->8080
         entry shop/vm 10.5.0.1 plain backs=shop/vm.example",
        &[("10.5.0.1:80", "plain shop/vm 10.5.0.1:8080 of shop/vm.example")],
    );
    // And if the service has nothing to offer, the record itself is reached, not passed by in plaintext.
    check(
        "svc shop/vm.example 10.5.0.1 ports=81
         entry shop/vm 10.5.0.1 node=n2",
        &[("10.5.0.1:80", "hbone shop/vm 10.5.0.1:80")],
    );
}

#[test]
fn services_that_share_an_address_are_kept_apart() {
    let client_side = |rows: &str| format!("pod jobs/other 10.244.1.6\n{rows}");
    let shared = "svc jobs/a.example 10.7.0.1 ports=80
         svc shop/b.example 10.7.0.1 ports=80
         svc data/c.example 10.7.0.1 ports=80 canonical
         pod jobs/a 10.244.2.1 node=n2 backs=jobs/a.example
         pod shop/b 10.244.2.2 node=n2 backs=shop/b.example
         pod data/c 10.244.2.3 node=n2 backs=data/c.example";
    check(&client_side(shared), &[("10.7.0.1:80", "hbone shop/b 10.244.2.2:80 of shop/b.example")]);
    check_as(
        &Caller::new("jobs/other"),
        &client_side(shared),
        &[("10.7.0.1:80", "hbone jobs/a 10.244.2.1:80 of jobs/a.example")],
    );
    let stranger = client_side(&format!("{shared}\npod misc/x 10.244.1.7"));
    check_as(
        &Caller::new("misc/x"),
        &stranger,
        &[("10.7.0.1:80", "hbone data/c 10.244.2.3:80 of data/c.example")],
    );
    let without_canonical = stranger.replace(" canonical", "");
    check_as(
        &Caller::new("misc/x"),
        &without_canonical,
        &[("10.7.0.1:80", "hbone data/c 10.244.2.3:80 of data/c.example")],
    );
    check_as(
        &Caller::new("misc/x"),
        &without_canonical
            .replace("data/c.example 10.7.0.1 ports=80", "data/c.example 10.7.0.1 ports=80 private"),
        &[("10.7.0.1:80", "hbone jobs/a 10.244.2.1:80 of jobs/a.example")],
    );
}
