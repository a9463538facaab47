//! Rows of ejection: in a row, by rate, ceiling, how long, coming back.

use super::*;

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn uid(number: usize) -> Uid {
    Uid::from(format!("pod-{number}"))
}

struct Rig {
    tracker: Tracker,
    begun: Instant,
}

impl Rig {
    fn new(policy: Outlier, endpoints: usize) -> Self {
        let begun = start();
        let mut tracker = Tracker::new(policy, begun);
        tracker.retain((0..endpoints).map(uid).collect::<Vec<_>>().iter());
        Self { tracker, begun }
    }

    /// Notes outcomes, one letter each: `.` success, `5` server error, `g` gateway error. Says for how many seconds
    /// the endpoint is ejected by the last of them.
    fn note(&mut self, endpoint: usize, outcomes: &str, at: u64) -> Option<u64> {
        let now = self.at(at);
        let health = |c| match c {
            '.' => Health::Success,
            '5' => Health::ServerError,
            _ => Health::GatewayError,
        };
        let noted = outcomes.chars().map(|c| self.tracker.observe(&uid(endpoint), health(c), now));
        let ejection = noted.collect::<Vec<_>>().pop().flatten();
        ejection.map(|ejection| ejection.until.duration_since(now).as_secs())
    }

    fn at(&self, seconds: u64) -> Instant {
        self.begun + Duration::from_secs(seconds)
    }

    fn is_ejected(&self, endpoint: usize, at: u64) -> bool {
        self.tracker.is_ejected(&uid(endpoint), self.at(at))
    }
}

#[test]
fn status_says_who_is_to_blame() {
    use Health::{GatewayError, ServerError, Success};
    for (status, want) in [
        (200, Success),
        (404, Success),
        (429, Success),
        (499, Success),
        (500, ServerError),
        (501, ServerError),
        (502, GatewayError),
        (503, GatewayError),
        (504, GatewayError),
        (505, ServerError),
        (599, ServerError),
    ] {
        assert_eq!(Health::of_status(status), want, "{status}");
    }
}

#[test]
fn failures_in_a_row_eject() {
    let gateway = Outlier { consecutive_errors: 0, consecutive_gateway_errors: 3, ..Outlier::default() };
    let both = Outlier { consecutive_gateway_errors: 3, ..Outlier::default() };
    let never = Outlier { consecutive_errors: 0, ..Outlier::default() };
    for (policy, outcomes, want) in [
        (Outlier::default(), "5555", None),
        (Outlier::default(), "55555", Some(30)),
        (Outlier::default(), "5g5g5", Some(30)),
        (Outlier::default(), "5555.5555", None),
        (gateway, "gg", None),
        (gateway, "ggg", Some(30)),
        (gateway, "gg5g", None),
        (gateway, "5555555", None),
        (both, "5g5gg", Some(30)),
        (both, "ggg", Some(30)),
        (never, "gggggggggg", None),
    ] {
        assert_eq!(Rig::new(policy, 4).note(0, outcomes, 0), want, "{outcomes} {policy:?}");
    }
}

#[test]
fn the_cause_is_told() {
    let policy = Outlier { consecutive_gateway_errors: 2, ..Outlier::default() };
    let mut rig = Rig::new(policy, 4);
    let now = rig.begun;
    rig.note(0, "g", 0);
    let ejection = rig.tracker.observe(&uid(0), Health::GatewayError, now).expect("two in a row");
    assert_eq!((ejection.endpoint, ejection.cause), (uid(0), Cause::ConsecutiveGateway));
}

#[test]
fn each_time_is_twice_as_long_up_to_the_most_and_time_in_service_makes_good() {
    let mut rig = Rig::new(Outlier::default(), 4);
    let mut at = 0;
    for want in [30, 60, 120, 240, 300, 300] {
        assert_eq!(rig.note(0, "55555", at), Some(want));
        assert!(rig.is_ejected(0, at + want - 1));
        at += want;
        assert!(!rig.is_ejected(0, at));
    }
    // An interval in service takes one ejection back; six of them all.
    for _ in 0..6 {
        at += 10;
        let now = rig.at(at);
        rig.tracker.compare(now);
    }
    assert_eq!(rig.note(0, "55555", at), Some(30));
}

#[test]
fn never_more_are_left_out_than_the_ceiling_allows() {
    for (endpoints, percent, want) in [
        (10, 50, 5),
        (5, 50, 2),
        (3, 50, 1),
        (2, 50, 1),
        (1, 50, 0),
        (1, 100, 1),
        (10, 10, 1),
        (9, 10, 0),
        (10, 0, 0),
        (4, 100, 4),
    ] {
        let policy = Outlier { ejected_percent_max: percent, ..Outlier::default() };
        let mut rig = Rig::new(policy, endpoints);
        let ejected = (0..endpoints).filter(|at| rig.note(*at, "55555", 0).is_some()).count();
        assert_eq!(ejected, want, "{endpoints} endpoints, {percent} %");
        assert_eq!(rig.tracker.ejected(rig.begun), want);
    }
}

#[test]
fn a_place_under_the_ceiling_is_free_again_when_one_comes_back() {
    let mut rig = Rig::new(Outlier::default(), 2);
    assert_eq!(rig.note(0, "55555", 0), Some(30));
    assert_eq!(rig.note(1, "55555", 0), None);
    // Its failures have not been forgotten.
    assert_eq!(rig.note(1, "5", 30), Some(30));
}

#[test]
fn rates_far_below_the_mean_eject() {
    let policy = Outlier { consecutive_errors: 0, success_deviation_percent: 190, ..Outlier::default() };
    let ejected = |policy: Outlier, rates: &[(u32, u32)]| {
        let mut rig = Rig::new(policy, rates.len());
        for (endpoint, (successes, failures)) in rates.iter().enumerate() {
            let outcomes = ".".repeat(*successes as usize) + &"5".repeat(*failures as usize);
            rig.note(endpoint, &outcomes, 1);
        }
        let early = rig.at(9);
        assert_eq!(rig.tracker.compare(early), [], "the interval has not passed");
        let now = rig.at(10);
        rig.tracker.compare(now).into_iter().map(|e| (e.endpoint.to_string(), e.cause)).collect::<Vec<_>>()
    };
    let bad = [("pod-0".to_owned(), Cause::SuccessRate)];
    let good = (100, 0);
    assert_eq!(ejected(policy, &[(50, 50), good, good, good, good]), bad);
    assert_eq!(ejected(policy, &[good; 5]), []);
    assert_eq!(ejected(policy, &[(50, 50); 5]), [], "all are alike");
    assert_eq!(ejected(policy, &[(50, 50), good, good, good]), [], "too few endpoints");
    assert_eq!(ejected(policy, &[(49, 50), good, good, good, good, good]), [], "too few requests");
    let off = Outlier { success_deviation_percent: 0, ..policy };
    assert_eq!(ejected(off, &[(50, 50), good, good, good, good]), []);
}

#[test]
fn endpoints_that_leave_are_forgotten_and_others_kept() {
    let mut rig = Rig::new(Outlier::default(), 3);
    assert_eq!(rig.note(0, "55555", 0), Some(30));
    rig.tracker.retain([uid(0), uid(2)].iter());
    assert!(rig.is_ejected(0, 1));
    rig.tracker.retain([uid(2)].iter());
    assert!(!rig.is_ejected(0, 1));
    assert_eq!(rig.note(0, "555555", 1), None, "nobody watches it");
}
