//! Whether a peer may connect to a workload of this node, at accept and again whenever something changed.

use std::net::{IpAddr, SocketAddr};

use ambit_policy::{Decision, Explanation, Facts, PolicySet, decide};
use ambit_types::{Identity, Reason, Uid, Workload};

use crate::plan::bound::is_bypassed;
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
/// came past a waypoint that it has to come through is refused (AMB3102), whatever policy says.
pub fn authorize(snapshot: &Snapshot, workload: &Uid, facts: &Facts<'_>) -> Decision {
    match snapshot.own.by_uid.get(workload) {
        Some(own) => decide_for(snapshot, own, facts),
        None => Decision::refusal(Reason::WorkloadUnknown),
    }
}

fn decide_for(snapshot: &Snapshot, own: &Own, facts: &Facts<'_>) -> Decision {
    if is_bypassed(snapshot, &own.workload, facts.peer(), facts.port()) {
        return Decision::refusal(Reason::WaypointBypassed);
    }
    decide(&own.policies, facts)
}

/// Decides for any workload of the mesh and tells everything that was compared.
pub fn explain(snapshot: &Snapshot, workload: &Workload, facts: &Facts<'_>) -> Explanation {
    let mut explanation = ambit_policy::explain(&applicable(snapshot, workload), facts);
    if is_bypassed(snapshot, workload, facts.peer(), facts.port()) {
        explanation.decision = Decision::refusal(Reason::WaypointBypassed);
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
    /// Address of the peer.
    pub source: IpAddr,
    /// Address and final port of the application.
    pub destination: SocketAddr,
    /// How it was let in.
    pub admission: Admission,
}

impl Open {
    /// The facts that policy is asked about.
    pub fn facts(&self) -> Facts<'_> {
        Facts::new(self.peer.as_ref(), self.source, self.destination.ip(), self.destination.port())
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
    let decision = decide_for(snapshot, own, &open.facts());
    (!decision.is_allow()).then_some(decision)
}
