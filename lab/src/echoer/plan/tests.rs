//! When connections are opened, for given rates and times.

use std::time::Duration;

use super::{Load, Plan, Wish};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn wishes_become_plans() {
    type Row = (&'static str, fn(&mut Wish), u64, Load);
    let rows: [Row; 5] = [
        ("one connection", |_| {}, 1, Load::Closed { workers: 1 }),
        ("many in a row", |w| w.connections = Some(2000), 2000, Load::Closed { workers: 1 }),
        (
            "a rate",
            |w| (w.rate, w.duration) = (Some(500.0), Some(SECOND)),
            10_000_000,
            Load::Open { rate: 500.0 },
        ),
        (
            "held",
            |w| (w.hold, w.connections, w.duration) = (true, Some(50), Some(SECOND)),
            50,
            Load::Held { rate: None, interval: None, burst: None },
        ),
        (
            "held with a burst",
            |w| {
                (w.hold, w.duration, w.burst_bytes, w.burst_after) =
                    (true, Some(SECOND * 9), 1 << 20, Some(SECOND));
            },
            1,
            Load::Held { rate: None, interval: None, burst: Some((SECOND, 1 << 20)) },
        ),
    ];
    for (row, change, connections, load) in rows {
        let plan = Plan::of(wish(change), 1024).unwrap();
        assert_eq!((plan.connections, plan.load), (connections, load), "{row}");
    }
}

#[test]
fn nonsense_is_refused() {
    check(
        |w| w.target = "web".to_owned(),
        "TARGET: \"web\" is not HOST:PORT; write IPv6 addresses as [::1]:80",
    );
    check(
        |w| w.target = ":80".to_owned(),
        "TARGET: \":80\" is not HOST:PORT; write IPv6 addresses as [::1]:80",
    );
    check(|w| w.rate = Some(0.0), "--rate: give connections a second, from 0.001 to 1000000");
    check(|w| w.rate = Some(f64::NAN), "--rate: give connections a second, from 0.001 to 1000000");
    check(|w| w.frame_bytes = 0, "--frame-bytes: give 1 to 1048576");
    check(|w| w.connections = Some(0), "--connections: give 1 to 10000000");
    check(|w| w.hold = true, "--duration: held connections need an end; say how long");
    check(|w| w.duration = Some(Duration::ZERO), "--duration: give more than 0");
    check(|w| w.interval = Some(SECOND), "--interval: only held connections have it; add --hold");
    check(|w| w.concurrency = Some(0), "--concurrency: give at least 1");
    check(
        |w| (w.rate, w.concurrency) = (Some(1.0), Some(2)),
        "--concurrency: a rate opens connections whatever happens to those before; leave one out",
    );
    check(
        |w| (w.hold, w.duration, w.connections) = (true, Some(SECOND), Some(2000)),
        "--connections: 2000 at once are more than this process may have: 960",
    );
    check(
        |w| (w.hold, w.duration, w.burst_bytes, w.burst_after) = (true, Some(SECOND), 1, Some(SECOND)),
        "--burst-after: it has to be before the end of --duration",
    );
}

#[track_caller]
fn check(change: impl FnOnce(&mut Wish), want: &str) {
    assert_eq!(Plan::of(wish(change), 1024).unwrap_err().to_string(), want);
}

fn wish(change: impl FnOnce(&mut Wish)) -> Wish {
    let mut wish = Wish {
        target: "web:80".to_owned(),
        frame_bytes: 16384,
        connect_timeout: SECOND,
        stall_timeout: SECOND,
        ..Wish::default()
    };
    change(&mut wish);
    wish
}
