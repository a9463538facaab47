//! The real client against the real server through a lossy wire: random changes, refusals, stale answers, broken
//! streams. In the end the client holds what is published; at every step no workload names a policy that the
//! client has not been given.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_types::{PolicyKey, Service, Workload};
use ambit_xds::Kind;
use ambit_xds::client::{Client, Content, Limits, Mode, Update};
use ambit_xds::codec::Address;
use ambit_xds::node::NodeIdentity;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use ambit_xds::server::{self, Connection, Delta, Resources};
use proptest::prelude::*;

const NAMES: u8 = 5;
/// The content with this number is refused by the client.
const BAD: u8 = 3;

#[derive(Debug, Clone)]
enum Act {
    /// Policy, and its content or its end.
    Policy(u8, Option<u8>),
    /// Workload, its content and the policies it names, or its end.
    Workload(u8, Option<(u8, BTreeSet<u8>)>),
    Service(u8, Option<u8>),
    /// Publish what has changed since.
    Publish,
    ToServer,
    ToClient,
    StaleAnswer,
    /// The response is lost with its stream.
    Reconnect,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let content = || proptest::option::weighted(0.7, 0..=BAD);
    let refs = proptest::collection::btree_set(0..NAMES, 0..3);
    let act = prop_oneof![
        4 => (0..NAMES, content()).prop_map(|(n, c)| Act::Policy(n, c)),
        4 => (0..NAMES, proptest::option::weighted(0.8, (0..=BAD, refs))).prop_map(|(n, c)| Act::Workload(n, c)),
        2 => (0..NAMES, content()).prop_map(|(n, c)| Act::Service(n, c)),
        4 => Just(Act::Publish),
        6 => Just(Act::ToServer),
        6 => Just(Act::ToClient),
        1 => Just(Act::StaleAnswer),
        1 => Just(Act::Reconnect),
    ];
    proptest::collection::vec(act, 1..120)
}

fn policy(name: u8, content: u8) -> Policy {
    Policy {
        key: PolicyKey::new("ns", format!("p{name}")),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule::default(); content.into()],
        dry_run: false,
        until: None,
    }
}

/// What the configuration says; never with a workload that names a policy that is not there.
#[derive(Debug, Default, Clone)]
struct Wanted {
    policies: BTreeMap<u8, u8>,
    workloads: BTreeMap<u8, (u8, BTreeSet<u8>)>,
    services: BTreeMap<u8, u8>,
}

impl Wanted {
    fn records(&self) -> (BTreeMap<String, Arc<Policy>>, BTreeMap<String, Address>) {
        let policies = self.policies.iter().map(|(name, content)| policy(*name, *content));
        let workloads = self.workloads.iter().map(|(name, (content, names))| {
            let mut workload = Workload::new(format!("c//Pod/ns/w{name}"), "ns", format!("w{name}"));
            workload.capacity = u32::from(*content) + 1;
            let there = names.iter().filter(|policy| self.policies.contains_key(policy));
            workload.policies = there.map(|policy| PolicyKey::new("ns", format!("p{policy}"))).collect();
            Address::from(workload)
        });
        let services = self.services.iter().map(|(name, content)| {
            let mut service = Service::new("ns", format!("s{name}"), format!("s{name}.example"));
            service.canonical = content % 2 == 1;
            service.ingress_use_waypoint = content / 2 == 1;
            Address::from(service)
        });
        (
            policies.map(|policy| (policy.key.to_string(), Arc::new(policy))).collect(),
            workloads.chain(services).map(|address| (address.name(), address)).collect(),
        )
    }

    fn is_bad(&self, name: &str) -> bool {
        let number = || name.trim_end_matches(".example").chars().last()?.to_digit(10);
        let Some(number) = number().and_then(|n| u8::try_from(n).ok()) else { return false };
        let content = if name.starts_with("ns/p") {
            self.policies.get(&number)
        } else if name.starts_with("ns/s") {
            self.services.get(&number)
        } else {
            self.workloads.get(&number).map(|(content, _)| content)
        };
        content == Some(&BAD)
    }
}

struct World {
    wanted: Wanted,
    resources: Resources,
    published: Arc<Resources>,
    published_wanted: Wanted,
    revision: u64,
    /// Every name held fits into a first request. Without that, policies that are gone go when the stream begins,
    /// and workloads that still name them refuse connections until their own update comes a moment later.
    declares_all: bool,
    /// Versions the client refuses.
    bad: BTreeSet<(String, String)>,
    client: Client,
    stream: Connection,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    now: Instant,
    policies: BTreeMap<String, Arc<Policy>>,
    addresses: BTreeMap<String, Address>,
    refused: BTreeSet<String>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(request_bytes_max: usize) -> Self {
        let node = NodeIdentity {
            ip: "10.0.0.1".parse().unwrap(),
            pod_name: "z".into(),
            namespace: "istio-system".into(),
            node_name: "n1".into(),
            metadata: BTreeMap::new(),
        };
        let limits = Limits { request_bytes_max, ..Limits::default() };
        let published = Arc::new(Resources::default());
        let mut world = Self {
            wanted: Wanted::default(),
            resources: Resources::default(),
            published: published.clone(),
            published_wanted: Wanted::default(),
            revision: 0,
            declares_all: request_bytes_max >= Limits::default().request_bytes_max,
            bad: BTreeSet::new(),
            client: Client::new(node, Mode::Wildcard, limits),
            stream: Connection::new("n1", published, server::Limits::default()),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            now: Instant::now(),
            policies: BTreeMap::new(),
            addresses: BTreeMap::new(),
            refused: BTreeSet::new(),
        };
        world.reconnect();
        world
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Policy(name, Some(content)) => drop(self.wanted.policies.insert(name, content)),
            Act::Policy(name, None) => drop(self.wanted.policies.remove(&name)),
            Act::Workload(name, Some(content)) => drop(self.wanted.workloads.insert(name, content)),
            Act::Workload(name, None) => drop(self.wanted.workloads.remove(&name)),
            Act::Service(name, Some(content)) => drop(self.wanted.services.insert(name, content)),
            Act::Service(name, None) => drop(self.wanted.services.remove(&name)),
            Act::Publish => self.publish(),
            Act::ToServer => self.step_server(),
            Act::ToClient => self.step_client(),
            Act::StaleAnswer => self.to_server.push_back(DeltaDiscoveryRequest {
                type_url: Kind::Address.url().into(),
                response_nonce: "0.0".into(),
                ..DeltaDiscoveryRequest::default()
            }),
            Act::Reconnect => self.reconnect(),
        }
    }

    fn publish(&mut self) {
        let (policies, addresses) = self.wanted.records();
        let (old_policies, old_addresses) = self.published_wanted.records();
        let gone = |name: &&String, now: bool| (!now).then(|| name.to_string());
        let delta = Delta {
            removed_addresses: old_addresses
                .keys()
                .filter_map(|name| gone(&name, addresses.contains_key(name)))
                .collect(),
            removed_policies: old_policies
                .keys()
                .filter_map(|name| gone(&name, policies.contains_key(name)))
                .collect(),
            addresses: addresses.values().cloned().collect(),
            policies: policies.values().cloned().collect(),
        };
        self.revision += 1;
        self.resources.apply(self.revision, delta);
        self.published_wanted = self.wanted.clone();
        for kind in Kind::ALL {
            let names: Vec<&String> = match kind {
                Kind::Address => addresses.keys().collect(),
                Kind::Authorization => policies.keys().collect(),
                other => panic!("a node gets no {other}"),
            };
            for name in names.into_iter().filter(|name| self.wanted.is_bad(name)) {
                let version = self.resources.version(kind, name).expect("just published");
                self.bad.insert((name.clone(), version.to_owned()));
            }
        }
        self.published = Arc::new(self.resources.clone());
        let response = self.stream.handle_change(self.published.clone(), self.now);
        self.to_client.extend(response);
    }

    fn reconnect(&mut self) {
        self.client.on_disconnect();
        self.to_client.clear();
        self.to_server.clear();
        self.stream = Connection::new("n1", self.published.clone(), server::Limits::default());
        for request in self.client.on_connect() {
            let response = self.stream.handle_request(request, self.now).expect("known type");
            self.to_client.extend(response);
        }
    }

    fn step_server(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        let response = self.stream.handle_request(request, self.now).expect("known type");
        self.to_client.extend(response);
        assert!(self.to_client.len() <= 1, "one response at a time");
    }

    fn step_client(&mut self) {
        let Some(mut response) = self.to_client.pop_front() else { return };
        for resource in &mut response.resources {
            if self.bad.contains(&(resource.name.clone(), resource.version.clone())) {
                resource.resource = None;
            }
        }
        let (update, receipt) = self.client.handle_response(response);
        self.apply(update);
        self.to_server.extend(receipt.applied(&mut self.client).request);
        if self.declares_all {
            self.no_workload_names_a_policy_that_was_not_given();
        }
    }

    fn apply(&mut self, update: Update) {
        for name in update.content.removed() {
            self.refused.remove(name);
            self.addresses.remove(name);
            self.policies.remove(name);
        }
        match update.content {
            Content::Addresses { upserts, .. } => {
                for address in upserts {
                    self.refused.remove(&address.name());
                    self.addresses.insert(address.name(), address);
                }
            }
            Content::Policies { upserts, .. } => {
                for policy in upserts {
                    self.refused.remove(&policy.key.to_string());
                    self.policies.insert(policy.key.to_string(), policy);
                }
            }
            Content::Waypoint(content) => panic!("{content:?}"),
            Content::Unknown { type_url } => panic!("{type_url}"),
        }
        self.refused.extend(update.rejected.into_iter().map(|rejected| rejected.name));
    }

    fn no_workload_names_a_policy_that_was_not_given(&self) {
        for (name, address) in &self.addresses {
            // An older version stays in force if the newer one is refused: it may name what is gone, and denies.
            if self.refused.contains(name) {
                continue;
            }
            if let Address::Workload(workload) = address {
                for policy in workload.policies.iter().map(ToString::to_string) {
                    let given = self.policies.contains_key(&policy) || self.refused.contains(&policy);
                    assert!(given, "{name} names {policy}, which the client was not given");
                }
            }
        }
    }

    fn settle(&mut self) {
        self.publish();
        let mut rounds = 0;
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.step_server();
            self.step_client();
            rounds += 1;
            assert!(rounds < 100, "it never ends");
        }
    }

    fn client_equals_server(&self) {
        let (policies, addresses) = self.wanted.records();
        let bad = |name: &&String| self.wanted.is_bad(name);
        let names = policies.keys().chain(addresses.keys());
        let expected: BTreeSet<String> = names.filter(bad).cloned().collect();
        assert_eq!(self.refused, expected, "refused by the client");
        let known: BTreeSet<String> = self.stream.rejections().map(|rejection| rejection.name).collect();
        assert_eq!(known, expected, "refusals known to the server");
        let good = |name: &String| !self.refused.contains(name);
        let mut held = self.policies.clone();
        held.retain(|name, _| good(name));
        let mut want = policies.clone();
        want.retain(|name, _| good(name));
        assert_eq!(held, want);
        let mut held = self.addresses.clone();
        held.retain(|name, _| good(name));
        let mut want = addresses.clone();
        want.retain(|name, _| good(name));
        assert_eq!(held, want);
        assert!(self.policies.keys().all(|name| policies.contains_key(name)), "nothing stale");
        assert!(self.addresses.keys().all(|name| addresses.contains_key(name)), "nothing stale");
        assert_eq!(self.stream.acked_revision(), Some(self.revision));
        assert!(self.client.is_synced());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_client_ends_with_what_is_published(acts in acts(), request_bytes_max in prop_oneof![Just(3 << 20), 300..600usize]) {
        let mut world = World::new(request_bytes_max);
        for act in acts {
            world.act(act);
        }
        world.settle();
        world.client_equals_server();
        // What was refused is not sent again before it changes.
        let again = Arc::new(world.resources.clone());
        world.now += Duration::from_secs(1);
        prop_assert_eq!(world.stream.handle_change(again, world.now), None);
        world.reconnect();
        world.settle();
        world.client_equals_server();
    }
}
