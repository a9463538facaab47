//! The commands on a cluster: Gateways by server-side apply under a name of our own, and what the API server tells of
//! them.
//!
//! Services of other namespaces are looked at where whoever asks may list them; where not, that is said.

use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use ambit_lab::schedule::waypoints;
use ambit_runtime::clock;
use kube::Client;
use serde_json::{Value, json};

use super::{ApplyArgs, Command, DeleteArgs, GatewayArgs, Mesh, Objects, facts, gateway, show};
use crate::cmd::install::cluster::merge;
use crate::cmd::place::failure;
use crate::out::{self, Failure};

/// Under which name Gateways are written.
const MANAGER: &str = "ambit-cli";
/// The version of Gateways that is asked for.
const GATEWAYS: &str = "gateway.networking.k8s.io/v1";
/// Pause between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub(super) async fn run(client: &Client, command: &Command) -> anyhow::Result<i32> {
    let mesh = Mesh::Cluster;
    match command {
        Command::Apply(args) => apply(client, args).await,
        Command::List(args) => {
            let objects = if args.needs_gateways_only() {
                Objects { gateways: gateways(client, args.scope()).await?, ..Objects::default() }
            } else {
                objects(client, args.scope()).await?
            };
            Ok(show::list(mesh, &objects, args, &Value::Null))
        }
        Command::Status(args) => {
            let objects = objects(client, args.which().scope()).await?;
            show::status(mesh, &objects, args, &Value::Null)
        }
        Command::Delete(args) => delete(client, args).await,
        Command::Generate(_) => Ok(out::OK),
    }
}

async fn apply(client: &Client, args: &ApplyArgs) -> anyhow::Result<i32> {
    let GatewayArgs { namespace, name, .. } = &args.gateway;
    let before = objects(client, Some(namespace)).await?;
    let home = gateway::check_namespace(&before.namespaces, namespace, Mesh::Cluster)?;
    gateway::check_free(&before.gateways, namespace, name)?;
    if args.enroll_namespace {
        gateway::check_enrolment(home, name, args.overwrite)?;
    }
    let applied = write::apply(client, MANAGER, &gateway::of(&args.gateway), false).await;
    applied.map_err(|error| refused(&error))?;
    out::data(&format!("waypoint {namespace}/{name} applied"));
    if args.waits_in_cluster() {
        wait_programmed(client, namespace, name, args.wait.timeout).await?;
        out::data(&format!("waypoint {namespace}/{name} is programmed"));
    }
    if args.enroll_namespace {
        let change = json!({"metadata": {"labels": {facts::USE_WAYPOINT: name}}});
        let target = Target::new("v1", "Namespace", None, namespace)?;
        merge(client, &target, &change).await.map_err(|error| failure(&error))?;
        out::data(&format!("namespace {namespace} labelled {}={name}", facts::USE_WAYPOINT));
    }
    for hint in gateway::hints(&objects(client, Some(namespace)).await?, namespace, name, Mesh::Cluster) {
        out::say(&hint);
    }
    Ok(out::OK)
}

async fn delete(client: &Client, args: &DeleteArgs) -> anyhow::Result<i32> {
    let namespace = args.namespace.as_str();
    let objects = objects(client, Some(namespace)).await?;
    let names = if args.all { facts::names(&objects.gateways, namespace) } else { args.names.clone() };
    for name in &names {
        gateway::check_exists(&objects.gateways, namespace, name, Mesh::Cluster)?;
    }
    if names.is_empty() {
        out::say(&format!("no waypoint in namespace {namespace}; nothing to remove"));
        return Ok(out::OK);
    }
    for name in &names {
        // Told first: from the moment it is gone, these are refused.
        if let Some(warning) = gateway::orphans(&objects, namespace, name, Mesh::Cluster) {
            out::say(&warning);
        }
        let target = Target::new(GATEWAYS, "Gateway", Some(namespace), name)?;
        let own = objects.gateways.iter().find(|gateway| facts::is_named(gateway, namespace, name));
        // Only the one that was looked at: another may have taken its name.
        let uid = own.and_then(|gateway| facts::text(gateway, "/metadata/uid"));
        write::delete(client, &target, uid).await.map_err(|error| failure(&error))?;
        out::data(&format!("waypoint {namespace}/{name} deleted"));
    }
    if args.wait.wait {
        for name in &names {
            wait_gone(client, namespace, name, args.wait.timeout).await?;
        }
    }
    Ok(out::OK)
}

/// Waits until a waypoint is in force.
async fn wait_programmed(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let target = Target::new(GATEWAYS, "Gateway", Some(namespace), name)?;
    let end = clock::monotonic() + limit;
    loop {
        let why = match write::get(client, &target).await {
            Ok(Some(gateway)) => match standing(&gateway) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            },
            Ok(None) => return Err(Failure::new(out::FAILED, "it was deleted meanwhile").into()),
            // An API server may be away for a moment.
            Err(error) if error.is_passing() => error.to_string(),
            Err(error) => return Err(failure(&error).into()),
        };
        if clock::monotonic() >= end {
            let words =
                format!("waypoint {namespace}/{name} is applied and not in force after {limit:?}: {why}");
            return Err(Failure::new(out::FAILED, words).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether a Gateway is in force in its newest version; if not, what it says.
pub(super) fn standing(gateway: &Value) -> Result<(), String> {
    let all = gateway.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = all.into_iter().flatten();
    let Some(told) = conditions.find(|one| one["type"] == "Programmed") else {
        return Err("nothing has been said of it yet: is istiod-lite running (ambit check)?".to_owned());
    };
    let newest = gateway.pointer("/metadata/generation").and_then(Value::as_u64);
    if told["observedGeneration"].as_u64() < newest {
        return Err("nothing has been said of its newest version yet".to_owned());
    }
    if told["status"] == "True" {
        return Ok(());
    }
    let word = |key: &str| told[key].as_str().unwrap_or("?");
    Err(format!("Programmed={} {}: {}", word("status"), word("reason"), word("message")))
}

/// Waits until no pod of a waypoint is left.
async fn wait_gone(client: &Client, namespace: &str, name: &str, limit: Duration) -> anyhow::Result<()> {
    let end = clock::monotonic() + limit;
    let labels =
        format!("{}={name},{}={}", waypoints::GATEWAY_LABEL, waypoints::MANAGED_LABEL, waypoints::MANAGED);
    let target = Target::new("v1", "Pod", Some(namespace), "")?;
    loop {
        let left = match write::list(client, &target, Some(&labels), None).await {
            Ok(pods) if pods.is_empty() => return Ok(()),
            Ok(pods) => format!("{} pods of it are left", pods.len()),
            Err(error) if error.is_passing() => error.to_string(),
            Err(error) => return Err(failure(&error).into()),
        };
        if clock::monotonic() >= end {
            let words =
                format!("waypoint {namespace}/{name} is deleted and not gone after {limit:?}: {left}");
            return Err(Failure::new(out::FAILED, words).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What commands look at: everything about waypoints in a namespace, or in all.
async fn objects(client: &Client, namespace: Option<&str>) -> anyhow::Result<Objects> {
    let pods = Target::new("v1", "Pod", namespace, "")?;
    let made = format!("{}={}", waypoints::MANAGED_LABEL, waypoints::MANAGED);
    let pods = write::list(client, &pods, Some(&made), None).await.map_err(|error| failure(&error))?;
    Ok(Objects {
        gateways: gateways(client, namespace).await?,
        namespaces: namespaces(client, namespace).await?,
        services: services(client, namespace).await?,
        pods,
    })
}

async fn gateways(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let target = Target::new(GATEWAYS, "Gateway", namespace, "")?;
    write::list(client, &target, None, None).await.map_err(|error| match error {
        KubeError::NotFound { .. } => {
            let words = "the API server does not serve Gateways (gateway.networking.k8s.io/v1): install the Gateway \
                         API first; ambit check --pre tells how";
            Failure::new(out::FAILED, words).into()
        }
        other => failure(&other).into(),
    })
}

/// Every namespace; the one asked about, where no more may be read.
async fn namespaces(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let all = Target::new("v1", "Namespace", None, "")?;
    match (write::list(client, &all, None, None).await, namespace) {
        (Ok(all), _) => Ok(all),
        (Err(KubeError::Forbidden { .. }), Some(name)) => {
            let own = Target::new("v1", "Namespace", None, name)?;
            let found = write::get(client, &own).await.map_err(|error| failure(&error))?;
            Ok(found.into_iter().collect())
        }
        (Err(error), _) => Err(failure(&error).into()),
    }
}

/// Every service; those of the namespace asked about, where no more may be read.
async fn services(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let all = Target::new("v1", "Service", None, "")?;
    match (write::list(client, &all, None, None).await, namespace) {
        (Ok(all), _) => Ok(all),
        (Err(KubeError::Forbidden { .. }), Some(_)) => {
            out::say(
                "note: services of other namespaces that use a waypoint are not shown: they may not be listed",
            );
            let own = Target::new("v1", "Service", namespace, "")?;
            write::list(client, &own, None, None).await.map_err(|error| failure(&error).into())
        }
        (Err(error), _) => Err(failure(&error).into()),
    }
}

/// Why a Gateway was not written.
fn refused(error: &KubeError) -> Failure {
    let failure = failure(error);
    match error {
        KubeError::Conflict { .. } => Failure::new(
            out::FAILED,
            format!(
                "{failure}; nothing was changed: change these fields where they were written, or delete the Gateway first"
            ),
        ),
        KubeError::NotFound { .. } => Failure::new(
            out::FAILED,
            format!("{failure}; are the definitions of the Gateway API there? ambit check --pre"),
        ),
        KubeError::Config(_)
        | KubeError::Unauthorized { .. }
        | KubeError::Forbidden { .. }
        | KubeError::Status { .. }
        | KubeError::Unreachable { .. }
        | KubeError::TimedOut { .. }
        | KubeError::Answer { .. }
        | KubeError::UnknownKind { .. }
        | KubeError::Incomplete(_) => failure,
    }
}
