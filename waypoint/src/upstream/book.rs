//! All destinations that are known, and the one state that they go by.
//!
//! States come in order: destinations follow what was published last, whoever asks and by whatever state its request
//! ends. Services are as many as the mesh has. Of workloads addressed by themselves the client chooses the port, so
//! their number is bounded; what goes beyond it is made for one request and forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use ambit_runtime::{clock, tasks};
use arc_swap::ArcSwap;

use super::{Destination, DestinationKey, Endpoint, lock};
use crate::State;

/// Ports of workloads that are remembered.
const WORKLOADS_MAX: usize = 1024;

/// Ports of one workload that are remembered.
const PORTS_MAX: usize = 32;

/// Destinations that are used and not remembered, before those that are over are looked for.
const STRAYS: usize = 64;

/// Bounds of how often idle connections are looked for.
const SWEEP: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

type Destinations = HashMap<DestinationKey, Arc<Destination>>;

/// Destinations by what tells them apart.
#[derive(Debug, Default)]
pub(super) struct Book {
    services: ArcSwap<Destinations>,
    workloads: ArcSwap<Destinations>,
    newest: Mutex<Newest>,
}

/// Whoever holds it is alone in changing the book.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// What was published last; none before the first.
    state: Option<Arc<State>>,
    /// Destinations in use that are in no map. They have to hear of changes, too.
    strays: Vec<Weak<Destination>>,
    strays_max: usize,
    /// What is not an endpoint any more and still in use: streams that are open to it end with its workload.
    former: Vec<Weak<Endpoint>>,
}

impl Book {
    /// An empty book, whose connections are closed once they have been idle for `keep`.
    pub(super) fn new(keep: Duration) -> Arc<Self> {
        let book = Arc::new(Self::default());
        let weak = Arc::downgrade(&book);
        let pause = (keep / 4).clamp(SWEEP.0, SWEEP.1);
        tasks::spawn("waypoint-upstream-sweep", async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(book) = weak.upgrade() else { return };
                book.expire(keep);
            }
        });
        book
    }

    /// A destination; none if it does not exist.
    pub(super) fn find(&self, key: DestinationKey) -> Option<Arc<Destination>> {
        let map = self.map(&key);
        if let Some(known) = map.load().get(&key) {
            return Some(known.clone());
        }
        let mut newest = lock(&self.newest);
        // Somebody else may have entered it in the meantime.
        if let Some(known) = map.load().get(&key) {
            return Some(known.clone());
        }
        let state = newest.state.clone().filter(|state| key.exists(state))?;
        let made = Arc::new(Destination::new(key.clone(), &state));
        let mut next = Destinations::clone(&map.load());
        if newest.has_room(&mut next, &key) {
            next.insert(key, made.clone());
            map.store(Arc::new(next));
        } else {
            newest.stray(&made);
        }
        Some(made)
    }

    /// The right to publish; one has it at a time.
    pub(super) fn turn(&self) -> MutexGuard<'_, Newest> {
        lock(&self.newest)
    }

    /// Goes by a state from now on: forgets what does not exist any more, drains endpoints that are gone, and says to
    /// former ones whether their workload is still there.
    pub(super) fn reconcile(&self, newest: &mut Newest, state: &Arc<State>) {
        let Newest { state: known, strays, former, .. } = newest;
        *known = Some(state.clone());
        for map in [&self.services, &self.workloads] {
            let before = map.load_full();
            let mut are_all_there = true;
            for destination in before.values() {
                are_all_there &= follow(destination, state, former);
            }
            if !are_all_there {
                let mut next = Destinations::clone(&before);
                next.retain(|key, _| key.exists(state));
                map.store(Arc::new(next));
            }
        }
        strays.retain(|stray| match stray.upgrade() {
            Some(stray) => follow(&stray, state, former),
            None => false,
        });
        former.retain(|one| match one.upgrade() {
            Some(one) => {
                one.follow(state.mesh.workload(&one.workload.uid).map(|now| &**now));
                true
            }
            None => false,
        });
    }

    fn map(&self, key: &DestinationKey) -> &ArcSwap<Destinations> {
        match key {
            DestinationKey::Service(..) => &self.services,
            DestinationKey::Workload(..) => &self.workloads,
        }
    }

    fn expire(&self, keep: Duration) {
        let now = clock::monotonic();
        for map in [&self.services, &self.workloads] {
            for destination in map.load_full().values() {
                destination.expire(now, keep);
            }
        }
    }
}

/// Lets a destination go by a state, and gathers what is not its endpoint any more; false if it is over.
fn follow(destination: &Destination, state: &State, former: &mut Vec<Weak<Endpoint>>) -> bool {
    let exists = destination.key.exists(state);
    let left = if exists { destination.refresh(state) } else { destination.retire() };
    former.extend(left.iter().map(Arc::downgrade));
    exists
}

impl Newest {
    /// Whether one more may be remembered. Those that no request uses give way, the workload's own first.
    fn has_room(&mut self, next: &mut Destinations, key: &DestinationKey) -> bool {
        let DestinationKey::Workload(workload, _) = key else { return true };
        let own = |key: &DestinationKey| matches!(key, DestinationKey::Workload(uid, _) if uid == workload);
        if next.keys().filter(|key| own(key)).count() >= PORTS_MAX {
            self.let_go(next, own);
            if next.keys().filter(|key| own(key)).count() >= PORTS_MAX {
                return false;
            }
        }
        if next.len() >= WORKLOADS_MAX {
            self.let_go(next, |_| true);
        }
        next.len() < WORKLOADS_MAX
    }

    /// Takes out what is in use nowhere but in the two maps, the present one and the next.
    fn let_go(&mut self, next: &mut Destinations, which: impl Fn(&DestinationKey) -> bool) {
        let unused = |destination: &Arc<Destination>| Arc::strong_count(destination) <= 2;
        for (_, gone) in next.extract_if(|key, destination| which(key) && unused(destination)) {
            // Somebody may have found it just now.
            self.stray(&gone);
        }
    }

    fn stray(&mut self, destination: &Arc<Destination>) {
        if self.strays.len() >= self.strays_max {
            self.strays.retain(|stray| stray.strong_count() > 0);
            self.strays_max = (self.strays.len() * 2).max(STRAYS);
        }
        self.strays.push(Arc::downgrade(destination));
    }
}
