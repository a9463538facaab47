//! Policies as discovery carries them (`istio.security.Authorization`), parsed into types that cannot be wrong.
//!
//! A policy matches if any rule matches; a rule if all its clauses match; a clause if any of its matches does;
//! a match if every attribute that it names agrees. Edge cases: a policy without rules never matches, a rule
//! without clauses always does, a clause without matches is true, an empty match is skipped.

use ambit_types::{PolicyKey, Str};
use ipnet::IpNet;

use crate::decide::BREAKGLASS;

/// Which workloads a policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name it.
    WorkloadSelector,
}

/// What a matching policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Permits; once any ALLOW policy applies, one must match.
    Allow,
    /// Refuses, whatever else permits.
    Deny,
}

/// One authorization policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Namespace and name; the root namespace for mesh-wide ones.
    pub key: PolicyKey,
    /// Which workloads it covers.
    pub scope: Scope,
    /// What it does.
    pub action: Action,
    /// Any of these.
    pub rules: Vec<Rule>,
    /// Evaluated and recorded, never enforced.
    pub dry_run: bool,
    /// When it goes out of force by itself, in seconds since 1970; only of a pass ([`Policy::is_pass`]).
    ///
    /// A decision does not look at it: who has a clock takes a pass out of what is decided by.
    pub until: Option<u64>,
}

impl Policy {
    /// Whether it lets people in for a while (break-glass). One that does not say until when may never be in force.
    pub fn is_pass(&self) -> bool {
        match self.action {
            Action::Allow => *self.key.name == *BREAKGLASS,
            Action::Deny => false,
        }
    }
}

/// All of these clauses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// The clauses.
    pub clauses: Vec<Clause>,
    /// Conditions the author wrote that this layer has no facts for (`methods`, `paths`, …), by name.
    ///
    /// In a DENY rule they count as agreeing, so that the rule refuses more than was written, never less; an
    /// ALLOW rule with any of them never matches.
    pub unevaluable: Vec<Str>,
}

/// Any of these matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Clause {
    /// The matches.
    pub matches: Vec<Match>,
}

/// Attributes that must all agree; an attribute with both lists empty is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// Namespace of the peer's identity.
    pub namespaces: Values<StringMatch>,
    /// The peer's identity without `spiffe://`.
    pub principals: Values<StringMatch>,
    /// The peer's service account, whatever its trust domain.
    pub service_accounts: Values<ServiceAccount>,
    /// The peer's address.
    pub source_ips: Values<IpNet>,
    /// The address connected to.
    pub destination_ips: Values<IpNet>,
    /// The final port connected to.
    pub destination_ports: Values<u16>,
}

/// Values of one attribute: one of `any` (if not empty) and none of `none`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Values<T> {
    /// Positive list.
    pub any: Vec<T>,
    /// Negated list.
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Whether the attribute is not compared at all.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// How a text is compared. Case-sensitive; dots and stars inside are literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// Equal.
    Exact(Str),
    /// Begins with.
    Prefix(Str),
    /// Ends with.
    Suffix(Str),
    /// Is not empty.
    Presence,
}

/// A service account of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}
