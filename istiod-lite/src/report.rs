//! What the admin surface shows: how far nodes and waypoints are, what is wrong, and everything that is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_control::input::Key;
use ambit_control::{Delta, Index, Name};
use ambit_manifest::Problem;
use ambit_policy::model::{Action, Policy, Scope};
use ambit_runtime::admin::{Reply, Routes};
use ambit_types::workload::Health;
use ambit_types::{Destination, GatewayAddress, Service, TunnelProtocol, Workload};
use ambit_xds::node::WaypointKey;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::push::{NodeSync, Publisher, WaypointSync};
use crate::world::World;

mod gauges;
mod layer7;

pub use gauges::Gauges;

/// What has been read so far, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Sources {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    problems: Vec<Problem>,
    /// What of the source cannot be followed now.
    stale: Vec<String>,
    /// What is wrong with objects that are well-formed, in words.
    faults: BTreeMap<Key, BTreeSet<String>>,
}

/// What is in force, and what is wrong.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Revision of the source that is served.
    pub(crate) revision: u64,
    /// What cannot be read.
    pub(crate) problems: Vec<String>,
    /// What of the source cannot be followed now.
    pub(crate) stale: Vec<String>,
    /// What is well-formed and still not in force as written.
    pub(crate) faults: Vec<String>,
}

/// A problem, for programs and for people.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    text: String,
    #[serde(flatten)]
    problem: &'a Problem,
}

/// The answer of `/sync`.
#[derive(Debug, Serialize)]
struct Sync<'a> {
    revision: u64,
    nodes: Vec<NodeSync>,
    waypoints: Vec<WaypointSync>,
    problems: Vec<Shown<'a>>,
    /// What of the source cannot be followed now, so that its last state stays in force.
    stale: &'a [String],
    reports: Vec<Value>,
}

impl Sources {
    /// Takes in what an update says; logs each problem once, when it comes and when it goes.
    pub fn take(&self, revision: u64, problems: Vec<Problem>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before: BTreeSet<&Problem> = state.problems.iter().collect();
        let after: BTreeSet<&Problem> = problems.iter().collect();
        for new in after.difference(&before) {
            warn!(problem = %new, "a manifest is refused; what was in force before stays so");
        }
        for old in before.difference(&after) {
            info!(problem = %old, "a problem with a manifest is gone");
        }
        metrics::gauge!("ambit_manifest_problems")
            .set(f64::from(u32::try_from(problems.len()).unwrap_or(u32::MAX)));
        state.revision = revision;
        state.problems = problems;
    }

    /// Takes in what of the source cannot be followed now.
    pub fn stale(&self, stale: Vec<String>) {
        metrics::gauge!("ambit_source_stale").set(f64::from(u8::from(!stale.is_empty())));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stale = stale;
    }

    /// What is in force and what is wrong with what was read, for people.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problems = state.problems.iter().map(ToString::to_string).collect();
        let faults = state.faults.iter();
        let faults =
            faults.flat_map(|(key, words)| words.iter().map(move |word| format!("{key}: {word}"))).collect();
        Standing { revision: state.revision, problems, stale: state.stale.clone(), faults }
    }

    /// Logs each fault that conditions of objects tell of once, when it comes and when it goes.
    pub fn tell(&self, delta: &Delta) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = delta.reports.iter().map(|(key, report)| (key, layer7::faults(report)));
        for (key, after) in changed.chain(delta.removed_reports.iter().map(|key| (key, BTreeSet::new()))) {
            let before = state.faults.remove(key).unwrap_or_default();
            for new in after.difference(&before) {
                warn!(object = %key, condition = new, "an object is not in force as written");
            }
            for old in before.difference(&after) {
                info!(object = %key, condition = old, "a fault of an object is gone");
            }
            if !after.is_empty() {
                state.faults.insert(key.clone(), after);
            }
        }
    }
}

/// `/sync` and `/config_dump`.
pub fn routes(sources: &Arc<Sources>, world: &Arc<World>, publisher: &Arc<Publisher>) -> Routes {
    let (sources, world, publisher) = (sources.clone(), world.clone(), publisher.clone());
    let (for_dump, dumped) = (sources.clone(), world.clone());
    Routes::new()
        .get("/sync", move |_| std::future::ready(sync(&sources, &world, &publisher)))
        .get("/config_dump", move |_| std::future::ready(dump(&for_dump, &dumped.index())))
}

fn sync(sources: &Sources, world: &World, publisher: &Publisher) -> Reply {
    let (nodes, waypoints, reports) = {
        let index = world.index();
        let is_there = |gateway: &WaypointKey| {
            index.waypoints().contains_key(&Name::new(gateway.namespace.clone(), gateway.name.clone()))
        };
        let nodes = publisher.sync(index.nodes().map(|node| &*node.name));
        (nodes, publisher.sync_waypoints(is_there), layer7::faulty(&index))
    };
    let state = sources.state.lock().unwrap_or_else(PoisonError::into_inner);
    let problems = shown(&state.problems);
    let (revision, stale) = (state.revision, state.stale.as_slice());
    Reply::json(&Sync { revision, nodes, waypoints, problems, stale, reports })
}

fn shown(problems: &[Problem]) -> Vec<Shown<'_>> {
    problems.iter().map(|problem| Shown { text: problem.to_string(), problem }).collect()
}

fn dump(sources: &Sources, index: &Index) -> Reply {
    let state = sources.state.lock().unwrap_or_else(PoisonError::into_inner);
    let statuses = index.statuses().map(|s| {
        json!({ "kind": s.object.kind.as_str(), "name": s.object.name.to_string(), "status": s.standing.to_string() })
    });
    Reply::json(&json!({
        "revision": state.revision,
        "problems": shown(&state.problems),
        "status": statuses.collect::<Vec<_>>(),
        "workloads": index.workloads().values().map(|w| workload(w)).collect::<Vec<_>>(),
        "services": index.services().values().map(|s| service(s)).collect::<Vec<_>>(),
        "policies": index.policies().values().map(|p| policy(p)).collect::<Vec<_>>(),
        "waypoints": layer7::waypoints(index),
        "reports": layer7::reports(index),
    }))
}

/// A workload as it is shown.
pub(crate) fn workload(of: &Workload) -> Value {
    let services: BTreeMap<String, Vec<String>> =
        of.services.iter().map(|(key, ports)| (key.to_string(), ports.iter().map(port).collect())).collect();
    json!({
        "uid": of.uid.as_str(),
        "namespace": &*of.namespace,
        "name": &*of.name,
        "addresses": of.addresses,
        "network": of.network.as_str(),
        "hostname": &*of.hostname,
        "node": &*of.node,
        "identity": of.identity().to_string(),
        "tunnel": match of.tunnel {
            TunnelProtocol::None => "none",
            TunnelProtocol::Hbone => "hbone",
            TunnelProtocol::LegacyIstioMtls => "legacy-istio-mtls",
        },
        "healthy": matches!(of.health, Health::Healthy),
        "policies": of.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "services": services,
        "waypoint": of.waypoint.as_ref().map(gateway),
        "probe_ports": of.probe_ports(),
        "node_addresses": of.node_addresses(),
        "network_policy": of.settings.as_ref().is_some_and(|settings| settings.network_policy),
    })
}

fn service(of: &Service) -> Value {
    json!({
        "namespace": &*of.namespace,
        "name": &*of.name,
        "hostname": &*of.hostname,
        "vips": of.vips.iter().map(|v| v.ip.to_string()).collect::<Vec<_>>(),
        "cidr_vips": of.cidr_vips.iter().map(|v| v.range.to_string()).collect::<Vec<_>>(),
        "ports": of.ports.iter().map(port).collect::<Vec<_>>(),
        "waypoint": of.waypoint.as_ref().map(gateway),
        "canonical": of.canonical,
    })
}

/// A policy of ztunnels as it is shown.
pub(crate) fn policy(of: &Policy) -> Value {
    json!({
        "name": of.key.to_string(),
        "scope": match of.scope {
            Scope::Global => "global",
            Scope::Namespace => "namespace",
            Scope::WorkloadSelector => "workload-selector",
        },
        "action": match of.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
        },
        "rules": of.rules.len(),
        "dry_run": of.dry_run,
    })
}

fn port(of: &ambit_types::service::Port) -> String {
    format!("{}->{}", of.service_port, of.target_port)
}

fn gateway(of: &GatewayAddress) -> String {
    match &of.destination {
        Destination::Hostname(key) => format!("{key}:{}", of.hbone_mtls_port),
        Destination::Address(address) => format!("{address}:{}", of.hbone_mtls_port),
    }
}
