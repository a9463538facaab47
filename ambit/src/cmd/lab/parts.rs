//! `ambit lab exec|stop|start|restart|kill|status`: the running parts of a lab.

use std::ffi::OsString;

use ambit_lab::control::{Action, Request, ask};
use ambit_lab::programs::Target;
use ambit_lab::{LabError, LabName};
use clap::ValueEnum;
use serde_json::Value;

use crate::out;

/// One part.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// istiod, ztunnel/NODE, cni/NODE, pod/NAMESPACE/NAME or waypoint/NAMESPACE/NAME; with `--source kube` also
    /// istiod/N, apiserver, etcd or controller-manager
    target: Target,
}

/// What kubectl is given.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct KubectlArgs {
    /// Its arguments, as in `get pods -A`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(super) args: Vec<OsString>,
}

/// A command in a pod.
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    /// The pod's namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Whose namespaces, if the pod has several containers
    #[arg(short, long)]
    container: Option<String>,
    /// The pod
    pod: String,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// How status is shown.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Output form
    #[arg(short, long, value_enum, default_value_t = StatusForm::Table)]
    output: StatusForm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StatusForm {
    Table,
    Json,
}

pub(super) fn exec(lab: &LabName, args: &ExecArgs) -> Result<i32, LabError> {
    let pod = (args.namespace.as_str(), args.pod.as_str());
    ambit_lab::exec::run(lab, pod, args.container.as_deref(), &args.command)
}

pub(super) fn act(lab: &LabName, action: Action, args: &TargetArgs) -> Result<i32, LabError> {
    ask(lab, &Request::Act { action, target: args.target.to_string() }, &mut out::say)?;
    Ok(out::OK)
}

pub(super) fn status(lab: &LabName, args: &StatusArgs) -> Result<i32, LabError> {
    let status = ask(lab, &Request::Status, &mut out::say)?;
    match args.output {
        StatusForm::Json => out::data(&format!("{status:#}")),
        StatusForm::Table => out::data(&tables(&status)),
    }
    Ok(out::OK)
}

pub(in crate::cmd) fn tables(status: &Value) -> String {
    let text = |value: &Value, key: &str| match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(all)) => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            if all.is_empty() { "-".to_owned() } else { all.join(",") }
        }
        Some(other) => other.to_string(),
    };
    let rows = |list: &str, keys: &[&str]| -> Vec<Vec<String>> {
        let items = status.get(list).and_then(Value::as_array).into_iter().flatten();
        items.map(|item| keys.iter().map(|key| text(item, key)).collect()).collect()
    };
    let nodes = ["name", "addresses", "link", "pods", "captured"];
    let programs = ["target", "state", "pid", "restarts", "admin", "metrics"];
    let pods = ["namespace", "name", "node", "addresses", "phase", "ready", "captured", "restarts"];
    let waypoints = ["gateway", "pod", "node", "state", "pid", "admin", "metrics"];
    let waypoints = rows("waypoints", &waypoints);
    let heading = ["WAYPOINT", "POD", "NODE", "STATE", "PID", "ADMIN", "METRICS"];
    let waypoints = (!waypoints.is_empty()).then(|| out::table(&heading, &waypoints));
    let shown = [
        Some(out::table(&["NODE", "ADDRESSES", "LINK", "PODS", "CAPTURED"], &rows("nodes", &nodes))),
        Some(out::table(
            &["PROGRAM", "STATE", "PID", "RESTARTS", "ADMIN", "METRICS"],
            &rows("programs", &programs),
        )),
        waypoints,
        Some(out::table(
            &["NAMESPACE", "POD", "NODE", "ADDRESSES", "PHASE", "READY", "CAPTURED", "RESTARTS"],
            &rows("pods", &pods),
        )),
    ];
    shown.into_iter().flatten().collect::<Vec<_>>().join("\n")
}
