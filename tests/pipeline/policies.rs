//! Every row of the policy table: as pure decision, and through encoded discovery into a node's plans.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ambit_control::Index;
use ambit_explain::{Destination, Question, Source, View};
use ambit_policy::model::Scope;
use ambit_policy::{Decision, Facts, PolicySet, Verdict, decide};
use ambit_runtime::clock;
use ambit_state::{
    Authority, HboneFacts, MeshedPlaintext, OutboundFacts, OutboundPlan, PlainFacts, PlainPlan, SameNode,
    Snapshot, authorize, plan_inbound_hbone, plan_inbound_plain, plan_outbound,
};
use ambit_tests::tables::{self, Expect, Group, Member, Row, Table};
use ambit_types::{Identity, Network, TrustDomain, Uid, Workload};
use serde_json::{Value, json};

use crate::mesh;

/// Every case takes less time than this from manifests to decision. The bound is for an optimized build, as `make soak`
/// runs it; one with debug assertions and little optimization may take twenty times as long.
const CASE_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 20 } else { 1 });
/// A run may have waited for a busy machine, so the best of as many is what a case takes.
const REPEATS: usize = 5;

/// Port the client's own side has; no policy reads it.
const CLIENT_PORT: u16 = 40_000;

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

#[test]
fn rows_as_pure_decisions() {
    let table = tables::policy();
    for family in [Family::V4, Family::V6] {
        let run = run(
            &table,
            "pure",
            |group, row| Case { table: &table, family, row }.manifests(group, |_| true),
            |row, manifests| Case { table: &table, family, row }.decide_alone(&mesh::compile(manifests).0),
        );
        run.report(&format!("pure {family:?}"));
    }
}

#[test]
fn rows_through_encoded_discovery() {
    let table = tables::policy();
    for family in [Family::V4, Family::V6] {
        let run = run(
            &table,
            "pipeline",
            |group, row| {
                let both = |name: &str| name == row.client || name == row.server;
                Case { table: &table, family, row }.manifests(group, both)
            },
            |row, manifests| {
                let (_, delta) = mesh::compile(manifests);
                Case { table: &table, family, row }.decide_on_node(&mesh::publish(delta))
            },
        );
        run.report(&format!("pipeline {family:?}"));
    }
}

/// What became of the rows.
#[derive(Default)]
struct Run {
    rows: usize,
    wrong: String,
    longest: Duration,
}

/// Runs the rows of a driver; timed is what leads from manifests to the decision, the best of [`REPEATS`].
fn run(
    table: &Table,
    driver: &str,
    manifests: impl Fn(&Group, &Row) -> String,
    decide: impl Fn(&Row, &str) -> Decision,
) -> Run {
    let mut run = Run::default();
    for group in &table.groups {
        for row in group.when.iter().filter(|row| row.is_for(driver)) {
            let manifests = manifests(group, row);
            let (decision, took) = best(|| decide(row, &manifests));
            run.longest = run.longest.max(took);
            run.rows += 1;
            let (got, want, case) = (said(&decision), wanted(&row.expect), (&group.name, &row.name));
            if got != want || took >= CASE_MAX {
                let _ = writeln!(run.wrong, "{case:?}: {got} in {took:?} at best, expected {want}");
            }
        }
    }
    run
}

/// What a case decides, every time the same, and the shortest time it took.
fn best(decide: impl Fn() -> Decision) -> (Decision, Duration) {
    let once = |_: usize| {
        let begun = clock::monotonic();
        (decide(), clock::monotonic().saturating_duration_since(begun))
    };
    let runs: Vec<_> = (0..REPEATS).map(once).collect();
    assert!(runs.iter().all(|(other, _)| said(other) == said(&runs[0].0)), "one case, two decisions");
    runs.into_iter().min_by_key(|(_, took)| *took).expect("it ran")
}

impl Run {
    #[expect(clippy::print_stdout, reason = "measured values, for who reads the run")]
    fn report(self, name: &str) {
        println!("{name}: {} rows, at most {:?} a case", self.rows, self.longest);
        assert!(self.rows >= 60, "only {} rows", self.rows);
        assert!(self.wrong.is_empty(), "{name}, each case within {CASE_MAX:?}:\n{}", self.wrong);
    }
}

fn said(decision: &Decision) -> String {
    let verdict = |v| match v {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    };
    let dry_run = decision.dry_run.iter().map(|d| match &d.policy {
        Some(policy) => format!("{} by {policy}", verdict(d.verdict)),
        None => verdict(d.verdict).to_owned(),
    });
    let policy = decision.policy.as_ref().map(ToString::to_string);
    words(verdict(decision.verdict), decision.reason.map(|r| r.code()), policy.as_deref(), dry_run.collect())
}

fn wanted(expect: &Expect) -> String {
    words(&expect.verdict, expect.code.as_deref(), expect.policy.as_deref(), expect.dry_run.clone())
}

fn words(verdict: &str, code: Option<&str>, policy: Option<&str>, dry_run: Vec<String>) -> String {
    format!("{verdict} code {} policy {} dry-run {dry_run:?}", code.unwrap_or("-"), policy.unwrap_or("-"))
}

struct Case<'a> {
    table: &'a Table,
    family: Family,
    row: &'a Row,
}

impl Case<'_> {
    fn member(&self, name: &str) -> &Member {
        self.table.cast.get(name).unwrap_or_else(|| panic!("{name:?} is not in the cast"))
    }

    fn address(&self, name: &str) -> IpAddr {
        let place = self.table.cast.keys().position(|n| n == name).expect("in the cast");
        let host = u16::try_from(place).expect("a small cast") + 10;
        let node = self.node_number(name);
        match self.family {
            Family::V4 => IpAddr::from([10, 9, node, u8::try_from(host).expect("a small cast")]),
            Family::V6 => IpAddr::from([0xfd09, 0, 0, u16::from(node), 0, 0, 0, host]),
        }
    }

    fn node_number(&self, name: &str) -> u8 {
        let digits = self.member(name).node.trim_start_matches("node");
        digits.parse().expect("nodes are called node1, node2")
    }

    fn place(&self, place: &str) -> String {
        let (name, what) = place.split_once('.').unwrap_or_else(|| panic!("place {place:?}"));
        match (what, self.family) {
            ("ip", _) => self.address(name).to_string(),
            ("cidr", Family::V4) => format!("10.9.{}.0/24", self.node_number(name)),
            ("cidr", Family::V6) => format!("fd09:0:0:{:x}::/64", self.node_number(name)),
            (other, _) => panic!("place {other:?}"),
        }
    }

    /// The cluster as a lab would have it: nodes, namespaces, accounts, some of the cast, the group's policies.
    fn manifests(&self, group: &Group, takes_part: impl Fn(&str) -> bool) -> String {
        let cast = || self.table.cast.iter().filter(|(name, _)| takes_part(name)).map(|(_, member)| member);
        let namespaces = cast().map(|m| m.namespace.as_str());
        let namespaces = namespaces.chain(group.given.iter().map(|policy| policy.key().1));
        let named =
            |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let account = |(namespace, name): (&str, &str)| {
            let metadata = json!({"name": name, "namespace": namespace});
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        };
        let nodes: BTreeSet<_> = cast().map(|m| m.node.as_str()).collect();
        let namespaces: BTreeSet<_> = namespaces.collect();
        let accounts: BTreeSet<_> =
            cast().map(|m| (m.namespace.as_str(), m.service_account.as_str())).collect();
        let pods = self.table.cast.iter().filter(|(name, _)| takes_part(name));
        let pods = pods.map(|(name, m)| m.pod(name, self.address(name), &self.table.ports));
        let mut all: Vec<Value> = nodes.into_iter().map(|name| named("Node", name)).collect();
        all.extend(namespaces.into_iter().map(|name| named("Namespace", name)));
        all.extend(accounts.into_iter().map(account));
        all.extend(pods);
        all.extend(group.given.iter().map(|policy| policy.manifest(&|place| self.place(place))));
        all.iter().map(ambit_manifest::to_yaml).collect::<Vec<_>>().join("---\n")
    }

    /// Proven identity of the client; none if it is not in the mesh.
    fn identity(&self) -> Option<Identity> {
        let client = self.member(&self.row.client);
        let domain = TrustDomain::parse(&client.trust_domain).expect("a trust domain");
        client
            .enrolled
            .then(|| Identity::new(domain, client.namespace.as_str(), client.service_account.as_str()))
    }

    fn uid(&self, name: &str) -> Uid {
        Uid::from(format!("Kubernetes//Pod/{}/{name}", self.member(name).namespace))
    }

    fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.address(&self.row.server), self.row.port)
    }

    /// The policies found by reading the index's records, nothing else of a node involved.
    fn decide_alone(&self, index: &Index) -> Decision {
        let server = &index.workloads()[&self.uid(&self.row.server)];
        let covers = |scope: Scope, namespace: &str| match scope {
            Scope::Global => true,
            Scope::Namespace => *namespace == *server.namespace,
            Scope::WorkloadSelector => false,
        };
        let policies = index.policies();
        let wide = policies.values().filter(|p| covers(p.scope, &p.key.namespace)).cloned();
        let named = server.policies.iter().filter_map(|key| policies.get(key).cloned());
        let missing = server.policies.iter().filter(|key| !policies.contains_key(key)).cloned();
        let set = PolicySet::new(wide.chain(named), missing);
        let (identity, to) = (self.identity(), self.destination());
        decide(&set, &Facts::new(identity.as_ref(), self.address(&self.row.client), to.ip(), to.port()))
    }

    /// The client's node plans, the server's node plans and decides, each from what it was sent.
    fn decide_on_node(&self, published: &Arc<ambit_xds::server::Resources>) -> Decision {
        let mut nodes = BTreeMap::new();
        for name in [&self.row.client, &self.row.server] {
            let node = self.member(name).node.clone();
            nodes.entry(node.clone()).or_insert_with(|| mesh::discover(&node, published));
        }
        let server = &nodes[&self.member(&self.row.server).node];
        let own = server.workload(&self.uid(&self.row.server)).expect("the server is known");
        let source = self.address(&self.row.client);
        let identity = self.identity();
        let to = match &identity {
            Some(_) => self.by_tunnel(&nodes[&self.member(&self.row.client).node], server, own),
            None => self.in_clear(server, own),
        };
        let decision =
            authorize(server, &own.uid, &Facts::new(identity.as_ref(), source, to.ip(), to.port()));
        self.is_explained(&nodes, &decision);
        decision
    }

    /// Every node that is asked explains the row as it was decided.
    fn is_explained(&self, nodes: &BTreeMap<String, Arc<Snapshot>>, decision: &Decision) {
        let source = Source::Uid(self.uid(&self.row.client));
        let question = Question::new(source, Destination::Address(self.destination()));
        for (node, snapshot) in nodes {
            let client = snapshot.workload(&self.uid(&self.row.client));
            // The row may be about somebody whom no discovery knows, such as one of another trust domain.
            let is_known = |identity: &Identity| client.is_some_and(|client| client.identity() == *identity);
            if self.identity().is_some_and(|identity| !is_known(&identity)) {
                continue;
            }
            let told = ambit_explain::explain(&View::new(snapshot), &question);
            let policy = told.decided_by.as_ref().map(|by| &by.policy);
            let want = (decision.is_allow(), decision.reason, decision.policy.as_ref());
            assert_eq!(
                (told.is_allow(), told.code(), policy),
                want,
                "{} on {node}: {told:#?}",
                self.row.name
            );
        }
    }

    fn by_tunnel(&self, client: &Snapshot, server: &Snapshot, own: &Arc<Workload>) -> SocketAddr {
        let source = client.workload_at(&Network::default(), self.address(&self.row.client));
        let facts = OutboundFacts {
            source,
            source_address: self.address(&self.row.client),
            destination: self.destination(),
            same_node: SameNode::Auto,
            tried: &[],
            draw: 0,
        };
        let same_node = self.member(&self.row.client).node == self.member(&self.row.server).node;
        let hop = match plan_outbound(client, &facts) {
            OutboundPlan::Hbone(hop) if !same_node => hop,
            OutboundPlan::Local(hop) if same_node => return hop.address,
            other => panic!("{}: {other:?}", self.row.name),
        };
        assert_eq!(hop.expected_identities(), [own.identity()]);
        let target = plan_inbound_hbone(
            server,
            &HboneFacts {
                own: Some(own),
                authority: Authority::Address(hop.address),
                local: hop.tunnel(),
                peer: SocketAddr::new(self.address(&self.row.client), CLIENT_PORT),
                forwarded_host: None,
            },
        );
        target.expect("the server's node takes what it was sent").address
    }

    fn in_clear(&self, server: &Snapshot, own: &Arc<Workload>) -> SocketAddr {
        let facts = PlainFacts {
            own: Some(own),
            source: SocketAddr::new(self.address(&self.row.client), CLIENT_PORT),
            destination: self.destination(),
            from_node: false,
            meshed_plaintext: MeshedPlaintext::Record,
        };
        match plan_inbound_plain(server, &facts) {
            PlainPlan::Authorize { meshed: false, .. } => self.destination(),
            other => panic!("{}: {other:?}", self.row.name),
        }
    }
}
