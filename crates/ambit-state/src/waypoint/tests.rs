//! Whose rules hold where a workload is addressed by itself.

use ambit_types::service::Port;
use ambit_types::{ApplicationTunnel, NetworkAddress, Service, WeightedWaypoint};

use super::*;
use crate::{Change, World};

const POD: [u8; 4] = [10, 244, 1, 5];

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.shop.svc.cluster.local"))
}

fn reference(name: &str) -> GatewayAddress {
    GatewayAddress { destination: Destination::Hostname(key(name)), hbone_mtls_port: 15008 }
}

fn service(name: &str, ports: &[(u16, u16, AppProtocol)], waypoint: Option<&str>) -> Service {
    let mut service = Service::new("shop", name, key(name).hostname);
    let port = |(service_port, target_port, app_protocol): &(u16, u16, AppProtocol)| Port {
        service_port: *service_port,
        target_port: *target_port,
        app_protocol: *app_protocol,
    };
    service.ports = ports.iter().map(port).collect();
    service.waypoint = waypoint.map(reference);
    service
}

/// A pod behind services, which names a waypoint or none.
fn pod(services: &[&str], waypoint: Option<&str>) -> Workload {
    let mut pod = Workload::new("Kubernetes//Pod/shop/web", "shop", "web");
    pod.addresses = vec![POD.into()];
    pod.settings = Some(Arc::default());
    pod.waypoint = waypoint.map(reference);
    pod.services = services.iter().map(|name| (key(name), Vec::new())).collect();
    pod
}

/// The state of waypoint `gate`, with rules of its own for each service.
fn state(pod: Workload, services: Vec<Service>) -> State {
    let mut own = Workload::new("Kubernetes//Pod/shop/gate-0", "shop", "gate-0");
    own.addresses = vec![[10, 244, 2, 9].into()];
    own.services.insert(key("gate"), Vec::new());
    let rules = services.iter().map(|service| (service.key(), Arc::new(Applied::default())));
    let policies = Policies { services: rules.collect(), all: Arc::new(Applied::default()) };
    let records = [Change::from(pod), Change::from(own.clone())];
    let named = services.into_iter().chain([service("gate", &[], None), service("next", &[], None)]);
    let mesh = World::new("").apply(records.into_iter().chain(named.map(Change::from))).snapshot;
    let own = Own { workload: Arc::new(own), service: Some(key("gate")), vips: Vec::new() };
    State { mesh, routes: Arc::new(Table::default()), policies, own }
}

fn target(state: &State, port: u16) -> Target {
    let network = &state.own.workload.network;
    let workload = state.mesh.workload_at(network, POD.into()).expect("in the mesh").clone();
    Target::Workload { workload, address: SocketAddr::from((POD, port)) }
}

/// The services whose rules hold at a port of the pod, `all` for what holds without any; none if it is not served.
fn rules(state: &State, port: u16) -> Option<Vec<String>> {
    let governing = state.governing(&target(state, port))?;
    let name = |applied: &Arc<Applied>| {
        let known = state.policies.services.iter().find(|(_, known)| Arc::ptr_eq(known, applied));
        let name = known.and_then(|(key, _)| key.hostname.split('.').next()).unwrap_or("all");
        name.to_owned()
    };
    let mut names: Vec<String> = governing.iter().map(name).collect();
    names.dedup();
    Some(names)
}

fn web(waypoint: Option<&str>) -> Service {
    service("web", &[(80, 8080, AppProtocol::Http11)], waypoint)
}

fn api(waypoint: Option<&str>) -> Service {
    service("api", &[(81, 8080, AppProtocol::Http11)], waypoint)
}

#[track_caller]
fn check(state: &State, port: u16, want: &[&str]) {
    let want: Option<Vec<String>> =
        (!want.is_empty()).then(|| want.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(rules(state, port), want, "port {port} of {:?}", state.mesh.workloads());
}

#[test]
fn the_rules_of_all_services_that_lead_to_the_port_hold() {
    let both = ["api", "web"];
    check(&state(pod(&both, None), vec![web(Some("gate")), api(Some("gate"))]), 8080, &both);
    check(&state(pod(&both, None), vec![web(Some("gate")), api(None)]), 8080, &["web"]);
    check(&state(pod(&both, None), vec![web(None), api(None)]), 8080, &[]);
    check(&state(pod(&both, None), vec![web(Some("gate")), api(Some("gate"))]), 80, &[]);
    // The workload's own waypoint is this one too.
    let all = state(pod(&both, Some("gate")), vec![web(Some("gate")), api(None)]);
    check(&all, 8080, &["web"]);
    check(&all, 9090, &["all"]);
    check(&state(pod(&[], Some("gate")), Vec::new()), 8080, &["all"]);
}

#[test]
fn whoever_is_bound_to_another_waypoint_too_is_not_served() {
    let both = ["api", "web"];
    let others = state(pod(&both, None), vec![web(Some("gate")), api(Some("next"))]);
    check(&others, 8080, &[]);
    // The workload is bound here, a service that leads to the port is not.
    let own = state(pod(&["web"], Some("gate")), vec![web(Some("next"))]);
    check(&own, 8080, &[]);
    check(&own, 9090, &["all"]);
    let other = state(pod(&["web"], Some("next")), vec![web(Some("gate"))]);
    check(&other, 8080, &[]);
    check(&other, 9090, &[]);
    // Of a canary's two it is enough to be one.
    let mut shared = web(Some("gate"));
    let weighted = |name, weight| WeightedWaypoint { destination: reference(name), weight };
    shared.weighted_waypoints = vec![weighted("gate", 1), weighted("next", 99)];
    check(&state(pod(&["web"], None), vec![shared.clone()]), 8080, &["web"]);
    check(&state(pod(&["web"], Some("gate")), vec![shared.clone()]), 8080, &["web"]);
    check(&state(pod(&["web"], Some("next")), vec![shared]), 8080, &[]);
}

#[test]
fn a_service_that_is_not_known_may_lead_to_any_port_of_the_workload() {
    check(&state(pod(&["web"], Some("gate")), Vec::new()), 8080, &[]);
    let one = state(pod(&["api", "web"], Some("gate")), vec![web(Some("gate"))]);
    check(&one, 8080, &["web"]);
    check(&one, 9090, &[]);
    // Another control plane binds a workload by its own waypoint alone.
    let mut untold = pod(&["web"], Some("gate"));
    untold.settings = None;
    check(&state(untold, vec![web(Some("next"))]), 8080, &["all"]);
}

#[test]
fn every_way_to_the_port_leads_to_the_rules() {
    let ports = [(80, 8080, AppProtocol::Tcp), (81, 8080, AppProtocol::Http11), (82, 0, AppProtocol::Http11)];
    let mut named = pod(&["web"], Some("gate"));
    named.services.insert(
        key("web"),
        vec![Port { service_port: 82, target_port: 9000, app_protocol: AppProtocol::Http11 }],
    );
    let twice = state(named.clone(), vec![service("web", &ports, Some("gate"))]);
    check(&twice, 8080, &["web"]);
    check(&twice, 9000, &["web"]);
    assert_eq!(twice.protocol(&target(&twice, 8080)), AppProtocol::Unknown, "the ports do not agree");
    assert_eq!(twice.protocol(&target(&twice, 9000)), AppProtocol::Http11);
    // A rule for port 80 is not passed by calling the pod's 8080.
    let called = target(&twice, 8080);
    let judged: Vec<u16> = twice.governing(&called).expect("served").judged().map(|(_, port)| port).collect();
    assert_eq!(judged, [80, 81]);
    let elsewhere = state(named, vec![service("web", &ports, Some("next"))]);
    for port in [8080, 9000] {
        check(&elsewhere, port, &[]);
    }
    // Whichever port is asked for, an application tunnel has one end.
    let mut tunnelled = pod(&["web"], Some("gate"));
    tunnelled.application_tunnel = Some(ApplicationTunnel { proxy_protocol: false, port: Some(7000) });
    check(&state(tunnelled.clone(), vec![web(Some("next"))]), 1, &[]);
    check(&state(tunnelled, vec![web(Some("gate"))]), 1, &["web"]);
}

#[test]
fn an_address_of_a_service_leads_to_the_rules_of_that_service_alone() {
    let mut bound = web(Some("gate"));
    bound.vips = vec![NetworkAddress::new("".into(), [10, 96, 0, 1].into())];
    let state = state(pod(&["api", "web"], Some("next")), vec![bound, api(Some("next"))]);
    let to = |name, port| Target::Service {
        key: key(name),
        address: SocketAddr::from(([10, 96, 0, 1], port)),
        protocol: AppProtocol::Http11,
    };
    let governing = state.governing(&to("web", 80)).expect("it is bound here");
    assert!(Arc::ptr_eq(governing.first(), &state.policies.services[&key("web")]));
    assert_eq!(governing.iter().count(), 1);
    assert!(state.governing(&to("web", 81)).is_none());
    assert!(state.governing(&to("api", 81)).is_none());
}
