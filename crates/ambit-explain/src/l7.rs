//! The waypoint's side: whom it serves, its policies, its routes, and the way on from there.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_policy::normalize::{Target as Read, normalize};
use ambit_policy::{Facts, http};
use ambit_route::model::Target as To;
use ambit_route::{Answer, Failure, Plan, Selected, Side, split_target};
use ambit_state::plan::outbound::ViaWaypoint;
use ambit_state::waypoint::{Applied, Governing, Reading, State, Target, admit, reading};
use ambit_state::{Authority, ServiceEntry};
use ambit_types::{Identity, Reason, TunnelProtocol, Workload};

mod request;

use crate::explanation::{Onward, Outcome, Routed, Step};
use crate::mesh::{self, name_of};
use crate::nearest;
use crate::question::HttpQuestion;
use crate::walk::{Ground, Peer, Walk};
use request::Asked;

/// A call at a waypoint.
pub(crate) struct AtWaypoint<'s> {
    state: &'s State,
    target: Target,
    governing: Governing<'s>,
    peer: &'s Peer,
}

/// Where a waypoint sends what it was called for.
enum Sent {
    /// To the endpoints of a port of a service.
    Service(ambit_types::ServiceKey, u16),
    /// To the workload that was addressed.
    Workload(Arc<Workload>, SocketAddr),
}

impl Walk<'_> {
    /// A stream of a tunnel to a waypoint.
    pub(crate) fn through_waypoint(&mut self, via: &ViaWaypoint, peer: &Peer) {
        let Some(state) = self.view.waypoints.get(&via.workload.uid) else {
            return self.through_unknown(via, peer);
        };
        let client = peer.identity.namespace();
        let admitted = admit(state, &Authority::Address(via.authority), client);
        let target = match admitted {
            Ok(target) => target,
            Err(refused) => {
                return self.refuse(Step::Admission, refused.reason, refused.what, Ground::default());
            }
        };
        let Some(governing) = state.governing(&target) else {
            let what = "neither the service nor the workload is bound to it";
            let ground = Ground { status: Some(421), ..Ground::default() };
            return self.refuse(Step::Admission, Reason::WaypointNotServing, what, ground);
        };
        let read_as = reading(state, &target, client);
        let at = AtWaypoint { state, target, governing, peer };
        let question = self.question.http.as_ref();
        match (read_as, question) {
            (Reading::Http | Reading::Unknown, Some(asked)) => self.request(&at, asked),
            (Reading::Http, None) => {
                self.assume("the request is GET / without headers: give a method and a path");
                self.request(&at, &HttpQuestion::default());
            }
            (Reading::Unknown | Reading::Tls | Reading::Stream, _) => {
                if question.is_some() {
                    let what = "the port is not read as HTTP: the request is carried unread".to_owned();
                    self.note(Step::Admission, Outcome::Passed, what, Vec::new());
                }
                self.connection(&at);
            }
        }
    }

    /// What the waypoint would say is not known; what comes behind it is.
    fn through_unknown(&mut self, via: &ViaWaypoint, peer: &Peer) {
        let name = name_of(&via.workload);
        let what = format!("what waypoint {name} goes by is not known here");
        self.depends_on([format!("what waypoint {name} goes by")]);
        self.note(Step::WaypointPolicy, Outcome::Unknown, what, Vec::new());
        self.assume(format!("waypoint {name} allows it and sends it to the service's own endpoints"));
        let network = &via.workload.network;
        let snapshot = self.view.snapshot;
        match &via.service {
            Some(service) => {
                let entry = snapshot.service(&service.key());
                let chosen =
                    entry.and_then(|entry| self.endpoint_of(entry, via.authority.port(), &via.workload));
                if let Some((workload, address)) = chosen {
                    self.connect_workload(&workload, address, &via.workload, &peer.identity);
                }
            }
            None => {
                if let Some(workload) = snapshot.workload_at(network, via.authority.ip()) {
                    self.connect_workload(workload, via.authority, &via.workload, &peer.identity);
                }
            }
        }
    }

    /// A connection that is passed through unread.
    fn connection(&mut self, at: &AtWaypoint<'_>) {
        let address = at.target.address();
        for (applied, port) in at.governing.judged() {
            let connection = Facts::new(Some(&at.peer.identity), at.peer.address, address.ip(), port);
            let facts = http::Facts::of_connection(connection, None);
            self.policies_read(applied, &facts);
            let evaluated = http::explain(&applied.policies, &facts, &[]);
            self.judged(&evaluated, None);
        }
        let client = Some(&**at.peer.identity.namespace());
        self.stream_routes_read(at.state, &at.target, client);
        let selected = match at.target.service() {
            Some(service) => at.state.routes.select_stream(service, address.port(), client, None),
            None => Selected::Service,
        };
        match selected.plan_stream(self.question.draw) {
            Ok(backend) => {
                let to = backend.map(|backend| &backend.target);
                self.routed(&selected, to);
                self.onward(at, to);
            }
            Err(failure) => self.failed(&selected, failure, None),
        }
    }

    /// A request.
    fn request(&mut self, at: &AtWaypoint<'_>, question: &HttpQuestion) {
        let mut asked = match Asked::of(question, &self.host(at)) {
            Ok(asked) => asked,
            Err(what) => {
                let ground = Ground { status: Some(400), ..Ground::default() };
                return self.refuse(Step::WaypointPolicy, Reason::RequestAmbiguous, what, ground);
            }
        };
        let received = asked.clone();
        let Some(target) = self.read(&received, at.governing.first()) else { return };
        let judged: Vec<(&Arc<Applied>, SocketAddr)> = governed(at).collect();
        for (applied, address) in &judged {
            let edits = self.judge(at, applied, *address, &target, &received);
            asked.edit(&edits);
        }
        asked.read(&target);
        self.route(at, &asked, &received);
    }

    /// Where a request goes that policies have judged.
    fn route(&mut self, at: &AtWaypoint<'_>, asked: &Asked, received: &Asked) {
        let (path, query) = split_target(&asked.target);
        let view = asked.view(path, query, at.target.address().port());
        let client = Some(&**at.peer.identity.namespace());
        self.routes_read(at.state, &at.target, client, &view);
        let selected = match at.target.service() {
            Some(service) => at.state.routes.select(service, client, &view),
            None => Selected::Service,
        };
        if let Selected::Rule(rule, _) = selected {
            if !rule.rate_limits.is_empty() {
                self.assume(format!("no limit on the rate of {} is reached", rule.id));
            }
            if rule.fault.is_some() {
                self.assume(format!("{} puts no fault into this request", rule.id));
            }
        }
        match selected.plan(&view, self.question.draw) {
            Plan::Answer(Answer::Failure(failure)) => {
                let status = Answer::Failure(failure).status(view.is_grpc());
                self.failed(&selected, failure, Some(status));
            }
            Plan::Answer(answer) => {
                self.routed(&selected, None);
                self.status = Some(answer.status(view.is_grpc()));
                let what = format!("the waypoint answers {} itself", answer.status(view.is_grpc()));
                self.note(Step::Route, Outcome::Passed, what, Vec::new());
            }
            Plan::Forward(forward) => {
                let to = forward.target();
                self.routed(&selected, to);
                let is_consumers = matches!(selected, Selected::Rule(_, Side::Consumer));
                let (target, host) = (asked.target.clone(), asked.host.clone());
                let before = Asked { target, host, ..received.clone() };
                let mut remade = before.clone();
                forward.apply(&mut remade, |_, _| {});
                remade.clean();
                if is_consumers && remade != before {
                    self.judge_remade(at, governed(at).collect(), &remade);
                }
                let own =
                    to.and_then(|to| at.state.rules_of_backend(&at.target, &at.governing, is_consumers, to));
                if let Some(own) = own {
                    self.judge_remade(at, vec![own], &remade);
                }
                self.onward(at, to);
            }
        }
    }

    /// Judges what filters have made of a request.
    fn judge_remade(&mut self, at: &AtWaypoint<'_>, by: Vec<(&Arc<Applied>, SocketAddr)>, remade: &Asked) {
        let Some((first, _)) = by.first() else { return };
        let Some(target) = self.read(remade, first) else { return };
        for (applied, address) in by {
            self.judge(at, applied, address, &target, remade);
        }
    }

    /// Reads the target of a request as the waypoint reads it.
    fn read<'r>(&mut self, asked: &'r Asked, applied: &Applied) -> Option<Read<'r>> {
        let received = ambit_policy::normalize::Received {
            method: asked.method.as_bytes(),
            authority: Some(asked.host.as_bytes()),
            path: Some(asked.target.as_bytes()),
            ..ambit_policy::normalize::Received::default()
        };
        match normalize(&received, &applied.normalize) {
            Ok(target) => Some(target),
            Err(refusal) => {
                let ground = Ground { status: Some(refusal.status()), ..Ground::default() };
                self.refuse(Step::WaypointPolicy, refusal.reason(), refusal.to_string(), ground);
                None
            }
        }
    }

    /// Notes a decision of a waypoint's policies.
    fn judged(&mut self, evaluated: &http::Explanation, status: Option<u16>) {
        let decision = &evaluated.decision;
        let mut details: Vec<String> = nearest::dry_runs(&decision.dry_run).collect();
        details
            .extend(decision.audit.iter().map(|mark| format!("audit: {} rule {}", mark.policy, mark.rule)));
        let ground = Ground {
            decided_by: nearest::decided_by(decision.policy.as_ref(), decision.rule),
            nearest: evaluated.nearest.as_ref().map(nearest::nearest),
            policies: nearest::considered_http(&evaluated.policies),
            details,
            status,
        };
        let what = decision.to_string();
        if decision.is_allow() {
            return self.pass(Step::WaypointPolicy, decision.reason, what, ground);
        }
        // As the waypoint does: an authorizer that would have to be asked counts as unavailable.
        let reason = decision.reason.unwrap_or(Reason::ExtAuthzUnavailable);
        self.refuse(Step::WaypointPolicy, reason, what, ground);
    }

    fn routed(&mut self, selected: &Selected<'_>, to: Option<&To>) {
        let (what, routed) = match selected {
            Selected::Service => (
                "no route is attached: to the service's own endpoints".to_owned(),
                Routed { route: None, rule: None, backend: to.map(ToString::to_string), others: Vec::new() },
            ),
            Selected::NoMatch(_) => return,
            Selected::Rule(rule, side) => {
                let of = match side {
                    Side::Producer => "of the service",
                    Side::Consumer => "of the caller's namespace",
                };
                let others = rule.backends.iter().filter(|backend| Some(&backend.target) != to);
                let routed = Routed {
                    route: Some(rule.id.route.to_string()),
                    rule: Some(rule.id.rule),
                    backend: to.map(ToString::to_string),
                    others: others.map(|backend| backend.target.to_string()).collect(),
                };
                let sent = to.map(|to| format!(" sends it to {to}")).unwrap_or_default();
                (format!("{}, a route {of},{sent}", rule.id), routed)
            }
        };
        self.note(Step::Route, Outcome::Passed, what.trim_end_matches(',').to_owned(), Vec::new());
        self.route = Some(routed);
    }

    fn failed(&mut self, selected: &Selected<'_>, failure: Failure, status: Option<u16>) {
        let what = match selected {
            Selected::Rule(rule, _) => format!("{}: {failure:?}", rule.id),
            Selected::NoMatch(_) => "routes are attached, and none of their rules wants it".to_owned(),
            Selected::Service => format!("{failure:?}"),
        };
        let reason = failure.reason().unwrap_or(Reason::NoHealthyEndpoint);
        self.refuse(Step::Route, reason, what, Ground { status, ..Ground::default() });
    }

    /// From the waypoint on, to the backend that was chosen or to what was called.
    fn onward(&mut self, at: &AtWaypoint<'_>, to: Option<&To>) {
        let onward = match (to, &at.target) {
            (Some(To::Service { service, port }), _) => Sent::Service(service.clone(), *port),
            // Such a backend has failed before.
            (Some(To::Invalid { .. }), _) => return,
            (None, Target::Service { key, address, .. }) => Sent::Service(key.clone(), address.port()),
            (None, Target::Workload { workload, address }) => Sent::Workload(workload.clone(), *address),
        };
        let own = at.state.own.workload.clone();
        let client = &at.peer.identity;
        match onward {
            Sent::Workload(workload, address) => {
                self.onward_to(&workload, address, &own, client);
                self.connect_workload(&workload, address, &own, client);
            }
            Sent::Service(key, port) => match at.state.mesh.service(&key) {
                Some(entry) => {
                    if let Some((workload, address)) = self.endpoint_of(entry, port, &own) {
                        self.onward_to(&workload, address, &own, client);
                        self.connect_workload(&workload, address, &own, client);
                    }
                }
                None => {
                    let what = format!("service {key} is not known to the waypoint");
                    let ground = Ground { status: Some(503), ..Ground::default() };
                    self.refuse(Step::Route, Reason::NoHealthyEndpoint, what, ground);
                }
            },
        }
    }

    /// The endpoint of a service that the waypoint chooses; none, and a refusal, if it has none.
    fn endpoint_of(
        &mut self,
        entry: &ServiceEntry,
        port: u16,
        waypoint: &Workload,
    ) -> Option<(Arc<Workload>, SocketAddr)> {
        let chosen = mesh::endpoint(entry, &waypoint.network, port, self.question.draw);
        if chosen.is_none() {
            let what = format!("service {} has no ready endpoint for port {port}", entry.service().key());
            let ground = Ground { status: Some(503), ..Ground::default() };
            self.refuse(Step::Route, Reason::NoHealthyEndpoint, what, ground);
        }
        chosen.map(|(workload, address)| (workload.clone(), address))
    }

    /// Remembers the second leg, unless nobody of the mesh is at its end.
    fn onward_to(
        &mut self,
        workload: &Workload,
        address: SocketAddr,
        waypoint: &Workload,
        client: &Identity,
    ) {
        if workload.tunnel == TunnelProtocol::Hbone {
            let (waypoint, client) = (waypoint.uid.to_string(), client.to_string());
            self.onward = Some(Onward { waypoint, address, client });
        }
    }

    /// The waypoint's own connection to the endpoint, on behalf of who called it.
    fn connect_workload(
        &mut self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        waypoint: &Workload,
        client: &Identity,
    ) {
        self.end_at(workload);
        let name = name_of(workload);
        match workload.tunnel {
            TunnelProtocol::Hbone => {
                let what = format!("the waypoint opens HBONE to {name}, asking for {address}");
                self.note(Step::Tunnel, Outcome::Passed, what, Vec::new());
                self.network_policy(workload);
                let peer = Peer {
                    identity: waypoint.identity(),
                    address: mesh::address_towards(waypoint, address.ip()),
                    client: Some(client.clone()),
                };
                self.certificates([&peer.identity, &workload.identity()]);
                self.arrive(workload, address, &peer, None);
            }
            TunnelProtocol::None => {
                let what = format!("{name} is not in the mesh: the waypoint calls it by plain TCP");
                self.note(Step::Tunnel, Outcome::Skipped, what, Vec::new());
            }
            TunnelProtocol::LegacyIstioMtls => {
                let what = format!("{name} wants a tunnel protocol that is not spoken here");
                self.refuse(Step::Tunnel, Reason::NoHealthyEndpoint, what, Ground::default());
            }
        }
    }

    /// The host of a request that names none: that of the service, or the address.
    fn host(&self, at: &AtWaypoint<'_>) -> String {
        match &at.target {
            Target::Service { key, .. } => key.hostname.to_string(),
            Target::Workload { address, .. } => address.to_string(),
        }
    }
}

/// Everything that governs a call, each with the address that its policies compare.
fn governed<'g>(at: &'g AtWaypoint<'_>) -> impl Iterator<Item = (&'g Arc<Applied>, SocketAddr)> {
    let ip = at.target.address().ip();
    at.governing.judged().map(move |(applied, port)| (applied, SocketAddr::new(ip, port)))
}
