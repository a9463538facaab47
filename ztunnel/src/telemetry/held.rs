//! What the node holds, counted at each scrape and at no other time: tunnels, certificates, policies it waits for.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_net::tls::spiffe;
use ambit_runtime::clock;
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::{family, series, single};

use crate::proxy::Proxy;

/// Upper bounds of what certificates have left, in seconds: an hour is too little, a day is the usual whole.
const REMAINING: [u64; 6] = [60, 600, 3600, 21_600, 43_200, 86_400];

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
    }

    fn policies(&self, text: &mut String) {
        let snapshot = self.0.mesh.snapshot();
        let sets = snapshot.own_workloads().filter_map(|own| snapshot.own_policies(&own.uid));
        let unresolved: usize = sets.map(|set| set.unresolved().len()).sum();
        single(text, "ambit_policy_unresolved_refs", "gauge", unresolved);
    }

    fn certificates(&self, text: &mut String) {
        const LEFT: &str = "ambit_certificate_remaining_seconds";
        let (known, now) = (self.0.certificates.list(), clock::unix_seconds());
        let credentials: Vec<_> = known.iter().filter_map(|known| known.credential.as_deref()).collect();
        let left: Vec<u64> = credentials.iter().map(|c| c.not_after().saturating_sub(now)).collect();
        family(text, "ambit_certificate_remaining_seconds", "histogram");
        for bound in REMAINING {
            let within = left.iter().filter(|left| **left <= bound).count();
            series(text, &format!("{LEFT}_bucket"), &format!("le=\"{bound}\""), within);
        }
        series(text, &format!("{LEFT}_bucket"), "le=\"+Inf\"", left.len());
        series(text, &format!("{LEFT}_sum"), "", left.iter().sum::<u64>());
        series(text, &format!("{LEFT}_count"), "", left.len());
        // Identities of one trust domain share their roots.
        let roots: BTreeSet<&[u8]> = credentials.iter().flat_map(|c| c.roots()).map(|der| &**der).collect();
        let ends = roots.into_iter().filter_map(|der| Some(spiffe::validity(der).ok()?.1));
        if let Some(first) = ends.min() {
            single(text, "ambit_root_remaining_seconds", "gauge", first.saturating_sub(now));
        }
    }
}

impl Source for Held {
    fn write(&self, text: &mut String) {
        self.tunnels(text);
        self.policies(text);
        self.certificates(text);
    }
}
