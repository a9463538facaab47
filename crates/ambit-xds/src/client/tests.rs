//! The subscriber, row by row: first requests, updates, acknowledgements, on-demand answers.

use std::collections::BTreeMap;

use ambit_policy::model::Scope;
use ambit_types::{Destination, GatewayAddress, NetworkAddress, Service, ServiceKey, Workload};

use super::*;
use crate::any::Any;
use crate::codec::Address;
use crate::proto::envoy::service::discovery::v3::Resource;

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn client_with(mode: Mode, limits: Limits) -> Client {
    let node = NodeIdentity {
        ip: "10.0.0.1".parse().unwrap(),
        pod_name: "z".into(),
        namespace: "istio-system".into(),
        node_name: "n1".into(),
        metadata: BTreeMap::new(),
    };
    Client::new(node, mode, limits)
}

fn client(mode: Mode) -> Client {
    client_with(mode, Limits::default())
}

fn resource(address: impl Into<Address>, version: &str) -> Resource {
    let address = address.into();
    Resource {
        name: address.name(),
        version: version.into(),
        resource: Some(address.encode()),
        ..Resource::default()
    }
}

fn workload(name: &str) -> Workload {
    Workload::new(name, "ns", name)
}

fn bad(name: &str) -> Resource {
    let value = crate::proto::istio::workload::Address::default();
    Resource {
        name: name.into(),
        version: "v".into(),
        resource: Some(Any::pack("istio.workload.Address", &value)),
        ..Resource::default()
    }
}

fn response(kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.url().into(),
        nonce: "n".into(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn apply(client: &mut Client, response: DeltaDiscoveryResponse) -> (Update, Acknowledged) {
    let (update, receipt) = client.handle_response(response);
    (update, receipt.applied(client))
}

/// What the next stream declares.
fn declared(client: &mut Client, kind: Kind) -> BTreeMap<String, String> {
    let request = client.on_connect().into_iter().find(|request| request.type_url == kind.url());
    request.unwrap().initial_resource_versions
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect()
}

#[test]
fn a_bad_resource_is_refused_alone_and_does_not_hold_up_being_synced() {
    // G13
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    apply(&mut client, response(Kind::Authorization, vec![], &[]));
    assert!(!client.is_synced());
    let both = vec![resource(workload("good"), "1"), bad("broken")];
    let (update, acknowledged) = apply(&mut client, response(Kind::Address, both, &[]));
    let Content::Addresses { upserts, .. } = update.content else { panic!("addresses") };
    assert_eq!(upserts, [Address::from(workload("good"))]);
    assert_eq!(update.rejected[0].name, "broken");
    let request = acknowledged.request.unwrap();
    assert_eq!(request.error_detail.unwrap().message, "broken: type: is missing");
    assert!(client.is_synced());
}

#[test]
fn nothing_is_declared_before_it_is_applied() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let (_, receipt) =
        client.handle_response(response(Kind::Address, vec![resource(workload("w"), "1")], &[]));
    assert_eq!(declared(&mut client, Kind::Address), map(&[]));
    assert!(receipt.applied(&mut client).request.is_none(), "its stream is gone");
    assert_eq!(declared(&mut client, Kind::Address), map(&[("w", "1")]));
}

#[test]
fn versions_of_refused_resources_are_not_echoed() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let three =
        vec![resource(workload("a"), "1"), resource(workload("b"), "1"), resource(workload("c"), "1")];
    apply(&mut client, response(Kind::Address, three, &[]));
    // b is refused now, c is gone, d was never good.
    apply(&mut client, response(Kind::Address, vec![bad("b"), bad("d")], &["c"]));
    assert_eq!(declared(&mut client, Kind::Address), map(&[("a", "1"), ("b", ""), ("d", "")]));
    // Once good, they have a version again.
    apply(&mut client, response(Kind::Address, vec![resource(workload("b"), "3")], &["d", "never held"]));
    assert_eq!(declared(&mut client, Kind::Address), map(&[("a", "1"), ("b", "3")]));
}

#[test]
fn a_type_nobody_asked_for_is_acknowledged_and_reported() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let strange = DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/istio.workload.Workload".into(),
        nonce: "n3".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let (update, acknowledged) = apply(&mut client, strange.clone());
    assert_eq!(update.content, Content::Unknown { type_url: strange.type_url.clone() });
    let request = acknowledged.request.unwrap();
    assert_eq!((request.type_url, request.response_nonce), (strange.type_url, "n3".to_owned()));
    assert_eq!(request.error_detail, None);
}

#[test]
fn of_two_resources_with_one_name_the_last_counts() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let mut second = workload("w");
    second.capacity = 2;
    let twice = vec![resource(workload("w"), "1"), resource(second.clone(), "2")];
    let (update, _) = apply(&mut client, response(Kind::Address, twice, &[]));
    assert_eq!(update.content, Content::Addresses { upserts: vec![second.into()], removed: vec![] });
    assert_eq!(declared(&mut client, Kind::Address), map(&[("w", "2")]));
}

#[test]
fn a_resource_under_another_name_is_refused() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let mut other = resource(workload("w"), "1");
    other.name = "x".into();
    let (update, _) = apply(&mut client, response(Kind::Address, vec![other], &[]));
    let reason = update.rejected[0].reason.to_string();
    assert_eq!(reason, "name: the resource is called \"x\", its content says \"w\"");
}

#[test]
fn a_refused_policy_says_what_it_would_have_covered() {
    use crate::proto::istio::security::{Action, Authorization, Scope as WireScope};
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let policy = |action, scope| Authorization {
        name: "p".into(),
        namespace: "n".into(),
        action,
        scope,
        ..Authorization::default()
    };
    let rows = [
        (policy(7, WireScope::Namespace.into()), Some(Scope::Namespace)),
        (policy(7, WireScope::WorkloadSelector.into()), Some(Scope::WorkloadSelector)),
        (policy(Action::Deny.into(), 9), None),
    ];
    for (message, want) in rows {
        let one = Resource {
            name: "n/p".into(),
            resource: Some(Any::pack("istio.security.Authorization", &message)),
            ..Resource::default()
        };
        let (update, _) = apply(&mut client, response(Kind::Authorization, vec![one], &[]));
        assert_eq!(update.rejected[0].scope, want);
    }
}

#[test]
fn a_first_request_keeps_its_bound_and_what_it_does_not_name_is_gone_unless_sent() {
    let mut client = client_with(Mode::Wildcard, Limits { request_bytes_max: 450, ..Limits::default() });
    client.on_connect();
    let names: Vec<String> = (0..40).map(|n| format!("w{n:02}")).collect();
    let all = names.iter().map(|name| resource(workload(name), "0123456789abcdef")).collect();
    apply(&mut client, response(Kind::Address, all, &[]));
    assert_eq!(client.held(Kind::Address).0, 40);
    let request = client.on_connect().remove(0);
    assert!(request.encoded_len() <= 450, "{}", request.encoded_len());
    let stated = request.initial_resource_versions.len();
    assert!(stated > 0 && stated < 39, "{stated}");
    // The server knows of w38 only, and of a new one; of what was declared it says that w00 is gone.
    let now = vec![resource(workload("w38"), "v2"), resource(workload("new"), "v1")];
    let (update, _) = apply(&mut client, response(Kind::Address, now, &["w00"]));
    let removed = update.content.removed();
    assert_eq!(removed.len(), 1 + 40 - stated - 1);
    assert!(removed.contains(&"w39".to_owned()) && !removed.contains(&"w38".to_owned()));
    assert_eq!(client.held(Kind::Address).0, stated - 1 + 2);
    // Only the first response of a stream is complete.
    let (update, _) = apply(&mut client, response(Kind::Address, vec![], &[]));
    assert_eq!(update.content.removed(), [] as [String; 0]);
}

#[test]
fn a_refusal_has_a_longest_text() {
    let limits = Limits { error_bytes_max: 100, ..Limits::default() };
    let mut client = client_with(Mode::Wildcard, limits);
    client.on_connect();
    let many = (0..50).map(|n| bad(&format!("w{n}"))).collect();
    let (_, acknowledged) = apply(&mut client, response(Kind::Address, many, &[]));
    let text = acknowledged.request.unwrap().error_detail.unwrap().message;
    assert!(text.starts_with("w0: type: is missing; w1: ") && text.ends_with("; and 46 more"), "{text}");
}

fn ask(client: &mut Client, key: &str, now: Instant) -> Ticket {
    match client.look_up(key, now) {
        LookedUp::Waiting(ticket) => ticket,
        LookedUp::Settled | LookedUp::Full => panic!("{key} is not waited for"),
    }
}

fn service(name: &str, vip: &str) -> Service {
    let mut service = Service::new("ns", name, format!("{name}.example"));
    service.vips = vec![NetworkAddress::new("".into(), vip.parse().unwrap())];
    service
}

fn endpoint(name: &str, of: &str) -> Workload {
    let mut endpoint = workload(name);
    endpoint.services = [(ServiceKey::new("ns", format!("{of}.example")), vec![])].into();
    endpoint
}

#[test]
fn in_wildcard_mode_nothing_is_ever_waited_for() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    assert_eq!(client.look_up("/10.0.0.1", start()), LookedUp::Settled);
    assert_eq!(client.poll_lookups(), None);
}

#[test]
fn an_alias_answers_every_waiter_of_its_key() {
    // G44
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    let now = start();
    let waiters = [ask(&mut client, "/10.96.0.1", now), ask(&mut client, "/10.96.0.1", now)];
    let request = client.poll_lookups().unwrap();
    assert_eq!(request.resource_names_subscribe, ["/10.96.0.1"]);
    assert_eq!(client.poll_lookups(), None, "one key, one request");
    let found = response(Kind::Address, vec![resource(service("s", "10.96.0.1"), "1")], &[]);
    let (_, acknowledged) = apply(&mut client, found);
    let want = waiters.map(|ticket| Answered { ticket, found: true });
    assert_eq!(acknowledged.answered, want);
    assert_eq!(client.look_up("/10.96.0.1", now), LookedUp::Settled);
    assert_eq!(client.expired_waiters(now + Duration::from_secs(60)), []);
}

#[test]
fn a_removal_answers_that_there_is_nothing() {
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    let ticket = ask(&mut client, "/10.0.0.9", start());
    let (_, acknowledged) = apply(&mut client, response(Kind::Address, vec![], &["/10.0.0.9"]));
    assert_eq!(acknowledged.answered, [Answered { ticket, found: false }]);
    assert_eq!(client.look_up("/10.0.0.9", start()), LookedUp::Settled);
}

#[test]
fn waiting_ends_in_time_while_the_control_plane_is_away() {
    // G48
    let mut client = client(Mode::OnDemand);
    let now = start();
    let ticket = ask(&mut client, "/10.0.0.9", now);
    assert_eq!(client.poll_lookups(), None, "there is no stream");
    assert_eq!(client.next_deadline(), Some(now + Duration::from_secs(5)));
    assert_eq!(client.expired_waiters(now + Duration::from_millis(4999)), []);
    assert_eq!(client.expired_waiters(now + Duration::from_secs(5)), [ticket]);
    assert_eq!(client.next_deadline(), None);
    let requests = client.on_connect();
    assert_eq!(
        requests[2].resource_names_subscribe,
        ["/10.0.0.9"],
        "asked as soon as there is somebody to ask"
    );
    client.on_disconnect();
    let again = client.on_connect();
    assert_eq!(again[2].resource_names_subscribe, ["/10.0.0.9"], "a new stream knows no keys");
}

#[test]
fn waiters_and_keys_are_bounded() {
    let limits = Limits { waiters_max: 2, keys_max: 3, ..Limits::default() };
    let mut client = client_with(Mode::OnDemand, limits);
    let now = start();
    ask(&mut client, "a", now);
    ask(&mut client, "b", now);
    assert_eq!(client.look_up("c", now), LookedUp::Full);
    assert_eq!(client.expired_waiters(now + Duration::from_secs(5)).len(), 2);
    ask(&mut client, "c", now);
    assert_eq!(client.look_up("d", now), LookedUp::Full, "three keys are subscribed");
    ask(&mut client, "a", now);
}

#[test]
fn what_says_who_may_reach_this_node_stays_when_keys_are_let_go() {
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    let now = start();
    ask(&mut client, "/10.96.0.1", now);
    let mut own = endpoint("own", "s");
    own.node = "n1".into();
    let mut bound = service("s", "10.96.0.1");
    let gate = Destination::Hostname(ServiceKey::new("ns", "gate.example"));
    bound.waypoint = Some(GatewayAddress { destination: gate, hbone_mtls_port: 15008 });
    let all = vec![
        resource(bound, "1"),
        resource(service("gate", "10.96.0.9"), "1"),
        resource(endpoint("gate-1", "gate"), "1"),
        resource(endpoint("other", "s"), "1"),
        resource(own, "1"),
    ];
    apply(&mut client, response(Kind::Address, all, &[]));
    let (names, _) = client.forget_idle(now + Duration::from_secs(600)).unwrap();
    assert_eq!(names, ["other"], "the service in front of `own` and its waypoint are needed here");
}

#[test]
fn keys_nobody_asks_for_are_let_go_with_what_they_brought() {
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    let now = start();
    ask(&mut client, "/10.96.0.1", now);
    ask(&mut client, "ns/t.example", now);
    let mut own = workload("own");
    own.node = "n1".into();
    let all = vec![
        resource(service("s", "10.96.0.1"), "1"),
        resource(endpoint("e1", "s"), "1"),
        resource(service("t", "10.96.0.2"), "1"),
        resource(endpoint("e2", "t"), "1"),
        resource(own, "1"),
    ];
    apply(&mut client, response(Kind::Address, all, &[]));
    let later = now + Duration::from_secs(600);
    assert_eq!(client.look_up("ns/t.example", later), LookedUp::Settled);
    let (names, request) = client.forget_idle(later).unwrap();
    assert_eq!(names, ["e1", "ns/s.example"]);
    let request = request.unwrap();
    assert_eq!(request.resource_names_unsubscribe, ["/10.96.0.1", "e1", "ns/s.example"]);
    assert_eq!(client.forget_idle(later), None);
    let held = declared(&mut client, Kind::Address);
    assert_eq!(held, map(&[("e2", "1"), ("ns/t.example", "1"), ("own", "1")]));
}

#[test]
fn on_demand_a_node_is_synced_with_the_policies() {
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    apply(&mut client, response(Kind::Authorization, vec![], &[]));
    assert!(client.is_synced());
    client.on_disconnect();
    client.on_connect();
    assert!(client.is_synced(), "what was applied stays in force");
}

#[test]
fn keys_are_bounded_in_bytes_and_none_is_longer_than_a_name() {
    let limits = Limits { keys_bytes_max: 2000, ..Limits::default() };
    let mut client = client_with(Mode::OnDemand, limits);
    client.on_connect();
    let now = start();
    let key = |letter: &str, length: usize| letter.repeat(length);
    assert_eq!(client.look_up(&key("a", NAME_BYTES_MAX + 1), now), LookedUp::Full);
    ask(&mut client, &key("a", NAME_BYTES_MAX), now);
    assert_eq!(client.look_up(&key("b", 1000), now), LookedUp::Full, "together they are too many");
    ask(&mut client, &key("b", 900), now);
    assert_eq!(client.poll_lookups().unwrap().resource_names_subscribe.len(), 2);
    // What is let go makes room.
    let later = now + Duration::from_secs(600);
    client.expired_waiters(later);
    client.forget_idle(later).unwrap();
    ask(&mut client, &key("b", 1000), later);
}

#[test]
fn a_name_that_is_too_long_is_not_declared() {
    // The server would end the stream for it, and each one that follows.
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let long = "w".repeat(NAME_BYTES_MAX + 1);
    let both = vec![resource(workload("w"), "1"), resource(workload(&long), "1")];
    apply(&mut client, response(Kind::Address, both, &[]));
    assert_eq!(declared(&mut client, Kind::Address), map(&[("w", "1")]));
    // It is sent again or gone.
    let (update, _) = apply(&mut client, response(Kind::Address, vec![], &[]));
    assert_eq!(update.content.removed(), [long]);
}

#[test]
fn a_long_refusal_is_cut() {
    let limits = Limits { error_bytes_max: 20, ..Limits::default() };
    let mut client = client_with(Mode::Wildcard, limits);
    client.on_connect();
    let (_, acknowledged) = apply(&mut client, response(Kind::Address, vec![bad(&"w".repeat(1000))], &[]));
    let text = acknowledged.request.unwrap().error_detail.unwrap().message;
    assert_eq!(text, format!("{}…", "w".repeat(20)));
}
