//! Responses in parts: how large they are, who is given them, and when they count.

use prost::Message as _;

use super::*;
use crate::client::{Answered, Client, LookedUp, Mode};
use crate::node::NodeIdentity;
use crate::parts::{self, is_last};

const BYTES_MAX: usize = 2000;

fn node() -> NodeIdentity {
    NodeIdentity {
        ip: "10.0.0.1".parse().unwrap(),
        pod_name: "z".into(),
        namespace: "ns".into(),
        node_name: "n1".into(),
        metadata: BTreeMap::from([parts::metadata()]),
    }
}

fn many(count: usize) -> Delta {
    let addresses = (0..count).map(|number| workload(&format!("w{number:03}"), &[])).collect();
    Delta { addresses, policies: vec![policy("p", 1)], ..Delta::default() }
}

fn limited(delta: Delta) -> Rig {
    let mut rig = Rig::new(delta);
    rig.stream.limits.response_bytes_max = BYTES_MAX;
    rig
}

/// All responses to the first requests, each acknowledged by the client before the next.
fn connect(rig: &mut Rig, client: &mut Client, mut seen: impl FnMut(&Client, &Rig, &DeltaDiscoveryResponse)) {
    let mut requests: std::collections::VecDeque<_> = client.on_connect().into();
    while let Some(request) = requests.pop_front() {
        let Some(response) = rig.send(request) else { continue };
        let (_, receipt) = client.handle_response(response.clone());
        seen(client, rig, &response);
        requests.push_front(receipt.applied(client).request.unwrap());
    }
}

#[test]
fn a_large_response_goes_in_parts_of_bounded_size_and_counts_with_the_last() {
    let mut rig = limited(many(100));
    let mut client = Client::new(node(), Mode::Wildcard, crate::client::Limits::default());
    let (mut came, mut parts) = (Vec::new(), 0);
    connect(&mut rig, &mut client, |client, rig, response| {
        let kind = Kind::of(&response.type_url).unwrap();
        if kind == Kind::Address {
            parts += 1;
            assert!(response.encoded_len() < BYTES_MAX + 200, "{} bytes", response.encoded_len());
            came.extend(response.resources.iter().map(|resource| resource.name.clone()));
            assert_eq!(is_last(response), came.len() == 100);
        }
        assert!(!client.is_synced() && rig.stream.acked_revision().is_none(), "the last is not in force yet");
    });
    assert_eq!(came, (0..100).map(|number| format!("w{number:03}")).collect::<Vec<_>>());
    assert!(parts > 3, "{parts} parts");
    assert!(client.is_synced() && client.is_confirmed());
    assert_eq!(rig.stream.acked_revision(), Some(1));
}

#[test]
fn what_is_gone_goes_first_and_in_parts_too() {
    let mut rig = limited(many(1000));
    let mut client = Client::new(node(), Mode::Wildcard, crate::client::Limits::default());
    connect(&mut rig, &mut client, |_, _, _| {});
    let removed_addresses: Vec<String> = (0..1000).map(|number| format!("w{number:03}")).collect();
    let change = Delta { removed_addresses: removed_addresses.clone(), ..Delta::default() };
    rig.resources.apply(2, change);
    let mut next = rig.publish(3, Delta { addresses: vec![workload("new", &[])], ..Delta::default() });
    let (mut gone, mut parts) = (Vec::new(), 0);
    while let Some(response) = next {
        parts += 1;
        assert!(response.encoded_len() < BYTES_MAX + 200, "{} bytes", response.encoded_len());
        assert_eq!(response.resources.is_empty(), gone.len() + response.removed_resources.len() < 1000);
        gone.extend(response.removed_resources.clone());
        let (_, receipt) = client.handle_response(response);
        next = rig.send(receipt.applied(&mut client).request.unwrap());
    }
    assert_eq!((gone, parts > 1), (removed_addresses, true));
    assert_eq!(client.held(Kind::Address).0, 1);
}

#[test]
fn who_does_not_say_that_it_takes_parts_gets_everything_at_once() {
    let mut rig = limited(many(100));
    let came = rig.subscribe(&[]);
    assert_eq!(came.len(), 2);
    assert_eq!(came[1].split('+').count(), 101);
}

#[test]
fn names_that_were_not_declared_are_gone_only_after_the_last_part() {
    let mut rig = limited(many(100));
    let limits = crate::client::Limits { request_bytes_max: 400, ..crate::client::Limits::default() };
    let mut client = Client::new(node(), Mode::Wildcard, limits);
    connect(&mut rig, &mut client, |_, _, _| {});
    assert_eq!(client.held(Kind::Address).0, 100);
    let gone = Delta { removed_addresses: vec!["w099".into()], ..Delta::default() };
    rig.resources.apply(2, gone);
    client.on_disconnect();
    rig.stream = Connection::new("n1", Arc::new(rig.resources.clone()), rig.stream.limits);
    connect(&mut rig, &mut client, |client, _, response| {
        let held = client.held(Kind::Address).0;
        assert_eq!(held, 100, "before {}", brief(response));
    });
    assert_eq!(client.held(Kind::Address).0, 99);
}

#[test]
fn a_lookup_is_answered_with_the_last_part() {
    let service = ServiceKey::new("ns", "s.example");
    let endpoint = |number: usize| {
        // Behind the service in the order of names.
        let mut pod = Workload::new(format!("x{number:03}"), "ns", format!("x{number:03}"));
        pod.services = [(service.clone(), vec![])].into();
        Address::from(pod)
    };
    let mut addresses: Vec<Address> = (0..100).map(endpoint).collect();
    addresses.push(Service::new("ns", "s", "s.example").into());
    let mut rig = limited(Delta { addresses, ..Delta::default() });
    let mut client = Client::new(node(), Mode::OnDemand, crate::client::Limits::default());
    connect(&mut rig, &mut client, |_, _, _| {});
    let LookedUp::Waiting(ticket) = client.look_up("ns/s.example", rig.now) else { panic!("not known yet") };
    let mut request = client.poll_lookups();
    let mut parts = 0;
    while let Some(response) = request.take().and_then(|request| rig.send(request)) {
        parts += 1;
        let last = is_last(&response);
        let (_, receipt) = client.handle_response(response);
        let acknowledged = receipt.applied(&mut client);
        let expected: Vec<Answered> = last.then_some(Answered { ticket, found: true }).into_iter().collect();
        assert_eq!(acknowledged.answered, expected, "part {parts}");
        request = acknowledged.request;
    }
    assert!(parts > 3, "{parts} parts");
}

#[test]
fn what_is_unsubscribed_while_parts_wait_is_not_sent_any_more() {
    let addresses = (0..100).map(|number| workload(&format!("w{number:03}"), &[])).collect();
    let mut rig = limited(Delta { addresses, ..Delta::default() });
    let mut client = Client::new(node(), Mode::OnDemand, crate::client::Limits::default());
    connect(&mut rig, &mut client, |_, _, _| {});
    let all: Vec<String> = (0..100).map(|number| format!("w{number:03}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let first = rig.send(names(&all, &[])).unwrap();
    assert!(!is_last(&first));
    assert_eq!(rig.send(names(&[], &all[1..])), None, "the first part is not answered");
    let rest = rig.acknowledge(&first, "");
    assert!(rest.as_ref().is_some_and(is_last), "who waits for the last part gets one");
    // What was sent crossed the request, and may have come after the client had let go of it.
    let crossed = first.resources[1..].iter().map(|one| format!(" -{}", one.name)).collect::<String>();
    assert_eq!(rig.settle(rest), ["Address".to_owned(), format!("Address{crossed}")]);
}
