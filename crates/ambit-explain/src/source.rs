//! The source's side: whether it is captured, and where ztunnel sends it.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_state::plan::outbound::{ByName, Hop};
use ambit_state::{OutboundFacts, OutboundPlan, Refusal, SameNode, plan_outbound};
use ambit_types::{Identity, Reason, TunnelProtocol, Workload};

use crate::explanation::{Outcome, Step, Way};
use crate::mesh::{self, Caller, name_of};
use crate::nearest;
use crate::walk::{Ground, Peer, Walk};

/// Whether the control plane knows the workload as one of the mesh, whose connections are captured.
pub(crate) fn is_captured(workload: &Workload) -> bool {
    workload.tunnel == TunnelProtocol::Hbone
}

impl Walk<'_> {
    /// A connection of a workload of the mesh.
    pub(crate) fn captured(&mut self, caller: &Caller, source: &Arc<Workload>, at: SocketAddr) {
        let identity = source.identity();
        let what = format!("{} is in the mesh as {identity}, on node {}", caller.name, dash(&source.node));
        self.note(Step::Capture, Outcome::Passed, what, Vec::new());
        let facts = OutboundFacts {
            source: Some(source),
            source_address: caller.address,
            destination: at,
            same_node: self.same_node(source),
            tried: &[],
            draw: self.question.draw,
        };
        let client = self.question.client.clone();
        let peer = || Peer { identity: identity.clone(), address: caller.address, client: client.clone() };
        match plan_outbound(self.view.snapshot, &facts) {
            OutboundPlan::Refuse(refusal) => self.unplanned(at, refusal),
            OutboundPlan::Passthrough { address } => {
                let what = format!("{address} is nothing that the mesh knows: passed through as it is");
                self.note(Step::Service, Outcome::Passed, what, Vec::new());
                self.way = Some(Way::Passthrough);
            }
            OutboundPlan::Plain(hop) => {
                self.chosen(at, &hop);
                self.note(
                    Step::Tunnel,
                    Outcome::Skipped,
                    "the destination is not in the mesh: plain TCP",
                    vec![],
                );
                self.way = Some(Way::Plaintext);
                self.end_at(&hop.workload);
            }
            OutboundPlan::Hbone(hop) => self.tunnelled(at, &hop, Way::Hbone, &peer()),
            OutboundPlan::Local(hop) => self.tunnelled(at, &hop, Way::Local, &peer()),
            OutboundPlan::Waypoint(via) => {
                let of =
                    via.service.as_ref().map_or_else(|| at.to_string(), |service| service.key().to_string());
                self.note(Step::Service, Outcome::Passed, format!("{at} is {of}"), Vec::new());
                let what = format!("{of} is reached through waypoint {}", name_of(&via.workload));
                self.note(Step::Waypoint, Outcome::Passed, what, Vec::new());
                self.way = Some(Way::Waypoint);
                let tunnel = format!("HBONE to {}, asking for {}", via.tunnel, via.authority);
                self.note(Step::Tunnel, Outcome::Passed, tunnel, Vec::new());
                self.network_policy(&via.workload);
                self.certificates([&identity, &via.workload.identity()]);
                self.through_waypoint(&via, &peer());
            }
            OutboundPlan::Resolve(by) => self.named(at, &by, &identity),
            OutboundPlan::Gateway(_) => {
                // As ztunnel says.
                let detail = "this proxy does not cross networks yet";
                self.unplanned(at, Refusal::new(Reason::UnknownDestination, detail));
            }
        }
    }

    /// A connection to a name that only a nameserver of outside knows: no address of the mesh comes of it.
    pub(crate) fn out_by_name(&mut self, caller: &Caller, host: &str, port: u16) {
        let captured = self.opens_tunnels(caller);
        let capture = match &captured {
            Some(_) => format!("{} is in the mesh", caller.name),
            None => format!("{} is not captured", caller.name),
        };
        let outcome = if captured.is_some() { Outcome::Passed } else { Outcome::Skipped };
        self.note(Step::Capture, outcome, capture, Vec::new());
        if let Some(egress) = captured.as_ref().and_then(|workload| workload.egress()) {
            if !egress.may_admit(port) {
                let decided_by = nearest::decided_by(Some(&egress.policy), None);
                let ground = Ground { decided_by, ..Ground::default() };
                let what = format!("{host}:{port}: no rule admits any address at port {port}");
                return self.refuse(Step::Service, Reason::EgressDenied, what, ground);
            }
            self.assume(format!("EgressPolicy {} admits what {host} resolves to", egress.policy));
        }
        self.assume(format!("{host} resolves to addresses that the mesh does not know"));
        let what = format!("{host} has no address in the mesh: passed through to where its name leads");
        self.note(Step::Service, Outcome::Passed, what, Vec::new());
        self.way = Some(Way::Passthrough);
    }

    /// What this node does with pods of its own. Another node's pod, or a waypoint, which opens tunnels by itself, comes
    /// to it through a tunnel whatever is set.
    fn same_node(&self, source: &Workload) -> SameNode {
        let is_captured_here =
            self.view.snapshot.is_own(source) && !source.native_tunnel && self.question.client.is_none();
        if is_captured_here { self.view.settings.same_node } else { SameNode::Hbone }
    }

    fn unplanned(&mut self, at: SocketAddr, refusal: Refusal) {
        let step = match refusal.reason {
            Reason::WaypointUnbound | Reason::WaypointBypassed => Step::Waypoint,
            _ => Step::Service,
        };
        let what = format!("{at}: {}", refusal.detail);
        let decided_by = nearest::decided_by(refusal.policy.as_ref(), None);
        self.refuse(step, refusal.reason, what, Ground { decided_by, ..Ground::default() });
    }

    fn chosen(&mut self, at: SocketAddr, hop: &Hop) {
        let workload = name_of(&hop.workload);
        let what = match &hop.service {
            Some(service) => format!(
                "{at} is {}; {workload} at {} is one of {} endpoints",
                service.key(),
                hop.address,
                hop.candidates
            ),
            None => format!("{at} is {workload} itself"),
        };
        self.note(Step::Service, Outcome::Passed, what, Vec::new());
        self.note(Step::Waypoint, Outcome::Skipped, "no waypoint serves what was addressed", Vec::new());
    }

    /// To a workload that has a name: what is there nobody knows before the name is resolved.
    fn named(&mut self, at: SocketAddr, by: &ByName, source: &Identity) {
        let (host, port, workload) = (&by.host, by.port, name_of(&by.workload));
        let of = by.service.as_ref().map_or_else(|| at.to_string(), |service| service.key().to_string());
        let what = format!(
            "{at} is {of}; {workload}, which is where {host} resolves to, port {port}, is one of {} endpoints",
            by.candidates
        );
        self.note(Step::Service, Outcome::Passed, what, Vec::new());
        self.note(Step::Waypoint, Outcome::Skipped, "no waypoint serves what was addressed", Vec::new());
        self.assume(format!(
            "the nameserver of the client's node resolves {host} to addresses that are reached"
        ));
        if is_captured(&by.workload) {
            let what = format!("HBONE to port 15008 of where {host} resolves to");
            self.note(Step::Tunnel, Outcome::Passed, what, Vec::new());
            self.certificates([source, &by.workload.identity()]);
            self.assume(format!("the policies of {workload} let the caller in"));
            self.depends_on([format!("where {host} resolves to")]);
            self.way = Some(Way::Hbone);
        } else {
            let what = "the destination is not in the mesh: plain TCP";
            self.note(Step::Tunnel, Outcome::Skipped, what, Vec::new());
            self.way = Some(Way::Plaintext);
        }
        self.end_at(&by.workload);
    }

    fn tunnelled(&mut self, at: SocketAddr, hop: &Hop, way: Way, peer: &Peer) {
        self.chosen(at, hop);
        self.way = Some(way);
        match way {
            Way::Local => {
                let what = "both pods are on this node: joined in the process, no TLS";
                self.note(Step::Tunnel, Outcome::Passed, what, Vec::new());
                self.note(Step::Certificate, Outcome::Skipped, "none is used within a node", Vec::new());
            }
            Way::Hbone | Way::Waypoint | Way::Plaintext | Way::Passthrough | Way::Probe => {
                let what = format!("HBONE to {}, asking for {}", hop.tunnel(), hop.address);
                self.note(Step::Tunnel, Outcome::Passed, what, Vec::new());
                self.network_policy(&hop.workload);
                self.certificates([&peer.identity, &hop.workload.identity()]);
            }
        }
        let service = hop.service.as_ref().map(|service| service.hostname.clone());
        self.arrive(&hop.workload, hop.address, peer, service.as_deref());
    }

    /// A NetworkPolicy is judged by the cluster's network, which nobody of the mesh asks.
    pub(crate) fn network_policy(&mut self, workload: &Workload) {
        if workload.settings.as_ref().is_some_and(|settings| settings.network_policy) {
            let name = name_of(workload);
            self.assume(format!("the NetworkPolicy that selects {name} admits TCP 15008 from the caller"));
        }
    }

    /// A connection of somebody who is not captured: it goes where the cluster's own network takes it.
    pub(crate) fn plain(&mut self, caller: &Caller, at: SocketAddr) {
        let what = match &caller.workload {
            Some(_) => format!("{} is not enrolled: its connections are not captured", caller.name),
            None => format!("{} is not in the mesh", caller.name),
        };
        self.note(Step::Capture, Outcome::Skipped, what, Vec::new());
        let network = caller.network();
        let snapshot = self.view.snapshot;
        let namespace = caller.workload.as_ref().map_or("", |workload| &workload.namespace);
        let (own, address) = match snapshot.workload_at(&network, at.ip()) {
            Some(own) => (own.clone(), at),
            None => match snapshot.service_at(&network, at.ip(), namespace) {
                Some(entry) => match mesh::endpoint(entry, &network, at.port(), self.question.draw) {
                    Some((own, address)) => (own.clone(), address),
                    None => {
                        let what = format!("{at} is {} without a ready endpoint", entry.service().key());
                        return self.refuse(
                            Step::Service,
                            Reason::NoHealthyEndpoint,
                            what,
                            Ground::default(),
                        );
                    }
                },
                None => {
                    let what = format!("{at} is nothing that the mesh knows");
                    self.note(Step::Service, Outcome::Skipped, what, Vec::new());
                    self.way = Some(Way::Passthrough);
                    return;
                }
            },
        };
        let what = format!("{at} is {} at {address}", name_of(&own));
        self.note(Step::Service, Outcome::Passed, what, Vec::new());
        self.way = Some(Way::Plaintext);
        self.end_at(&own);
        match is_captured(&own) {
            true => self.arrive_plain(&own, address, caller.address),
            false => self.note(Step::Tunnel, Outcome::Skipped, "neither end is in the mesh", Vec::new()),
        }
    }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
