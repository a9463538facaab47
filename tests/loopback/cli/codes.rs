//! Exit codes as CI scripts rely on them, and no terminal code where nobody looks.
//!
//! 130 and what needs a mesh stand in the namespace tests.

use std::process::Command;

use ambit_tests::lab::{Background, ambit};

use super::{Files, PATIENCE, isolate, run};

/// Words of a command, words in braces being files, by the exit code they end with.
const ROWS: &[(i32, &[&str])] = &[
    (0, &["--help", "--version", "status --help", "why AMB2104", "why policy-denied", "completion bash"]),
    (0, &["install", "install -o json", "install --list-settings", "waypoint generate"]),
    (0, &["lint {manifests.yaml}", "lint {findings.yaml} --fail-on never"]),
    (0, &["policy test {passing.yaml} -f {manifests.yaml}"]),
    // What the mesh does not read is not in the way.
    (0, &["lint {repository.yaml}", "policy test {passing.yaml} -f {repository.yaml}"]),
    (0, &["policy test {rows.yaml} -f {manifests.yaml} --fail-on never"]),
    (0, &["check --pre --fail-on never"]),
    // What exists already is not replaced.
    (1, &["support-bundle --to {manifests.yaml}"]),
    (
        64,
        &["", "nonsense", "why", "status --nonsense", "get pods", "get workloads -o xml", "completion tcsh"],
    ),
    (64, &["flows --last many", "flows --to-port http", "explain shop shop/cart:80", "check -o yaml"]),
    (64, &["install --set nonsense=1", "install --set nonsense", "breakglass open -n shop --reason r"]),
    (64, &["get workloads --file {text} --raw", "status --name Not_A_Name"]),
    (65, &["lint {broken.yaml}", "lint {absent.yaml}", "policy test {rows.yaml} -f {broken.yaml}"]),
    (65, &["policy test {text} -f {manifests.yaml}", "policy test {absent.yaml} -f {manifests.yaml}"]),
    (65, &["get workloads --file {text}", "get workloads --file {absent.json}", "why nonsense"]),
    (65, &["flows --input-file {text}", "flows --input-file {absent.json}"]),
    (65, &["explain shop/web shop/cart:80 --bundle {text}"]),
    (69, &["status", "status --budget", "get workloads", "get certificates", "get connections --raw"]),
    (69, &["flows", "flows -f", "tap", "top --for 1s", "stat", "edges", "map", "map --open --port 0"]),
    (69, &["explain shop/web shop/cart:80", "why last", "strict report", "lint", "policy suggest -n shop"]),
    (69, &["policy diff {manifests.yaml}", "policy test {rows.yaml}", "ca status", "ca rotate"]),
    (69, &["breakglass list", "breakglass close -n shop", "waypoint list", "waypoint status", "lab status"]),
    (69, &["support-bundle --to {bundle.tar.gz}", "enroll ns shop", "check", "check --clean"]),
    (69, &["install -o apply", "upgrade --plan", "uninstall"]),
    (
        79,
        &[
            "lint {findings.yaml}",
            "policy test {rows.yaml} -f {manifests.yaml}",
            "check --pre --fail-on warning",
        ],
    ),
];

fn words(files: &Files, line: &str) -> Vec<String> {
    let word = |word: &str| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
        Some(file) => files.path(file),
        None => word.to_owned(),
    };
    line.split(' ').filter(|word| !word.is_empty()).map(word).collect()
}

#[test]
fn every_way_to_end_has_its_own_code() {
    let files = Files::new();
    let mut wrong = Vec::new();
    for (code, lines) in ROWS {
        for line in *lines {
            let output = run(&files, &words(&files, line));
            if output.code != Some(*code) {
                wrong.push(format!("{line}: {:?}, not {code}: {}", output.code, output.stderr.trim()));
            }
            // What went wrong is said, and never where data is expected.
            let said = *code == 0 || *code == 79 || (output.stdout.is_empty() && !output.stderr.is_empty());
            if !said {
                wrong.push(format!("{line}: stdout {:?}, stderr {:?}", output.stdout, output.stderr));
            }
            if [&output.stdout, &output.stderr].iter().any(|text| text.contains('\u{1b}')) {
                wrong.push(format!("{line}: a terminal code without a terminal"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Of these nothing is coloured, on a terminal neither.
#[test]
fn help_mistakes_and_findings_are_plain_on_a_terminal_too() {
    let files = Files::new();
    for line in ["--help", "nonsense", "status", "why AMB2104", "lint findings.yaml", "check --pre"] {
        let mut command = Command::new("script");
        isolate(&mut command, files.0.path());
        command.env("AMBIT", ambit()).args(["-qfc", &format!("\"$AMBIT\" {line}"), "/dev/null"]);
        let output = Background::start(&mut command).finish(PATIENCE);
        assert!(output.stdout.len() > 10, "{line}: {output:?}");
        assert!(!output.stdout.contains('\u{1b}'), "{line}: {output:?}");
    }
}
