//! The sealed state: what a start without control plane needs, kept on the node's disk under a key.
//!
//! Written after discovery has spoken, read once at a start, replaced by what discovery says then. A file that is
//! not whole, not ours or not of today is refused, and a start that finds none begins empty and denies. It never
//! decides about a connection and never makes a certificate last longer.

pub mod archive;
pub mod choice;
pub mod content;
pub mod format;
pub mod recorder;
pub mod refused;
mod saver;
pub mod store;

use std::sync::Arc;

use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use tracing::{info, warn};

pub use recorder::Recorder;

use crate::admit::describe;
use crate::config::{Config, StateConfig};
use crate::heard::LastHeard;
use crate::identity;
use crate::proxy::Proxy;
use content::{Content, KeptCredential};
use saver::Saver;
use store::{Found, Store, StoreError};

/// A state directory at a start, or none.
#[derive(Debug, Default)]
pub struct Sealed {
    store: Option<Arc<Store>>,
    recorder: Recorder,
    restored: Option<Restored>,
    credentials: Vec<KeptCredential>,
}

/// What was found there.
#[derive(Debug)]
pub struct Restored {
    /// Number of the file.
    pub number: u64,
    /// When the control plane was last heard, seconds since 1970.
    pub heard_at: u64,
    /// What discovery had said.
    pub responses: Vec<DeltaDiscoveryResponse>,
}

/// Opens the state directory if there is to be one, and reads the newest state in it.
///
/// What goes wrong is told here: a start never fails for it.
pub fn open(config: &Config) -> Sealed {
    let state = &config.state;
    if state.dir.as_os_str().is_empty() || config.discovery().is_none() {
        return Sealed::default();
    }
    if config.control.xds_on_demand {
        info!(
            "on-demand discovery: the state is not sealed, because nothing would keep what was asked for up to date"
        );
        return Sealed::default();
    }
    match Store::open(&state.dir, &state.key_file(), owner(config)) {
        Ok(store) => {
            let mut sealed = Sealed { recorder: Recorder::new(), ..Sealed::default() };
            sealed.take_in(store.load(clock::unix_seconds(), state.max_age.as_secs()));
            sealed.store = Some(Arc::new(store));
            sealed
        }
        Err(error) => {
            switched_off(&error, state);
            Sealed::default()
        }
    }
}

/// Whose state it is: cluster, as the control plane knows it, and node.
fn owner(config: &Config) -> String {
    format!("{}/{}", config.cluster_id(), config.node.node_name)
}

fn switched_off(error: &StoreError, state: &StateConfig) {
    warn!(
        dir = %state.dir.display(),
        error = describe(error),
        "the state is neither read nor sealed; a restart without control plane refuses by name"
    );
}

impl Sealed {
    /// Tells what is not used, and takes what is.
    fn take_in(&mut self, found: Found) {
        for unused in found.unused {
            let code = unused.why.reason().code();
            metrics::counter!("ambit_sealed_state_refused_total", "code" => code).increment(1);
            warn!(code, file = %unused.path.display(), error = %unused.why, "sealed state refused");
        }
        if let Some((number, Content { heard_at, responses, credentials })) = found.state {
            self.restored = Some(Restored { number, heard_at, responses });
            self.credentials = credentials;
        }
    }

    /// Where discovery puts what it applies.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// What was found; `None` on a second call.
    pub fn take_restored(&mut self) -> Option<Restored> {
        self.restored.take()
    }

    /// Puts the certificates that were found back into use: those of workloads that are here, while they are valid.
    ///
    /// Call it once the workloads are in force. The store renews each as soon as the CA answers, so a key that lay on
    /// disk does not serve for long.
    pub fn adopt_certificates(&mut self, proxy: &Proxy) {
        let wanted = identity::wanted(&proxy.mesh.snapshot());
        let mut adopted = 0_usize;
        for credential in std::mem::take(&mut self.credentials) {
            let exported = match credential.exported() {
                Ok(exported) if wanted.contains(&exported.identity) => exported,
                Ok(_) => continue,
                Err(error) => {
                    warn!(%error, "a sealed certificate is not used");
                    continue;
                }
            };
            let identity = exported.identity.clone();
            match proxy.certificates.import(exported) {
                Ok(()) => adopted += 1,
                Err(error) => warn!(%identity, error = describe(&error), "a sealed certificate is not used"),
            }
        }
        if adopted > 0 {
            info!(adopted, "sealed certificates are in use until the CA gives newer ones");
        }
    }

    /// Seals from now on until the process drains.
    pub fn keep(self, config: &Config, proxy: &Arc<Proxy>, heard: &Arc<LastHeard>, drain: &Drain) {
        let Some(store) = self.store else { return };
        let saver = Saver {
            store,
            recorder: self.recorder,
            proxy: proxy.clone(),
            heard: heard.clone(),
            with_keys: config.state.keys,
            age_max: config.state.max_age,
        };
        tasks::spawn("sealing", saver.run(drain.clone()));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_state_is_owned_by_the_cluster_that_the_control_plane_knows() {
        let mut config =
            Config::try_parse_from(["ztunnel", "--cluster-id", "c1", "--node-name", "n"]).unwrap();
        assert_eq!(owner(&config), "c1/n");
        config.environment.metadata.insert("ISTIO_META_CLUSTER_ID".to_owned(), "c2".to_owned());
        assert_eq!(owner(&config), "c2/n");
    }
}
