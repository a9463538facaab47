//! Completion scripts, read by the shells that they are for.

use std::process::Command;

use ambit_tests::lab::Background;
use ambit_tests::peers;

use super::{Files, PATIENCE, isolate, run};

/// Runs a line in a shell with the path of our script as `$SCRIPT`; what it printed. None where there is no such shell,
/// which is said.
#[track_caller]
fn told(shell: &str, options: &[&str], line: &str) -> Option<String> {
    if Command::new(shell).arg("--version").output().is_err() {
        peers::not_run(&format!("{shell} is missing; install it with: xtask/need.sh test"));
        return None;
    }
    let files = Files::new();
    let script = run(&files, &["completion", shell].map(str::to_owned)).ok();
    let path = files.path("script");
    std::fs::write(&path, script).expect("the folder is ours");
    let mut command = Command::new(shell);
    isolate(&mut command, files.0.path());
    command.env("SCRIPT", path).args(options).args(["-c", line]);
    let output = Background::start(&mut command).finish(PATIENCE);
    // fish may miss something of a terminal, and says so.
    assert!(output.stderr.is_empty() || shell == "fish", "{shell}: {output:?}");
    Some(output.ok())
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let line = r#"source "$SCRIPT"; complete -p ambit
        look() { COMP_WORDS=(ambit "$@"); COMP_CWORD=$#; _ambit ambit "${@: -1}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[@]}"; }
        look pol; look policy dif; look get work; look lint --fail-on err"#;
    let Some(told) = told("bash", &["--norc", "--noprofile"], line) else { return };
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert!(lines[0].ends_with("-F _ambit ambit"), "{told}");
    assert_eq!(lines[1..], ["policy", "diff", "workloads", "error"]);
}

#[test]
fn zsh_knows_who_completes_the_command() {
    let line = r#"autoload -U compinit; compinit -u -D; source "$SCRIPT"
        (( $+functions[_ambit] )) && print -- "$_comps[ambit]""#;
    let Some(told) = told("zsh", &["-f"], line) else { return };
    assert_eq!(told.trim(), "_ambit");
}

#[test]
fn fish_completes_commands_and_values() {
    let line = "source $SCRIPT; complete -C'ambit pol'; complete -C'ambit lint --fail-on err'";
    let Some(told) = told("fish", &["--no-config"], line) else { return };
    let words: Vec<&str> = told.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(words, ["policy", "error"], "{told}");
}

#[test]
fn powershell_gets_a_script_and_an_unknown_shell_none() {
    let files = Files::new();
    let script = run(&files, &["completion", "powershell"].map(str::to_owned)).ok();
    assert!(script.contains("Register-ArgumentCompleter") && script.contains("support-bundle"), "{script}");
    assert_eq!(run(&files, &["completion", "tcsh"].map(str::to_owned)).code, Some(64));
}
