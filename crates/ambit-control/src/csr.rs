//! May this caller have a certificate for this identity?
//!
//! The caller's token and the request were read by then; what they said are facts here. Only the key and the proof
//! that the caller holds it are taken from a request; names, lifetime and everything else are ours to decide. A
//! request that asks for more than it may have is refused rather than trimmed, because nobody honest sends one.
//! Nothing is parsed, signed or logged here.

use std::net::IpAddr;
use std::time::Duration;

use ambit_types::{Identity, Reason, Str, TrustDomain};

use crate::input::{Node, Pod};

mod memory;
#[cfg(test)]
mod tests;

pub use memory::{Fingerprint, Memory};

/// Longest request, in bytes of PEM.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Requests at once of who asks for its own certificate only: its replicas on a node may start together.
const OWN_BURST: u32 = 10;
/// Its requests a second in the long run.
const OWN_PER_SECOND: u32 = 1;
/// Its keys that are remembered.
const OWN_KEYS: usize = 64;

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Root of trust of every identity we issue.
    pub trust_domain: TrustDomain,
    /// Service accounts, as `NAMESPACE/NAME`, whose pods may ask for other pods' certificates.
    pub trusted_node_accounts: Vec<Str>,
    /// Whether a token counts only from an address of the pod or of the node it is bound to; default true.
    pub bind_token_to_node_address: bool,
    /// Life of a certificate, and the longest anybody gets; default 24 h.
    pub leaf_ttl: Duration,
    /// Whether RSA keys of 2048 bits and more are certified, for foreign proxies; default false.
    pub accept_rsa: bool,
    /// Requests a caller may make at once; default 500, as a node's proxy needs.
    pub burst: u32,
    /// Requests a caller may make a second in the long run; default 100.
    pub per_second: u32,
    /// Keys of a caller that are remembered, so that none is certified twice; default 4096, the oldest go first.
    pub keys_remembered: usize,
}

impl Rules {
    /// The same rules for a service account that asks for its own certificate only, wherever it calls from: it needs
    /// few, and has a small budget of its own.
    #[must_use]
    pub fn for_own_identity(&self, namespace: &str, account: &str) -> Self {
        Self {
            trusted_node_accounts: vec![Str::from(format!("{namespace}/{account}"))],
            bind_token_to_node_address: false,
            burst: self.burst.min(OWN_BURST),
            per_second: self.per_second.min(OWN_PER_SECOND),
            keys_remembered: self.keys_remembered.min(OWN_KEYS),
            ..self.clone()
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            trusted_node_accounts: vec![Str::from("istio-system/ztunnel")],
            bind_token_to_node_address: true,
            leaf_ttl: Duration::from_secs(24 * 3600),
            accept_rsa: false,
            burst: 500,
            per_second: 100,
            keys_remembered: 4096,
        }
    }
}

/// Who asks, as a verified token and the connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of its service account.
    pub namespace: Str,
    /// Its service account.
    pub service_account: Str,
    /// Name of the node the token is bound to; empty if it is bound to none.
    pub node: Str,
    /// Uid of that node.
    pub node_uid: Str,
    /// Name of the pod the token is bound to; empty if it is bound to none.
    pub pod: Str,
    /// Uid of that pod; empty if the token names none.
    pub pod_uid: Str,
    /// Address the connection came from.
    pub source: IpAddr,
}

/// The cluster as far as one node is concerned.
pub trait Cluster {
    /// The node of that name.
    fn node(&self, name: &str) -> Option<&Node>;
    /// Pods scheduled on it, whatever their phase.
    fn pods_on<'a>(&'a self, node: &'a str) -> Box<dyn Iterator<Item = &'a Pod> + 'a>;
}

impl Cluster for crate::Index {
    fn node(&self, name: &str) -> Option<&Node> {
        Self::node(self, name)
    }

    fn pods_on<'a>(&'a self, node: &'a str) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
        Box::new(Self::pods_on(self, node))
    }
}

/// A certificate request as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Csr {
    /// Too long to be read at all.
    Oversized {
        /// Its length in bytes.
        bytes: usize,
    },
    /// No PKCS#10 request.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// A request.
    Read(Facts),
}

/// What a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The key to certify.
    pub key: PublicKey,
    /// Digest of the key.
    pub fingerprint: Fingerprint,
    /// Whether the request is signed by that key.
    pub proven: bool,
    /// URIs it asks to be named by.
    pub uris: Vec<Str>,
    /// Names of any other kind it asks for, as `KIND:NAME`.
    pub other_names: Vec<Str>,
    /// Whether it asks to be an authority.
    pub authority: bool,
}

/// Kind and strength of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// Length of its modulus.
        bits: usize,
    },
    /// Anything else.
    Other {
        /// What it is.
        algorithm: Str,
    },
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The identity as text; none asks for the caller's own.
    pub identity: Option<Str>,
    /// Life in seconds.
    pub validity_seconds: i64,
    /// The request.
    pub csr: Csr,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The one name of the certificate.
    pub identity: Identity,
    /// Its life.
    pub ttl: Duration,
}

/// Which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// The caller's service account may not ask for others.
    CallerAccount,
    /// The token is bound to no node.
    TokenNode,
    /// The token's node does not exist.
    NodeUnknown,
    /// The token's node was replaced by another of the same name.
    NodeUid,
    /// The caller is neither in its pod nor on its node.
    SourceAddress,
    /// The caller asked too often.
    Rate,
    /// The identity is no identity.
    Identity,
    /// The identity belongs to another trust domain.
    TrustDomain,
    /// The caller may have its own identity only.
    OwnIdentity,
    /// No pod of that identity is known on the node.
    PodUnknown,
    /// All pods of that identity on the node have ended.
    PodFinished,
    /// Pods of that identity on the node share its network and have no identity in the mesh.
    PodHostNetwork,
    /// The life asked for is not positive.
    Validity,
    /// The request is too long.
    CsrSize,
    /// The request cannot be read.
    CsrSyntax,
    /// The request is not signed by its key.
    CsrProof,
    /// The key is too weak or of a kind we do not certify.
    CsrKey,
    /// The request asks for a name that is not the identity.
    CsrNames,
    /// The request asks to be an authority.
    CsrAuthority,
    /// The key was certified before.
    CsrReplay,
}

impl Check {
    /// Its name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallerAccount => "caller-account",
            Self::TokenNode => "token-node",
            Self::NodeUnknown => "node-unknown",
            Self::NodeUid => "node-uid",
            Self::SourceAddress => "source-address",
            Self::Rate => "rate",
            Self::Identity => "identity",
            Self::TrustDomain => "trust-domain",
            Self::OwnIdentity => "own-identity",
            Self::PodUnknown => "pod-unknown",
            Self::PodFinished => "pod-finished",
            Self::PodHostNetwork => "pod-host-network",
            Self::Validity => "validity",
            Self::CsrSize => "csr-size",
            Self::CsrSyntax => "csr-syntax",
            Self::CsrProof => "csr-proof",
            Self::CsrKey => "csr-key",
            Self::CsrNames => "csr-names",
            Self::CsrAuthority => "csr-authority",
            Self::CsrReplay => "csr-replay",
        }
    }

    /// The answer the caller gets.
    pub fn answer(self) -> Answer {
        match self {
            Self::CallerAccount
            | Self::TokenNode
            | Self::NodeUnknown
            | Self::NodeUid
            | Self::SourceAddress => Answer::Unauthenticated,
            Self::Rate => Answer::ResourceExhausted,
            Self::TrustDomain
            | Self::OwnIdentity
            | Self::PodUnknown
            | Self::PodFinished
            | Self::PodHostNetwork => Answer::PermissionDenied,
            Self::Identity
            | Self::Validity
            | Self::CsrSize
            | Self::CsrSyntax
            | Self::CsrProof
            | Self::CsrKey
            | Self::CsrNames
            | Self::CsrAuthority
            | Self::CsrReplay => Answer::InvalidArgument,
        }
    }
}

/// How the answer is classed on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// We do not believe the caller.
    Unauthenticated,
    /// We believe the caller, and it may not have this.
    PermissionDenied,
    /// The request itself is wrong.
    InvalidArgument,
    /// Later.
    ResourceExhausted,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: check {} failed: {detail}", Reason::IssuanceRefused, check.as_str())]
pub struct Refusal {
    /// Which check failed.
    pub check: Check,
    /// With what values.
    pub detail: String,
}

fn refuse<T>(check: Check, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { check, detail: detail.into() })
}

/// Decides whether a caller is who it says: a proxy of a node that exists, calling from its own pod or from that node.
///
/// # Errors
/// [`Refusal`] names the first check that failed.
pub fn authenticate(cluster: &dyn Cluster, rules: &Rules, caller: &Caller) -> Result<(), Refusal> {
    let account = format!("{}/{}", caller.namespace, caller.service_account);
    if !rules.trusted_node_accounts.iter().any(|a| **a == *account) {
        return refuse(
            Check::CallerAccount,
            format!("service account {account} is not trusted to ask for pods"),
        );
    }
    if caller.node.is_empty() || caller.node_uid.is_empty() {
        return refuse(Check::TokenNode, "the token is not bound to a node");
    }
    let Some(node) = cluster.node(&caller.node) else {
        return refuse(Check::NodeUnknown, format!("node {} does not exist", caller.node));
    };
    if node.uid != caller.node_uid {
        let detail = format!("node {} has uid {}, the token says {}", node.name, node.uid, caller.node_uid);
        return refuse(Check::NodeUid, detail);
    }
    let source = caller.source.to_canonical();
    if rules.bind_token_to_node_address && !is_at_home(cluster, node, caller, source) {
        let detail =
            format!("{source} is no address of node {} and none known of {}", node.name, pod_of(caller));
        return refuse(Check::SourceAddress, detail);
    }
    Ok(())
}

/// Whether a call comes from the live pod that its token is bound to, or from that pod's node: a proxy may share its
/// node's network, or the cluster's network may translate pods' addresses to the node's.
fn is_at_home(cluster: &dyn Cluster, node: &Node, caller: &Caller, source: IpAddr) -> bool {
    // An address outlives its pod: by name alone it might be of another one.
    let is_own = |pod: &&Pod| {
        !caller.pod_uid.is_empty()
            && pod.uid == caller.pod_uid
            && pod.name.namespace == caller.namespace
            && pod.service_account == caller.service_account
            && !pod.phase.is_final()
    };
    let of_pod = cluster.pods_on(&node.name).filter(is_own).flat_map(|pod| &pod.addresses);
    node.addresses.iter().chain(of_pod).any(|address| address.to_canonical() == source)
}

/// The pod that a token is bound to, in words.
fn pod_of(caller: &Caller) -> String {
    match caller.pod.is_empty() {
        true => "a pod, as the token is bound to none".to_owned(),
        false => format!("pod {}/{} there", caller.namespace, caller.pod),
    }
}

/// Decides whether the caller gets a certificate, and remembers what it has to.
///
/// `now` is the time since 1970. [`authenticate`] is part of this.
///
/// # Errors
/// [`Refusal`] names the first check that failed.
pub fn authorize(
    cluster: &dyn Cluster,
    rules: &Rules,
    memory: &mut Memory,
    now: Duration,
    caller: &Caller,
    request: &Request,
) -> Result<Grant, Refusal> {
    authenticate(cluster, rules, caller)?;
    if !memory.admit(rules, now, caller) {
        let Caller { namespace, service_account, node, .. } = caller;
        let detail = format!(
            "{namespace}/{service_account} on node {node} asked more than {} times a second",
            rules.per_second
        );
        return refuse(Check::Rate, detail);
    }
    let identity = requested(rules, caller, request)?;
    runs_on(cluster, &caller.node, &identity)?;
    if request.validity_seconds <= 0 {
        return refuse(Check::Validity, format!("a life of {} seconds", request.validity_seconds));
    }
    let fingerprint = check_csr(rules, &identity, &request.csr)?;
    if !memory.remember(rules, caller, fingerprint) {
        return refuse(Check::CsrReplay, "this key was certified before; every request needs a fresh one");
    }
    let asked = Duration::from_secs(request.validity_seconds.unsigned_abs());
    Ok(Grant { identity, ttl: asked.min(rules.leaf_ttl) })
}

fn requested(rules: &Rules, caller: &Caller, request: &Request) -> Result<Identity, Refusal> {
    let Some(text) = &request.identity else {
        let own = (caller.namespace.clone(), caller.service_account.clone());
        return Ok(Identity::new(rules.trust_domain.clone(), own.0, own.1));
    };
    let identity = match Identity::parse(text) {
        Ok(identity) => identity,
        Err(e) => return refuse(Check::Identity, e.to_string()),
    };
    if *identity.trust_domain() != rules.trust_domain {
        let detail = format!("{identity} is not of trust domain {}", rules.trust_domain);
        return refuse(Check::TrustDomain, detail);
    }
    Ok(identity)
}

/// A pod of that identity must be alive on the node, with a network of its own.
fn runs_on(cluster: &dyn Cluster, node: &str, identity: &Identity) -> Result<(), Refusal> {
    let (mut finished, mut host_network) = (false, false);
    for pod in cluster.pods_on(node) {
        if pod.name.namespace != *identity.namespace() || pod.service_account != *identity.service_account() {
            continue;
        }
        match (pod.phase.is_final(), pod.host_network) {
            (false, false) => return Ok(()),
            (true, _) => finished = true,
            (false, true) => host_network = true,
        }
    }
    match (host_network, finished) {
        (true, _) => refuse(
            Check::PodHostNetwork,
            format!("pods of {identity} on node {node} share the node's network"),
        ),
        (false, true) => {
            refuse(Check::PodFinished, format!("every pod of {identity} on node {node} has ended"))
        }
        (false, false) => {
            refuse(Check::PodUnknown, format!("no pod of {identity} is scheduled on node {node}"))
        }
    }
}

fn check_csr(rules: &Rules, identity: &Identity, csr: &Csr) -> Result<Fingerprint, Refusal> {
    let facts = match csr {
        Csr::Oversized { bytes } => {
            return refuse(Check::CsrSize, format!("{bytes} bytes, at most {REQUEST_BYTES_MAX}"));
        }
        Csr::Unreadable { why } => return refuse(Check::CsrSyntax, why.clone()),
        Csr::Read(facts) => facts,
    };
    check_key(rules, &facts.key)?;
    if !facts.proven {
        return refuse(Check::CsrProof, "the request is not signed by the key it names");
    }
    if facts.authority {
        return refuse(Check::CsrAuthority, "the request asks to be an authority");
    }
    let wanted = identity.to_string();
    let stranger = facts.uris.iter().find(|uri| ***uri != *wanted).or_else(|| facts.other_names.first());
    if let Some(name) = stranger {
        return refuse(Check::CsrNames, format!("the request asks for the name {name:?} besides {wanted}"));
    }
    if facts.uris.len() > 1 {
        return refuse(Check::CsrNames, format!("the request asks for {} names", facts.uris.len()));
    }
    Ok(facts.fingerprint)
}

fn check_key(rules: &Rules, key: &PublicKey) -> Result<(), Refusal> {
    match key {
        PublicKey::P256 | PublicKey::P384 | PublicKey::Ed25519 => Ok(()),
        PublicKey::Rsa { bits } if rules.accept_rsa && *bits >= 2048 => Ok(()),
        PublicKey::Rsa { bits } if rules.accept_rsa => {
            refuse(Check::CsrKey, format!("an RSA key of {bits} bits, at least 2048"))
        }
        PublicKey::Rsa { bits } => refuse(
            Check::CsrKey,
            format!("an RSA key of {bits} bits; P-256, P-384 and Ed25519 are certified"),
        ),
        PublicKey::Other { algorithm } => refuse(
            Check::CsrKey,
            format!("a key of kind {algorithm}; P-256, P-384 and Ed25519 are certified"),
        ),
    }
}
