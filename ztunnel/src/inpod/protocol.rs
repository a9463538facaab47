//! ZDS: what the node agent says about pods, one packet a message, every one answered in order.
//!
//! A message that breaks the rules is refused and the connection begun anew; the pods that run go on (G24).

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsError};
use ambit_net::seqpacket::{SeqpacketConn, SeqpacketError};
use ambit_runtime::drain::Drain;
use ambit_state::PodRef;
use ambit_xds::proto::istio::workload::zds::workload_request::Payload;
use ambit_xds::proto::istio::workload::zds::{
    Ack, AddWorkload, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_response,
};
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::workloads::{PodInfo, StartError, Workloads};
use crate::random;

/// Longest message that is read, in bytes: names at the limits of Kubernetes fit with headroom (G23).
const MESSAGE_BYTES_MAX: usize = 4096;
/// First and longest pause before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(15));
/// How often pods that could not be captured are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a conversation with the agent ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZdsError {
    /// Nobody listens.
    #[error(transparent)]
    Connect(#[from] SeqpacketError),
    /// The socket failed.
    #[error("talking to the node agent")]
    Socket(#[from] std::io::Error),
    /// The agent closed it.
    #[error("the node agent closed the connection")]
    Closed,
    /// The agent broke the rules.
    #[error("the node agent broke the protocol: {what}")]
    Protocol {
        /// How.
        what: String,
    },
}

/// Why one message is refused; the text goes to the agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    #[error("{0}")]
    Start(String),
    /// The conversation cannot go on.
    #[error("{0}")]
    Protocol(String),
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        Self::Start(crate::admit::describe(&error))
    }
}

/// Talks to the agent at `socket` until the process drains.
pub async fn run(socket: &Path, mut workloads: Workloads, drain: &Drain) {
    let mut backoff = BACKOFF.0;
    loop {
        let conversation = async {
            let mut agent = SeqpacketConn::connect(socket)?;
            info!(socket = %socket.display(), "connected to the node agent");
            converse(&mut agent, &mut workloads).await
        };
        let ended = tokio::select! {
            ended = conversation => ended,
            () = drain.draining() => return,
        };
        workloads.synced(false);
        match ended {
            Ok(()) => backoff = BACKOFF.0,
            Err(error) => {
                debug!(
                    error = crate::admit::describe(&error),
                    ?backoff,
                    "no conversation with the node agent"
                );
            }
        }
        let jitter = Duration::from_millis(random::number() % 10);
        tokio::time::sleep(backoff + jitter).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// One conversation: hello, snapshot, then changes. `Ok` if it got as far as the snapshot.
async fn converse(agent: &mut SeqpacketConn, workloads: &mut Workloads) -> Result<(), ZdsError> {
    let hello = ZdsHello { version: Version::V1.into() };
    agent.send(&hello.encode_to_vec(), None).await?;
    workloads.forget_pending();
    let mut snapshot = Some(BTreeSet::new());
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    // Goes on while messages come: a busy agent must not keep a pod waiting.
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            received = agent.recv(&mut buffer) => received,
            _ = retry.tick() => {
                workloads.retry_pending();
                continue;
            }
        };
        let received = match received {
            Ok(received) if received.len == 0 => return ended(snapshot.is_none(), ZdsError::Closed),
            Ok(received) => received,
            Err(error) => return ended(snapshot.is_none(), error.into()),
        };
        let handled = if received.truncated {
            Err(Refused::Protocol(format!("a message longer than {MESSAGE_BYTES_MAX} bytes")))
        } else {
            handle(&buffer[..received.len], received.fds, workloads, &mut snapshot)
        };
        let error = handled.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if !error.is_empty() {
            warn!(error, "a message of the node agent was refused");
        }
        let ack = WorkloadResponse { payload: Some(workload_response::Payload::Ack(Ack { error })) };
        agent.send(&ack.encode_to_vec(), None).await?;
        if let Err(Refused::Protocol(what)) = handled {
            return Err(ZdsError::Protocol { what });
        }
    }
}

/// A conversation that reached its snapshot was a good one, however it ended.
fn ended(had_snapshot: bool, error: ZdsError) -> Result<(), ZdsError> {
    if had_snapshot {
        info!(%error, "the node agent left; its pods go on");
        return Ok(());
    }
    Err(error)
}

pub(super) fn handle(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
    workloads: &mut Workloads,
    snapshot: &mut Option<BTreeSet<String>>,
) -> Result<(), Refused> {
    let protocol = |what: &str| Refused::Protocol(what.to_owned());
    let request = WorkloadRequest::decode(bytes).map_err(|e| Refused::Protocol(e.to_string()))?;
    let payload = request.payload.ok_or_else(|| protocol("a request without payload"))?;
    let mut fds = fds.into_iter();
    let (fd, more) = (fds.next(), fds.next());
    if more.is_some() || (fd.is_some() && !matches!(payload, Payload::Add(_))) {
        return Err(protocol("a descriptor that belongs to no message"));
    }
    match payload {
        Payload::Add(add) => {
            let fd = fd.ok_or_else(|| protocol("an add without a namespace"))?;
            if let Some(named) = snapshot {
                named.insert(add.uid.clone());
            }
            start(&add, fd, workloads)
        }
        Payload::Keep(keep) => {
            let named = snapshot.as_mut().ok_or_else(|| protocol("keep after the snapshot"))?;
            named.insert(keep.uid);
            Ok(())
        }
        Payload::Del(del) => {
            // Before the snapshot is complete the pod goes with everything else it does not name.
            match snapshot {
                Some(named) => {
                    named.remove(&del.uid);
                    workloads.forget(&del.uid);
                }
                None => workloads.remove(&del.uid),
            }
            Ok(())
        }
        Payload::SnapshotSent(_) => {
            let named = snapshot.take().ok_or_else(|| protocol("a second end of the snapshot"))?;
            workloads.reconcile(&named);
            workloads.synced(true);
            Ok(())
        }
    }
}

/// Captures a pod; the answer is sent only once its listeners are bound.
fn start(add: &AddWorkload, fd: OwnedFd, workloads: &mut Workloads) -> Result<(), Refused> {
    let info = add
        .workload_info
        .as_ref()
        .ok_or_else(|| Refused::Protocol(format!("an add of {} without its name", add.uid)))?;
    let name = PodRef {
        namespace: info.namespace.as_str().into(),
        service_account: info.service_account.as_str().into(),
        name: info.name.as_str().into(),
    };
    workloads.start(&add.uid, &PodInfo { name }, NetNs::from_fd(fd)?)?;
    Ok(())
}
