//! The Gateway that a waypoint is, and what speaks against writing or removing it. Pure.

use ambit_lab::schedule::waypoints;
use serde_json::{Value, json};

use super::facts::{self, USE_WAYPOINT, WAYPOINT_FOR, is_named, label, text};
use super::{GatewayArgs, Mesh, Objects};
use crate::out::{self, Failure};

/// Label by which a namespace asks for the mesh.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// The object, as istioctl writes it.
pub(super) fn of(args: &GatewayArgs) -> Value {
    let mut gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": args.name, "namespace": args.namespace},
        "spec": {
            "gatewayClassName": waypoints::CLASS,
            "listeners": [{
                "name": "mesh", "port": waypoints::HBONE_PORT, "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": "Same"}},
            }],
        },
    });
    if let Some(traffic) = args.traffic {
        gateway["metadata"]["labels"] = json!({WAYPOINT_FOR: traffic.as_str()});
    }
    gateway
}

/// The namespace of that name.
///
/// # Errors
/// When there is none: which there are, and how to make it.
pub(super) fn check_namespace<'a>(
    namespaces: &'a [Value],
    name: &str,
    mesh: Mesh<'_>,
) -> Result<&'a Value, Failure> {
    let found = namespaces.iter().find(|n| text(n, "/metadata/name") == Some(name));
    found.ok_or_else(|| {
        let words = match mesh {
            Mesh::Lab(lab) => {
                let known: Vec<&str> = namespaces.iter().filter_map(|n| text(n, "/metadata/name")).collect();
                let (known, apply) = (known.join(", "), lab.command("apply -f FILE"));
                format!("lab {lab} has no namespace {name}, only {known}; make it with a manifest: {apply}")
            }
            Mesh::Cluster => {
                format!("the cluster has no namespace {name}; make it with: kubectl create namespace {name}")
            }
        };
        Failure::new(out::FAILED, words)
    })
}

/// Makes sure that the name does not belong to a Gateway of another class.
///
/// # Errors
/// When it does.
pub(super) fn check_free(gateways: &[Value], namespace: &str, name: &str) -> Result<(), Failure> {
    match gateways.iter().find(|g| is_named(g, namespace, name)) {
        Some(other) if !waypoints::is_waypoint(other) => {
            let class = text(other, "/spec/gatewayClassName").unwrap_or_default();
            Err(Failure::new(
                out::FAILED,
                format!(
                    "Gateway {namespace}/{name} is there and is no waypoint of ours (class {class}); nothing was \
                     changed; choose another name with --name"
                ),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes sure that the namespace uses no other waypoint, unless it may be overwritten.
///
/// # Errors
/// Names the waypoint that it uses.
pub(super) fn check_enrolment(namespace: &Value, name: &str, overwrite: bool) -> Result<(), Failure> {
    match label(namespace, USE_WAYPOINT) {
        Some(other) if other != name && !overwrite => {
            let namespace = text(namespace, "/metadata/name").unwrap_or_default();
            Err(Failure::new(
                out::FAILED,
                format!(
                    "namespace {namespace} is labelled {USE_WAYPOINT}={other}; nothing was changed; to use {name} \
                     instead, add --overwrite"
                ),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes sure that there is such a waypoint.
///
/// # Errors
/// When there is none; names those there are.
pub(super) fn check_exists(
    gateways: &[Value],
    namespace: &str,
    name: &str,
    mesh: Mesh<'_>,
) -> Result<(), Failure> {
    let found = gateways.iter().find(|g| is_named(g, namespace, name));
    if found.is_some_and(waypoints::is_waypoint) {
        return Ok(());
    }
    let known: Vec<String> =
        gateways.iter().filter(|g| waypoints::is_waypoint(g)).map(facts::full_name).collect();
    let known = if known.is_empty() {
        format!("there is none; make one with: {}", mesh.typed(&format!("apply -n {namespace}")))
    } else {
        format!("only {}", known.join(", "))
    };
    Err(Failure::new(out::FAILED, format!("no waypoint {namespace}/{name}, {known}")))
}

/// What keeps a waypoint from being of use, with the command that changes it.
pub(super) fn hints(objects: &Objects, namespace: &str, name: &str, mesh: Mesh<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    let home = objects.namespaces.iter().find(|n| text(n, "/metadata/name") == Some(namespace));
    if home.and_then(|n| label(n, DATAPLANE_MODE)) != Some("ambient") {
        let enrol = mesh.command(&format!("label namespace {namespace} {DATAPLANE_MODE}=ambient"));
        hints.push(format!(
            "warning: namespace {namespace} is not in the mesh, so nothing of it goes through a waypoint: {enrol}"
        ));
    }
    let serves = |g: &&Value| is_named(g, namespace, name);
    let Some(gateway) = objects.waypoints().find(serves) else { return hints };
    let asks = home.and_then(|n| label(n, USE_WAYPOINT)) == Some(name);
    if !asks && facts::bound(gateway, &objects.services, &objects.namespaces).is_empty() {
        let whole = mesh.command(&format!("label namespace {namespace} {USE_WAYPOINT}={name}"));
        let one = mesh.command(&format!("label service SERVICE -n {namespace} {USE_WAYPOINT}={name}"));
        hints.push(format!("nothing uses it yet; a whole namespace: {whole}; one service: {one}"));
    }
    hints
}

/// What to say before a waypoint is removed that services use.
pub(super) fn orphans(objects: &Objects, namespace: &str, name: &str, mesh: Mesh<'_>) -> Option<String> {
    const SHOWN: usize = 5;
    let gateway = objects.waypoints().find(|g| is_named(g, namespace, name))?;
    let bound = facts::bound(gateway, &objects.services, &objects.namespaces);
    if bound.is_empty() {
        return None;
    }
    let mut shown = bound[..bound.len().min(SHOWN)].join(", ");
    if bound.len() > SHOWN {
        shown = format!("{shown} and {} more", bound.len() - SHOWN);
    }
    let release = mesh.command(&format!("label namespace {namespace} {USE_WAYPOINT}-"));
    Some(format!(
        "warning: still asked for by {shown}: without it their connections are refused (AMB3101) until they ask for \
         none, for example: {release}"
    ))
}
