//! Whether the facts of a connection agree with a rule: the only place where conditions are compared.
//!
//! Compares without building strings. A recorder hears of every comparison; the one that ignores them all compiles
//! to nothing and lets the evaluation stop at the first answer.

use std::fmt;
use std::net::IpAddr;

use ambit_types::Identity;
use ipnet::IpNet;

use crate::decide::Facts;
use crate::model::{Action, Clause, Match, Policy, Rule, ServiceAccount, StringMatch, Values};
use crate::trace::{Condition, Recorder, Unrecorded};

/// Something a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// Namespace of the peer's identity.
    Namespace,
    /// The peer's identity without `spiffe://`.
    Principal,
    /// The peer's namespace and service account, whatever its trust domain.
    ServiceAccount,
    /// The peer's address.
    SourceIp,
    /// The address connected to.
    DestinationIp,
    /// The port connected to.
    DestinationPort,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "namespace",
            Self::Principal => "principal",
            Self::ServiceAccount => "service account",
            Self::SourceIp => "source address",
            Self::DestinationIp => "destination address",
            Self::DestinationPort => "destination port",
        })
    }
}

/// The first rule of the policy that agrees with the facts.
pub(crate) fn matching_rule<R: Recorder<Attribute, Action>>(
    policy: &Policy,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> Option<usize> {
    recorder.policy(&policy.key, &policy.action, policy.dry_run);
    let mut found = None;
    for (index, rule) in policy.rules.iter().enumerate() {
        recorder.rule(&rule.unevaluable);
        let agrees = agrees_with_anybody(policy.action, rule, facts, recorder);
        recorder.rule_end(agrees);
        if agrees && found.is_none() {
            found = Some(index);
        }
        if found.is_some() && !R::THOROUGH {
            break;
        }
    }
    found
}

/// One reading of a rule: whose connection it is taken for.
#[derive(Clone, Copy)]
struct Reading<'f> {
    facts: &'f Facts<'f>,
    /// Whom conditions on the peer are compared with.
    subject: Option<&'f Identity>,
    /// Whom negated conditions must spare as well.
    beside: Option<&'f Identity>,
    /// The peer, where the subject is its client and the rule refuses.
    carrier: Option<&'f Identity>,
}

impl<'f> Reading<'f> {
    /// For the peer itself.
    fn of_peer(action: Action, facts: &'f Facts<'f>) -> Self {
        let beside = match action {
            Action::Allow => facts.client(),
            Action::Deny => None,
        };
        Self { facts, subject: facts.peer(), beside, carrier: None }
    }

    /// For whom the peer calls.
    fn of_client(action: Action, facts: &'f Facts<'f>, client: &'f Identity) -> Self {
        let (beside, carrier) = match action {
            Action::Allow => (facts.peer(), None),
            Action::Deny => (None, facts.peer()),
        };
        Self { facts, subject: Some(client), beside, carrier }
    }
}

/// Whether the rule agrees with the peer, or with whom it calls for. What is recorded is the reading that agrees, or
/// else the client's.
fn agrees_with_anybody<R: Recorder<Attribute, Action>>(
    action: Action,
    rule: &Rule,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> bool {
    let of_peer = Reading::of_peer(action, facts);
    let Some(client) = facts.client() else { return rule_agrees(action, rule, of_peer, recorder) };
    let of_client = Reading::of_client(action, facts, client);
    let agrees = |reading| rule_agrees(action, rule, reading, &mut Unrecorded);
    let told = if !agrees(of_client) && agrees(of_peer) { of_peer } else { of_client };
    rule_agrees(action, rule, told, recorder)
}

fn rule_agrees<R: Recorder<Attribute, Action>>(
    action: Action,
    rule: &Rule,
    reading: Reading<'_>,
    recorder: &mut R,
) -> bool {
    // Conditions that nobody here can evaluate agree where that refuses, and disagree where that permits.
    let evaluable = match action {
        Action::Deny => true,
        Action::Allow => rule.unevaluable.is_empty(),
    };
    let mut agrees = evaluable;
    for clause in &rule.clauses {
        if !agrees && !R::THOROUGH {
            return false;
        }
        agrees &= clause_agrees(clause, reading, recorder);
    }
    agrees
}

fn clause_agrees<R: Recorder<Attribute, Action>>(
    clause: &Clause,
    reading: Reading<'_>,
    recorder: &mut R,
) -> bool {
    recorder.clause();
    let mut agrees = clause.matches.is_empty();
    for one in &clause.matches {
        if agrees && !R::THOROUGH {
            return true;
        }
        recorder.alternative();
        agrees |= match_agrees(one, reading, recorder);
    }
    agrees
}

fn match_agrees<R: Recorder<Attribute, Action>>(one: &Match, reading: Reading<'_>, recorder: &mut R) -> bool {
    use Attribute as A;
    if names_nothing(one) || reading.carrier.is_some_and(|carrier| spares(one, carrier)) {
        return false;
    }
    let facts = reading.facts;
    let mut all = Conjunction { holds: true, reading, recorder };
    all.attribute(A::Namespace, &one.namespaces, |m, who| {
        text_agrees(m, who.map_or("", |identity| identity.namespace()))
    });
    all.attribute(A::Principal, &one.principals, |m, who| who.is_some_and(|p| principal_agrees(m, p)));
    all.attribute(A::ServiceAccount, &one.service_accounts, |s, who| who.is_some_and(|p| is_account(s, p)));
    all.attribute(A::SourceIp, &one.source_ips, |range, _| contains(range, facts.source()));
    all.attribute(A::DestinationIp, &one.destination_ips, |range, _| contains(range, facts.destination()));
    all.attribute(A::DestinationPort, &one.destination_ports, |port, _| *port == facts.port());
    all.holds
}

/// Whether a match of a DENY excepts exactly this identity: who writes "all but the waypoint" means who connects, and
/// not for whom it does.
fn spares(one: &Match, carrier: &Identity) -> bool {
    let exactly = |m: &StringMatch| match m {
        StringMatch::Exact(_) => principal_agrees(m, carrier),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => false,
    };
    one.principals.none.iter().any(exactly)
        || one.service_accounts.none.iter().any(|account| is_account(account, carrier))
}

fn is_account(account: &ServiceAccount, identity: &Identity) -> bool {
    *identity.namespace() == account.namespace && *identity.service_account() == account.name
}

fn names_nothing(one: &Match) -> bool {
    one.namespaces.is_empty()
        && one.principals.is_empty()
        && one.service_accounts.is_empty()
        && one.source_ips.is_empty()
        && one.destination_ips.is_empty()
        && one.destination_ports.is_empty()
}

/// The attributes of one match, all of which have to agree.
struct Conjunction<'r, 'f, R> {
    holds: bool,
    reading: Reading<'f>,
    recorder: &'r mut R,
}

impl<R: Recorder<Attribute, Action>> Conjunction<'_, '_, R> {
    fn attribute<T: fmt::Display>(
        &mut self,
        attribute: Attribute,
        values: &Values<T>,
        agrees: impl Fn(&T, Option<&Identity>) -> bool,
    ) {
        if !self.holds && !R::THOROUGH {
            return;
        }
        let Reading { subject, beside, .. } = self.reading;
        let any = |list: &[T], who| list.iter().any(|value| agrees(value, who));
        if !values.any.is_empty() {
            let holds = any(&values.any, subject);
            self.note(attribute, false, holds, &values.any);
        }
        if !values.none.is_empty() {
            let shuts_out = any(&values.none, subject) || (beside.is_some() && any(&values.none, beside));
            let holds = !shuts_out;
            self.note(attribute, true, holds, &values.none);
        }
    }

    fn note<T: fmt::Display>(&mut self, attribute: Attribute, negated: bool, holds: bool, values: &[T]) {
        self.holds &= holds;
        let reading = self.reading;
        self.recorder.condition(|| Condition {
            attribute,
            negated,
            values: values.iter().map(T::to_string).collect(),
            found: found(reading, attribute),
            holds,
        });
    }
}

/// What the connection has to compare.
fn found(reading: Reading<'_>, attribute: Attribute) -> Option<String> {
    let Reading { facts, subject, .. } = reading;
    match attribute {
        Attribute::Namespace => subject.map(|p| p.namespace().to_string()),
        Attribute::Principal => subject.map(Identity::principal),
        Attribute::ServiceAccount => subject.map(|p| format!("{}/{}", p.namespace(), p.service_account())),
        Attribute::SourceIp => Some(facts.source().to_string()),
        Attribute::DestinationIp => Some(facts.destination().to_string()),
        Attribute::DestinationPort => Some(facts.port().to_string()),
    }
}

fn contains(range: &IpNet, address: IpAddr) -> bool {
    range.contains(&address)
}

fn text_agrees(wanted: &StringMatch, text: &str) -> bool {
    match wanted {
        StringMatch::Exact(exact) => **exact == *text,
        StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
        StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
        StringMatch::Presence => !text.is_empty(),
    }
}

/// Compares `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT` piece by piece, so that nothing is formatted per connection.
pub(crate) fn principal_agrees(wanted: &StringMatch, peer: &Identity) -> bool {
    pieces_agree(
        wanted,
        &[peer.trust_domain().as_str(), "/ns/", peer.namespace(), "/sa/", peer.service_account()],
    )
}

/// Compares with a text that lies in pieces and is not empty.
pub(crate) fn pieces_agree(wanted: &StringMatch, pieces: &[&str]) -> bool {
    match wanted {
        StringMatch::Exact(exact) => strip_all(exact, pieces) == Some(""),
        StringMatch::Prefix(prefix) => begins_with(pieces, prefix),
        StringMatch::Suffix(suffix) => ends_with(pieces, suffix),
        StringMatch::Presence => true,
    }
}

fn strip_all<'t>(text: &'t str, pieces: &[&str]) -> Option<&'t str> {
    pieces.iter().try_fold(text, |rest, piece| rest.strip_prefix(*piece))
}

fn begins_with(pieces: &[&str], prefix: &str) -> bool {
    let mut rest = prefix.as_bytes();
    for piece in pieces {
        let shared = rest.len().min(piece.len());
        if rest[..shared] != piece.as_bytes()[..shared] {
            return false;
        }
        rest = &rest[shared..];
    }
    rest.is_empty()
}

fn ends_with(pieces: &[&str], suffix: &str) -> bool {
    let mut rest = suffix.as_bytes();
    for piece in pieces.iter().rev() {
        let shared = rest.len().min(piece.len());
        if rest[rest.len() - shared..] != piece.as_bytes()[piece.len() - shared..] {
            return false;
        }
        rest = &rest[..rest.len() - shared];
    }
    rest.is_empty()
}

impl fmt::Display for StringMatch {
    /// As people write it: `x`, `x*`, `*x`, `*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Presence => f.write_str("*"),
        }
    }
}

impl fmt::Display for ServiceAccount {
    /// `NAMESPACE/NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
