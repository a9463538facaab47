//! Pods and nodes with only the fields that are read: of these there are many, and most of one is never looked at.
//!
//! What is not named here is passed over while the text is read, and never takes memory.

use std::collections::BTreeMap;

use ambit_manifest::{Located, Object, Problem, served};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Node, NodeAddress, NodeSpec, NodeStatus, Pod, PodCondition, PodIP, PodSpec,
    PodStatus, Probe,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use super::object::Served;
use crate::resource::Resource;

/// A pod as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlimPod {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

/// A node as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlimNode {
    metadata: Metadata,
    spec: Option<OfNode>,
    status: Option<Addresses>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<SlimContainer>>,
    init_containers: Option<Vec<SlimContainer>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimContainer {
    name: String,
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
    liveness_probe: Option<Probe>,
    readiness_probe: Option<Probe>,
    startup_probe: Option<Probe>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OfNode {
    unschedulable: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Addresses {
    addresses: Option<Vec<NodeAddress>>,
}

impl Metadata {
    fn names(&self) -> (&str, &str, &str) {
        (
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
            self.resource_version.as_deref().unwrap_or_default(),
        )
    }
}

impl From<Metadata> for ObjectMeta {
    fn from(from: Metadata) -> Self {
        Self {
            name: from.name,
            namespace: from.namespace,
            uid: from.uid,
            resource_version: from.resource_version,
            generation: from.generation,
            creation_timestamp: from.creation_timestamp,
            deletion_timestamp: from.deletion_timestamp,
            labels: from.labels,
            annotations: from.annotations,
            owner_references: from.owner_references,
            ..Self::default()
        }
    }
}

impl From<SlimContainer> for Container {
    fn from(from: SlimContainer) -> Self {
        Self {
            name: from.name,
            restart_policy: from.restart_policy,
            ports: from.ports,
            liveness_probe: from.liveness_probe,
            readiness_probe: from.readiness_probe,
            startup_probe: from.startup_probe,
            ..Self::default()
        }
    }
}

impl From<Spec> for PodSpec {
    fn from(from: Spec) -> Self {
        let list = |list: Vec<SlimContainer>| list.into_iter().map(Container::from).collect();
        Self {
            service_account_name: from.service_account_name,
            node_name: from.node_name,
            host_network: from.host_network,
            containers: list(from.containers.unwrap_or_default()),
            init_containers: from.init_containers.map(list),
            ..Self::default()
        }
    }
}

impl From<Status> for PodStatus {
    fn from(from: Status) -> Self {
        let condition =
            |c: Condition| PodCondition { type_: c.r#type, status: c.status, ..PodCondition::default() };
        Self {
            phase: from.phase,
            pod_ip: from.pod_ip,
            pod_ips: from.pod_ips,
            conditions: from.conditions.map(|list| list.into_iter().map(condition).collect()),
            ..Self::default()
        }
    }
}

impl Served for SlimPod {
    fn names(&self) -> (&str, &str, &str) {
        self.metadata.names()
    }

    fn read(self, _: &Resource) -> Result<Located, Vec<Problem>> {
        served(Object::Pod(Box::new(Pod {
            metadata: self.metadata.into(),
            spec: self.spec.map(PodSpec::from),
            status: self.status.map(PodStatus::from),
        })))
    }
}

impl Served for SlimNode {
    fn names(&self) -> (&str, &str, &str) {
        self.metadata.names()
    }

    fn read(self, _: &Resource) -> Result<Located, Vec<Problem>> {
        let spec = |s: OfNode| NodeSpec { unschedulable: s.unschedulable, ..NodeSpec::default() };
        let status = |s: Addresses| NodeStatus { addresses: s.addresses, ..NodeStatus::default() };
        served(Object::Node(Box::new(Node {
            metadata: self.metadata.into(),
            spec: self.spec.map(spec),
            status: self.status.map(status),
        })))
    }
}
