//! What is written is read back; what is malformed is refused by field.

mod waypoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use ambit_types::service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope as LbScope, Visibility,
};
use ambit_types::workload::{Health, NetworkMode, Settings, WorkloadType};
use ambit_types::{
    Destination, Egress, EgressRule, GatewayAddress, Identity, Locality, NetworkAddress, NetworkCidr,
    PolicyKey, Service, ServiceKey, Str, TrustDomain, TunnelProtocol, WeightedWaypoint, Workload,
};
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use super::*;
use crate::proto::istio::security as policy_wire;

fn broken_workload(change: impl Fn(&mut wire::Workload)) -> String {
    let mut message = wire::Workload { uid: "u".into(), ..wire::Workload::default() };
    change(&mut message);
    workload::decode(&message, &mut Notes::default()).expect_err("must be refused").to_string()
}

/// Settings with a policy of egress for a port that is none, and for an address of three bytes.
const EGRESS_PORT: &[u8] = b"\x22\x0c\x0a\x03a/b\x12\x05\x12\x03\x80\x80\x04";
const EGRESS_ADDRESS: &[u8] = b"\x22\x0e\x0a\x03a/b\x12\x07\x0a\x05\x0a\x03123";

#[test]
fn a_malformed_workload_is_refused_by_field() {
    let gateway = |destination| wire::GatewayAddress { destination, hbone_mtls_port: 15008 };
    let port = |service_port, target_port| wire::Port { service_port, target_port, app_protocol: 0 };
    let list = |port| wire::PortList { ports: vec![port] };
    let extension = |url: &str, value: &'static [u8]| wire::Extension {
        name: Settings::EXTENSION.into(),
        config: Some(Any { type_url: url.into(), value: value.into() }),
    };
    let settings = "type.googleapis.com/ambit.internal.WorkloadSettings";
    let rows = [
        (broken_workload(|w| w.uid.clear()), "uid: is missing"),
        (
            broken_workload(|w| w.addresses = vec!["1234".into(), "12345".into()]),
            "addresses[1]: has 5 bytes;",
        ),
        (broken_workload(|w| w.addresses = vec!["".into()]), "addresses[0]: has 0 bytes;"),
        (
            broken_workload(|w| w.trust_domain = "Up.per".into()),
            "trust_domain: \"Up.per\" is no trust domain",
        ),
        (broken_workload(|w| w.waypoint = Some(gateway(None))), "waypoint.destination: is missing"),
        (broken_workload(|w| w.network_gateway = Some(gateway(None))), "network_gateway.destination: is"),
        (
            broken_workload(|w| w.authorization_policies = vec!["ns/a".into(), "b".into()]),
            "authorization_policies[1]: \"b\" is not",
        ),
        (
            broken_workload(|w| w.services = [("nohost".to_owned(), wire::PortList::default())].into()),
            "services[\"nohost\"]: \"nohost\" is not",
        ),
        // G4: 65536 + 80 is not port 80.
        (
            broken_workload(|w| w.services = [("n/h".to_owned(), list(port(65616, 80)))].into()),
            "services[\"n/h\"].ports[0].service_port: 65616 is no port",
        ),
        (
            broken_workload(|w| w.services = [("n/h".to_owned(), list(port(80, 65536)))].into()),
            "services[\"n/h\"].ports[0].target_port: 65536 is no port",
        ),
        (
            broken_workload(|w| {
                w.application_tunnel = Some(wire::ApplicationTunnel { protocol: 1, port: 70000 });
            }),
            "application_tunnel.port: 70000 is no port",
        ),
        (broken_workload(|w| w.extensions = vec![extension("x/Other", b"")]), "extensions[0].config: holds"),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\xff")]),
            "extensions[0].config: cannot",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\x0a\x03\x80\x80\x04")]),
            "settings.probe_ports: 65536 is no port",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, EGRESS_PORT)]),
            "settings.egress.ports: 65536 is no port",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, EGRESS_ADDRESS)]),
            "settings.egress.cidrs.address: has 3 bytes",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\x22\x03\x0a\x01a")]),
            "settings.egress.policy: \"a\" is not",
        ),
    ];
    check(&rows);
}

#[track_caller]
fn check(rows: &[(String, &str)]) {
    for (found, want) in rows {
        assert!(found.starts_with(want), "found {found:?}, want {want:?}");
    }
}

#[test]
fn a_malformed_service_is_refused_by_field() {
    let broken = |change: &dyn Fn(&mut wire::Service)| {
        let mut message =
            wire::Service { namespace: "n".into(), hostname: "h".into(), ..wire::Service::default() };
        change(&mut message);
        service::decode(&message, &mut Notes::default()).expect_err("must be refused").to_string()
    };
    let address = |address: &'static [u8], length| wire::NetworkAddress {
        network: String::new(),
        address: address.into(),
        length,
    };
    let weighted = |destination| wire::WeightedWaypoint { destination, weight: 1 };
    let rows = [
        (broken(&|s| s.namespace.clear()), "namespace: is missing"),
        (broken(&|s| s.hostname.clear()), "hostname: is missing"),
        (broken(&|s| s.hostname = "a/b".into()), "hostname: \"n/a/b\" is not"),
        (broken(&|s| s.addresses = vec![address(b"123", None)]), "addresses[0].address: has 3 bytes"),
        (
            broken(&|s| s.addresses = vec![address(b"1234", Some(33))]),
            "addresses[0].length: prefix length 33",
        ),
        (broken(&|s| s.addresses = vec![address(b"1234", Some(1 << 20))]), "addresses[0].length: prefix"),
        (broken(&|s| s.weighted_waypoints = vec![weighted(None)]), "weighted_waypoints[0].destination: is"),
        (
            broken(&|s| {
                let hostname = wire::NamespacedHostname { namespace: "n".into(), hostname: String::new() };
                let destination = Some(wire::gateway_address::Destination::Hostname(hostname));
                s.waypoint = Some(wire::GatewayAddress { destination, hbone_mtls_port: 1 });
            }),
            "waypoint.hostname.hostname: is missing",
        ),
    ];
    check(&rows);
}

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
fn a_malformed_policy_is_refused_whole() {
    // G3: nothing is dropped from a list, because that would widen what is allowed or narrow what is denied.
    let broken = |change: &dyn Fn(&mut policy_wire::Match)| {
        let mut one = policy_wire::Match::default();
        change(&mut one);
        let message = policy_of(0, vec![policy_wire::Match::default(), one]);
        authorization::decode(&message).expect_err("must be refused").to_string()
    };
    let range = |address: &'static [u8], length| policy_wire::Address { address: address.into(), length };
    let nothing = policy_wire::StringMatch { match_type: None };
    let place = "rules[0].clauses[0].matches[1]";
    let rows = [
        (broken(&|m| m.namespaces = vec![nothing.clone()]), "namespaces[0].match_type: is missing"),
        (broken(&|m| m.not_principals = vec![nothing.clone()]), "not_principals[0].match_type: is missing"),
        (broken(&|m| m.source_ips = vec![range(b"12345", 8)]), "source_ips[0].address: has 5 bytes"),
        (
            broken(&|m| m.not_source_ips = vec![range(b"1234", 33)]),
            "not_source_ips[0].length: prefix length 33",
        ),
        (broken(&|m| m.destination_ips = vec![range(&[0; 16], 129)]), "destination_ips[0].length: prefix"),
        (broken(&|m| m.destination_ports = vec![80, 65616]), "destination_ports[1]: 65616 is no port"),
        (broken(&|m| m.not_destination_ports = vec![65536]), "not_destination_ports[0]: 65536 is no"),
        (
            broken(&|m| m.service_accounts = vec![policy_wire::ServiceAccountMatch::default()]),
            "service_accounts[0].namespace: is missing",
        ),
    ];
    for (found, want) in rows {
        assert!(found.starts_with(&format!("{place}.{want}")), "found {found:?}, want {want:?}");
    }
    let nameless = policy_wire::Authorization { namespace: "n".into(), ..Default::default() };
    assert_eq!(authorization::decode(&nameless).unwrap_err().to_string(), "name: is missing");
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

fn word() -> impl Strategy<Value = Str> {
    select(vec!["", "a", "b-c", "x.y", "long-name-0"]).prop_map(Str::from)
}

fn named() -> impl Strategy<Value = String> {
    select(vec!["a", "b-c", "x.y", "*", "long-name-0"]).prop_map(str::to_owned)
}

fn ip_strategy() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(|bytes| std::net::IpAddr::from(bytes).to_canonical()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip_strategy(), 0..=128u8).prop_map(|(ip, length)| {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length.min(max)).expect("within the maximum").trunc()
    })
}

fn port_strategy() -> impl Strategy<Value = Port> {
    let protocols = vec![
        AppProtocol::Unknown,
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ];
    (any::<u16>(), any::<u16>(), select(protocols)).prop_map(|(service_port, target_port, app_protocol)| {
        Port { service_port, target_port, app_protocol }
    })
}

fn gateway_strategy() -> impl Strategy<Value = GatewayAddress> {
    let hostname = (named(), named()).prop_map(|(n, h)| Destination::Hostname(ServiceKey::new(n, h)));
    let address = (word(), ip_strategy())
        .prop_map(|(network, ip)| Destination::Address(NetworkAddress::new(network.into(), ip)));
    (prop_oneof![hostname, address], any::<u16>())
        .prop_map(|(destination, hbone_mtls_port)| GatewayAddress { destination, hbone_mtls_port })
}

fn egress_strategy() -> impl Strategy<Value = Egress> {
    let rule =
        (vec(net().prop_filter("written as IPv4", |net| !is_mapped(net)), 0..3), vec(any::<u16>(), 0..3));
    let rule = rule.prop_map(|(cidrs, ports)| EgressRule { cidrs, ports });
    (named(), named(), vec(rule, 0..3))
        .prop_map(|(namespace, name, rules)| Egress { policy: PolicyKey::new(namespace, name), rules })
}

fn is_mapped(net: &IpNet) -> bool {
    net.network().is_ipv6() && net.network().to_canonical().is_ipv4()
}

fn workload_strategy() -> impl Strategy<Value = Workload> {
    let place = (vec(ip_strategy(), 0..3), word(), word(), (word(), word(), word()));
    let reach = (
        select(vec![TunnelProtocol::None, TunnelProtocol::Hbone, TunnelProtocol::LegacyIstioMtls]),
        option::of(gateway_strategy()),
        option::of(gateway_strategy()),
        option::of((any::<bool>(), option::of(1..u16::MAX))),
    );
    let policies = vec((named(), named()), 0..3);
    let services = btree_map((named(), named()), vec(port_strategy(), 0..3), 0..3);
    let settings = option::of((
        proptest::collection::btree_set(any::<u16>(), 0..3),
        vec(ip_strategy(), 0..2),
        any::<bool>(),
        option::of(egress_strategy()),
    ));
    let kind = (
        select(vec![WorkloadType::Deployment, WorkloadType::CronJob, WorkloadType::Pod, WorkloadType::Job]),
        select(vec![Health::Healthy, Health::Unhealthy]),
        select(vec![NetworkMode::Standard, NetworkMode::HostNetwork]),
        any::<u32>(),
        any::<bool>(),
    );
    (named(), place, reach, policies, services, settings, kind).prop_map(
        |(uid, place, reach, policies, services, settings, kind)| {
            let mut workload = Workload::new(uid, &*place.1, &*place.2);
            workload.addresses = place.0;
            workload.network = place.1.clone().into();
            workload.node = place.2;
            workload.locality = Locality { region: place.3.0, zone: place.3.1, subzone: place.3.2 };
            (workload.tunnel, workload.waypoint, workload.network_gateway) = (reach.0, reach.1, reach.2);
            workload.application_tunnel =
                reach.3.map(|(proxy_protocol, port)| ambit_types::ApplicationTunnel { proxy_protocol, port });
            workload.policies = policies.into_iter().map(|(n, p)| PolicyKey::new(n, p)).collect();
            workload.services =
                services.into_iter().map(|((n, h), ports)| (ServiceKey::new(n, h), ports)).collect();
            workload.settings = settings.map(|(ports, node_addresses, network_policy, egress)| {
                let probe_ports = ports.into_iter().collect();
                Arc::new(Settings { probe_ports, node_addresses, network_policy, egress })
            });
            workload.trust_domain = TrustDomain::parse("td.example").expect("valid");
            (workload.workload_type, workload.health, workload.network_mode) = (kind.0, kind.1, kind.2);
            (workload.capacity, workload.native_tunnel) = (kind.3, kind.4);
            workload
        },
    )
}

fn service_strategy() -> impl Strategy<Value = Service> {
    let addresses = (vec((word(), ip_strategy()), 0..3), vec((word(), net()), 0..2));
    let scopes = vec![
        LbScope::Region,
        LbScope::Zone,
        LbScope::Subzone,
        LbScope::Node,
        LbScope::Cluster,
        LbScope::Network,
    ];
    let modes = vec![
        LoadBalancingMode::Any,
        LoadBalancingMode::Strict,
        LoadBalancingMode::Failover,
        LoadBalancingMode::Passthrough,
    ];
    let choice = (
        vec(select(scopes), 0..4),
        select(modes),
        select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]),
    );
    let families =
        select(vec![IpFamilies::Automatic, IpFamilies::Ipv4Only, IpFamilies::Ipv6Only, IpFamilies::Dual]);
    let flags = (any::<bool>(), any::<bool>(), select(vec![Visibility::Public, Visibility::Namespace]));
    let waypoints = (option::of(gateway_strategy()), vec((gateway_strategy(), any::<u32>()), 0..2));
    (named(), addresses, vec(port_strategy(), 0..3), choice, families, flags, waypoints).prop_map(
        |(host, addresses, ports, choice, families, flags, waypoints)| {
            let mut service = Service::new("ns", &*host, &*host);
            let address = |(network, ip): (Str, _)| NetworkAddress::new(network.into(), ip);
            service.vips = addresses.0.into_iter().map(address).collect();
            let ranges =
                addresses.1.into_iter().filter(|(_, range)| range.prefix_len() < range.max_prefix_len());
            service.cidr_vips =
                ranges.map(|(network, range)| NetworkCidr { network: network.into(), range }).collect();
            service.ports = ports;
            service.subject_alt_names = vec![Identity::parse("spiffe://td/ns/a/sa/b").expect("valid")];
            service.load_balancing = LoadBalancing { preference: choice.0, mode: choice.1, health: choice.2 };
            service.ip_families = families;
            (service.canonical, service.ingress_use_waypoint, service.visibility) = flags;
            service.waypoint = waypoints.0;
            service.weighted_waypoints = waypoints
                .1
                .into_iter()
                .map(|(destination, weight)| WeightedWaypoint { destination, weight })
                .collect();
            service
        },
    )
}

fn values<T: std::fmt::Debug>(one: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Values<T>> {
    (vec(one.clone(), 0..3), vec(one, 0..2)).prop_map(|(any, none)| Values { any, none })
}

fn policy_strategy() -> impl Strategy<Value = Policy> {
    let text = || {
        prop_oneof![
            named().prop_map(|t| StringMatch::Exact(t.into())),
            named().prop_map(|t| StringMatch::Prefix(t.into())),
            named().prop_map(|t| StringMatch::Suffix(t.into())),
            Just(StringMatch::Presence),
        ]
    };
    let account =
        (named(), named()).prop_map(|(n, a)| ServiceAccount { namespace: n.into(), name: a.into() });
    let one = (
        values(text().boxed()),
        values(text().boxed()),
        values(account.boxed()),
        values(net().boxed()),
        values(net().boxed()),
        values(any::<u16>().boxed()),
    )
        .prop_map(
            |(namespaces, principals, service_accounts, source_ips, destination_ips, destination_ports)| {
                Match {
                    namespaces,
                    principals,
                    service_accounts,
                    source_ips,
                    destination_ips,
                    destination_ports,
                }
            },
        );
    let clause = vec(one, 0..3).prop_map(|matches| Clause { matches });
    let conditions = proptest::collection::btree_set(named(), 0..2);
    let rule = (vec(clause, 0..3), conditions).prop_map(|(clauses, conditions)| Rule {
        clauses,
        unevaluable: conditions.into_iter().map(Str::from).collect(),
    });
    let scope = select(vec![Scope::Global, Scope::Namespace, Scope::WorkloadSelector]);
    let action = select(vec![Action::Allow, Action::Deny]);
    let until = option::of(any::<u64>());
    (scope, action, vec(rule, 0..3), any::<bool>(), until).prop_map(
        |(scope, action, rules, dry_run, until)| Policy {
            key: PolicyKey::new("ns", "p"),
            scope,
            action,
            rules,
            dry_run,
            until,
        },
    )
}

/// A value read from a wire message is written as a message that is read as the same value.
fn reads_back(address: &Address) -> Result<(), TestCaseError> {
    let mut notes = Notes::default();
    let again = Address::decode(&address.encode(), &mut notes);
    prop_assert_eq!(again.as_ref(), Ok(address));
    prop_assert!(notes.is_empty());
    prop_assert_eq!(again.map(|again| again.encode()), Ok(address.encode()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn workloads_read_back(workload in workload_strategy()) {
        reads_back(&workload.into())?;
    }

    #[test]
    fn services_read_back(service in service_strategy()) {
        reads_back(&service.into())?;
    }

    #[test]
    fn policies_read_back(policy in policy_strategy()) {
        // A DENY with an empty match is not what this side writes; reading it makes it another policy, once.
        let once = authorization::decode_any(&authorization::encode_any(&policy));
        let is_empty = |one: &Match| *one == Match::default();
        let stripped = policy.action == Action::Deny
            && policy.rules.iter().flat_map(|r| &r.clauses).flat_map(|c| &c.matches).any(is_empty);
        if !stripped {
            prop_assert_eq!(once.as_ref(), Ok(&policy));
        }
        let once = once.expect("well formed");
        prop_assert_eq!(authorization::decode_any(&authorization::encode_any(&once)), Ok(once));
    }

    #[test]
    fn damaged_bytes_never_panic_and_read_back_if_read(
        workload in workload_strategy(),
        policy in policy_strategy(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let damaged = |any: Any| {
            let mut bytes = any.value.to_vec();
            for (place, byte) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            Any { type_url: any.type_url, value: bytes.into() }
        };
        let mut notes = Notes::default();
        if let Ok(address) = Address::decode(&damaged(Address::from(workload).encode()), &mut notes) {
            reads_back(&address)?;
        }
        if let Ok(policy) = authorization::decode_any(&damaged(authorization::encode_any(&policy))) {
            prop_assert_eq!(authorization::decode_any(&authorization::encode_any(&policy)), Ok(policy));
        }
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
