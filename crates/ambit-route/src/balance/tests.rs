//! Rows and shares of balancing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::service::{LoadBalancingMode, Scope};

use super::*;
use crate::model::{HashKey, Scheme};
use crate::request::Request;

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn place(region: &str, zone: &str, node: &str) -> Place {
    let locality = Locality { region: region.into(), zone: zone.into(), subzone: "".into() };
    Place { locality, node: node.into(), ..Place::default() }
}

fn endpoint(name: &str, weight: u32) -> Endpoint {
    Endpoint { uid: name.into(), weight, place: place("r", "z", "n"), ready_since: None }
}

fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    (0..).zip(weights).map(|(at, weight): (u32, _)| endpoint(&format!("pod-{at}"), *weight)).collect()
}

fn flat(endpoints: Vec<Endpoint>) -> Balancer {
    Balancer::new(endpoints, &LoadBalancing::default(), None, &place("r", "z", "n"))
}

/// Loads and standings by place.
#[derive(Default)]
struct Known {
    loads: BTreeMap<usize, u64>,
    standings: BTreeMap<usize, Standing>,
}

impl View for Known {
    fn load(&self, endpoint: usize) -> u64 {
        self.loads.get(&endpoint).copied().unwrap_or(0)
    }

    fn standing(&self, endpoint: usize) -> Standing {
        self.standings.get(&endpoint).copied().unwrap_or(Standing::Ready)
    }
}

/// How often each endpoint is chosen in so many requests.
fn counts(balancer: &Balancer, balance: &Balance, view: &Known, times: u64, now: Instant) -> Vec<u64> {
    let mut counts = vec![0; balancer.endpoints().len()];
    for turn in 0..times {
        let draw = crate::draw::mix(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xabcd);
        let hash = Some(crate::draw::mix(turn));
        let ask = Ask { balance, hash, turn, draw, now };
        counts[balancer.pick(&ask, view).expect("an endpoint")] += 1;
    }
    counts
}

#[track_caller]
fn check_shares(counts: &[u64], weights: &[u32], tolerance_percent: u64) {
    let (all, total): (u64, u32) = (counts.iter().sum(), weights.iter().sum());
    for (count, weight) in counts.iter().zip(weights) {
        let want = all * u64::from(*weight) / u64::from(total);
        let margin = want * tolerance_percent / 100;
        assert!(count.abs_diff(want) <= margin, "{counts:?} for weights {weights:?}");
    }
}

#[test]
fn every_way_respects_weights() {
    let keys = Balance::ConsistentHash(vec![HashKey::SourceAddress]);
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 5], &[10, 0, 30]] {
        let balancer = flat(endpoints(weights));
        for (balance, tolerance) in [(&Balance::Random, 3), (&Balance::RoundRobin, 1), (&keys, 3)] {
            let counts = counts(&balancer, balance, &Known::default(), 40_000, start());
            check_shares(&counts, weights, tolerance);
        }
    }
}

#[test]
fn least_request_evens_out_load_by_weight() {
    // A closed loop: each request stays for a while, and the share of those under way follows the weights.
    let (weights, now) = ([1, 1, 2], start());
    let balancer = flat(endpoints(&weights));
    let mut view = Known::default();
    let mut under_way = std::collections::VecDeque::new();
    let mut counts = vec![0; weights.len()];
    for (turn, draw) in (0..20_000).zip(Draws::from(1)) {
        let ask = Ask { balance: &Balance::LeastRequest, hash: None, turn, draw, now };
        let chosen = balancer.pick(&ask, &view).expect("an endpoint");
        counts[chosen] += 1;
        *view.loads.entry(chosen).or_default() += 1;
        under_way.push_back(chosen);
        if under_way.len() > 100 {
            let done = under_way.pop_front().expect("more than 100");
            *view.loads.entry(done).or_default() -= 1;
        }
    }
    check_shares(&counts, &weights, 5);
}

#[test]
fn a_loaded_endpoint_gets_less_and_of_two_nothing() {
    let balancer = flat(endpoints(&[1, 1]));
    let view = Known { loads: BTreeMap::from([(0, 50)]), ..Known::default() };
    assert_eq!(counts(&balancer, &Balance::LeastRequest, &view, 1000, start()), [0, 1000]);
    let three = flat(endpoints(&[1, 1, 1]));
    let counts = counts(&three, &Balance::LeastRequest, &view, 3000, start());
    assert!(counts[0] == 0 && counts[1].abs_diff(counts[2]) < 200, "{counts:?}");
}

#[test]
fn standing_comes_before_everything_and_somebody_is_always_found() {
    use Standing::{Ejected, Tried};
    let balances =
        [Balance::LeastRequest, Balance::Random, Balance::RoundRobin, Balance::ConsistentHash(Vec::new())];
    for balance in &balances {
        let balancer = flat(endpoints(&[1, 1, 1]));
        let picked = |standings: &[(usize, Standing)]| {
            let view = Known { standings: standings.iter().copied().collect(), ..Known::default() };
            let counts = counts(&balancer, balance, &view, 300, start());
            counts.iter().map(|count| *count > 0).collect::<Vec<_>>()
        };
        assert_eq!(picked(&[(0, Ejected)]), [false, true, true], "{balance:?}");
        assert_eq!(picked(&[(0, Ejected), (1, Tried)]), [false, false, true], "{balance:?}");
        assert_eq!(picked(&[(0, Ejected), (1, Tried), (2, Tried)]), [true, false, false], "{balance:?}");
        assert_eq!(picked(&[(0, Tried), (1, Tried), (2, Tried)]), [true, true, true], "{balance:?}");
        let ask = Ask { balance, hash: Some(1), turn: 0, draw: 0, now: start() };
        assert_eq!(flat(Vec::new()).pick(&ask, &Known::default()), None);
        assert_eq!(flat(endpoints(&[0])).pick(&ask, &Known::default()), None);
    }
}

#[test]
fn one_usable_endpoint_among_many_is_found() {
    let weights = vec![1; 1000];
    let balancer = flat(endpoints(&weights));
    let standings = (0..1000).filter(|at| *at != 777).map(|at| (at, Standing::Ejected)).collect();
    let view = Known { standings, ..Known::default() };
    for balance in [Balance::LeastRequest, Balance::Random, Balance::RoundRobin] {
        assert_eq!(counts(&balancer, &balance, &view, 50, start())[777], 50, "{balance:?}");
    }
}

#[test]
fn near_endpoints_come_first_and_farther_ones_when_those_are_gone() {
    let preference = vec![Scope::Region, Scope::Zone, Scope::Node];
    let mut spread =
        LoadBalancing { preference, mode: LoadBalancingMode::Failover, ..LoadBalancing::default() };
    let at = |name: &str, place| Endpoint { place, ..endpoint(name, 1) };
    let all = || {
        vec![
            at("same-node", place("r", "z", "n")),
            at("same-zone", place("r", "z", "m")),
            at("same-region", place("r", "y", "k")),
            at("elsewhere", place("q", "z", "n")),
        ]
    };
    let here = place("r", "z", "n");
    let first = |spread: &LoadBalancing, gone: &[usize]| {
        let standings = gone.iter().map(|at| (*at, Standing::Ejected)).collect();
        let view = Known { standings, ..Known::default() };
        let balancer = Balancer::new(all(), spread, None, &here);
        let counts = counts(&balancer, &Balance::LeastRequest, &view, 200, start());
        counts.iter().map(|count| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(first(&spread, &[]), [true, false, false, false]);
    assert_eq!(first(&spread, &[0]), [false, true, false, false]);
    assert_eq!(first(&spread, &[0, 1]), [false, false, true, false]);
    assert_eq!(first(&spread, &[0, 1, 2]), [false, false, false, true]);
    spread.mode = LoadBalancingMode::Any;
    assert_eq!(first(&spread, &[]), [true, true, true, true]);
    spread.mode = LoadBalancingMode::Strict;
    assert_eq!(first(&spread, &[]), [true, false, false, false]);
}

#[test]
fn a_new_endpoint_is_spared_and_grows() {
    let slow_start = SlowStart { window: Duration::from_secs(100), least_percent: 10 };
    for (seconds, want) in [(0, 100), (50, 550), (99, 991), (100, 1000), (500, 1000)] {
        assert_eq!(share_permille(&slow_start, Duration::from_secs(seconds)), want, "{seconds}");
    }
    let begun = start();
    let mut new = endpoints(&[1, 1]);
    new[0].ready_since = Some(begun);
    let here = place("r", "z", "n");
    let balancer = Balancer::new(new, &LoadBalancing::default(), Some(slow_start), &here);
    let share = |seconds| {
        let now = begun + Duration::from_secs(seconds);
        counts(&balancer, &Balance::Random, &Known::default(), 20_000, now)[0] / 200
    };
    // Of two endpoints one that counts for a tenth gets an eleventh.
    assert!((7..=11).contains(&share(0)), "{}", share(0));
    assert!((48..=52).contains(&share(100)), "{}", share(100));
}

#[test]
fn the_only_endpoint_is_used_however_new_it_is() {
    let slow_start = SlowStart { window: Duration::from_secs(100), least_percent: 1 };
    let begun = start();
    let mut new = endpoints(&[1]);
    new[0].ready_since = Some(begun);
    let balancer = Balancer::new(new, &LoadBalancing::default(), Some(slow_start), &Place::default());
    for balance in [Balance::LeastRequest, Balance::Random, Balance::RoundRobin] {
        assert_eq!(counts(&balancer, &balance, &Known::default(), 200, begun), [200]);
    }
}

#[test]
fn keys_stay_with_their_endpoint_when_another_leaves() {
    let keys = Balance::ConsistentHash(Vec::new());
    let owner = |balancer: &Balancer, key: u64| {
        let hash = Some(crate::draw::mix(key));
        let ask = Ask { balance: &keys, hash, turn: 0, draw: key, now: start() };
        let at = balancer.pick(&ask, &Known::default()).expect("an endpoint");
        balancer.endpoints()[at].uid.clone()
    };
    let all = flat(endpoints(&[1; 10]));
    let mut fewer = endpoints(&[1; 10]);
    let gone = fewer.remove(3).uid;
    fewer.reverse();
    let fewer = flat(fewer);
    for key in 0..2000 {
        let before = owner(&all, key);
        assert!(before == gone || owner(&fewer, key) == before, "key {key} moved without need");
    }
}

#[test]
fn keys_are_read_in_order_of_preference() {
    let headers = [("X-User", "ann"), ("cookie", "a=1; user=bob")];
    let request = Request {
        method: "GET",
        scheme: Scheme::Http,
        authority: "",
        port: 80,
        path: "/",
        query: Some("user=eve"),
        headers: &headers[..],
    };
    let header = HashKey::Header("x-user".into());
    let (cookie, query) = (HashKey::Cookie("user".into()), HashKey::Query("user".into()));
    let absent = HashKey::Header("x-none".into());
    let v4 = Some(IpAddr::from([10, 0, 0, 1]));
    let mapped: Option<IpAddr> = "::ffff:10.0.0.1".parse().ok();
    let of = |keys: &[HashKey], caller| hash_of(keys, &request, caller);
    assert_eq!(of(&[absent.clone(), header.clone()], None), of(std::slice::from_ref(&header), None));
    assert_ne!(of(&[header], None), of(std::slice::from_ref(&cookie), None));
    assert_ne!(of(&[cookie], None), of(&[query], None));
    assert_eq!(of(&[HashKey::SourceAddress], v4), of(&[HashKey::SourceAddress], mapped));
    assert_eq!(of(std::slice::from_ref(&absent), v4), None);
    let address = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(
        hash_of_connection(&[absent.clone(), HashKey::SourceAddress], address),
        of(&[HashKey::SourceAddress], v4)
    );
    assert_eq!(hash_of_connection(&[absent], address), None);
    assert_eq!(of(&[HashKey::SourceAddress], None), None);
}
