//! `security.istio.io`: AuthorizationPolicy, PeerAuthentication, RequestAuthentication.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{WorkloadSelector, or_default};

/// Who may reach a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `AuthorizationPolicy`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says; absent means ALLOW without rules, which allows nothing.
    #[serde(deserialize_with = "or_default")]
    pub spec: AuthorizationPolicySpec,
    /// Written by controllers, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// The body of an [`AuthorizationPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// Workloads it is for; absent means all of the namespace, or of the mesh in the root namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Older form of `target_refs` with a single target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// Waypoint targets it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_refs: Option<Vec<TargetReference>>,
    /// What a matching rule means; default ALLOW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<PolicyAction>,
    /// Rules, any of which may match. `None` and empty both match nothing, but DENY needs them given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<AuthorizationRule>>,
    /// Who decides, for CUSTOM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ExtensionProvider>,
}

/// What a policy does when a rule of it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyAction {
    /// Allow what matches; once one applies, what none of them matches is denied.
    #[default]
    Allow,
    /// Deny what matches, whatever else allows it.
    Deny,
    /// Only record what matches.
    Audit,
    /// Ask the provider.
    Custom,
}

/// A named decision service from the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtensionProvider {
    /// Its name.
    pub name: String,
}

/// An object a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetReference {
    /// API group; empty means core.
    pub group: String,
    /// Kind: Service, ServiceEntry, Gateway or GatewayClass.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Must be absent or the policy's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// One rule: matches if `from`, `to` and `when` all do; without any of them it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationRule {
    /// Callers, any of which may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<RuleFrom>>,
    /// Calls, any of which may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<RuleTo>>,
    /// Conditions, all of which must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Vec<Condition>>,
}

/// An element of `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleFrom {
    /// The caller; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RuleSource>,
}

/// An element of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleTo {
    /// The call; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

macro_rules! string_lists {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident $json:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<Vec<String>>,
            )+
        }

        impl $name {
            /// Every list with the name it has in a manifest.
            pub fn lists(&self) -> Vec<(&'static str, &[String])> {
                vec![$(($json, self.$field.as_deref().unwrap_or_default()),)+]
            }
        }
    };
}

string_lists! {
    /// Facts about a caller; all given lists must match, an element of each suffices.
    RuleSource {
        /// Identities without `spiffe://`, with `*` at one end or alone.
        principals "principals",
        /// None of these identities.
        not_principals "notPrincipals",
        /// `issuer/subject` of a token; needs HTTP.
        request_principals "requestPrincipals",
        /// None of these token principals; needs HTTP.
        not_request_principals "notRequestPrincipals",
        /// Namespaces of the identity.
        namespaces "namespaces",
        /// None of these namespaces.
        not_namespaces "notNamespaces",
        /// Addresses or CIDRs of the connection's peer.
        ip_blocks "ipBlocks",
        /// None of these addresses.
        not_ip_blocks "notIpBlocks",
        /// Addresses or CIDRs of the original client; needs HTTP.
        remote_ip_blocks "remoteIpBlocks",
        /// None of these client addresses; needs HTTP.
        not_remote_ip_blocks "notRemoteIpBlocks",
        /// `namespace/name`, or `name` in the policy's namespace.
        service_accounts "serviceAccounts",
        /// None of these service accounts.
        not_service_accounts "notServiceAccounts",
        /// Trust domains of the identity.
        trust_domains "trustDomains",
        /// None of these trust domains.
        not_trust_domains "notTrustDomains",
    }
}

string_lists! {
    /// Facts about a call; all given lists must match, an element of each suffices.
    Operation {
        /// Host names; needs HTTP.
        hosts "hosts",
        /// None of these hosts; needs HTTP.
        not_hosts "notHosts",
        /// Ports of the workload.
        ports "ports",
        /// None of these ports.
        not_ports "notPorts",
        /// Methods; needs HTTP.
        methods "methods",
        /// None of these methods; needs HTTP.
        not_methods "notMethods",
        /// Paths; needs HTTP.
        paths "paths",
        /// None of these paths; needs HTTP.
        not_paths "notPaths",
    }
}

/// A condition on an attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// The attribute, such as `source.ip`.
    pub key: String,
    /// Values, any of which may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Values, none of which may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_values: Option<Vec<String>>,
}

/// Whether callers must use mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `PeerAuthentication`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says; absent means everything is inherited.
    #[serde(deserialize_with = "or_default")]
    pub spec: PeerAuthenticationSpec,
    /// Written by controllers, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// The body of a [`PeerAuthentication`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthenticationSpec {
    /// Workloads it is for; absent or empty means all of the namespace, or of the mesh in the root namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Mode of every port without one of its own; absent means inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// Mode per port of the workload; needs a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_level_mtls: Option<BTreeMap<u32, MutualTls>>,
}

/// Settings of mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MutualTls {
    /// The mode; absent is the same as UNSET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<MutualTlsMode>,
}

/// What callers without mutual TLS may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MutualTlsMode {
    /// As the next wider level says.
    #[default]
    Unset,
    /// In ambient the same as PERMISSIVE.
    Disable,
    /// Plain text is let in.
    Permissive,
    /// Plain text is refused.
    Strict,
}

/// Which tokens of requests are checked; only a waypoint can honour it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `RequestAuthentication`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: RequestAuthenticationSpec,
    /// Written by controllers, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// The body of a [`RequestAuthentication`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthenticationSpec {
    /// Workloads it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Older form of `target_refs` with a single target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// Waypoint targets it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_refs: Option<Vec<TargetReference>>,
    /// Issuers whose tokens are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_rules: Option<Vec<JwtRule>>,
}

/// How tokens of one issuer are found and checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtRule {
    /// The `iss` claim; required.
    pub issuer: String,
    /// Accepted `aud` claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<String>>,
    /// Where the keys are fetched, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Headers that hold the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_headers: Option<Vec<JwtHeader>>,
    /// Query parameters that hold the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_params: Option<Vec<String>>,
    /// Cookies that hold the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_cookies: Option<Vec<String>>,
    /// Header that carries the checked payload on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_payload_to_header: Option<String>,
    /// Whether the token is passed on; default no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_original_token: Option<bool>,
    /// Claims copied to headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_claim_to_headers: Option<Vec<ClaimToHeader>>,
    /// Longest time for fetching the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Claims that hold a list separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_delimited_claims: Option<Vec<String>>,
}

/// A header that holds a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtHeader {
    /// Name of the header.
    pub name: String,
    /// Text before the token, such as `Bearer `.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A claim copied to a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim.
    pub claim: String,
}
