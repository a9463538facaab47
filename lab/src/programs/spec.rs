//! Which programs a mesh consists of, where they run and what they are started with. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use crate::address::{self, ISTIOD_PORT, NodeIndex};
use crate::config::LabConfig;
use crate::error::LabError;
use crate::kube::KubePart;
use crate::paths::RunDir;
use crate::pod::sandbox::VOLUMES;
use crate::schedule::waypoints::{Program, TOKEN};
use crate::topology::Node;

/// How long a replaced ztunnel may keep the connections it has, in seconds; the lab sets no deadline of its own.
const DRAIN_SECONDS: &str = "3600";

/// File name of the program of a waypoint's pods.
pub const WAYPOINT: &str = "waypoint";
/// Grace period of a waypoint's pod, in seconds, unless `--set` says otherwise; the program drains for a little less.
const WAYPOINT_GRACE_SECONDS: u64 = 30;
/// Where `--set` says it.
const GRACE_SETTING: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// A part of the lab that commands can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A part of the cluster's own control plane.
    Kube(KubePart),
    /// The control plane.
    Istiod,
    /// A further replica of the control plane, from 1.
    Replica(u16),
    /// The node agent of a node.
    Cni(String),
    /// The proxy of a node.
    Ztunnel(String),
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pods of a waypoint.
    Waypoint {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl FromStr for Target {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let words: Vec<&str> = text.split('/').collect();
        let own = |word: &&str| (*word).to_owned();
        match words.as_slice() {
            ["istiod"] => Ok(Self::Istiod),
            ["istiod", number] => match number.parse::<u16>() {
                Ok(number) if number > 0 => Ok(Self::istiod(number - 1)),
                _ => Err(LabError::Usage(format!(
                    "{text:?} is no control plane; they are istiod, istiod/2, ..."
                ))),
            },
            ["etcd"] => Ok(Self::Kube(KubePart::Etcd)),
            ["apiserver"] => Ok(Self::Kube(KubePart::ApiServer)),
            ["controller-manager"] => Ok(Self::Kube(KubePart::ControllerManager)),
            ["cni", node] if !node.is_empty() => Ok(Self::Cni(own(node))),
            ["ztunnel", node] if !node.is_empty() => Ok(Self::Ztunnel(own(node))),
            ["pod", ns, name] if !name.is_empty() => Ok(Self::Pod { namespace: own(ns), name: own(name) }),
            ["waypoint", ns, name] if !name.is_empty() => {
                Ok(Self::Waypoint { namespace: own(ns), name: own(name) })
            }
            _ => Err(LabError::Usage(format!(
                "{text:?} is no part of a lab; name one as istiod, ztunnel/NODE, cni/NODE, pod/NAMESPACE/NAME or waypoint/NAMESPACE/NAME, with --source kube also as istiod/N, apiserver, etcd or controller-manager"
            ))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kube(part) => part.fmt(f),
            Self::Istiod => f.write_str("istiod"),
            Self::Replica(replica) => write!(f, "istiod/{}", replica + 1),
            Self::Cni(node) => write!(f, "cni/{node}"),
            Self::Ztunnel(node) => write!(f, "ztunnel/{node}"),
            Self::Pod { namespace, name } => write!(f, "pod/{namespace}/{name}"),
            Self::Waypoint { namespace, name } => write!(f, "waypoint/{namespace}/{name}"),
        }
    }
}

impl Target {
    /// A replica of the control plane, from 0.
    pub fn istiod(replica: u16) -> Self {
        if replica == 0 { Self::Istiod } else { Self::Replica(replica) }
    }

    /// The part's log file.
    pub fn log(&self, run: &RunDir) -> PathBuf {
        match self {
            Self::Kube(part) => run.kube().join("log").join(format!("{part}.log")),
            Self::Istiod => run.logs().join("istiod.log"),
            Self::Replica(replica) => run.logs().join(format!("istiod-{}.log", replica + 1)),
            Self::Cni(node) => run.logs().join(format!("cni-{node}.log")),
            Self::Ztunnel(node) => run.logs().join(format!("ztunnel-{node}.log")),
            Self::Pod { namespace, name } | Self::Waypoint { namespace, name } => {
                run.pod_log(namespace, name)
            }
        }
    }
}

/// What one of the mesh's programs is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// File name of the program.
    pub program: &'static str,
    /// Arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where it answers `/healthz/ready`.
    pub admin: PathBuf,
}

/// Where the control plane serves its console, in the fabric's namespace.
pub const CONSOLE: &str = "127.0.0.1:7070";

/// The control plane: in the fabric's namespace.
pub fn istiod(config: &LabConfig, run: &RunDir) -> Spec {
    let state = run.istiod();
    let admin = state.join("admin.sock");
    let mut flags = flags(&[
        ("source", "folder"),
        ("folder", &run.objects().to_string_lossy()),
        ("state-dir", &state.to_string_lossy()),
        ("listen", &control_plane(config).to_string()),
        ("admin-socket", &admin.to_string_lossy()),
        // Of the fabric's namespace, so that two labs are in nobody's way.
        ("console-listen", CONSOLE),
        ("token-issuer-key", &token_issuer_key(run).to_string_lossy()),
        ("trust-domain", &config.trust_domain),
    ]);
    flags.extend(config.istiod.clone());
    Spec { program: "istiod-lite", args: as_args(flags), env: logging(config), admin }
}

/// The node agent: in the node's namespace.
pub fn cni(config: &LabConfig, run: &RunDir, node: &Node) -> Spec {
    let own = run.node(&node.name);
    let admin = own.join("cni-admin.sock");
    let mut flags = flags(&[
        ("source", "folder"),
        ("folder", &run.objects().to_string_lossy()),
        ("node", &node.name),
        ("zds-socket", &own.join("ztunnel.sock").to_string_lossy()),
        ("sandbox-dir", &run.sandboxes().to_string_lossy()),
        ("admin-socket", &admin.to_string_lossy()),
        // Other nodes' agents run beside it.
        ("plugin-socket", &own.join("cni-plugin.sock").to_string_lossy()),
        ("state-file", &own.join("cni-state.json").to_string_lossy()),
        ("uninstall-flag", &own.join("cni-uninstall").to_string_lossy()),
        // Probes of labs come from bridges as well, and nobody outside can reach them.
        ("tell-node-addresses", "true"),
    ]);
    flags.extend(config.cni.clone());
    Spec { program: "ambit-cni", args: as_args(flags), env: logging(config), admin }
}

/// The proxy: in the node's namespace. `instance` counts the starts, so that two can serve side by side.
pub fn ztunnel(config: &LabConfig, run: &RunDir, node: &Node, instance: u64) -> Spec {
    let own = run.node(&node.name);
    let admin = own.join(format!("ztunnel-admin-{instance}.sock"));
    let root = run.istiod().join("root-cert.pem").to_string_lossy().into_owned();
    let server = format!("https://{}", control_plane(config));
    let instance_ip = node.index.fabric(config.families).first().map(IpAddr::to_string).unwrap_or_default();
    let mut env = logging(config);
    let fixed = [
        ("NODE_NAME", node.name.clone()),
        ("POD_NAME", format!("ztunnel-{}", node.name)),
        ("POD_NAMESPACE", "istio-system".to_owned()),
        ("SERVICE_ACCOUNT", "ztunnel".to_owned()),
        ("INSTANCE_IP", instance_ip),
        ("XDS_ADDRESS", server.clone()),
        ("CA_ADDRESS", server),
        ("XDS_ROOT_CA", root.clone()),
        ("CA_ROOT_CA", root),
        ("AUTH_TOKEN", own.join("token").to_string_lossy().into_owned()),
        ("INPOD_UDS", own.join("ztunnel.sock").to_string_lossy().into_owned()),
        ("AMBIT_ADMIN_SOCKET", admin.to_string_lossy().into_owned()),
        ("AMBIT_STATE_DIR", own.join("state").to_string_lossy().into_owned()),
        ("AMBIT_STATE_KEY_FILE", own.join("state.key").to_string_lossy().into_owned()),
        ("CLUSTER_ID", "Kubernetes".to_owned()),
        ("TRUST_DOMAIN", config.trust_domain.clone()),
        ("TERMINATION_GRACE_PERIOD_SECONDS", DRAIN_SECONDS.to_owned()),
    ];
    env.extend(fixed.into_iter().map(|(k, v)| (k.to_owned(), v)));
    env.retain(|(name, _)| !config.ztunnel.contains_key(name));
    env.extend(config.ztunnel.iter().map(|(k, v)| (k.clone(), v.clone())));
    Spec { program: "ztunnel", args: vec!["proxy".to_owned(), "ztunnel".to_owned()], env, admin }
}

/// The program of waypoints: in pods, which have their own names, addresses and tokens.
///
/// A pod sees the machine's files, so it reaches its token and the trust bundle where the lab keeps them. Nothing
/// is mounted over `/var/run`: that would hide the lab's own directory, and with it the admin socket.
pub fn waypoint(config: &LabConfig, run: &RunDir, binaries: &Path) -> Program {
    let root = run.istiod().join("root-cert.pem").to_string_lossy().into_owned();
    let server = format!("https://{}", control_plane(config));
    let pod = run.pods().join("$(POD_UID)");
    let token = pod.join(VOLUMES).join(TOKEN).join(TOKEN);
    let grace_seconds = waypoint_grace(config);
    let mut env = vec![("RUST_LOG".to_owned(), config.log_level.clone())];
    let fixed = [
        ("XDS_ADDRESS", server.clone()),
        ("CA_ADDRESS", server),
        ("XDS_ROOT_CA", root.clone()),
        ("CA_ROOT_CA", root),
        ("AUTH_TOKEN", token.to_string_lossy().into_owned()),
        ("AMBIT_ADMIN_SOCKET", waypoint_admin(run, "$(POD_UID)").to_string_lossy().into_owned()),
        ("CLUSTER_ID", "Kubernetes".to_owned()),
        ("TRUST_DOMAIN", config.trust_domain.clone()),
        ("AMBIT_BLOCKED_CIDRS_IN_JWKS_URIS", own_ranges(config)),
        (GRACE_SETTING, grace_seconds.to_string()),
    ];
    env.extend(fixed.into_iter().map(|(k, v)| (k.to_owned(), v)));
    env.retain(|(name, _)| !config.waypoint.contains_key(name));
    env.extend(config.waypoint.iter().map(|(k, v)| (k.clone(), v.clone())));
    let path = binaries.join(WAYPOINT).to_string_lossy().into_owned();
    Program { path, env, grace_seconds }
}

/// What every waypoint is told beyond what the control plane says, where that one makes its pods.
pub fn waypoint_settings(config: &LabConfig) -> Vec<(String, String)> {
    let ranges = ("AMBIT_BLOCKED_CIDRS_IN_JWKS_URIS".to_owned(), own_ranges(config));
    let own = [ranges].into_iter().filter(|(name, _)| !config.waypoint.contains_key(name));
    own.chain(config.waypoint.clone()).collect()
}

/// Grace period of a waypoint's pod, in seconds.
pub fn waypoint_grace(config: &LabConfig) -> u64 {
    let set = config.waypoint.get(GRACE_SETTING).and_then(|text| text.parse().ok());
    set.unwrap_or(WAYPOINT_GRACE_SECONDS)
}

/// The lab's own ranges, separated by commas: the fabric with its nodes and the control plane, pods, services. What a
/// waypoint may reach in there it reaches by the host of a service.
fn own_ranges(config: &LabConfig) -> String {
    let families = config.families;
    let around = |address: IpAddr, length: u8| IpNet::new_assert(address, length).trunc();
    let fabric = address::bridge(families).into_iter().map(|ip| around(ip, address::fabric_prefix(ip)));
    let gateways = NodeIndex::nth(0).map(|node| node.gateways(families)).unwrap_or_default();
    let pods = gateways.into_iter().map(|ip| around(ip, if ip.is_ipv4() { 16 } else { 48 }));
    let ranges = fabric.chain(pods).chain(address::service_cidrs(families));
    ranges.map(|range| range.to_string()).collect::<Vec<_>>().join(",")
}

/// The admin socket of a waypoint's pod, by the pod's uid.
pub fn waypoint_admin(run: &RunDir, pod_uid: &str) -> PathBuf {
    run.pods().join(pod_uid).join("admin.sock")
}

/// Where the control plane listens: the fabric's first address in use.
pub fn control_plane(config: &LabConfig) -> SocketAddr {
    let address = address::bridge(config.families).first().copied().expect("a lab has at least one family");
    SocketAddr::new(address, ISTIOD_PORT)
}

/// The public key that node tokens are checked with.
pub fn token_issuer_key(run: &RunDir) -> PathBuf {
    run.istiod().join("token-issuer.pub.pem")
}

pub(crate) fn logging(config: &LabConfig) -> Vec<(String, String)> {
    vec![
        ("RUST_LOG".to_owned(), config.log_level.clone()),
        ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
    ]
}

pub(crate) fn flags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn as_args(flags: BTreeMap<String, String>) -> Vec<String> {
    flags.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
}

#[cfg(test)]
mod tests;
