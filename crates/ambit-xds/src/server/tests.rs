//! The publisher, row by row: subscriptions, resumption, order, acknowledgements.

mod bounds;
mod crossing;
mod keys;
mod on_demand;
mod parts;
mod unready;

use std::collections::BTreeMap;

use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_types::{Destination, GatewayAddress, NetworkAddress, PolicyKey, Service, ServiceKey, Workload};

use super::*;
use crate::client::WILDCARD;
use crate::codec::Address;
use crate::proto::google::rpc::Status;

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn policy(name: &str, rules: usize) -> Arc<Policy> {
    Arc::new(Policy {
        key: PolicyKey::new("ns", name),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule::default(); rules],
        dry_run: false,
        until: None,
    })
}

fn workload(name: &str, policies: &[&str]) -> Address {
    let mut workload = Workload::new(name, "ns", name);
    workload.policies = policies.iter().map(|name| PolicyKey::new("ns", *name)).collect();
    workload.into()
}

/// What is published, and one stream of a client on node n1.
struct Rig {
    resources: Resources,
    stream: Connection,
    now: Instant,
}

/// A response in short: kind, `+NAME`, `-NAME`, in order.
fn brief(response: &DeltaDiscoveryResponse) -> String {
    let kind = Kind::of(&response.type_url).unwrap();
    let mut parts = vec![kind.to_string()];
    parts.extend(response.resources.iter().map(|resource| format!("+{}", resource.name)));
    parts.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    parts.join(" ")
}

impl Rig {
    fn new(delta: Delta) -> Self {
        let mut resources = Resources::default();
        resources.apply(1, delta);
        let stream = Connection::new("n1", Arc::new(resources.clone()), Limits::default());
        Self { resources, stream, now: start() }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        self.stream.handle_request(request, self.now).unwrap()
    }

    fn publish(&mut self, revision: u64, delta: Delta) -> Option<DeltaDiscoveryResponse> {
        self.resources.apply(revision, delta);
        self.stream.handle_change(Arc::new(self.resources.clone()), self.now)
    }

    fn acknowledge(
        &mut self,
        response: &DeltaDiscoveryResponse,
        error: &str,
    ) -> Option<DeltaDiscoveryResponse> {
        let status = Status { message: error.to_owned(), ..Status::default() };
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: (!error.is_empty()).then_some(status),
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// Acknowledges whatever comes, until nothing does: everything that came.
    fn settle(&mut self, mut response: Option<DeltaDiscoveryResponse>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(each) = response {
            all.push(brief(&each));
            response = self.acknowledge(&each, "");
        }
        all
    }

    /// Subscribes to everything, declaring `held`, and settles.
    fn subscribe(&mut self, held: &[(Kind, &[(&str, &str)])]) -> Vec<String> {
        let of = |kind| {
            let entries = held.iter().filter(|(of, _)| *of == kind).flat_map(|(_, entries)| entries.iter());
            entries.map(|(name, version)| (name.to_string(), version.to_string())).collect()
        };
        assert_eq!(self.send(first(Kind::Address, of(Kind::Address))), None);
        let response = self.send(first(Kind::Authorization, of(Kind::Authorization)));
        self.settle(response)
    }
}

fn first(kind: Kind, initial_resource_versions: BTreeMap<String, String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().into(),
        initial_resource_versions,
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..first(Kind::Address, BTreeMap::new())
    }
}

fn some() -> Delta {
    Delta {
        addresses: vec![workload("w", &["p"]), Service::new("ns", "s", "s.example").into()],
        policies: vec![policy("p", 1)],
        ..Delta::default()
    }
}

#[test]
fn policies_go_before_workloads_and_leave_after_them() {
    let mut rig = Rig::new(some());
    assert_eq!(rig.subscribe(&[]), ["Authorization +ns/p", "Address +ns/s.example +w"]);
    let change = Delta {
        addresses: vec![workload("w", &["q"])],
        policies: vec![policy("q", 1)],
        removed_policies: vec!["ns/p".into()],
        ..Delta::default()
    };
    let response = rig.publish(2, change);
    assert_eq!(rig.settle(response), ["Authorization +ns/q", "Address +w", "Authorization -ns/p"]);
}

#[test]
fn a_refused_policy_holds_nothing_up_and_is_not_sent_again_before_it_changes() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    let addresses = rig.acknowledge(&policies, "ns/p: rules[0]: is strange").unwrap();
    assert_eq!(brief(&addresses), "Address +ns/s.example +w");
    assert_eq!(rig.acknowledge(&addresses, ""), None);
    let refused =
        Rejection { kind: Kind::Authorization, name: "ns/p".into(), reason: "rules[0]: is strange".into() };
    assert_eq!(rig.stream.rejections().collect::<Vec<_>>(), [refused]);
    assert_eq!(rig.stream.acked_revision(), Some(1), "answered, though not accepted");
    let unrelated = Delta { addresses: vec![workload("x", &[])], ..Delta::default() };
    let response = rig.publish(2, unrelated);
    assert_eq!(rig.settle(response), ["Address +x"]);
    assert_eq!(rig.stream.rejections().count(), 1);
    let response = rig.publish(3, Delta { policies: vec![policy("p", 2)], ..Delta::default() });
    assert_eq!(rig.settle(response), ["Authorization +ns/p"]);
    assert_eq!(rig.stream.rejections().count(), 0);
}

#[test]
fn a_refusal_ends_with_its_resource() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new()));
    let addresses = rig.acknowledge(&policies.unwrap(), "").unwrap();
    rig.acknowledge(&addresses, "w: addresses[0]: has 5 bytes; ns/s.example: a: b; c: d");
    let reasons: Vec<String> = rig.stream.rejections().map(|r| format!("{}|{}", r.name, r.reason)).collect();
    assert_eq!(reasons, ["ns/s.example|a: b; c: d", "w|addresses[0]: has 5 bytes"]);
    let response = rig.publish(2, Delta { removed_addresses: vec!["w".into()], ..Delta::default() });
    assert_eq!(rig.settle(response), ["Address -w"]);
    let left: Vec<String> = rig.stream.rejections().map(|r| r.name).collect();
    assert_eq!(left, ["ns/s.example"]);
}

#[test]
fn a_refusal_that_names_nothing_is_kept_as_it_is() {
    let found = refusals("out of memory; sorry: bye", |_| false);
    assert_eq!(found, [(String::new(), "out of memory; sorry: bye".to_owned())]);
}

#[test]
fn workloads_wait_for_the_subscription_to_policies_but_not_for_ever() {
    let mut rig = Rig::new(some());
    assert_eq!(rig.send(first(Kind::Address, BTreeMap::new())), None);
    let until = rig.stream.next_deadline().unwrap();
    assert_eq!(until, rig.now + Limits::default().policy_grace);
    assert_eq!(rig.stream.handle_timeout(rig.now), Ok(None));
    rig.now = until;
    let response = rig.stream.handle_timeout(rig.now).unwrap();
    assert_eq!(rig.settle(response), ["Address +ns/s.example +w"]);
    assert_eq!(rig.stream.acked_revision(), None, "policies are in force nowhere");
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    assert_eq!(rig.settle(response), ["Authorization +ns/p"]);
    assert_eq!(rig.stream.acked_revision(), Some(1));
}

#[test]
fn a_client_that_comes_back_gets_the_differences() {
    let rig = Rig::new(some());
    let version = |kind, name| rig.resources.version(kind, name).unwrap().to_owned();
    let (w, p) = (version(Kind::Address, "w"), version(Kind::Authorization, "ns/p"));
    let addresses = [("w", w.as_str()), ("ns/s.example", "old"), ("gone", "1")];
    let policies = [("ns/p", p.as_str()), ("ns/gone", "1"), ("ns/refused", "")];
    let mut rig = Rig::new(some());
    let came = rig.subscribe(&[(Kind::Address, &addresses), (Kind::Authorization, &policies)]);
    // Empty responses too: a client counts as synced with the first response of each type.
    assert_eq!(came, ["Authorization", "Address +ns/s.example -gone", "Authorization -ns/gone -ns/refused"]);
}

#[test]
fn a_stale_answer_is_no_answer() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    let mut stale = policies.clone();
    stale.nonce = "0.0".into();
    assert_eq!(rig.acknowledge(&stale, "ns/p: no"), None);
    assert_eq!(rig.stream.rejections().count(), 0);
    let mut other = policies.clone();
    other.type_url = Kind::Address.url().into();
    assert_eq!(rig.acknowledge(&other, ""), None, "the nonce of the other kind");
    assert!(rig.acknowledge(&policies, "").is_some());
}

#[test]
fn changes_during_a_response_become_one_response() {
    let mut rig = Rig::new(some());
    rig.subscribe(&[]);
    let response = rig.publish(2, Delta { addresses: vec![workload("a", &[])], ..Delta::default() });
    assert_eq!(brief(response.as_ref().unwrap()), "Address +a");
    assert_eq!(rig.publish(3, Delta { addresses: vec![workload("b", &[])], ..Delta::default() }), None);
    assert_eq!(rig.publish(4, Delta { addresses: vec![workload("c", &[])], ..Delta::default() }), None);
    assert_eq!(
        rig.publish(5, Delta { removed_addresses: vec!["b".into(), "a".into()], ..Delta::default() }),
        None
    );
    assert_eq!(rig.stream.acked_revision(), Some(1));
    assert_eq!(rig.settle(response), ["Address +a", "Address +c -a"]);
    assert_eq!(rig.stream.acked_revision(), Some(5));
}

#[test]
fn a_revision_is_in_force_once_its_last_response_is_answered() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    assert_eq!(rig.stream.acked_revision(), None);
    let addresses = rig.acknowledge(&policies, "").unwrap();
    assert_eq!(rig.stream.acked_revision(), None);
    rig.acknowledge(&addresses, "");
    assert_eq!(rig.stream.acked_revision(), Some(1));
    assert_eq!(rig.publish(2, Delta::default()), None, "nothing that concerns the client");
    assert_eq!(rig.stream.acked_revision(), Some(2));
}

#[test]
fn an_answer_that_does_not_come_ends_the_stream() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    assert!(rig.send(first(Kind::Authorization, BTreeMap::new())).is_some());
    let deadline = rig.stream.next_deadline().unwrap();
    assert_eq!(rig.stream.handle_timeout(deadline - Duration::from_millis(1)), Ok(None));
    let waited = Limits::default().answer_timeout;
    let error = StreamError::NoAnswer { kind: Kind::Authorization, waited };
    assert_eq!(rig.stream.handle_timeout(deadline), Err(error));
}

#[test]
fn types_that_are_not_served_end_the_stream() {
    let mut rig = Rig::new(some());
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        ..DeltaDiscoveryRequest::default()
    };
    let error = rig.stream.handle_request(request, rig.now).unwrap_err();
    assert!(matches!(error, StreamError::UnknownType { .. }));
}

#[test]
fn a_star_means_everything() {
    let mut rig = Rig::new(some());
    rig.send(names(&[WILDCARD], &[]));
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    assert_eq!(rig.settle(response), ["Authorization +ns/p", "Address +ns/s.example +w"]);
}

#[test]
fn a_payload_is_encoded_once_for_all_streams() {
    let address = |rig: &mut Rig| {
        rig.send(first(Kind::Address, BTreeMap::new()));
        let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
        let addresses = rig.acknowledge(&policies, "").unwrap();
        addresses.resources[1].resource.as_ref().unwrap().value.as_ptr()
    };
    let mut one = Rig::new(some());
    let latest = Arc::new(one.resources.clone());
    let mut two = Rig {
        resources: one.resources.clone(),
        stream: Connection::new("n2", latest, Limits::default()),
        now: one.now,
    };
    assert_eq!(address(&mut one), address(&mut two));
}

#[test]
fn what_does_not_differ_is_no_change() {
    let mut resources = Resources::default();
    assert!(resources.apply(1, some()));
    assert!(!resources.apply(2, some()));
    assert_eq!(resources.revision(), 2);
    assert!(!resources.apply(3, Delta { removed_addresses: vec!["never".into()], ..Delta::default() }));
    assert!(resources.apply(1, Delta { removed_policies: vec!["ns/p".into()], ..Delta::default() }));
    assert_eq!((resources.revision(), resources.len(Kind::Authorization)), (3, 0));
}

/// A service behind a waypoint, its endpoints, a stranger, and a workload of the client's node.
fn mesh() -> Delta {
    let gateway = |hostname: &str| GatewayAddress {
        destination: Destination::Hostname(ServiceKey::new("ns", hostname)),
        hbone_mtls_port: 15008,
    };
    let service = |name: &str, vip: &str, waypoint: Option<&str>| {
        let mut service = Service::new("ns", name, format!("{name}.example"));
        service.vips = vec![NetworkAddress::new("net".into(), vip.parse().unwrap())];
        service.waypoint = waypoint.map(gateway);
        Address::from(service)
    };
    let pod = |name: &str, ip: &str, of: &str, node: &str| {
        let mut pod = Workload::new(name, "ns", name);
        pod.network = "net".into();
        pod.addresses = vec![ip.parse().unwrap()];
        pod.services = [(ServiceKey::new("ns", format!("{of}.example")), vec![])].into();
        pod.node = node.into();
        Address::from(pod)
    };
    Delta {
        addresses: vec![
            service("s", "10.96.0.1", Some("wp.example")),
            service("wp", "10.96.0.2", None),
            service("other", "10.96.0.3", None),
            pod("s-1", "10.1.0.1", "s", "n2"),
            pod("s-2", "10.1.0.2", "s", "n3"),
            pod("wp-1", "10.1.0.3", "wp", "n3"),
            pod("o-1", "10.1.0.4", "other", "n3"),
            pod("own", "10.1.0.5", "other", "n1"),
        ],
        ..Delta::default()
    }
}

fn on_demand() -> Rig {
    let mut rig = Rig::new(mesh());
    rig.send(names(&[WILDCARD], &[WILDCARD]));
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    let nothing_yet = ["Authorization", "Address +ns/other.example +own"];
    assert_eq!(rig.settle(response), nothing_yet, "but one's own node, and what is in front of it");
    rig
}

#[test]
fn a_name_is_held_once_whoever_has_it() {
    let pod = |name: &str| {
        let mut pod = Workload::new(name, "ns", name);
        pod.services = [(ServiceKey::new("ns", "s.example"), vec![])].into();
        Arc::new(pod)
    };
    let pods = ["a", "b"].map(pod);
    let mut resources = Resources::default();
    let addresses = pods.iter().cloned().map(Address::Workload).collect();
    resources.apply(1, Delta { addresses, ..Delta::default() });
    for pod in &pods {
        let (name, _) = resources.addresses().entry(pod.uid.as_str()).expect("it was published");
        assert!(Arc::ptr_eq(name, &pod.uid.shared()), "{name}");
    }
    let services: Vec<_> = pods.iter().flat_map(|pod| resources.leads(pod.uid.as_str())).collect();
    assert_eq!(services.iter().map(|name| &***name).collect::<Vec<_>>(), ["ns/s.example"; 2]);
    assert!(Arc::ptr_eq(services[0], services[1]));
}
