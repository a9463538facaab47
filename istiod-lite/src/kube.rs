//! What `--source kube` adds: a client, an election, and what works only with an API server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ambit_kube::lease::Election;
use ambit_manifest::Problem;
use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use anyhow::Context as _;
use kube::Client;
use rustls::ServerConfig;
use tokio::sync::watch;
use tracing::warn;

use crate::admit::bundle::{self, BundleParts};
use crate::admit::{self, AdmitParts};
use crate::ca::authn::Verifier;
use crate::ca::keeper::{Keeper, Settings};
use crate::ca::review::{Limits, Reviewer};
use crate::ca::rotation::Times;
use crate::ca::secret::Secrets;
use crate::config::Config;
use crate::lead::{self, LeadParts};
use crate::world::World;

/// The Lease that the leader holds.
const LEASE: &str = "istiod-lite";
/// Pause between two attempts to open the authority.
const PAUSE: Duration = Duration::from_secs(2);

/// The API server, as this replica sees it. Cheap to clone.
#[derive(Clone)]
pub struct Kube {
    /// For calls.
    pub client: Client,
}

/// What is shared with the parts that work only with an API server.
#[derive(Debug)]
pub struct Shared {
    /// The mesh; complete.
    pub world: Arc<World>,
    /// Differs after each update of the mesh.
    pub changed: watch::Receiver<u64>,
    /// What is wrong with objects that cannot be read; changes before `changed` does.
    pub problems: watch::Receiver<Arc<[Problem]>>,
    /// The trust bundle, PEM.
    pub bundle: watch::Receiver<Arc<str>>,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// TLS with our own certificate.
    pub tls: ServerConfig,
}

impl Kube {
    /// Opens the way to the API server; asks nothing yet.
    ///
    /// # Errors
    /// If no API server is known.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let kubeconfig = config.kubernetes.kubeconfig.as_deref();
        let client = ambit_kube::client::connect(kubeconfig).await.context("looking for the API server")?;
        Ok(Self { client })
    }

    /// The authority in Secrets of the root namespace; made if there is none. Tries until that is done.
    pub async fn keeper(&self, config: &Config) -> Keeper {
        let certificates = &config.certificates;
        let usual = Settings::new(config.mesh.trust_domain.clone(), certificates.leaf_ttl, false);
        let (lag, nudge) = (certificates.rotation_lag.as_secs(), certificates.rotation_nudge.as_secs());
        let confirm = certificates.rotation_confirm.as_secs();
        let settings = Settings { times: Times { lag, nudge }, confirm, ..usual };
        let mut told = BTreeSet::new();
        loop {
            let (namespace, replica) =
                (config.mesh.root_namespace.clone(), config.kubernetes.pod_name.clone());
            let secrets = Secrets::new(self.client.clone(), namespace, replica);
            match Keeper::in_secret(secrets, settings.clone(), clock::wall()).await {
                Ok(keeper) => return keeper,
                Err(cause) => {
                    let cause = format!("{:#}", anyhow::Error::new(cause));
                    // Each cause once; there are few.
                    if told.insert(cause.clone()) {
                        warn!(cause, "the certificate authority cannot be opened yet; it is tried again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Callers are those the API server vouches for.
    pub fn verifier(&self, config: &Config) -> Verifier {
        let audience = config.callers.token_audience.clone();
        Verifier::Review(Reviewer::new(self.client.clone(), audience, Limits::default()))
    }

    /// Takes part in the election of the one replica that writes.
    pub fn elect(&self, config: &Config, drain: &Drain) -> watch::Receiver<bool> {
        let election = Election::new(config.pod_namespace(), LEASE, &config.kubernetes.pod_name);
        election.start(self.client.clone(), drain)
    }

    /// Starts what only the leader does, and the admission webhook, which every replica serves.
    ///
    /// # Errors
    /// If the webhook's address cannot be had.
    pub async fn start(&self, config: &Config, shared: Shared, drain: &Drain) -> anyhow::Result<()> {
        let Shared { world, changed, problems, bundle, leader, tls } = shared;
        let listen = config.webhook.webhook_listen;
        admit::serve(AdmitParts { listen, tls, world: world.clone(), drain: drain.clone() }).await?;
        let keeping = bundle::keep(BundleParts {
            client: self.client.clone(),
            configuration: config.webhook.webhook_configuration.clone(),
            namespace: config.mesh.root_namespace.clone(),
            fail_closed: config.webhook.webhook_fail_closed,
            bundle: bundle.clone(),
            leader: leader.clone(),
            drain: drain.clone(),
        });
        drop(tasks::spawn("webhook-configuration", keeping));
        drop(lead::start(LeadParts {
            client: self.client.clone(),
            leader,
            world,
            changed,
            bundle,
            problems,
            settings: lead::Settings {
                root_namespace: config.mesh.root_namespace.clone(),
                cluster_domain: config.mesh.cluster_domain.clone(),
                instance: config.kubernetes.pod_name.clone(),
                waypoints: config.waypoints(),
            },
            drain: drain.clone(),
        }));
        Ok(())
    }
}
