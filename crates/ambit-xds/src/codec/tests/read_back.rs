//! What is written is read back as the same value, and damaged bytes are refused or read as something whole.

use std::sync::Arc;

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use ambit_types::service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Port, Scope as LbScope, Visibility,
};
use ambit_types::workload::{Health, NetworkMode, Settings, WorkloadType};
use ambit_types::{
    AppProtocol, Destination, Egress, EgressRule, GatewayAddress, Identity, Locality, NetworkAddress,
    NetworkCidr, PolicyKey, Service, ServiceKey, Str, TrustDomain, TunnelProtocol, WeightedWaypoint,
    Workload,
};
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::any::Any;
use crate::codec::{Address, Notes, authorization};

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
