//! The world at one moment: immutable, cheap to clone, shared by every connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::PolicySet;
use ambit_policy::model::Policy;
use ambit_types::{Network, NetworkAddress, PolicyKey, ServiceKey, Str, Uid, Workload};

use crate::policies::Policies;
use crate::services::{ServiceEntry, Services};
use crate::workloads::Workloads;

/// A pod of this node as the node agent names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: Str,
    /// Its service account.
    pub service_account: Str,
    /// Its name.
    pub name: Str,
}

impl PodRef {
    /// The pod a workload record describes.
    pub fn of(workload: &Workload) -> Self {
        Self {
            namespace: workload.namespace.clone(),
            service_account: workload.service_account.clone(),
            name: workload.name.clone(),
        }
    }
}

/// Workloads, services and policies at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) node: Str,
    pub(crate) workloads: Workloads,
    pub(crate) services: Services,
    pub(crate) policies: Arc<Policies>,
    pub(crate) own: Arc<OwnNode>,
}

/// The workloads of this node, with what applies to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnNode {
    pub(crate) by_uid: BTreeMap<Uid, Own>,
    pub(crate) by_pod: BTreeMap<PodRef, Vec<Uid>>,
}

/// One workload of this node.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) workload: Arc<Workload>,
    pub(crate) policies: Arc<PolicySet>,
}

impl Snapshot {
    /// The workload of a pod of this node.
    ///
    /// With the pod's address given, only a record with that address will do, so that a pod re-created under the
    /// same name is never served with its predecessor's record.
    pub fn own_workload(&self, pod: &PodRef, address: Option<IpAddr>) -> Option<&Arc<Workload>> {
        let uids = self.own.by_pod.get(pod)?;
        let records = uids.iter().filter_map(|uid| Some(&self.own.by_uid.get(uid)?.workload));
        let address = address.map(|ip| ip.to_canonical());
        let mut fitting = records.filter(|w| address.is_none_or(|ip| w.addresses.contains(&ip)));
        fitting.next()
    }

    /// Every workload of this node, ascending by uid.
    pub fn own_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.own.by_uid.values().map(|own| &own.workload)
    }

    /// The policies in force for a workload of this node.
    pub fn own_policies(&self, uid: &Uid) -> Option<&Arc<PolicySet>> {
        self.own.by_uid.get(uid).map(|own| &own.policies)
    }

    /// Whether a workload runs on this node.
    pub fn is_own(&self, workload: &Workload) -> bool {
        !workload.node.is_empty() && workload.node == self.node
    }

    /// Name of this node.
    pub fn node(&self) -> &Str {
        &self.node
    }

    /// A workload by its key.
    pub fn workload(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.workloads.by_uid(uid)
    }

    /// The workload an address means: a pod before other records, then one that speaks HBONE, never one on the
    /// host network.
    pub fn workload_at(&self, network: &Network, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.by_address(&NetworkAddress::new(network.clone(), ip))
    }

    /// A service by its key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntry>> {
        self.services.by_key(key)
    }

    /// The service a virtual address or range means to a client of a namespace.
    pub fn service_at(&self, network: &Network, ip: IpAddr, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.services.by_address(&NetworkAddress::new(network.clone(), ip), client)
    }

    /// The service a host name means to a client of a namespace.
    pub fn service_by_host(&self, host: &str, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.services.by_host(host, client)
    }

    /// A policy that can be used, by its key.
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// Every policy that can be used, ascending by key.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// Every workload, ascending by uid. Sorts: for dumps, not for connections.
    pub fn workloads(&self) -> Vec<&Arc<Workload>> {
        let mut all: Vec<&Arc<Workload>> = self.workloads.iter().collect();
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        all
    }

    /// Every service, ascending by key. Sorts: for dumps, not for connections.
    pub fn services(&self) -> Vec<&Arc<ServiceEntry>> {
        let mut all: Vec<&Arc<ServiceEntry>> = self.services.iter().collect();
        all.sort_by_cached_key(|entry| entry.service.key());
        all
    }

    /// How many workloads and services are known.
    pub fn counts(&self) -> (usize, usize) {
        (self.workloads.len(), self.services.len())
    }
}
