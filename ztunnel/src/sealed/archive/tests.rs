//! What the archive yields leads a fresh start to the world, and to the versions, that the long way led to.

use std::net::IpAddr;

use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_state::{Snapshot, World};
use ambit_types::{PolicyKey, Service, Uid, Workload};
use ambit_xds::client::{Client, Limits, Mode};
use ambit_xds::codec::{Address, authorization};
use ambit_xds::node::NodeIdentity;
use proptest::prelude::*;

use super::*;
use crate::xds::changes;

const NODE: &str = "node1";

/// A node as far as discovery is concerned.
struct Node {
    client: Client,
    world: World,
    archive: Archive,
}

impl Node {
    fn new() -> Self {
        let identity = NodeIdentity {
            ip: IpAddr::from([10, 0, 0, 1]),
            pod_name: String::new(),
            namespace: String::new(),
            node_name: NODE.to_owned(),
            metadata: BTreeMap::new(),
        };
        Self {
            client: Client::new(identity, Mode::Wildcard, Limits::default()),
            world: World::new(NODE),
            archive: Archive::default(),
        }
    }

    /// A node that starts with what another one archived.
    fn restored(archive: &Archive) -> Self {
        let mut node = Self::new();
        archive.responses().into_iter().for_each(|response| node.take(response));
        node
    }

    fn take(&mut self, response: DeltaDiscoveryResponse) {
        let copy = response.clone();
        let (update, receipt) = self.client.handle_response(response);
        let refused = update.rejected.iter().map(|rejected| rejected.name.as_str()).collect();
        self.archive.absorb(copy, &refused, update.content.removed());
        let _ = self.world.apply(changes(update));
        let _ = receipt.applied(&mut self.client);
    }

    /// Everything that decides: records, policies in force, refusals that deny.
    fn seen(&self) -> Vec<String> {
        let snapshot: &Snapshot = &self.world.snapshot();
        let workloads = snapshot.workloads().into_iter().map(|w| format!("{w:?}"));
        let services = snapshot.services().into_iter().map(|s| format!("{:?}", s.service()));
        let policies = snapshot.policies().map(|p| format!("{p:?}"));
        let own = snapshot.own_workloads().map(|w| format!("{:?}", snapshot.own_policies(&w.uid)));
        workloads.chain(services).chain(policies).chain(own).collect()
    }

    /// What the next stream declares.
    fn declared(&mut self) -> Vec<BTreeMap<String, String>> {
        let requests = self.client.on_connect().into_iter();
        let declared = requests.map(|request| request.initial_resource_versions).collect();
        self.client.on_disconnect();
        declared
    }
}

#[track_caller]
fn same(mut long: Node) {
    let mut short = Node::restored(&long.archive);
    assert_eq!(short.seen(), long.seen());
    assert_eq!(short.declared(), long.declared());
    // And so on: a second restart finds what the first one found.
    assert_eq!(Node::restored(&short.archive).seen(), long.seen());
}

fn address(address: impl Into<Address>, version: &str) -> Resource {
    let address = address.into();
    resource(address.name(), version, address.encode())
}

fn resource(name: String, version: &str, any: Any) -> Resource {
    Resource { name, version: version.to_owned(), resource: Some(any), ..Resource::default() }
}

fn workload(name: &str, policies: &[&str]) -> Workload {
    let mut workload = Workload::new(Uid::from(name), "shop", name);
    workload.node = NODE.into();
    workload.policies = policies.iter().map(|key| PolicyKey::parse(key).unwrap()).collect();
    workload
}

fn service(name: &str) -> Service {
    Service::new("shop", name, name)
}

fn policy(name: &str, scope: Scope, version: &str) -> Resource {
    let policy = Policy {
        key: PolicyKey::new("shop", name),
        scope,
        action: Action::Deny,
        rules: vec![Rule::default()],
        dry_run: version == "dry",
        until: None,
    };
    resource(policy.key.to_string(), version, authorization::encode_any(&policy))
}

/// A policy whose content says another name: readable enough for its scope, of no use.
fn broken(name: &str, scope: Scope) -> Resource {
    Resource { name: format!("shop/{name}"), ..policy("other", scope, "b") }
}

fn said(kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..response(kind, resources)
    }
}

#[test]
fn a_start_sees_what_was_in_force() {
    use Kind::{Address as A, Authorization as P};
    let rows: [(&str, Vec<DeltaDiscoveryResponse>); 7] = [
        ("nothing", vec![]),
        ("empty answers", vec![said(P, vec![], &[]), said(A, vec![], &[])]),
        (
            "one of each",
            vec![
                said(P, vec![policy("lock", Scope::WorkloadSelector, "1")], &[]),
                said(A, vec![address(workload("w", &["shop/lock"]), "1"), address(service("s"), "1")], &[]),
            ],
        ),
        (
            "changes and removals",
            vec![
                said(A, vec![address(workload("w", &[]), "1"), address(workload("v", &[]), "1")], &[]),
                said(A, vec![address(workload("w", &["shop/x"]), "2")], &["v", "never there"]),
            ],
        ),
        (
            "a policy that was never any good denies",
            vec![
                said(P, vec![broken("lock", Scope::Namespace)], &[]),
                said(A, vec![address(workload("w", &[]), "1")], &[]),
            ],
        ),
        (
            "a good policy stays in force beside its refused successor",
            vec![
                said(P, vec![policy("lock", Scope::Namespace, "1")], &[]),
                said(P, vec![broken("lock", Scope::Namespace)], &[]),
                said(A, vec![address(workload("w", &[]), "1")], &[]),
            ],
        ),
        (
            "a refused one is mended, another is removed",
            vec![
                said(P, vec![broken("lock", Scope::Namespace), broken("key", Scope::Global)], &[]),
                said(P, vec![policy("lock", Scope::Namespace, "2")], &["shop/key"]),
                said(A, vec![address(workload("w", &[]), "1")], &[]),
            ],
        ),
    ];
    for (row, responses) in rows {
        println!("row {row}");
        let mut node = Node::new();
        responses.into_iter().for_each(|response| node.take(response));
        same(node);
    }
}

#[test]
fn refusals_survive_a_start() {
    let mut node = Node::new();
    node.take(said(Kind::Authorization, vec![broken("lock", Scope::Namespace)], &[]));
    node.take(said(Kind::Address, vec![address(workload("w", &[]), "1")], &[]));
    let restored = Node::restored(&node.archive);
    let snapshot = restored.world.snapshot();
    let in_force = snapshot.own_policies(&Uid::from("w")).expect("it is of this node");
    assert!(format!("{in_force:?}").contains("lock"), "{in_force:?}");
}

#[test]
fn only_what_is_other_than_before_is_news() {
    let name = address(workload("w", &[]), "1").name;
    let empty = || said(Kind::Address, vec![], &[]);
    let gone = || said(Kind::Address, vec![], &[&name]);
    let one = |version: &str| said(Kind::Address, vec![address(workload("w", &[]), version)], &[]);
    let good = || said(Kind::Authorization, vec![policy("lock", Scope::Global, "1")], &[]);
    let bad = || said(Kind::Authorization, vec![broken("lock", Scope::Global)], &[]);
    let rows = [
        ("the first of a kind", empty(), true),
        ("nothing", empty(), false),
        ("a resource", one("1"), true),
        ("the same", one("1"), false),
        ("another version", one("2"), true),
        ("a removal", gone(), true),
        ("of what is not there", gone(), false),
        ("a good policy", good(), true),
        ("a refused one", bad(), true),
        ("the same refused one", bad(), false),
        ("the good one once more", good(), true),
        ("the same good one", good(), false),
    ];
    let mut archive = Archive::default();
    for (row, response, news) in rows {
        let removed = response.removed_resources.clone();
        let broken: Vec<String> =
            response.resources.iter().filter(|one| one.version == "b").map(|one| one.name.clone()).collect();
        let refused = broken.iter().map(String::as_str).collect();
        assert_eq!(archive.absorb(response, &refused, &removed), news, "row {row}");
    }
}

fn any_response() -> impl Strategy<Value = DeltaDiscoveryResponse> {
    let name = || proptest::sample::select(vec!["a", "b", "c"]);
    let scope = proptest::sample::select(vec![Scope::Global, Scope::Namespace, Scope::WorkloadSelector]);
    let policies = (proptest::collection::vec((name(), scope, 0..3_u8), 0..4), name()).prop_map(
        |(policies, removed)| {
            let one = |(name, scope, what): (&str, Scope, u8)| match what {
                0 => policy(name, scope, "1"),
                1 => policy(name, scope, "dry"),
                _ => broken(name, scope),
            };
            let removed = format!("shop/{removed}");
            said(Kind::Authorization, policies.into_iter().map(one).collect(), &[&removed])
        },
    );
    let addresses = (proptest::collection::vec((name(), name(), any::<bool>()), 0..4), name()).prop_map(
        |(addresses, removed)| {
            let one = |(name, named, is_service): (&str, &str, bool)| match is_service {
                true => address(service(name), "1"),
                false => address(workload(name, &[&format!("shop/{named}")]), named),
            };
            said(Kind::Address, addresses.into_iter().map(one).collect(), &[removed])
        },
    );
    prop_oneof![policies, addresses]
}

proptest! {
    #[test]
    fn every_history_leads_to_the_same_by_the_short_way(
        history in proptest::collection::vec(any_response(), 0..12),
    ) {
        let mut node = Node::new();
        history.into_iter().for_each(|response| node.take(response));
        same(node);
    }
}
