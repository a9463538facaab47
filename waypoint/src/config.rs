//! Configuration: the environment names operators of ztunnel know, and those of a waypoint's own, each also a flag.
//!
//! Read once in `main`; no other code reads the environment. A value that is not understood ends the program with
//! the name of its variable; a name that is not known does not.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_net::grpc::channel::{Caller, Target};
use ambit_runtime::workers::{Threads, Workers, parse_quantity, parse_threads};
use ambit_types::{Identity, IdentityError, TrustDomain, Uid};
use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser as _};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser};

use crate::observe::otel;

mod bounds;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;

pub use bounds::Bounds;
pub use sessions::SessionsConfig;
pub use tokens::{Ranges, Tokens};

/// Everything a waypoint can be told.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "waypoint",
    version,
    about = "L7 proxy of the Ambit mesh: routes and authorises HTTP for the services bound to it"
)]
pub struct Config {
    /// This pod, and the Gateway it belongs to.
    #[command(flatten)]
    pub node: Node,
    /// Control plane and CA.
    #[command(flatten)]
    pub control: Control,
    /// Bounds of what clients and upstreams may take.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Keys for tokens.
    #[command(flatten)]
    pub tokens: Tokens,
    /// Session persistence.
    #[command(flatten)]
    pub sessions: SessionsConfig,
    /// Ports and sockets, logs.
    #[command(flatten)]
    pub surface: Surface,
    /// Draining.
    #[command(flatten)]
    pub drain: DrainConfig,
    /// Threads.
    #[command(flatten)]
    pub threads: ThreadsConfig,
    /// Print every setting with its value and origin, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Shift the wall clock by so many seconds; for tests in a lab only.
    #[arg(long, hide = true, env = "AMBIT_TEST_CLOCK_OFFSET", allow_hyphen_values = true)]
    pub test_clock_offset: Option<i64>,
    /// Traces, by the names that OpenTelemetry gave to its settings; see [`traces`].
    #[arg(skip)]
    pub traces: otel::Settings,
}

/// This pod, and the Gateway it belongs to.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// Name of the Gateway it belongs to, and of its Service. Unset: the service account's name.
    #[arg(long, env = "GATEWAY_NAME")]
    pub gateway_name: Option<String>,
    /// Name of the node, for balancing and the control plane.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Network id of the node.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// Cluster id.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Trust domain of the mesh, until discovery says which it is.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Name of the waypoint's own pod; required.
    #[arg(long, env = "POD_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub pod_name: String,
    /// Namespace of the waypoint's own pod; required.
    #[arg(long, env = "POD_NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    pub pod_namespace: String,
    /// Service account of the waypoint's own pod; required.
    #[arg(long, env = "SERVICE_ACCOUNT", value_parser = NonEmptyStringValueParser::new())]
    pub service_account: String,
    /// Address of the waypoint's own pod, for the node id.
    #[arg(long, env = "INSTANCE_IP", default_value = "1.1.1.1")]
    pub instance_ip: IpAddr,
}

/// Control plane and CA.
#[derive(Debug, Clone, Args)]
pub struct Control {
    /// Discovery address; https is assumed. Unset: istiod.istio-system.svc:15012 in a cluster, else localhost:15012.
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
    /// Lifetime asked for certificates.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = duration)]
    pub secret_ttl: Duration,
    /// Kubernetes sets it in every pod.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_HOST")]
    pub kubernetes_service_host: Option<String>,
}

/// Ports and sockets, logs.
#[derive(Debug, Clone, Args)]
pub struct Surface {
    /// Port of tunnels; every other proxy of the mesh expects 15008.
    #[arg(long, hide = true, env = "AMBIT_HBONE_PORT", default_value_t = 15008)]
    pub hbone_port: u16,
    /// Whether IPv6 is used at all.
    #[arg(long, env = "IPV6_ENABLED", action = clap::ArgAction::Set, default_value_t = true)]
    pub ipv6_enabled: bool,
    /// Admin socket; empty for none.
    #[arg(long, env = "AMBIT_ADMIN_SOCKET", default_value = "", value_parser = OsStringValueParser::new().map(PathBuf::from))]
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
    /// Longest time open requests and connections get at the end; overrides the grace period.
    #[arg(long, env = "CONNECTION_TERMINATION_DEADLINE", value_parser = duration)]
    pub termination_deadline: Option<Duration>,
    /// Grace period of the pod, seconds.
    #[arg(long, env = "TERMINATION_GRACE_PERIOD_SECONDS")]
    pub grace_period_seconds: Option<u64>,
}

impl DrainConfig {
    /// Longest time open work gets: the deadline, else the grace period less a reserve, else 5 s.
    pub fn deadline(&self) -> Duration {
        let from_grace =
            |s: u64| Duration::from_secs(if s > 10 { s - 5 } else { s.saturating_sub(1).max(1) });
        self.termination_deadline
            .or_else(|| self.grace_period_seconds.map(from_grace))
            .unwrap_or(Duration::from_secs(5))
    }
}

/// Threads.
#[derive(Debug, Clone, Args)]
pub struct ThreadsConfig {
    /// A number, 0 for all processors, or a share such as `25%`. Unset: the CPU limit, else a quarter of the
    /// processors and at least two.
    #[arg(long, env = "AMBIT_WORKER_THREADS", value_parser = parse_threads)]
    pub worker_threads: Option<Threads>,
    /// CPU limit of the container as a Kubernetes quantity such as `500m`.
    #[arg(long, env = "AMBIT_CPU_LIMIT", value_parser = parse_quantity)]
    pub cpu_limit: Option<usize>,
    /// CPU request of the container as a Kubernetes quantity.
    #[arg(long, env = "AMBIT_CPU_REQUEST", value_parser = parse_quantity)]
    pub cpu_request: Option<usize>,
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

    /// Name of the Gateway it belongs to.
    pub fn gateway(&self) -> &str {
        let node = &self.node;
        node.gateway_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&node.service_account)
    }

    /// Key of its own record in discovery.
    pub fn uid(&self) -> Uid {
        let Node { cluster_id, pod_namespace, pod_name, .. } = &self.node;
        format!("{cluster_id}//Pod/{pod_namespace}/{pod_name}").into()
    }

    /// Its identity as far as it is known before discovery.
    ///
    /// # Errors
    /// The trust domain, namespace or service account is none.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        let node = &self.node;
        let identity = Identity::new(
            TrustDomain::parse(&node.trust_domain)?,
            &*node.pod_namespace,
            &*node.service_account,
        );
        Identity::parse(&identity.to_string())
    }

    /// Discovery, and what identifies us to it.
    pub fn discovery(&self) -> (Target, Caller) {
        let control = &self.control;
        let address = self.address(control.xds_address.as_deref());
        let (roots, alternative_name) = (control.xds_root_ca.clone(), control.alt_xds_hostname.clone());
        (Target { address, roots, alternative_name, local_address: None }, self.caller())
    }

    /// The CA, and what identifies us to it.
    pub fn ca(&self) -> (Target, Caller) {
        let control = &self.control;
        let address = self.address(control.ca_address.as_deref());
        let (roots, alternative_name) = (control.ca_root_ca.clone(), control.alt_ca_hostname.clone());
        (Target { address, roots, alternative_name, local_address: None }, self.caller())
    }

    fn address(&self, said: Option<&str>) -> String {
        let default = match &self.control.kubernetes_service_host {
            Some(_) => "https://istiod.istio-system.svc:15012",
            None => "https://localhost:15012",
        };
        said.filter(|address| !address.is_empty()).unwrap_or(default).to_owned()
    }

    fn caller(&self) -> Caller {
        Caller {
            token: self.control.auth_token.clone(),
            cluster_id: self.node.cluster_id.clone(),
            headers: Vec::new(),
        }
    }

    /// Threads on a machine with `processors`.
    pub fn worker_threads(&self, processors: usize) -> usize {
        let ThreadsConfig { worker_threads, cpu_limit, cpu_request } = self.threads;
        Workers { threads: worker_threads, cpu_limit, cpu_request }.count(processors)
    }
}

/// Reads the variables of traces, which no flag stands for: their names are those of every program's library.
///
/// # Errors
/// The first variable that cannot be used.
pub fn traces() -> Result<otel::Settings, otel::SettingsError> {
    otel::Settings::read(|name| std::env::var_os(name)?.into_string().ok())
}

/// One line a setting: name, value, origin. A token that stands in the setting itself is not shown.
fn origins(matches: &ArgMatches) -> String {
    let mut text = String::new();
    let command = Config::command();
    let settings = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let ids = settings.map(|argument| argument.get_id().as_str());
    for id in ids.filter(|id| !matches!(*id, "print_config" | "help" | "version")) {
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

/// A duration such as `50ms`, `30s`, `5m` or `24h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text.trim()),
    }
}
