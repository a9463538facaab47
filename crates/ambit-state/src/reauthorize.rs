//! Whether a peer may connect to a workload of this node, at accept and again whenever something changed.

use std::net::{IpAddr, SocketAddr};

use ambit_policy::{Decision, Explanation, Facts, PolicySet, decide};
use ambit_types::{Identity, Reason, Uid, Workload};

use crate::plan::bound::{Passage, passage};
use crate::plan::inbound::is_probe;
use crate::snapshot::{Own, Snapshot};

#[cfg(test)]
mod tests;

/// The policies that apply to any workload, as this snapshot has them.
pub fn applicable(snapshot: &Snapshot, workload: &Workload) -> PolicySet {
    snapshot.policies.applicable(workload)
}

/// Decides whether a connection to a workload of this node may proceed.
///
/// The workload is looked up anew, so that the verdict follows its latest policies; one that is not known refuses. What
/// came past a waypoint that it has to come through is refused (AMB3102), whatever policy says, and so is everything as
/// long as a service in front of the workload has not arrived (AMB2105).
pub fn authorize(snapshot: &Snapshot, workload: &Uid, facts: &Facts<'_>) -> Decision {
    match snapshot.own.by_uid.get(workload) {
        Some(own) => decide_for(snapshot, own, facts),
        None => Decision::refusal(Reason::WorkloadUnknown),
    }
}

/// Whether the peer's word on whose behalf it calls counts at a port of a workload of this node: it is a waypoint that
/// the port is reached through. Anybody else could say so of everybody.
///
/// None as long as a service in front of the workload has not arrived, which may have that waypoint.
pub fn speaks_for_others(snapshot: &Snapshot, workload: &Uid, peer: &Identity, port: u16) -> Option<bool> {
    let Some(own) = snapshot.own.by_uid.get(workload) else { return Some(false) };
    speaks_for_others_at(snapshot, &own.workload, peer, port)
}

/// The same at a port of any workload of the mesh.
pub fn speaks_for_others_at(
    snapshot: &Snapshot,
    workload: &Workload,
    peer: &Identity,
    port: u16,
) -> Option<bool> {
    match passage(snapshot, workload, Some(peer), port) {
        Passage::Waypoint => Some(true),
        Passage::Free | Passage::Bypassed => Some(false),
        Passage::Untold => None,
    }
}

fn decide_for(snapshot: &Snapshot, own: &Own, facts: &Facts<'_>) -> Decision {
    let passage = passage(snapshot, &own.workload, facts.peer(), facts.port());
    if let Some(reason) = refused_passage(passage) {
        return Decision::refusal(reason);
    }
    let decision = decide(&own.policies, facts);
    match stands_alone(passage, facts) {
        Some(alone) if decision.is_allow() => decide(&own.policies, &alone),
        Some(_) | None => decision,
    }
}

fn refused_passage(passage: Passage) -> Option<Reason> {
    match passage {
        Passage::Free | Passage::Waypoint => None,
        Passage::Bypassed => Some(Reason::WaypointBypassed),
        Passage::Untold => Some(Reason::PolicyUnresolved),
    }
}

/// The facts without the client, where the peer was a waypoint when it named one and is none any more: what the client
/// is allowed is no longer the peer's to use, what it is denied still is.
fn stands_alone<'f>(passage: Passage, facts: &Facts<'f>) -> Option<Facts<'f>> {
    let lapsed = facts.client().is_some() && passage != Passage::Waypoint;
    lapsed.then(|| facts.on_behalf_of(None))
}

/// Decides for any workload of the mesh and tells everything that was compared.
pub fn explain(snapshot: &Snapshot, workload: &Workload, facts: &Facts<'_>) -> Explanation {
    let policies = applicable(snapshot, workload);
    let passage = passage(snapshot, workload, facts.peer(), facts.port());
    let mut explanation = ambit_policy::explain(&policies, facts);
    if let Some(alone) = stands_alone(passage, facts)
        && explanation.decision.is_allow()
    {
        explanation = ambit_policy::explain(&policies, &alone);
    }
    if let Some(reason) = refused_passage(passage) {
        explanation.decision = Decision::refusal(reason);
        explanation.nearest = None;
        explanation.policies = Vec::new();
    }
    explanation
}

/// How a live connection was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// By policy.
    Policy,
    /// As a probe of the node.
    Probe,
}

/// A live inbound connection, as it has to be kept for later decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Name of the connection, given back with a verdict.
    pub id: u64,
    /// The workload it goes to.
    pub workload: Uid,
    /// That workload's identity when the connection was accepted.
    pub own: Identity,
    /// Proven identity of the peer; none for plaintext.
    pub peer: Option<Identity>,
    /// On whose behalf it says to call.
    pub client: Option<Identity>,
    /// Whether that was the word of a peer that [`speaks_for_others`] when the connection was accepted.
    pub believed: bool,
    /// Address of the peer.
    pub source: IpAddr,
    /// Address and final port of the application.
    pub destination: SocketAddr,
    /// How it was let in.
    pub admission: Admission,
}

impl Open {
    /// The facts that policy is asked about in a snapshot.
    ///
    /// The word of a waypoint that was not known to be one at accept counts from when it is: it may have heard of that
    /// before this node.
    pub fn facts(&self, snapshot: &Snapshot) -> Facts<'_> {
        let to = self.destination;
        let facts = Facts::new(self.peer.as_ref(), self.source, to.ip(), to.port());
        let (Some(peer), Some(client)) = (&self.peer, &self.client) else { return facts };
        let speaks = || speaks_for_others(snapshot, &self.workload, peer, to.port()) == Some(true);
        let counts = self.believed || speaks();
        if counts { facts.on_behalf_of(Some(client)) } else { facts }
    }
}

/// The live connections that may not go on, in the order given.
///
/// Decides with the workload's present policies, not with those at accept. A connection is also cut when its
/// workload has become somebody else (AMB2005). One whose workload is no longer known is left: the pod's own end
/// closes it, and nothing new is let in. Where the only fault is a policy that has not arrived (AMB2105), a caller
/// may allow a short grace: control planes announce a policy's name before the policy.
pub fn reauthorize<'c>(
    snapshot: &Snapshot,
    open: impl IntoIterator<Item = &'c Open>,
) -> Vec<(u64, Decision)> {
    open.into_iter().filter_map(|c| Some((c.id, verdict(snapshot, c)?))).collect()
}

/// The refusal of a live connection, if there is one.
fn verdict(snapshot: &Snapshot, open: &Open) -> Option<Decision> {
    let own = snapshot.own.by_uid.get(&open.workload)?;
    if own.workload.identity() != open.own {
        return Some(Decision::refusal(Reason::IdentityMismatch));
    }
    let probe = match open.admission {
        Admission::Policy => false,
        // That the source is the node's was settled at accept; whether the port is still declared was not.
        Admission::Probe => is_probe(&own.workload, open.source, open.destination.port(), true),
    };
    if probe {
        return None;
    }
    let decision = decide_for(snapshot, own, &open.facts(snapshot));
    (!decision.is_allow()).then_some(decision)
}
