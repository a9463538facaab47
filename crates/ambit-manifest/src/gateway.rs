//! The Gateway API's objects, the policy kinds of ours, and Istio's kind that is imported as a route.
//!
//! Bodies are `ambit_types::written`; what a value must look like is checked by `validate`.

use ambit_types::written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An object with its body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "S: Default + Deserialize<'de>"))]
pub struct Resource<S: Default> {
    /// API group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "crate::istio::or_default")]
    pub spec: S,
    /// Written by controllers; of a Gateway it holds its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// An object of the Gateway API, a TrafficPolicy, an EgressPolicy or a VirtualService.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the kind of the same name")]
#[expect(clippy::large_enum_variant, reason = "it is kept behind a box")]
pub enum GatewayObject {
    GatewayClass(Resource<written::GatewayClass>),
    Gateway(Resource<written::Gateway>),
    HttpRoute(Resource<written::HttpRoute>),
    GrpcRoute(Resource<written::GrpcRoute>),
    TcpRoute(Resource<written::TcpRoute>),
    TlsRoute(Resource<written::TlsRoute>),
    ReferenceGrant(Resource<written::Grant>),
    TrafficPolicy(Resource<written::TrafficPolicy>),
    EgressPolicy(Resource<written::EgressPolicy>),
    VirtualService(Resource<written::VirtualService>),
}

impl GatewayObject {
    /// Name, namespace, labels, annotations.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::GatewayClass(o) => &o.metadata,
            Self::Gateway(o) => &o.metadata,
            Self::HttpRoute(o) => &o.metadata,
            Self::GrpcRoute(o) => &o.metadata,
            Self::TcpRoute(o) => &o.metadata,
            Self::TlsRoute(o) => &o.metadata,
            Self::ReferenceGrant(o) => &o.metadata,
            Self::TrafficPolicy(o) => &o.metadata,
            Self::EgressPolicy(o) => &o.metadata,
            Self::VirtualService(o) => &o.metadata,
        }
    }

    pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::GatewayClass(o) => &mut o.metadata,
            Self::Gateway(o) => &mut o.metadata,
            Self::HttpRoute(o) => &mut o.metadata,
            Self::GrpcRoute(o) => &mut o.metadata,
            Self::TcpRoute(o) => &mut o.metadata,
            Self::TlsRoute(o) => &mut o.metadata,
            Self::ReferenceGrant(o) => &mut o.metadata,
            Self::TrafficPolicy(o) => &mut o.metadata,
            Self::EgressPolicy(o) => &mut o.metadata,
            Self::VirtualService(o) => &mut o.metadata,
        }
    }
}
