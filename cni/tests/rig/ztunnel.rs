//! A stand-in for ztunnel on the ZDS socket: remembers what it was given and answers as it is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ambit_net::linux::netns::{NetNs, NetNsId};
use ambit_net::seqpacket::SeqpacketConn;
use ambit_xds::proto::istio::workload::zds;
use prost::Message as _;
use tokio::sync::watch;
use zds::workload_request::Payload;

/// What it has been told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Pods it serves, with their namespaces.
    pub(crate) serving: BTreeMap<String, NetNsId>,
    /// Every request in order, as words.
    pub(crate) log: Vec<String>,
    /// Whether the snapshot has ended.
    pub(crate) complete: bool,
}

#[derive(Debug)]
pub(crate) struct FakeZtunnel {
    pub(crate) seen: watch::Receiver<Seen>,
    refusals: Arc<Mutex<BTreeMap<String, String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeZtunnel {
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::connect_refusing(socket, "", "").await
    }

    /// Connects and refuses one pod from the start.
    pub(crate) async fn connect_refusing(socket: &Path, uid: &str, why: &str) -> Self {
        let conn = SeqpacketConn::connect(socket).unwrap();
        conn.send(&[0x08, 0x01], None).await.unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let refusals: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        refusals.lock().unwrap().insert(uid.to_owned(), why.to_owned());
        #[expect(clippy::disallowed_methods, reason = "a test's own task, ended with its owner")]
        let task = tokio::spawn(serve(conn, sender, Arc::clone(&refusals)));
        Self { seen, refusals, task }
    }

    /// Refuses a pod from now on; an empty text accepts it again.
    pub(crate) fn refuse(&self, uid: &str, why: &str) {
        self.refusals.lock().unwrap().insert(uid.to_owned(), why.to_owned());
    }

    pub(crate) fn serving(&self) -> Vec<String> {
        self.seen.borrow().serving.keys().cloned().collect()
    }
}

impl Drop for FakeZtunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    conn: SeqpacketConn,
    seen: watch::Sender<Seen>,
    refusals: Arc<Mutex<BTreeMap<String, String>>>,
) {
    let mut buffer = [0; 1024];
    loop {
        let mut got = conn.recv(&mut buffer).await.unwrap();
        if got.is_end() {
            return;
        }
        assert!(!got.truncated);
        let netns = got.fds.pop().map(|fd| NetNs::from_fd(fd).unwrap().id());
        let request = zds::WorkloadRequest::decode(&buffer[..got.len]).unwrap();
        let mut error = String::new();
        seen.send_modify(|seen| match request.payload.unwrap() {
            Payload::Add(add) => {
                error = refusals.lock().unwrap().get(&add.uid).cloned().unwrap_or_default();
                seen.log.push(format!("add {}", add.uid));
                if error.is_empty() {
                    seen.serving.insert(add.uid, netns.expect("an add carries a namespace"));
                }
            }
            Payload::Keep(keep) => seen.log.push(format!("keep {}", keep.uid)),
            Payload::Del(del) => {
                seen.log.push(format!("del {}", del.uid));
                seen.serving.remove(&del.uid);
            }
            Payload::SnapshotSent(_) => seen.complete = true,
        });
        let ack = zds::Ack { error };
        let answer = zds::WorkloadResponse { payload: Some(zds::workload_response::Payload::Ack(ack)) };
        if conn.send(&answer.encode_to_vec(), None).await.is_err() {
            return;
        }
    }
}
