//! Waypoints that are asked for, and whether the one that is named can do it.
//!
//! By the rules of the control plane: labels count on a Namespace, a Service, a ServiceEntry and its endpoints, a
//! WorkloadEntry and a pod, before those of the namespace. What asks for a waypoint that is not there, or that may not
//! serve it, is refused and not sent past it.

use serde_json::Value;

use super::world::{MODE, USE_WAYPOINT, WAYPOINT_NAMESPACE, World, is_waypoint_pod, list};
use super::{Finding, Item, Scope, Severity, finding};

/// Says on a service that it was made for a gateway of the mesh, and so goes through no waypoint.
const MANAGED: &str = "gateway.istio.io/managed";
/// Values of [`MANAGED`] that mean a gateway of the mesh.
const OF_GATEWAYS: [&str; 2] = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];

/// What asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Namespace,
    Service,
    /// Something outside the cluster that is taken for a service.
    Entry,
    Pod,
    /// A machine outside the cluster.
    Machine,
}

/// Labels that may ask for a waypoint.
struct Ask<'a> {
    by: Asker,
    /// Where the waypoint is, unless its label says something else.
    namespace: &'a str,
    /// Maps of labels with their paths; the first that has a label counts.
    labels: Vec<(&'a Value, String)>,
}

impl<'a> Ask<'a> {
    fn one(by: Asker, namespace: &'a str, labels: &'a Value, path: impl Into<String>) -> Self {
        Self { by, namespace, labels: vec![(labels, path.into())] }
    }

    /// A label with the path of the map that has it.
    fn label(&self, name: &str) -> Option<(&'a str, &str)> {
        self.labels.iter().find_map(|(labels, path)| Some((labels.get(name)?.as_str()?, path.as_str())))
    }
}

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    if world.scope == Scope::Part {
        return;
    }
    for ask in asks(world, at) {
        let Some((name, path)) = ask.label(USE_WAYPOINT).filter(|(name, _)| !name.is_empty()) else {
            continue;
        };
        if name == "none" {
            continue;
        }
        let namespace = ask.label(WAYPOINT_NAMESPACE).map_or(ask.namespace, |(namespace, _)| namespace);
        let path = format!("{path}[{USE_WAYPOINT}]");
        findings.extend(fault(world, &ask, (namespace, name)).map(|(code, message, fix)| {
            let also: &[&str] = if code == "AMB3101" { &["KIA1313"] } else { &[] };
            finding(code, Severity::Error, (at, path.clone()), message, fix).also(also)
        }));
        findings.extend(outside(world, at, &ask, &path));
    }
}

fn asks<'a>(world: &World<'a>, at: usize) -> Vec<Ask<'a>> {
    let item: &'a Item<'a> = &world.items[at];
    let Item { namespace, body, .. } = *item;
    let labels = &body["metadata"]["labels"];
    let own = |by| vec![Ask::one(by, namespace, labels, "metadata.labels")];
    match item.kind {
        "Namespace" => vec![Ask::one(Asker::Namespace, item.name, labels, "metadata.labels")],
        "Service" => {
            let is_of_gateway = labels[MANAGED].as_str().is_some_and(|by| OF_GATEWAYS.contains(&by));
            let is_alias = body["spec"]["type"] == "ExternalName";
            if is_of_gateway || is_alias { Vec::new() } else { own(Asker::Service) }
        }
        "ServiceEntry" => {
            let endpoints = list(&body["spec"]["endpoints"]).map(|(index, endpoint)| {
                let path = format!("spec.endpoints[{index}].labels");
                Ask::one(Asker::Machine, namespace, &endpoint["labels"], path)
            });
            own(Asker::Entry).into_iter().chain(endpoints).collect()
        }
        "WorkloadEntry" => {
            let mut ask = Ask::one(Asker::Machine, namespace, &body["spec"]["labels"], "spec.labels");
            ask.labels.push((labels, "metadata.labels".to_owned()));
            vec![ask]
        }
        _ => {
            let pod = world.workload_of(at).filter(|pod| !is_waypoint_pod(pod));
            let of = |pod: &super::world::Workload<'a>| {
                Ask::one(Asker::Pod, namespace, &pod.metadata["labels"], format!("{}.labels", pod.path))
            };
            pod.map(of).into_iter().collect()
        }
    }
}

/// Why a waypoint cannot do what is asked of it: code, words and what to do.
fn fault(
    world: &World<'_>,
    ask: &Ask<'_>,
    (namespace, name): (&str, &str),
) -> Option<(&'static str, String, String)> {
    let Some(gateway) = world.object("Gateway", namespace, name) else {
        let message = format!("there is no waypoint {namespace}/{name}: what asks for it is refused");
        let fix = format!("ambit waypoint apply -n {namespace} --name {name}, or take the label away");
        return Some(("AMB3101", message, fix));
    };
    if !world.is_waypoint(gateway) {
        let class = gateway["spec"]["gatewayClassName"].as_str().unwrap_or_default();
        let message = format!(
            "Gateway {namespace}/{name} is of class {class}, no waypoint: what asks for it is refused"
        );
        let fix = "name a Gateway of class istio-waypoint".to_owned();
        return Some(("AMB3101", message, fix));
    }
    let is_for_services = world.traffic(gateway).has_services();
    match ask.by {
        // The waypoint serves a workload that names it, whatever else it is for.
        Asker::Pod | Asker::Machine => None,
        Asker::Service | Asker::Entry if !is_for_services => {
            let message =
                format!("waypoint {namespace}/{name} is not for services: what is sent to it is refused");
            let fix = "set its label istio.io/waypoint-for to service or all".to_owned();
            Some(("AMB3104", message, fix))
        }
        // Of the namespace its services take only what is for services.
        Asker::Namespace if !is_for_services => None,
        Asker::Namespace | Asker::Service | Asker::Entry => {
            (!world.is_allowed(gateway, namespace, ask.namespace)).then(|| {
                let message = format!(
                    "waypoint {namespace}/{name} does not allow namespace {}: what is sent to it is refused",
                    ask.namespace
                );
                let fix = "let the namespace in by allowedRoutes of its listener of HBONE".to_owned();
                ("AMB3104", message, fix)
            })
        }
    }
}

/// A waypoint for what is not in the mesh: only those of the mesh go through it.
fn outside(world: &World<'_>, at: usize, ask: &Ask<'_>, path: &str) -> Option<Finding> {
    let namespace = ask.namespace;
    let (is_out, what) = match ask.by {
        Asker::Namespace | Asker::Service => {
            let is_in = world.label_of_namespace(namespace, MODE) == Some("ambient")
                || world.workloads(namespace).iter().any(|one| world.is_enrolled(one));
            (!is_in, format!("namespace {namespace}"))
        }
        Asker::Pod => {
            let is_in = world.workload_of(at).is_some_and(|pod| world.is_enrolled(pod));
            (!is_in, "the pod".to_owned())
        }
        // Nobody expects them to be.
        Asker::Entry | Asker::Machine => (false, String::new()),
    };
    is_out.then(|| {
        let message = format!("a waypoint is asked for, but {what} is not in the mesh");
        let fix = format!("ambit enroll ns {namespace}");
        finding("KIA1312", Severity::Warning, (at, path), message, fix)
    })
}
