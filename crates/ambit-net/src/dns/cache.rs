//! What was told of names, for as long as it holds, and the questions that are under way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ambit_types::Str;
use ambit_types::service::IpFamily;
use tokio::sync::OnceCell;

use super::DnsError;

/// Names and families that are remembered; the one that would end first makes room.
const NAMES_MAX: usize = 256;

/// What was told of a name, and until when it holds.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) outcome: Result<Arc<[IpAddr]>, DnsError>,
    pub(super) until: Instant,
}

/// Empty while the question is under way.
pub(super) type Slot = OnceCell<Told>;

type Slots = BTreeMap<(Str, IpFamily), Arc<Slot>>;

/// One pod's names.
#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: Mutex<Slots>,
}

impl Cache {
    /// The place of a name: with what holds at `now`, or empty, to be filled by the caller or somebody before it.
    pub(super) fn slot(&self, host: &Str, family: IpFamily, now: Instant) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.clone(), family);
        if let Some(slot) = slots.get(&key).filter(|slot| holds(slot, now)) {
            return slot.clone();
        }
        if slots.len() >= NAMES_MAX && !slots.contains_key(&key) {
            make_room(&mut slots, now);
        }
        let slot = Arc::new(Slot::new());
        slots.insert(key, slot.clone());
        slot
    }
}

fn holds(slot: &Slot, now: Instant) -> bool {
    slot.get().is_none_or(|told| told.until > now)
}

/// Forgets what no longer holds; if that is nothing, what ends first, and last of all a question under way, whose
/// callers still have it.
fn make_room(slots: &mut Slots, now: Instant) {
    slots.retain(|_, slot| holds(slot, now));
    if slots.len() < NAMES_MAX {
        return;
    }
    let end = |slot: &Slot| slot.get().map_or((true, now), |told| (false, told.until));
    let first = slots.iter().min_by_key(|(_, slot)| end(slot)).map(|(key, _)| key.clone());
    if let Some(key) = first {
        slots.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ambit_runtime::clock;

    use super::*;

    fn told(until: Instant) -> Told {
        Told { outcome: Ok(Arc::from(Vec::new())), until }
    }

    #[test]
    fn what_was_told_is_used_until_it_ends_and_not_after() {
        let (cache, now, host) = (Cache::default(), clock::monotonic(), Str::from("api.example"));
        let slot = cache.slot(&host, IpFamily::V4, now);
        assert!(Arc::ptr_eq(&slot, &cache.slot(&host, IpFamily::V4, now)), "one question at a time");
        assert!(!Arc::ptr_eq(&slot, &cache.slot(&host, IpFamily::V6, now)), "each family by itself");
        let until = now + Duration::from_secs(5);
        slot.set(told(until)).unwrap();
        let just_before = until - Duration::from_millis(1);
        assert!(cache.slot(&host, IpFamily::V4, just_before).get().is_some());
        assert!(cache.slot(&host, IpFamily::V4, until).get().is_none(), "it has ended");
    }

    #[test]
    fn names_are_bounded_and_what_ends_first_goes_first() {
        let (cache, now) = (Cache::default(), clock::monotonic());
        let host = |number: usize| Str::from(format!("n{number}.example"));
        for number in 0..NAMES_MAX {
            // The first is still under way; the second ends first.
            let slot = cache.slot(&host(number), IpFamily::V4, now);
            if number > 0 {
                slot.set(told(now + Duration::from_secs(number as u64))).unwrap();
            }
        }
        drop(cache.slot(&host(NAMES_MAX), IpFamily::V4, now));
        let has = |number: usize| cache.slots.lock().unwrap().contains_key(&(host(number), IpFamily::V4));
        assert_eq!(cache.slots.lock().unwrap().len(), NAMES_MAX);
        assert_eq!([has(0), has(1), has(2), has(NAMES_MAX)], [true, false, true, true]);
        drop(cache.slot(&host(NAMES_MAX + 1), IpFamily::V4, now + Duration::from_secs(100)));
        assert_eq!([has(100), has(101)], [false, true], "all that has ended goes at once");
    }
}
