//! What the program is told at its start: flags, environment and defaults, merged once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_net::linux::netns::NetNsError;
use ambit_runtime::logging::Format;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use crate::install::Installer;
use crate::plugin::conflist::{Entry, PLUGIN_TYPE};
use crate::plugin::spec::Environment;
use crate::reconcile::plan;
use crate::sandbox::Sandboxes;
pub use parts::{PluginConfig, RemovalConfig};

mod parts;
#[cfg(test)]
mod tests;

/// What the program is started for.
#[derive(Debug)]
pub enum Invocation {
    /// The node agent, with what `--print-config` prints.
    Agent(Box<Config>, String),
    /// A call of the container runtime's.
    Plugin(Environment),
    /// `uninstall-node`: the mesh leaves this node.
    UninstallNode(Box<Config>),
    /// `ready`: whether the agent is, for a probe.
    Ready(Box<Config>),
}

impl Invocation {
    /// Tells by the first argument and by `CNI_COMMAND`, with which a container runtime calls the plugin without any
    /// argument.
    ///
    /// # Errors
    /// What clap says, ready to be printed; also for `--help` and `--version`.
    pub fn read<I>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = OsString>,
    {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let environment = Environment::of(variables);
        let word = args.get(1).and_then(|word| word.to_str()).map(str::to_owned);
        match word.as_deref() {
            Some("plugin") => return Ok(Self::Plugin(environment)),
            None if environment.command.is_some() => return Ok(Self::Plugin(environment)),
            Some("uninstall-node" | "ready") => drop(args.remove(1)),
            Some(_) | None => {}
        }
        Ok(match word.as_deref() {
            Some("uninstall-node") => Self::UninstallNode(Box::new(Config::parse(args)?.0)),
            Some("ready") => Self::Ready(Box::new(Config::parse(args)?.0)),
            Some(_) | None => {
                let (config, origins) = Config::read(args)?;
                Self::Agent(Box::new(config), origins)
            }
        })
    }
}

/// The node agent of the Ambit mesh: captures the enrolled pods of one node and hands them to ztunnel.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ambit-cni", version, about)]
pub struct Config {
    /// Where objects come from.
    #[arg(long, env = "AMBIT_SOURCE", value_enum, default_value = "folder")]
    pub source: Source,

    /// Folder of manifests, one object a file; pod status is written back to it. Only for `--source folder`.
    #[arg(long, env = "AMBIT_FOLDER", value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// How to reach the API server; without it the pod's own service account is used. Only for `--source kube`.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Where the last known pods are kept for a restart without API server; cleared by a reboot. Only for
    /// `--source kube`.
    #[arg(
        long,
        env = "AMBIT_CNI_STATE_FILE",
        value_name = "FILE",
        default_value = "/var/run/ambit/cni/pods.json"
    )]
    pub state_file: PathBuf,

    /// Name of the node whose pods are ours.
    #[arg(long, env = "NODE_NAME", value_name = "NODE")]
    pub node: String,

    /// Socket to listen on for ztunnel; its directory must be private (mode 700).
    #[arg(
        long,
        env = "AMBIT_ZDS_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/ztunnel/ztunnel.sock"
    )]
    pub zds_socket: PathBuf,

    /// Directory with one link to a network namespace for each pod, named by its uid. Without it, pods are found by
    /// their processes' control groups.
    #[arg(long, env = "AMBIT_SANDBOX_DIR", value_name = "DIR")]
    pub sandbox_dir: Option<PathBuf>,

    /// The node's `/proc`, where the processes of pods are looked for; in a container a mount of it.
    #[arg(long, env = "HOST_PROC", value_name = "DIR", default_value = "/proc")]
    pub host_proc: PathBuf,

    /// Socket of the admin surface: readiness, pods, metrics.
    #[arg(
        long,
        env = "AMBIT_ADMIN_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/ambit/cni-admin.sock"
    )]
    pub admin_socket: PathBuf,

    /// Where metrics and health are served by plain HTTP; nowhere unless given.
    #[arg(long, env = "AMBIT_MONITORING_LISTEN", value_name = "ADDRESS:PORT")]
    pub monitoring_listen: Option<SocketAddr>,

    /// Tell ztunnel every address of the node, such as those of bridges, so that probes from them pass under STRICT. Not
    /// where Services of type NodePort or LoadBalancer lead to ports that probes declare: their callers may come from a
    /// bridge's address too.
    #[arg(long, env = "AMBIT_TELL_NODE_ADDRESSES", default_value_t = false, action = clap::ArgAction::Set)]
    pub tell_node_addresses: bool,

    /// Namespaces that are never enrolled, with commas between.
    #[arg(
        long,
        env = "EXCLUDE_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "kube-system"
    )]
    pub exclude_namespaces: Vec<String>,

    /// How often each captured pod's rules are compared with what they should be; 100 ms to 1 h.
    #[arg(long, env = "AMBIT_VERIFY_INTERVAL", value_name = "DURATION", value_parser = interval, default_value = "5s")]
    pub verify_interval: Duration,

    /// How long ztunnel goes on serving a pod that left the mesh, so that its peers can learn of it; up to 1 h.
    #[arg(long, env = "AMBIT_LEAVE_NOTICE", value_name = "DURATION", value_parser = notice, default_value = "2s")]
    pub leave_notice: Duration,

    /// The CNI plugin and its place on the node.
    #[command(flatten)]
    pub plugin: PluginConfig,

    /// Leaving the node.
    #[command(flatten)]
    pub removal: RemovalConfig,

    /// What is logged, such as `info` or `ambit_cni=debug,info`.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// `plain` or `json`.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_parser = format, default_value = "plain")]
    pub log_format: Format,

    /// Print the configuration with the origin of each value, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Where objects come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// A folder of manifests that is watched and written to.
    Folder,
    /// An API server.
    Kube,
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
        let (config, origins) = Self::parse(args)?;
        if config.source == Source::Folder {
            let given = [("--folder", &config.folder), ("--sandbox-dir", &config.sandbox_dir)];
            if let Some((flag, _)) = given.into_iter().find(|(_, value)| value.is_none()) {
                let what = format!("{flag} is required with --source folder\n");
                return Err(Self::command().error(ErrorKind::MissingRequiredArgument, what));
            }
        }
        Ok((config, origins))
    }

    /// The same for commands that only speak to the agent.
    fn parse<I, T>(args: I) -> Result<(Self, String), clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(args)?;
        let config = Self::from_arg_matches(&matches)?;
        let origins = print(&matches);
        Ok((config, origins))
    }

    /// How the CNI plugin is installed; `None` if it is not to be.
    pub fn installer(&self) -> Option<Installer> {
        self.plugin.chained_cni_plugin.then(|| self.remover())
    }

    /// How pods' namespaces are found.
    ///
    /// # Errors
    /// [`NetNsError`] if our own namespace cannot be told.
    pub fn sandboxes(&self) -> Result<Sandboxes, NetNsError> {
        match &self.sandbox_dir {
            Some(directory) => Sandboxes::new(directory),
            None => Sandboxes::of_processes(&self.host_proc),
        }
    }

    /// Whether the CNI plugin's questions are answered: on a cluster, and wherever it is installed.
    pub fn serves_plugin(&self) -> bool {
        self.source == Source::Kube || self.plugin.chained_cni_plugin
    }

    /// Where the CNI plugin would be installed.
    pub fn remover(&self) -> Installer {
        Installer {
            bin_dir: self.plugin.mounted_cni_bin_dir.clone(),
            conf_dir: self.plugin.mounted_cni_net_dir.clone(),
            only: self.plugin.cni_conf_name.clone(),
            program: PathBuf::from("/proc/self/exe"),
            entry: Entry {
                kind: PLUGIN_TYPE.to_owned(),
                socket: self.plugin.plugin_socket.display().to_string(),
                exclude_namespaces: self.excluded().into_iter().collect(),
                agent_namespace: self.removal.pod_namespace.clone(),
            },
        }
    }

    /// Namespaces that are never enrolled.
    pub fn excluded(&self) -> BTreeSet<String> {
        self.exclude_namespaces.iter().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect()
    }

    /// Time limits of reconciling.
    pub fn limits(&self) -> plan::Limits {
        plan::Limits { verify: self.verify_interval, notice: self.leave_notice, ..plan::Limits::default() }
    }
}

/// One line a value: name, value, origin.
fn print(matches: &ArgMatches) -> String {
    let mut text = String::new();
    let groups = ["print_config", "Config", "PluginConfig", "RemovalConfig"];
    for id in matches.ids().map(clap::Id::as_str).filter(|id| !groups.contains(id)) {
        let values: Vec<String> = matches
            .get_raw(id)
            .map(|raw| raw.map(|v| v.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
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

fn interval(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_millis(100))
}

fn notice(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::ZERO)
}

fn bounded(text: &str, min: Duration) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(3600);
    let read = humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 5s or 250ms"))?;
    if (min..=MAX).contains(&read) { Ok(read) } else { Err(format!("must be from {min:?} to 1h")) }
}

fn format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|e: ambit_runtime::logging::LoggingError| e.to_string())
}
