//! `ambit completion SHELL`: the script by which a shell completes commands, flags and their values.
//!
//! It is made of the command line itself. Names of namespaces and pods are not in it: they would have to be asked for.

use anyhow::Context as _;
use clap::{Args as ClapArgs, CommandFactory as _, ValueEnum};
use clap_complete::{Shell as Generator, generate};

use super::Cli;
use crate::out;

/// Prints a script for a shell.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Kind,
}

/// Shells that a script can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// source <(ambit completion bash)
    Bash,
    /// source <(ambit completion zsh), after compinit
    Zsh,
    /// ambit completion fish | source
    Fish,
    /// ambit completion powershell | Out-String | Invoke-Expression
    #[value(name = "powershell")]
    PowerShell,
}

/// Runs the command.
///
/// # Errors
/// When the script is no text, which would be a mistake of ours.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    out::raw(&script(args.shell)?);
    Ok(out::OK)
}

fn script(shell: Kind) -> anyhow::Result<String> {
    let generator = match shell {
        Kind::Bash => Generator::Bash,
        Kind::Zsh => Generator::Zsh,
        Kind::Fish => Generator::Fish,
        Kind::PowerShell => Generator::PowerShell,
    };
    let mut script: Vec<u8> = Vec::new();
    generate(generator, &mut Cli::command(), "ambit", &mut script);
    String::from_utf8(script).context("reading the script")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_about_every_command_that_people_see() {
        let command = Cli::command();
        let seen = command.get_subcommands().filter(|one| !one.is_hide_set());
        let names: Vec<&str> = seen.map(clap::Command::get_name).collect();
        assert!(names.contains(&"completion") && names.contains(&"support-bundle"), "{names:?}");
        for shell in Kind::value_variants() {
            let script = script(*shell).unwrap();
            for name in &names {
                assert!(script.contains(name), "{shell:?}: {name}");
            }
        }
    }
}
