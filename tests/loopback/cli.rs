//! The command line as scripts and shells use it: exit codes, what is printed for programs, completion. No mesh runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Output, ambit};
use tempfile::TempDir;

mod codes;
mod completion;
mod printed;

/// Longest time a command may take that asks nobody.
const PATIENCE: Duration = Duration::from_secs(30);
/// A lab that is not up.
const ABSENT: &str = "t-absent";

/// What the mesh of the tests is: two callers, a service, and who may call it.
const MANIFESTS: &str = include_str!("../cases/shop.yaml");
/// Beside them a rule that nobody without a waypoint can enforce as it is written: AMB3103.
const FINDING: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
";
/// Beside them what else stands in a repository: other kinds that make pods, one of Istio's, and one of neither.
const REPOSITORY: &str = "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: '@daily'
  jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: shop}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front, namespace: shop}
";
/// One row that passes, and one that does not.
const ROWS: &str = "
- {from: shop/web, to: 'shop/cart:80', expect: allow}
- {from: shop/cart, to: 'shop/cart:80', expect: allow}
";

/// Files that commands are given, in a folder of their own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().expect("a temporary folder"));
        let texts = [
            ("manifests.yaml", MANIFESTS.to_owned()),
            ("findings.yaml", format!("{MANIFESTS}{FINDING}")),
            ("repository.yaml", format!("{MANIFESTS}{REPOSITORY}")),
            ("broken.yaml", MANIFESTS.replace("rules:", "rulez:")),
            ("rows.yaml", ROWS.to_owned()),
            ("passing.yaml", ROWS.lines().take(2).collect::<Vec<_>>().join("\n")),
            ("text", "neither YAML with rows nor JSON: [".to_owned()),
        ];
        for (name, text) in texts {
            std::fs::write(files.0.path().join(name), text).expect("the folder is ours");
        }
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// A command of ours, for somebody without a lab, a cluster or settings of their own.
fn command(home: &Path) -> Command {
    let mut command = Command::new(ambit());
    isolate(&mut command, home);
    command
}

fn isolate(command: &mut Command, home: &Path) {
    for name in ["NO_COLOR", "AMBIT_ROOT_NAMESPACE", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        command.env_remove(name);
    }
    command.env("AMBIT_LAB", ABSENT).env("HOME", home).env("KUBECONFIG", home.join("no-kubeconfig"));
    command.current_dir(home);
}

/// Runs `ambit ARGS…` to its end.
#[track_caller]
fn run(files: &Files, args: &[String]) -> Output {
    Background::start(command(files.0.path()).args(args)).finish(PATIENCE)
}
