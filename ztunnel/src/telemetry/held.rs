//! What the node holds, counted at each scrape and at no other time: tunnels, policies it waits for.

use std::sync::Arc;

use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::single;

use crate::proxy::Proxy;

/// What a proxy holds.
#[derive(Debug)]
pub struct Held(Arc<Proxy>);

impl Held {
    /// What `proxy` holds.
    pub fn by(proxy: &Arc<Proxy>) -> Arc<Self> {
        Arc::new(Self(proxy.clone()))
    }

    fn tunnels(&self, text: &mut String) {
        let pods = self.0.pods.all();
        let counts = pods.iter().map(|pod| pod.pool.counts());
        let (tunnels, streams) = counts.fold((0, 0), |(t, s), (tunnels, streams)| (t + tunnels, s + streams));
        single(text, "ambit_tunnel_connections", "gauge", tunnels);
        single(text, "ambit_tunnel_streams", "gauge", streams);
        let queue: u64 = pods.iter().map(|pod| pod.pool.waiting()).sum();
        single(text, "ambit_tunnel_queue", "gauge", queue);
    }

    fn policies(&self, text: &mut String) {
        let snapshot = self.0.mesh.snapshot();
        let sets = snapshot.own_workloads().filter_map(|own| snapshot.own_policies(&own.uid));
        let unresolved: usize = sets.map(|set| set.unresolved().len()).sum();
        single(text, "ambit_policy_unresolved_refs", "gauge", unresolved);
    }
}

impl Source for Held {
    fn write(&self, text: &mut String) {
        self.tunnels(text);
        self.policies(text);
    }
}
