//! Row 11: the waypoint dies, is not there, or nobody tells it anything: refused with a reason within a second, or served
//! as before; never past the policy.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::wait_until;

use super::shop::{CLIENT, PODS, SOON, Shop, Told, WEB, get_only};

/// A path that the policy keeps everyone from, by its method.
const PATH: &str = "/lost";
/// The Gateway's annotation for how many pods it has.
const REPLICAS: &str = "ambit.internal/replicas";
/// How long the waypoint may take to be there again.
const RETURN: Duration = Duration::from_secs(15);

#[test]
fn without_its_waypoint_a_service_is_refused_and_never_served_past_it() {
    let Some(shop) = Shop::up("wp-loss", &[get_only()]) else { return };
    killed(&shop);
    absent(&shop, "stopped", &["stop", "waypoint/shop/waypoint"], &["start", "waypoint/shop/waypoint"]);
    let annotate = ["annotate", "gateway", "waypoint", "-n", "shop"];
    let (none, one) = (format!("{REPLICAS}=0"), format!("{REPLICAS}-"));
    absent(&shop, "0 replicas", &[&annotate[..], &[&*none]].concat(), &[&annotate[..], &[&*one]].concat());
    without_control_plane(&shop);
}

/// Dead, and started again by who keeps it.
fn killed(shop: &Shop) {
    let before = shop.waypoint_pids();
    let _ = shop.lab.lab(&["kill", "waypoint/shop/waypoint"]);
    let mut refusals = 0;
    let begun = clock::monotonic();
    loop {
        holds(shop, "killed");
        let told = shop.get(CLIENT, &format!("{WEB}/alive"), &["--timeout", "5s"]);
        if told.status() == 200 {
            break;
        }
        in_time("killed", &told);
        refusals += 1;
        assert!(clock::monotonic() - begun < RETURN, "it does not return: {:#}", told.0);
    }
    println!("killed: {refusals} refused until it was back after {:?}", clock::monotonic() - begun);
    let now = shop.waypoint_pids();
    assert!(
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid)),
        "{before:?} still runs as {now:?}"
    );
}

/// None at all, from one command of the lab to the other: refused with the documented reason.
fn absent(shop: &Shop, when: &str, begin: &[&str], end: &[&str]) {
    shop.reset_counts();
    let recorded = shop.lab.flows(&["--code", "AMB3101"]).len();
    let _ = shop.lab.lab(begin);
    wait_until("no waypoint runs", Duration::from_secs(10), || shop.waypoint_pids().is_empty());
    for _ in 0..10 {
        holds(shop, when);
        let told = shop.get(CLIENT, &format!("{WEB}/alive"), &["--timeout", "5s"]);
        assert_eq!(told.status(), 0, "{when}: answered without a waypoint: {:#}", told.0);
        in_time(when, &told);
    }
    wait_until(&format!("{when}: AMB3101 is recorded"), Duration::from_secs(10), || {
        shop.lab.flows(&["--code", "AMB3101"]).len() > recorded
    });
    assert_eq!(shop.taken(&PODS, "/alive"), 0, "{when}: a request came past the waypoint");
    let _ = shop.lab.lab(end);
    wait_until("it serves again", RETURN, || {
        shop.get(CLIENT, &format!("{WEB}/alive"), &["--timeout", "2s"]).status() == 200
    });
    holds(shop, when);
}

/// Nobody who would tell it of changes: what it knows stays in force.
fn without_control_plane(shop: &Shop) {
    shop.reset_counts();
    let _ = shop.lab.lab(&["stop", "istiod"]);
    let load =
        shop.load(&format!("{WEB}/alive"), &["--duration", "5s", "--rate", "100", "--concurrency", "4"]);
    assert_eq!(
        (load.count("/failed"), load.count("/by_status/200")),
        (0, load.count("/sent")),
        "{:#}",
        load.0
    );
    let told = shop.post(CLIENT, &format!("{WEB}{PATH}"));
    assert_eq!((told.status(), told.header("x-ambit-reason")), (403, "AMB2202"), "{:#}", told.0);
    holds(shop, "without control plane");
    let _ = shop.lab.lab(&["start", "istiod"]);
}

/// What the policy forbids does not reach an application, however it is answered.
#[track_caller]
fn holds(shop: &Shop, when: &str) {
    let told = shop.post(CLIENT, &format!("{WEB}{PATH}"));
    assert!([0, 403, 503].contains(&told.status()), "{when}: {:#}", told.0);
    assert_eq!(shop.taken(&PODS, PATH), 0, "{when}: it came past the policy: {:#}", told.0);
}

/// A refusal, by the waypoint or by the node's proxy, that nobody had to wait for.
#[track_caller]
fn in_time(when: &str, told: &Told) {
    assert!([0, 503].contains(&told.status()), "{when}: {:#}", told.0);
    assert!(told.took() < SOON, "{when}: refused only after {:?}: {:#}", told.took(), told.0);
}
