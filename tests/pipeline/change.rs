//! What a change of policies is predicted to do is what it does, and what is suggested lets in exactly what was seen:
//! the prediction by the engine, the outcome through encoded discovery by what a node decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_control::Index;
use ambit_explain::diff::diff;
use ambit_explain::suggest::{Caller, Member, Seen, suggest};
use ambit_explain::{Compiled, Flow, FlowEnd, Verdict};
use ambit_policy::Facts;
use ambit_state::{Snapshot, authorize};
use ambit_types::{Identity, PolicyKey, Str, TrustDomain, Uid};

use crate::mesh;

const PODS: [&str; 4] = ["web", "batch", "cart", "orders"];
const PORTS: [u16; 2] = [80, 81];
const CHANGES: u64 = 200;

/// Caller, destination, port.
type Pair = (&'static str, &'static str, u16);

fn pairs() -> impl Iterator<Item = Pair> {
    let all = PODS.into_iter().flat_map(|from| PODS.into_iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
        .flat_map(|(from, to)| PORTS.into_iter().map(move |port| (from, to, port)))
}

fn address(pod: &str) -> IpAddr {
    let place = PODS.iter().position(|name| *name == pod).expect("one of the pods");
    IpAddr::from([10, 9, 1, u8::try_from(place).expect("few pods") + 10])
}

fn identity(pod: &str) -> Identity {
    Identity::new(TrustDomain::default(), "shop", pod)
}

/// Draws that are the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(end).expect("a small number")).expect("a small number")
    }

    fn is_likely(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A namespace of the mesh with four pods, each with its own account.
fn base() -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n",
    );
    for pod in PODS {
        let ip = address(pod);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {pod}, namespace: shop}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata:\n  {{name: {pod}, namespace: shop, uid: uid-{pod}, labels: {{app: {pod}}}, \
             annotations: {{ambient.istio.io/redirection: enabled}}}}\nspec: {{nodeName: node1, serviceAccountName: {pod}, \
             containers: [{{name: app, image: app}}]}}\nstatus: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], \
             conditions: [{{type: Ready, status: \"True\"}}]}}\n"
        );
    }
    text
}

/// A few policies, drawn.
fn policies(draws: &mut Draws) -> String {
    let mut text = String::new();
    for number in 0..draws.below(4) {
        let action = if draws.below(3) == 0 { "DENY" } else { "ALLOW" };
        let selector = match draws.is_likely() {
            true => format!("selector: {{matchLabels: {{app: {}}}}}, ", PODS[draws.below(PODS.len())]),
            false => String::new(),
        };
        let mut conditions = Vec::new();
        if draws.below(4) != 0 {
            let caller = PODS[draws.below(PODS.len())];
            let source = match draws.below(3) {
                0 => "namespaces: [shop]".to_owned(),
                1 => format!("notPrincipals: [cluster.local/ns/shop/sa/{caller}]"),
                _ => format!("principals: [cluster.local/ns/shop/sa/{caller}]"),
            };
            conditions.push(format!("from: [{{source: {{{source}}}}}]"));
        }
        if draws.is_likely() {
            let port = PORTS[draws.below(PORTS.len())];
            conditions.push(format!("to: [{{operation: {{ports: [\"{port}\"]}}}}]"));
        }
        let conditions = conditions.join(", ");
        let _ = write!(
            text,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: shop}}\n\
             spec: {{{selector}action: {action}, rules: [{{{conditions}}}]}}\n"
        );
    }
    text
}

/// A record of the destination's node, which let it in or did not.
fn flow((from, to, port): Pair, is_let_in: bool) -> Flow {
    let end = |name: &str| FlowEnd {
        workload: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        identity: Some(identity(name).to_string()),
        ..FlowEnd::default()
    };
    Flow {
        direction: Some("inbound".to_owned()),
        verdict: if is_let_in { "allowed" } else { "denied" }.to_owned(),
        code: (!is_let_in).then(|| "AMB2104".to_owned()),
        path: "hbone".to_owned(),
        conn_id: format!("{from}-{to}-{port}"),
        src: end(from),
        dst: end(to),
        hbone_addr: Some(format!("{}:{port}", address(to))),
        connections: 1,
        ..Flow::default()
    }
}

/// What the node decides, from what it was sent.
fn is_let_in(node: &Snapshot, (from, to, port): Pair) -> bool {
    let caller = identity(from);
    let facts = Facts::new(Some(&caller), address(from), address(to), port);
    authorize(node, &uid(to), &facts).is_allow()
}

fn uid(pod: &str) -> Uid {
    Uid::from(format!("Kubernetes//Pod/shop/{pod}"))
}

/// The mesh by the engine's view and as a node has it.
fn world(manifests: &str) -> (Index, Arc<Snapshot>) {
    let (index, delta) = mesh::compile(manifests);
    let node = mesh::discover("node1", &mesh::publish(delta));
    (index, node)
}

#[test]
fn what_a_change_is_predicted_to_do_is_what_it_does() {
    let mut changed = 0;
    for seed in 0..CHANGES {
        let mut draws = Draws(seed);
        let (before, after) = (base() + &policies(&mut draws), base() + &policies(&mut draws));
        let ((index_before, node_before), (index_after, node_after)) = (world(&before), world(&after));
        let of = |index| Compiled::of(index, "", Duration::ZERO);
        let (view_before, view_after) = (of(&index_before), of(&index_after));
        let flows: Vec<Flow> = pairs().map(|pair| flow(pair, is_let_in(&node_before, pair))).collect();
        let found = diff(&view_before.view(), &view_after.view(), &flows);
        assert_eq!((found.compared, found.unclear), (flows.len(), 0));
        assert!(found.unclear_flows.is_empty(), "seed {seed}: {:#?}", found.unclear_flows);
        let predicted: BTreeMap<(String, String), Verdict> =
            found.changes.into_iter().map(|c| ((c.source, c.destination), c.after.verdict)).collect();
        let happens: BTreeMap<(String, String), Verdict> = pairs()
            .filter(|pair| is_let_in(&node_before, *pair) != is_let_in(&node_after, *pair))
            .map(|pair| {
                let (from, to, port) = pair;
                let verdict = if is_let_in(&node_after, pair) { Verdict::Allow } else { Verdict::Deny };
                ((format!("shop/{from}"), format!("{}:{port}", address(to))), verdict)
            })
            .collect();
        assert_eq!(predicted, happens, "seed {seed}\nbefore:\n{before}\nafter:\n{after}");
        changed += happens.len();
    }
    assert!(changed > 500, "only {changed} connections changed: nothing was shown");
}

#[test]
fn what_is_suggested_lets_in_exactly_what_was_seen() {
    let members: Vec<Member> = PODS
        .iter()
        .map(|pod| Member {
            uid: uid(pod),
            name: Str::from(*pod),
            controller: Str::from(*pod),
            labels: BTreeMap::from([(Str::from("app"), Str::from(*pod))]),
            address: address(pod),
        })
        .collect();
    for seed in 0..CHANGES {
        let mut draws = Draws(seed);
        let chosen: BTreeSet<Pair> = pairs().filter(|_| draws.below(3) == 0).collect();
        let seen: Vec<Seen> = chosen
            .iter()
            .map(|(from, to, port)| Seen {
                destination: uid(to),
                caller: Caller::Identity(identity(from)),
                port: *port,
                connections: 1,
            })
            .collect();
        let suggestion = suggest("shop", &members, &seen, &[]);
        assert_eq!(suggestion.coverage.pairs_covered, chosen.len());
        let manifests =
            suggestion.policies.iter().map(|allow| ambit_manifest::to_yaml(&allow.manifest("shop")));
        let text = manifests.fold(base(), |text, manifest| text + "---\n" + &manifest);
        let (_, node) = world(&text);
        for pair in pairs() {
            assert_eq!(is_let_in(&node, pair), chosen.contains(&pair), "seed {seed}, {pair:?}\n{text}");
        }
    }
}

/// A pass from 11 to 12 o'clock.
const PASS: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ambit-breakglass, \
                    namespace: shop, annotations: {ambit.internal/breakglass-opened: \"2026-01-01T11:00:00Z\", \
                    ambit.internal/breakglass-until: \"2026-01-01T12:00:00Z\"}}\nspec: {action: ALLOW, rules: [{}]}\n";

#[test]
fn the_end_of_a_pass_reaches_the_node() {
    let (_, node) = world(&(base() + PASS));
    let held = node.policy(&PolicyKey::new("shop", "ambit-breakglass")).expect("it is sent");
    assert_eq!(held.until, Some(1_767_268_800));
}

#[test]
fn a_pass_counts_for_a_prediction_until_its_end() {
    let (without, _) = world(&base());
    let nobody = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: \
                  shop}\nspec: {}\n";
    let (with, _) = world(&(base() + nobody + PASS));
    let flows: Vec<Flow> = pairs().map(|pair| flow(pair, true)).collect();
    let key = PolicyKey::new("shop", "ambit-breakglass");
    for (wall, is_open) in [(1_767_268_799, true), (1_767_268_800, false)] {
        let of = |index| Compiled::of(index, "", Duration::from_secs(wall));
        let (before, after) = (of(&without), of(&with));
        assert_eq!(after.snapshot.policy(&key).is_some(), is_open, "at {wall}");
        let found = diff(&before.view(), &after.view(), &flows);
        let refused = found.changes.iter().filter(|c| c.after.verdict == Verdict::Deny).count();
        assert_eq!(refused, if is_open { 0 } else { flows.len() }, "at {wall}: what it lets in");
    }
}
