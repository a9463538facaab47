//! `ambit upgrade`: makes an installation what this version's would be, and says before what that changes.
//!
//! The order lets nothing notice: the control plane first, whose old replicas serve until new ones do, then the node
//! agents, then the ztunnels, each new one beside the old. It is `ambit install -o apply` with a plan, and may be
//! repeated.

use std::time::Duration;

use super::install::cluster::At;
use super::install::plan::Change;
use super::install::{Wanted, roll};
use super::nodes::block_on;
use crate::{bundle, out};

/// Makes an installation what this version's would be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only show what would change, object by object, in which order, and what restarts
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    wanted: Wanted,
    /// How long each workload may take until it stands
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
///
/// # Errors
/// When a setting cannot be used, nothing is installed, or the cluster refuses the objects.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let objects = bundle::objects(&args.wanted.settings()?)?;
    block_on(async {
        let client = args.at.connect().await?;
        let steps = roll::look(&client, &objects).await?;
        roll::check(&steps)?;
        if steps.iter().all(|step| step.change == Change::Create) {
            let message = "nothing of ours is in this cluster; install with: ambit install -o apply";
            return Err(out::Failure::new(out::FAILED, message).into());
        }
        if args.plan {
            out::data(&roll::shown(&steps));
            return Ok(out::OK);
        }
        out::say(&roll::shown(&steps));
        roll::carry_out(&client, &steps, args.timeout).await?;
        Ok(out::OK)
    })
}
