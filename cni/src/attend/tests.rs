//! What the plugin is answered when the objects say this or that.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use super::*;
use crate::plugin::spec::PodRef;

const QUICK: Limits = Limits { knowing: Duration::from_millis(20), capturing: Duration::from_millis(50) };

struct World {
    pods: watch::Sender<Arc<Pods>>,
    namespaces: watch::Sender<Arc<Namespaces>>,
    status: watch::Sender<Arc<Vec<PodStatus>>>,
    removal: watch::Sender<Removal>,
    attendant: Attendant,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (pods, shown) = watch::channel(Arc::default());
    let (namespaces, known) = watch::channel(Arc::default());
    let (status, reported) = watch::channel(Arc::default());
    let (removal, leaving) = watch::channel(Removal::Stay);
    let attendant = Attendant {
        pods: shown,
        namespaces: known,
        status: reported,
        sandboxes: Arc::new(Sandboxes::new(dir.path()).unwrap()),
        excluded: Arc::new(BTreeSet::from(["kube-system".to_owned()])),
        removal: leaving,
        limits: QUICK,
    };
    World { pods, namespaces, status, removal, attendant, _dir: dir }
}

impl World {
    fn pod(&self, mode: &str) {
        let labels = BTreeMap::from([(DATAPLANE_MODE.to_owned(), mode.to_owned())]);
        let pod = Pod {
            uid: "u1".to_owned(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            namespace_labels: Some(labels.clone()),
            ..Pod::default()
        };
        self.pods.send_replace(Arc::new(Pods::from([("u1".to_owned(), pod)])));
        self.namespaces.send_replace(Arc::new(Namespaces::from([("shop".to_owned(), labels)])));
    }

    /// A pod that is seen before its namespace is, with this label of its own.
    fn pod_without_namespace(&self, mode: Option<&str>) {
        let labels = mode.map(|mode| (DATAPLANE_MODE.to_owned(), mode.to_owned()));
        let pod = Pod {
            uid: "u1".to_owned(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            labels: labels.into_iter().collect(),
            ..Pod::default()
        };
        self.pods.send_replace(Arc::new(Pods::from([("u1".to_owned(), pod)])));
    }

    fn report(&self, state: &'static str, ztunnel: &'static str, netns: Option<u64>) {
        self.status.send_replace(Arc::new(vec![PodStatus {
            uid: "u1".to_owned(),
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            enrolled: true,
            state,
            reason: Some("AMB1103"),
            message: Some("the words".to_owned()),
            rules: None,
            ztunnel,
            netns,
            last_error: None,
            ignored: Vec::new(),
        }]));
    }

    async fn ask(&self, ask: Ask, namespace: &str, netns: Option<OwnedFd>) -> Answer {
        let uid = Some("u1".to_owned());
        let question = Question {
            version: wire::VERSION,
            ask,
            container: "c1".to_owned(),
            pod: PodRef { namespace: namespace.to_owned(), name: "cart".to_owned(), uid },
            addresses: BTreeSet::<IpAddr>::new(),
        };
        self.attendant.answer(&question, netns).await
    }
}

fn own() -> Option<OwnedFd> {
    NetNs::current().unwrap().as_fd().try_clone_to_owned().ok()
}

#[tokio::test]
async fn a_pod_that_is_not_in_the_mesh_starts_at_once() {
    let world = world();
    assert_eq!(world.ask(Ask::Add, "kube-system", own()).await.verdict, Verdict::Proceed, "excluded");
    world.pod("none");
    assert_eq!(world.ask(Ask::Add, "shop", own()).await.verdict, Verdict::Proceed);
    assert_eq!(world.ask(Ask::Check, "shop", own()).await.verdict, Verdict::Proceed);
    assert_eq!(world.ask(Ask::Del, "shop", None).await.verdict, Verdict::Proceed);
}

#[tokio::test]
async fn a_pod_that_nobody_knows_waits_if_its_namespace_is_in_the_mesh_or_unknown() {
    let world = world();
    assert_eq!(world.ask(Ask::Add, "shop", own()).await.verdict, Verdict::Later);
    for (mode, want) in [("ambient", Verdict::Later), ("none", Verdict::Proceed)] {
        world.pod(mode);
        world.pods.send_replace(Arc::default());
        assert_eq!(world.ask(Ask::Add, "shop", own()).await.verdict, want, "{mode}");
    }
}

#[tokio::test]
async fn a_pod_whose_namespace_is_not_known_yet_does_not_start_outside_the_mesh() {
    let world = world();
    for (own_label, want) in [
        (None, Verdict::Later),
        // Neither asks nor opts out, so its namespace decides.
        (Some("sidecar"), Verdict::Later),
        (Some("none"), Verdict::Proceed),
        // In the mesh by itself; that this is the node's own network shows how far it came.
        (Some("ambient"), Verdict::Refused),
    ] {
        world.pod_without_namespace(own_label);
        assert_eq!(world.ask(Ask::Add, "shop", own()).await.verdict, want, "{own_label:?}");
    }
}

#[tokio::test]
async fn the_namespace_of_a_pod_is_waited_for() {
    for (mode, want) in [("ambient", Verdict::Refused), ("none", Verdict::Proceed)] {
        let mut world = world();
        world.attendant.limits.knowing = Duration::from_secs(5);
        world.pod_without_namespace(None);
        // Polled in this order: the question waits when the namespace comes.
        let (answer, ()) =
            tokio::join!(biased; world.ask(Ask::Add, "shop", own()), async { world.pod(mode) });
        assert_eq!(answer.verdict, want, "{mode}: {}", answer.message);
    }
}

#[tokio::test]
async fn a_pod_of_the_mesh_never_starts_in_the_nodes_network_or_without_one() {
    let world = world();
    world.pod("ambient");
    for netns in [own(), None, std::fs::File::open("/proc/self/ns/mnt").ok().map(OwnedFd::from)] {
        let answer = world.ask(Ask::Add, "shop", netns).await;
        assert_eq!((answer.verdict, answer.reason.as_deref()), (Verdict::Refused, Some("AMB1003")));
    }
    world.removal.send_replace(Removal::Release);
    assert_eq!(world.ask(Ask::Add, "shop", own()).await.verdict, Verdict::Proceed, "the mesh leaves");
}

#[tokio::test]
async fn a_start_waits_for_capture_in_that_very_namespace() {
    // Needs the right to make a namespace.
    let Ok(netns) = NetNs::create_anonymous() else { return };
    let fd = || netns.as_fd().try_clone_to_owned().ok();
    let world = world();
    world.pod("ambient");
    world.report("captured", "held", Some(netns.id().inode));
    assert_eq!(world.ask(Ask::Add, "shop", fd()).await.message, "captured");
    assert_eq!(world.attendant.sandboxes.given("u1").unwrap().0, netns.id());
    for (state, ztunnel, want, words) in [
        ("pending", "none", Verdict::Later, "no ztunnel on this node"),
        ("failed", "none", Verdict::Refused, "the words"),
        ("waiting", "held", Verdict::Later, "the words"),
    ] {
        world.report(state, ztunnel, Some(netns.id().inode));
        let answer = world.ask(Ask::Add, "shop", fd()).await;
        assert_eq!(answer.verdict, want, "{state}");
        assert!(answer.message.contains(words), "{}", answer.message);
    }
    world.ask(Ask::Del, "shop", None).await;
    assert_eq!(world.attendant.sandboxes.given("u1"), None);
}
