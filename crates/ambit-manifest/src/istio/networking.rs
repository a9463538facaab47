//! `networking.istio.io`: ServiceEntry and WorkloadEntry.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LabelSelector, or_default};

/// A service the cluster does not know by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// `networking.istio.io/v1`, `v1beta1` or `v1alpha3`.
    pub api_version: String,
    /// `ServiceEntry`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceEntrySpec,
    /// Written by controllers; holds allocated addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// The body of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntrySpec {
    /// Host names, 1 to 256.
    #[serde(deserialize_with = "or_default")]
    pub hosts: Vec<String>,
    /// Virtual addresses or CIDRs.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Ports, numbers and names unique.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EntryPort>,
    /// Inside or outside the mesh; default outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<EntryLocation>,
    /// How endpoints are found; default NONE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<EntryResolution>,
    /// Endpoints given here; not together with `workload_selector`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EntryEndpoint>,
    /// Endpoints chosen by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<LabelSelector>,
    /// Namespaces that may see it; not used in ambient.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Identities its endpoints may have.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

/// A port of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryPort {
    /// Port of the service, 1 to 65535.
    pub number: u32,
    /// Its protocol, such as `HTTP` or `TCP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Its name.
    pub name: String,
    /// Port of the endpoints; default `number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u32>,
}

/// Whether a [`ServiceEntry`] is part of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryLocation {
    /// Outside: no identity is expected.
    #[default]
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// How the endpoints of a [`ServiceEntry`] are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryResolution {
    /// The caller's destination address is used as it is.
    #[default]
    None,
    /// The endpoints' addresses are given.
    Static,
    /// Names are looked up; all answers are used.
    Dns,
    /// Names are looked up; one answer at a time is used.
    DnsRoundRobin,
    /// The name the caller asked for is looked up; for wildcard hosts.
    DynamicDns,
}

/// An endpoint in a [`ServiceEntry`], and the body of a [`WorkloadEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryEndpoint {
    /// IP address or, where names are looked up, host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port by name of the service's port.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Network it is on; default the local one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Share of traffic; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Service account of its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}

/// A workload that is not a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// `networking.istio.io/v1`, `v1beta1` or `v1alpha3`.
    pub api_version: String,
    /// `WorkloadEntry`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: EntryEndpoint,
    /// Written by controllers, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}
