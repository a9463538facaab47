//! Simulated proxies: the product's own discovery streams, with tokens, TLS and acknowledgements, and nothing behind
//! them. Of what they are given only the bytes are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ambit_benches::Mode;
use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::grpc::xds_stream::XdsStream;
use ambit_runtime::{clock, tasks};
use ambit_xds::Kind;
use ambit_xds::client::{self, Client};
use ambit_xds::node::NodeIdentity;
use ambit_xds::parts;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use anyhow::{Context as _, anyhow, bail};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::layout::{self, Layout};

/// Proxies on demand that open their streams at once. An API server reviews at most 16 tokens of one address at once,
/// and all of them call from this machine.
const OPENING: usize = 8;
/// The same of those that want everything: each first answer is the whole mesh.
const OPENING_WILDCARD: usize = 2;
/// How long one proxy may take to have everything it asked for.
const SYNC_MAX: Duration = Duration::from_secs(120);

/// What happens to proxies.
#[derive(Debug)]
pub(crate) enum News {
    /// One has everything it asked for.
    Synced {
        /// From its first step to reach the control plane.
        after: Duration,
    },
    /// One was given the resource that is looked for.
    Arrived {
        /// Its node.
        node: usize,
        /// When.
        at: Instant,
    },
    /// One has lost its stream, or never got one.
    Lost {
        /// Its node.
        node: usize,
        /// Why.
        why: anyhow::Error,
    },
}

/// What a proxy was given so far.
#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    resources: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Bytes of responses, without what gRPC, HTTP/2 and TLS add.
    pub bytes: u64,
    /// Resources in them, those taken away included.
    pub resources: u64,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    mode: Mode,
    tallies: Vec<Tally>,
    /// The resource that is looked for.
    sought: RwLock<String>,
    opening: Semaphore,
    news: mpsc::Sender<News>,
}

/// All proxies; they leave when it is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    tasks: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Proxies of the first `count` nodes; none has called yet.
    pub(crate) fn new(target: Target, mode: Mode, count: usize) -> Self {
        // One word of each for each of the things that may be waited for.
        let (sender, news) = mpsc::channel(4 * count);
        let opening = match mode {
            Mode::OnDemand => OPENING,
            Mode::Wildcard => OPENING_WILDCARD,
        };
        let shared = Shared {
            target,
            mode,
            tallies: (0..count).map(|_| Tally::default()).collect(),
            sought: RwLock::default(),
            opening: Semaphore::new(opening),
            news: sender,
        };
        Self { shared: Arc::new(shared), news, tasks: Vec::new() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shared.tallies.len()
    }

    /// Lets one of them call.
    pub(crate) fn call(&mut self, layout: &Layout, node: usize, token: String) {
        let asked = match self.shared.mode {
            Mode::OnDemand => layout.asked_by(node),
            Mode::Wildcard => BTreeSet::new(),
        };
        let proxy = Proxy { shared: Arc::clone(&self.shared), node, asked, token };
        self.tasks.push(tasks::spawn("proxy", proxy.run()));
    }

    /// Waits until so many more have everything they asked for; how long each took.
    ///
    /// # Errors
    /// If one loses its stream.
    pub(crate) async fn until_synced(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            match self.next().await? {
                News::Synced { after } => all.push(after),
                News::Arrived { .. } | News::Lost { .. } => {}
            }
        }
        Ok(all)
    }

    /// From now on, who is given this resource says so.
    pub(crate) fn seek(&self, resource: &str) {
        let mut sought = self.shared.sought.write().unwrap_or_else(PoisonError::into_inner);
        resource.clone_into(&mut sought);
    }

    /// Waits until those nodes' proxies, and no matter who else, have what is looked for; the last one's time. After
    /// `patience` the nodes that still lack it.
    ///
    /// # Errors
    /// If one loses its stream.
    pub(crate) async fn until_arrived(
        &mut self,
        mut nodes: BTreeSet<usize>,
        patience: Duration,
    ) -> anyhow::Result<Result<Instant, BTreeSet<usize>>> {
        let end = tokio::time::Instant::now() + patience;
        let mut last = clock::monotonic();
        while !nodes.is_empty() {
            let Ok(news) = tokio::time::timeout_at(end, self.next()).await else { return Ok(Err(nodes)) };
            match news? {
                News::Arrived { node, at } => {
                    if nodes.remove(&node) {
                        last = at;
                    }
                }
                News::Synced { .. } | News::Lost { .. } => {}
            }
        }
        Ok(Ok(last))
    }

    /// That all of them still have their streams.
    ///
    /// # Errors
    /// If one has lost it.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        while let Ok(news) = self.news.try_recv() {
            unless_lost(news)?;
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<News> {
        unless_lost(self.news.recv().await.context("all simulated proxies have ended")?)
    }

    /// What each was given so far.
    pub(crate) fn given(&self) -> Vec<Given> {
        let read = |tally: &Tally| Given {
            bytes: tally.bytes.load(Ordering::Relaxed),
            resources: tally.resources.load(Ordering::Relaxed),
        };
        self.shared.tallies.iter().map(read).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn unless_lost(news: News) -> anyhow::Result<News> {
    match news {
        News::Lost { node, why } => Err(why.context(format!("the simulated proxy of node {node}"))),
        News::Synced { .. } | News::Arrived { .. } => Ok(news),
    }
}

/// One of them.
struct Proxy {
    shared: Arc<Shared>,
    node: usize,
    /// What it still waits for.
    asked: BTreeSet<String>,
    token: String,
}

impl Proxy {
    async fn run(mut self) {
        let Err(why) = self.follow().await else { return };
        // Nobody listens once the measurement is over.
        let _ = self.shared.news.send(News::Lost { node: self.node, why }).await;
    }

    /// Opens its stream and follows it until it ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut stream = {
            let shared = Arc::clone(&self.shared);
            let _turn = shared.opening.acquire().await?;
            let started = clock::monotonic();
            let sync = tokio::time::timeout(SYNC_MAX, self.sync());
            let stream = sync.await.map_err(|_| {
                anyhow!("after {} s it lacks {} names it asked for", SYNC_MAX.as_secs(), self.asked.len())
            })??;
            let after = clock::monotonic().saturating_duration_since(started);
            shared.news.send(News::Synced { after }).await?;
            stream
        };
        loop {
            let response = stream.next().await?;
            self.take(&stream, response).await?;
        }
    }

    /// Opens the stream; returns once everything that was asked for is there.
    async fn sync(&mut self) -> anyhow::Result<XdsStream> {
        let caller =
            Caller { token: self.token.clone(), cluster_id: "Kubernetes".to_owned(), headers: Vec::new() };
        let mut target = self.shared.target.clone();
        // Each node calls from an address of its own: those of one address are limited.
        target.local_address = Some(layout::address(self.node));
        let mut stream = XdsStream::open(&target, &caller, self.first_requests()).await?;
        let mut answered = BTreeSet::new();
        while answered.len() < Kind::ALL.len() || !self.asked.is_empty() {
            let response = stream.next().await?;
            if parts::is_last(&response) {
                answered.insert(response.type_url.clone());
            }
            for resource in &response.resources {
                self.asked.remove(&resource.name);
            }
            self.take(&stream, response).await?;
        }
        Ok(stream)
    }

    /// The requests that a proxy which just started sends first.
    fn first_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        let identity = NodeIdentity {
            ip: layout::address(self.node),
            pod_name: layout::proxy(self.node),
            namespace: layout::SYSTEM.to_owned(),
            node_name: layout::node(self.node),
            metadata: BTreeMap::new(),
        };
        let mode = match self.shared.mode {
            Mode::OnDemand => client::Mode::OnDemand,
            Mode::Wildcard => client::Mode::Wildcard,
        };
        let mut client = Client::new(identity, mode, client::Limits::default());
        for name in &self.asked {
            // It answers by its requests; the tickets are for those who wait in the proxy.
            let _ = client.look_up(name, clock::monotonic());
        }
        client.on_connect()
    }

    /// Counts a response and acknowledges it.
    async fn take(&self, stream: &XdsStream, response: DeltaDiscoveryResponse) -> anyhow::Result<()> {
        let at = clock::monotonic();
        let count = response.resources.len() + response.removed_resources.len();
        let tally = self.shared.tallies.get(self.node).context("a proxy without a place")?;
        tally.bytes.fetch_add(u64::try_from(response.encoded_len())?, Ordering::Relaxed);
        tally.resources.fetch_add(u64::try_from(count)?, Ordering::Relaxed);
        let is_sought = {
            let sought = self.shared.sought.read().unwrap_or_else(PoisonError::into_inner);
            !sought.is_empty() && response.resources.iter().any(|resource| resource.name == *sought)
        };
        if is_sought {
            self.shared.news.send(News::Arrived { node: self.node, at }).await?;
        }
        if response.nonce.is_empty() {
            bail!("a response without a nonce");
        }
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        Ok(stream.send(answer).await?)
    }
}
