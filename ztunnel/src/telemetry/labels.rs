//! The labels of the compatible TCP metrics, in the order dashboards know them.

use std::fmt::Write as _;
use std::sync::Arc;

use ambit_hbone::Baggage;
use ambit_runtime::access_log::Direction;
use ambit_types::{Identity, Str, Uid, Workload};

use crate::flow::{End, Flow, Path, Route};

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

/// What an end that discovery does not know calls itself: namespace and workload.
pub(super) type Asserted = (Str, Str);

/// The part of a key that names one end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Side {
    workload: Option<Uid>,
    /// Only where discovery knows nothing.
    asserted: Option<Asserted>,
    identity: Option<Identity>,
}

impl Side {
    fn of(end: &End, identity: Option<Identity>) -> Self {
        let asserted = |b: &Arc<Baggage>| (b.namespace.clone(), b.workload_name.clone());
        Self {
            workload: end.workload.as_ref().map(|w| w.uid.clone()),
            asserted: end.asserted.as_ref().filter(|_| end.workload.is_none()).map(asserted),
            identity,
        }
    }
}

/// Who the destination is: who it proved to be, else who it is according to discovery, also where nothing was proven.
fn destination_principal(flow: &Flow) -> Option<Identity> {
    let End { identity, workload, .. } = &flow.route.dst;
    identity.clone().or_else(|| workload.as_deref().map(Workload::identity))
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
            src: Side::of(&flow.src, flow.src.identity.clone()),
            dst: Side::of(&flow.route.dst, destination_principal(flow)),
            service: flow.route.service.as_ref().map(|s| (s.namespace.clone(), s.hostname.clone())),
        }
    }

    /// Ends that are named by their own word alone: who they proved to be, and what they call themselves.
    pub(super) fn asserted(&self) -> impl Iterator<Item = (Option<&Identity>, &Asserted)> {
        let ends = [&self.src, &self.dst].into_iter();
        ends.filter_map(|side| Some((side.identity.as_ref(), side.asserted.as_ref()?)))
    }

    /// The same where nobody's own word counts.
    pub(super) fn without_asserted(self) -> Self {
        let nameless = |side: Side| Side { asserted: None, ..side };
        Self { src: nameless(self.src), dst: nameless(self.dst), ..self }
    }

    /// Whether an end is nobody that discovery knows, and yet somebody.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        let is_stranger =
            |side: &Side| side.workload.is_none() && (side.identity.is_some() || side.asserted.is_some());
        is_stranger(&self.src) || is_stranger(&self.dst)
    }

    /// The workloads that the series tell of.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Uid> {
        self.src.workload.iter().chain(&self.dst.workload)
    }
}

/// The labels of a set of series as a scrape shows them, around `response_flags`, which tells its series apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    before: String,
    after: String,
}

impl Text {
    /// The labels of a connection's series.
    pub(super) fn of(flow: &Flow) -> Self {
        Self::described(flow, Described::of(&flow.src), Described::of(&flow.route.dst))
    }

    /// The same without what ends say of themselves: they are unknown, but for who they proved to be.
    pub(super) fn without_asserted(flow: &Flow) -> Self {
        Self::described(flow, Described::known(&flow.src), Described::known(&flow.route.dst))
    }

    fn described(flow: &Flow, source: Option<Described<'_>>, destination: Option<Described<'_>>) -> Self {
        let mut labels = Labels(String::with_capacity(1024));
        let located = source.is_some() || destination.is_some();
        let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
        let reporter = match flow.direction {
            Direction::Inbound => "destination",
            Direction::Outbound => "source",
        };
        labels.push("reporter", reporter);
        side(&mut labels, &SOURCE, &source, flow.src.identity.as_ref());
        service(&mut labels, flow);
        side(&mut labels, &DESTINATION, &destination, destination_principal(flow).as_ref());
        labels.push("request_protocol", "tcp");
        let before = std::mem::take(&mut labels.0);
        let security = if is_mutual_tls(flow.path) { "mutual_tls" } else { "unknown" };
        labels.push("connection_security_policy", security);
        if located {
            for (names, end) in [(&SOURCE, &source), (&DESTINATION, &destination)] {
                labels.push(names.region, end.region);
                labels.push(names.zone, end.zone);
            }
        }
        Self { before, after: format!(",{}", labels.0) }
    }

    /// The label of the set that is counted instead of all those that there are too many of.
    pub(super) fn overflow() -> Self {
        Self { before: "overflow=\"true\"".to_owned(), after: String::new() }
    }

    /// Adds one series of the set.
    pub(super) fn write(&self, text: &mut String, name: &str, flag: &str, value: u64) {
        let Self { before, after } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}{{{before},response_flags=\"{flag}\"{after}}} {value}");
    }
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

fn side(labels: &mut Labels, names: &Names, end: &Described<'_>, principal: Option<&Identity>) {
    let principal = principal.map(ToString::to_string).unwrap_or_default();
    labels.push(names.workload, end.workload);
    labels.push(names.canonical_service, end.service);
    labels.push(names.canonical_revision, end.revision);
    labels.push(names.namespace, end.namespace);
    labels.push(names.principal, &principal);
    labels.push(names.app, end.app);
    labels.push(names.version, end.revision);
    labels.push(names.cluster, end.cluster);
}

/// The describing words of one end, wherever they come from.
#[derive(Default)]
struct Described<'a> {
    workload: &'a str,
    service: &'a str,
    revision: &'a str,
    namespace: &'a str,
    app: &'a str,
    cluster: &'a str,
    region: &'a str,
    zone: &'a str,
}

impl<'a> Described<'a> {
    /// What discovery knows of an end, else what it says of itself; none if that is nothing.
    fn of(end: &'a End) -> Option<Self> {
        Self::known(end).or_else(|| end.asserted.as_deref().map(Self::from))
    }

    /// What discovery knows of an end.
    fn known(end: &'a End) -> Option<Self> {
        end.workload.as_deref().map(Self::from)
    }
}

impl<'a> From<&'a Workload> for Described<'a> {
    fn from(w: &'a Workload) -> Self {
        Self {
            workload: &w.workload_name,
            service: &w.canonical_name,
            revision: &w.canonical_revision,
            namespace: &w.namespace,
            app: &w.canonical_name,
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
            // Dashboards know the workload here, not the service.
            app: &b.workload_name,
            cluster: &b.cluster,
            region: &b.region,
            zone: &b.zone,
        }
    }
}

fn service(labels: &mut Labels, flow: &Flow) {
    let Route { service, service_name, .. } = &flow.route;
    let host = service.as_ref().map_or("", |s| &*s.hostname);
    let named = service_name.as_deref().filter(|name| !name.is_empty());
    labels.push("destination_service", host);
    labels.push("destination_service_namespace", service.as_ref().map_or("", |s| &*s.namespace));
    labels.push("destination_service_name", named.or_else(|| host.split('.').next()).unwrap_or_default());
}
