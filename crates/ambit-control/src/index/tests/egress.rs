//! EgressPolicies: what those that select a pod add up to, and what is left out.

use ambit_types::EgressRule;

use super::{Index, index, labels, only, pod, put_pod};
use crate::input::*;

fn egress(name: &str, selector: &[(&str, &str)], ports: impl IntoIterator<Item = u16>) -> Event {
    let rule = EgressRule { cidrs: Vec::new(), ports: ports.into_iter().collect() };
    let rules = if rule.ports.is_empty() { Vec::new() } else { vec![rule] };
    let name = Name::new("shop", name);
    Event::Put(Object::EgressPolicy(EgressPolicy { name, generation: 0, selector: labels(selector), rules }))
}

/// The policy that is named, and every port that is allowed.
fn may_leave(index: &Index) -> Option<(String, Vec<u16>)> {
    let workload = only(index);
    let egress = workload.egress()?;
    let ports = egress.rules.iter().flat_map(|rule| rule.ports.clone()).collect();
    Some((egress.policy.to_string(), ports))
}

#[test]
fn egress_policies_of_a_namespace_add_up_for_the_pods_they_select() {
    let of = |events: Vec<Event>| may_leave(&index([put_pod(pod("cart-0"))].into_iter().chain(events)));
    let named = |name: &str, ports: &[u16]| Some((format!("shop/{name}"), ports.to_vec()));
    let cart: &[(&str, &str)] = &[("app", "cart")];
    assert_eq!(of(vec![]), None);
    assert_eq!(of(vec![egress("a", &[("app", "web")], 1..=2)]), None);
    assert_eq!(of(vec![egress("a", &[], [])]), named("a", &[]));
    assert_eq!(of(vec![egress("b", &[], 3..=3), egress("a", cart, 1..=2)]), named("a", &[1, 2, 3]));
    assert_eq!(of(vec![egress("b", &[], 3..=3), egress("a", &[("app", "web")], 1..=2)]), named("b", &[3]));
    let mut elsewhere = egress("a", &[], 1..=2);
    if let Event::Put(Object::EgressPolicy(policy)) = &mut elsewhere {
        policy.name = Name::new("other", "a");
    }
    assert_eq!(of(vec![elsewhere]), None);
}

#[test]
fn an_egress_policy_that_goes_lets_its_pods_out_again() {
    let mut index = index([put_pod(pod("cart-0")), egress("a", &[], 1..=2)]);
    let delta = index.apply([egress("a", &[], 1..=1)]);
    assert_eq!((delta.workloads.len(), may_leave(&index)), (1, Some(("shop/a".to_owned(), vec![1]))));
    let gone = Key::new(Kind::EgressPolicy, Name::new("shop", "a"));
    let delta = index.apply([Event::Remove(gone)]);
    assert_eq!((delta.workloads.len(), may_leave(&index), index.statuses().count()), (1, None, 0));
}

#[test]
fn egress_rules_that_do_not_fit_their_namespace_are_left_out_and_said() {
    let index = index([
        put_pod(pod("cart-0")),
        egress("a", &[], 1..=500),
        egress("b", &[], 601..=620),
        egress("c", &[], []),
    ]);
    let (policy, ports) = may_leave(&index).expect("it is selected");
    assert_eq!((policy.as_str(), ports.len()), ("shop/a", 500));
    let said: Vec<String> = index.statuses().map(|s| format!("{} {}", s.object.name, s.standing)).collect();
    assert_eq!(said[0], "shop/a accepted");
    assert!(said[1].starts_with("shop/b degraded: TooMany: "), "{said:?}");
    assert_eq!(said[2], "shop/c accepted");
}
