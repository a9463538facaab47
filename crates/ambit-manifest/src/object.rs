//! One object of a manifest: typed, as JSON, and with the place of each of its fields.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::gateway::GatewayObject;
use crate::istio::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication, ServiceEntry, WorkloadEntry,
};
use crate::kind::{Kind, ObjectKey};
use crate::problem::{Location, Problem};
use crate::tree::{NodeId, Tree};

/// A typed object.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the kind of the same name")]
pub enum Object {
    Namespace(Box<Namespace>),
    Node(Box<Node>),
    ServiceAccount(Box<ServiceAccount>),
    ConfigMap(Box<ConfigMap>),
    Secret(Box<Secret>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    NetworkPolicy(Box<NetworkPolicy>),
    PeerAuthentication(Box<PeerAuthentication>),
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    RequestAuthentication(Box<RequestAuthentication>),
    ServiceEntry(Box<ServiceEntry>),
    WorkloadEntry(Box<WorkloadEntry>),
    Deployment(Box<Deployment>),
    Pod(Box<Pod>),
    /// A kind of the Gateway API, the policy kind of ours that attaches to them, or Istio's kind that is imported.
    GatewayApi(Box<GatewayObject>),
}

impl Object {
    /// Name, namespace, labels, annotations.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::ConfigMap(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
            Self::PeerAuthentication(o) => &o.metadata,
            Self::AuthorizationPolicy(o) => &o.metadata,
            Self::RequestAuthentication(o) => &o.metadata,
            Self::ServiceEntry(o) => &o.metadata,
            Self::WorkloadEntry(o) => &o.metadata,
            Self::Deployment(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::GatewayApi(o) => o.metadata(),
        }
    }

    pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(o) => &mut o.metadata,
            Self::Node(o) => &mut o.metadata,
            Self::ServiceAccount(o) => &mut o.metadata,
            Self::ConfigMap(o) => &mut o.metadata,
            Self::Secret(o) => &mut o.metadata,
            Self::Service(o) => &mut o.metadata,
            Self::EndpointSlice(o) => &mut o.metadata,
            Self::NetworkPolicy(o) => &mut o.metadata,
            Self::PeerAuthentication(o) => &mut o.metadata,
            Self::AuthorizationPolicy(o) => &mut o.metadata,
            Self::RequestAuthentication(o) => &mut o.metadata,
            Self::ServiceEntry(o) => &mut o.metadata,
            Self::WorkloadEntry(o) => &mut o.metadata,
            Self::Deployment(o) => &mut o.metadata,
            Self::Pod(o) => &mut o.metadata,
            Self::GatewayApi(o) => o.metadata_mut(),
        }
    }
}

/// An object with the places of its fields. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Located {
    /// Kind, namespace (`default` where none is given) and name.
    pub key: ObjectKey,
    /// The typed object; `metadata.namespace` is filled in.
    pub object: Arc<Object>,
    /// Where the document starts.
    pub location: Location,
    /// The whole document; `metadata.namespace` is filled in.
    pub value: Arc<Value>,
    pub(crate) source: Source,
}

/// The text's tree and the object's root in it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) tree: Arc<Tree>,
    pub(crate) root: NodeId,
}

impl Located {
    /// What kind of object it is.
    pub fn kind(&self) -> Kind {
        self.key.kind
    }

    /// Where the field at `path` stands, such as `spec.rules[0].from` or `metadata.labels[istio.io/rev]`.
    ///
    /// If it does not exist, its nearest existing ancestor is placed.
    pub fn at(&self, path: &str) -> Location {
        let position = self.source.tree.locate(self.source.root, path);
        Location { file: self.location.file.clone(), line: position.line, column: position.column }
    }

    /// A problem with the field at `path`, placed and named.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem {
            location: self.at(path),
            object: Some(self.key.clone()),
            field: path.to_owned(),
            message: message.into(),
            nearest: None,
            other: None,
        }
    }
}
