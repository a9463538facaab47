//! Telling the control plane what this node sees: summaries by itself, and answers to what it asks.
//!
//! Traffic does not depend on it: it begins once discovery has come, and whatever goes wrong with it is tried again.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ambit_net::grpc::attend::{Asked, Attendance, Attendant, Later, Question, Told};
use ambit_runtime::tasks;
use ambit_xds::proto::ambit::observe::v1::{Hello, Memory as HeldMemory};
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::proxy::Proxy;
use crate::selftest::SelfTests;
use crate::telemetry::{FlowRecord, Memory, Ring};
use crate::xds::Progress;
use crate::{admin, random, xds};

/// The node as one who can be asked.
#[derive(Debug)]
struct Attending {
    proxy: Arc<Proxy>,
    selftests: SelfTests,
}

/// Attends as soon as discovery has come once; without a control plane there is nobody to attend, and nothing is counted
/// for it.
pub fn start(
    config: &Config,
    proxy: &Arc<Proxy>,
    selftests: &SelfTests,
    mut progress: watch::Receiver<Progress>,
) {
    let tally = proxy.telemetry.tally().clone();
    let Some((target, caller)) = config.discovery() else { return tally.count(false) };
    let hello = Hello {
        node: Some(xds::node(config).encode()),
        program: "ztunnel".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: random::number(),
    };
    let attendant = Arc::new(Attending { proxy: proxy.clone(), selftests: selftests.clone() });
    let attendance = Attendance { target, caller, hello, tally, attendant, draw: random::number };
    tasks::spawn("attend", async move {
        // A discovery loop that is gone takes nothing from what is seen here.
        let _ = progress.wait_for(|progress| *progress == Progress::Synced).await;
        attendance.keep().await;
    });
}

impl Attendant for Attending {
    fn answer(&self, question: Question) -> Later<Result<Bytes, String>> {
        let (proxy, selftests) = (self.proxy.clone(), self.selftests.clone());
        Box::pin(async move {
            match question {
                Question::Connections { most } => Ok(admin::newest(&proxy, most).to_string().into()),
                Question::Budget => Ok(admin::budget(&proxy).to_string().into()),
                Question::SelfTests => Ok(selftests.to_json().to_string().into()),
                Question::Certificates { identity } => {
                    let leaves = proxy.certificates.leaves(identity.as_deref());
                    serde_json::to_vec(&leaves).map(Bytes::from).map_err(|error| error.to_string())
                }
                Question::Explain(question) => {
                    let explanation = admin::answer(&proxy, &question).await?;
                    serde_json::to_vec(&explanation).map(Bytes::from).map_err(|error| error.to_string())
                }
            }
        })
    }

    fn flows(&self, asked: Asked, to: mpsc::Sender<Told>) -> Later<HeldMemory> {
        let ring = self.proxy.telemetry.ring().clone();
        Box::pin(async move {
            let held = flows(&ring, asked, &to).await;
            let oldest = held.oldest.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            HeldMemory {
                records: held.records as u64,
                records_max: held.records_max as u64,
                oldest_ms: oldest.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
                lost: held.lost,
            }
        })
    }

    fn records_lost(&self) -> u64 {
        self.proxy.telemetry.ring().memory().lost
    }

    fn count_live(&self) {
        self.proxy.telemetry.count_live();
    }
}

/// Tells records; what the ring held when it was asked, or holds when nobody follows any more.
async fn flows(ring: &Ring, asked: Asked, to: &mpsc::Sender<Told>) -> Memory {
    let Asked { filter, last, follow } = asked;
    let news = follow.then(|| ring.follow());
    let (records, memory) = ring.last(usize::MAX);
    let mut meant: Vec<&FlowRecord> = records.iter().rev().filter(|r| filter.passes(*r)).take(last).collect();
    meant.reverse();
    for record in meant {
        if to.send(told(record)).await.is_err() {
            return memory;
        }
    }
    drop(records);
    let Some(mut news) = news else { return memory };
    loop {
        let received = tokio::select! {
            received = news.recv() => received,
            () = to.closed() => return ring.memory(),
        };
        let one = match received {
            Ok(record) if filter.passes(&record) => told(&record),
            Ok(_) => continue,
            Err(RecvError::Lagged(lost)) => {
                metrics::counter!("ambit_flow_records_lost_total", "cause" => "follower").increment(lost);
                Told::Lost(lost)
            }
            Err(RecvError::Closed) => return ring.memory(),
        };
        if to.send(one).await.is_err() {
            return ring.memory();
        }
    }
}

fn told(record: &FlowRecord) -> Told {
    Told::Record(record.to_json().to_string().into())
}
