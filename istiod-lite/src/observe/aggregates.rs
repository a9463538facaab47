//! Counts of pairs over a day: fine ones of the last minute, one a minute for an hour, one in ten minutes beyond.
//!
//! Memory is bounded by pairs and by counts. Beyond either bound refused pairs are forgotten first, and of each kind those
//! that were silent for longest; how many is told. Who tries every port does not get that far: a source that has all the
//! pairs that one may have makes room among its own.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use ambit_xds::observe::BUCKETS;
use ambit_xds::proto::ambit::observe::v1::{End, Pair, Reporter, Summary};

#[cfg(test)]
mod tests;

/// Longest name that a proxy may use, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The most that one count of one summary may say: far more than anything can do in its time, and far from overflowing.
const COUNT_MAX: u64 = 1 << 40;
/// Share of the pairs that one source may have.
const SOURCE_SHARE: usize = 20;
/// Share of the pairs of callers outside the mesh that are told apart by address; the others are counted together.
const OUTSIDE_SHARE: usize = 5;

/// Pairs with open connections that one proxy may tell of: what it tells of at all.
const OPEN_MAX: usize = 10_000;

/// Width of counts in seconds, and how many of them are kept.
const LEVELS: [(u64, usize); 3] = [(5, 14), (60, 61), (600, 145)];
/// Seconds over which the rates of recent windows are taken.
pub(super) const RATE_SECONDS: u64 = 30;
/// The longest window whose rates are recent ones.
const RECENT_SECONDS: u64 = 300;

/// Bounds of the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) pairs: usize,
    /// About 100 bytes each.
    pub(super) counts: usize,
}

impl Bounds {
    fn share(self, parts: usize) -> usize {
        (self.pairs / parts).max(1)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { pairs: 50_000, counts: 1_000_000 }
    }
}

/// One end as pairs are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct EndName {
    pub(super) namespace: String,
    /// Empty outside the mesh.
    pub(super) workload: String,
}

/// Who calls, as pairs are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct CallerName {
    pub(super) end: EndName,
    /// Proven; empty if none was. With it a pair says who called when the pod is gone.
    pub(super) identity: String,
    /// Only of a caller outside the mesh; empty where such are counted together.
    pub(super) address: String,
}

/// What tells pairs apart. Those of one caller stand together in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct PairName {
    pub(super) source: CallerName,
    pub(super) destination: EndName,
    pub(super) service: String,
    pub(super) port: u16,
    pub(super) reporter: Reporter,
    pub(super) path: String,
    pub(super) is_denied: bool,
    pub(super) code: String,
    pub(super) policy: String,
    pub(super) client: String,
}

/// What is known of an end beside its name; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct EndFacts {
    pub(super) identity: String,
    pub(super) node: String,
    pub(super) pod: String,
    pub(super) address: String,
}

/// What was counted in some time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) ended: u64,
    /// Of those that ended, how many had been let in before.
    pub(super) cut: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Empty, or one for each bucket.
    pub(super) latency: Vec<u64>,
}

impl Counts {
    fn of(pair: &Pair) -> Self {
        let most = |count: u64| count.min(COUNT_MAX);
        let is_whole = pair.latency.len() == BUCKETS;
        let latency = if is_whole { pair.latency.iter().copied().map(most).collect() } else { Vec::new() };
        Self {
            opened: most(pair.opened),
            ended: most(pair.ended),
            cut: most(pair.cut).min(most(pair.ended)),
            sent: most(pair.bytes_sent),
            received: most(pair.bytes_received),
            requests: most(pair.requests),
            failed: most(pair.failed),
            latency,
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        let pairs = [
            (&mut self.opened, more.opened),
            (&mut self.ended, more.ended),
            (&mut self.cut, more.cut),
            (&mut self.sent, more.sent),
            (&mut self.received, more.received),
            (&mut self.requests, more.requests),
            (&mut self.failed, more.failed),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
        if !more.latency.is_empty() {
            self.latency.resize(BUCKETS, 0);
            for (sum, more) in self.latency.iter_mut().zip(&more.latency) {
                *sum = sum.saturating_add(*more);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opened + self.ended + self.sent + self.received + self.requests == 0
    }
}

/// Whether it was let in, and when it was last seen.
type Worth = (bool, u64);

/// Pairs in the order in which they are forgotten.
fn worst_first(mut pairs: Vec<(Worth, Arc<PairName>)>) -> Vec<Arc<PairName>> {
    pairs.sort();
    pairs.into_iter().map(|(_, name)| name).collect()
}

#[derive(Debug, Default)]
struct Level(VecDeque<(u64, Counts)>);

#[derive(Debug, Default)]
struct Series {
    levels: [Level; LEVELS.len()],
    ends: [EndFacts; 2],
    last_seen: u64,
}

impl Series {
    /// Adds counts at a time; by how much the series grew.
    fn add(&mut self, counts: &Counts, now: u64) -> isize {
        let mut grown = 0;
        for (Level(kept), (width, keep)) in self.levels.iter_mut().zip(LEVELS) {
            let slot = now / width;
            match kept.back_mut() {
                // A clock that was set back adds to the newest.
                Some((newest, sum)) if *newest >= slot => sum.add(counts),
                Some(_) | None => {
                    kept.push_back((slot, counts.clone()));
                    grown += 1;
                }
            }
            while kept.front().is_some_and(|(oldest, _)| oldest + keep as u64 <= slot) {
                kept.pop_front();
                grown -= 1;
            }
        }
        grown
    }

    /// What is refused is worth less than what goes on, and what was silent for long less than what was not.
    fn worth(&self, name: &PairName) -> Worth {
        (!name.is_denied, self.last_seen)
    }

    fn held(&self) -> usize {
        self.levels.iter().map(|Level(kept)| kept.len()).sum()
    }

    /// The sum since a time.
    fn since(&self, from: u64, now: u64) -> Counts {
        let seconds = now.saturating_sub(from);
        let fits = |(width, keep): &(u64, usize)| width * (*keep as u64 - 1) >= seconds;
        let level = LEVELS.iter().position(fits).unwrap_or(LEVELS.len() - 1);
        let (width, _) = LEVELS[level];
        let mut sum = Counts::default();
        let Level(kept) = &self.levels[level];
        kept.iter().filter(|(slot, _)| (slot + 1) * width > from).for_each(|(_, counts)| sum.add(counts));
        sum
    }
}

/// A pair in a window.
#[derive(Debug, Clone)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a PairName,
    /// Source and destination.
    pub(super) ends: &'a [EndFacts; 2],
    /// In the whole window.
    pub(super) counts: Counts,
    /// In the part of it that rates are taken over.
    pub(super) recent: Counts,
    /// Connections that are open now.
    pub(super) open: u64,
    /// Seconds since 1970.
    pub(super) last_seen: u64,
}

/// Counts of all pairs.
#[derive(Debug, Default)]
pub(super) struct Aggregates {
    bounds: Bounds,
    pairs: BTreeMap<Arc<PairName>, Series>,
    /// How many of them each caller has.
    callers: BTreeMap<CallerName, usize>,
    /// How many of them are of callers that are told apart by address.
    outside: usize,
    held: usize,
    /// Connections that are open now, by who attends.
    open: BTreeMap<u64, BTreeMap<Arc<PairName>, u64>>,
    /// Since when anything is told of, in seconds since 1970; none before the first summary.
    pub(super) began: Option<u64>,
    /// Connections and requests of which only the number is known.
    pub(super) lost: u64,
    /// Pairs that were forgotten for others.
    pub(super) forgotten: u64,
}

impl Aggregates {
    /// Nothing yet, within other bounds.
    #[cfg(test)]
    pub(super) fn within(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Counts a summary of who attends under a number, at a time in seconds since 1970. What does not fit what it may
    /// tell of has been taken out: see [`super::places`].
    pub(super) fn take(&mut self, attends: u64, summary: Summary, now: u64) {
        self.began.get_or_insert_with(|| now.saturating_sub(summary.covers_ms.min(60_000) / 1000));
        self.lost = self.lost.saturating_add(summary.lost);
        for pair in summary.pairs {
            self.count(attends, pair, now);
        }
        self.trim();
    }

    /// Connections and requests that were told of and do not count.
    pub(super) fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    fn count(&mut self, attends: u64, pair: Pair, now: u64) {
        let (counts, open) = (Counts::of(&pair), pair.open.min(COUNT_MAX));
        let (name, ends) = split(pair);
        let name = self.known(name);
        let series = self.pairs.entry(name.clone()).or_default();
        series.ends = ends;
        if !counts.is_empty() {
            series.last_seen = now;
            self.held = self.held.saturating_add_signed(series.add(&counts, now));
        }
        let of_proxy = self.open.entry(attends).or_default();
        if open > 0 && (of_proxy.len() < OPEN_MAX || of_proxy.contains_key(&name)) {
            of_proxy.insert(name, open);
        } else {
            of_proxy.remove(&name);
        }
    }

    /// The name of a pair that is there, or is about to be.
    fn known(&mut self, mut name: PairName) -> Arc<PairName> {
        if let Some((known, _)) = self.pairs.get_key_value(&name) {
            return known.clone();
        }
        if !name.source.address.is_empty() && self.outside >= self.bounds.share(OUTSIDE_SHARE) {
            name.source.address.clear();
            if let Some((known, _)) = self.pairs.get_key_value(&name) {
                return known.clone();
            }
        }
        self.make_room(&name.source);
        *self.callers.entry(name.source.clone()).or_default() += 1;
        self.outside += usize::from(!name.source.address.is_empty());
        Arc::new(name)
    }

    /// A caller that has all the pairs that one may have loses a tenth of its own.
    fn make_room(&mut self, caller: &CallerName) {
        let most = self.bounds.share(SOURCE_SHARE);
        if self.callers.get(caller).is_none_or(|own| *own < most) {
            return;
        }
        let first = PairName { source: caller.clone(), ..PairName::default() };
        let own = self.pairs.range::<PairName, _>(first..).take_while(|(name, _)| name.source == *caller);
        let own = own.map(|(name, series)| (series.worth(name), name.clone())).collect();
        for name in worst_first(own).into_iter().take((most / 10).max(1)) {
            self.forget(&name);
        }
    }

    /// Who attended under a number does so no more: what it had open is not known.
    pub(super) fn gone(&mut self, attends: u64) {
        self.open.remove(&attends);
    }

    /// Forgets a tenth where there is too much.
    fn trim(&mut self) {
        if self.pairs.len() <= self.bounds.pairs && self.held <= self.bounds.counts {
            return;
        }
        let all = self.pairs.iter().map(|(name, series)| (series.worth(name), name.clone())).collect();
        let enough = (self.bounds.pairs / 10 * 9, self.bounds.counts / 10 * 9);
        for name in worst_first(all) {
            if self.pairs.len() <= enough.0 && self.held <= enough.1 {
                break;
            }
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &PairName) {
        let Some(series) = self.pairs.remove(name) else { return };
        self.held = self.held.saturating_sub(series.held());
        self.outside -= usize::from(!name.source.address.is_empty());
        if let Some(own) = self.callers.get_mut(&name.source) {
            *own -= 1;
            if *own == 0 {
                self.callers.remove(&name.source);
            }
        }
        self.forgotten += 1;
    }

    /// Seconds that the rates of a window are taken over: the last ones of a recent window, else all of it, and never
    /// more than anything was heard for.
    pub(super) fn rate_seconds(&self, window: u64, now: u64) -> u64 {
        let from = self.began.map_or(now, |began| began.max(rates_from(window, now)));
        now.saturating_sub(from).max(1)
    }

    /// Pairs that did something in the last `window` seconds, or are open.
    pub(super) fn seen(&self, window: u64, now: u64) -> impl Iterator<Item = Seen<'_>> {
        let mut open: BTreeMap<&PairName, u64> = BTreeMap::new();
        for (name, count) in self.open.values().flatten() {
            *open.entry(name).or_default() += count;
        }
        let (from, recent) = (now.saturating_sub(window), rates_from(window, now));
        self.pairs.iter().filter_map(move |(name, series)| {
            let open = open.get(&**name).copied().unwrap_or(0);
            let is_silent = series.last_seen < from;
            let counts = if is_silent { Counts::default() } else { series.since(from, now) };
            let is_meant = open > 0 || !counts.is_empty();
            is_meant.then(|| Seen {
                name,
                ends: &series.ends,
                recent: if is_silent { Counts::default() } else { series.since(recent, now) },
                counts,
                open,
                last_seen: series.last_seen,
            })
        })
    }
}

/// Since when the rates of a window are taken: a border between two fine counts, of a recent one.
fn rates_from(window: u64, now: u64) -> u64 {
    let [(width, _), ..] = LEVELS;
    match window <= RECENT_SECONDS {
        true => now.saturating_sub(window.min(RATE_SECONDS)) / width * width,
        false => now.saturating_sub(window),
    }
}

/// What tells a pair apart, and the rest of what is known of its ends.
fn split(pair: Pair) -> (PairName, [EndFacts; 2]) {
    let reporter = pair.reporter();
    let end = |end: Option<End>| {
        let End { namespace, workload, identity, node, pod, address } = end.unwrap_or_default();
        let facts =
            EndFacts { identity: cut(identity), node: cut(node), pod: cut(pod), address: cut(address) };
        (EndName { namespace: cut(namespace), workload: cut(workload) }, facts)
    };
    let (source, source_facts) = end(pair.source);
    let (destination, destination_facts) = end(pair.destination);
    let is_outside = source.workload.is_empty() && source_facts.identity.is_empty();
    let address = source_facts.address.parse::<SocketAddr>().ok();
    let address = address.filter(|_| is_outside && pair.of_one_address);
    let name = PairName {
        source: CallerName {
            end: source,
            identity: source_facts.identity.clone(),
            address: address.map(|at| at.ip().to_canonical().to_string()).unwrap_or_default(),
        },
        destination,
        service: cut(pair.service),
        port: u16::try_from(pair.port).unwrap_or(0),
        reporter,
        path: cut(pair.path),
        is_denied: pair.denied,
        code: cut(pair.code),
        policy: cut(pair.policy),
        client: cut(pair.client),
    };
    (name, [source_facts, destination_facts])
}

/// A text that a proxy told, not longer than it may be.
pub(super) fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
