//! What the programs of a lab over an API server are started with. Pure.

use std::fmt;
use std::net::SocketAddr;

use super::{NAMESPACE, front, members};
use crate::address::{self, CONSOLE_PORT, ISTIOD_PORT, WEBHOOK_PORT};
use crate::config::LabConfig;
use crate::paths::RunDir;
use crate::programs::spec::{self as folder, Spec, as_args, flags, logging};
use crate::topology::Node;

/// The image of waypoints: the lab runs the program of its name that stands beside its own.
const WAYPOINT_IMAGE: &str = "ambit.internal/waypoint";

/// The file with the console's token, in the first control plane's folder.
const CONSOLE_TOKEN: &str = "console-token";

/// A part of the cluster's own control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KubePart {
    /// The store behind the API server.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers.
    ControllerManager,
}

impl KubePart {
    /// Every part, in the order in which they need each other.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::ApiServer, Self::ControllerManager];

    /// The name by which it is started and told what to do.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
        }
    }
}

impl fmt::Display for KubePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part that is started again in its cluster's folder.
pub fn part(part: KubePart, config: &LabConfig, run: &RunDir) -> Spec {
    let folder = run.kube().to_string_lossy().into_owned();
    let args = ["part", part.name(), "--dir", folder.as_str()].map(str::to_owned);
    // Only one of them has a socket; the others are asked in other ways.
    let admin = run.kube().join("etcd.sock");
    Spec { program: super::binary::PROGRAM, args: args.into(), env: logging(config), admin }
}

/// Where that replica of the control plane listens.
pub fn control_plane(config: &LabConfig, replica: u16) -> SocketAddr {
    let all = address::control_planes(config.families, replica);
    let address = all.first().copied().expect("a lab has at least one family");
    SocketAddr::new(address, ISTIOD_PORT)
}

/// Where that replica serves its admission webhook: replicas share a namespace, and each has its own address.
fn webhook(config: &LabConfig, replica: u16) -> SocketAddr {
    SocketAddr::new(control_plane(config, replica).ip(), WEBHOOK_PORT)
}

/// Where that replica serves its console.
fn console(config: &LabConfig, replica: u16) -> SocketAddr {
    SocketAddr::new(control_plane(config, replica).ip(), CONSOLE_PORT)
}

/// A control plane: in the fabric's namespace. Nobody mounts Secrets for it, so the console's token is a file of the lab;
/// while it is not there nobody is answered.
pub fn istiod(config: &LabConfig, run: &RunDir, replica: u16) -> Spec {
    let state = run.istiod_replica(replica);
    let admin = state.join("admin.sock");
    let mut flags = flags(&[
        ("source", "kube"),
        ("kubeconfig", &run.istiod_kubeconfig(replica).to_string_lossy()),
        ("state-dir", &state.to_string_lossy()),
        ("listen", &control_plane(config, replica).to_string()),
        ("webhook-listen", &webhook(config, replica).to_string()),
        ("console-listen", &console(config, replica).to_string()),
        ("console-token-file", &run.istiod().join(CONSOLE_TOKEN).to_string_lossy()),
        ("waypoint-image", WAYPOINT_IMAGE),
        ("waypoint-log", &config.log_level),
        ("waypoint-grace-seconds", &folder::waypoint_grace(config).to_string()),
        ("admin-socket", &admin.to_string_lossy()),
        ("trust-domain", &config.trust_domain),
    ]);
    flags.extend(config.istiod.clone());
    let mut env = logging(config);
    env.push(("POD_NAME".to_owned(), members::istiod_pod(replica)));
    env.push(("POD_NAMESPACE".to_owned(), NAMESPACE.to_owned()));
    Spec { program: "istiod-lite", args: as_args(flags), env, admin }
}

/// The node agent: in the node's namespace.
pub fn cni(config: &LabConfig, run: &RunDir, node: &Node) -> Spec {
    let own = run.node(&node.name);
    let admin = own.join("cni-admin.sock");
    let mut flags = flags(&[
        ("source", "kube"),
        ("kubeconfig", &run.cni_kubeconfig(&node.name).to_string_lossy()),
        ("node", &node.name),
        ("zds-socket", &own.join("ztunnel.sock").to_string_lossy()),
        ("sandbox-dir", &run.sandboxes().to_string_lossy()),
        ("admin-socket", &admin.to_string_lossy()),
        // Other nodes' agents run beside it.
        ("plugin-socket", &own.join("cni-plugin.sock").to_string_lossy()),
        ("state-file", &own.join("cni-state.json").to_string_lossy()),
        ("uninstall-flag", &own.join("cni-uninstall").to_string_lossy()),
        ("tell-node-addresses", "true"),
    ]);
    flags.extend(config.cni.clone());
    Spec { program: "ambit-cni", args: as_args(flags), env: logging(config), admin }
}

/// The proxy: as in a folder's lab, but it reaches the control planes by their service's address, from its own.
pub fn ztunnel(config: &LabConfig, run: &RunDir, node: &Node, instance: u64) -> Spec {
    let mut spec = folder::ztunnel(config, run, node, instance);
    let server = format!("https://{}", SocketAddr::new(front::address(config.families), ISTIOD_PORT));
    let root = run.root_bundle().to_string_lossy().into_owned();
    let instance_ip = node.index.proxy(config.families).first().map(ToString::to_string).unwrap_or_default();
    let own = [
        ("INSTANCE_IP", instance_ip),
        ("XDS_ADDRESS", server.clone()),
        ("CA_ADDRESS", server),
        ("XDS_ROOT_CA", root.clone()),
        ("CA_ROOT_CA", root),
        // The certificate is for the service's name, not for its address.
        ("ALT_XDS_HOSTNAME", front::host()),
        ("ALT_CA_HOSTNAME", front::host()),
    ];
    let own = own.into_iter().filter(|(name, _)| !config.ztunnel.contains_key(*name));
    for (name, value) in own {
        spec.env.retain(|(known, _)| known != name);
        spec.env.push((name.to_owned(), value));
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::NodeIndex;
    use crate::name::LabName;

    #[test]
    fn each_replica_has_its_own_address_state_and_kubeconfig() {
        let (config, run) = (LabConfig::default(), RunDir::of(&LabName::default()));
        let all: Vec<Spec> = (0..3).map(|replica| istiod(&config, &run, replica)).collect();
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                for flag in [
                    "--kubeconfig",
                    "--state-dir",
                    "--listen",
                    "--webhook-listen",
                    "--console-listen",
                    "--admin-socket",
                ] {
                    assert_ne!(value(one, flag), value(other, flag), "row {flag}");
                }
            }
            assert_eq!(value(one, "--source").as_deref(), Some("kube"));
            assert_eq!(value(one, "--waypoint-image").as_deref(), Some(WAYPOINT_IMAGE));
        }
    }

    #[test]
    fn what_was_set_for_the_proxy_stays() {
        let mut config = LabConfig::default();
        config.ztunnel.insert("XDS_ADDRESS".to_owned(), "https://elsewhere:1".to_owned());
        let node = Node { name: "node1".to_owned(), index: NodeIndex::nth(0).expect("a node") };
        let spec = ztunnel(&config, &RunDir::of(&LabName::default()), &node, 1);
        let found = |name: &str| {
            spec.env.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(found("XDS_ADDRESS"), ["https://elsewhere:1"]);
        assert_eq!(found("CA_ADDRESS"), ["https://10.96.0.15:15012"]);
        assert_eq!(found("INSTANCE_IP"), ["10.244.1.254"]);
        assert_eq!(found("ALT_CA_HOSTNAME"), ["istiod.istio-system.svc"]);
    }

    fn value(spec: &Spec, flag: &str) -> Option<String> {
        let at = spec.args.iter().position(|arg| arg == flag)?;
        spec.args.get(at + 1).cloned()
    }
}
