//! Which pods run here: starts, replaces and stops their listeners as the node agent says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsId};
use ambit_net::socket::SocketError;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use ambit_runtime::tasks;
use ambit_state::PodRef;
use tracing::{info, warn};

use super::accept::{Listeners, Permits};
use crate::legacy;
use crate::proxy::{Pod, Proxy};

/// How long connections of a pod that leaves the mesh may go on.
const POD_GRACE: Duration = Duration::from_secs(3600);

/// How long connections may go on that nobody can reach any more: enough for those that are just ending.
const GONE_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether a pod that left the mesh is still there.
const GONE_LOOK: Duration = Duration::from_secs(1);

/// A pod as the node agent names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInfo {
    /// Name, namespace and service account.
    pub name: PodRef,
}

/// Why a pod cannot be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener could not be bound.
    #[error("binding the listeners of {pod}; is another proxy in its namespace?")]
    Listen {
        /// The pod.
        pod: String,
        /// The cause.
        #[source]
        cause: SocketError,
    },
    /// Applications must see their client's address, and the kernel refuses.
    #[error("the namespace of {pod} does not permit foreign source addresses; CAP_NET_ADMIN is needed")]
    NotTransparent {
        /// The pod.
        pod: String,
    },
}

struct Running {
    netns: Option<NetNsId>,
    pod: Arc<Pod>,
}

/// The pods of this node.
pub struct Workloads {
    proxy: Arc<Proxy>,
    drain: Drain,
    running: BTreeMap<String, Running>,
    pending: BTreeMap<String, (PodInfo, NetNs)>,
    synced: bool,
    ready: Part,
    own_netns: Option<NetNsId>,
}

impl std::fmt::Debug for Workloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workloads").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Workloads {
    /// No pods; `ready` follows whether all pods handed over are captured.
    pub fn new(proxy: Arc<Proxy>, drain: Drain, ready: Part) -> Self {
        let own_netns = NetNs::current().ok().map(|netns| netns.id());
        Self {
            proxy,
            drain,
            running: BTreeMap::new(),
            pending: BTreeMap::new(),
            synced: false,
            ready,
            own_netns,
        }
    }

    /// Captures a pod: when this returns, its listeners are bound and served.
    ///
    /// A pod that runs already in the same namespace stays as it is; in another one it is replaced.
    ///
    /// # Errors
    /// [`StartError`]; the pod is then pending.
    pub fn start(&mut self, uid: &str, info: &PodInfo, netns: NetNs) -> Result<(), StartError> {
        let id = netns.id();
        if let Some(running) = self.running.get(uid) {
            if running.netns == Some(id) && running.pod.name == info.name {
                self.pending.remove(uid);
                return Ok(());
            }
            self.stop(uid, GONE_GRACE);
        }
        let again = netns.try_clone();
        match self.bind(info, netns) {
            Ok(pod) => {
                info!(uid, namespace = &*info.name.namespace, name = &*info.name.name, "pod captured");
                metrics::counter!("workload_manager_proxies_started_total").increment(1);
                self.running.insert(uid.to_owned(), Running { netns: Some(id), pod });
                self.pending.remove(uid);
                self.report();
                Ok(())
            }
            Err(error) => {
                if let Ok(netns) = again {
                    self.pending.insert(uid.to_owned(), (info.clone(), netns));
                }
                self.report();
                Err(error)
            }
        }
    }

    fn bind(&self, info: &PodInfo, netns: NetNs) -> Result<Arc<Pod>, StartError> {
        let name = || format!("{}/{}", info.name.namespace, info.name.name);
        let inside = (self.own_netns != Some(netns.id())).then(|| Arc::new(netns));
        let permits = Permits::probe(inside.as_deref());
        let wanted = self.proxy.settings.original_source;
        if wanted == Some(true) && !permits.transparent {
            return Err(StartError::NotTransparent { pod: name() });
        }
        let transparent = permits.transparent && wanted != Some(false);
        let settings = &self.proxy.settings;
        // Before anything of ours is there.
        let open = inside.as_deref().map(legacy::look).unwrap_or_default();
        let pod = Arc::new(Pod::new(info.name.clone(), inside, transparent, self.drain.child(), settings));
        let listeners = Listeners::bind(&pod, permits.ipv6 && settings.ipv6)
            .map_err(|cause| StartError::Listen { pod: name(), cause })?;
        listeners.serve(&self.proxy, &pod);
        self.proxy.pods.insert(pod.clone());
        legacy::tell(&self.proxy, &pod, open);
        Ok(pod)
    }

    /// Ends capture of a pod: nothing new, open connections may go on for a while unless the pod itself is gone.
    pub fn remove(&mut self, uid: &str) {
        self.pending.remove(uid);
        self.stop(uid, POD_GRACE);
        self.report();
    }

    /// Gives up a pod that could not be captured; one that runs goes on.
    pub fn forget(&mut self, uid: &str) {
        self.pending.remove(uid);
        self.report();
    }

    /// Tries the pods again that could not be captured.
    pub fn retry_pending(&mut self) {
        for (uid, (info, netns)) in std::mem::take(&mut self.pending) {
            if let Err(error) = self.start(&uid, &info, netns) {
                warn!(uid, error = crate::admit::describe(&error), "a pod still cannot be captured");
            }
        }
    }

    fn stop(&mut self, uid: &str, grace: Duration) {
        let Some(Running { pod, .. }) = self.running.remove(uid) else { return };
        info!(uid, namespace = &*pod.name.namespace, name = &*pod.name.name, "pod released");
        metrics::counter!("workload_manager_proxies_stopped_total").increment(1);
        let pods = self.proxy.pods.clone();
        // A process that ends meanwhile gives them its own deadline.
        pods.leave(&pod);
        tasks::spawn("pod-drain", async move {
            let cut = tokio::select! {
                cut = pod.drain.finish(grace) => cut,
                () = cut_off(&pod) => pod.drain.finish(GONE_GRACE.min(grace)).await,
            };
            pods.left(&pod);
            if cut > 0 {
                warn!(pod = &*pod.name.name, cut, "connections of a released pod were cut after their grace");
            }
        });
    }

    /// Stops every pod that is not in `named`: what a snapshot does not mention is gone.
    pub fn reconcile(&mut self, named: &BTreeSet<String>) {
        let known = self.running.keys().chain(self.pending.keys());
        let gone: Vec<String> = known.filter(|uid| !named.contains(*uid)).cloned().collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    /// A new agent begins: what was pending is named again or gone.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        self.report();
    }

    /// Marks the node agent's snapshot as complete or missing.
    pub fn synced(&mut self, synced: bool) {
        self.synced = synced;
        self.report();
    }

    /// Makes a pod pending, as a failed start does.
    #[cfg(test)]
    pub(super) fn set_pending(&mut self, uid: &str, info: PodInfo, netns: NetNs) {
        self.pending.insert(uid.to_owned(), (info, netns));
        self.report();
    }

    #[cfg(test)]
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Pods that run, by uid.
    pub fn running(&self) -> impl Iterator<Item = (&str, &PodRef)> {
        self.running.iter().map(|(uid, running)| (uid.as_str(), &running.pod.name))
    }

    /// Ready only while the agent's snapshot is known and every pod of it is captured.
    fn report(&self) {
        self.ready.set(self.synced && self.pending.is_empty());
        let count = |n: usize| u32::try_from(n).map(f64::from).unwrap_or(f64::MAX);
        metrics::gauge!("workload_manager_active_proxy_count").set(count(self.running.len()));
        metrics::gauge!("workload_manager_pending_proxy_count").set(count(self.pending.len()));
    }
}

/// Resolves when the pod has no address left: its interface is gone, and what is open in its namespace only keeps
/// that from going as well.
async fn cut_off(pod: &Pod) {
    while pod.is_reachable() {
        tokio::time::sleep(GONE_LOOK).await;
    }
}
