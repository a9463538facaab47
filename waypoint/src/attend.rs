//! Telling the control plane what this waypoint sees: summaries by itself, and answers to what it asks.

use std::sync::Arc;

use ambit_net::grpc::attend::{Asked, Attendance, Attendant, Later, Question, Told};
use ambit_runtime::tasks;
use ambit_xds::proto::ambit::observe::v1::{Hello, Memory};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::observe::Observe;
use crate::{admin, discovery, random};

/// The waypoint as one who can be asked.
#[derive(Debug)]
struct Attending {
    observe: Arc<Observe>,
    source: admin::Source,
}

/// Attends once the waypoint goes by anything.
pub(crate) fn start(config: &Config, observe: &Arc<Observe>, source: &admin::Source) {
    let (target, caller) = config.discovery();
    let hello = Hello {
        node: Some(discovery::node(config).encode_as_waypoint(config.gateway())),
        program: "waypoint".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: random::number(),
    };
    let tally = observe.tally.clone();
    let attendant = Arc::new(Attending { observe: observe.clone(), source: source.clone() });
    let attendance = Attendance { target, caller, hello, tally, attendant, draw: random::number };
    let source = source.clone();
    tasks::spawn("attend", async move {
        source.complete().await;
        attendance.keep().await;
    });
}

impl Attendant for Attending {
    fn answer(&self, question: Question) -> Later<Result<Bytes, String>> {
        let source = self.source.clone();
        Box::pin(async move {
            match question {
                Question::Budget => Err("a waypoint tells no budget; its metrics do".to_owned()),
                Question::Connections { .. } => {
                    Err("a waypoint lists no connections; ztunnels do".to_owned())
                }
                Question::Certificates { identity } => {
                    let leaves = source.certificates.leaves(identity.as_deref());
                    serde_json::to_vec(&leaves).map(Bytes::from).map_err(|error| error.to_string())
                }
                Question::SelfTests => Err("a waypoint does not test itself; ztunnels do".to_owned()),
                Question::Explain(question) => {
                    let explanation = admin::answer(&source, &question).map_err(|(_, text)| text)?;
                    serde_json::to_vec(&explanation).map(Bytes::from).map_err(|error| error.to_string())
                }
            }
        })
    }

    fn flows(&self, asked: Asked, to: mpsc::Sender<Told>) -> Later<Memory> {
        let ring = self.observe.flows.clone();
        Box::pin(async move { Memory::from(ring.tell(asked, &to).await) })
    }

    fn records_lost(&self) -> u64 {
        self.observe.flows.memory().lost
    }

    /// Requests count when they are over.
    fn count_live(&self) {}
}
