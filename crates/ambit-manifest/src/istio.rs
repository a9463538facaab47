//! The mesh's own objects as manifests write them: `security.istio.io` and `networking.istio.io`.
//!
//! Shapes only. Every list is `None` when the field is absent, because absent and empty differ in policies;
//! what a value must look like is checked by `validate`.

mod networking;
mod security;

pub use networking::{
    EntryEndpoint, EntryLocation, EntryPort, EntryResolution, ServiceEntry, ServiceEntrySpec, WorkloadEntry,
};
pub use security::{
    AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, ClaimToHeader, Condition,
    ExtensionProvider, JwtHeader, JwtRule, MutualTls, MutualTlsMode, Operation, PeerAuthentication,
    PeerAuthenticationSpec, PolicyAction, RequestAuthentication, RequestAuthenticationSpec, RuleFrom,
    RuleSource, RuleTo, TargetReference,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Which workloads an object is about: those that carry every label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels a workload must carry with exactly these values; empty means every workload.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// Which workloads of a ServiceEntry's namespace are its endpoints.
///
/// The field is called `labels` here and `matchLabels` in the policies; that is how the API has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels a workload must carry with exactly these values.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Reads `null` as the default, as the API server does for a field that is there but holds nothing.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
