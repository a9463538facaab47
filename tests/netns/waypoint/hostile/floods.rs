//! Clients that only cost, one after the other, beside one that is served at a fixed rate.
//!
//! Measured of the waypoint's process: memory at its highest and the processor's time. The bystander's requests go to
//! another upstream, so that what it notices is the waypoint's. On a small machine attacker, mesh and bystander share
//! the processors: a floor allows for that.

use std::fs;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::soak;

use crate::waypoint::shop::{GRPC, OTHER, Shop, Told, V1, told};

/// The gRPC service, which is served in HTTP/2.
const FRAMES: &str = "grpc.shop.svc.cluster.local:9000";
const TEXT: &str = "web-v2.shop.svc.cluster.local:80";
/// Requests a second of the bystander.
const RATE: &str = "100";
/// Most that the memory may grow over what it was before, in KiB.
const GROWTH_KIB: u64 = 64 * 1024;
/// Most of one processor that the waypoint may use for an attacker and the bystander together, in percent.
const CPU_PERCENT_MAX: u64 = 75;
/// Ticks of the processor's time in a second (`USER_HZ`).
const TICKS: u64 = 100;

/// An attack and what has to become of it.
struct Flood {
    kind: &'static str,
    address: &'static str,
    /// Whom the bystander calls, as others do all the while.
    beside: &'static str,
    connections: u32,
    /// Whether its connections are ended, and within which time in milliseconds.
    dismissed: Option<u64>,
    /// Shortest duration in seconds, and whether it is left to the full run.
    seconds: u64,
    only_soak: bool,
}

const fn frames(kind: &'static str, dismissed: Option<u64>) -> Flood {
    Flood { kind, address: FRAMES, beside: V1, connections: 1, dismissed, seconds: 3, only_soak: false }
}

const fn text(kind: &'static str, connections: u32, dismissed: Option<u64>) -> Flood {
    Flood { kind, address: TEXT, beside: V1, connections, dismissed, seconds: 3, only_soak: false }
}

/// In a second or two each of these is told to go.
const SOON: Option<u64> = Some(2500);

const FLOODS: [Flood; 29] = [
    frames("rapid-reset", SOON),
    frames("late-reset", SOON),
    frames("made-you-reset", SOON),
    frames("window-overflow", SOON),
    frames("stale-reset", SOON),
    frames("continuation", SOON),
    frames("empty-continuation", SOON),
    frames("hpack-bomb", SOON),
    // Each head is refused by itself.
    frames("cookie-crumbs", None),
    frames("empty-data", SOON),
    frames("padded-data", SOON),
    // They are joined and cost the others nothing: messages of a few bytes each are what some calls of gRPC consist of.
    frames("tiny-data", None),
    // One upstream serves all: what one client does to it must not cost another an answer.
    Flood { beside: GRPC, ..frames("tiny-data", None) },
    Flood { beside: GRPC, ..frames("rapid-reset", SOON) },
    Flood { beside: GRPC, ..frames("late-reset", SOON) },
    frames("ping", SOON),
    frames("unread-ping", SOON),
    frames("settings", SOON),
    frames("priority", SOON),
    frames("window-update", SOON),
    frames("unknown", SOON),
    frames("byte-windows", SOON),
    // Stalled streams are ended by the minute: what is held for them is bounded until then.
    frames("window-stall", None),
    frames("many-streams", SOON),
    text("pipelined", 4, None),
    text("tiny-chunks", 1, None),
    text("bad-heads", 20, SOON),
    Flood { seconds: 13, ..text("slow-head", 200, Some(12_000)) },
    Flood { seconds: 50, only_soak: true, ..text("slow-body", 100, Some(45_000)) },
];

/// What a flood cost.
#[derive(Debug)]
struct Cost {
    growth_kib: u64,
    /// The waypoint's time of the processor in percent of one.
    cpu_percent: u64,
    bystander: Told,
    attack: Told,
}

#[test]
fn clients_that_only_cost_are_dismissed_and_others_hardly_notice() {
    let Some(shop) = Shop::up("wp-floods", &[]) else { return };
    let began = shop.waypoint_programs();
    // Twice: the first is for connections and caches.
    drop(calm(&shop, Duration::from_secs(2)));
    let usual = calm(&shop, Duration::from_secs(if soak() { 20 } else { 4 }));
    // Attacker, application, tunnels and waypoint share the machine with the tests beside this one: the short form only
    // tells a stall from a busy processor. The soak form runs alone and holds the bound that is promised.
    let (floor, usual) = (if soak() { 10_000 } else { 250_000 }, usual.count("/p99_us"));
    let bound = 2 * usual + floor;
    println!("p99 without an attack {usual} us, bound with one {bound} us");
    let mut wrong = Vec::new();
    for flood in FLOODS.iter().filter(|flood| soak() || !flood.only_soak) {
        let cost = under(&shop, flood);
        println!("{}", flood.line(&cost));
        wrong.extend(flood.problems(&cost, bound));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(shop.waypoint_programs(), began, "the waypoint that ran at the beginning");
}

/// The bystander alone.
#[track_caller]
fn calm(shop: &Shop, time: Duration) -> Told {
    let duration = format!("{}s", time.as_secs());
    let load =
        shop.load(&format!("{V1}/calm"), &["--duration", &duration, "--rate", RATE, "--concurrency", "2"]);
    assert_eq!(load.count("/by_status/200"), load.count("/sent"), "{:#}", load.0);
    load
}

#[track_caller]
fn under(shop: &Shop, flood: &Flood) -> Cost {
    let pids = shop.waypoint_programs();
    let before = resident_kib(&pids);
    let seconds = if soak() { flood.seconds.max(30) } else { flood.seconds };
    let (duration, connections) = (format!("{seconds}s"), flood.connections.to_string());
    let (began, worked) = (clock::monotonic(), ticks(&pids));
    let url = format!("{}/calm", flood.beside);
    let version: &[&str] = if flood.beside == GRPC { &["--http2"] } else { &[] };
    let load = ["--duration", &duration, "--rate", RATE, "--concurrency", "2"];
    let load = shop.begin_load(&url, &[&load[..], version].concat());
    let args = ["attack", flood.kind, "--address", flood.address, "--duration", &duration];
    let mut attack = shop.begin(OTHER, &[&args[..], &["--connections", &connections]].concat());
    let mut most = before;
    while attack.is_running() {
        most = most.max(resident_kib(&pids));
        std::thread::sleep(Duration::from_millis(20));
    }
    let patience = Duration::from_secs(seconds + 30);
    let attack = told(&attack.finish(patience));
    let bystander = told(&load.finish(patience));
    let took = u64::try_from((clock::monotonic() - began).as_millis()).unwrap_or(u64::MAX);
    let cpu_percent = (ticks(&pids) - worked) * 100 * 1000 / TICKS / took.max(1);
    Cost { growth_kib: most - before, cpu_percent, bystander, attack }
}

impl Flood {
    fn line(&self, cost: &Cost) -> String {
        let attack = &cost.attack.0;
        format!(
            "{} beside {}: p99 {} us, memory +{} KiB, processor {}%, {} connections, {} bytes, dismissed {} after {} ms {}, \
             statuses {}, resets {}",
            self.kind,
            self.beside,
            cost.bystander.count("/p99_us"),
            cost.growth_kib,
            cost.cpu_percent,
            attack["connections"],
            attack["sent_bytes"],
            attack["dismissed"],
            attack["dismissed_after_ms"],
            attack["ends"],
            attack["statuses"],
            attack["resets"],
        )
    }

    fn problems(&self, cost: &Cost, bound: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let bystander = &cost.bystander;
        if bystander.count("/by_status/200") != bystander.count("/sent") || bystander.count("/sent") < 100 {
            wrong.push(format!("{}: the bystander's requests failed: {:#}", self.kind, bystander.0));
        }
        if bystander.count("/p99_us") > bound {
            wrong.push(format!("{}: the bystander's p99 is {} us", self.kind, bystander.count("/p99_us")));
        }
        if cost.growth_kib > GROWTH_KIB {
            wrong.push(format!("{}: memory grew by {} KiB", self.kind, cost.growth_kib));
        }
        if cost.cpu_percent > CPU_PERCENT_MAX {
            wrong.push(format!("{}: {}% of a processor", self.kind, cost.cpu_percent));
        }
        if let Some(within) = self.dismissed {
            let slowest = cost.attack.count("/dismissed_after_ms/1");
            if cost.attack.count("/dismissed") == 0 || slowest > within {
                wrong.push(format!("{}: not dismissed within {within} ms: {}", self.kind, cost.attack.0));
            }
        }
        wrong
    }
}

/// Resident memory of processes in KiB.
fn resident_kib(pids: &[u64]) -> u64 {
    let of = |pid: &u64| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().to_owned();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default()
    };
    pids.iter().map(of).sum()
}

/// The processor's time that processes have used, in ticks.
fn ticks(pids: &[u64]) -> u64 {
    let of = |pid: &u64| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may have spaces: fields 14 and 15 of all.
        let rest = text.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
    };
    pids.iter().map(of).sum()
}
