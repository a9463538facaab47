//! Records as questions to the mesh as it is now, in which the pods they tell of may be gone.
//!
//! Whoever called stands for itself while it is there; else another pod of its controller does, else any workload of the
//! identity that was proven, since that is what rules name. Whoever was called is picked by labels, so that only a pod of
//! the same controller stands for it. Where nobody does, nothing is asked: an address that is free again, or somebody
//! else's, would be decided otherwise than what was seen.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ambit_state::Snapshot;
use ambit_types::{Identity, Network, Workload};

use crate::mesh::address_towards;
use crate::{Destination, Flow, FlowEnd, Question, Source};

/// How what goes to a waypoint is carried: behind its address stands another.
const VIA_WAYPOINT: &str = "waypoint";

/// Workloads by namespace and name.
type ByName<'s> = BTreeMap<(&'s str, &'s str), &'s Workload>;

/// The workloads of a mesh, by what records call them.
pub(super) struct Present<'s> {
    snapshot: &'s Snapshot,
    pods: ByName<'s>,
    controllers: ByName<'s>,
    identities: BTreeMap<Identity, &'s Workload>,
}

impl<'s> Present<'s> {
    /// Those of a snapshot; a ready one stands for others of its kind.
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let mut all: Vec<&Workload> = snapshot.workloads().into_iter().map(|one| &**one).collect();
        all.sort_by_key(|workload| workload.health);
        let mut present = Self {
            snapshot,
            pods: BTreeMap::new(),
            controllers: BTreeMap::new(),
            identities: BTreeMap::new(),
        };
        for workload in all {
            let namespace: &str = &workload.namespace;
            present.pods.entry((namespace, &*workload.name)).or_insert(workload);
            present.controllers.entry((namespace, &*workload.workload_name)).or_insert(workload);
            present.identities.entry(workload.identity()).or_insert(workload);
        }
        present
    }

    /// A record as a question; none if it says too little, or if nobody stands for one of its ends any more.
    pub(super) fn question(&self, flow: &Flow) -> Option<Question> {
        let question = flow.question().ok()?;
        let source = self.source(flow, &question.source)?;
        let destination = self.destination(flow, &source, &question.destination)?;
        Some(Question { source, destination, ..question })
    }

    fn source(&self, flow: &Flow, asked: &Source) -> Option<Source> {
        let is_named = match asked {
            Source::Named { .. } => true,
            Source::Address(_) | Source::Uid(_) => false,
        };
        let identity = flow.source_identity();
        if !is_named && identity.is_none() {
            return Some(asked.clone());
        }
        let is_it = |workload: &&Workload| identity.as_ref().is_none_or(|own| workload.identity() == *own);
        let by_name = self.of_end(&flow.src).into_iter().find(is_it);
        let found = by_name.or_else(|| self.identities.get(identity.as_ref()?).copied())?;
        Some(Source::Uid(found.uid.clone()))
    }

    fn destination(&self, flow: &Flow, source: &Source, asked: &Destination) -> Option<Destination> {
        let at = match asked {
            Destination::Address(at) => *at,
            Destination::Named { .. } | Destination::Host { .. } => return Some(asked.clone()),
        };
        if flow.path == VIA_WAYPOINT {
            return self.is_anybody(source, at.ip()).then(|| asked.clone());
        }
        let is_known = flow.dst.workload.is_some() || flow.dst.controller.is_some();
        if !is_known || flow.dst.namespace.is_none() {
            return Some(asked.clone());
        }
        let found = self.of_end(&flow.dst).into_iter().next()?;
        let is_there = found.addresses.contains(&at.ip());
        let ip = if is_there { at.ip() } else { address_towards(found, at.ip()) };
        (!ip.is_unspecified()).then(|| Destination::Address(SocketAddr::new(ip, at.port())))
    }

    /// The pod of an end, and one of its controller.
    fn of_end(&self, end: &FlowEnd) -> Vec<&'s Workload> {
        let Some(namespace) = end.namespace.as_deref() else { return Vec::new() };
        let pod = find(&self.pods, namespace, end.workload.as_deref());
        pod.into_iter().chain(find(&self.controllers, namespace, end.controller.as_deref())).collect()
    }

    /// Whether a workload or a service has an address, as the source sees it.
    fn is_anybody(&self, source: &Source, ip: IpAddr) -> bool {
        let caller = match source {
            Source::Uid(uid) => self.snapshot.workload(uid),
            Source::Named { .. } | Source::Address(_) => None,
        };
        let network = caller.map_or_else(Network::default, |caller| caller.network.clone());
        let namespace = caller.map_or("", |caller| &caller.namespace);
        self.snapshot.workload_at(&network, ip).is_some()
            || self.snapshot.service_at(&network, ip, namespace).is_some()
    }
}

fn find<'s>(of: &ByName<'s>, namespace: &str, name: Option<&str>) -> Option<&'s Workload> {
    let name = name.filter(|name| !name.is_empty())?;
    of.get(&(namespace, name)).copied()
}
