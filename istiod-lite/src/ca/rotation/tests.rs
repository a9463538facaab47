//! Steps one by one, and a mesh of proxies and replicas in which everything goes wrong while a rotation is under way.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::{Identity, Str};
use proptest::prelude::*;

use super::super::ledger::{CONFIRM, Ledger, Present, Required};
use super::{Facts, Phase, Refused, Ring, SKEW, State, Step, Times};

const TIMES: Times = Times::REPLICAS;
/// Life of leaves in the model; half of it passes before a renewal.
const LIFE: u64 = 600;

fn facts(now: u64, behind: usize) -> Facts {
    Facts { now, behind }
}

fn kept<I: std::fmt::Debug>(step: Step<I>) -> Ring<I> {
    match step {
        Step::Keep(ring) => ring,
        other => panic!("no step is due: {other:?}"),
    }
}

#[test]
fn a_rotation_goes_through_its_steps_and_ends_with_one_root() {
    let old = Ring::new('a');
    assert_eq!(old.step(facts(1_000, 0), TIMES), Step::Rest);
    let waiting = old.begin('b', 1_000, LIFE).unwrap();
    assert_eq!((waiting.signing, waiting.other, waiting.state.phase), ('a', Some('b'), Phase::Waiting));
    assert_eq!(waiting.step(facts(1_029, 0), TIMES), Step::Wait, "a replica may lag behind");
    assert_eq!(waiting.step(facts(1_100, 1), TIMES), Step::Wait, "one proxy is behind");
    let reissuing = kept(waiting.step(facts(1_030, 0), TIMES));
    assert_eq!((reissuing.signing, reissuing.other), ('b', Some('a')));
    assert_eq!(reissuing.state.phase, Phase::Reissuing);
    let done = kept(reissuing.step(facts(1_060, 0), TIMES));
    assert_eq!((done.signing, done.other, done.state.phase), ('b', None, Phase::Idle));
    assert_eq!(done.state.generation, 3);
    assert_eq!(done.begin('c', 2_000, 1).unwrap().state.life, LIFE, "longer leaves may still be out");
}

#[test]
fn who_stays_behind_is_nudged_and_waited_for_until_its_leaves_have_run_out() {
    let waiting = Ring::new('a').begin('b', 1_000, 3_600).unwrap();
    assert_eq!(waiting.step(facts(1_629, 1), TIMES), Step::Wait);
    let nudged = kept(waiting.step(facts(1_630, 1), TIMES));
    assert_eq!((nudged.state.nudge, nudged.state.nudged, nudged.state.generation), (1, 1_630, 1));
    assert_eq!(nudged.state.phase, Phase::Waiting);
    assert_eq!(nudged.step(facts(2_229, 1), TIMES), Step::Wait);
    assert_eq!(kept(nudged.step(facts(2_230, 1), TIMES)).state.nudge, 2);
    let end = 1_000 + TIMES.lag + 3_600 + SKEW;
    assert_eq!(nudged.outlived_at(TIMES), end);
    let state = State { nudged: end - 1, ..nudged.state };
    let nudged = Ring { state, ..nudged };
    assert_eq!(nudged.step(facts(end - 1, 1), TIMES), Step::Wait);
    assert_eq!(kept(nudged.step(facts(end, 1), TIMES)).state.phase, Phase::Reissuing);
}

#[test]
fn commands_are_refused_when_they_make_no_sense_and_abort_goes_back() {
    let idle = Ring::new('a');
    assert_eq!(idle.abort(1), Err(Refused::Idle));
    let waiting = idle.begin('b', 1_000, LIFE).unwrap();
    assert_eq!(waiting.begin('c', 1_001, LIFE), Err(Refused::UnderWay { phase: Phase::Waiting }));
    let back = waiting.abort(1_001).unwrap();
    assert_eq!((back.signing, back.other, back.state.phase), ('a', None, Phase::Idle));
    let reissuing = kept(waiting.step(facts(1_030, 0), TIMES));
    let back = reissuing.abort(1_031).unwrap();
    assert_eq!((back.signing, back.other, back.state.phase), ('a', Some('b'), Phase::Reissuing));
    assert_eq!(back.step(facts(1_040, 0), TIMES), Step::Wait, "leaves of the other issuer are out");
    let done = kept(back.step(facts(1_061, 0), TIMES));
    assert_eq!((done.signing, done.other), ('a', None));
}

#[test]
fn what_is_kept_survives_being_written_and_read_and_an_older_program() {
    let state = Ring::new('a').begin('b', 1_000, LIFE).unwrap().state;
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
}

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    /// A proxy asks now, because the published bundle changed.
    Ask(usize),
    /// The next answer to a proxy is lost.
    Lose(usize),
    /// A proxy goes to another replica.
    Move(usize),
    /// A proxy reaches nobody for so long.
    Deaf(usize, u64),
    /// A replica does not reach the API server, or does again.
    Cut(usize),
    Heal(usize),
    /// A replica is killed and starts again.
    Kill(usize),
    Begin,
    Abort,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_u64..200).prop_map(Event::Pass),
        6 => (0..PROXIES).prop_map(Event::Ask),
        2 => (0..PROXIES).prop_map(Event::Lose),
        2 => (0..PROXIES).prop_map(Event::Move),
        1 => (0..PROXIES, 1_u64..400).prop_map(|(proxy, long)| Event::Deaf(proxy, long)),
        1 => (0..REPLICAS).prop_map(Event::Cut),
        2 => (0..REPLICAS).prop_map(Event::Heal),
        2 => (0..REPLICAS).prop_map(Event::Kill),
        2 => Just(Event::Begin),
        1 => Just(Event::Abort),
    ]
}

const PROXIES: usize = 3;
const REPLICAS: usize = 2;
/// A replica that could not read for so long signs nothing.
const FRESH: u64 = 20;
/// A stream that is dead is noticed after so long.
const NOTICED: u64 = 40;
/// From one attempt of a proxy to the next, at most.
const RETRY: u64 = 76;

#[derive(Debug, Default)]
struct Proxy {
    trusts: BTreeSet<u32>,
    /// Issuer, and when it runs out.
    leaf: Option<(u32, u64)>,
    asks_at: u64,
    asks: usize,
    loses: bool,
    deaf_until: u64,
    /// When it could be heard again after the last outage that was noticed.
    present_since: u64,
    absent_from: u64,
}

struct Replica {
    view: Option<(Ring<u32>, u64)>,
    read_at: u64,
    ledger: Ledger,
    cut: bool,
}

struct Mesh {
    now: u64,
    kept: Ring<u32>,
    version: u64,
    roots: u32,
    proxies: Vec<Proxy>,
    replicas: Vec<Replica>,
    /// What replicas told: generation and who has it. Survives them.
    told: Vec<BTreeMap<u64, BTreeSet<Str>>>,
}

fn name(proxy: usize) -> Str {
    Str::from(format!("n{proxy}"))
}

fn identity() -> Identity {
    Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap()
}

impl Mesh {
    fn new() -> Self {
        let replica = || Replica { view: None, read_at: 0, ledger: Ledger::default(), cut: false };
        let proxy = |n: usize| Proxy { asks_at: 10_000, asks: n % REPLICAS, ..Proxy::default() };
        let mut mesh = Self {
            now: 10_000,
            kept: Ring::new(0),
            version: 0,
            roots: 0,
            proxies: (0..PROXIES).map(proxy).collect(),
            replicas: (0..REPLICAS).map(|_| replica()).collect(),
            told: vec![BTreeMap::new(); REPLICAS],
        };
        mesh.kept.state.life = LIFE;
        mesh.second();
        mesh
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Pass(seconds) => (0..seconds).for_each(|_| self.second()),
            Event::Ask(proxy) => self.proxies[proxy].asks_at = self.now,
            Event::Lose(proxy) => self.proxies[proxy].loses = true,
            Event::Move(proxy) => self.proxies[proxy].asks = (self.proxies[proxy].asks + 1) % REPLICAS,
            Event::Deaf(proxy, long) => {
                let proxy = &mut self.proxies[proxy];
                // Two outages in a row that nobody notices are one.
                if self.now > proxy.deaf_until + CONFIRM {
                    proxy.absent_from = self.now;
                    proxy.deaf_until = self.now + long;
                }
            }
            Event::Cut(replica) => self.replicas[replica].cut = true,
            Event::Heal(replica) => self.replicas[replica].cut = false,
            Event::Kill(replica) => {
                let replica = &mut self.replicas[replica];
                (replica.view, replica.ledger) = (None, Ledger::default());
            }
            Event::Begin => {
                let (fresh, now) = (self.roots + 1, self.now);
                if let Ok(next) = self.kept.begin(fresh, now, LIFE) {
                    self.roots = fresh;
                    self.keep(next, self.version);
                }
            }
            Event::Abort => {
                if let Ok(next) = self.kept.abort(self.now) {
                    self.keep(next, self.version);
                }
            }
        }
        self.check();
    }

    /// A change of what was read as `version`; whether it was kept.
    fn keep(&mut self, next: Ring<u32>, version: u64) -> bool {
        let first = self.version == version;
        if first {
            (self.kept, self.version) = (next, version + 1);
        }
        first
    }

    fn second(&mut self) {
        self.now += 1;
        for replica in 0..REPLICAS {
            self.follow(replica);
        }
        for proxy in 0..PROXIES {
            if self.proxies[proxy].asks_at <= self.now {
                self.ask(proxy);
            }
        }
        self.check();
    }

    fn ask(&mut self, at: usize) {
        let (now, proxy) = (self.now, &mut self.proxies[at]);
        proxy.asks_at = now + RETRY;
        if now < proxy.deaf_until {
            return;
        }
        let replica = &mut self.replicas[proxy.asks];
        let Some((ring, _)) = &replica.view else { return };
        let state = ring.state;
        if state.phase != Phase::Idle {
            replica.ledger.asked(&name(at), &identity(), now);
        }
        if now - replica.read_at > FRESH {
            return;
        }
        if state.phase != Phase::Idle {
            replica.ledger.answered(&name(at), &identity(), state.counting(now, TIMES), now);
        }
        if std::mem::take(&mut proxy.loses) {
            return;
        }
        proxy.leaf = Some((ring.signing, now + LIFE));
        proxy.trusts = [ring.signing].into_iter().chain(ring.other).collect();
        proxy.asks_at = now + LIFE / 2;
    }

    fn follow(&mut self, at: usize) {
        let (now, generation_now) = (self.now, self.kept.state.generation);
        let replica = &mut self.replicas[at];
        if replica.cut {
            return;
        }
        // Read every 5 s, so what is stepped on may be old.
        if replica.view.is_none() || (now + at as u64).is_multiple_of(5) {
            (replica.view, replica.read_at) = (Some((self.kept.clone(), self.version)), now);
        }
        let Some((ring, version)) = replica.view.clone() else { return };
        if ring.state.phase == Phase::Idle {
            replica.ledger.clear();
            return;
        }
        let required: Required = (0..PROXIES).map(|n| (name(n), [identity()].into())).collect();
        let mut present = Present::new();
        for (n, proxy) in self.proxies.iter_mut().enumerate() {
            let unheard = now < proxy.deaf_until && now >= proxy.absent_from + NOTICED;
            if unheard {
                proxy.present_since = proxy.deaf_until;
            } else {
                present.insert(name(n), proxy.present_since);
            }
        }
        let generation = ring.state.generation;
        let covered = replica.ledger.covered((&required, &present), generation, now, CONFIRM);
        self.told[at].entry(generation).or_default().extend(covered);
        let has = |proxy: &Str| {
            self.told.iter().any(|told| told.range(generation..).any(|(_, names)| names.contains(proxy)))
        };
        let behind = required.keys().filter(|proxy| !has(proxy)).count();
        if let Step::Keep(next) = ring.step(facts(now, behind), TIMES)
            && self.keep(next.clone(), version)
        {
            assert!(generation >= generation_now, "a step on what is not kept any more");
            let replica = &mut self.replicas[at];
            (replica.view, replica.read_at) = (Some((next, self.version)), now);
        }
    }

    /// Every leaf in use chains to a root that everybody trusts who uses one.
    fn check(&self) {
        let valid = |proxy: &&Proxy| proxy.leaf.is_some_and(|(_, ends)| ends > self.now);
        for one in self.proxies.iter().filter(valid) {
            let Some((root, _)) = one.leaf else { continue };
            for other in self.proxies.iter().filter(valid) {
                assert!(
                    other.trusts.contains(&root),
                    "at {}: a leaf of root {root} meets trust in {:?}; {:?}",
                    self.now,
                    other.trusts,
                    self.kept
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Answers are lost, proxies and replicas are cut off and killed, commands come at any time: no two proxies ever
    /// refuse each other, and in the end one root is left.
    #[test]
    fn no_rotation_cuts_anybody_off_and_every_one_ends(events in prop::collection::vec(event(), 1..60)) {
        let mut mesh = Mesh::new();
        for event in &events {
            mesh.happens(event);
        }
        for replica in 0..REPLICAS {
            mesh.happens(&Event::Heal(replica));
        }
        let phases = 3;
        mesh.happens(&Event::Pass(phases * (LIFE + TIMES.lag + SKEW + 400)));
        prop_assert_eq!(mesh.kept.state.phase, Phase::Idle);
        prop_assert_eq!(mesh.kept.other, None);
        for proxy in &mesh.proxies {
            prop_assert_eq!(proxy.leaf.map(|(root, _)| root), Some(mesh.kept.signing));
        }
    }
}

#[test]
fn a_rotation_that_is_not_disturbed_is_over_long_before_leaves_run_out() {
    let mut mesh = Mesh::new();
    mesh.happens(&Event::Begin);
    for _ in 0..2 {
        mesh.happens(&Event::Pass(TIMES.lag + 5));
        (0..PROXIES).for_each(|proxy| mesh.happens(&Event::Ask(proxy)));
        mesh.happens(&Event::Pass(CONFIRM + 6));
    }
    assert_eq!((mesh.kept.state.phase, mesh.kept.signing, mesh.kept.other), (Phase::Idle, 1, None));
    assert!(mesh.now < 10_000 + LIFE);
}

/// A replica that has not heard of a new generation answers a proxy after one that has. The earlier answer must not
/// count: the proxy forgot that bundle again.
#[test]
fn an_answer_counts_only_once_no_replica_can_take_it_back() {
    let mut mesh = Mesh::new();
    mesh.happens(&Event::Pass(10));
    mesh.happens(&Event::Cut(1));
    mesh.happens(&Event::Begin);
    mesh.happens(&Event::Pass(6));
    mesh.proxies[0].asks = 0;
    mesh.happens(&Event::Ask(0));
    mesh.happens(&Event::Pass(1));
    assert!(mesh.proxies[0].trusts.contains(&1));
    mesh.proxies[0].asks = 1;
    mesh.happens(&Event::Ask(0));
    mesh.happens(&Event::Pass(1));
    assert!(!mesh.proxies[0].trusts.contains(&1), "the replica that lags has taken it back");
    for proxy in 0..PROXIES {
        mesh.proxies[proxy].asks = 0;
    }
    mesh.happens(&Event::Pass(TIMES.lag));
    (1..PROXIES).for_each(|proxy| mesh.happens(&Event::Ask(proxy)));
    mesh.happens(&Event::Pass(CONFIRM + 10));
    assert_eq!(mesh.kept.state.phase, Phase::Waiting, "one proxy is behind");
    mesh.happens(&Event::Ask(0));
    mesh.happens(&Event::Pass(CONFIRM + 10));
    assert_eq!(mesh.kept.state.phase, Phase::Reissuing);
}

#[test]
fn who_cannot_read_stops_signing_before_its_answers_would_count() {
    for lag in [6, 9, 30, 600] {
        let times = Times { lag, nudge: 600 };
        assert!(times.fresh() < lag && times.fresh() <= 20, "lag {lag}: {}", times.fresh());
        assert!(times.reading() * 3 <= times.fresh(), "lag {lag}: {}", times.reading());
    }
    assert_eq!((TIMES.fresh(), TIMES.reading()), (20, 5));
    assert_eq!((Times::ALONE.fresh(), Times::ALONE.reading()), (20, 5));
}

#[test]
fn the_bundle_of_the_step_before_is_known() {
    let waiting = Ring::new('a').begin('b', 1_000, LIFE).unwrap();
    let before = waiting.before();
    assert_eq!((before.signing, before.other, before.state.generation), ('a', None, 0));
    let reissuing = kept(waiting.step(facts(1_030, 0), TIMES));
    let before = reissuing.before();
    assert_eq!((before.signing, before.other, before.state.generation), ('a', Some('b'), 1));
}

#[test]
fn resuming_nudges_whom_a_rotation_waits_for_and_nothing_else() {
    let idle = Ring::new('a');
    assert_eq!(idle.resume(1_000), Err(Refused::Idle));
    let waiting = idle.begin('b', 1_000, LIFE).unwrap();
    let resumed = waiting.resume(1_040).unwrap();
    assert_eq!((resumed.state.nudge, resumed.state.nudged), (1, 1_040));
    assert_eq!((resumed.state.generation, resumed.state.phase), (1, Phase::Waiting));
    assert_eq!((resumed.signing, resumed.other), ('a', Some('b')));
}
