//! The labels of the compatible TCP metrics, in the order dashboards know them.

use std::sync::Arc;

use ambit_hbone::Baggage;
use ambit_runtime::access_log::Direction;
use ambit_types::{Identity, Str, Uid, Workload};
use metrics::Label;

use crate::flow::{End, Flow, Path};

/// Longest label value, in bytes: names longer than Kubernetes permits come from strangers.
const VALUE_BYTES_MAX: usize = 253;

/// What tells one set of series from another; cheap to build and compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    inbound: bool,
    mutual_tls: bool,
    src: Side,
    dst: Side,
    service: Option<(Str, Str)>,
}

/// The part of a key that names one end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Side {
    workload: Option<Uid>,
    asserted: Option<(Str, Str)>,
    identity: Option<Identity>,
}

impl Side {
    fn of(end: &End) -> Self {
        let asserted = |b: &Arc<Baggage>| (b.namespace.clone(), b.workload_name.clone());
        Self {
            workload: end.workload.as_ref().map(|w| w.uid.clone()),
            asserted: end.asserted.as_ref().map(asserted),
            identity: end.identity.clone(),
        }
    }
}

/// Whether TLS ran: same-node and plaintext connections do not claim it.
fn is_mutual_tls(path: Path) -> bool {
    match path {
        Path::Hbone | Path::Waypoint => true,
        Path::Local | Path::Plaintext | Path::Probe | Path::Passthrough => false,
    }
}

impl Key {
    pub(super) fn of(flow: &Flow) -> Self {
        Self {
            inbound: flow.direction == Direction::Inbound,
            mutual_tls: is_mutual_tls(flow.path),
            src: Side::of(&flow.src),
            dst: Side::of(&flow.route.dst),
            service: flow.route.service.as_ref().map(|s| (s.namespace.clone(), s.hostname.clone())),
        }
    }
}

/// The labels of a connection's series, without `response_flags`.
pub(super) fn labels(flow: &Flow) -> Vec<Label> {
    let mut labels = Vec::with_capacity(28);
    let reporter = match flow.direction {
        Direction::Inbound => "destination",
        Direction::Outbound => "source",
    };
    labels.push(Label::new("reporter", reporter));
    side(&mut labels, &SOURCE, &flow.src);
    service(&mut labels, flow);
    side(&mut labels, &DESTINATION, &flow.route.dst);
    labels.push(Label::new("request_protocol", "tcp"));
    let security = if is_mutual_tls(flow.path) { "mutual_tls" } else { "unknown" };
    labels.push(Label::new("connection_security_policy", security));
    labels
}

/// Label names of one end.
struct Names {
    workload: &'static str,
    canonical_service: &'static str,
    canonical_revision: &'static str,
    namespace: &'static str,
    principal: &'static str,
    app: &'static str,
    version: &'static str,
    cluster: &'static str,
    region: &'static str,
    zone: &'static str,
}

static SOURCE: Names = Names {
    workload: "source_workload",
    canonical_service: "source_canonical_service",
    canonical_revision: "source_canonical_revision",
    namespace: "source_workload_namespace",
    principal: "source_principal",
    app: "source_app",
    version: "source_version",
    cluster: "source_cluster",
    region: "source_region",
    zone: "source_zone",
};

static DESTINATION: Names = Names {
    workload: "destination_workload",
    canonical_service: "destination_canonical_service",
    canonical_revision: "destination_canonical_revision",
    namespace: "destination_workload_namespace",
    principal: "destination_principal",
    app: "destination_app",
    version: "destination_version",
    cluster: "destination_cluster",
    region: "destination_region",
    zone: "destination_zone",
};

fn side(labels: &mut Vec<Label>, names: &Names, end: &End) {
    let principal = end.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let known = end.workload.as_deref().map(Described::from);
    let told = end.asserted.as_deref().map(Described::from);
    let d = known.or(told).unwrap_or_default();
    labels.push(Label::new(names.workload, value(d.workload)));
    labels.push(Label::new(names.canonical_service, value(d.service)));
    labels.push(Label::new(names.canonical_revision, value(d.revision)));
    labels.push(Label::new(names.namespace, value(d.namespace)));
    labels.push(Label::new(names.principal, value(&principal)));
    labels.push(Label::new(names.app, value(d.service)));
    labels.push(Label::new(names.version, value(d.revision)));
    labels.push(Label::new(names.cluster, value(d.cluster)));
    labels.push(Label::new(names.region, value(d.region)));
    labels.push(Label::new(names.zone, value(d.zone)));
}

/// The describing words of one end, wherever they come from.
#[derive(Default)]
struct Described<'a> {
    workload: &'a str,
    service: &'a str,
    revision: &'a str,
    namespace: &'a str,
    cluster: &'a str,
    region: &'a str,
    zone: &'a str,
}

impl<'a> From<&'a Workload> for Described<'a> {
    fn from(w: &'a Workload) -> Self {
        Self {
            workload: &w.workload_name,
            service: &w.canonical_name,
            revision: &w.canonical_revision,
            namespace: &w.namespace,
            cluster: &w.cluster_id,
            region: &w.locality.region,
            zone: &w.locality.zone,
        }
    }
}

impl<'a> From<&'a Baggage> for Described<'a> {
    fn from(b: &'a Baggage) -> Self {
        Self {
            workload: &b.workload_name,
            service: &b.service_name,
            revision: &b.revision,
            namespace: &b.namespace,
            cluster: &b.cluster,
            region: &b.region,
            zone: &b.zone,
        }
    }
}

fn service(labels: &mut Vec<Label>, flow: &Flow) {
    let service = flow.route.service.as_ref();
    let host = service.map_or("", |s| &*s.hostname);
    labels.push(Label::new("destination_service", value(host)));
    labels.push(Label::new("destination_service_namespace", value(service.map_or("", |s| &*s.namespace))));
    labels.push(Label::new("destination_service_name", value(host.split('.').next().unwrap_or_default())));
}

fn value(text: &str) -> String {
    if text.is_empty() || text.len() > VALUE_BYTES_MAX { "unknown".to_owned() } else { text.to_owned() }
}
