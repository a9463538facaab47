//! Which certificates this node needs: those of its own captured workloads, before anybody asks for them.

use std::collections::BTreeSet;

use ambit_net::tls::store::CertificateStore;
use ambit_runtime::tasks;
use ambit_state::Snapshot;
use ambit_types::{Identity, TunnelProtocol};

use crate::mesh::Mesh;

/// Identities of this node's workloads that speak HBONE.
pub(crate) fn wanted(snapshot: &Snapshot) -> BTreeSet<Identity> {
    let speaks =
        |w: &&std::sync::Arc<ambit_types::Workload>| w.native_tunnel || w.tunnel == TunnelProtocol::Hbone;
    snapshot.own_workloads().filter(speaks).map(|w| w.identity()).collect()
}

/// Fetches certificates as workloads come and forgets them as the last one with an identity goes.
pub fn follow(mesh: &Mesh, certificates: &CertificateStore) {
    let (mesh, certificates) = (mesh.clone(), certificates.clone());
    tasks::spawn("identities", async move {
        let mut changes = mesh.changes();
        let mut held = BTreeSet::new();
        loop {
            changes.mark_unchanged();
            let now = wanted(&mesh.snapshot());
            now.difference(&held).for_each(|identity| certificates.prefetch(identity));
            held.difference(&now).for_each(|identity| certificates.forget(identity));
            held = now;
            // The mesh holds the sender; it lives as long as the process.
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}
