//! `ambit status` of a cluster: what its API server knows of the mesh, and no more.
//!
//! Whether a node is in step, which certificates it holds and how its tests went, its ztunnel alone knows; these columns
//! stay empty here. Lists are read page by page, and of a pod no more is kept than is counted.

use std::collections::BTreeSet;

use ambit_control::status::{
    ACCEPTED, PARTIALLY_INVALID, PROGRAMMED, RESOLVED_REFS, WAYPOINT_ACCEPTED, WAYPOINT_BOUND,
    ZTUNNEL_ACCEPTED,
};
use ambit_kube::KubeError;
use ambit_kube::resource::Resource;
use ambit_kube::write::{self, Target};
use ambit_lab::schedule::waypoints;
use ambit_manifest::Kind;
use kube::Client;
use serde_json::{Value, json};

use super::State;
use super::faults::{Faults, is_fault};
use crate::cmd::nodes::cell;
use crate::cmd::place::failure;
use crate::out;

mod tally;
#[cfg(test)]
mod tests;

use tally::Tally;

/// What a cluster's mesh is made of, with the API version of each.
const PARTS: [(&str, &str); 3] =
    [("Deployment", "istiod-lite"), ("DaemonSet", "ztunnel"), ("DaemonSet", "ambit-cni")];
/// Who writes the status of routes.
const ROUTE_CONTROLLER: &str = "istio.io/gateway-controller";
/// Types of conditions that the mesh writes.
const OURS: &[&str] = &[
    ACCEPTED,
    PARTIALLY_INVALID,
    PROGRAMMED,
    RESOLVED_REFS,
    WAYPOINT_ACCEPTED,
    WAYPOINT_BOUND,
    ZTUNNEL_ACCEPTED,
];
/// Kinds whose objects say how they stand.
const KINDS: [Kind; 13] = [
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::TrafficPolicy,
    Kind::EgressPolicy,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
    Kind::TLSRoute,
    Kind::TCPRoute,
    Kind::VirtualService,
    Kind::Gateway,
    Kind::ServiceEntry,
    Kind::Service,
];
/// Objects that are not in force as written, of which no more are shown.
const REPORTS_MAX: usize = 500;
/// What only the programs of the nodes and the control plane know.
pub(super) const UNTOLD: &str = "\"-\" is what an API server does not know: SYNCED, CERTS and SELFTEST are in the metrics of \
     ztunnel (ambit_config_last_ack_timestamp_seconds, ambit_certificate_remaining_seconds, ambit_selftest_result)";

/// A cluster, and where the mesh is in it.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// The one whose control plane is in `namespace`.
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Looks once; whether all is well as far as can be known.
    ///
    /// # Errors
    /// When the API server cannot be asked, or does not let us.
    pub(super) async fn look(&self, node: Option<&str>) -> anyhow::Result<(State, bool)> {
        let parts = self.parts().await?;
        let mut tally = Tally::new(&self.namespace, self.enrolled().await?, self.nodes().await?);
        let pods = Target::new("v1", "Pod", None, "")?;
        let counted = write::each(&self.client, &pods, None, None, |pod| tally.take(&pod)).await;
        counted.map_err(|error| failure(&error))?;
        let reports = self.reports().await?;
        let (nodes, mut waypoints, missing) = tally.rows();
        let is_wanted = |row: &Value| node.is_none_or(|node| row["node"] == node);
        waypoints.retain(is_wanted);
        let nodes: Vec<Value> = nodes.into_iter().filter(is_wanted).collect();
        let missing = missing.into_iter().filter(is_wanted).collect();
        let is_well = is_well(&parts, &nodes, &waypoints);
        let faults = Faults { reports, problems: Vec::new() };
        Ok((State { parts, nodes, waypoints, missing, faults }, is_well))
    }

    async fn parts(&self) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        for (kind, name) in PARTS {
            let target = Target::new("apps/v1", kind, Some(&self.namespace), name)?;
            let found = write::get(&self.client, &target).await.map_err(|error| failure(&error))?;
            rows.push(part(kind, &format!("{}/{name}", self.namespace), found.as_ref()));
        }
        Ok(rows)
    }

    /// Namespaces that are in the mesh.
    async fn enrolled(&self) -> anyhow::Result<BTreeSet<String>> {
        let all = Target::new("v1", "Namespace", None, "")?;
        let labels = format!("{}={}", tally::MODE, tally::AMBIENT);
        let found = write::list(&self.client, &all, Some(&labels), None).await;
        let found = found.map_err(|error| failure(&error))?;
        let name = |object: &Value| object.pointer("/metadata/name")?.as_str().map(str::to_owned);
        Ok(found.iter().filter_map(name).collect())
    }

    /// Names of the nodes. Who may not list them sees those that have pods.
    async fn nodes(&self) -> anyhow::Result<BTreeSet<String>> {
        let (all, mut names) = (Target::new("v1", "Node", None, "")?, BTreeSet::new());
        let take = |node: Value| names.extend(node["metadata"]["name"].as_str().map(str::to_owned));
        match write::each(&self.client, &all, None, None, take).await {
            Ok(()) => Ok(names),
            Err(error @ KubeError::Forbidden { .. }) => {
                out::say(&format!("warning: nodes without pods are not shown: {error}"));
                Ok(BTreeSet::new())
            }
            Err(error) => Err(failure(&error).into()),
        }
    }

    /// Objects that say that they are not in force as written.
    async fn reports(&self) -> anyhow::Result<Vec<Value>> {
        let mut reports = Vec::new();
        for kind in KINDS {
            for version in kind.api_versions() {
                let resource = Resource::of_kind(kind, version);
                let target = Target { resource, namespace: None, name: String::new() };
                let take = |object: Value| {
                    let room = reports.len() < REPORTS_MAX;
                    reports.extend(report(kind, &object).filter(|_| room));
                };
                match write::each(&self.client, &target, None, None, take).await {
                    Ok(()) => break,
                    // Another version is served, or none.
                    Err(KubeError::NotFound { .. }) => {}
                    Err(error @ KubeError::Forbidden { .. }) => {
                        out::say(&format!("warning: faults of {} are not shown: {error}", kind.plural()));
                        break;
                    }
                    Err(error) => return Err(failure(&error).into()),
                }
            }
        }
        Ok(reports)
    }
}

/// A workload of the mesh: how many of its pods are ready, of how many.
fn part(kind: &str, name: &str, object: Option<&Value>) -> Value {
    let number = |pointer: &str| object.and_then(|found| found.pointer(pointer)).and_then(Value::as_u64);
    let (ready, wanted) = match kind {
        "Deployment" => (number("/status/readyReplicas"), number("/spec/replicas").or(Some(1))),
        _ => (number("/status/numberReady"), number("/status/desiredNumberScheduled").or(Some(0))),
    };
    let image = object.and_then(|found| found.pointer("/spec/template/spec/containers/0/image"));
    json!({
        "part": format!("{kind} {name}"),
        "ready": object.map(|_| ready.unwrap_or(0)),
        "wanted": object.and(wanted),
        "version": image.and_then(Value::as_str).and_then(tag),
    })
}

/// The tag of an image; none if it is named by digest alone.
fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    let last = name.rsplit('/').next()?;
    last.split_once(':').map(|(_, tag)| tag)
}

/// What the mesh says of an object, if something of it is wrong.
fn report(kind: Kind, object: &Value) -> Option<Value> {
    if kind == Kind::Gateway && !waypoints::is_waypoint(object) {
        return None;
    }
    let mut told: Vec<&Value> = list(object, "/status/conditions").iter().collect();
    let parents = list(object, "/status/parents").iter();
    let own = parents.filter(|parent| parent["controllerName"] == ROUTE_CONTROLLER);
    told.extend(own.flat_map(|parent| list(parent, "/conditions")));
    let is_ours = |one: &&Value| one["type"].as_str().is_some_and(|of| OURS.contains(&of));
    // It tells of a fault only where it holds.
    let holds = |one: &&Value| one["type"] != PARTIALLY_INVALID || one["status"] == "True";
    let told: Vec<Value> = told.into_iter().filter(is_ours).filter(holds).cloned().collect();
    let name = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{}/{}", name("/metadata/namespace"), name("/metadata/name"));
    told.iter().any(is_fault).then(|| json!({"kind": kind.as_str(), "name": name, "conditions": told}))
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Every part is there and ready, every pod that is to be captured is, and what runs on nodes and as waypoints is ready.
fn is_well(parts: &[Value], nodes: &[Value], waypoints: &[Value]) -> bool {
    let is_whole = |part: &Value| !part["ready"].is_null() && part["ready"] == part["wanted"];
    let is_sound = |node: &Value| node["captured"] == node["expected"] && node["ready"] != false;
    parts.iter().all(is_whole)
        && nodes.iter().all(is_sound)
        && waypoints.iter().all(|pod| pod["ending"] == true || pod["ready"] == true)
}

/// The parts as a table.
pub(super) fn parts_table(parts: &[Value]) -> String {
    let row =
        |part: &Value| vec![cell(part, "part"), super::share(part, "ready", "wanted"), cell(part, "version")];
    out::table(&["PART", "READY", "VERSION"], &parts.iter().map(row).collect::<Vec<_>>())
}

/// Pods that are to be captured and are not, as a table.
pub(super) fn missing_table(missing: &[Value]) -> String {
    let row = |pod: &Value| ["pod", "node", "reason", "message"].map(|key| cell(pod, key)).to_vec();
    out::table(&["NOT CAPTURED", "NODE", "REASON", "MESSAGE"], &missing.iter().map(row).collect::<Vec<_>>())
}
