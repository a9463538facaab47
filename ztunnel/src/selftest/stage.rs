//! What the self-test plays on: a proxy like the node's own, with the node's settings, whose world has one pod.
//!
//! It has its own world, certificates, books and telemetry, so nothing of it shows among the node's connections, and
//! no one of the node's pods, policies or certificates is touched. The code is the node's: the same handshake, plan,
//! decision and relay.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ambit_net::socket::SocketOptions;
use ambit_net::tls::store::CertificateStore;
use ambit_policy::decide::STATIC_STRICT;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, Values};
use ambit_runtime::drain::Drain;
use ambit_state::{Change, PodRef, World};
use ambit_types::{Identity, PolicyKey, Str, TrustDomain, TunnelProtocol, Workload};

use super::issuer::Issuer;
use crate::connections::Connections;
use crate::mesh::Mesh;
use crate::proxy::{Pod, Pods, Proxy, Settings};
use crate::random;
use crate::stale::Pairs;
use crate::telemetry::{StaleFor, Telemetry};

/// Where everything of the self-test listens, for as long as one attempt takes.
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Service account of the pod that is called.
pub(super) const SERVER: &str = "server";
/// Service account of the caller that the policy allows.
pub(super) const ALLOWED: &str = "allowed";
/// Service account of a caller that no policy allows.
pub(super) const DENIED: &str = "denied";
/// Service account that nobody has.
pub(super) const NOBODY: &str = "nobody";

/// Longest time of one attempt; the steps inside have limits of their own, which the node's settings may make longer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Trust domain of no mesh.
const DOMAIN: &str = "selftest.ambit.internal";
/// Name of the node, the namespace and the pod.
const NAME: &str = "selftest";

/// The self-test has no control plane that could be away.
#[derive(Debug)]
struct Never;

impl StaleFor for Never {
    fn stale_for(&self) -> Option<u64> {
        None
    }
}

/// What the application does with a connection. It does all of it, except where a test looks at attempts that hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct App {
    /// It reads what it is sent.
    pub(super) reads: bool,
    /// It gives back what it read.
    pub(super) answers: bool,
}

/// The one pod and its proxy.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) proxy: Arc<Proxy>,
    pub(super) pod: Arc<Pod>,
    pub(super) own: Workload,
    pub(super) issuer: Arc<Issuer>,
    pub(super) app: App,
    /// Longest time of one attempt.
    pub(super) patience: Duration,
}

impl Stage {
    /// A stage with the node's settings on which `policies` hold.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub(super) fn new(node: &Settings, policies: Vec<Policy>) -> Result<Self, String> {
        let issuer = Arc::new(Issuer::new().map_err(|error| format!("making an authority: {error}"))?);
        let own = server(&policies)?;
        let settings = settings(node);
        let telemetry = Telemetry::new(NAME, 1, Arc::new(Never)).hidden();
        let changes = policies.into_iter().map(Change::from).chain([Change::from(own.clone())]);
        let applied = World::new(NAME).apply(changes);
        let pod = Arc::new(Pod::new(PodRef::of(&own), None, false, Drain::new(), &settings));
        let proxy = Proxy {
            mesh: Mesh::new(applied.snapshot),
            certificates: CertificateStore::new(issuer.clone(), Arc::new(random::number)),
            connections: Connections::new(telemetry.clone()),
            telemetry,
            pods: Pods::default(),
            pairs: Pairs::default(),
            settings,
        };
        let (app, patience) = (App { reads: true, answers: true }, ATTEMPT_TIMEOUT);
        Ok(Self { proxy: Arc::new(proxy), pod, own, issuer, app, patience })
    }

    /// The identity of an account of the self-test.
    pub(super) fn identity(&self, account: &str) -> Identity {
        Identity::new(self.own.trust_domain.clone(), self.own.namespace.clone(), Str::from(account))
    }
}

/// The node's settings, but for what belongs to pods' namespaces: nothing is redirected here, so nothing is marked.
fn settings(node: &Settings) -> Settings {
    let sockets = SocketOptions { mark: None, local_congestion: None, ..(*node.sockets).clone() };
    Settings { sockets: Arc::new(sockets), original_source: Some(false), ..node.clone() }
}

/// The pod that is called, on which the policies hold.
fn server(policies: &[Policy]) -> Result<Workload, String> {
    let mut own = Workload::new(format!("selftest//Pod/{NAME}/{SERVER}"), NAME, SERVER);
    own.trust_domain = TrustDomain::parse(DOMAIN).map_err(|error| error.to_string())?;
    own.service_account = Str::from(SERVER);
    own.workload_name = Str::from(SERVER);
    own.node = Str::from(NAME);
    own.addresses = vec![LOOPBACK];
    own.tunnel = TunnelProtocol::Hbone;
    own.settings = Some(Arc::default());
    own.policies = policies.iter().map(|policy| policy.key.clone()).collect();
    Ok(own)
}

/// The policies of the self-test: one caller is allowed, and only with an identity.
pub(super) fn policies() -> Vec<Policy> {
    let policy = |name: &str, action, principals| Policy {
        key: PolicyKey::new(NAME, name),
        scope: Scope::WorkloadSelector,
        action,
        rules: vec![rule(Match { principals, ..Match::default() })],
        dry_run: false,
        until: None,
    };
    let caller = StringMatch::Exact(Str::from(format!("{DOMAIN}/ns/{NAME}/sa/{ALLOWED}")));
    let allowed = Values { any: vec![caller], none: Vec::new() };
    let anybody = Values { any: Vec::new(), none: vec![StringMatch::Presence] };
    vec![policy("allow", Action::Allow, allowed), policy(STATIC_STRICT, Action::Deny, anybody)]
}

fn rule(one: Match) -> Rule {
    Rule { clauses: vec![Clause { matches: vec![one] }], ..Rule::default() }
}
