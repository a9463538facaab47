//! What the program is told at its start: flags, environment and defaults, merged once.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_control::csr::Rules;
use ambit_control::index;
use ambit_runtime::logging::Format;
use ambit_types::{Identity, Str, TrustDomain};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use crate::admit::Webhook;
use crate::ca::authn::Expected;

mod console;
mod kube;
#[cfg(test)]
mod tests;

pub use console::Console;
pub use kube::{Kubernetes, Waypoints};

/// Longest life of a certificate that can be set: 90 days.
const LEAF_TTL_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The control plane of the Ambit mesh: compiles configuration, serves it to the nodes, issues certificates.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "istiod-lite", version, about)]
pub struct Config {
    /// Where objects come from.
    #[command(flatten)]
    pub objects: Objects,
    /// Where we listen and keep state.
    #[command(flatten)]
    pub surface: Surface,
    /// The HTTP API and console.
    #[command(flatten)]
    pub console: Console,
    /// Names of the mesh.
    #[command(flatten)]
    pub mesh: Mesh,
    /// Who may call.
    #[command(flatten)]
    pub callers: Callers,
    /// Certificates.
    #[command(flatten)]
    pub certificates: Certificates,
    /// The cluster, for `--source kube`.
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// Waypoints, for `--source kube`.
    #[command(flatten)]
    pub waypoints: Waypoints,
    /// The admission webhook, for `--source kube`.
    #[command(flatten)]
    pub webhook: Webhook,
    /// Print the configuration with the origin of each value, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Objects {
    /// Where objects come from.
    #[arg(long, env = "AMBIT_SOURCE", value_enum, default_value = "folder")]
    pub source: Source,

    /// Folder of manifests; watched. Needed by `--source folder`, and only for it.
    #[arg(long, env = "AMBIT_FOLDER", value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// Where objects come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// A folder of manifests; callers are known by the keys of those who issue their tokens.
    Folder,
    /// An API server; it also says who calls, and keeps the authority's keys.
    Kube,
}

/// Where we listen and keep state.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Surface {
    /// Folder for the authority's keys, the trust bundle (root-cert.pem) and the audit log (audit.jsonl).
    #[arg(long, env = "AMBIT_STATE_DIR", value_name = "DIR", default_value = "/var/lib/ambit/istiod")]
    pub state_dir: PathBuf,

    /// Where discovery and certificates are served, TLS only.
    #[arg(long, env = "AMBIT_LISTEN", value_name = "ADDRESS:PORT", default_value = "[::]:15012")]
    pub listen: SocketAddr,

    /// Further host names of the server's certificate, with commas between.
    #[arg(long, env = "AMBIT_SERVER_NAMES", value_delimiter = ',', value_name = "NAMES")]
    pub server_names: Vec<String>,

    /// Socket of the admin surface: readiness, sync, config dump, metrics.
    #[arg(
        long,
        env = "AMBIT_ADMIN_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/ambit/istiod-admin.sock"
    )]
    pub admin_socket: PathBuf,

    /// Where metrics and health are served by plain HTTP; nowhere unless given.
    #[arg(long, env = "AMBIT_MONITORING_LISTEN", value_name = "ADDRESS:PORT")]
    pub monitoring_listen: Option<SocketAddr>,

    /// Longest age of a discovery stream before it is ended and opened anew, give or take a tenth; 10 s to 24 h.
    #[arg(long, env = "AMBIT_STREAM_AGE_MAX", value_name = "DURATION", value_parser = stream_age, default_value = "30m")]
    pub stream_age_max: Duration,

    /// Longest wait for open calls at the end.
    #[arg(long, env = "AMBIT_DRAIN_GRACE", value_name = "DURATION", value_parser = grace, default_value = "5s")]
    pub drain_grace: Duration,

    /// What is logged, such as `info` or `istiod_lite=debug,info`.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// `plain` or `json`.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_parser = format, default_value = "plain")]
    pub log_format: Format,
}

/// Names of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Mesh {
    /// Root of trust of every identity.
    #[arg(long, env = "TRUST_DOMAIN", value_name = "DOMAIN", value_parser = trust_domain, default_value = "cluster.local")]
    pub trust_domain: TrustDomain,

    /// Name of the cluster.
    #[arg(long, env = "CLUSTER_ID", value_name = "NAME", default_value = "Kubernetes")]
    pub cluster_id: String,

    /// Domain of service names.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Namespace of the control plane, whose policies cover the mesh.
    #[arg(long, env = "ROOT_NAMESPACE", value_name = "NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,

    /// Whether policies marked as dry-run are sent; proxies that do not know the mark would enforce them.
    #[arg(long, env = "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    pub dry_run_policies: bool,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Callers {
    /// Public keys (P-256, PEM) of those who issue node tokens, with commas between. Needed by `--source folder`, and
    /// only for it: an API server is asked about tokens.
    #[arg(
        long = "token-issuer-key",
        env = "AMBIT_TOKEN_ISSUER_KEY",
        value_delimiter = ',',
        value_name = "FILES"
    )]
    pub token_issuer_keys: Vec<PathBuf>,

    /// Issuer that tokens must name.
    #[arg(long, env = "AMBIT_TOKEN_ISSUER", value_name = "NAME", default_value = "ambit-lab")]
    pub token_issuer: String,

    /// Audience that tokens must name.
    #[arg(long, env = "TOKEN_AUDIENCES", value_name = "NAME", default_value = "istio-ca")]
    pub token_audience: String,

    /// Longest time a token may still be valid; 10 s to 24 h.
    #[arg(long, env = "AMBIT_TOKEN_LIFE_MAX", value_name = "DURATION", value_parser = token_life, default_value = "1h")]
    pub token_life_max: Duration,

    /// Service accounts that may ask for the pods of their node, as NAMESPACE/NAME, with commas between.
    #[arg(long, env = "CA_TRUSTED_NODE_ACCOUNTS", value_delimiter = ',', value_name = "ACCOUNTS", value_parser = account, default_value = "istio-system/ztunnel")]
    pub trusted_node_accounts: Vec<String>,

    /// Whether a token counts only from an address of the pod or of the node it is bound to.
    #[arg(long, env = "AMBIT_BIND_TOKEN_TO_NODE_ADDRESS", value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    pub bind_token_to_node_address: bool,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Certificates {
    /// Life of certificates, and the longest anybody gets; 5 s to 90 days.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", value_name = "DURATION", value_parser = leaf_ttl, default_value = "24h")]
    pub leaf_ttl: Duration,

    /// Whether RSA keys of 2048 bits and more are certified, for foreign proxies.
    #[arg(long, env = "AMBIT_ACCEPT_RSA", value_name = "BOOL", action = ArgAction::Set, default_value_t = false)]
    pub accept_rsa: bool,

    /// For `--source kube`: how long a step of a rotation waits until every replica has taken it up; 6 s to 10 min, the
    /// same for all replicas. One that cannot read the authority for two thirds of it, or 20 s, signs nothing.
    #[arg(long, env = "AMBIT_CA_ROTATION_LAG", value_name = "DURATION", value_parser = rotation_lag, default_value = "30s", hide = true)]
    pub rotation_lag: Duration,

    /// For `--source kube`: how long a proxy must be silent after an answer until it counts as received; 1 s to 1 h. Less
    /// than the default is for tests alone: a proxy that lost its answer may not have asked again by then.
    #[arg(long, env = "AMBIT_CA_ROTATION_CONFIRM", value_name = "DURATION", value_parser = rotation_pause, default_value = "165s", hide = true)]
    pub rotation_confirm: Duration,

    /// For `--source kube`: how often proxies that hold a rotation up are made to ask anew; 1 s to 1 h.
    #[arg(long, env = "AMBIT_CA_ROTATION_NUDGE", value_name = "DURATION", value_parser = rotation_pause, default_value = "10m", hide = true)]
    pub rotation_nudge: Duration,

    /// Certificates a node may ask for at once.
    #[arg(long, env = "AMBIT_CSR_BURST", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 500)]
    pub csr_burst: u32,

    /// Certificates a node may ask for a second in the long run.
    #[arg(long, env = "AMBIT_CSR_PER_SECOND", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 100)]
    pub csr_per_second: u32,
}

impl Config {
    /// Reads arguments (the first is the program's name) and the environment.
    ///
    /// # Errors
    /// What clap says, ready to be printed; also for `--help` and `--version`.
    pub fn read<I, T>(args: I) -> Result<(Self, String), clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(args)?;
        let config = Self::from_arg_matches(&matches)?;
        config.complete()?;
        let origins = print(&matches);
        Ok((config, origins))
    }

    /// What a source needs must be given; what it has no use for is left alone, since it may stand in an environment.
    fn complete(&self) -> Result<(), clap::Error> {
        self.console
            .complete(self.objects.source)
            .map_err(|words| Self::command().error(ErrorKind::MissingRequiredArgument, words))?;
        let missing = match self.objects.source {
            Source::Folder if self.objects.folder.is_none() => "--folder <DIR>",
            Source::Folder if self.callers.token_issuer_keys.is_empty() => "--token-issuer-key <FILES>",
            Source::Folder | Source::Kube => return Ok(()),
        };
        let words = format!("--source folder needs {missing}");
        Err(Self::command().error(ErrorKind::MissingRequiredArgument, words))
    }

    /// Rules of issuing certificates.
    pub fn rules(&self) -> Rules {
        Rules {
            trust_domain: self.mesh.trust_domain.clone(),
            trusted_node_accounts: self
                .callers
                .trusted_node_accounts
                .iter()
                .map(|a| Str::from(a.as_str()))
                .collect(),
            bind_token_to_node_address: self.callers.bind_token_to_node_address,
            leaf_ttl: self.certificates.leaf_ttl,
            accept_rsa: self.certificates.accept_rsa,
            burst: self.certificates.csr_burst,
            per_second: self.certificates.csr_per_second,
            ..Rules::default()
        }
    }

    /// What tokens must say.
    pub fn expected_token(&self) -> Expected {
        Expected {
            issuer: self.callers.token_issuer.clone(),
            audience: self.callers.token_audience.clone(),
            life_max: self.callers.token_life_max,
        }
    }

    /// What the index is told.
    pub fn index(&self) -> index::Settings {
        index::Settings {
            trust_domain: self.mesh.trust_domain.clone(),
            cluster_domain: Str::from(self.mesh.cluster_domain.as_str()),
            cluster_id: Str::from(self.mesh.cluster_id.as_str()),
            root_namespace: Str::from(self.mesh.root_namespace.as_str()),
            dry_run_policies: self.mesh.dry_run_policies,
        }
    }

    /// Our own identity in the mesh.
    pub fn identity(&self) -> Identity {
        Identity::new(self.mesh.trust_domain.clone(), self.mesh.root_namespace.as_str(), "istiod")
    }
}

/// One line a value: name, value, origin.
fn print(matches: &ArgMatches) -> String {
    let mut text = String::new();
    let command = Config::command();
    // Sections are ids of the matches too; arguments are settings only.
    let settings = command.get_arguments().map(|argument| argument.get_id().as_str());
    for id in settings.filter(|id| !matches!(*id, "print_config" | "help" | "version")) {
        let raw = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = raw.map(|v| v.to_string_lossy().into_owned()).collect();
        let origin = match matches.value_source(id) {
            Some(ValueSource::DefaultValue) => "default",
            Some(ValueSource::EnvVariable) => "environment",
            Some(ValueSource::CommandLine) => "flag",
            Some(_) | None => "unknown",
        };
        text.push_str(&format!("{} = {} ({origin})\n", id.replace('_', "-"), values.join(",")));
    }
    text
}

fn leaf_ttl(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(5), LEAF_TTL_MAX)
}

fn rotation_lag(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(6), Duration::from_secs(600))
}

fn rotation_pause(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(1), Duration::from_secs(3600))
}

fn stream_age(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(10), DAY)
}

fn token_life(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(10), DAY)
}

fn grace(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::ZERO, Duration::from_secs(3600))
}

fn bounded(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let read = humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 30s or 24h"))?;
    if (min..=max).contains(&read) {
        return Ok(read);
    }
    Err(format!("must be from {} to {}", humantime::format_duration(min), humantime::format_duration(max)))
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|e| e.to_string())
}

fn account(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        Some(_) | None => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}

fn format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|e: ambit_runtime::logging::LoggingError| e.to_string())
}
