//! What labels and owners say about a workload.

use ambit_types::{Locality, Str, Workload};

use crate::input::{Labels, Pod};

/// Marks a workload that speaks HBONE by itself.
const TUNNEL: &str = "networking.istio.io/tunnel";
/// Set by a Deployment on its pods; the end of its ReplicaSet's name.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Whether the workload speaks HBONE by itself.
pub(super) fn speaks_hbone(labels: &Labels) -> bool {
    labels.get(TUNNEL).is_some_and(|list| list.split(',').any(|word| word.trim() == "http"))
}

/// Where a node is.
pub(super) fn locality(labels: &Labels) -> Locality {
    let part = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Locality {
        region: part("topology.kubernetes.io/region"),
        zone: part("topology.kubernetes.io/zone"),
        subzone: part("topology.istio.io/subzone"),
    }
}

/// Sets canonical name and revision; the workload's own name is the last resort.
pub(super) fn set_canonical(workload: &mut Workload, labels: &Labels) {
    let first =
        |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(key).filter(|v| !v.is_empty())).cloned();
    let name = first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    workload.canonical_name = name.unwrap_or_else(|| workload.workload_name.clone());
    let revision = first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    workload.canonical_revision = revision.unwrap_or_else(|| Str::from("latest"));
}

/// Name of what runs the pod: a Deployment rather than its ReplicaSet, a CronJob rather than its Job.
pub(super) fn controller_name(pod: &Pod) -> Str {
    let Some(controller) = &pod.controller else { return pod.name.name.clone() };
    let shortened = match &*controller.kind {
        "ReplicaSet" => pod.labels.get(TEMPLATE_HASH).and_then(|hash| {
            let rest = controller.name.strip_suffix(&**hash)?;
            rest.strip_suffix('-')
        }),
        "Job" => controller
            .name
            .rsplit_once('-')
            .filter(|(_, minute)| minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()))
            .map(|(name, _)| name),
        _ => None,
    };
    shortened.filter(|name| !name.is_empty()).map_or_else(|| controller.name.clone(), Str::from)
}
