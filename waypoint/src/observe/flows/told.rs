//! Flow records for the control plane: those it asks for, packed by whoever sends them.

use std::time::UNIX_EPOCH;

use ambit_net::grpc::attend::{Asked, Told};
use ambit_xds::proto::ambit::observe::v1 as proto;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::{Memory, Ring};

impl Ring {
    /// Tells records until there are no more of those asked for, or nobody listens; what is held.
    pub(crate) async fn tell(&self, asked: Asked, to: &mpsc::Sender<Told>) -> Memory {
        let Asked { filter, last, follow } = asked;
        let news = follow.then(|| self.news.subscribe());
        let (records, memory) = self.last(usize::MAX);
        let shown = records.iter().rev().map(|record| record.to_json(&self.node));
        let mut meant: Vec<_> = shown.filter(|record| filter.passes(record)).take(last).collect();
        meant.reverse();
        for record in meant {
            if to.send(Told::Record(record.to_string().into())).await.is_err() {
                return memory;
            }
        }
        let Some(mut news) = news else { return memory };
        loop {
            let received = tokio::select! {
                received = news.recv() => received,
                () = to.closed() => return self.memory(),
            };
            let one = match received.map(|record| record.to_json(&self.node)) {
                Ok(record) if filter.passes(&record) => Told::Record(record.to_string().into()),
                Ok(_) => continue,
                Err(RecvError::Lagged(lost)) => {
                    metrics::counter!("ambit_flow_records_lost_total", "cause" => "follower").increment(lost);
                    Told::Lost(lost)
                }
                Err(RecvError::Closed) => return self.memory(),
            };
            if to.send(one).await.is_err() {
                return self.memory();
            }
        }
    }
}

impl From<Memory> for proto::Memory {
    fn from(memory: Memory) -> Self {
        let oldest = memory.oldest.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            records: memory.records as u64,
            records_max: memory.records_max as u64,
            oldest_ms: oldest.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
            lost: memory.lost,
        }
    }
}
