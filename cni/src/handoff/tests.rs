//! The hand-over on a real socket: who is let in, which bytes go out, what the answers mean.

use ambit_xds::proto::istio::workload::zds;
use prost::Message as _;

use super::*;
use crate::handoff::roster::Message;

const SHORT: Limits = Limits { deadline: Duration::from_millis(300) };
const PATIENCE: Duration = Duration::from_secs(5);

/// The other side: a ztunnel that does as told.
struct Ztunnel(SeqpacketConn);

impl Ztunnel {
    async fn connect(path: &Path) -> Self {
        let ztunnel = Self(SeqpacketConn::connect(path).unwrap());
        ztunnel.0.send(&[0x08, 0x01], None).await.unwrap();
        ztunnel
    }

    /// The next request in words, with the namespace that came beside it.
    async fn next(&self) -> (String, Option<NetNsId>) {
        let mut buffer = [0; 1024];
        let mut got = timeout(PATIENCE, self.0.recv(&mut buffer)).await.expect("a request in time").unwrap();
        if got.is_end() {
            return ("end".to_owned(), None);
        }
        let request = zds::WorkloadRequest::decode(&buffer[..got.len]).unwrap();
        let netns = got.fds.pop().map(|fd| NetNs::from_fd(fd).unwrap().id());
        assert!(got.fds.is_empty());
        use zds::workload_request::Payload;
        let text = match request.payload.unwrap() {
            Payload::Add(add) => {
                let info = add.workload_info.unwrap();
                format!("add {} {}/{}/{}", add.uid, info.namespace, info.name, info.service_account)
            }
            Payload::Keep(keep) => format!("keep {}", keep.uid),
            Payload::Del(del) => format!("del {}", del.uid),
            Payload::SnapshotSent(_) => "snapshot sent".to_owned(),
        };
        (text, netns)
    }

    async fn answer(&self, error: &str) {
        let ack = zds::Ack { error: error.to_owned() };
        let response = zds::WorkloadResponse { payload: Some(zds::workload_response::Payload::Ack(ack)) }
            .encode_to_vec();
        self.0.send(&response, None).await.unwrap();
    }

    async fn expect(&self, want: &str) -> Option<NetNsId> {
        let (text, netns) = self.next().await;
        assert_eq!(text, want);
        self.answer("").await;
        netns
    }
}

fn start(dir: &Path, limits: Limits) -> (Handoff, PathBuf) {
    let path = dir.join("private/ztunnel.sock");
    let handoff = Handoff::start(&path, limits, &Drain::new()).unwrap();
    (handoff, path)
}

fn entry(name: &str, netns: Option<&SharedNetNs>) -> Entry<SharedNetNs> {
    Entry {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        netns: netns.cloned(),
    }
}

fn own_netns() -> SharedNetNs {
    SharedNetNs(Arc::new(NetNs::current().unwrap()))
}

#[tokio::test]
async fn a_ztunnel_gets_the_snapshot_with_namespaces_and_then_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, path) = start(dir.path(), Limits::default());
    let netns = own_netns();
    handoff.set("u1", entry("a", Some(&netns)));
    handoff.set("u2", entry("b", None));
    let ztunnel = Ztunnel::connect(&path).await;
    // Nobody is served before the program knows its pods.
    let mut buffer = [0; 16];
    assert!(timeout(Duration::from_millis(50), ztunnel.0.recv(&mut buffer)).await.is_err());
    handoff.open();
    assert_eq!(ztunnel.expect("add u1 shop/a/cart").await, Some(netns.id()));
    assert_eq!(ztunnel.expect("keep u2").await, None);
    assert_eq!(ztunnel.expect("snapshot sent").await, None);

    let (holding, _) = tokio::join!(
        handoff.offer("u3", entry("c", Some(&netns)), PATIENCE),
        ztunnel.expect("add u3 shop/c/cart")
    );
    assert_eq!(holding, Holding::Held);
    let refuse = async {
        assert_eq!(ztunnel.next().await.0, "add u4 shop/d/cart");
        ztunnel.answer("no room").await;
    };
    let (holding, ()) = tokio::join!(handoff.offer("u4", entry("d", Some(&netns)), PATIENCE), refuse);
    assert_eq!(holding, Holding::Refused("no room".to_owned()));
    tokio::join!(handoff.withdraw("u1", PATIENCE), ztunnel.expect("del u1"));
    assert!(handoff.is_served());
    assert_eq!(handoff.holding("u3"), Holding::Held);

    drop(ztunnel);
    let mut answers = handoff.answers();
    timeout(PATIENCE, answers.wait_for(|_| !handoff.is_served())).await.unwrap().unwrap();
    assert_eq!(handoff.holding("u3"), Holding::NoZtunnel);
    assert_eq!(handoff.offer("u3", entry("c", Some(&netns)), PATIENCE).await, Holding::NoZtunnel);
}

#[tokio::test]
async fn two_ztunnels_share_a_socket_during_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, path) = start(dir.path(), Limits::default());
    handoff.open();
    let netns = own_netns();
    let old = Ztunnel::connect(&path).await;
    old.expect("snapshot sent").await;
    tokio::join!(handoff.offer("u1", entry("a", Some(&netns)), PATIENCE), old.expect("add u1 shop/a/cart"));
    let new = Ztunnel::connect(&path).await;
    new.expect("add u1 shop/a/cart").await;
    new.expect("snapshot sent").await;
    tokio::join!(handoff.offer("u2", entry("b", Some(&netns)), PATIENCE), new.expect("add u2 shop/b/cart"));
    tokio::join!(handoff.withdraw("u1", PATIENCE), old.expect("del u1"), new.expect("del u1"));
    drop(new);
    // What the older one never had, it gets now.
    old.expect("add u2 shop/b/cart").await;
}

#[tokio::test]
async fn whoever_is_silent_or_out_of_step_is_disconnected() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, path) = start(dir.path(), SHORT);
    handoff.open();
    let mute = SeqpacketConn::connect(&path).unwrap();
    assert_eq!(Ztunnel(mute).next().await.0, "end", "no hello");
    let odd = SeqpacketConn::connect(&path).unwrap();
    odd.send(b"\xff\xff\xff", None).await.unwrap();
    assert_eq!(Ztunnel(odd).next().await.0, "end", "no readable hello");
    let slow = Ztunnel::connect(&path).await;
    assert_eq!(slow.next().await.0, "snapshot sent");
    assert_eq!(slow.next().await.0, "end", "no answer");
    let eager = Ztunnel::connect(&path).await;
    eager.expect("snapshot sent").await;
    eager.answer("").await;
    assert_eq!(eager.next().await.0, "end", "an answer to nothing");
    assert_eq!(handoff.holding("any"), Holding::NoZtunnel);
}

#[tokio::test]
async fn the_directory_must_be_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ztunnel.sock");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Handoff::start(&path, SHORT, &Drain::new()).unwrap_err();
    assert!(matches!(refused, HandoffError::Open { mode: 0o755, .. }), "{refused}");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let _handoff = Handoff::start(&path, SHORT, &Drain::new()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn only_root_and_our_own_user_are_let_in() {
    let peer = |uid| PeerCred { pid: 7, uid, gid: 0 };
    for (uid, own, want) in
        [(0, 0, true), (0, 1337, true), (1337, 1337, true), (1337, 0, false), (65534, 1337, false)]
    {
        assert_eq!(is_permitted(peer(uid), own), want, "uid {uid}, own {own}");
    }
}

#[test]
fn messages_are_the_bytes_of_zds() {
    let rows: [(Message<SharedNetNs>, &[u8]); 4] = [
        (
            Message::Add("u".to_owned(), entry("p", None)),
            b"\x0a\x14\x0a\x01u\x12\x0f\x0a\x01p\x12\x04shop\x1a\x04cart",
        ),
        (Message::Keep("u".to_owned()), b"\x2a\x03\x0a\x01u"),
        (Message::Del("u".to_owned()), b"\x12\x03\x0a\x01u"),
        (Message::SnapshotSent, b"\x1a\x00"),
    ];
    for (message, want) in rows {
        assert_eq!(wire::write_request(&message), want, "{message:?}");
    }
    assert_eq!(wire::read_answer(b"\x0a\x00"), Ok(Ok(())));
    assert_eq!(wire::read_answer(b"\x0a\x04\x0a\x02no"), Ok(Err("no".to_owned())));
    // Unknown fields are passed over, unknown answers are not taken for consent.
    assert_eq!(wire::read_answer(b"\x0a\x03\x52\x01x"), Ok(Ok(())));
    assert!(wire::read_answer(b"\x52\x01x").is_err());
    assert!(wire::read_hello(b"\x08\x01").is_ok() && wire::read_hello(b"").is_err());
}
