//! One look at a rotation after the other: who is behind, what other replicas know, and the step that is due.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::Str;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Keeper, Seen, Store, full};
use crate::ca::callers;
use crate::ca::ledger::Present;
use crate::ca::material::{Issuing, Owner};
use crate::ca::rotation::{Facts, Phase, Ring, State, Step, Times};
use crate::ca::store;

/// Between two readings after one that failed.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// What a replica says of open streams counts for so long, in seconds.
const TOLD: u64 = 30;
/// Names of proxies that are behind that are kept for those who ask.
const BEHIND_MAX: usize = 50;
/// Where a program that is alone keeps what it knows, beside its keys.
const PROGRESS: &str = "rotation-progress.json";

/// What a replica knows of a rotation and tells the others.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Of which generation.
    generation: u64,
    /// When, in seconds since 1970.
    at: u64,
    /// Proxies that have it.
    covered: BTreeSet<String>,
    /// Proxies with a stream, and since when.
    present: BTreeMap<String, u64>,
}

/// What the follower remembers from one look to the next.
pub(super) struct Round {
    present: Present,
    /// When everything was read last, and when that is due again.
    read: Instant,
    pause: Duration,
    /// Whether we led at the last look.
    led: bool,
    /// Who led before us took with it what it knew of answers: proxies are to ask once more.
    ask_anew: bool,
    own: Progress,
    others: Vec<Progress>,
}

impl Round {
    /// Begins with what this program knew before it was ended.
    pub(super) fn new(store: &Store) -> Self {
        let others = match store {
            Store::Disk(folder) => remembered(&folder.join(PROGRESS)),
            Store::Secret(_) => Vec::new(),
        };
        Self {
            present: Present::new(),
            read: clock::monotonic(),
            pause: READ_AGAIN,
            led: false,
            ask_anew: false,
            own: Progress::default(),
            others,
        }
    }

    /// Looks once, and takes the step that is due if we lead.
    pub(super) async fn look(&mut self, keeper: &Keeper, seen: &Seen, leads: bool) {
        let due = clock::monotonic().saturating_duration_since(self.read) >= self.pause;
        let mut was_read = false;
        if due {
            was_read = keeper.reload().await;
            self.read = clock::monotonic();
            let usual = Duration::from_secs(keeper.settings.times.reading());
            self.pause = if was_read { usual } else { READ_AGAIN };
        }
        self.ask_anew |= leads && !self.led;
        self.led = leads;
        let now = clock::unix_seconds();
        keeper.publish(now);
        let (ring, owner) = {
            let known = keeper.known();
            (known.ring.clone(), known.owner)
        };
        if ring.state.phase == Phase::Idle || owner == Owner::Plugged {
            self.rest(keeper);
            return;
        }
        let connected = seen.present();
        self.present.retain(|proxy, _| connected.contains(proxy));
        for proxy in connected {
            self.present.entry(proxy).or_insert(now);
        }
        let facts = self.facts(keeper, seen, ring.state, now);
        if was_read {
            self.exchange(keeper).await;
        }
        let Some(next) = self.next(&ring, facts, keeper.settings.times).filter(|_| leads) else { return };
        let State { generation, phase, nudge, .. } = next.state;
        info!(generation, phase = phase.as_str(), nudge, behind = facts.behind, "the rotation goes on");
        if let Err(problem) = keeper.keep(&next, None).await {
            // Perhaps another leader took it; what is kept decides.
            keeper.tell(Some(problem));
            return;
        }
        if phase == Phase::Idle {
            clear(keeper).await;
        }
    }

    /// What is to be kept next, if it is time.
    fn next(&mut self, ring: &Ring<Issuing>, facts: Facts, times: Times) -> Option<Ring<Issuing>> {
        let settled = ring.state.counting(facts.now, times) == ring.state.generation;
        match ring.step(facts, times) {
            Step::Keep(next) => {
                self.ask_anew = false;
                Some(next)
            }
            Step::Wait if settled && std::mem::take(&mut self.ask_anew) => Some(ring.nudged(facts.now)),
            Step::Wait | Step::Rest => None,
        }
    }

    fn rest(&mut self, keeper: &Keeper) {
        self.ask_anew = false;
        self.present.clear();
        self.others.clear();
        self.own = Progress::default();
        keeper.signer.ledger().clear();
        let mut known = keeper.known();
        (known.behind, known.behind_count, known.required_count) = (Vec::new(), 0, 0);
    }

    /// Who is behind, as far as this replica and what it heard of others know.
    fn facts(&mut self, keeper: &Keeper, seen: &Seen, state: State, now: u64) -> Facts {
        let (generation, confirm) = (state.generation, keeper.settings.confirm);
        let required = callers::required(&seen.world.index());
        let mut present = self.present.clone();
        for other in self.others.iter().filter(|other| now.saturating_sub(other.at) <= TOLD) {
            for (proxy, since) in &other.present {
                let held = present.entry(Str::from(proxy.as_str())).or_insert(*since);
                *held = (*held).min(*since);
            }
        }
        let covered = {
            let mut ledger = keeper.signer.ledger();
            ledger.prune(&required, now, confirm);
            ledger.covered((&required, &present), generation, now, confirm)
        };
        let told = |proxy: &Str| {
            self.others.iter().any(|one| one.generation >= generation && one.covered.contains(&**proxy))
        };
        let is_behind = |proxy: &&Str| !covered.contains(*proxy) && !told(proxy);
        let behind: Vec<Str> = required.keys().filter(is_behind).cloned().collect();
        let count = behind.len();
        metrics::gauge!("ambit_ca_proxies_behind").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        let mut known = keeper.known();
        (known.behind_count, known.required_count) = (count, required.len());
        known.behind = behind.into_iter().take(BEHIND_MAX).collect();
        drop(known);
        // What we knew before we were ended, and what is true for good, is not forgotten.
        let before = self.others.iter().chain([&self.own]).filter(|one| one.generation >= generation);
        let kept = before.flat_map(|one| one.covered.iter().cloned());
        let covered = covered.iter().map(|name| (**name).to_owned()).chain(kept).collect();
        let present = self.present.iter().map(|(name, since)| ((**name).to_owned(), *since)).collect();
        self.own = Progress { generation, at: now, covered, present };
        Facts { now, behind: count }
    }

    /// Tells the other replicas what we know, and hears what they do.
    async fn exchange(&mut self, keeper: &Keeper) {
        let text = match serde_json::to_string(&self.own) {
            Ok(text) => text,
            Err(error) => return warn!(%error, "what is known of the rotation cannot be written"),
        };
        match &keeper.store {
            Store::Disk(folder) => {
                if let Err(error) = store::replace(&folder.join(PROGRESS), text.as_bytes()) {
                    warn!(error = full(&error), "what is known of the rotation could not be written");
                }
            }
            Store::Secret(secrets) => {
                if let Err(error) = secrets.write_progress(&text).await {
                    warn!(error = full(&error), "the other replicas could not be told of the rotation");
                }
                match secrets.progress().await {
                    Ok(told) => {
                        let of_us = secrets.replica();
                        let read = told.iter().filter_map(|(name, text)| {
                            let mut one: Progress = serde_json::from_str(text).ok()?;
                            if name == of_us {
                                one.present.clear();
                            }
                            Some(one)
                        });
                        self.others = read.collect();
                    }
                    Err(error) => warn!(error = full(&error), "what other replicas know could not be read"),
                }
            }
        }
    }
}

/// What was written before the program was ended; who had a stream then may have none now.
fn remembered(path: &PathBuf) -> Vec<Progress> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    match serde_json::from_str::<Progress>(&text) {
        Ok(progress) => vec![Progress { present: BTreeMap::new(), ..progress }],
        Err(error) => {
            warn!(%error, "what was known of the rotation cannot be read; proxies are asked anew");
            Vec::new()
        }
    }
}

/// The rotation is over.
async fn clear(keeper: &Keeper) {
    match &keeper.store {
        Store::Disk(folder) => match std::fs::remove_file(folder.join(PROGRESS)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(%error, "what was known of the rotation could not be removed");
            }
            Ok(()) | Err(_) => {}
        },
        Store::Secret(secrets) => {
            if let Err(error) = secrets.clear_progress().await {
                warn!(error = full(&error), "what replicas wrote of the rotation could not be removed");
            }
        }
    }
}
