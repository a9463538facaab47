//! What messages of workloads, services and policies mean.

mod read_back;
mod refused;
mod waypoint;

use std::collections::BTreeMap;

use ambit_policy::model::Clause;
use ambit_types::Str;
use ipnet::IpNet;
use prost::Message;

use super::*;
use crate::proto::istio::security as policy_wire;

fn policy_of(action: i32, matches: Vec<policy_wire::Match>) -> policy_wire::Authorization {
    policy_wire::Authorization {
        name: "p".into(),
        namespace: "n".into(),
        action,
        rules: vec![policy_wire::Rule { clauses: vec![policy_wire::Clause { matches }] }],
        ..policy_wire::Authorization::default()
    }
}

#[test]
fn a_stripped_deny_refuses_more_and_a_stripped_allow_nothing_more() {
    let source = policy_wire::Match { destination_ports: vec![80], ..policy_wire::Match::default() };
    let empty = policy_wire::Match::default;
    let deny = authorization::decode(&policy_of(1, vec![source.clone(), empty()])).unwrap();
    assert_eq!(deny.rules[0].clauses, [Clause::default()], "true for everything");
    assert_eq!(deny.rules[0].unevaluable, [Str::from("http conditions")]);
    let whole = authorization::decode(&policy_of(1, vec![source.clone()])).unwrap();
    assert_eq!(whole.rules[0].unevaluable, [] as [Str; 0]);
    assert_eq!(whole.rules[0].clauses[0].matches.len(), 1);
    let allow = authorization::decode(&policy_of(0, vec![source, empty()])).unwrap();
    assert_eq!(allow.rules[0].clauses[0].matches.len(), 2, "the empty match stays and matches nothing");
    assert_eq!(allow.rules[0].unevaluable, [] as [Str; 0]);
}

#[test]
fn a_condition_in_an_extension_is_a_condition_without_facts() {
    let extension = wire::Extension { name: "vendor/geo".into(), config: None };
    let one = policy_wire::Match { extensions: vec![extension], ..policy_wire::Match::default() };
    for action in [0, 1] {
        let policy = authorization::decode(&policy_of(action, vec![one.clone()])).unwrap();
        assert_eq!(policy.rules[0].unevaluable, [Str::from("extension vendor/geo")], "action {action}");
    }
}

#[test]
fn listed_conditions_belong_to_their_rule() {
    let mut message = policy_of(1, vec![policy_wire::Match::default()]);
    let listed = |rule| {
        let listed = crate::proto::ambit::internal::RuleConditions { rule, conditions: vec!["paths".into()] };
        let message = crate::proto::ambit::internal::Unevaluable { rules: vec![listed] };
        encode_extension(authorization::UNEVALUABLE_EXTENSION, "ambit.internal.Unevaluable", &message)
    };
    message.extensions = vec![listed(0)];
    let policy = authorization::decode(&message).unwrap();
    assert_eq!(policy.rules[0].unevaluable, [Str::from("paths")], "named, so nothing is guessed");
    message.extensions = vec![listed(1)];
    let error = authorization::decode(&message).unwrap_err().to_string();
    assert_eq!(error, "unevaluable.rules[0].rule: rule 1 does not exist, the policy has 1");
}

#[test]
fn an_end_without_a_time_is_past_and_one_that_is_something_else_is_no_policy() {
    let mut message = policy_of(0, Vec::new());
    let end = crate::proto::ambit::internal::Breakglass { until: 0 };
    let of = |name: &str| encode_extension(authorization::BREAKGLASS_EXTENSION, name, &end);
    message.extensions = vec![of("ambit.internal.Breakglass")];
    assert_eq!(authorization::decode(&message).unwrap().until, Some(0));
    message.extensions = vec![of("ambit.internal.Unevaluable")];
    let error = authorization::decode(&message).unwrap_err().to_string();
    assert!(error.starts_with("extensions[0].config: "), "{error}");
}

#[test]
fn mapped_addresses_become_the_addresses_they_stand_for() {
    let mapped = [[0; 10].as_slice(), &[0xff, 0xff, 10, 1, 2, 3]].concat();
    let mut message = wire::Workload { uid: "u".into(), ..wire::Workload::default() };
    message.addresses = vec![mapped.clone().into()];
    let workload = workload::decode(&message, &mut Notes::default()).unwrap();
    assert_eq!(workload.addresses, ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]);
    let one = policy_wire::Match {
        source_ips: vec![policy_wire::Address { address: mapped.into(), length: 96 + 8 }],
        ..policy_wire::Match::default()
    };
    let policy = authorization::decode(&policy_of(0, vec![one])).unwrap();
    let want: IpNet = "10.0.0.0/8".parse().unwrap();
    assert_eq!(policy.rules[0].clauses[0].matches[0].source_ips.any, [want]);
}

#[test]
fn full_length_ranges_are_hosts() {
    let rows = [(None, "host"), (Some(32), "host"), (Some(24), "10.0.0.0/24"), (Some(0), "0.0.0.0/0")];
    for (length, want) in rows {
        let address =
            wire::NetworkAddress { network: "n".into(), address: [10, 0, 0, 7].to_vec().into(), length };
        let message = wire::Service {
            namespace: "n".into(),
            hostname: "h".into(),
            addresses: vec![address],
            ..wire::Service::default()
        };
        let service = service::decode(&message, &mut Notes::default()).unwrap();
        let found =
            service.cidr_vips.first().map_or_else(|| "host".to_owned(), |cidr| cidr.range.to_string());
        assert_eq!(found, want, "{length:?}");
        assert_eq!(service.vips.len() + service.cidr_vips.len(), 1);
    }
}

#[test]
fn equal_messages_have_equal_bytes_whatever_order_their_maps_were_filled_in() {
    let keys = ["n/c", "n/a", "n/b"];
    let message = |keys: &mut dyn Iterator<Item = &str>| {
        let services: BTreeMap<_, _> = keys.map(|key| (key.to_owned(), wire::PortList::default())).collect();
        wire::Workload { uid: "u".into(), services, ..wire::Workload::default() }.encode_to_vec()
    };
    assert_eq!(message(&mut keys.into_iter()), message(&mut keys.into_iter().rev()));
}
