//! `ambit check`: is the mesh installed, sound and allowed to do its work; what to do where it is not.
//!
//! Reads and asks, changes nothing: in the cluster through the API server, with `--pre` also on this machine, in a
//! network namespace that is gone afterwards. What was found is gathered first and judged by functions of it alone.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ambit_runtime::clock;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

use super::nodes::block_on;
use crate::out;

mod before;
mod cluster;
mod finding;
mod installed;
mod left;
mod machine;
mod rights;
#[cfg(test)]
mod tests;

use cluster::Cluster;
use finding::{Category, Outcome};

/// Pause between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Checks that the mesh of a cluster is installed and sound; exit code 79 where something is not.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What has to hold before the mesh is installed: the cluster, and this machine as one of its nodes
    #[arg(long, conflicts_with = "clean")]
    pre: bool,
    /// That nothing of the mesh is left in the cluster
    #[arg(long)]
    clean: bool,
    /// Namespace of the control plane
    #[arg(short, long, env = "AMBIT_ROOT_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// Configuration of the client [default: ~/.kube/config, or the service account of the pod we run in]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Another context of that file than its current one
    #[arg(long, env = "AMBIT_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// Wait until there is nothing to find
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
    /// From which finding on the exit code is 79
    #[arg(long, value_enum, default_value = "error")]
    fail_on: FailOn,
    /// table, short (findings only) or json
    #[arg(short, long, default_value = "table")]
    output: Form,
}

/// What counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Errors.
    Error,
    /// Warnings too.
    Warning,
    /// Nothing.
    Never,
}

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Short,
    Json,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "short" => Ok(Self::Short),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no output form of check; use table, short or json")),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the API server cannot be reached.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    block_on(async {
        let begun = clock::monotonic();
        loop {
            let found = look(args).await?;
            let code = code(&found, args.fail_on);
            let waited = clock::monotonic().saturating_duration_since(begun);
            if code == out::OK || !args.wait || waited >= args.timeout {
                print(&found, args.output, code == out::OK);
                return Ok(code);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
}

async fn look(args: &Args) -> anyhow::Result<Vec<Category>> {
    let cluster = Cluster::open(args.kubeconfig.as_deref(), args.context.as_deref(), &args.namespace).await;
    match cluster {
        Ok(cluster) if args.pre => {
            let mut found = before::look(&cluster).await;
            found.extend(machine::look().await);
            Ok(found)
        }
        Ok(cluster) if args.clean => Ok(left::look(&cluster).await),
        Ok(cluster) => Ok(installed::look(&cluster).await),
        // A machine can be looked at before there is a cluster.
        Err(cause) if args.pre => {
            let mut api = Category::new("Kubernetes API");
            api.warn(
                "no cluster was asked",
                format!("{cause:#}"),
                "give --kubeconfig FILE to check the cluster too",
            );
            let mut found = vec![api];
            found.extend(machine::look().await);
            Ok(found)
        }
        Err(cause) => Err(out::Failure::new(out::UNREACHABLE, format!("{cause:#}")).into()),
    }
}

fn code(found: &[Category], fail_on: FailOn) -> i32 {
    let worst = found.iter().flat_map(|category| &category.checks).map(|check| check.outcome).max();
    let fails = match (worst, fail_on) {
        (_, FailOn::Never) | (None | Some(Outcome::Good), _) => false,
        (Some(Outcome::Warning), FailOn::Error) => false,
        (Some(Outcome::Warning), FailOn::Warning) | (Some(Outcome::Error), _) => true,
    };
    if fails { out::FINDINGS } else { out::OK }
}

fn print(found: &[Category], form: Form, success: bool) {
    match form {
        Form::Table => out::data(&finding::text(found, false)),
        Form::Short => out::data(&finding::text(found, true)),
        Form::Json => out::data(
            &json!({
                "apiVersion": "cli.ambit.internal/v1",
                "kind": "CheckResult",
                "success": success,
                "categories": found.iter().map(Category::json).collect::<Vec<_>>(),
            })
            .to_string(),
        ),
    }
}
