//! `ambit install`: prints what an installation is made of, or writes it to a cluster.
//!
//! What is printed is `deploy/` and `daemonset.yaml` of the repository, with settings put in. Writing looks first: what
//! belongs to another installation stops it before anything was changed.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::nodes::block_on;
use crate::bundle::{self, SETTINGS, Settings};
use crate::out::{self, Failure};

pub(crate) mod cluster;
pub(crate) mod plan;
pub(crate) mod roll;

/// Prints, or writes, what an installation is made of.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with it: print it (nothing is asked and nothing changed), or write it to the cluster
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    #[command(flatten)]
    wanted: Wanted,
    /// List what can be set, and exit
    #[arg(long)]
    list_settings: bool,
    /// With `-o apply`: how long each workload may take until it stands
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    at: cluster::At,
}

/// What is to be installed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// Set something, such as logLevel=debug; may be repeated. `--list-settings` of `ambit install` lists all
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Registry and folder of the images: short for --set image.registry=…
    #[arg(long, value_name = "REGISTRY")]
    image_registry: Option<String>,
}

/// What to do with the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Print them as YAML
    Yaml,
    /// Print them as a List in JSON
    Json,
    /// Write them to the cluster, in order, and wait until all stands
    Apply,
}

impl Wanted {
    /// The settings.
    ///
    /// # Errors
    /// [`Failure`] with what cannot be set.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let refused = |error: bundle::SettingsError| Failure::new(out::USAGE, error.to_string());
        let mut settings = Settings::parse(&self.set).map_err(refused)?;
        if let Some(registry) = &self.image_registry {
            settings.put("image.registry", registry.trim_end_matches('/')).map_err(refused)?;
        }
        Ok(settings)
    }
}

/// Runs the command.
///
/// # Errors
/// When a setting cannot be used, or the cluster refuses the objects.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if args.list_settings {
        let row = |s: &bundle::Setting| vec![s.key.to_owned(), s.default.to_owned(), s.about.to_owned()];
        out::data(&out::table(&["KEY", "DEFAULT", "ABOUT"], &SETTINGS.iter().map(row).collect::<Vec<_>>()));
        return Ok(out::OK);
    }
    let settings = args.wanted.settings()?;
    match args.output {
        Output::Yaml => out::raw(&bundle::yaml(&settings)),
        Output::Json => {
            let items = bundle::objects(&settings)?;
            out::data(&format!("{:#}", json!({"apiVersion": "v1", "kind": "List", "items": items})));
        }
        Output::Apply => block_on(apply(args, &settings))?,
    }
    Ok(out::OK)
}

async fn apply(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let client = args.at.connect().await?;
    let steps = roll::look(&client, &bundle::objects(settings)?).await?;
    roll::check(&steps)?;
    roll::carry_out(&client, &steps, args.timeout).await?;
    out::say("installed; nothing is captured yet. Next: ambit enroll ns NAME --watch");
    Ok(())
}
