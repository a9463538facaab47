//! What a change would do to connections that were seen: each one decided before and after, and told where the
//! answers differ.
//!
//! It goes the way of [`crate::explain()`] in two views and compares; it decides nothing. A connection that was seen
//! several times is one row. The second leg of a connection, from a waypoint on its client's behalf, is part of the first
//! one's way. What nobody can be asked about any more is counted as unclear, never passed over. What is decided by what
//! no record keeps, such as a header, is told as unclear with the reason: never as a change, and never as none. Where
//! it is certain to be refused afterwards, that it was let in is in the record, and it is told as a change.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::PolicyKey;
use serde::Serialize;

use crate::unkept::Unkept;
use crate::walk::walk_again;
use crate::{Code, Explanation, Flow, Question, Routed, Verdict, View, Way};

mod present;
#[cfg(test)]
mod tests;

use present::Present;

/// Connections that would end otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Who calls.
    pub source: String,
    /// Its identity, where it was proven.
    pub identity: Option<String>,
    /// Whom, as it was dialled.
    pub destination: String,
    /// The service that was meant, if one was.
    pub service: Option<String>,
    /// The host that a request named.
    pub authority: Option<String>,
    /// Method and path, of a request.
    pub request: Option<String>,
    /// What is decided now.
    pub before: Told,
    /// What would be decided.
    pub after: Told,
    /// How many connections were seen.
    pub connections: u64,
    /// When the last one ended, RFC 3339.
    pub last_seen: String,
    /// Id of one of them, the last if it has one; none if only their number is known.
    pub conn_id: Option<String>,
}

/// Connections of which it cannot be told whether they would end otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unclear {
    /// Who calls.
    pub source: String,
    /// Its identity, where it was proven.
    pub identity: Option<String>,
    /// Whom, as it was dialled.
    pub destination: String,
    /// The service that was meant, if one was.
    pub service: Option<String>,
    /// The host that a request named.
    pub authority: Option<String>,
    /// Method and path, of a request.
    pub request: Option<String>,
    /// Why it cannot be told, in a sentence.
    pub why: String,
    /// How many connections were seen.
    pub connections: u64,
    /// When the last one ended, RFC 3339.
    pub last_seen: String,
    /// Id of one of them, the last if it has one; none if only their number is known.
    pub conn_id: Option<String>,
}

/// A decision, as far as changes of it matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Yes or no.
    pub verdict: Verdict,
    /// The code, if there is one.
    pub code: Option<Code>,
    /// The policy that decided.
    #[serde(serialize_with = "policy")]
    pub policy: Option<PolicyKey>,
    /// How it is carried.
    pub way: Option<Way>,
    /// The route and its backend.
    pub route: Option<String>,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Connections that would end otherwise: those that would be refused first, then the most frequent.
    pub changes: Vec<Change>,
    /// Connections that are decided by what was not recorded, or otherwise than the rules in force say: the most
    /// frequent first.
    pub unclear_flows: Vec<Unclear>,
    /// How many different connections were compared.
    pub compared: usize,
    /// Records that say too little to be asked again, or of whose pods nobody is there to be asked about.
    pub unclear: usize,
}

/// Decides everything that was seen by both views and tells what differs.
pub fn diff(before: &View<'_>, after: &View<'_>, flows: &[Flow]) -> Diff {
    let (rows, unclear) = rows(&Present::of(before.snapshot), flows);
    let compared = rows.len();
    let (mut changes, mut unclear_flows) = (Vec::new(), Vec::new());
    for row in rows.into_values() {
        match row.compare(before, after) {
            Compared::Same => {}
            Compared::Changed(change) => changes.push(*change),
            Compared::Unclear(flow) => unclear_flows.push(*flow),
        }
    }
    changes.sort_by_cached_key(|change| {
        let is_refusal = change.after.verdict == Verdict::Deny && change.before.verdict == Verdict::Allow;
        (!is_refusal, u64::MAX - change.connections, change.source.clone(), change.destination.clone())
    });
    unclear_flows.sort_by_cached_key(|flow| {
        (u64::MAX - flow.connections, flow.source.clone(), flow.destination.clone())
    });
    Diff { changes, unclear_flows, compared, unclear }
}

/// What came of one row.
enum Compared {
    Same,
    Changed(Box<Change>),
    Unclear(Box<Unclear>),
}

/// One connection that was seen, however often.
struct Row<'f> {
    /// The last record of it: the one of rules nearest to those in force.
    flow: &'f Flow,
    question: Question,
    ids: BTreeSet<&'f str>,
    /// Of records without an id of their own.
    more: u64,
}

/// What tells rows apart: everything that a decision may depend on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'f> {
    source: String,
    identity: &'f str,
    asked: &'f str,
    authority: &'f str,
    method: &'f str,
    path: &'f str,
}

/// Different connections, and how many records cannot be asked again.
fn rows<'f>(present: &Present<'_>, flows: &'f [Flow]) -> (BTreeMap<Key<'f>, Row<'f>>, usize) {
    let mut rows: BTreeMap<Key<'f>, Row<'f>> = BTreeMap::new();
    let mut unclear = 0;
    // Where the other end told of a connection too, that is the one which decided.
    let is_inbound = |flow: &&Flow| flow.direction.as_deref() == Some("inbound");
    let decided: BTreeSet<&str> = flows.iter().filter(is_inbound).map(|flow| flow.conn_id.as_str()).collect();
    for flow in flows.iter().filter(|flow| flow.client.is_none() && flow.path != "probe") {
        if !is_inbound(&flow) && !flow.conn_id.is_empty() && decided.contains(flow.conn_id.as_str()) {
            continue;
        }
        let Some(question) = present.question(flow) else {
            unclear += 1;
            continue;
        };
        let fresh = || Row { flow, question, ids: BTreeSet::new(), more: 0 };
        let row = rows.entry(key(flow)).or_insert_with(fresh);
        if flow.conn_id.is_empty() {
            row.more = row.more.saturating_add(flow.connections);
        } else {
            row.ids.insert(&flow.conn_id);
        }
        if flow.time >= row.flow.time {
            row.flow = flow;
        }
    }
    (rows, unclear)
}

fn key(flow: &Flow) -> Key<'_> {
    let http = flow.http.as_ref();
    let asked = flow.hbone_addr.as_deref().or(flow.dst.addr.as_deref()).unwrap_or_default();
    Key {
        source: source(flow),
        identity: flow.src.identity.as_deref().unwrap_or_default(),
        asked,
        authority: http.map_or("", |http| http.authority.as_str()),
        method: http.map_or("", |http| http.method.as_str()),
        path: http.map_or("", |http| http.path.as_str()),
    }
}

fn source(flow: &Flow) -> String {
    // Of a pair without an example of its pods the controller is told.
    match (&flow.src.namespace, flow.src.workload.as_ref().or(flow.src.controller.as_ref())) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => {
            let address = flow.src.addr.as_deref().unwrap_or_default();
            address.rsplit_once(':').map_or(address, |(ip, _)| ip).to_owned()
        }
    }
}

impl Row<'_> {
    fn compare(&self, before: &View<'_>, after: &View<'_>) -> Compared {
        let hidden = self.flow.hidden();
        let (before, then) = walk_again(before, &self.question, hidden);
        let (after, now) = walk_again(after, &self.question, hidden);
        let (mut before, after) = (Told::of(&before), Told::of(&after));
        // That it was let in is recorded, whatever it was let in by; that it would not be is certain.
        let is_recorded = now.is_refused_anyway && self.flow.told_by_rules() == Some(Verdict::Allow);
        if is_recorded && !then.read.is_empty() {
            before = before.let_in();
        }
        let is_same = before.is_like(&after);
        let unkept = Unkept::parts(&then, &now).filter(|_| !is_recorded);
        // Rules in force that let it in do so by what is assumed of what no record keeps: who was refused has not lost
        // anything by a change.
        let is_doubtful = is_same || before.verdict == Verdict::Allow;
        match unkept.or_else(|| self.otherwise(&before).filter(|_| is_doubtful)) {
            Some(why) => Compared::Unclear(Box::new(self.unclear(why))),
            None if is_same => Compared::Same,
            None => Compared::Changed(Box::new(self.change(before, after))),
        }
    }

    /// How what was seen is not what the rules in force say, if it is not.
    fn otherwise(&self, before: &Told) -> Option<String> {
        let seen = self.flow.told_by_rules().filter(|seen| *seen != before.verdict)?;
        let (was, is) = match seen {
            Verdict::Allow => ("let in", "refused"),
            Verdict::Deny => ("refused", "let in"),
        };
        Some(format!(
            "it was {was} and would be {is} by the rules in force: they have changed since, or decide by more \
                      than is recorded"
        ))
    }

    fn change(&self, before: Told, after: Told) -> Change {
        Change {
            source: source(self.flow),
            identity: self.flow.src.identity.clone(),
            destination: self.question.destination.to_string(),
            service: self.flow.service.clone(),
            authority: self.authority(),
            request: self.request(),
            before,
            after,
            connections: self.connections(),
            last_seen: self.flow.time.clone(),
            conn_id: self.example(),
        }
    }

    fn unclear(&self, why: String) -> Unclear {
        Unclear {
            source: source(self.flow),
            identity: self.flow.src.identity.clone(),
            destination: self.question.destination.to_string(),
            service: self.flow.service.clone(),
            authority: self.authority(),
            request: self.request(),
            why,
            connections: self.connections(),
            last_seen: self.flow.time.clone(),
            conn_id: self.example(),
        }
    }

    fn authority(&self) -> Option<String> {
        let http = self.flow.http.as_ref()?;
        Some(http.authority.clone()).filter(|host| !host.is_empty())
    }

    fn request(&self) -> Option<String> {
        self.flow.http.as_ref().map(|http| format!("{} {}", http.method, http.path))
    }

    fn example(&self) -> Option<String> {
        let last = Some(self.flow.conn_id.as_str()).filter(|id| !id.is_empty());
        last.or_else(|| self.ids.last().copied()).map(str::to_owned)
    }

    fn connections(&self) -> u64 {
        u64::try_from(self.ids.len()).unwrap_or(u64::MAX).saturating_add(self.more)
    }
}

impl Told {
    /// What an explanation comes to.
    pub fn of(explanation: &Explanation) -> Self {
        Self {
            verdict: explanation.verdict,
            code: explanation.reason,
            policy: explanation.decided_by.as_ref().map(|by| by.policy.clone()),
            way: explanation.way,
            route: explanation.route.as_ref().map(routed),
        }
    }

    /// The same let in, by nobody knows what: neither the policy nor the route is told.
    fn let_in(self) -> Self {
        Self { verdict: Verdict::Allow, code: None, policy: None, route: None, ..self }
    }

    /// Whether a user would notice no difference: the same verdict, carried the same way to the same place. Of two
    /// refusals, where they would have gone does not matter.
    fn is_like(&self, other: &Self) -> bool {
        match (self.verdict, other.verdict) {
            (Verdict::Allow, Verdict::Allow) => self.way == other.way && self.route == other.route,
            (Verdict::Deny, Verdict::Deny) => true,
            (Verdict::Allow, Verdict::Deny) | (Verdict::Deny, Verdict::Allow) => false,
        }
    }
}

impl std::fmt::Display for Told {
    /// `allow`, `AMB2104 policy-denied (shop/web)`, `allow by route shop/r rule 0 to shop/v2:80`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.verdict, self.code) {
            (Verdict::Deny, Some(code)) => write!(f, "{}", code.0)?,
            (verdict, _) => write!(f, "{verdict}")?,
        }
        if let Some(policy) = &self.policy {
            write!(f, " ({policy})")?;
        }
        match (self.verdict, self.way, &self.route) {
            (Verdict::Deny, _, _) | (Verdict::Allow, None, None) => Ok(()),
            (Verdict::Allow, Some(way), None) => write!(f, " {}", way.name()),
            (Verdict::Allow, _, Some(route)) => write!(f, " {route}"),
        }
    }
}

/// The route with every backend it may choose, so that two draws are no change.
fn routed(routed: &Routed) -> String {
    let mut backends: BTreeSet<&str> = routed.others.iter().map(String::as_str).collect();
    backends.extend(routed.backend.as_deref());
    let to = backends.into_iter().collect::<Vec<_>>().join(", ");
    let rule = routed.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
    match &routed.route {
        Some(route) => format!("by {route}{rule} to {to}"),
        None => format!("to {to}"),
    }
}

fn policy<S: serde::Serializer>(key: &Option<PolicyKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(key),
        None => serializer.serialize_none(),
    }
}
