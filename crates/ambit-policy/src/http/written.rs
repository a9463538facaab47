//! Policies as people write them: the body of an `AuthorizationPolicy`, nothing interpreted.
//!
//! Names and nesting are the manifest's. Attachment (`targetRefs`) is not part of it. [`super::compile()`] reads it.

use serde::{Deserialize, Serialize};

/// The body of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// What it does; ALLOW unless said.
    pub action: Action,
    /// Who is asked, for CUSTOM.
    pub provider: Option<Provider>,
    /// Any of these; none at all matches nothing.
    pub rules: Option<Vec<Rule>>,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Permits.
    #[default]
    Allow,
    /// Refuses.
    Deny,
    /// Marks for the audit log.
    Audit,
    /// Asks the provider.
    Custom,
}

/// A named decision service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Provider {
    /// Its name in the mesh configuration.
    pub name: String,
}

/// `from`, `to` and `when` must all agree; what is left out always does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// Any of these.
    pub from: Option<Vec<From>>,
    /// Any of these.
    pub to: Option<Vec<To>>,
    /// All of these.
    pub when: Option<Vec<Condition>>,
}

/// An element of `from`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct From {
    /// The caller; required.
    pub source: Option<Source>,
}

/// An element of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct To {
    /// The call; required.
    pub operation: Option<Operation>,
}

/// Who calls. Every list that is not empty must agree, the `not` ones with none of their values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    /// Identities without `spiffe://`.
    pub principals: Vec<String>,
    /// None of these identities.
    pub not_principals: Vec<String>,
    /// `ISSUER/SUBJECT` of the token.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the identity.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// Addresses of the direct peer.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the client.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
    /// `NAME` or `NAMESPACE/NAME`.
    pub service_accounts: Vec<String>,
    /// None of these.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the identity.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
}

/// What is called. Every list that is not empty must agree, the `not` ones with none of their values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Operation {
    /// Hosts, with port if one is meant.
    pub hosts: Vec<String>,
    /// None of these.
    pub not_hosts: Vec<String>,
    /// Ports of the service.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// None of these.
    pub not_methods: Vec<String>,
    /// Paths or templates.
    pub paths: Vec<String>,
    /// None of these.
    pub not_paths: Vec<String>,
}

/// A condition on one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Condition {
    /// The attribute, such as `request.headers[x-version]`.
    pub key: String,
    /// One of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}
