//! Pods coming, staying and leaving, in real namespaces with a stand-in for ztunnel and for the store of objects.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test program: what fails is to be loud")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_cni::datapath::Datapath;
use ambit_cni::enrolment::DATAPLANE_MODE;
use ambit_cni::handoff::{Handoff, Limits as HandoffLimits};
use ambit_cni::pod::{Announce, AnnounceError, Announcement, Pod, REDIRECTION};
use ambit_cni::reconcile::plan::Limits;
use ambit_cni::reconcile::status::PodStatus;
use ambit_cni::reconcile::work::{Removal, Tools};
use ambit_cni::reconcile::{Pods, Reconciler};
use ambit_cni::sandbox::Sandboxes;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Readiness;
use rig::ztunnel::FakeZtunnel;
use rig::{Opening, Pair, Rig, accept, connect, listen};
use tokio::sync::watch;
use tokio::time::timeout;

#[allow(dead_code, reason = "each test program uses its part of the rig")]
mod rig;

const PATIENCE: Duration = Duration::from_secs(10);
/// Shorter than in production, so that what happens later happens soon.
const LIMITS: Limits = Limits {
    verify: Duration::from_millis(100),
    retry_min: Duration::from_millis(20),
    retry_max: Duration::from_millis(100),
    notice: Duration::from_millis(100),
    absence: Duration::from_millis(300),
};

macro_rules! in_namespaces {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            if rig::possible(stringify!($name)) {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
                    .block_on(scene::$name());
            }
        }
    )*};
}

in_namespaces! {
    a_labelled_pod_is_captured_and_said_to_be_only_then
    flushed_rules_come_back
    a_pod_that_leaves_keeps_its_open_connections
    a_restart_disturbs_nothing_and_forgets_nothing
    what_left_while_the_agent_was_away_is_released
    another_pods_namespace_is_never_used
    a_refusing_ztunnel_is_asked_again_and_its_absence_is_told
    a_pod_that_cannot_work_with_its_rules_is_let_go_until_it_can
    pods_that_come_and_go_leave_nothing
}

/// The store: pods by uid, and what is announced changes them, as in the real one.
#[derive(Debug)]
struct Store {
    pods: watch::Sender<Arc<Pods>>,
    history: Mutex<Vec<String>>,
}

impl Store {
    fn put(&self, pod: Pod) {
        self.pods.send_modify(|pods| drop(Arc::make_mut(pods).insert(pod.uid.clone(), pod)));
    }

    fn remove(&self, uid: &str) {
        self.pods.send_modify(|pods| drop(Arc::make_mut(pods).remove(uid)));
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Pod)) {
        self.pods.send_modify(|pods| change(Arc::make_mut(pods).get_mut(uid).unwrap()));
    }

    async fn wait(&self, what: &str, until: impl Fn(&Pods) -> bool) {
        let mut pods = self.pods.subscribe();
        let done = timeout(PATIENCE, pods.wait_for(|pods| until(pods))).await;
        assert!(done.is_ok(), "{what}: {:#?}", self.pods.borrow());
    }

    /// Waits for the condition's reason.
    async fn wait_reason(&self, uid: &str, reason: &str) {
        let says = |pods: &Pods| pods[uid].condition.as_ref().is_some_and(|c| c.reason == reason);
        self.wait(&format!("{uid} to be {reason}"), says).await;
    }
}

impl Announce for Store {
    async fn announce(&self, pod: &Pod, said: &Announcement) -> Result<(), AnnounceError> {
        let reason = said.condition.as_ref().map_or("-", |c| c.reason.as_str());
        let line = format!("{} {} {reason}", pod.name, said.redirection.unwrap_or("none"));
        self.history.lock().unwrap().push(line);
        self.pods.send_if_modified(|pods| {
            let Some(pod) = Arc::make_mut(pods).get_mut(&pod.uid) else { return false };
            match said.redirection {
                Some(word) => drop(pod.annotations.insert(REDIRECTION.to_owned(), word.to_owned())),
                None => drop(pod.annotations.remove(REDIRECTION)),
            }
            if said.condition.is_some() {
                pod.condition.clone_from(&said.condition);
            }
            true
        });
        Ok(())
    }
}

/// One run of the agent.
struct Agent {
    drain: Drain,
    status: watch::Receiver<Arc<Vec<PodStatus>>>,
    sandboxes: Arc<Sandboxes>,
    readiness: Readiness,
}

impl Agent {
    async fn wait(&mut self, what: &str, until: impl Fn(&[PodStatus]) -> bool) {
        let done = timeout(PATIENCE, self.status.wait_for(|list| until(list))).await.map(drop);
        assert!(done.is_ok(), "{what}: {:#?}", self.status.borrow());
    }

    async fn wait_state(&mut self, uid: &str, state: &str) {
        let is = |list: &[PodStatus]| list.iter().any(|pod| pod.uid == uid && pod.state == state);
        self.wait(&format!("{uid} to be {state}"), is).await;
    }
}

struct World {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    rig: Rig,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(dir.path().join("sandboxes")).unwrap();
        let store = Arc::new(Store { pods: watch::Sender::default(), history: Mutex::default() });
        Self { dir, store, rig: Rig::new() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ztunnel.sock")
    }

    fn link(&self, uid: &str, netns: &str) {
        let link = self.dir.path().join("sandboxes").join(uid);
        let _ = std::fs::remove_file(&link);
        symlink(format!("/run/netns/{netns}"), link).unwrap();
    }

    /// A running pod in the rig's pod namespace, labelled or not.
    fn add_pod(&self, uid: &str, ambient: bool) {
        self.link(uid, &self.rig.pod.name);
        self.store.put(pod(uid, ambient));
    }

    fn label(&self, uid: &str, mode: &str) {
        self.store.change(uid, |pod| drop(pod.labels.insert(DATAPLANE_MODE.to_owned(), mode.to_owned())));
    }

    async fn start(&self) -> Agent {
        let drain = Drain::new();
        // The socket of an earlier run goes with its task.
        let handoff = timeout(PATIENCE, async {
            loop {
                match Handoff::start(&self.socket(), HandoffLimits::default(), &drain) {
                    Ok(handoff) => return handoff,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .unwrap();
        let sandboxes = Arc::new(Sandboxes::new(&self.dir.path().join("sandboxes")).unwrap());
        let tools = Tools {
            datapath: Arc::new(Datapath::default()),
            sandboxes: Arc::clone(&sandboxes),
            handoff,
            patience: Duration::from_secs(2),
            removal: watch::channel(Removal::Stay).1,
        };
        let readiness = Readiness::new();
        let announce = Arc::clone(&self.store);
        let excluded = BTreeSet::from(["kube-system".to_owned()]);
        let pods = self.store.pods.subscribe();
        let status =
            Reconciler::start(tools, announce, excluded, LIMITS, pods, readiness.part("pods"), &drain);
        readiness.complete();
        Agent { drain, status, sandboxes, readiness }
    }

    fn rules(&self) -> String {
        self.rig.pod.sh("nft list tables; ip rule show pref 32764")
    }
}

fn pod(uid: &str, ambient: bool) -> Pod {
    let mode = if ambient { "ambient" } else { "none" };
    Pod {
        uid: uid.to_owned(),
        name: format!("cart-{uid}"),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        labels: BTreeMap::from([(DATAPLANE_MODE.to_owned(), mode.to_owned())]),
        running: true,
        addresses: rig::POD.iter().map(|a| a.parse().unwrap()).collect(),
        ..Pod::default()
    }
}

mod scene {
    use super::*;

    pub(super) async fn a_labelled_pod_is_captured_and_said_to_be_only_then() {
        let world = World::new();
        world.add_pod("u1", true);
        let mut agent = world.start().await;
        agent.wait_state("u1", "pending").await;
        world.store.wait_reason("u1", "AMB1101").await;
        assert_eq!(world.store.pods.borrow()["u1"].redirection(), Some("pending"));
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        world.store.wait_reason("u1", "Captured").await;
        assert_eq!(world.store.pods.borrow()["u1"].redirection(), Some("enabled"));
        assert_eq!(ztunnel.seen.borrow().serving["u1"], world.rig.pod.netns.id());
        agent.readiness.ready().await;

        // One that was never asked for is not written to; one that cannot be is told why.
        world.store.put(Pod { uid: "u2".into(), ..pod("u2", false) });
        let mut sidecar = pod("u3", true);
        sidecar.annotations.insert("sidecar.istio.io/status".to_owned(), "{}".to_owned());
        world.store.put(sidecar);
        world.store.wait_reason("u3", "AMB1002").await;
        assert_eq!(world.store.pods.borrow()["u2"].condition, None);
        // The order of what was said of it.
        let history = world.store.history.lock().unwrap().clone();
        let of_u1: Vec<&String> = history.iter().filter(|l| l.starts_with("cart-u1")).collect();
        assert_eq!(of_u1, ["cart-u1 pending AMB1101", "cart-u1 enabled Captured"]);
    }

    pub(super) async fn flushed_rules_come_back() {
        let world = World::new();
        world.add_pod("u1", true);
        let mut agent = world.start().await;
        let _ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        let wanted = world.rig.pod.sh("nft -s list ruleset");
        for harm in ["nft flush ruleset", "nft flush chain inet ambit nat-output", "ip rule del pref 32764"] {
            world.rig.pod.sh(harm);
            let healed = async {
                while world.rig.pod.sh("nft -s list ruleset") != wanted
                    || world.rig.pod.sh("ip rule show pref 32764").is_empty()
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            assert!(
                timeout(PATIENCE, healed).await.is_ok(),
                "{harm}: {}",
                world.rig.pod.sh("nft list ruleset")
            );
        }
    }

    pub(super) async fn a_pod_that_leaves_keeps_its_open_connections() {
        let world = World::new();
        world.add_pod("u1", false);
        let mut agent = world.start().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "out").await;
        assert_eq!(world.rules(), "");
        let app = listen(&world.rig.peer, 8080);
        let to = SocketAddr::new(rig::PEER[0].parse().unwrap(), 8080);
        let client = connect(&world.rig.pod, to, Opening::default()).unwrap();
        let mut direct = Pair(client, accept(&app).0);
        direct.exchange("before");

        world.label("u1", "ambient");
        world.store.wait_reason("u1", "Captured").await;
        direct.exchange("captured");
        let proxy = ztunnel.outbound("u1");
        let client = connect(&world.rig.pod, to, Opening::default()).unwrap();
        let mut carried = Pair(client, accept(&proxy).0);
        carried.exchange("carried");
        drop(proxy);

        world.label("u1", "none");
        world.store.wait_reason("u1", "AMB1001").await;
        assert_eq!(world.store.pods.borrow()["u1"].redirection(), None);
        // New connections are direct at once, and ztunnel is told after a while.
        let client = connect(&world.rig.pod, to, Opening::default()).unwrap();
        Pair(client, accept(&app).0).exchange("direct again");
        timeout(PATIENCE, ztunnel.seen.clone().wait_for(|seen| seen.serving.is_empty()))
            .await
            .unwrap()
            .unwrap();
        for _ in 0..5 {
            tokio::time::sleep(LIMITS.verify).await;
            carried.exchange("carried on");
            direct.exchange("as before");
        }
        assert!(world.rules().contains("inet ambit"));
        drop(carried);
        agent.wait_state("u1", "out").await;
        assert_eq!(world.rules(), "");
        assert_eq!(agent.sandboxes.claimed(), 0);
        direct.exchange("after");
    }

    pub(super) async fn a_restart_disturbs_nothing_and_forgets_nothing() {
        let world = World::new();
        world.add_pod("u1", true);
        let mut agent = world.start().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        world.store.wait_reason("u1", "Captured").await;
        let said = world.store.history.lock().unwrap().len();
        let handles = world.rig.pod.sh("nft -a list ruleset | grep -v counter");
        agent.drain.begin();
        drop((agent, ztunnel));

        let mut agent = world.start().await;
        agent.readiness.ready().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        timeout(PATIENCE, ztunnel.seen.clone().wait_for(|seen| seen.complete)).await.unwrap().unwrap();
        assert_eq!(ztunnel.serving(), ["u1"]);
        // Not a rule was replaced, and nothing was said that was said already.
        assert_eq!(world.rig.pod.sh("nft -a list ruleset | grep -v counter"), handles);
        assert_eq!(world.store.history.lock().unwrap().len(), said, "{:?}", world.store.history);
    }

    pub(super) async fn what_left_while_the_agent_was_away_is_released() {
        let world = World::new();
        world.add_pod("u1", true);
        let mut agent = world.start().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        world.store.wait_reason("u1", "Captured").await;
        agent.drain.begin();
        drop((agent, ztunnel));
        world.label("u1", "none");
        let mut agent = world.start().await;
        agent.wait_state("u1", "out").await;
        world.store.wait_reason("u1", "AMB1001").await;
        assert_eq!(world.rules(), "");
    }

    pub(super) async fn another_pods_namespace_is_never_used() {
        let world = World::new();
        world.add_pod("u1", true);
        let mut agent = world.start().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        agent.wait_state("u1", "captured").await;
        // T-72: the directory leads another pod to the same namespace, to one without its address, to nothing.
        world.add_pod("u2", true);
        world.store.wait_reason("u2", "AMB1003").await;
        world.link("u3", &world.rig.peer.name);
        world.store.put(pod("u3", true));
        world.store.wait_reason("u3", "AMB1003").await;
        world.store.put(pod("u4", true));
        world.store.wait_reason("u4", "AMB1101").await;
        assert_eq!(world.rig.peer.sh("nft list tables"), "");
        assert_eq!(ztunnel.serving(), ["u1"]);
        // The one whose sandbox it was is gone: now it is the other's.
        world.store.remove("u1");
        world.store.wait_reason("u2", "Captured").await;
        let u3 = world.store.pods.borrow()["u3"].clone();
        assert_eq!((u3.redirection(), u3.condition.as_ref().unwrap().status), (None, false));
        assert_eq!(ztunnel.serving(), ["u2"]);
    }

    pub(super) async fn a_refusing_ztunnel_is_asked_again_and_its_absence_is_told() {
        let world = World::new();
        world.add_pod("u1", true);
        let agent = world.start().await;
        agent.readiness.ready().await;
        let ztunnel = FakeZtunnel::connect_refusing(&world.socket(), "u1", "no listener").await;
        world
            .store
            .wait("the refusal to be told", |pods| {
                pods["u1"].condition.as_ref().is_some_and(|c| c.message.contains("no listener"))
            })
            .await;
        ztunnel.refuse("u1", "");
        world.store.wait_reason("u1", "Captured").await;
        drop(ztunnel);
        world.store.wait_reason("u1", "AMB1101").await;
        assert_eq!(
            world.store.pods.borrow()["u1"].redirection(),
            Some("enabled"),
            "its traffic is still redirected"
        );
        let _ztunnel = FakeZtunnel::connect(&world.socket()).await;
        world.store.wait_reason("u1", "Captured").await;
    }

    /// A ztunnel that says that it serves and does not would leave the pod without any connection.
    pub(super) async fn a_pod_that_cannot_work_with_its_rules_is_let_go_until_it_can() {
        let world = World::new();
        world.add_pod("u1", false);
        let mut agent = world.start().await;
        let ztunnel = FakeZtunnel::connect_deaf(&world.socket()).await;
        agent.wait_state("u1", "out").await;
        let app = listen(&world.rig.peer, 8080);
        let to = SocketAddr::new(rig::PEER[0].parse().unwrap(), 8080);
        let mut direct = Pair(connect(&world.rig.pod, to, Opening::default()).unwrap(), accept(&app).0);

        world.label("u1", "ambient");
        world.store.wait_reason("u1", "AMB1105").await;
        let said = world.store.pods.borrow()["u1"].clone();
        let condition = said.condition.as_ref().unwrap();
        assert_eq!((said.redirection(), condition.status), (None, false));
        assert!(condition.message.contains("15001"), "{condition:?}");
        agent.wait_state("u1", "failed").await;
        direct.exchange("untouched");

        ztunnel.hear();
        world.store.wait_reason("u1", "Captured").await;
        let mut carried =
            Pair(connect(&world.rig.pod, to, Opening::default()).unwrap(), accept(&ztunnel.outbound("u1")).0);
        carried.exchange("carried");
        direct.exchange("as before");
    }

    /// Row 13 from the agent's side: reused addresses and namespaces, other uids, swapped service accounts.
    pub(super) async fn pods_that_come_and_go_leave_nothing() {
        let world = World::new();
        let mut agent = world.start().await;
        agent.readiness.ready().await;
        let ztunnel = FakeZtunnel::connect(&world.socket()).await;
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut before = (0, 0);
        for round in 0..500 {
            let uid = format!("u{round}");
            world.link(&uid, &world.rig.pod.name);
            world.store.put(Pod { service_account: format!("account{}", round % 2), ..pod(&uid, true) });
            agent.wait_state(&uid, "captured").await;
            assert_eq!(ztunnel.serving(), std::slice::from_ref(&uid));
            assert_eq!(ztunnel.seen.borrow().serving[&uid], world.rig.pod.netns.id());
            world.store.remove(&uid);
            std::fs::remove_file(world.dir.path().join("sandboxes").join(&uid)).unwrap();
            agent.wait("no pod", <[PodStatus]>::is_empty).await;
            timeout(PATIENCE, ztunnel.seen.clone().wait_for(|seen| seen.serving.is_empty()))
                .await
                .unwrap()
                .unwrap();
            let released = async {
                while agent.sandboxes.claimed() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            assert!(timeout(PATIENCE, released).await.is_ok(), "a claim is left");
            if round == 10 {
                before = (descriptors(), tasks());
            }
        }
        let after = (descriptors(), tasks());
        assert!(
            after.0 <= before.0 + 4 && after.1 <= before.1 + 4,
            "descriptors and tasks: {after:?}, {before:?} before"
        );
    }
}
