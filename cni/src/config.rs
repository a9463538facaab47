//! What the program is told at its start: flags, environment and defaults, merged once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ambit_runtime::logging::Format;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use crate::reconcile::plan;

#[cfg(test)]
mod tests;

/// The node agent of the Ambit mesh: captures the enrolled pods of one node and hands them to ztunnel.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ambit-cni", version, about)]
pub struct Config {
    /// Where objects come from.
    #[arg(long, env = "AMBIT_SOURCE", value_enum, default_value = "folder")]
    pub source: Source,

    /// Folder of manifests, one object a file; pod status is written back to it.
    #[arg(long, env = "AMBIT_FOLDER", value_name = "DIR")]
    pub folder: PathBuf,

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

    /// Directory with one link to a network namespace for each pod, named by its uid.
    #[arg(long, env = "AMBIT_SANDBOX_DIR", value_name = "DIR")]
    pub sandbox_dir: PathBuf,

    /// Socket of the admin surface: readiness, pods, metrics.
    #[arg(
        long,
        env = "AMBIT_ADMIN_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/ambit/cni-admin.sock"
    )]
    pub admin_socket: PathBuf,

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
        let origins = print(&matches);
        Ok((config, origins))
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
    for id in matches.ids().map(clap::Id::as_str).filter(|id| *id != "print_config" && *id != "Config") {
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
