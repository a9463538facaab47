//! When passes end, with the time of each row given.

use ambit_policy::Facts;
use ambit_policy::model::{Action, Scope};

use super::*;
use crate::testing::{changes, identity, policy, uid, world};
use crate::{Admission, Open, World, authorize, reauthorize};

const KEY: &str = "shop/ambit-breakglass";
/// What the pass says, in seconds since 1970.
const UNTIL: u64 = 1_000_600;
/// The wall clock at its receipt: ten minutes before.
const START: u64 = 1_000_000;

#[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
fn origin() -> Instant {
    Instant::now()
}

/// A node with a pod that allows nobody but by a pass.
struct Node {
    world: World,
    passes: Passes,
    origin: Instant,
}

impl Node {
    fn new(mesh: &str) -> Self {
        let mut world = world(mesh);
        let mut nobody = policy("shop/nobody", Scope::Namespace, Action::Allow);
        nobody.rules.clear();
        let _ = world.apply([nobody.into()]);
        Self { world, passes: Passes::default(), origin: origin() }
    }

    fn at(&self, wall: u64, monotonic: u64) -> Moment {
        let monotonic = self.origin + Duration::from_secs(monotonic);
        Moment { wall: Duration::from_secs(wall), monotonic }
    }

    fn take(&mut self, all: Vec<Change>, now: Moment) {
        let all = self.passes.take(all, now);
        let _ = self.world.apply(all);
    }

    /// Lets time pass; whether any pass has ended by that.
    fn settle(&mut self, now: Moment) -> bool {
        let due = self.passes.due(now);
        let is_news = !due.is_empty();
        let _ = self.world.apply(due);
        is_news
    }

    fn verdict(&self) -> String {
        let peer = identity("jobs/cron");
        let facts = Facts::new(Some(&peer), [10, 244, 2, 9].into(), [10, 244, 1, 5].into(), 8080);
        authorize(&self.world.snapshot(), &uid("shop/web"), &facts).to_string()
    }

    fn is_open(&self) -> bool {
        self.verdict() == format!("allow AMB2305 breakglass-admitted by {KEY} rule 0")
    }
}

fn pass(scope: Scope, until: Option<u64>) -> Vec<Change> {
    let mut pass = policy(KEY, scope, Action::Allow);
    pass.until = until;
    vec![pass.into()]
}

const MESH: &str = "pod shop/web 10.244.1.5";
const DENIED: &str = "AMB2104 policy-denied";

fn unresolved() -> String {
    format!("AMB2105 policy-unresolved by {KEY}")
}

#[test]
fn a_pass_ends_by_whichever_clock_is_there_first() {
    // Wall and monotonic seconds since the receipt, and whether it is open then.
    let rows = [
        ("before its end", 599, 599, true),
        ("at its end", 600, 600, false),
        ("the wall clock was set forward", 600, 1, false),
        ("the wall clock was set back", 0, 600, false),
        ("the machine slept", 700, 100, false),
    ];
    for (what, wall, monotonic, want) in rows {
        let mut node = Node::new(MESH);
        node.take(pass(Scope::Namespace, Some(UNTIL)), node.at(START, 0));
        assert!(node.is_open(), "{what}: {}", node.verdict());
        assert_eq!(node.passes.next_end(), Some(node.at(START, 600).monotonic));
        let then = node.at(START + wall, monotonic);
        assert_eq!(node.settle(then), !want, "{what}");
        assert_eq!(node.is_open(), want, "{what}: {}", node.verdict());
        if !want {
            assert_eq!(node.verdict(), DENIED, "{what}");
            assert!(node.passes.next_end().is_none() && !node.settle(then), "{what}: it ends once");
        }
    }
}

#[test]
fn a_pass_is_open_for_a_day_at_most_whatever_it_says() {
    let mut node = Node::new(MESH);
    node.take(pass(Scope::Namespace, Some(START + 30 * 24 * 3600)), node.at(START, 0));
    assert!(!node.settle(node.at(START, LONGEST_SECONDS - 1)) && node.is_open());
    assert!(node.settle(node.at(START, LONGEST_SECONDS)));
    assert_eq!(node.verdict(), DENIED);
}

#[test]
fn a_pass_that_is_over_or_has_no_end_is_never_in_force() {
    for until in [None, Some(0), Some(START - 1), Some(START)] {
        let mut node = Node::new(MESH);
        node.take(pass(Scope::Namespace, until), node.at(START, 0));
        assert_eq!(node.verdict(), DENIED, "{until:?}");
    }
}

#[test]
fn the_same_pass_sent_again_is_not_prolonged_and_another_one_is_a_new_one() {
    let mut node = Node::new(MESH);
    let sent = || pass(Scope::Namespace, Some(UNTIL));
    node.take(sent(), node.at(START, 0));
    // The wall clock was set back by five minutes, and the control plane came back.
    node.take(sent(), node.at(START, 300));
    assert!(node.is_open());
    assert!(node.settle(node.at(START + 300, 600)));
    node.take(sent(), node.at(START + 300, 601));
    assert_eq!(node.verdict(), DENIED, "it has ended");
    node.take(pass(Scope::Namespace, Some(UNTIL + 60)), node.at(START + 300, 602));
    assert!(node.is_open(), "somebody has opened another one");
    // Removed and sent again is another one, too.
    assert!(node.settle(node.at(UNTIL + 60, 700)));
    node.take(changes(&format!("-policy {KEY}")), node.at(START, 701));
    node.take(sent(), node.at(START, 702));
    assert!(node.is_open());
}

#[test]
fn an_edit_that_cannot_be_read_closes_a_pass() {
    let mut node = Node::new(MESH);
    node.take(pass(Scope::Namespace, Some(UNTIL)), node.at(START, 0));
    let key = PolicyKey::parse(KEY).expect("a key");
    let rejected = || vec![Change::PolicyRejected { key: key.clone(), scope: Some(Scope::Namespace) }];
    node.take(rejected(), node.at(START, 1));
    assert_eq!(node.verdict(), unresolved(), "neither open, nor sure to be a pass");
    node.take(rejected(), node.at(START, 2));
    assert_eq!(node.verdict(), unresolved());
    node.take(pass(Scope::Namespace, Some(UNTIL)), node.at(START, 3));
    assert_eq!(node.verdict(), DENIED, "the same one again is still in doubt");
}

/// Nobody knows whether it is a pass or a denial.
#[test]
fn what_cannot_be_read_and_takes_the_place_of_an_ended_pass_refuses() {
    let key = PolicyKey::parse(KEY).expect("a key");
    let rejected = || vec![Change::PolicyRejected { key: key.clone(), scope: Some(Scope::Namespace) }];
    for (what, until) in [("its time is over", Some(START + 5)), ("it was never in force", None)] {
        // Whoever is not denied is let in here.
        let mut node = Node { world: world(MESH), ..Node::new(MESH) };
        node.take(pass(Scope::Namespace, until), node.at(START, 0));
        let _ = node.settle(node.at(START + 5, 5));
        assert_eq!(node.verdict(), "allow", "{what}");
        node.take(rejected(), node.at(START + 5, 6));
        assert_eq!(node.verdict(), unresolved(), "{what}");
        let _ = node.settle(node.at(UNTIL, LONGEST_SECONDS));
        assert_eq!(node.verdict(), unresolved(), "{what}: it does not end");
        let deny = policy(KEY, Scope::Namespace, Action::Deny);
        node.take(vec![deny.into()], node.at(START + 5, 7));
        assert_eq!(node.verdict(), format!("AMB2103 deny-rule-matched by {KEY} rule 0"), "{what}");
        // That is a good version, and stays.
        node.take(rejected(), node.at(START + 5, 8));
        assert_eq!(node.verdict(), format!("AMB2103 deny-rule-matched by {KEY} rule 0"), "{what}");
        node.take(changes(&format!("-policy {KEY}")), node.at(START + 5, 9));
        assert_eq!(node.verdict(), "allow", "{what}");
    }
}

#[test]
fn a_pass_that_has_ended_is_not_missing_where_a_workload_names_it() {
    let mut node = Node::new(&format!("{MESH} policies={KEY}"));
    node.take(pass(Scope::WorkloadSelector, Some(UNTIL)), node.at(START, 0));
    assert!(node.is_open());
    assert!(node.settle(node.at(UNTIL, 600)));
    assert_eq!(node.verdict(), DENIED);
}

#[test]
fn a_denial_of_that_name_is_no_pass_and_never_ends() {
    let mut node = Node::new(MESH);
    node.take(vec![policy(KEY, Scope::Namespace, Action::Deny).into()], node.at(START, 0));
    assert!(!node.settle(node.at(UNTIL, LONGEST_SECONDS)));
    assert_eq!(node.verdict(), format!("AMB2103 deny-rule-matched by {KEY} rule 0"));
}

#[test]
fn the_end_of_a_pass_cuts_what_only_it_let_in() {
    let mut node = Node::new(MESH);
    let mut some = policy("shop/some", Scope::Namespace, Action::Allow);
    let mut one = ambit_policy::model::Match::default();
    one.namespaces.any.push(ambit_policy::model::StringMatch::Exact("shop".into()));
    some.rules[0].clauses.push(ambit_policy::model::Clause { matches: vec![one] });
    let _ = node.world.apply([some.into()]);
    node.take(pass(Scope::Namespace, Some(UNTIL)), node.at(START, 0));
    let open = [(1, "jobs/cron"), (2, "shop/cart")].map(|(id, peer)| Open {
        id,
        workload: uid("shop/web"),
        own: identity("shop/default"),
        peer: Some(identity(peer)),
        client: None,
        believed: false,
        source: [10, 244, 2, 9].into(),
        destination: "10.244.1.5:8080".parse().expect("an address"),
        admission: Admission::Policy,
    });
    assert!(reauthorize(&node.world.snapshot(), &open).is_empty());
    let due = node.passes.due(node.at(UNTIL, 600));
    let applied = node.world.apply(due);
    assert_eq!(applied.affected.into_iter().collect::<Vec<_>>(), [uid("shop/web")]);
    let cut = reauthorize(&applied.snapshot, &open);
    let told: Vec<String> = cut.iter().map(|(id, decision)| format!("{id} {decision}")).collect();
    assert_eq!(told, [format!("1 {DENIED}")]);
}
