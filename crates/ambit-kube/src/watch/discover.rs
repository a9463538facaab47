//! Whether a kind is served, and in which version.

use ambit_manifest::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

use crate::error::{Call, KubeError};
use crate::resource::Resource;
use crate::write;

/// The resource of a kind in the version that is preferred among those served; none if it is not served.
///
/// # Errors
/// [`KubeError`] if that cannot be told.
pub(super) async fn served(client: &Client, kind: Kind) -> Result<Option<Resource>, KubeError> {
    if is_built_in(kind) {
        return Ok(kind.api_versions().first().map(|version| Resource::of_kind(kind, version)));
    }
    for version in kind.api_versions() {
        let resource = Resource::of_kind(kind, version);
        let call = Call::new("get", &resource, None, None);
        let request = http::Request::get(format!("/apis/{version}")).body(Vec::new());
        let request = request.map_err(kube::core::request::Error::BuildRequest);
        match write::send::<APIResourceList>(client, &call, request).await {
            Ok(list) if list.resources.iter().any(|r| r.name == resource.plural) => {
                return Ok(Some(resource));
            }
            Ok(_) | Err(KubeError::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

/// Every API server serves these.
pub(super) fn is_built_in(kind: Kind) -> bool {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Secret
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::NetworkPolicy
        | Kind::Deployment
        | Kind::Pod => true,
        Kind::PeerAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::GatewayClass
        | Kind::Gateway
        | Kind::HTTPRoute
        | Kind::GRPCRoute
        | Kind::TCPRoute
        | Kind::TLSRoute
        | Kind::ReferenceGrant
        | Kind::TrafficPolicy
        | Kind::EgressPolicy
        | Kind::VirtualService => false,
    }
}
