//! Arguments and variables, read by the programs' own parsers.

use std::ffi::OsString;

use ambit_control::Name;
use ambit_control::input::{Gateway, Labels};
use ambit_types::written;
use clap::{Command, CommandFactory as _};
use istiod_lite::lead::waypoint::objects;
use serde_json::Value;

use super::{FIELDS, list, text, workloads};

/// A program with its parser.
struct Program {
    name: &'static str,
    command: fn() -> Command,
    read: fn(Vec<OsString>) -> Result<(), String>,
}

fn told<T>(read: Result<T, clap::Error>) -> Result<(), String> {
    read.map(drop).map_err(|error| error.to_string())
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "ztunnel",
        command: ztunnel::config::Config::command,
        read: |args| told(ztunnel::config::Config::read(args)),
    },
    Program {
        name: "waypoint",
        command: waypoint::config::Config::command,
        read: |args| told(waypoint::config::Config::read(args)),
    },
    Program {
        name: "istiod-lite",
        command: istiod_lite::config::Config::command,
        read: |args| told(istiod_lite::config::Config::read(args)),
    },
    Program {
        name: "ambit-cni",
        command: ambit_cni::config::Config::command,
        read: |args| told(ambit_cni::config::Config::read(args)),
    },
];

/// Has a container's arguments and variables read by the program in its image.
fn check(container: &Value) -> Result<(), String> {
    let image = text(container, "/image");
    let name = image.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    let Some(program) = PROGRAMS.iter().find(|program| program.name == name) else {
        return Err(format!("no program is called {name:?}"));
    };
    let command = (program.command)();
    let mut args = vec![OsString::from(name)];
    args.extend(list(container, "/args").filter_map(Value::as_str).map(OsString::from));
    for variable in list(container, "/env") {
        let (key, value) = (text(variable, "/name"), value_of(variable, container)?);
        let argument = command.get_arguments().find(|a| a.get_env().is_some_and(|env| env == key));
        let argument = argument.ok_or_else(|| format!("{name} does not read the variable {key}"))?;
        let long = argument.get_long().ok_or_else(|| format!("{key} has no flag"))?;
        args.push(OsString::from(format!("--{long}={value}")));
    }
    (program.read)(args)
}

fn value_of(variable: &Value, container: &Value) -> Result<String, String> {
    let Some(from) = variable.get("valueFrom") else { return Ok(text(variable, "/value").to_owned()) };
    if let Some(limit) = text(from, "/resourceFieldRef/resource").strip_prefix("limits.") {
        // The kubelet hands it out in whole units, rounded up.
        let limit = container["resources"]["limits"].get(limit).and_then(Value::as_str);
        return limit.map(str::to_owned).ok_or_else(|| format!("there is no such limit: {from}"));
    }
    let field = text(from, "/fieldRef/fieldPath");
    let known = FIELDS.iter().find(|(path, _)| *path == field);
    known.map(|(_, value)| (*value).to_owned()).ok_or_else(|| format!("nothing is at {from}"))
}

/// Has every container of an installation read by its program; `form` says which installation.
#[track_caller]
pub(super) fn read_by_their_programs<'a>(form: &str, objects: impl IntoIterator<Item = &'a Value>) {
    let is_workload = |object: &&Value| matches!(text(object, "/kind"), "Deployment" | "DaemonSet");
    let mut checked = Vec::new();
    for workload in objects.into_iter().filter(is_workload) {
        let pod = &workload["spec"]["template"]["spec"];
        for container in list(pod, "/initContainers").chain(list(pod, "/containers")) {
            let name = text(container, "/name");
            check(container).unwrap_or_else(|error| panic!("{form}: container {name}: {error}"));
            checked.push(name);
        }
    }
    checked.sort_unstable();
    assert_eq!(checked, ["discovery", "install-cni", "istio-proxy"], "{form}");
}

#[test]
fn every_argument_and_variable_is_one_that_the_program_reads() {
    read_by_their_programs("deploy", &super::objects());
}

#[test]
fn the_control_plane_starts_waypoints_that_can_read_what_they_are_told() {
    let given: [&[&str]; 3] = [
        &[],
        &["--waypoint-limits=cpu=500m,memory=1Gi"],
        &["--waypoint-limits=cpu=2", "--waypoint-log=debug"],
    ];
    for more in given {
        let always =
            ["istiod-lite", "--source=kube", "--waypoint-image=registry.ambit.internal/ambit/waypoint:0.1.0"];
        let (config, _) = istiod_lite::config::Config::read([&always[..], more].concat()).unwrap();
        let made = objects::made_of(&gateway(), &config.waypoints().unwrap()).unwrap();
        let containers: Vec<&Value> =
            workloads(&made).flat_map(|w| list(w, "/spec/template/spec/containers")).collect();
        assert_eq!(containers.len(), 1);
        check(containers[0]).unwrap_or_else(|error| panic!("{more:?}: {error}"));
    }
}

/// A waypoint that asks for nothing out of the ordinary.
fn gateway() -> Gateway {
    Gateway {
        name: Name::new("shop", "waypoint"),
        uid: "uid".into(),
        generation: 1,
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: written::Gateway {
            gateway_class_name: "istio-waypoint".to_owned(),
            ..written::Gateway::default()
        },
        has_address: false,
    }
}

#[test]
fn a_name_that_no_program_reads_is_found() {
    let container = |env: &str| {
        serde_json::json!({
            "image": "r/ztunnel:1", "args": ["proxy", "ztunnel"], "env": [{"name": env, "value": "info"}],
        })
    };
    assert_eq!(check(&container("RUST_LOG")), Ok(()));
    assert!(check(&container("RUST_LOGS")).unwrap_err().contains("RUST_LOGS"));
    let mut unknown = container("RUST_LOG");
    unknown["args"] = serde_json::json!(["--no-such-flag"]);
    assert!(check(&unknown).is_err());
}
