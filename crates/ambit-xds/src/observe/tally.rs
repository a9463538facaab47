//! Counts by pair, until they are taken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_types::{Identity, PolicyKey, Reason, Str};

use super::latency::{BUCKETS, bucket_of};
use crate::proto::ambit::observe::v1 as proto;

/// Pairs that one proxy tells apart; what goes beyond is counted as lost.
pub const PAIRS_MAX: usize = 10_000;
/// Share of the pairs that one source may have: who tries every port takes nobody else's place.
const SOURCE_SHARE: usize = 5;
/// Share of the pairs of callers outside the mesh that are told apart by address; the others are counted together.
const OUTSIDE_SHARE: usize = 10;

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Side {
    /// Its namespace; empty outside the mesh.
    pub namespace: Str,
    /// Name of its controller, else its own; empty outside the mesh, since addresses have no end.
    pub workload: Str,
    /// Its identity, only where one was established.
    pub identity: Option<Identity>,
    /// Its node; empty if that is not known.
    pub node: Str,
    /// Its address, only of a caller outside the mesh; none where callers are counted together.
    pub address: Option<IpAddr>,
}

/// One pod and one address among those that a pair counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// Name of the pod; empty outside the mesh.
    pub pod: Str,
    /// Its address and port; empty if not known.
    pub address: String,
}

/// What tells pairs apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who reports.
    pub reporter: proto::Reporter,
    /// Who connected.
    pub source: Side,
    /// Who was connected to.
    pub destination: Side,
    /// Host name of the service that was addressed; empty if it was a workload.
    pub service: Str,
    /// Port of whatever was addressed.
    pub port: u16,
    /// How it was carried.
    pub path: &'static str,
    /// Whether it was refused, or failed by more than its application's answer.
    pub is_denied: bool,
    /// What there is to say of it.
    pub reason: Option<Reason>,
    /// The policy that decided.
    pub policy: Option<PolicyKey>,
    /// Whom a waypoint says it connects for.
    pub client: Option<Identity>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: u64,
    ended: u64,
    cut: u64,
    open: u64,
    /// What was told of `open` before.
    told: u64,
    sent: u64,
    received: u64,
    requests: u64,
    failed: u64,
    latency: Option<Box<[u64; BUCKETS]>>,
}

/// The counts of one pair.
#[derive(Debug)]
pub struct Cell {
    ends: [Example; 2],
    counts: Mutex<Counts>,
}

impl Cell {
    fn new(ends: [Example; 2]) -> Self {
        Self { ends, counts: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was let in.
    pub fn open(&self) {
        let mut counts = self.lock();
        counts.opened += 1;
        counts.open += 1;
    }

    /// A connection that was let in is open no more.
    pub fn close(&self) {
        let mut counts = self.lock();
        counts.open = counts.open.saturating_sub(1);
    }

    /// A connection ended with the verdict and the code of this pair.
    pub fn end(&self) {
        self.lock().ended += 1;
    }

    /// A connection that had been let in was cut, with the verdict and the code of this pair.
    pub fn cut(&self) {
        let mut counts = self.lock();
        counts.ended += 1;
        counts.cut += 1;
    }

    /// The client sent and received bytes.
    pub fn moved(&self, sent: u64, received: u64) {
        let mut counts = self.lock();
        counts.sent += sent;
        counts.received += received;
    }

    /// A request was answered after so many microseconds, or failed.
    pub fn request(&self, us: u64, is_failed: bool) {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.failed += u64::from(is_failed);
        counts.latency.get_or_insert_default()[bucket_of(us)] += 1;
    }
}

/// The pairs, and who has how many of them.
#[derive(Debug, Default)]
struct Held {
    cells: HashMap<Key, Arc<Cell>>,
    sources: HashMap<Side, usize>,
    /// Pairs of callers that are told apart by address.
    outside: usize,
}

impl Held {
    fn note(&mut self, source: &Side) {
        *self.sources.entry(source.clone()).or_default() += 1;
        self.outside += usize::from(source.address.is_some());
    }
}

/// Counts by pair. Cheap to share.
#[derive(Debug)]
pub struct Tally {
    held: Mutex<Held>,
    pairs_max: usize,
    lost: AtomicU64,
    is_counting: AtomicBool,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(PAIRS_MAX)
    }
}

impl Tally {
    /// Counts at most `pairs_max` pairs at once; a fifth of them of one source, and a tenth of callers that are told
    /// apart by their address.
    pub fn new(pairs_max: usize) -> Self {
        Self {
            held: Mutex::default(),
            pairs_max,
            lost: AtomicU64::new(0),
            is_counting: AtomicBool::new(true),
        }
    }

    /// Counts or stops counting; what was counted and not taken is forgotten when it stops.
    pub fn count(&self, is_counting: bool) {
        self.is_counting.store(is_counting, Ordering::Relaxed);
        if !is_counting {
            *self.lock() = Held::default();
        }
    }

    /// The counts of a pair; `ends` gives an example of its two ends if it is new. None if nothing is counted, or if
    /// there are too many pairs, of all or of its source, which counts as lost. Callers outside the mesh beyond their
    /// bound are counted together, whatever their addresses.
    pub fn cell(&self, mut key: Key, ends: impl FnOnce() -> [Example; 2]) -> Option<Arc<Cell>> {
        if !self.is_counting.load(Ordering::Relaxed) {
            return None;
        }
        let mut held = self.lock();
        if let Some(cell) = held.cells.get(&key) {
            return Some(cell.clone());
        }
        if key.source.address.is_some() && held.outside >= share(self.pairs_max, OUTSIDE_SHARE) {
            key.source.address = None;
            if let Some(cell) = held.cells.get(&key) {
                return Some(cell.clone());
            }
        }
        let of_source = held.sources.get(&key.source).copied().unwrap_or(0);
        if held.cells.len() >= self.pairs_max || of_source >= share(self.pairs_max, SOURCE_SHARE) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let cell = Arc::new(Cell::new(ends()));
        held.note(&key.source);
        held.cells.insert(key, cell.clone());
        Some(cell)
    }

    /// The next summary tells of every pair that is open, for somebody who has heard none before.
    pub fn retell(&self) {
        self.lock().cells.values().for_each(|cell| cell.lock().told = 0);
    }

    /// Takes what was counted since it was taken before: pairs that did something, and how much was lost.
    pub fn take(&self) -> (Vec<proto::Pair>, u64) {
        let mut pairs = Vec::new();
        let mut held = self.lock();
        let mut kept = Held { cells: std::mem::take(&mut held.cells), ..Held::default() };
        let mut sources = Vec::new();
        kept.cells.retain(|key, cell| {
            let mut counts = cell.lock();
            let open = counts.open;
            let taken = std::mem::replace(&mut *counts, Counts { open, told: open, ..Counts::default() });
            drop(counts);
            let done = taken.opened + taken.ended + taken.requests + taken.sent + taken.received;
            if done > 0 || taken.told != open {
                pairs.push(pair(key, &cell.ends, taken));
            }
            // Whoever holds it still counts; the map is locked, so nobody new gets it meanwhile.
            let stays = open > 0 || Arc::strong_count(cell) > 1;
            if stays {
                sources.push(key.source.clone());
            }
            stays
        });
        sources.iter().for_each(|source| kept.note(source));
        *held = kept;
        drop(held);
        (pairs, self.lost.swap(0, Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part of so many, and never nothing.
fn share(whole: usize, parts: usize) -> usize {
    (whole / parts).max(1)
}

fn pair(key: &Key, [source, destination]: &[Example; 2], counts: Counts) -> proto::Pair {
    let text = |identity: &Option<Identity>| identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let end = |side: &Side, example: &Example| proto::End {
        namespace: side.namespace.to_string(),
        workload: side.workload.to_string(),
        identity: text(&side.identity),
        node: side.node.to_string(),
        pod: example.pod.to_string(),
        address: example.address.clone(),
    };
    proto::Pair {
        reporter: key.reporter.into(),
        source: Some(end(&key.source, source)),
        destination: Some(end(&key.destination, destination)),
        service: key.service.to_string(),
        port: u32::from(key.port),
        path: key.path.to_owned(),
        denied: key.is_denied,
        code: key.reason.map(Reason::code).unwrap_or_default().to_owned(),
        policy: key.policy.as_ref().map(ToString::to_string).unwrap_or_default(),
        client: text(&key.client),
        of_one_address: key.source.address.is_some(),
        opened: counts.opened,
        ended: counts.ended,
        open: counts.open,
        bytes_sent: counts.sent,
        bytes_received: counts.received,
        requests: counts.requests,
        failed: counts.failed,
        latency: counts.latency.map(|latency| latency.to_vec()).unwrap_or_default(),
        cut: counts.cut,
    }
}
