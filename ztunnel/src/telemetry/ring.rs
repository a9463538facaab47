//! The bounded memory of what happened on this node.
//!
//! What it cannot keep it counts: who reads it learns how far back it goes and how much is missing before that.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::FlowRecord;

/// Records a slow follower may be behind before it loses some (and is told).
const FOLLOW_RECORDS: usize = 4096;

/// The last flow records, oldest first out.
#[derive(Debug)]
pub struct Ring {
    kept: Mutex<Kept<FlowRecord>>,
    records_max: usize,
    news: broadcast::Sender<FlowRecord>,
}

/// The records that are kept, and how many are not any more.
#[derive(Debug)]
struct Kept<T> {
    records: VecDeque<T>,
    lost: u64,
}

/// What the ring holds of everything that there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How many records it holds.
    pub records: usize,
    /// How many it can hold.
    pub records_max: usize,
    /// When the connection of its oldest record ended; none while it is empty.
    pub oldest: Option<SystemTime>,
    /// How many it has pushed out since the process started.
    pub lost: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { records: VecDeque::new(), lost: 0 }
    }
}

impl<T> Kept<T> {
    /// Adds a record; whether the oldest one had to go for it.
    fn push(&mut self, record: T, records_max: usize) -> bool {
        let full = self.records.len() >= records_max;
        if full {
            self.records.pop_front();
            self.lost += 1;
        }
        self.records.push_back(record);
        full
    }
}

impl Ring {
    /// Remembers at most `records_max` records.
    pub fn new(records_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            records_max: records_max.max(1),
            news: broadcast::Sender::new(FOLLOW_RECORDS),
        }
    }

    /// Adds a record, pushing out the oldest when full, which is counted.
    pub fn push(&self, record: FlowRecord) {
        let pushed_out = self.kept().push(record.clone(), self.records_max);
        if pushed_out {
            metrics::counter!("ambit_flow_records_lost_total", "cause" => "ring").increment(1);
        }
        // Nobody following is normal.
        let _ = self.news.send(record);
    }

    /// Tells those who follow of a record, without keeping it.
    pub(super) fn pass(&self, record: FlowRecord) {
        // Nobody following is normal.
        let _ = self.news.send(record);
    }

    /// The last `most` records, oldest first, and what the ring holds at that moment.
    pub fn last(&self, most: usize) -> (Vec<FlowRecord>, Memory) {
        let kept = self.kept();
        let records = kept.records.iter().skip(kept.records.len().saturating_sub(most)).cloned().collect();
        (records, self.of(&kept))
    }

    /// What the ring holds.
    pub fn memory(&self) -> Memory {
        self.of(&self.kept())
    }

    /// Records as they come from now on.
    pub fn follow(&self) -> broadcast::Receiver<FlowRecord> {
        self.news.subscribe()
    }

    fn of(&self, kept: &Kept<FlowRecord>) -> Memory {
        Memory {
            records: kept.records.len(),
            records_max: self.records_max,
            oldest: kept.records.front().map(FlowRecord::at),
            lost: kept.lost,
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept<FlowRecord>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_out_is_counted() {
        let mut kept = Kept::default();
        let pushed_out: Vec<bool> = (0..5).map(|record| kept.push(record, 3)).collect();
        assert_eq!(pushed_out, [false, false, false, true, true]);
        assert_eq!((kept.records, kept.lost), (VecDeque::from([2, 3, 4]), 2));
    }
}
