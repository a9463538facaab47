//! Policies of a waypoint, compiled: every condition parsed into a type that cannot be wrong.
//!
//! A policy matches if any rule does; a rule if all its clauses do; a clause if any of its alternatives does; an
//! alternative if all its conditions hold. `from` and `to` are one clause each, every `when` is a clause of its own.
//! A rule without clauses matches everything. A clause without alternatives, an alternative without conditions and a
//! condition without values are not written by anybody: they agree where that refuses, and nowhere else.

use std::fmt;

use ambit_types::{PolicyKey, Str};
use ipnet::IpNet;

pub use super::template::{PathMatch, Template, TemplateError};
pub use super::text::{Glob, HeaderName, RequestPrincipal};
use crate::jwt::ClaimPath;
pub use crate::model::{ServiceAccount, StringMatch, Values};

/// What a matching policy does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Permits; once any ALLOW policy applies, one must match.
    Allow,
    /// Refuses, whatever else permits.
    Deny,
    /// Marks the request for the audit log, nothing more.
    Audit,
    /// Asks the provider of this name, whose no is final.
    Custom(Str),
}

impl fmt::Display for Action {
    /// As manifests spell it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom(_) => "CUSTOM",
        })
    }
}

/// One authorization policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub key: PolicyKey,
    /// What it does.
    pub action: Action,
    /// Any of these; without any it never matches.
    pub rules: Vec<Rule>,
    /// Evaluated and recorded, never enforced; ALLOW and DENY only.
    pub dry_run: bool,
}

/// All of these clauses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The clauses.
    pub clauses: Vec<Clause>,
    /// Conditions that this version does not know, by name.
    ///
    /// They count as agreeing where that refuses or asks; an ALLOW rule with any of them never matches.
    pub unevaluable: Vec<Str>,
}

/// Any of these alternatives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clause {
    /// Conditions of each alternative, all of which have to hold.
    pub alternatives: Vec<Vec<Condition>>,
}

/// One attribute and the values it may and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The peer's identity without `spiffe://`.
    Principal(Values<StringMatch>),
    /// Namespace of the peer's identity.
    Namespace(Values<Glob>),
    /// The peer's service account, whatever its trust domain.
    ServiceAccount(Values<ServiceAccount>),
    /// Trust domain of the peer's identity.
    TrustDomain(Values<StringMatch>),
    /// Address of the direct peer: the pod that called.
    SourceIp(Values<IpNet>),
    /// Address of the client, behind trusted proxies.
    RemoteIp(Values<IpNet>),
    /// The address connected to, before any load balancing.
    DestinationIp(Values<IpNet>),
    /// The port connected to: the service's, not the workload's.
    DestinationPort(Values<u16>),
    /// Server name of an inner TLS handshake, in any case.
    ServerName(Values<StringMatch>),
    /// Host with port, in any case.
    Host(Values<StringMatch>),
    /// The method, case-sensitive.
    Method(Values<StringMatch>),
    /// The normalised path without query, case-sensitive.
    Path(Values<PathMatch>),
    /// A header, line by line, case-sensitive.
    Header(HeaderName, Values<StringMatch>),
    /// Issuer and subject of the token.
    RequestPrincipal(Values<RequestPrincipal>),
    /// Claim `aud` of the token, any element.
    Audience(Values<StringMatch>),
    /// Claim `azp` of the token.
    Presenter(Values<StringMatch>),
    /// Any claim of the token: a string, or any element of a list.
    Claim(ClaimPath, Values<StringMatch>),
}

/// Something a condition compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// The peer's identity without `spiffe://`.
    Principal,
    /// Namespace of the peer's identity.
    Namespace,
    /// The peer's namespace and service account.
    ServiceAccount,
    /// Trust domain of the peer's identity.
    TrustDomain,
    /// Address of the direct peer.
    SourceIp,
    /// Address of the client behind trusted proxies.
    RemoteIp,
    /// The address connected to.
    DestinationIp,
    /// The port connected to.
    DestinationPort,
    /// Server name of an inner TLS handshake.
    ServerName,
    /// Host with port.
    Host,
    /// The method.
    Method,
    /// The path.
    Path,
    /// A header.
    Header(HeaderName),
    /// Issuer and subject of the token.
    RequestPrincipal,
    /// Claim `aud`.
    Audience,
    /// Claim `azp`.
    Presenter,
    /// A claim.
    Claim(ClaimPath),
}

impl Condition {
    /// What it compares.
    pub fn attribute(&self) -> Attribute {
        match self {
            Self::Principal(_) => Attribute::Principal,
            Self::Namespace(_) => Attribute::Namespace,
            Self::ServiceAccount(_) => Attribute::ServiceAccount,
            Self::TrustDomain(_) => Attribute::TrustDomain,
            Self::SourceIp(_) => Attribute::SourceIp,
            Self::RemoteIp(_) => Attribute::RemoteIp,
            Self::DestinationIp(_) => Attribute::DestinationIp,
            Self::DestinationPort(_) => Attribute::DestinationPort,
            Self::ServerName(_) => Attribute::ServerName,
            Self::Host(_) => Attribute::Host,
            Self::Method(_) => Attribute::Method,
            Self::Path(_) => Attribute::Path,
            Self::Header(name, _) => Attribute::Header(name.clone()),
            Self::RequestPrincipal(_) => Attribute::RequestPrincipal,
            Self::Audience(_) => Attribute::Audience,
            Self::Presenter(_) => Attribute::Presenter,
            Self::Claim(path, _) => Attribute::Claim(path.clone()),
        }
    }

    /// Its values as people write them: those wanted, those not.
    pub fn values(&self) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Namespace(v) => texts(v),
            Self::ServiceAccount(v) => texts(v),
            Self::SourceIp(v) | Self::RemoteIp(v) | Self::DestinationIp(v) => texts(v),
            Self::DestinationPort(v) => texts(v),
            Self::Path(v) => texts(v),
            Self::RequestPrincipal(v) => texts(v),
            Self::Principal(v)
            | Self::TrustDomain(v)
            | Self::ServerName(v)
            | Self::Host(v)
            | Self::Method(v)
            | Self::Header(_, v)
            | Self::Audience(v)
            | Self::Presenter(v)
            | Self::Claim(_, v) => texts(v),
        }
    }
}

fn texts<T: fmt::Display>(values: &Values<T>) -> (Vec<String>, Vec<String>) {
    let list = |of: &[T]| of.iter().map(T::to_string).collect();
    (list(&values.any), list(&values.none))
}

impl Attribute {
    /// Whether only a request has it, so that it cannot be compared on a TCP connection.
    pub fn needs_http(&self) -> bool {
        match self {
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::ServerName => false,
            Self::Host | Self::Method | Self::Path | Self::Header(_) => true,
            Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_) => true,
        }
    }

    /// Whether it is taken from a verified token.
    pub fn needs_token(&self) -> bool {
        match self {
            Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_) => true,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::ServerName
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_) => false,
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principal => "principal",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service account",
            Self::TrustDomain => "trust domain",
            Self::SourceIp => "source address",
            Self::RemoteIp => "client address",
            Self::DestinationIp => "destination address",
            Self::DestinationPort => "destination port",
            Self::ServerName => "server name",
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Header(name) => return write!(f, "header {name}"),
            Self::RequestPrincipal => "token principal",
            Self::Audience => "token audience",
            Self::Presenter => "token presenter",
            Self::Claim(path) => return write!(f, "token claim {path}"),
        })
    }
}
