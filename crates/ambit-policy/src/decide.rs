//! The verdict: which policy and rule decide whether a peer may connect.
//!
//! Order: a matching DENY refuses; a policy that has not arrived refuses; without ALLOW policies everything else
//! is allowed; with them one must match. Dry-run policies only say what they would have done.

use std::fmt;
use std::net::IpAddr;

use ambit_types::{Identity, PolicyKey, Reason};

use crate::PolicySet;
use crate::matcher::{Attribute, matching_rule};
use crate::model::{Action, Policy};
use crate::trace::{Recorder, Unrecorded};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// Name of the policy that stands for STRICT, in the root namespace.
pub const STATIC_STRICT: &str = "istio_converted_static_strict";

/// How the names of policies begin that stand for a PeerAuthentication with ports.
pub const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// Name of the policy by which somebody lets everybody in for a while. It is an ALLOW like others; of a connection that
/// no other one would have let in, the record says so (AMB2305).
pub const BREAKGLASS: &str = ambit_types::breakglass::NAME;

/// What a decision may know of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    peer: Option<&'a Identity>,
    client: Option<&'a Identity>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl<'a> Facts<'a> {
    /// Facts of one connection; IPv4-mapped addresses are unwrapped.
    ///
    /// `peer` comes from a verified certificate or from the namespace in which the connection was captured,
    /// `source` is the peer's address on the wire, `port` the final port of the application.
    pub fn new(peer: Option<&'a Identity>, source: IpAddr, destination: IpAddr, port: u16) -> Self {
        let (source, destination) = (source.to_canonical(), destination.to_canonical());
        Self { peer, client: None, source, destination, port }
    }

    /// The same for a peer that calls on behalf of `client`, whose word for that has been found good.
    ///
    /// Rules are read for both: DENY matches if it matches either; ALLOW may name either, and must shut out neither.
    #[must_use]
    pub fn on_behalf_of(self, client: Option<&'a Identity>) -> Self {
        Self { client, ..self }
    }

    /// On whose behalf the peer calls; none if it calls for itself.
    pub fn client(&self) -> Option<&'a Identity> {
        self.client
    }

    /// Proven identity of the peer; none for plaintext.
    pub fn peer(&self) -> Option<&'a Identity> {
        self.peer
    }

    /// The peer's address.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// The address connected to.
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The port connected to.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The connection may proceed.
    Allow,
    /// It must be refused or cut.
    Deny,
}

/// A verdict with what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that nobody reads allows"]
pub struct Decision {
    /// Yes or no.
    pub verdict: Verdict,
    /// Why, where there is something to say: every refusal, and plaintext that was let in.
    pub reason: Option<Reason>,
    /// The policy that decided, or the first one that is missing.
    pub policy: Option<PolicyKey>,
    /// Its rule that agreed, counted from 0.
    pub rule: Option<usize>,
    /// What dry-run policies would have done.
    pub dry_run: Vec<DryRun>,
}

/// What a dry-run policy would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// Its verdict.
    pub verdict: Verdict,
    /// The policy; none when several ALLOW policies would have refused because none of them matched.
    pub policy: Option<PolicyKey>,
    /// Its rule that agreed.
    pub rule: Option<usize>,
}

impl Decision {
    /// Whether the connection may proceed.
    pub fn is_allow(&self) -> bool {
        match self.verdict {
            Verdict::Allow => true,
            Verdict::Deny => false,
        }
    }

    /// A refusal for a reason outside policy, such as a workload that is not known.
    pub fn refusal(reason: Reason) -> Self {
        Self { verdict: Verdict::Deny, reason: Some(reason), policy: None, rule: None, dry_run: Vec::new() }
    }
}

impl fmt::Display for Decision {
    /// `allow by shop/web rule 0`, `AMB2103 deny-rule-matched by shop/lock rule 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.verdict, self.reason) {
            (Verdict::Allow, None) => f.write_str("allow")?,
            (Verdict::Allow, Some(reason)) => write!(f, "allow {reason}")?,
            (Verdict::Deny, None) => f.write_str("deny")?,
            (Verdict::Deny, Some(reason)) => write!(f, "{reason}")?,
        }
        if let Some(policy) = &self.policy {
            write!(f, " by {policy}")?;
        }
        self.rule.map_or(Ok(()), |rule| write!(f, " rule {rule}"))
    }
}

/// Decides whether a connection with these facts may proceed. Allocates only if a dry-run policy has something to
/// say.
pub fn decide(set: &PolicySet, facts: &Facts<'_>) -> Decision {
    evaluate(set, facts, &mut Unrecorded)
}

/// The one evaluation behind [`decide`] and [`crate::explain()`].
pub(crate) fn evaluate<R: Recorder<Attribute, Action>>(
    set: &PolicySet,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> Decision {
    let mut dry_run = Vec::new();
    for policy in &set.dry_run_deny {
        if let Some(rule) = matching_rule(policy, facts, recorder) {
            dry_run.push(DryRun {
                verdict: Verdict::Deny,
                policy: Some(policy.key.clone()),
                rule: Some(rule),
            });
        }
    }
    let denied = first_match(&set.deny, facts, recorder);
    let mut decision = match denied {
        Some((policy, rule)) => deny(policy, rule, facts),
        None => Decision {
            verdict: Verdict::Allow,
            reason: facts.peer.is_none().then_some(Reason::PlaintextAccepted),
            policy: None,
            rule: None,
            dry_run: Vec::new(),
        },
    };
    if denied.is_none() || R::THOROUGH {
        dry_run_allow(set, facts, recorder, denied.is_none(), &mut dry_run);
        let allowed = first_match(&set.allow, facts, recorder);
        if denied.is_none() {
            permit(set, allowed, &mut decision);
        }
    }
    decision.dry_run = dry_run;
    decision
}

/// Settles a decision that no DENY has taken.
fn permit(set: &PolicySet, allowed: Option<(&Policy, usize)>, decision: &mut Decision) {
    if let Some(missing) = set.unresolved.first() {
        *decision = Decision::refusal(Reason::PolicyUnresolved);
        decision.policy = Some(missing.clone());
    } else if let Some((policy, rule)) = allowed {
        decision.policy = Some(policy.key.clone());
        decision.rule = Some(rule);
        // Such policies come last, so that no other one agreed.
        if policy.is_pass() && set.allow.iter().any(|other| !other.is_pass()) {
            decision.reason = Some(Reason::BreakglassAdmitted);
        }
    } else if !set.allow.is_empty() {
        *decision = Decision::refusal(Reason::PolicyDenied);
    }
}

fn first_match<'p, R: Recorder<Attribute, Action>>(
    policies: &'p [std::sync::Arc<Policy>],
    facts: &Facts<'_>,
    recorder: &mut R,
) -> Option<(&'p Policy, usize)> {
    let mut found = None;
    for policy in policies {
        let rule = matching_rule(policy, facts, recorder);
        found = found.or_else(|| rule.map(|rule| (&**policy, rule)));
        if found.is_some() && !R::THOROUGH {
            break;
        }
    }
    found
}

fn deny(policy: &Policy, rule: usize, facts: &Facts<'_>) -> Decision {
    let unevaluable = policy.rules.get(rule).is_some_and(|r| !r.unevaluable.is_empty());
    let reason = if facts.peer.is_none() && is_converted(&policy.key) {
        Reason::PlaintextRefused
    } else if unevaluable {
        Reason::PolicyUnevaluable
    } else {
        Reason::DenyRuleMatched
    };
    let mut decision = Decision::refusal(reason);
    decision.policy = Some(policy.key.clone());
    decision.rule = Some(rule);
    decision
}

/// Whether the port that these facts name asks for mutual TLS (STRICT): a policy that stands for a PeerAuthentication
/// would refuse them without an identity. What other policies say does not matter.
pub fn is_strict(set: &PolicySet, facts: &Facts<'_>) -> bool {
    let without_identity = Facts { peer: None, client: None, ..*facts };
    let mut converted = set.deny.iter().filter(|policy| is_converted(&policy.key));
    converted.any(|policy| matching_rule(policy, &without_identity, &mut Unrecorded).is_some())
}

/// Whether a policy stands for a PeerAuthentication. Underscores keep such names apart from any a person can give.
fn is_converted(key: &PolicyKey) -> bool {
    &*key.name == STATIC_STRICT || key.name.starts_with(CONVERTED_PREFIX)
}

fn dry_run_allow<R: Recorder<Attribute, Action>>(
    set: &PolicySet,
    facts: &Facts<'_>,
    recorder: &mut R,
    reached: bool,
    told: &mut Vec<DryRun>,
) {
    let mut matched = false;
    for policy in &set.dry_run_allow {
        let Some(rule) = matching_rule(policy, facts, recorder) else { continue };
        matched = true;
        if reached {
            let policy = Some(policy.key.clone());
            told.push(DryRun { verdict: Verdict::Allow, policy, rule: Some(rule) });
        }
    }
    if reached && !matched && !set.dry_run_allow.is_empty() && set.allow.is_empty() {
        told.push(DryRun { verdict: Verdict::Deny, policy: None, rule: None });
    }
}
