//! The bounded memory of what happened on this node.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use super::FlowRecord;

/// Records a slow follower may be behind before it loses some (and is told).
const FOLLOW_RECORDS: usize = 4096;

/// The last flow records, oldest first out.
#[derive(Debug)]
pub struct Ring {
    records: Mutex<VecDeque<FlowRecord>>,
    records_max: usize,
    news: broadcast::Sender<FlowRecord>,
}

impl Ring {
    /// Remembers at most `records_max` records.
    pub fn new(records_max: usize) -> Self {
        Self {
            records: Mutex::default(),
            records_max: records_max.max(1),
            news: broadcast::Sender::new(FOLLOW_RECORDS),
        }
    }

    /// Adds a record, pushing out the oldest when full.
    pub fn push(&self, record: FlowRecord) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= self.records_max {
            records.pop_front();
        }
        records.push_back(record.clone());
        drop(records);
        // Nobody following is normal.
        let _ = self.news.send(record);
    }

    /// The last `most` records, oldest first.
    pub fn last(&self, most: usize) -> Vec<FlowRecord> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().skip(records.len().saturating_sub(most)).cloned().collect()
    }

    /// Records as they come from now on.
    pub fn follow(&self) -> broadcast::Receiver<FlowRecord> {
        self.news.subscribe()
    }
}
