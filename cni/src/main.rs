//! The program `ambit-cni`: the node agent, and the CNI plugin that a container runtime calls.

use std::io::Write as _;
use std::process::ExitCode;

use ambit_cni::config::{Config, Invocation};
use ambit_cni::plugin::{self, Limits};
use ambit_cni::{app, removal};
use ambit_runtime::admin::client;
use anyhow::{Context as _, bail};

fn main() -> ExitCode {
    let invocation = match Invocation::read(std::env::args_os()) {
        Ok(read) => read,
        Err(error) => error.exit(),
    };
    let ended = match invocation {
        Invocation::Plugin(environment) => {
            let output = plugin::run(&environment, std::io::stdin().lock(), Limits::default());
            return print(&output);
        }
        Invocation::Agent(config, origins) if config.print_config => {
            // A reader that has gone away does not want the rest.
            let _ = std::io::stdout().write_all(origins.as_bytes());
            return ExitCode::SUCCESS;
        }
        Invocation::Agent(config, _) => {
            let ended = app::run(&config);
            ambit_runtime::logging::flush();
            ended
        }
        Invocation::UninstallNode(config) => wait_for(removal::uninstall_node(&config)),
        Invocation::Ready(config) => wait_for(ready(&config)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ambit-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(output: &plugin::Output) -> ExitCode {
    if let Some(remark) = &output.remark {
        // The runtime may not read it.
        let _ = writeln!(std::io::stderr(), "ambit-cni: {remark}");
    }
    match std::io::stdout().write_all(output.text.as_bytes()) {
        Ok(()) => ExitCode::from(output.code),
        Err(_) => ExitCode::FAILURE,
    }
}

async fn ready(config: &Config) -> anyhow::Result<()> {
    let answer = client::get(&config.admin_socket, "/healthz/ready").await.context("asking the agent")?;
    if !answer.status.is_success() {
        bail!("{}", String::from_utf8_lossy(&answer.body).trim());
    }
    Ok(())
}

fn wait_for(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}
