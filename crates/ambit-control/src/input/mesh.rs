//! Objects of the mesh's own API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::{EgressRule, Locality, Str};
use ipnet::IpNet;

use super::{Created, Labels, Name};

/// An authorization policy as it was written; nothing is interpreted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its namespace and name.
    pub name: Name,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// Labels it selects; empty selects all.
    pub selector: Labels,
    /// Number of `targetRef` and `targetRefs`, which make it a waypoint's affair.
    pub targets: usize,
    /// What it does.
    pub action: PolicyAction,
    /// Its rules.
    pub rules: Vec<PolicyRule>,
    /// Annotation `istio.io/dry-run`.
    pub dry_run: bool,
    /// When it goes out of force by itself, in seconds since 1970; only of a pass (break-glass).
    pub until: Option<u64>,
}

/// What an authorization policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyAction {
    /// Permits.
    #[default]
    Allow,
    /// Refuses.
    Deny,
    /// Marks for an audit log.
    Audit,
    /// Asks somebody else.
    Custom,
}

impl PolicyAction {
    /// As manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// One rule: a source, an operation and every condition must agree; an absent part always does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRule {
    /// Any of these.
    pub from: Vec<Source>,
    /// Any of these.
    pub to: Vec<Operation>,
    /// All of these.
    pub when: Vec<Condition>,
}

/// Wanted and unwanted values as texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// One of these, unless empty.
    pub any: Vec<Str>,
    /// None of these.
    pub none: Vec<Str>,
}

impl Terms {
    /// Whether nothing is compared.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// `principals`, `notPrincipals`.
    pub principals: Terms,
    /// `requestPrincipals`, `notRequestPrincipals`.
    pub request_principals: Terms,
    /// `namespaces`, `notNamespaces`.
    pub namespaces: Terms,
    /// `ipBlocks`, `notIpBlocks`.
    pub ip_blocks: Terms,
    /// `remoteIpBlocks`, `notRemoteIpBlocks`.
    pub remote_ip_blocks: Terms,
    /// `serviceAccounts`, `notServiceAccounts`.
    pub service_accounts: Terms,
    /// `trustDomains`, `notTrustDomains`.
    pub trust_domains: Terms,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// `hosts`, `notHosts`.
    pub hosts: Terms,
    /// `ports`, `notPorts`.
    pub ports: Terms,
    /// `methods`, `notMethods`.
    pub methods: Terms,
    /// `paths`, `notPaths`.
    pub paths: Terms,
}

/// A further condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// What is compared, such as `source.ip`.
    pub key: Str,
    /// `values`, `notValues`.
    pub values: Terms,
}

/// How plaintext is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// As the level above says.
    #[default]
    Unset,
    /// Like permissive: the mesh encrypts wherever it can.
    Disable,
    /// Plaintext is accepted.
    Permissive,
    /// Plaintext is refused.
    Strict,
}

/// Strictness towards plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Its namespace and name.
    pub name: Name,
    /// When it was made.
    pub created: Created,
    /// Labels it selects; empty for a namespace or, in the root namespace, the mesh.
    pub selector: Labels,
    /// Mode of the workload.
    pub mode: Mode,
    /// Modes of single ports; only with a selector.
    pub ports: BTreeMap<u16, Mode>,
}

/// Where pods of a namespace may connect outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Its namespace and name.
    pub name: Name,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// Labels it selects; empty selects every pod of the namespace.
    pub selector: Labels,
    /// What it allows; without a rule nothing.
    pub rules: Vec<EgressRule>,
}

/// How the addresses of a service entry are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Resolution {
    /// The address the client asked for.
    #[default]
    None,
    /// The endpoints listed.
    Static,
    /// By DNS (also `DNS_ROUND_ROBIN` and `DYNAMIC_DNS`).
    Dns,
}

/// A service beyond the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its namespace and name.
    pub name: Name,
    /// When it was made.
    pub created: Created,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Host names it stands for.
    pub hosts: Vec<Str>,
    /// Virtual addresses and ranges.
    pub addresses: Vec<IpNet>,
    /// Virtual addresses allocated for each host.
    pub allocated: BTreeMap<Str, Vec<IpAddr>>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Endpoints listed in it.
    pub endpoints: Vec<Endpoint>,
    /// Pods and workload entries behind it; empty when endpoints are listed.
    pub workload_selector: Labels,
    /// Identities its endpoints may have.
    pub subject_alt_names: Vec<Str>,
}

/// A port of a service entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPort {
    /// Its name.
    pub name: Str,
    /// Its number.
    pub number: u16,
    /// Its protocol, such as `HTTP`.
    pub protocol: Str,
    /// Port of the endpoints; the same number when not given.
    pub target: Option<u16>,
}

/// Where a workload beyond the cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// IP address or host name; may be empty when a network is given.
    pub address: Str,
    /// Ports by name.
    pub ports: BTreeMap<Str, u16>,
    /// Labels.
    pub labels: Labels,
    /// Network; the local one when empty.
    pub network: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Share of traffic; 0 when not given.
    pub weight: u32,
    /// Service account; empty when not given.
    pub service_account: Str,
}

/// A workload beyond the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Its namespace and name.
    pub name: Name,
    /// Its annotations.
    pub annotations: Labels,
    /// Where and what it is; labels of metadata and spec are merged.
    pub endpoint: Endpoint,
}
