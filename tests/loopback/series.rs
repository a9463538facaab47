//! The metrics page of a node while pods come and go, and while a peer makes up names: bounded, exact, and in the end as
//! it was before.
//!
//! Connections are real ones through the node's own proxy, and the page is the one that is scraped. Only the time that
//! series stay is not waited for: the sweep is told that it has passed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::tunnel::client::{Opened, Tunnel, TunnelError};
use ambit_runtime::admin::{Routes, client, server};
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_runtime::metrics::{IDLE, Registry};
use ambit_state::{Change, World};
use ambit_tests::lab::soak;
use ambit_types::{Identity, Workload};
use http::HeaderValue;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use ztunnel::proxy::Pod;
use ztunnel::telemetry::{LINGER, NAMES_MAX, PAIRS_MAX};

use crate::ends::{quick, request, within};
use crate::inbound::Front;
use crate::node::{Capture, NODE, workload};

/// Pods that are there at once.
const TOGETHER: usize = 50;
/// Series of a connection that ended, for each end that tells of it: opened, closed, bytes received and sent.
const OF_ONE: usize = 4;
/// Last part of the address of the first pod that comes; the others follow.
const FIRST: u8 = 100;

/// How many pods or names: ten thousand with `AMBIT_SOAK=1`.
fn many() -> usize {
    if soak() { 10_000 } else { 500 }
}

/// The page that a scrape gets.
struct Page {
    socket: PathBuf,
    _folder: TempDir,
}

impl Page {
    fn serve(registry: &Registry) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let socket = folder.path().join("admin.sock");
        server::serve_unix(&socket, Routes::new().metrics(registry), &Drain::new()).expect("a socket");
        Self { socket, _folder: folder }
    }

    async fn scrape(&self) -> Scrape {
        let answer = within(client::get(&self.socket, "/metrics")).await.expect("it is served");
        Scrape(String::from_utf8(answer.body.to_vec()).expect("text"))
    }

    /// Scrapes until something holds of which nobody tells.
    async fn until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let begun = clock::monotonic();
        loop {
            let scrape = self.scrape().await;
            if holds(&scrape) {
                return scrape;
            }
            let waited = clock::monotonic().saturating_duration_since(begun);
            assert!(waited < Duration::from_secs(10), "not within {waited:?}: {what}\n{}", scrape.0);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Scrape(String);

impl Scrape {
    /// Every series but the one that a full ring of flow records begins, whoever filled it.
    fn lines(&self) -> impl Iterator<Item = &str> {
        const OF_RING: &str = "ambit_flow_records_lost_total{cause=\"ring\"}";
        self.0.lines().filter(|line| !line.starts_with('#') && !line.starts_with(OF_RING))
    }

    /// Series of any family.
    fn series(&self) -> usize {
        self.lines().count()
    }

    /// Series, by name and labels, that another page does not have.
    fn beyond(&self, other: &Self) -> Vec<&str> {
        let named = |line: &str| line.rsplit_once(' ').map_or(0, |(name, _)| name.len());
        let there: BTreeSet<&str> = other.lines().map(|line| &line[..named(line)]).collect();
        self.lines().map(|line| &line[..named(line)]).filter(|name| !there.contains(name)).collect()
    }

    /// Values of a family's series that have a label.
    fn values(&self, family: &str, label: &str) -> Vec<u64> {
        let begin = format!("{family}{{");
        let lines = self.lines().filter(|line| line.starts_with(&begin) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number")).collect()
    }

    fn sum(&self, family: &str, label: &str) -> u64 {
        self.values(family, label).iter().sum()
    }
}

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const SENT: &str = "istio_tcp_sent_bytes_total";

/// The application's side of a client.
enum Near {
    /// In a pod of the same node, joined within the proxy.
    Joined(TcpStream),
    /// On another node, in a tunnel with a certificate of its own.
    Tunnelled(Box<(Tunnel, Opened)>),
}

impl Near {
    /// Reads the one byte that the server sends.
    async fn read(&mut self) {
        match self {
            Self::Joined(tcp) => assert_eq!(within(tcp.read_u8()).await.expect("a byte"), b'x'),
            Self::Tunnelled(held) => {
                let data = within(held.1.recv.data()).await.expect("data").expect("the tunnel is there");
                assert_eq!(&*data, b"x");
            }
        }
    }
}

/// A pod with its one connection.
struct One {
    workload: Workload,
    pod: Option<Arc<Pod>>,
    near: Near,
    far: TcpStream,
}

/// A node with one pod that stays, `bank/web`, and pods that do not.
struct Churn {
    front: Front,
    world: World,
    capture: Capture,
    page: Page,
}

impl Churn {
    async fn start(registry: &Registry) -> Self {
        let front = Front::start(|_| {}).await;
        registry.add(front.node.proxy.telemetry.source());
        // What is captured on its way to this address, and then the application that is there.
        let capture = Capture::at(front.addresses.at(2, 0)).await;
        let mut world = World::new(NODE);
        let web = workload("bank/web", NODE, front.addresses.ip(2));
        front.node.proxy.mesh.publish(world.apply([Change::from(web)]));
        Self { front, world, capture, page: Page::serve(registry) }
    }

    /// Pods come, each with an address that others had before; every other one is on this node.
    async fn come(&mut self, batch: usize) -> Vec<One> {
        let named = |n: usize| format!("churn/pod-{batch}-{n}");
        let workloads: Vec<Workload> = (0..TOGETHER)
            .map(|n| {
                let node = if n % 2 == 0 { NODE } else { "n2" };
                let last = FIRST + u8::try_from(n).expect("few");
                workload(&named(n), node, self.front.addresses.ip(last))
            })
            .collect();
        let applied = self.world.apply(workloads.iter().cloned().map(Change::from));
        self.front.node.proxy.mesh.publish(applied);
        let mut ones = Vec::with_capacity(TOGETHER);
        for (n, workload) in workloads.into_iter().enumerate() {
            ones.push(self.connect(&named(n), workload, n % 2 == 0).await);
        }
        ones
    }

    /// One connection of a pod to `bank/web`, as its identity, with one byte that comes back.
    async fn connect(&self, key: &str, workload: Workload, is_here: bool) -> One {
        let address = workload.addresses[0];
        let (pod, mut near) = if is_here {
            let pod = self.front.node.pod(key);
            let (proxy, serving) = (self.front.node.proxy.clone(), pod.clone());
            let serve = |tcp, from| ztunnel::outbound::serve(proxy, serving, tcp, from);
            let (app, _) = self.capture.connect(address, serve).await;
            (Some(pod), Near::Joined(app))
        } else {
            let tunnel = within(self.front.tunnel_of(&workload.identity(), address)).await.expect("a tunnel");
            let asked = request(self.capture.address());
            let opened = within(tunnel.connect(asked, &quick())).await.expect("it is let in");
            (None, Near::Tunnelled(Box::new((tunnel, opened))))
        };
        let mut far = self.capture.accept().await;
        far.write_all(b"x").await.expect("open");
        near.read().await;
        One { workload, pod, near, far }
    }

    /// Their connections end; the pods are still there.
    fn hang_up(ones: Vec<One>) -> Vec<(Workload, Option<Arc<Pod>>)> {
        ones.into_iter()
            .map(|One { workload, pod, near, far }| {
                drop((near, far));
                (workload, pod)
            })
            .collect()
    }

    /// The pods go, and discovery tells so.
    fn go(&mut self, pods: Vec<(Workload, Option<Arc<Pod>>)>) {
        let proxy = &self.front.node.proxy;
        let gone = pods.iter().map(|(workload, _)| Change::RemoveAddress(workload.uid.as_str().to_owned()));
        proxy.mesh.publish(self.world.apply(gone));
        for pod in pods.into_iter().filter_map(|(_, pod)| pod) {
            proxy.pods.leave(&pod);
            proxy.pods.left(&pod);
        }
    }

    /// Forgets what is to be forgotten once `passed` has gone by.
    fn sweep(&self, passed: Duration) {
        let proxy = &self.front.node.proxy;
        proxy.telemetry.sweep(&proxy.mesh, clock::monotonic() + passed);
    }

    /// Pods come, connect and go; the connections that the page told of.
    async fn batch(&mut self, batch: usize, series_max: usize) -> u64 {
        // A pod that is joined is told of by both ends, any other by the end that is here.
        let ends = TOGETHER / 2 * 3;
        let (told, label) = (u64::try_from(ends).expect("few"), format!("source_workload=\"pod-{batch}-"));
        let ones = self.come(batch).await;
        let scrape = self.page.scrape().await;
        assert_eq!(scrape.values(OPENED, &label), vec![1; ends], "{}", scrape.0);
        assert!(scrape.series() <= series_max, "{} series of {series_max}", scrape.series());
        let pods = Self::hang_up(ones);
        let ended = |scrape: &Scrape| scrape.sum(CLOSED, &label) == told;
        let scrape = self.page.until("all connections have ended", ended).await;
        assert_eq!(scrape.sum(OPENED, &label), told);
        assert_eq!(scrape.sum(SENT, &label), told, "a byte each");
        assert!(scrape.series() <= series_max, "{} series of {series_max}: {}", scrape.series(), scrape.0);
        self.go(pods);
        self.sweep(Duration::ZERO);
        let scrape = self.page.scrape().await;
        assert_eq!(scrape.sum(CLOSED, &label), told, "a scrape has to see the last values");
        self.sweep(LINGER);
        told
    }
}

/// Row 5 of seeing: pods come and go by the thousand, and the page is as before.
#[tokio::test]
async fn pods_come_and_go_and_the_series_are_as_before() {
    let (registry, _counting) = Registry::of_thread(IDLE).expect("a registry");
    let mut churn = Churn::start(&registry).await;
    // Everything that a node tells of once it has had a connection of either kind.
    churn.batch(0, usize::MAX).await;
    let base = churn.page.scrape().await;
    let series_max = base.series() + TOGETHER / 2 * 3 * OF_ONE;
    let mut told = 0;
    let batches = many() / TOGETHER;
    for batch in 1..=batches {
        told += churn.batch(batch, series_max).await;
        let scrape = churn.page.scrape().await;
        let none: [&str; 0] = [];
        assert_eq!(scrape.beyond(&base), none, "after batch {batch}");
        assert!(!scrape.0.contains("pod-"), "{}", scrape.0);
    }
    assert_eq!(told, u64::try_from(batches * TOGETHER / 2 * 3).expect("few"));
    println!(
        "{} pods came and went: {} series before and after, at most {series_max}",
        batches * TOGETHER,
        base.series()
    );
}

/// What a peer says of itself, all of it new each time.
fn made_up(asked: &mut http::Request<()>, n: usize) {
    let mut header = |name: &'static str, value: String| {
        asked.headers_mut().insert(name, HeaderValue::from_str(&value).expect("a header"));
    };
    header(
        "baggage",
        format!(
            "k8s.cluster.name=made-up-{n},k8s.namespace.name=made-up-{n},k8s.deployment.name=made-up-{n},\
             service.name=made-up-{n},service.version=v{n},cloud.region=made-up-{n},\
             cloud.availability_zone=made-up-{n}"
        ),
    );
    header("forwarded", format!("for=192.0.2.1;host=made-up-{n}.example"));
    header("user-agent", format!("made-up-{n}"));
}

/// One request of a peer with made up names: every third goes where somebody listens, the others ask for what is not
/// there, by names and by addresses.
async fn ask(tunnel: &Tunnel, front: &Front, app: &TcpListener, n: usize) {
    let mut asked = request(app.local_addr().expect("bound"));
    match n % 3 {
        0 => {}
        1 => *asked.uri_mut() = uri(&format!("made-up-{n}.example:80")),
        _ => {
            let port = 1 + u16::try_from(n % 60_000).expect("below 60000");
            *asked.uri_mut() = uri(&front.addresses.at(77, port).to_string());
        }
    }
    made_up(&mut asked, n);
    let answered = within(tunnel.connect(asked, &quick())).await;
    if n.is_multiple_of(3) {
        let opened = answered.expect("it is let in");
        drop((within(app.accept()).await.expect("it arrives"), opened));
    } else {
        let refused = answered.map(drop).expect_err("nobody is there");
        assert!(matches!(refused, TunnelError::Refused { .. }), "request {n}: {refused:?}");
    }
}

fn uri(authority: &str) -> http::Uri {
    http::Uri::builder().authority(authority).build().expect("an authority")
}

/// One tunnel after the other: a tunnel takes as many requests as it takes.
const REQUESTS_OF_ONE: usize = 100;

/// A peer that discovery does not know has a few names of its own; what it makes up beyond them is told as `unknown`, under
/// the identity that it proved, and is no less exact.
#[tokio::test]
async fn names_that_a_peer_makes_up_add_no_series() {
    let (registry, _counting) = Registry::of_thread(IDLE).expect("a registry");
    let front = Front::start(|_| {}).await;
    registry.add(front.node.proxy.telemetry.source());
    let page = Page::serve(&registry);
    let app = TcpListener::bind(front.addresses.at(2, 0)).await.expect("loopback");
    let evil = Identity::parse("spiffe://cluster.local/ns/far/sa/evil").expect("an identity");
    let source = front.addresses.ip(200);
    let sweep = || {
        let proxy = &front.node.proxy;
        proxy.telemetry.sweep(&proxy.mesh, clock::monotonic() + IDLE);
    };
    let round = async |from: usize, to: usize| {
        for begin in (from..to).step_by(REQUESTS_OF_ONE) {
            let tunnel = within(front.tunnel_of(&evil, source)).await.expect("a tunnel");
            for n in begin..(begin + REQUESTS_OF_ONE).min(to) {
                ask(&tunnel, &front, &app, n).await;
            }
        }
    };
    let (warm, many) = (REQUESTS_OF_ONE, many());
    round(0, warm).await;
    let ended = |n: usize| move |scrape: &Scrape| scrape.sum(CLOSED, "") == u64::try_from(n).expect("few");
    page.until("all have ended", ended(warm)).await;
    sweep();
    let base = page.scrape().await;
    assert_eq!(base.sum(OPENED, ""), 0, "{}", base.0);

    round(warm, warm + many).await;
    let scrape = page.until("all have ended", ended(many)).await;
    let own = scrape.values(OPENED, &format!("source_principal=\"{evil}\""));
    assert_eq!(own.iter().sum::<u64>(), u64::try_from(many).expect("few"), "{}", scrape.0);
    assert_eq!(scrape.sum(OPENED, ""), own.iter().sum::<u64>(), "none is told as anybody else's");
    let (names, unknown) = (own.len(), scrape.sum(OPENED, "source_workload=\"unknown\""));
    assert_eq!(
        (names, unknown),
        (NAMES_MAX + 1, u64::try_from(many - NAMES_MAX).expect("few")),
        "{}",
        scrape.0
    );
    // For each name what a connection has, once more for what failed, and for the nameless each flag.
    let series_max = base.series() + (NAMES_MAX + 1) * (OF_ONE + 1) + 2 * 4;
    assert!(scrape.series() <= series_max && series_max < PAIRS_MAX, "{}", scrape.0);
    sweep();
    let none: [&str; 0] = [];
    assert_eq!(page.scrape().await.beyond(&base), none);
    println!("{many} made up names: {} series more, and none after a while", scrape.series() - base.series());
}
