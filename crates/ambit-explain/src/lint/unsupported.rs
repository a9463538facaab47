//! Kinds that were written for Istio's sidecars, or for meshes in general, and that nothing here honours.
//!
//! Nothing refuses them where they are stored, so that nobody else would say that they do nothing.

use super::world::World;
use super::{Finding, Item, Severity, finding};

/// Kinds of Istio's groups that are honoured.
const HONOURED: [&str; 6] = [
    "AuthorizationPolicy",
    "PeerAuthentication",
    "RequestAuthentication",
    "ServiceEntry",
    "WorkloadEntry",
    "VirtualService",
];

/// Kinds that may have enforced something, so that without them less is enforced than somebody believes.
const ENFORCING: [&str; 3] = ["EnvoyFilter", "WasmPlugin", "TrafficTarget"];

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    if !is_not_honoured(item) {
        return;
    }
    let severity = if ENFORCING.contains(&item.kind) { Severity::Error } else { Severity::Warning };
    let message = format!("{} is not honoured: what it says has no effect", item.kind);
    let fix = instead_of(item.kind).unwrap_or("take it away; docs/lint.md lists what is honoured");
    let also: &[&str] = match item.kind {
        "DestinationRule" => &["KIA0210", "KIA0211", "KIA0212"],
        _ => &[],
    };
    findings.push(finding("IST0167", severity, (at, "kind"), message, fix).also(also));
}

/// Whether an object is of a kind of Istio's, or of those that meshes once agreed upon, that does nothing here.
pub(super) fn is_not_honoured(item: &Item<'_>) -> bool {
    let version = item.body["apiVersion"].as_str().unwrap_or_default();
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let is_of_istio = group == "istio.io" || group.ends_with(".istio.io");
    group.ends_with(".smi-spec.io") || (is_of_istio && !HONOURED.contains(&item.kind))
}

fn instead_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "DestinationRule" => {
            "use TrafficPolicy for balancing, limits and outliers; one Service per version and an HTTPRoute with \
             weights for subsets"
        }
        "EnvoyFilter" => {
            "use the filters of an HTTPRoute, TrafficPolicy, or AuthorizationPolicy with action CUSTOM"
        }
        "WasmPlugin" => {
            "use AuthorizationPolicy with action CUSTOM and an extension provider, or the filters of an HTTPRoute"
        }
        "Telemetry" => "metrics and records are there without it: see docs/monitoring.md",
        "Sidecar" => {
            "use EgressPolicy to limit where pods may connect; nodes learn what they need by themselves"
        }
        "ProxyConfig" | "IstioOperator" => "use the settings of the install: ambit install --list-settings",
        "Gateway" => {
            "use a Gateway of gateway.networking.k8s.io for a waypoint; from outside, an ingress controller of its own"
        }
        "WorkloadGroup" => "use a WorkloadEntry for each machine",
        "TrafficSplit" => "use HTTPRoute with weights in backendRefs",
        "TrafficTarget" | "HTTPRouteGroup" | "TCPRoute" | "UDPRoute" => "use AuthorizationPolicy",
        _ => return None,
    })
}
