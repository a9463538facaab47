//! Configuration: the environment names operators of ztunnel know, each also a flag.
//!
//! Read once in `main`; no other code reads the environment. A value that is not understood ends the program with
//! the name of its variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_net::socket::{Keepalive, SocketOptions};
use ambit_net::tunnel::TunnelSettings;
use ambit_state::SameNode;
use clap::{Args, Parser, ValueEnum};

mod node;
mod state;
#[cfg(test)]
mod tests;
mod workers;

pub use node::node_metadata;
pub use state::StateConfig;
pub use workers::Workers;

/// Everything ztunnel can be told.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ztunnel",
    version,
    about = "Per-node tunnel of the Ambit mesh: carries enrolled pods' TCP as HBONE"
)]
pub struct Config {
    /// Words that other launchers pass (`proxy ztunnel`); accepted and not used.
    #[arg(hide = true)]
    pub words: Vec<String>,
    /// This node and this pod.
    #[command(flatten)]
    pub node: Node,
    /// Control plane and CA.
    #[command(flatten)]
    pub control: Control,
    /// Listeners and sockets in the pods.
    #[command(flatten)]
    pub pods: Pods,
    /// HTTP/2 and the pool.
    #[command(flatten)]
    pub tunnels: Tunnels,
    /// Ports and sockets of our own, logs.
    #[command(flatten)]
    pub surface: Surface,
    /// Draining.
    #[command(flatten)]
    pub drain: DrainConfig,
    /// What survives a restart.
    #[command(flatten)]
    pub state: StateConfig,
    /// Threads.
    #[command(flatten)]
    pub workers: Workers,
    /// Print every setting with its value and origin, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Shift the wall clock by so many seconds; for tests in a lab only.
    #[arg(long, hide = true, env = "AMBIT_TEST_CLOCK_OFFSET", allow_hyphen_values = true)]
    pub test_clock_offset: Option<i64>,
}

/// This node and this pod.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// Name of the node; decides which workloads are ours.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Network id of the node.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// Cluster id; `ISTIO_META_CLUSTER_ID` takes precedence.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Name of ztunnel's own pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of ztunnel's own pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub pod_namespace: String,
    /// Service account of ztunnel's own pod.
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "")]
    pub service_account: String,
    /// Address of ztunnel's own pod, for the node id.
    #[arg(long, env = "INSTANCE_IP", default_value = "1.1.1.1")]
    pub instance_ip: IpAddr,
}

/// Control plane and CA.
#[derive(Debug, Clone, Args)]
pub struct Control {
    /// Discovery address; https is assumed. Empty: no discovery.
    #[arg(long, env = "XDS_ADDRESS", default_value = "https://istiod.istio-system.svc:15012")]
    pub xds_address: String,
    /// CA address; https is assumed.
    #[arg(long, env = "CA_ADDRESS", default_value = "https://istiod.istio-system.svc:15012")]
    pub ca_address: String,
    /// Roots for discovery: a file, or PEM.
    #[arg(long, env = "XDS_ROOT_CA", default_value = "./var/run/secrets/istio/root-cert.pem")]
    pub xds_root_ca: String,
    /// Roots for the CA: a file, or PEM.
    #[arg(long, env = "CA_ROOT_CA", default_value = "./var/run/secrets/istio/root-cert.pem")]
    pub ca_root_ca: String,
    /// Another name the discovery server's certificate may have.
    #[arg(long, env = "ALT_XDS_HOSTNAME")]
    pub alt_xds_hostname: Option<String>,
    /// Another name the CA's certificate may have.
    #[arg(long, env = "ALT_CA_HOSTNAME")]
    pub alt_ca_hostname: Option<String>,
    /// Token file, read anew for every call.
    #[arg(long, env = "AUTH_TOKEN", default_value = "./var/run/secrets/tokens/istio-token")]
    pub auth_token: String,
    /// Ask only for the addresses that are used.
    #[arg(long, env = "XDS_ON_DEMAND", action = clap::ArgAction::Set, default_value_t = false)]
    pub xds_on_demand: bool,
    /// Lifetime asked for certificates.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = humantime::parse_duration)]
    pub secret_ttl: Duration,
}

/// Listeners and sockets in the pods.
#[derive(Debug, Clone, Args)]
pub struct Pods {
    /// Socket of the node agent.
    #[arg(long, env = "INPOD_UDS", default_value = "/var/run/ztunnel/ztunnel.sock")]
    pub inpod_uds: PathBuf,
    /// Mark of our packets in the pods.
    #[arg(long, env = "PACKET_MARK", default_value_t = 1337)]
    pub packet_mark: u32,
    /// Whether IPv6 is used at all.
    #[arg(long, env = "IPV6_ENABLED", action = clap::ArgAction::Set, default_value_t = true)]
    pub ipv6_enabled: bool,
    /// Whether applications see their client's address; unset: where the kernel permits it.
    #[arg(long, env = "ENABLE_ORIG_SRC", action = clap::ArgAction::Set)]
    pub enable_orig_src: Option<bool>,
    /// What joins two pods of this node.
    #[arg(long, env = "AMBIT_SAME_NODE", value_enum, default_value_t = SameNodeArg::Auto)]
    pub same_node: SameNodeArg,
    /// Probe silent connections.
    #[arg(long, env = "KEEPALIVE_ENABLED", action = clap::ArgAction::Set, default_value_t = true)]
    pub keepalive_enabled: bool,
    /// Silence before the first probe.
    #[arg(long, env = "KEEPALIVE_TIME", default_value = "180s", value_parser = humantime::parse_duration)]
    pub keepalive_time: Duration,
    /// Between probes.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "180s", value_parser = humantime::parse_duration)]
    pub keepalive_interval: Duration,
    /// Probes before giving up.
    #[arg(long, env = "KEEPALIVE_RETRIES", default_value_t = 9)]
    pub keepalive_retries: u32,
    /// Give up unacknowledged data after the keepalive's time.
    #[arg(long, env = "USER_TIMEOUT_ENABLED", action = clap::ArgAction::Set, default_value_t = false)]
    pub user_timeout_enabled: bool,
    /// Congestion control asked for on the local leg; empty keeps the kernel's.
    #[arg(long, env = "AMBIT_LOCAL_CONGESTION", default_value = "cubic")]
    pub local_congestion: String,
    /// Longest wait for the application to take a connection.
    #[arg(long, env = "AMBIT_CONNECT_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    /// Connections of one pod at once; further ones are refused (AMB7005).
    #[arg(long, env = "AMBIT_POD_CONNECTIONS_MAX", default_value_t = 50_000)]
    pub pod_connections_max: usize,
    /// Handshakes of peers at one pod that are not finished; further ones are refused (AMB7005).
    #[arg(long, env = "AMBIT_POD_HANDSHAKES_MAX", default_value_t = 1024)]
    pub pod_handshakes_max: usize,
}

/// `sameNode` as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SameNodeArg {
    /// Join inside the process unless a NetworkPolicy selects one of the pods.
    Auto,
    /// Always join inside the process.
    Direct,
    /// Always use a tunnel.
    Hbone,
}

impl From<SameNodeArg> for SameNode {
    fn from(arg: SameNodeArg) -> Self {
        match arg {
            SameNodeArg::Auto => Self::Auto,
            SameNodeArg::Direct => Self::Direct,
            SameNodeArg::Hbone => Self::Hbone,
        }
    }
}

/// HTTP/2 and the pool.
#[derive(Debug, Clone, Args)]
pub struct Tunnels {
    /// Streams on one tunnel.
    #[arg(long, env = "POOL_MAX_STREAMS_PER_CONNECTION", default_value_t = 100)]
    pub pool_max_streams: u32,
    /// How long a tunnel without streams is kept.
    #[arg(long, env = "POOL_UNUSED_RELEASE_TIMEOUT", default_value = "5m", value_parser = humantime::parse_duration)]
    pub pool_unused_timeout: Duration,
    /// Window of a stream, bytes.
    #[arg(long, env = "HTTP2_STREAM_WINDOW_SIZE", default_value_t = 4 << 20)]
    pub stream_window: u32,
    /// Window of a tunnel, bytes.
    #[arg(long, env = "HTTP2_CONNECTION_WINDOW_SIZE", default_value_t = 16 << 20)]
    pub connection_window: u32,
    /// Largest frame taken, bytes.
    #[arg(long, env = "HTTP2_FRAME_SIZE", default_value_t = 1 << 20)]
    pub frame_size: u32,
    /// Tell peers about the destination in the answer's baggage.
    #[arg(long, env = "ENABLE_RESPONSE_BAGGAGE", action = clap::ArgAction::Set, default_value_t = true)]
    pub response_baggage: bool,
}

/// Ports and sockets of our own, logs.
#[derive(Debug, Clone, Args)]
pub struct Surface {
    /// Admin socket; empty for none.
    #[arg(long, env = "AMBIT_ADMIN_SOCKET", default_value = "/var/run/ztunnel/admin.sock")]
    pub admin_socket: PathBuf,
    /// Port of the metrics, all addresses.
    #[arg(long, env = "AMBIT_STATS_PORT", default_value_t = 15020)]
    pub stats_port: u16,
    /// Port of readiness, all addresses.
    #[arg(long, env = "AMBIT_READINESS_PORT", default_value_t = 15021)]
    pub readiness_port: u16,
    /// Flow records remembered.
    #[arg(long, env = "AMBIT_FLOW_RECORDS", default_value_t = 10_000)]
    pub flow_records: usize,
    /// Log filter.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// `plain` or `json`.
    #[arg(long, env = "LOG_FORMAT", default_value = "plain")]
    pub log_format: String,
}

/// Draining.
#[derive(Debug, Clone, Args)]
pub struct DrainConfig {
    /// Longest time open connections get at the end; overrides the grace period.
    #[arg(long, env = "CONNECTION_TERMINATION_DEADLINE", value_parser = humantime::parse_duration)]
    pub termination_deadline: Option<Duration>,
    /// Grace period of the pod, seconds.
    #[arg(long, env = "TERMINATION_GRACE_PERIOD_SECONDS")]
    pub grace_period_seconds: Option<u64>,
}

impl DrainConfig {
    /// Longest time open connections get: the deadline, else the grace period less a reserve, else 5 s.
    pub fn deadline(&self) -> Duration {
        let from_grace =
            |s: u64| Duration::from_secs(if s > 10 { s - 5 } else { s.saturating_sub(1).max(1) });
        self.termination_deadline
            .or_else(|| self.grace_period_seconds.map(from_grace))
            .unwrap_or(Duration::from_secs(5))
    }
}

impl Config {
    /// Options of every socket in a pod.
    pub fn pod_sockets(&self) -> SocketOptions {
        let keepalive = Keepalive {
            time: self.pods.keepalive_time,
            interval: self.pods.keepalive_interval,
            retries: self.pods.keepalive_retries,
        };
        SocketOptions {
            mark: Some(self.pods.packet_mark),
            keepalive: self.pods.keepalive_enabled.then_some(keepalive),
            user_timeout: self.pods.user_timeout_enabled,
            local_congestion: (!self.pods.local_congestion.is_empty())
                .then(|| &*self.pods.local_congestion.clone().leak()),
            ..SocketOptions::default()
        }
    }

    /// Settings of tunnels.
    pub fn tunnel_settings(&self) -> TunnelSettings {
        TunnelSettings {
            stream_window: self.tunnels.stream_window,
            connection_window: self.tunnels.connection_window,
            frame_bytes_max: self.tunnels.frame_size,
            connect_timeout: self.pods.connect_timeout + Duration::from_secs(5),
            ..TunnelSettings::default()
        }
    }

    /// Bounds of the pool.
    pub fn pool_limits(&self) -> Limits {
        Limits {
            streams_per_tunnel: self.tunnels.pool_max_streams,
            idle_timeout: self.tunnels.pool_unused_timeout,
            ..Limits::default()
        }
    }
}
