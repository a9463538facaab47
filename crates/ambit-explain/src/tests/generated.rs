//! Generated meshes and questions: the explanation has the verdict and the code of the functions that ztunnels call.
//!
//! The other side of the comparison goes the way that `ztunnel` goes: each node has a snapshot of its own, the caller's
//! plans, the endpoint's finds the target and decides by what it holds ready for its own workloads.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_policy::Facts;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, Values};
use ambit_state::waypoint::{Own, Policies, State};
use ambit_state::{
    Authority, Change, HboneFacts, MeshedPlaintext, OutboundFacts, OutboundPlan, PlainFacts, PlainPlan,
    SameNode, Snapshot, World, authorize, plan_inbound_hbone, plan_inbound_plain, plan_outbound,
    speaks_for_others,
};
use ambit_types::service::Port;
use ambit_types::workload::{Health, Settings};
use ambit_types::{
    AppProtocol, Destination as Place, GatewayAddress, Identity, NetworkAddress, PolicyKey, Reason, Service,
    ServiceKey, TunnelProtocol, Uid, Workload,
};
use proptest::prelude::*;

use crate::{Destination, Question, Source, Verdict, View, explain};

/// Pods of a mesh.
const PODS: u8 = 5;

/// A pod as generated.
#[derive(Debug, Clone)]
struct Pod {
    node: u8,
    account: u8,
    is_meshed: bool,
    is_ready: bool,
    has_network_policy: bool,
    probe: bool,
    services: [bool; 2],
    has_waypoint: bool,
}

/// A policy as generated.
#[derive(Debug, Clone)]
struct Written {
    action: Action,
    scope: u8,
    of: u8,
    accounts: Vec<u8>,
    ports: Vec<u16>,
    is_dry: bool,
    is_unevaluable: bool,
}

/// All of it.
#[derive(Debug, Clone)]
struct Mesh {
    pods: Vec<Pod>,
    bound: [bool; 2],
    has_waypoint: bool,
    policies: Vec<Written>,
    is_missing: bool,
}

fn pod() -> impl Strategy<Value = Pod> {
    let flags = (any::<[bool; 2]>(), prop::bool::weighted(0.8), prop::bool::weighted(0.9));
    let rare = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (1..3u8, 0..3u8, flags, rare).prop_map(|(node, account, (services, is_meshed, is_ready), rare)| Pod {
        node,
        account,
        is_meshed,
        is_ready,
        has_network_policy: rare.0,
        probe: rare.1,
        services,
        has_waypoint: rare.2,
    })
}

fn written() -> impl Strategy<Value = Written> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let lists = (prop::collection::vec(0..3u8, 0..3), prop::collection::vec(80..83u16, 0..3));
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (action, 0..3u8, 0..PODS, lists, flags).prop_map(|(action, scope, of, (accounts, ports), flags)| {
        Written { action, scope, of, accounts, ports, is_dry: flags.0, is_unevaluable: flags.1 }
    })
}

fn mesh() -> impl Strategy<Value = Mesh> {
    let pods = prop::collection::vec(pod(), usize::from(PODS));
    let policies = prop::collection::vec(written(), 0..4);
    let flags = (any::<[bool; 2]>(), prop::bool::weighted(0.9), prop::bool::weighted(0.05));
    (pods, policies, flags).prop_map(|(pods, policies, (bound, has_waypoint, is_missing))| Mesh {
        pods,
        bound,
        has_waypoint,
        policies,
        is_missing,
    })
}

fn key(number: usize) -> ServiceKey {
    ServiceKey::new("shop", format!("s{number}.shop.svc.cluster.local"))
}

fn gate() -> GatewayAddress {
    let destination = Place::Hostname(ServiceKey::new("shop", "gate.shop.svc.cluster.local"));
    GatewayAddress { destination, hbone_mtls_port: 15008 }
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number + 10])
}

fn uid(number: u8) -> Uid {
    Uid::from(format!("Kubernetes//Pod/shop/p{number}"))
}

impl Mesh {
    fn workload(&self, number: u8) -> Workload {
        let pod = &self.pods[usize::from(number)];
        let mut workload = Workload::new(uid(number), "shop", format!("p{number}"));
        workload.addresses = vec![address(number)];
        workload.node = format!("n{}", pod.node).into();
        workload.service_account = format!("a{}", pod.account).into();
        workload.tunnel = if pod.is_meshed { TunnelProtocol::Hbone } else { TunnelProtocol::None };
        workload.health = if pod.is_ready { Health::Healthy } else { Health::Unhealthy };
        workload.waypoint = pod.has_waypoint.then(gate);
        let probe_ports = if pod.probe { vec![81] } else { Vec::new() };
        let node_addresses = vec![IpAddr::from([10, 0, pod.node, 1])];
        let network_policy = pod.has_network_policy;
        let settings = Settings { probe_ports, node_addresses, network_policy, egress: None };
        workload.settings = Some(Arc::new(settings));
        let named = self.policies.iter().enumerate().filter(|(_, one)| one.scope == 2 && one.of == number);
        workload.policies = named.map(|(place, _)| policy_key(place)).collect();
        if self.is_missing && number == 0 {
            workload.policies.push(PolicyKey::new("shop", "missing"));
        }
        let backs = pod.services.iter().enumerate().filter(|(_, backs)| **backs);
        workload.services = backs.map(|(number, _)| (key(number), Vec::new())).collect();
        workload
    }

    fn waypoint(&self) -> Workload {
        let mut workload = Workload::new("Kubernetes//Pod/shop/gate-0", "shop", "gate-0");
        workload.addresses = vec![[10, 0, 0, 200].into()];
        workload.node = "n1".into();
        workload.service_account = "gate".into();
        workload.tunnel = TunnelProtocol::Hbone;
        workload.native_tunnel = true;
        workload.settings = Some(Arc::default());
        workload.services.insert(ServiceKey::new("shop", "gate.shop.svc.cluster.local"), Vec::new());
        workload
    }

    fn service(&self, number: usize) -> Service {
        let mut service = Service::new("shop", format!("s{number}"), key(number).hostname);
        let last = u8::try_from(number).expect("two services") + 1;
        service.vips = vec![NetworkAddress::new("".into(), [10, 96, 0, last].into())];
        let port = |port| Port { service_port: port, target_port: port, app_protocol: AppProtocol::Tcp };
        service.ports = vec![port(80), port(81)];
        service.waypoint = self.bound[number].then(gate);
        service
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = (0..PODS).map(|number| self.workload(number).into()).collect();
        changes.extend((0..2).map(|number| Change::from(self.service(number))));
        let mut gate = Service::new("shop", "gate", "gate.shop.svc.cluster.local");
        gate.ports = vec![Port { service_port: 15008, target_port: 15008, app_protocol: AppProtocol::Tcp }];
        changes.push(gate.into());
        if self.has_waypoint {
            changes.push(self.waypoint().into());
        }
        changes.extend(self.policies.iter().enumerate().map(|(place, one)| one.policy(place).into()));
        changes
    }

    fn snapshot(&self, node: &str) -> Arc<Snapshot> {
        World::new(node).apply(self.changes()).snapshot
    }

    /// What the waypoint goes by: no routes, no policies.
    fn state(&self) -> Arc<State> {
        let own = Own {
            workload: Arc::new(self.waypoint()),
            service: Some(ServiceKey::new("shop", "gate.shop.svc.cluster.local")),
            vips: Vec::new(),
        };
        let mesh = self.snapshot("n1");
        Arc::new(State { mesh, routes: Arc::default(), policies: Policies::default(), own })
    }
}

fn policy_key(place: usize) -> PolicyKey {
    PolicyKey::new("shop", format!("p{place}"))
}

impl Written {
    fn policy(&self, place: usize) -> Policy {
        let principal =
            |account: &u8| StringMatch::Exact(format!("cluster.local/ns/shop/sa/a{account}").into());
        let principals = Values { any: self.accounts.iter().map(principal).collect(), none: Vec::new() };
        let destination_ports = Values { any: self.ports.clone(), none: Vec::new() };
        let one = Match { principals, destination_ports, ..Match::default() };
        let unevaluable = if self.is_unevaluable { vec!["methods".into()] } else { Vec::new() };
        Policy {
            key: policy_key(place),
            scope: [Scope::Namespace, Scope::Global, Scope::WorkloadSelector][usize::from(self.scope)],
            action: self.action,
            rules: vec![Rule { clauses: vec![Clause { matches: vec![one] }], unevaluable }],
            dry_run: self.is_dry,
            until: None,
        }
    }
}

/// Verdict and code, as records have them.
type Told = (Verdict, Option<Reason>);

/// The nodes' own way.
struct Nodes {
    snapshots: BTreeMap<String, Arc<Snapshot>>,
}

impl Nodes {
    fn of(&self, workload: &Workload) -> &Snapshot {
        &self.snapshots[&*workload.node]
    }

    fn goes(&self, mesh: &Mesh, source: &Arc<Workload>, to: SocketAddr, draw: u64) -> Told {
        let own = source.addresses[0];
        let facts = OutboundFacts {
            source: Some(source),
            source_address: own,
            destination: to,
            same_node: SameNode::Auto,
            tried: &[],
            draw,
        };
        match plan_outbound(self.of(source), &facts) {
            OutboundPlan::Refuse(refusal) => (Verdict::Deny, Some(refusal.reason)),
            OutboundPlan::Passthrough { .. } | OutboundPlan::Plain(_) => (Verdict::Allow, None),
            OutboundPlan::Hbone(hop) | OutboundPlan::Local(hop) => {
                self.comes(&hop.workload, hop.address, &source.identity(), own, None)
            }
            OutboundPlan::Waypoint(via) => self.passes(mesh, via.authority, &source.identity(), draw),
            OutboundPlan::Resolve(_) => (Verdict::Allow, None),
            OutboundPlan::Gateway(_) => (Verdict::Deny, Some(Reason::UnknownDestination)),
        }
    }

    /// A waypoint without rules of its own: to an endpoint, on the caller's behalf.
    fn passes(&self, mesh: &Mesh, to: SocketAddr, caller: &Identity, draw: u64) -> Told {
        let state = mesh.state();
        let authority = Authority::Address(to);
        let target = match ambit_state::waypoint::admit(&state, &authority, caller.namespace()) {
            Ok(target) => target,
            Err(refused) => return (Verdict::Deny, Some(refused.reason)),
        };
        let (own, ip) = (state.own.workload.clone(), state.own.workload.addresses[0]);
        let (workload, address) = match target.service() {
            None => (state.mesh.workload_at(&own.network, to.ip()).expect("admitted").clone(), to),
            Some(service) => {
                let entry = state.mesh.service(service).expect("admitted");
                match crate::mesh::endpoint(entry, &own.network, to.port(), draw) {
                    Some((workload, address)) => (workload.clone(), address),
                    None => return (Verdict::Deny, Some(Reason::NoHealthyEndpoint)),
                }
            }
        };
        match workload.tunnel {
            TunnelProtocol::Hbone => self.comes(&workload, address, &own.identity(), ip, Some(caller)),
            TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => (Verdict::Allow, None),
        }
    }

    /// A tunnel's stream at the endpoint's node.
    fn comes(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        peer: &Identity,
        source: IpAddr,
        client: Option<&Identity>,
    ) -> Told {
        let snapshot = self.of(workload);
        let facts = HboneFacts {
            own: Some(workload),
            authority: Authority::Address(address),
            local: SocketAddr::new(address.ip(), 15008),
            peer: SocketAddr::new(source, 40_000),
            forwarded_host: None,
        };
        let target = match plan_inbound_hbone(snapshot, &facts) {
            Ok(target) => target,
            Err(refused) => return (Verdict::Deny, Some(refused.refusal.reason)),
        };
        let (to, port) = (target.address.ip(), target.address.port());
        let speaks = || speaks_for_others(snapshot, &workload.uid, peer, port) == Some(true);
        let client = client.filter(|_| speaks());
        let facts = Facts::new(Some(peer), source, to, port).on_behalf_of(client);
        told(&authorize(snapshot, &workload.uid, &facts))
    }

    /// Plaintext at the endpoint's node.
    fn comes_plain(&self, workload: &Arc<Workload>, to: SocketAddr, source: IpAddr) -> Told {
        let snapshot = self.of(workload);
        let facts = PlainFacts {
            own: Some(workload),
            source: SocketAddr::new(source, 40_000),
            destination: to,
            from_node: false,
            meshed_plaintext: MeshedPlaintext::Record,
        };
        match plan_inbound_plain(snapshot, &facts) {
            PlainPlan::Refuse(refusal) => (Verdict::Deny, Some(refusal.reason)),
            PlainPlan::Probe => (Verdict::Allow, Some(Reason::ProbeAdmitted)),
            PlainPlan::Authorize { .. } => {
                let facts = Facts::new(None, source, to.ip(), to.port());
                told(&authorize(snapshot, &workload.uid, &facts))
            }
        }
    }
}

fn told(decision: &ambit_policy::Decision) -> Told {
    let verdict = if decision.is_allow() { Verdict::Allow } else { Verdict::Deny };
    (verdict, decision.reason)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_that_of_the_nodes(
        mesh in mesh(),
        from in 0..PODS,
        to in 0..PODS + 3,
        port in prop_oneof![8 => 80..83u16, 1 => Just(15008u16)],
        draw in any::<u64>(),
        is_outside in prop::bool::weighted(0.2),
    ) {
        let node = |name: &str| (name.to_owned(), mesh.snapshot(name));
        let nodes = Nodes { snapshots: BTreeMap::from([node("n1"), node("n2")]) };
        let at = match to.checked_sub(PODS) {
            None => SocketAddr::new(address(to), port),
            Some(2) => SocketAddr::new([192, 0, 2, 9].into(), port),
            Some(service) => SocketAddr::new([10, 96, 0, service + 1].into(), port),
        };
        let waypoints = BTreeMap::from([(mesh.waypoint().uid, mesh.state())]);
        let source = nodes.snapshots["n1"].workload(&uid(from)).expect("a pod").clone();
        let outside = IpAddr::from([10, 0, 1, 1]);
        let (want, asked, seen) = if is_outside {
            // Somebody without a record dials a pod's own address.
            let at = SocketAddr::new(address(from), port);
            let want = match source.tunnel {
                TunnelProtocol::Hbone => nodes.comes_plain(&source, at, outside),
                TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => (Verdict::Allow, None),
            };
            let asked = Question::new(Source::Address(outside), Destination::Address(at));
            (want, asked, nodes.of(&source))
        } else if source.tunnel == TunnelProtocol::Hbone {
            let want = nodes.goes(&mesh, &source, at, draw);
            let asked = Question::new(Source::Uid(uid(from)), Destination::Address(at));
            (want, asked, nodes.of(&source))
        } else {
            return Ok(());
        };
        let asked = Question { draw, ..asked };
        let view = View::new(seen).with_waypoints(&waypoints);
        let explanation = explain(&view, &asked);
        prop_assert_eq!((explanation.verdict, explanation.code()), want, "{:#?}", explanation);
        // Whoever refuses says where.
        let is_refused = explanation.hops.iter().any(|hop| hop.outcome == crate::Outcome::Refused);
        prop_assert_eq!(is_refused, !explanation.is_allow());
    }
}
