//! One answer made of those of the programs on the way, each of which knows its own part.
//!
//! A ztunnel knows L4 policies and not what waypoints go by; a waypoint knows its own rules and no L4 policies. Nothing
//! is decided here: what each says of its part is put in order, and the first refusal is the verdict.

use crate::explanation::{Explanation, Hop, Outcome, Step, Verdict};

/// Joins what the source's ztunnel, the waypoint and the destination's ztunnel say of one way.
///
/// `node` is the first one's answer, `waypoint` that of the waypoint's instance to the same question, `destination`
/// that to the second leg ([`Explanation::onward`] of the waypoint's); without it the first one's word on the
/// destination counts.
#[must_use]
pub fn join(node: Explanation, waypoint: Explanation, destination: Option<Explanation>) -> Explanation {
    let is_at_waypoint = |hop: &Hop| hop.step == Step::WaypointPolicy && hop.outcome == Outcome::Unknown;
    let Some(cut) = node.hops.iter().position(is_at_waypoint) else { return node };
    let (first, behind) = (node.hops[..cut].to_vec(), node.hops[cut + 1..].to_vec());
    let middle = of_waypoint(&waypoint.hops);
    let last = destination.as_ref().map_or(behind, |leg| of_destination(&leg.hops));
    let is_refused = |hops: &[Hop]| hops.iter().any(|hop| hop.outcome == Outcome::Refused);
    let ends_at_waypoint = waypoint.onward.is_none() && is_refused(&middle);
    let decides = if is_refused(&first) {
        &node
    } else if is_refused(&middle) {
        &waypoint
    } else {
        destination.as_ref().unwrap_or(&node)
    };
    let verdict = decides.verdict;
    let fallback = (verdict == Verdict::Allow && decides.decided_by.is_none()).then_some(&waypoint);
    let source = fallback.unwrap_or(decides);
    let (decided_by, nearest) = (source.decided_by.clone(), source.nearest.clone());
    let (reason, status) = (decides.reason, waypoint.status.or(decides.status));
    let mut assumed = waypoint.assumed;
    assumed.extend(destination.into_iter().flat_map(|leg| leg.assumed));
    assumed.sort();
    assumed.dedup();
    let hops =
        first.into_iter().chain(middle).chain(last.into_iter().filter(|_| !ends_at_waypoint)).collect();
    Explanation {
        verdict,
        reason,
        decided_by,
        nearest,
        status: status.filter(|_| verdict == Verdict::Deny || waypoint.onward.is_none()),
        route: waypoint.route,
        endpoint: waypoint.endpoint.or(node.endpoint),
        endpoint_node: waypoint.endpoint_node.or(node.endpoint_node),
        source_node: node.source_node,
        hops,
        assumed,
        onward: waypoint.onward,
        source: node.source,
        destination: node.destination,
        request: node.request,
        way: node.way,
    }
}

/// What the waypoint says of itself: behind the tunnel to it, up to the one that it opens.
fn of_waypoint(hops: &[Hop]) -> Vec<Hop> {
    let tunnel = hops.iter().position(|hop| hop.step == Step::Tunnel).map_or(0, |at| at + 1);
    let behind = hops[tunnel..].iter().skip_while(|hop| hop.step == Step::Certificate);
    behind.take_while(|hop| hop.step != Step::Tunnel).cloned().collect()
}

/// What the destination's ztunnel says of the second leg: from its tunnel on.
fn of_destination(hops: &[Hop]) -> Vec<Hop> {
    hops.iter().skip_while(|hop| hop.step != Step::Tunnel).cloned().collect()
}
