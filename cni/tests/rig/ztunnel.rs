//! A stand-in for ztunnel on the ZDS socket: remembers what it was given and answers as it is told.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ambit_net::linux::netns::{NetNs, NetNsId};
use ambit_net::seqpacket::SeqpacketConn;
use ambit_xds::proto::istio::workload::zds;
use prost::Message as _;
use socket2::{Domain, Socket, Type};
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

/// What it listens at, by pod: 15001, 15006, 15008.
#[derive(Debug, Default)]
struct Listeners {
    open: Mutex<BTreeMap<String, [TcpListener; 3]>>,
    /// Says that it serves, and listens nowhere.
    deaf: AtomicBool,
}

impl Listeners {
    fn open(&self, uid: &str, netns: &NetNs) {
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        let all = netns.run(|| [15001, 15006, 15008].map(listen)).unwrap();
        self.open.lock().unwrap().insert(uid.to_owned(), all);
    }
}

/// As a ztunnel does, beside its predecessor.
fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

#[derive(Debug)]
pub(crate) struct FakeZtunnel {
    pub(crate) seen: watch::Receiver<Seen>,
    refusals: Arc<Mutex<BTreeMap<String, String>>>,
    listeners: Arc<Listeners>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeZtunnel {
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::connect_refusing(socket, "", "").await
    }

    /// Connects and refuses one pod from the start.
    pub(crate) async fn connect_refusing(socket: &Path, uid: &str, why: &str) -> Self {
        Self::connect_with(socket, uid, why, Listeners::default()).await
    }

    /// Connects, says of every pod that it serves it, and listens nowhere until [`Self::hear`].
    pub(crate) async fn connect_deaf(socket: &Path) -> Self {
        let listeners = Listeners { deaf: AtomicBool::new(true), ..Listeners::default() };
        Self::connect_with(socket, "", "", listeners).await
    }

    async fn connect_with(socket: &Path, uid: &str, why: &str, listeners: Listeners) -> Self {
        let listeners = Arc::new(listeners);
        let conn = SeqpacketConn::connect(socket).unwrap();
        conn.send(&[0x08, 0x01], None).await.unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let refusals: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        refusals.lock().unwrap().insert(uid.to_owned(), why.to_owned());
        #[expect(clippy::disallowed_methods, reason = "a test's own task, ended with its owner")]
        let task = tokio::spawn(serve(conn, sender, Arc::clone(&refusals), Arc::clone(&listeners)));
        Self { seen, refusals, listeners, task }
    }

    /// Refuses a pod from now on; an empty text accepts it again.
    pub(crate) fn refuse(&self, uid: &str, why: &str) {
        self.refusals.lock().unwrap().insert(uid.to_owned(), why.to_owned());
    }

    /// Listens for pods that come from now on.
    pub(crate) fn hear(&self) {
        self.listeners.deaf.store(false, Ordering::SeqCst);
    }

    /// Where it takes what a pod sends.
    pub(crate) fn outbound(&self, uid: &str) -> TcpListener {
        let open = self.listeners.open.lock().unwrap();
        open[uid][0].try_clone().unwrap()
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
    listeners: Arc<Listeners>,
) {
    let mut buffer = [0; 1024];
    loop {
        let mut got = conn.recv(&mut buffer).await.unwrap();
        if got.is_end() {
            return;
        }
        assert!(!got.truncated);
        let netns = got.fds.pop().map(|fd| NetNs::from_fd(fd).unwrap());
        let request = zds::WorkloadRequest::decode(&buffer[..got.len]).unwrap();
        let mut error = String::new();
        seen.send_modify(|seen| match request.payload.unwrap() {
            Payload::Add(add) => {
                error = refusals.lock().unwrap().get(&add.uid).cloned().unwrap_or_default();
                seen.log.push(format!("add {}", add.uid));
                if error.is_empty() {
                    let netns = netns.as_ref().expect("an add carries a namespace");
                    listeners.open(&add.uid, netns);
                    seen.serving.insert(add.uid, netns.id());
                }
            }
            Payload::Keep(keep) => seen.log.push(format!("keep {}", keep.uid)),
            Payload::Del(del) => {
                seen.log.push(format!("del {}", del.uid));
                listeners.open.lock().unwrap().remove(&del.uid);
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
