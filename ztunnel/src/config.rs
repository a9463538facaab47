//! Configuration: the environment names operators of ztunnel know, each also a flag.
//!
//! Read once in `main`; no other code reads the environment. A value that is not understood ends the program with
//! the name of its variable; a name that is not known does not.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::socket::{Keepalive, SocketOptions};
use ambit_net::tunnel::TunnelSettings;
use ambit_state::SameNode;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use crate::sources::PerSource;

mod environment;
mod node;
mod state;
#[cfg(test)]
mod tests;
mod workers;

pub use environment::{Environment, EnvironmentError, ProxyConfig};
pub use node::node_metadata;
pub use state::StateConfig;
pub use workers::Workers;

/// Where Istio's tools look for a ztunnel's admin surface.
const ADMIN_PORT: u16 = 15000;
/// How often it may at most be looked for idle tunnels.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

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
    /// What the environment says beside these.
    #[arg(skip)]
    pub environment: Environment,
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
    /// Discovery address; https is assumed. Empty: no discovery. Unset: `discoveryAddress` of PROXY_CONFIG, else
    /// istiod.istio-system.svc:15012 in a cluster, else localhost:15012.
    #[arg(long, env = "XDS_ADDRESS")]
    pub xds_address: Option<String>,
    /// CA address; https is assumed. Unset: as for discovery.
    #[arg(long, env = "CA_ADDRESS")]
    pub ca_address: Option<String>,
    /// Roots for discovery: a file, PEM, or SYSTEM for those of the operating system.
    #[arg(long, env = "XDS_ROOT_CA", default_value = "./var/run/secrets/istio/root-cert.pem")]
    pub xds_root_ca: String,
    /// Roots for the CA: a file, PEM, or SYSTEM for those of the operating system.
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
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = duration)]
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
    #[arg(long, env = "KEEPALIVE_TIME", default_value = "180s", value_parser = duration)]
    pub keepalive_time: Duration,
    /// Between probes.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "180s", value_parser = duration)]
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
    #[arg(long, env = "AMBIT_CONNECT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// File that names the nameservers of workloads that have a host name instead of an address (a ServiceEntry with
    /// DNS resolution). They are asked from within the client's pod, except one at loopback.
    #[arg(long, env = "AMBIT_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Connections of one pod at once; further ones are refused (AMB7005).
    #[arg(long, env = "AMBIT_POD_CONNECTIONS_MAX", default_value_t = 50_000)]
    pub pod_connections_max: usize,
    /// Handshakes of peers at one pod that are not finished; further ones are refused (AMB7005).
    #[arg(long, env = "AMBIT_POD_HANDSHAKES_MAX", default_value_t = 1024)]
    pub pod_handshakes_max: usize,
    /// The same of one source address at one pod (AMB7005).
    #[arg(long, env = "AMBIT_PEER_HANDSHAKES_MAX", default_value_t = 64)]
    pub peer_handshakes_max: usize,
    /// Tunnels of one source address at one pod; further ones are refused (AMB7005). As many as a pod's connections
    /// need at 100 a tunnel.
    #[arg(long, env = "AMBIT_PEER_TUNNELS_MAX", default_value_t = 512)]
    pub peer_tunnels_max: usize,
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
    #[arg(long, env = "POOL_UNUSED_RELEASE_TIMEOUT", default_value = "5m", value_parser = duration)]
    pub pool_unused_timeout: Duration,
    /// How long a peer's tunnel without streams is kept at least; longer than peers keep it themselves, and no less
    /// than a second.
    #[arg(long, env = "AMBIT_TUNNEL_IDLE_TIMEOUT", default_value = "10m", value_parser = duration)]
    pub idle_timeout: Duration,
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
    #[arg(long, env = "AMBIT_ADMIN_SOCKET", default_value = "/var/run/ztunnel/admin.sock", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub admin_socket: PathBuf,
    /// Port on 127.0.0.1 that only reads, for `istioctl ztunnel-config`; 0 for none. Unset: `proxyAdminPort` of
    /// PROXY_CONFIG, else 15000 in a cluster, none elsewhere. Every process in ztunnel's own network namespace can read
    /// there, so set 0 where that is the node's.
    #[arg(long, env = "AMBIT_ADMIN_PORT")]
    pub admin_port: Option<u16>,
    /// Port of the metrics, all addresses. Unset: `statsPort` of PROXY_CONFIG, else 15020.
    #[arg(long, env = "AMBIT_STATS_PORT")]
    pub stats_port: Option<u16>,
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
    #[arg(long, env = "CONNECTION_TERMINATION_DEADLINE", value_parser = duration)]
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
    /// Reads flags and their variables; the text says which value came from where.
    ///
    /// # Errors
    /// What is wrong, for people; `--help` and `--version` too.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<(Self, String), clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let config = Self::from_arg_matches(&matches)?;
        Ok((config, origins(&matches)))
    }

    /// Cluster id as the control plane knows it: the one of the metadata before `CLUSTER_ID`.
    pub fn cluster_id(&self) -> &str {
        let metadata = self.environment.metadata.get("ISTIO_META_CLUSTER_ID");
        metadata.filter(|id| !id.is_empty()).unwrap_or(&self.node.cluster_id)
    }

    /// Discovery, and what identifies us to it; none if there is to be none.
    pub fn discovery(&self) -> Option<(Target, Caller)> {
        let control = &self.control;
        let address = control.xds_address.clone().unwrap_or_else(|| self.environment.control_plane());
        if address.is_empty() {
            return None;
        }
        let (roots, alternative_name) = (control.xds_root_ca.clone(), control.alt_xds_hostname.clone());
        let target = Target { address, roots, alternative_name, local_address: None };
        Some((target, self.caller(&self.environment.xds_headers)))
    }

    /// The CA, and what identifies us to it.
    pub fn ca(&self) -> (Target, Caller) {
        let control = &self.control;
        let address = control.ca_address.clone().unwrap_or_else(|| self.environment.control_plane());
        let (roots, alternative_name) = (control.ca_root_ca.clone(), control.alt_ca_hostname.clone());
        (
            Target { address, roots, alternative_name, local_address: None },
            self.caller(&self.environment.ca_headers),
        )
    }

    fn caller(&self, headers: &[(String, String)]) -> Caller {
        let token = self.control.auth_token.clone();
        Caller { token, cluster_id: self.cluster_id().to_owned(), headers: headers.to_vec() }
    }

    /// Port of tools that know Istio's ztunnel; none where there is to be none.
    pub fn admin_port(&self) -> Option<u16> {
        // Those tools come by a port forward, which only a cluster has.
        let default = if self.environment.in_kubernetes { ADMIN_PORT } else { 0 };
        let port = self.surface.admin_port.or(self.environment.proxy.proxy_admin_port).unwrap_or(default);
        Some(port).filter(|port| *port != 0)
    }

    /// Port of the metrics.
    pub fn stats_port(&self) -> u16 {
        self.surface.stats_port.or(self.environment.proxy.stats_port).unwrap_or(15020)
    }

    /// Threads of the data plane on a machine with `processors`.
    pub fn worker_threads(&self, processors: usize) -> usize {
        self.workers.count(processors, self.environment.proxy.concurrency)
    }

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
            idle_timeout: self.tunnels.idle_timeout.max(IDLE_TIMEOUT_MIN),
            ..TunnelSettings::default()
        }
    }

    /// Bounds of a source at a pod.
    pub fn per_source(&self) -> PerSource {
        PerSource { handshakes_max: self.pods.peer_handshakes_max, tunnels_max: self.pods.peer_tunnels_max }
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

/// One line a setting: name, value, origin. A token that stands in the setting itself is not shown.
fn origins(matches: &ArgMatches) -> String {
    let mut text = String::new();
    let command = Config::command();
    let settings = command.get_arguments().map(|argument| argument.get_id().as_str());
    for id in settings.filter(|id| !matches!(*id, "words" | "print_config" | "help" | "version")) {
        let raw = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = raw.map(|v| v.to_string_lossy().into_owned()).collect();
        let value = match values.join(",") {
            value if id == "auth_token" && !value.contains('/') => "(not shown)".to_owned(),
            value => value,
        };
        let origin = match matches.value_source(id) {
            Some(ValueSource::DefaultValue) => "default",
            Some(ValueSource::EnvVariable) => "environment",
            Some(ValueSource::CommandLine) => "flag",
            Some(_) | None => "unset",
        };
        text.push_str(&format!("{} = {value} ({origin})\n", id.replace('_', "-")));
    }
    text
}

/// A duration such as `30s`, `5m` or `24h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text.trim()),
    }
}
