//! A set that is followed has the problems of one that is checked at once, and costs what a change concerns.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{CheckedSet, Kind, Located, ObjectKey, Outline, Problem, check_set, parse};

const NAMES: u8 = 3;

/// An object of a few that refer to each other; `content` decides to which.
fn object(kind: u8, number: u8, content: u8) -> (ObjectKey, String) {
    let (space, name) = (format!("space{}", number % 2), format!("name{}", number % NAMES));
    let other = format!("name{}", content % NAMES);
    let head = |kind: &str, more: &str| {
        format!("kind: {kind}\nmetadata: {{name: {name}, namespace: {space}{more}}}\n")
    };
    let cluster = |kind: &str| format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
    let key = |kind| ObjectKey::new(kind, Some(&space), &name);
    match kind {
        0 => {
            let name = space.clone();
            let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
            (ObjectKey::new(Kind::Namespace, None, &name), text)
        }
        1 => (key(Kind::Node), cluster("Node")),
        2 => (key(Kind::ServiceAccount), format!("apiVersion: v1\n{}", head("ServiceAccount", ""))),
        3 => {
            let ip = format!("10.96.0.{}", content % 4);
            let spec = format!("spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n");
            (key(Kind::Service), format!("apiVersion: v1\n{}{spec}", head("Service", "")))
        }
        4 => {
            let labels = format!(", labels: {{kubernetes.io/service-name: {other}}}");
            let rest = "addressType: IPv4\nendpoints: []\nports: []\n";
            let text = format!("apiVersion: discovery.k8s.io/v1\n{}{rest}", head("EndpointSlice", &labels));
            (key(Kind::EndpointSlice), text)
        }
        _ => {
            let containers = "containers: [{name: app, image: a}]";
            let spec = format!("spec: {{serviceAccountName: {other}, nodeName: {other}, {containers}}}\n");
            (key(Kind::Pod), format!("apiVersion: v1\n{}{spec}", head("Pod", "")))
        }
    }
}

fn read(text: &str, line: u8) -> Located {
    let text = format!("{}{text}", "\n".repeat(line.into()));
    let mut parsed = parse("f.yaml", &text);
    assert_eq!(parsed.problems, [], "{text}");
    parsed.objects.remove(0)
}

fn problems(set: &CheckedSet) -> Vec<Problem> {
    let mut problems: Vec<Problem> = set.problems().cloned().collect();
    problems.sort();
    problems
}

fn outline(object: &Located) -> (Arc<ObjectKey>, Option<Outline>) {
    (Arc::new(object.key.clone()), Some(Outline::of(object)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_followed_set_has_the_problems_of_a_listed_one(
        batches in vec(vec((0..6u8, 0..6u8, 0..6u8, any::<bool>()), 1..4), 1..20)
    ) {
        let (mut set, mut objects) = (CheckedSet::default(), BTreeMap::new());
        for batch in batches {
            let mut changes = Vec::new();
            for (kind, number, content, is_there) in batch {
                let (key, text) = object(kind, number, content);
                if is_there {
                    let object = read(&text, content);
                    changes.push(outline(&object));
                    objects.insert(key, object);
                } else {
                    objects.remove(&key);
                    changes.push((Arc::new(key), None));
                }
            }
            set.update(changes);
            let listed: Vec<Located> = objects.values().cloned().collect();
            prop_assert_eq!(problems(&set), check_set(&listed));
        }
    }
}

#[test]
fn a_change_costs_what_it_concerns_and_not_the_whole_set() {
    let pod = |number: u16, account: &str| {
        let head = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\n");
        let spec = format!("spec: {{serviceAccountName: {account}, containers: [{{name: a, image: a}}]}}\n");
        read(&format!("{head}{spec}"), 0)
    };
    let account =
        |name: &str| read(&format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n"), 0);
    let mut set = CheckedSet::default();
    let pods = (0..1000).map(|number| pod(number, if number < 10 { "few" } else { "many" }));
    let all: Vec<Located> = pods.chain([account("few"), account("many")]).collect();
    set.update(all.iter().map(outline));
    assert_eq!((set.problems().count(), set.checked()), (0, 1002));
    set.update([outline(&pod(500, "few"))]);
    assert_eq!(set.checked(), 1003, "the pod");
    set.update([outline(&account("few"))]);
    assert_eq!(set.checked(), 1004, "the account, which was there and is");
    set.update([(Arc::new(account("few").key), None)]);
    assert_eq!((set.problems().count(), set.checked()), (11, 1004 + 11), "those that name it");
}
