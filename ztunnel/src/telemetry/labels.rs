//! The labels of the compatible TCP metrics, in the order dashboards know them.

use std::sync::Arc;

use ambit_hbone::Baggage;
use ambit_runtime::access_log::Direction;
use ambit_types::{Identity, Str, Uid, Workload};

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

    /// The workloads that the series tell of.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Uid> {
        self.src.workload.iter().chain(&self.dst.workload)
    }
}

/// The labels of a connection's series as a scrape shows them, without `response_flags`.
pub(super) fn text(flow: &Flow) -> String {
    let mut labels = Labels(String::with_capacity(1024));
    let reporter = match flow.direction {
        Direction::Inbound => "destination",
        Direction::Outbound => "source",
    };
    labels.push("reporter", reporter);
    side(&mut labels, &SOURCE, &flow.src);
    service(&mut labels, flow);
    side(&mut labels, &DESTINATION, &flow.route.dst);
    labels.push("request_protocol", "tcp");
    let security = if is_mutual_tls(flow.path) { "mutual_tls" } else { "unknown" };
    labels.push("connection_security_policy", security);
    labels.0
}

/// `name="value",…`.
struct Labels(String);

impl Labels {
    fn push(&mut self, name: &str, value: &str) {
        let known = !value.is_empty() && value.len() <= VALUE_BYTES_MAX;
        let Self(text) = self;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in if known { value } else { "unknown" }.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
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

fn side(labels: &mut Labels, names: &Names, end: &End) {
    let principal = end.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let known = end.workload.as_deref().map(Described::from);
    let told = end.asserted.as_deref().map(Described::from);
    let d = known.or(told).unwrap_or_default();
    labels.push(names.workload, d.workload);
    labels.push(names.canonical_service, d.service);
    labels.push(names.canonical_revision, d.revision);
    labels.push(names.namespace, d.namespace);
    labels.push(names.principal, &principal);
    labels.push(names.app, d.service);
    labels.push(names.version, d.revision);
    labels.push(names.cluster, d.cluster);
    labels.push(names.region, d.region);
    labels.push(names.zone, d.zone);
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

fn service(labels: &mut Labels, flow: &Flow) {
    let service = flow.route.service.as_ref();
    let host = service.map_or("", |s| &*s.hostname);
    labels.push("destination_service", host);
    labels.push("destination_service_namespace", service.map_or("", |s| &*s.namespace));
    labels.push("destination_service_name", host.split('.').next().unwrap_or_default());
}
