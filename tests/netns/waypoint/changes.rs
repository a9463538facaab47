//! Row 10: the configuration changes, and the waypoint is replaced, while requests are under way; none is lost.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{soak, wait_until};
use serde_json::{Value, json};

use super::shop::{CLIENT, PODS, Shop, Told, WEB, backend, route, told};

/// Requests begun in a second.
const RATE: u64 = 200;

#[test]
fn a_thousand_changes_cost_no_request() {
    let Some(shop) = Shop::up("wp-changes", &[]) else { return };
    let (changes, span) = if soak() { (1000, 60) } else { (100, 6) };
    // The load outlasts the changes also where the machine is slow; it is ended by its own clock.
    let length = format!("{}s", 2 * span);
    let url = format!("{WEB}/changing");
    let rate = RATE.to_string();
    let args = ["--duration", &length, "--rate", &rate, "--concurrency", "8"];
    let mut load = shop.begin_load(&url, &args);
    let begun = clock::monotonic();
    for change in 0..changes {
        let file = shop.lab.file("change.yaml", &changed(change).to_string());
        let _ = shop.lab.lab(&["apply", "--no-wait", "-f", &file]);
    }
    let took = clock::monotonic() - begun;
    println!("{changes} changes in {took:?}");
    assert!(took < Duration::from_secs(2 * span), "{changes} changes took {took:?}");
    assert!(load.is_running(), "the load ended before the changes: {}{}", load.stdout(), load.stderr());
    let seen = told(&load.finish(Duration::from_secs(2 * span + 30)));
    nothing_lost(&seen, 2 * span);
    assert_eq!(seen.count("/by_peer/v1") + seen.count("/by_peer/v2"), seen.count("/sent"), "{:#}", seen.0);
    // The last change is the one in force.
    shop.lab.apply(&[changed(0)]);
    let one = shop.load(&url, &["--requests", "50"]);
    assert_eq!(one.count("/by_peer/v1"), 50, "{:#}", one.0);
}

/// The route after a change: another weight each time, and a rule that comes and goes.
fn changed(change: u32) -> Value {
    let share = change * 7 % 100;
    let mut rules = vec![json!({"backendRefs": [backend("web-v1", 100 - share), backend("web-v2", share)]})];
    if change % 2 == 1 {
        rules.push(json!({
            "matches": [{"path": {"type": "Exact", "value": format!("/of-change-{change}")}}],
            "backendRefs": [backend("web-v2", 1)],
        }));
    }
    route("changing", "web", &json!(rules))
}

#[test]
fn a_waypoint_that_is_replaced_loses_no_request() {
    let Some(shop) = Shop::up("wp-replaced", &[]) else { return };
    let (times, length) = if soak() { (10, 120) } else { (2, 20) };
    let url = format!("{WEB}/replaced");
    let (span, rate) = (format!("{length}s"), RATE.to_string());
    let args = ["--duration", &span, "--rate", &rate, "--concurrency", "8"];
    let mut kept = shop.begin_load(&url, &args);
    let fresh =
        shop.begin_load(&url, &["--duration", &span, "--rate", "20", "--fresh", "--concurrency", "4"]);
    for _ in 0..times {
        let before = shop.waypoint_pids();
        // Two seconds long, and under way when the waypoint is told to go.
        let drip = shop.begin(CLIENT, &["get", "--url", &format!("{WEB}/drip/20/100")]);
        wait_until("the stream is under way", Duration::from_secs(10), || {
            shop.taken(&PODS, "/drip/20/100") > 0
        });
        let _ = shop.lab.lab(&["restart", "waypoint/shop/waypoint"]);
        let drip = told(&drip.finish(Duration::from_secs(60)));
        let seen = (drip.status(), drip.error(), drip.count("/bytes"));
        assert_eq!(seen, (200, "", 20), "a stream was cut by the restart: {:#}", drip.0);
        wait_until("another waypoint runs in its place", Duration::from_secs(20), || {
            let now = shop.waypoint_pids();
            !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
        });
        shop.reset_counts();
    }
    assert!(kept.is_running(), "the load ended before the restarts: {}{}", kept.stdout(), kept.stderr());
    let patience = Duration::from_secs(length + 60);
    nothing_lost(&told(&kept.finish(patience)), length);
    let fresh = told(&fresh.finish(patience));
    assert_eq!(
        (fresh.count("/failed"), fresh.count("/by_status/200")),
        (0, fresh.count("/sent")),
        "{:#}",
        fresh.0
    );
}

/// Every request had its answer of 200, and there were as many as the rate makes, or nearly.
#[track_caller]
fn nothing_lost(seen: &Told, seconds: u64) {
    let sent = seen.count("/sent");
    assert_eq!((seen.count("/failed"), seen.count("/by_status/200")), (0, sent), "{:#}", seen.0);
    let percent = if soak() { 95 } else { 70 };
    let least = RATE * seconds * percent / 100;
    assert!(sent >= least, "{sent} requests in {seconds} s, {RATE}/s has to make {least}: {:#}", seen.0);
    println!(
        "{sent} requests, none lost, {} sent again, p99 {} us",
        seen.count("/resent"),
        seen.count("/p99_us")
    );
}
