//! Whether the facts of a request agree with a rule: the only place where L7 conditions are compared.
//!
//! Some facts have several readings: a header has lines and lists in them, a path may have `;parameters`, a host a
//! port. Where agreement refuses, any reading that agrees is enough; where it permits, every reading has to agree. So
//! an unclear request is never let through by a rule that saw only half of it.

use std::net::IpAddr;

use ambit_types::Identity;
use ipnet::IpNet;

use super::facts::{Facts, Request};
use super::model::{Action, Attribute, Clause, Condition, PathMatch, Policy, Rule, StringMatch, Values};
use super::text::{PortText, agrees as text_agrees, agrees_in_any_case, pair_agrees_in_any_case};
use crate::jwt::{Claim, Verified};
use crate::matcher::principal_agrees;
use crate::normalize::header::is_internal;
use crate::trace::{Recorder, Unrecorded};

mod partly;
mod told;

pub use partly::depends_on;

/// Where the agreement of a rule leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaning {
    /// To a refusal, a question or a mark: what is unclear agrees.
    Refuse,
    /// To a permit: what is unclear does not agree.
    Permit,
}

impl Action {
    pub(super) fn leaning(&self) -> Leaning {
        match self {
            Self::Allow => Leaning::Permit,
            Self::Deny | Self::Audit | Self::Custom(_) => Leaning::Refuse,
        }
    }
}

impl Leaning {
    fn refuses(self) -> bool {
        self == Self::Refuse
    }

    /// How values that must agree are compared.
    fn wanted(self) -> Reading {
        match self {
            Self::Refuse => Reading::Wide,
            Self::Permit => Reading::Narrow,
        }
    }

    /// How values that must not agree are compared: the other way round, as agreement is then undone.
    fn unwanted(self) -> Reading {
        match self {
            Self::Refuse => Reading::Narrow,
            Self::Permit => Reading::Wide,
        }
    }
}

/// Which readings of a fact have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Any; what cannot be read agrees.
    Wide,
    /// All; what cannot be read does not agree.
    Narrow,
}

/// The first rule of the policy that agrees with the facts.
pub(super) fn matching_rule<R: Recorder<Attribute, Action>>(
    policy: &Policy,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> Option<usize> {
    recorder.policy(&policy.key, &policy.action, policy.dry_run);
    let leaning = policy.action.leaning();
    let mut found = None;
    for (index, rule) in policy.rules.iter().enumerate() {
        recorder.rule(&rule.unevaluable);
        let agrees = rule_agrees(leaning, rule, facts, recorder);
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

/// Whether one rule of a policy agrees with the facts.
pub(super) fn agrees(policy: &Policy, rule: usize, facts: &Facts<'_>) -> bool {
    let leaning = policy.action.leaning();
    policy.rules.get(rule).is_some_and(|rule| rule_agrees(leaning, rule, facts, &mut Unrecorded))
}

/// Whether a rule was decided without all it asks for: unknown conditions, or HTTP ones on a connection.
pub(super) fn is_unevaluable(rule: &Rule, facts: &Facts<'_>) -> bool {
    let conditions = || rule.clauses.iter().flat_map(|c| c.alternatives.iter().flatten());
    !rule.unevaluable.is_empty()
        || (facts.request().is_none() && conditions().any(|c| c.attribute().needs_http()))
}

fn rule_agrees<R: Recorder<Attribute, Action>>(
    leaning: Leaning,
    rule: &Rule,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> bool {
    let mut agrees = leaning.refuses() || rule.unevaluable.is_empty();
    for clause in &rule.clauses {
        if !agrees && !R::THOROUGH {
            return false;
        }
        agrees &= clause_agrees(leaning, clause, facts, recorder);
    }
    agrees
}

fn clause_agrees<R: Recorder<Attribute, Action>>(
    leaning: Leaning,
    clause: &Clause,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> bool {
    recorder.clause();
    let mut agrees = clause.alternatives.is_empty() && leaning.refuses();
    for alternative in &clause.alternatives {
        if agrees && !R::THOROUGH {
            return true;
        }
        recorder.alternative();
        agrees |= alternative_agrees(leaning, alternative, facts, recorder);
    }
    agrees
}

fn alternative_agrees<R: Recorder<Attribute, Action>>(
    leaning: Leaning,
    conditions: &[Condition],
    facts: &Facts<'_>,
    recorder: &mut R,
) -> bool {
    let mut agrees = !conditions.is_empty() || leaning.refuses();
    for condition in conditions {
        if !agrees && !R::THOROUGH {
            return false;
        }
        let compared = compare(condition, facts, leaning);
        for (negated, holds) in [(false, compared.wanted), (true, compared.unwanted)] {
            let Some(holds) = holds else { continue };
            recorder.condition(|| told::condition(condition, negated, holds, facts));
        }
        agrees &= compared.holds(leaning);
    }
    agrees
}

/// What came of the two lists of a condition; nothing where a list is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compared {
    wanted: Option<bool>,
    unwanted: Option<bool>,
}

impl Compared {
    fn holds(self, leaning: Leaning) -> bool {
        match (self.wanted, self.unwanted) {
            (None, None) => leaning.refuses(),
            (wanted, unwanted) => wanted.unwrap_or(true) && unwanted.unwrap_or(true),
        }
    }
}

/// Compares both lists of a condition, each with the reading that its side asks for.
struct Comparison {
    leaning: Leaning,
}

impl Comparison {
    /// `agrees` says whether any value of a list agrees with the fact.
    fn lists<T>(&self, values: &Values<T>, agrees: impl Fn(&[T], Reading) -> bool) -> Compared {
        let wanted = !values.any.is_empty();
        let unwanted = !values.none.is_empty();
        Compared {
            wanted: wanted.then(|| agrees(&values.any, self.leaning.wanted())),
            unwanted: unwanted.then(|| !agrees(&values.none, self.leaning.unwanted())),
        }
    }

    /// For facts with one reading.
    fn each<T>(&self, values: &Values<T>, agrees: impl Fn(&T) -> bool) -> Compared {
        self.lists(values, |list, _| list.iter().any(&agrees))
    }

    /// For facts that are missing where there is no peer: none of the values agrees then.
    fn peer<T>(
        &self,
        values: &Values<T>,
        peer: Option<&Identity>,
        agrees: impl Fn(&T, &Identity) -> bool,
    ) -> Compared {
        self.each(values, |value| peer.is_some_and(|peer| agrees(value, peer)))
    }

    /// For facts this layer does not have: the condition is left out where it refuses, and spoils a permit.
    fn without<T>(&self, values: &Values<T>) -> Compared {
        let side = |list: &[T]| (!list.is_empty()).then(|| self.leaning.refuses());
        Compared { wanted: side(&values.any), unwanted: side(&values.none) }
    }

    /// For facts of a request.
    fn request<T>(
        &self,
        values: &Values<T>,
        request: Option<&Request<'_>>,
        agrees: impl Fn(&[T], Reading, &Request<'_>) -> bool,
    ) -> Compared {
        match request {
            Some(request) => self.lists(values, |list, reading| agrees(list, reading, request)),
            None => self.without(values),
        }
    }

    /// For facts of a token: none of the values agrees where there is none.
    fn token<T>(
        &self,
        values: &Values<T>,
        request: Option<&Request<'_>>,
        agrees: impl Fn(&T, Reading, &Verified) -> bool,
    ) -> Compared {
        self.request(values, request, |list, reading, request| {
            request.token.is_some_and(|token| list.iter().any(|value| agrees(value, reading, token)))
        })
    }
}

fn compare(condition: &Condition, facts: &Facts<'_>, leaning: Leaning) -> Compared {
    use Condition as C;
    let c = Comparison { leaning };
    let (peer, request, connection) = (facts.peer(), facts.request(), facts.connection());
    let within = |range: &IpNet, ip: IpAddr| range.contains(&ip);
    match condition {
        C::Principal(v) => c.peer(v, peer, principal_agrees),
        C::Namespace(v) => c.peer(v, peer, |glob, p| glob.agrees(p.namespace())),
        C::ServiceAccount(v) => {
            c.peer(v, peer, |a, p| a.namespace == *p.namespace() && a.name == *p.service_account())
        }
        C::TrustDomain(v) => c.peer(v, peer, |m, p| text_agrees(m, p.trust_domain().as_str().as_bytes())),
        C::SourceIp(v) => c.each(v, |range| within(range, connection.source())),
        C::RemoteIp(v) => c.lists(v, |ranges, reading| match facts.remote() {
            Some(ip) => ranges.iter().any(|range| within(range, ip)),
            None => reading == Reading::Wide,
        }),
        C::DestinationIp(v) => c.each(v, |range| within(range, connection.destination())),
        C::DestinationPort(v) => c.each(v, |port| *port == connection.port()),
        C::ServerName(v) => {
            c.each(v, |m| facts.server_name().is_some_and(|name| agrees_in_any_case(m, name.as_bytes())))
        }
        C::Host(v) => {
            c.request(v, request, |list, reading, r| list.iter().any(|m| host_agrees(m, facts, r, reading)))
        }
        C::Method(v) => c.request(v, request, |list, _, r| {
            list.iter().any(|m| text_agrees(m, r.target.method().as_bytes()))
        }),
        C::Path(v) => {
            c.request(v, request, |list, reading, r| list.iter().any(|m| path_agrees(m, r, reading)))
        }
        C::Header(name, v) => c.request(v, request, |list, reading, r| {
            !is_internal(name.as_str()) && header_agrees(list, r, name.as_str(), reading)
        }),
        C::RequestPrincipal(v) => c.token(v, request, |wanted, reading, token| {
            token.principal().is_some_and(|(issuer, subject)| {
                wanted.agrees(issuer, subject)
                    || (reading == Reading::Wide && wanted.agrees_joined(issuer, subject))
            })
        }),
        C::Audience(v) => c.token(v, request, |m, r, token| claim_agrees(m, token.claims().get("aud"), r)),
        C::Presenter(v) => c.token(v, request, |m, r, token| claim_agrees(m, token.claims().get("azp"), r)),
        C::Claim(path, v) => c.token(v, request, |m, r, token| claim_agrees(m, token.claims().at(path), r)),
    }
}

/// The host as it is, its port a part of it. Where it refuses, a value without port means every port, and a host
/// without port is at the port it was reached at.
fn host_agrees(wanted: &StringMatch, facts: &Facts<'_>, request: &Request<'_>, reading: Reading) -> bool {
    let authority = request.target.authority();
    let agrees = |text: &str| agrees_in_any_case(wanted, text.as_bytes());
    let at_its_port = || {
        let port = PortText::new(facts.connection().port());
        authority.port().is_none()
            && pair_agrees_in_any_case(wanted, authority.host().as_bytes(), port.behind_colon())
    };
    match reading {
        Reading::Narrow => agrees(authority.as_str()),
        Reading::Wide => agrees(authority.as_str()) || agrees(authority.host()) || at_its_port(),
    }
}

/// The path as it is, and as servers see it that ignore parameters, unless the value names some itself.
fn path_agrees(wanted: &PathMatch, request: &Request<'_>, reading: Reading) -> bool {
    let literal = wanted.agrees(request.target.path());
    let bare = request.target.bare_path().filter(|_| !wanted.names_parameters());
    match (bare, reading) {
        (None, _) => literal,
        (Some(bare), Reading::Wide) => literal || wanted.agrees(bare),
        (Some(bare), Reading::Narrow) => literal && wanted.agrees(bare),
    }
}

/// Each line by itself. Where it refuses, one line is enough, or one element of a comma-separated line.
fn header_agrees(list: &[StringMatch], request: &Request<'_>, name: &str, reading: Reading) -> bool {
    let (mut lines, mut agreeing) = (0usize, 0usize);
    let mut compare = |line: &[u8]| {
        let line = line.trim_ascii();
        let whole = list.iter().any(|wanted| line_agrees(wanted, line));
        let element = || {
            let mut elements = line.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            elements.any(|element| list.iter().any(|wanted| line_agrees(wanted, element)))
        };
        lines += 1;
        agreeing += usize::from(whole || (reading == Reading::Wide && element()));
    };
    each_line(request, name, &mut compare);
    match reading {
        Reading::Wide => agreeing > 0,
        Reading::Narrow => lines > 0 && agreeing == lines,
    }
}

/// Calls `line` with every line of a header. An extended CONNECT says in its head what an upgrade says in a header;
/// policies must not have to say both.
pub(super) fn each_line(request: &Request<'_>, name: &str, line: &mut dyn FnMut(&[u8])) {
    request.headers.each(name, line);
    if let Some(protocol) = request.target.protocol().filter(|_| name == "upgrade") {
        line(protocol.as_bytes());
    }
}

/// A header that is there agrees with `*` even if it is empty.
fn line_agrees(wanted: &StringMatch, line: &[u8]) -> bool {
    *wanted == StringMatch::Presence || text_agrees(wanted, line)
}

/// A string, or any string of a list. Where it refuses, numbers and booleans count as their text, and any value as
/// present.
fn claim_agrees(wanted: &StringMatch, claim: Option<&Claim>, reading: Reading) -> bool {
    let Some(claim) = claim else { return false };
    let text = |text: &str| text_agrees(wanted, text.as_bytes());
    if claim.texts().any(text) {
        return true;
    }
    let elements = claim_elements(claim);
    reading == Reading::Wide
        && (*wanted == StringMatch::Presence
            || elements.iter().any(|claim| claim.scalar().is_some_and(|scalar| text(&scalar))))
}

/// The elements of a list, or the claim itself.
pub(super) fn claim_elements(claim: &Claim) -> &[Claim] {
    match claim {
        Claim::List(list) => list,
        Claim::Null
        | Claim::Bool(_)
        | Claim::Integer(_)
        | Claim::Float(_)
        | Claim::Text(_)
        | Claim::Object(_) => std::slice::from_ref(claim),
    }
}
