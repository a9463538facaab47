//! Settings of the CNI plugin, and of leaving a node.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The CNI plugin and its place on the node.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PluginConfig {
    /// Install the CNI plugin on the node and keep it installed, so that pods start only after they are captured.
    #[arg(
        long,
        env = "CHAINED_CNI_PLUGIN",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    pub chained_cni_plugin: bool,

    /// Socket on which the CNI plugin asks; the same path on the node and here, in a directory of mode 700.
    #[arg(
        long,
        env = "AMBIT_PLUGIN_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/ambit/cni/plugin.sock"
    )]
    pub plugin_socket: PathBuf,

    /// Where the node's directory of CNI plugins is mounted.
    #[arg(long, env = "MOUNTED_CNI_BIN_DIR", value_name = "DIR", default_value = "/host/opt/cni/bin")]
    pub mounted_cni_bin_dir: PathBuf,

    /// Where the node's directory of CNI configurations is mounted.
    #[arg(long, env = "MOUNTED_CNI_NET_DIR", value_name = "DIR", default_value = "/host/etc/cni/net.d")]
    pub mounted_cni_net_dir: PathBuf,

    /// Name of the CNI configuration to chain to; by default the one that the container runtime uses.
    #[arg(long, env = "CNI_CONF_NAME", value_name = "FILE")]
    pub cni_conf_name: Option<String>,
}

/// Leaving the node.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RemovalConfig {
    /// A file that is there if the end of the program is also the end of the mesh on this node.
    #[arg(
        long,
        env = "AMBIT_UNINSTALL_FLAG",
        value_name = "FILE",
        default_value = "/var/run/ambit/cni/uninstall"
    )]
    pub uninstall_flag: PathBuf,

    /// How long open connections through ztunnel go on while the mesh leaves the node; 1 s to 1 h.
    #[arg(long, env = "AMBIT_RELEASE_DEADLINE", value_name = "DURATION", value_parser = release, default_value = "15s")]
    pub release_deadline: Duration,

    /// Name of our own DaemonSet: if it is gone when the program is stopped, the mesh leaves the node.
    #[arg(long, env = "DAEMONSET_NAME", value_name = "NAME", default_value = "ambit-cni")]
    pub daemonset: String,

    /// Our own namespace. Its pods start while the agent is away, and our DaemonSet is looked for in it.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub pod_namespace: Option<String>,
}

fn release(text: &str) -> Result<Duration, String> {
    super::bounded(text, Duration::from_secs(1))
}
