//! `ambit waypoint list|status`: which waypoints there are, and how they stand.

use clap::Args as ClapArgs;
use serde_json::Value;

use super::{Mesh, Objects, facts, gateway};
use crate::cmd::form::{FORMS, Form, List};
use crate::cmd::nodes::{cell, text};
use crate::out;

/// What a cluster's API server cannot tell of the pods.
const UNTOLD: &str = "SYNCED and REVISION are \"-\": which configuration a pod has, the control plane alone knows \
     (ambit_config_last_ack_timestamp_seconds, ambit_config_rejected_total)";

/// Which waypoints.
#[derive(Debug, ClapArgs)]
pub(super) struct ListArgs {
    /// The waypoints' namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Waypoints of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Which waypoints.
#[derive(Debug, ClapArgs)]
pub(super) struct StatusArgs {
    /// One waypoint; all of the namespace if left out
    waypoint: Option<String>,
    #[command(flatten)]
    which: ListArgs,
}

impl ListArgs {
    /// The namespace, unless all are wanted.
    pub(super) fn scope(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.namespace.as_str())
    }

    /// Whether no more is shown than the Gateways say themselves.
    pub(super) fn needs_gateways_only(&self) -> bool {
        matches!(self.output, Form::Table | Form::Wide | Form::Name)
    }
}

impl StatusArgs {
    /// Which waypoints.
    pub(super) fn which(&self) -> &ListArgs {
        &self.which
    }
}

/// Shows the waypoints; `sync` is what the control plane tells of them, null if it cannot be asked.
pub(super) fn list(mesh: Mesh<'_>, objects: &Objects, args: &ListArgs, sync: &Value) -> i32 {
    let items = items(mesh, objects, args, None, sync);
    if items.is_empty() && is_table(&args.output) {
        out::say(&nothing(objects, args, mesh));
        return out::OK;
    }
    print(items, args, |items, _| list_table(items));
    out::OK
}

/// Shows how the waypoints stand.
///
/// # Errors
/// When there is none of the name asked for.
pub(super) fn status(
    mesh: Mesh<'_>,
    objects: &Objects,
    args: &StatusArgs,
    sync: &Value,
) -> anyhow::Result<i32> {
    if let Some(name) = args.waypoint.as_deref().filter(|_| !args.which.all_namespaces) {
        gateway::check_exists(&objects.gateways, &args.which.namespace, name, mesh)?;
    }
    let items = items(mesh, objects, &args.which, args.waypoint.as_deref(), sync);
    if items.is_empty() && is_table(&args.which.output) {
        out::say(&nothing(objects, &args.which, mesh));
        return Ok(out::OK);
    }
    let well = items.iter().all(facts::is_well);
    let has_pods = items.iter().any(|item| !list_of(item, "pods").is_empty());
    print(items, &args.which, |items, _| status_table(items));
    if has_pods && matches!(mesh, Mesh::Cluster) && is_table(&args.which.output) {
        out::say(UNTOLD);
    }
    Ok(if well { out::OK } else { out::FAILED })
}

fn items(mesh: Mesh<'_>, objects: &Objects, args: &ListArgs, name: Option<&str>, sync: &Value) -> Vec<Value> {
    let wanted = |gateway: &&Value| {
        let is = |pointer: &str, wanted: &str| facts::text(gateway, pointer) == Some(wanted);
        (args.all_namespaces || is("/metadata/namespace", &args.namespace))
            && name.is_none_or(|name| is("/metadata/name", name))
    };
    let item = |gateway: &Value| {
        let bound = facts::bound(gateway, &objects.services, &objects.namespaces);
        let item = facts::item(gateway, &objects.pods, &bound, sync);
        match mesh {
            Mesh::Lab(_) => item,
            Mesh::Cluster => facts::without_control_plane(item),
        }
    };
    objects.waypoints().filter(wanted).map(item).collect()
}

fn print(items: Vec<Value>, args: &ListArgs, table: impl Fn(&[Value], bool) -> String) {
    let name = |item: &Value| format!("waypoint/{}/{}", text(item, "namespace"), text(item, "name"));
    List { kind: "WaypointList", items }.print(&args.output, table, name);
}

fn is_table(form: &Form) -> bool {
    matches!(form, Form::Table | Form::Wide)
}

/// What to say when nothing was found; names the namespaces where it would have been.
fn nothing(objects: &Objects, args: &ListArgs, mesh: Mesh<'_>) -> String {
    let make = mesh.typed(&format!("apply -n {}", args.namespace));
    match mesh {
        // Of other namespaces nothing was asked there.
        Mesh::Cluster if !args.all_namespaces => {
            return format!(
                "no waypoint in namespace {}; make one with: {make}; all: add -A",
                args.namespace
            );
        }
        Mesh::Cluster => return format!("no waypoint in the cluster; make one with: {make}"),
        Mesh::Lab(lab) if args.all_namespaces || objects.waypoints().next().is_none() => {
            return format!("no waypoint in lab {lab}; make one with: {make}");
        }
        Mesh::Lab(_) => {}
    }
    let mut elsewhere: Vec<&str> =
        objects.waypoints().filter_map(|g| facts::text(g, "/metadata/namespace")).collect();
    elsewhere.dedup();
    let elsewhere = elsewhere.join(", ");
    format!("no waypoint in namespace {}; there is in {elsewhere}: add -n NAMESPACE or -A", args.namespace)
}

pub(in crate::cmd) fn list_table(items: &[Value]) -> String {
    let keys = ["namespace", "name", "revision", "traffic_type", "programmed"];
    let heading = ["NAMESPACE", "NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED"];
    out::table(
        &heading,
        &items.iter().map(|item| keys.map(|key| cell(item, key)).to_vec()).collect::<Vec<_>>(),
    )
}

/// Conditions, then pods, then services; a table without rows is left out.
pub(in crate::cmd) fn status_table(items: &[Value]) -> String {
    let (mut conditions, mut pods, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        let (namespace, name) = (cell(item, "namespace"), cell(item, "name"));
        let told = list_of(item, "conditions");
        if told.is_empty() {
            let words = "no pod of it has been ready yet".to_owned();
            conditions.push(vec![
                namespace,
                name,
                "Unknown".into(),
                "Programmed".into(),
                "Pending".into(),
                words,
            ]);
        }
        for one in told {
            let of = ["status", "type", "reason", "message"].map(|key| cell(one, key));
            conditions.push([cell(item, "namespace"), cell(item, "name")].into_iter().chain(of).collect());
        }
        pods.extend(list_of(item, "pods").iter().map(pod_row));
        let bound = list_of(item, "services").iter().filter_map(Value::as_str);
        services.extend(bound.map(|service| vec![service.to_owned(), full_name(item)]));
    }
    let mut shown =
        vec![out::table(&["NAMESPACE", "NAME", "STATUS", "TYPE", "REASON", "MESSAGE"], &conditions)];
    if !pods.is_empty() {
        shown.push(out::table(POD_HEADING, &pods));
    }
    if !services.is_empty() {
        shown.push(out::table(&["SERVICE", "WAYPOINT"], &services));
    }
    shown.join("\n")
}

fn list_of<'a>(item: &'a Value, key: &str) -> &'a [Value] {
    item[key].as_array().map_or(&[], Vec::as_slice)
}

fn full_name(item: &Value) -> String {
    format!("{}/{}", text(item, "namespace"), text(item, "name"))
}

/// The columns of [`pod_row`].
pub(in crate::cmd) const POD_HEADING: &[&str] =
    &["WAYPOINT", "POD", "NODE", "READY", "SYNCED", "REVISION", "REJECTED"];

/// One pod of a waypoint, as [`facts::pod_rows`] has it.
pub(in crate::cmd) fn pod_row(pod: &Value) -> Vec<String> {
    let rejected = |r: &Value| format!("{} {}: {}", text(r, "kind"), text(r, "name"), text(r, "reason"));
    let rejected: Vec<String> = list_of(pod, "rejected").iter().map(rejected).collect();
    let ready = if pod["ending"] == true { "ending".to_owned() } else { cell(pod, "ready") };
    vec![
        cell(pod, "gateway"),
        cell(pod, "pod"),
        cell(pod, "node"),
        ready,
        cell(pod, "synced"),
        cell(pod, "acked_revision"),
        if rejected.is_empty() { "-".to_owned() } else { rejected.join("; ") },
    ]
}
