//! Who asks: the identity a node states in its first requests, written and read.
//!
//! It is a statement, not a proof; whether the caller may make it is decided from its token, elsewhere.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ambit_types::Str;

use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};

use crate::proto::envoy::service::discovery::v3::Node;

/// Kinds of node that may subscribe: the first part of a node id.
const KNOWN_KINDS: [&str; 4] = ["ztunnel", "waypoint", "sidecar", "router"];

/// Longest id that is read, and longest text of the metadata, in bytes: names at the limits of Kubernetes fit twice over.
const ID_BYTES_MAX: usize = 2048;

/// Metadata that names the Gateway a waypoint belongs to.
const GATEWAY_NAME: &str = "GATEWAY_NAME";

/// Name of a waypoint: that of its Gateway. All its replicas have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaypointKey {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

impl WaypointKey {
    /// Makes a key of its parts.
    pub fn new(namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for WaypointKey {
    /// `NAMESPACE/NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity a ztunnel or waypoint states.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeIdentity {
    /// Its address, `INSTANCE_IP`.
    pub ip: IpAddr,
    /// Its pod, `POD_NAME`; may be empty.
    pub pod_name: String,
    /// The pod's namespace, `POD_NAMESPACE`; the control plane compares it with the token.
    pub namespace: String,
    /// The machine, `NODE_NAME`.
    pub node_name: String,
    /// Further metadata such as `CLUSTER_ID`; the fixed fields above win over entries of the same name.
    pub metadata: BTreeMap<String, Value>,
}

impl NodeIdentity {
    /// `ztunnel~IP~POD.NAMESPACE~NAMESPACE.svc.cluster.local`; the last part is so whatever the cluster's domain is.
    pub fn id(&self) -> String {
        self.id_as("ztunnel")
    }

    fn id_as(&self, kind: &str) -> String {
        let Self { ip, pod_name, namespace, .. } = self;
        format!("{kind}~{ip}~{pod_name}.{namespace}~{namespace}.svc.cluster.local")
    }

    /// The message of a ztunnel's first requests.
    pub fn encode(&self) -> Node {
        self.encode_with(self.id(), [])
    }

    /// The message of the first requests of a waypoint, which belongs to the Gateway `gateway` of its namespace.
    pub fn encode_as_waypoint(&self, gateway: &str) -> Node {
        self.encode_with(self.id_as("waypoint"), [(GATEWAY_NAME.to_owned(), text(gateway))])
    }

    fn encode_with<const N: usize>(&self, id: String, more: [(String, Value); N]) -> Node {
        let mut fields = self.metadata.clone();
        fields.extend(more);
        let fixed = [
            ("NAME", self.pod_name.clone()),
            ("NAMESPACE", self.namespace.clone()),
            ("INSTANCE_IPS", self.ip.to_string()),
            ("NODE_NAME", self.node_name.clone()),
        ];
        fields.extend(fixed.map(|(name, value)| (name.to_owned(), text(value))));
        Node { id, metadata: Some(Struct { fields }), ..Node::default() }
    }
}

/// A text as metadata.
pub fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(ValueKind::StringValue(value.into())) }
}

/// What a control plane reads of a caller's statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `ztunnel`, `waypoint`, `sidecar` or `router`.
    pub kind: String,
    /// Its addresses, at least one.
    pub ips: Vec<IpAddr>,
    /// Its pod; may be empty.
    pub pod_name: String,
    /// Its namespace.
    pub namespace: String,
    /// The machine; empty if it does not say.
    pub node_name: String,
    /// Its service account, if it says.
    pub service_account: Option<String>,
    /// Its cluster, if it says.
    pub cluster_id: Option<String>,
    /// The Gateway it belongs to, if it says; of meaning for waypoints only.
    pub gateway: Option<String>,
}

impl Caller {
    /// Reads the node of a stream's first request.
    ///
    /// # Errors
    /// [`NodeError`] says which rule of the id is broken; the stream is to be refused as an invalid argument.
    pub fn decode(node: Option<&Node>) -> Result<Self, NodeError> {
        let node = node.ok_or(NodeError::Absent)?;
        if node.id.len() > ID_BYTES_MAX {
            return Err(NodeError::TooLong { bytes: node.id.len() });
        }
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, ip, pod, _domain] = parts[..] else {
            return Err(NodeError::Parts { id: node.id.clone(), parts: parts.len() });
        };
        if !KNOWN_KINDS.contains(&kind) {
            return Err(NodeError::Kind { found: kind.to_owned() });
        }
        if let Some((name, bytes)) = too_long(node) {
            return Err(NodeError::Metadata { name, bytes });
        }
        let metadata = |name: &str| field(node, name).map(str::to_owned);
        let ips = ips(metadata("INSTANCE_IPS").as_deref().unwrap_or_default(), ip)
            .ok_or_else(|| NodeError::Address { id: node.id.clone() })?;
        let (id_pod, id_namespace) = pod.rsplit_once('.').unwrap_or((pod, ""));
        let stated = metadata("NAMESPACE").filter(|namespace| !namespace.is_empty());
        let namespace = stated.unwrap_or_else(|| id_namespace.to_owned());
        if namespace != id_namespace {
            return Err(NodeError::Namespace { id: id_namespace.to_owned(), metadata: namespace });
        }
        Ok(Self {
            kind: kind.to_owned(),
            ips,
            pod_name: id_pod.to_owned(),
            namespace,
            node_name: metadata("NODE_NAME").unwrap_or_default(),
            service_account: metadata("SERVICE_ACCOUNT"),
            cluster_id: metadata("CLUSTER_ID"),
            gateway: metadata(GATEWAY_NAME),
        })
    }

    /// The waypoint that the caller says it is; nothing if it is of another kind or does not name its Gateway.
    ///
    /// The namespace is the one that is compared with the token. Whether the token's service account may speak for
    /// that Gateway has to be compared too, before the answer is used for
    /// [`crate::server::Connection::for_waypoint`].
    pub fn waypoint(&self) -> Option<WaypointKey> {
        let gateway = self.gateway.as_deref().filter(|name| !name.is_empty() && !name.contains('/'))?;
        (self.kind == "waypoint").then(|| WaypointKey::new(&*self.namespace, gateway))
    }
}

/// The first field of the metadata that is read and longer than any can be, and its length.
fn too_long(node: &Node) -> Option<(&'static str, usize)> {
    let read = ["INSTANCE_IPS", "NAMESPACE", "NODE_NAME", "SERVICE_ACCOUNT", "CLUSTER_ID", GATEWAY_NAME];
    let mut lengths = read.into_iter().filter_map(|name| Some((name, field(node, name)?.len())));
    lengths.find(|(_, bytes)| *bytes > ID_BYTES_MAX)
}

/// The addresses of the metadata if any is valid, else the one of the id.
fn ips(listed: &str, of_id: &str) -> Option<Vec<IpAddr>> {
    let listed: Vec<IpAddr> = listed.split(',').filter_map(|text| text.trim().parse().ok()).collect();
    if listed.is_empty() { of_id.parse().ok().map(|ip| vec![ip]) } else { Some(listed) }
}

pub(crate) fn field<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(name)?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text),
        ValueKind::NullValue(_)
        | ValueKind::NumberValue(_)
        | ValueKind::BoolValue(_)
        | ValueKind::StructValue(_)
        | ValueKind::ListValue(_) => None,
    }
}

/// Why a stream's first request does not say who asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No node at all.
    #[error("the first request of the stream carries no node")]
    Absent,
    /// Longer than any id can be.
    #[error("node id of {bytes} bytes is longer than {ID_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A field that is longer than it can be.
    #[error("metadata {name} of {bytes} bytes is longer than {ID_BYTES_MAX}")]
    Metadata {
        /// Its name.
        name: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Not four parts.
    #[error("node id {id:?} has {parts} parts; KIND~IP~POD.NAMESPACE~DOMAIN has 4")]
    Parts {
        /// The id.
        id: String,
        /// How many parts it has.
        parts: usize,
    },
    /// A kind that does not subscribe here.
    #[error("node kind {found:?} is none of ztunnel, waypoint, sidecar, router")]
    Kind {
        /// What was stated.
        found: String,
    },
    /// No valid address.
    #[error("node id {id:?} has no valid address, and neither has its metadata INSTANCE_IPS")]
    Address {
        /// The id.
        id: String,
    },
    /// The id and the metadata contradict each other.
    #[error("the node id says namespace {id:?}, its metadata NAMESPACE says {metadata:?}")]
    Namespace {
        /// By the id.
        id: String,
        /// By the metadata.
        metadata: String,
    },
}
