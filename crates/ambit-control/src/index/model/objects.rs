//! Events of every kind of object, out of few names and labels, so that objects meet each other often.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_policy::{http, jwt};
use ambit_types::written::{
    self, AllowedRoutes, BackendRef, GrpcRule, HttpMatch, HttpRule, Listener, ParentRef, PathMatch,
    RouteNamespaces, StreamRule,
};
use ambit_types::{EgressRule, Str};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::input::*;

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => object().prop_map(Event::Put),
        1 => object().prop_map(|object| Event::Remove(object.key())),
    ]
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        1 => namespace().prop_map(Object::Namespace),
        1 => node().prop_map(Object::Node),
        5 => pod().prop_map(|p| Object::Pod(Box::new(p))),
        3 => service().prop_map(|s| Object::Service(Box::new(s))),
        2 => slice().prop_map(Object::EndpointSlice),
        1 => (name(), labels()).prop_map(|(name, l)| {
            Object::NetworkPolicy(NetworkPolicy { name, pods: LabelSelector::labels(l) })
        }),
        2 => authorization().prop_map(|p| Object::AuthorizationPolicy(Box::new(p))),
        3 => peer_authentication().prop_map(Object::PeerAuthentication),
        3 => service_entry().prop_map(|e| Object::ServiceEntry(Box::new(e))),
        2 => gateway().prop_map(|g| Object::Gateway(Box::new(g))),
        4 => route().prop_map(|r| Object::Route(Box::new(r))),
        1 => grant().prop_map(Object::ReferenceGrant),
        2 => traffic_policy().prop_map(|p| Object::TrafficPolicy(Box::new(p))),
        2 => egress_policy().prop_map(Object::EgressPolicy),
        2 => http_policy().prop_map(|p| Object::HttpPolicy(Box::new(p))),
        1 => authentication().prop_map(|p| Object::RequestAuthentication(Box::new(p))),
        1 => mesh_config().prop_map(|p| Object::MeshConfig(Box::new(p))),
        1 => (word(&["istio-waypoint"]), word(&["istio.io/mesh-controller", "other"])).prop_map(
            |(name, controller)| Object::GatewayClass(GatewayClass { name, labels: Labels::new(), controller }),
        ),
        2 => (name(), endpoint()).prop_map(|(name, endpoint)| {
            Object::WorkloadEntry(Box::new(WorkloadEntry { name, annotations: Labels::new(), endpoint }))
        }),
    ]
}

fn word(of: &'static [&'static str]) -> impl Strategy<Value = Str> {
    select(of).prop_map(Str::from)
}

fn name() -> impl Strategy<Value = Name> {
    (word(&["istio-system", "a", "b"]), word(&["x", "y"])).prop_map(|(ns, n)| Name::new(ns, n))
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(word(&["app", "tier"]), word(&["1", "2"]), 0..3).prop_map(Labels::from)
}

fn address() -> impl Strategy<Value = IpAddr> {
    (1u8..5).prop_map(|last| IpAddr::from([10, 0, 0, last]))
}

fn namespace() -> impl Strategy<Value = Namespace> {
    let labels = btree_map(
        word(&["topology.istio.io/network", "istio.io/use-waypoint"]),
        word(&["one", "none", "x"]),
        0..3,
    )
    .prop_map(Labels::from);
    (word(&["istio-system", "a", "b"]), labels).prop_map(|(name, labels)| Namespace {
        name,
        labels,
        annotations: Labels::new(),
    })
}

fn node() -> impl Strategy<Value = Node> {
    let labels = btree_map(word(&["topology.kubernetes.io/zone"]), word(&["z1", "z2"]), 0..2);
    let labels = labels.prop_map(Labels::from);
    (word(&["n1", "n2"]), labels, vec(address(), 0..2)).prop_map(|(name, labels, addresses)| Node {
        uid: name.clone(),
        name,
        labels,
        addresses,
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let phase = select(vec![Phase::Pending, Phase::Running, Phase::Running, Phase::Succeeded]);
    let named = prop_oneof![
        Just(Vec::new()),
        (80u16..82).prop_map(|port| {
            vec![ContainerPort { name: Str::from("http"), port, transport: Transport::Tcp }]
        })
    ];
    (name(), labels(), word(&["n1", "n2"]), vec(address(), 0..2), phase, any::<bool>(), named).prop_map(
        |(name, labels, node, addresses, phase, ready, ports)| Pod {
            name,
            uid: Str::from("u"),
            labels,
            annotations: Labels::new(),
            controller: None,
            service_account: Str::from("default"),
            node,
            host_network: false,
            addresses,
            phase,
            ready,
            deleting: false,
            ports,
            probe_ports: Vec::new(),
        },
    )
}

fn waypoint_labels() -> impl Strategy<Value = Labels> {
    btree_map(
        word(&["app", "istio.io/use-waypoint", "istio.io/use-waypoint-canary"]),
        word(&["1", "x", "y"]),
        0..3,
    )
    .prop_map(Labels::from)
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let labels = btree_map(word(&["istio.io/waypoint-for"]), word(&["service", "workload", "all"]), 0..2);
    let labels = labels.prop_map(Labels::from);
    let from = select(vec![None, Some("All"), Some("Same")]);
    (name(), labels, from, any::<bool>(), any::<bool>()).prop_map(
        |(name, labels, from, has_address, is_waypoint)| {
            let namespaces = RouteNamespaces { from: from.map(str::to_owned), selector: None };
            let allowed = AllowedRoutes { namespaces: Some(namespaces), kinds: Vec::new() };
            let listener = Listener {
                name: "mesh".into(),
                port: 15008,
                protocol: "HBONE".into(),
                allowed_routes: Some(allowed),
                ..Listener::default()
            };
            let class = if is_waypoint { "istio-waypoint" } else { "other" };
            let spec = written::Gateway {
                gateway_class_name: class.into(),
                listeners: vec![listener],
                ..written::Gateway::default()
            };
            let (uid, annotations) = (Str::from(""), Labels::new());
            Gateway { name, uid, generation: 0, labels, annotations, spec, has_address }
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let parent =
        (word(&["x", "y"]), select(vec![None, Some("a"), Some("b")]), select(vec![None, Some(80), Some(81)]))
            .prop_map(|(name, namespace, port)| ParentRef {
                group: Some(String::new()),
                kind: Some("Service".into()),
                namespace: namespace.map(str::to_owned),
                name: name.to_string(),
                section_name: None,
                port,
            });
    let backend =
        (word(&["x", "y"]), select(vec![None, Some("a"), Some("b")])).prop_map(|(name, namespace)| {
            BackendRef {
                name: name.to_string(),
                namespace: namespace.map(str::to_owned),
                port: Some(80),
                ..BackendRef::default()
            }
        });
    (name(), 0u64..2, vec(parent, 0..3), vec(backend, 0..3), 0u8..5, any::<bool>()).prop_map(
        |(name, created, parent_refs, backend_refs, kind, is_broken)| {
            let path = if is_broken { "no/slash" } else { "/" };
            let path = PathMatch { r#type: None, value: Some(path.into()) };
            let matches = vec![HttpMatch { path: Some(path), ..HttpMatch::default() }];
            let spec = match kind {
                0 => RouteSpec::Grpc(written::GrpcRoute {
                    parent_refs,
                    rules: vec![GrpcRule { backend_refs, ..GrpcRule::default() }],
                    ..written::GrpcRoute::default()
                }),
                1 => RouteSpec::Tcp(written::TcpRoute {
                    parent_refs,
                    rules: vec![StreamRule { backend_refs, ..StreamRule::default() }],
                }),
                2 => RouteSpec::Virtual(Virtual {
                    // Its services are of its own namespace.
                    parents: parent_refs.into_iter().filter(|parent| parent.namespace.is_none()).collect(),
                    rules: vec![VirtualRule {
                        at: 0,
                        rule: HttpRule { matches, backend_refs, ..HttpRule::default() },
                        retry: None,
                        fault: None,
                    }],
                    ..Virtual::default()
                }),
                _ => RouteSpec::Http(written::HttpRoute {
                    parent_refs,
                    rules: vec![HttpRule { matches, backend_refs, ..HttpRule::default() }],
                    ..written::HttpRoute::default()
                }),
            };
            Route { name, created, generation: 1, spec }
        },
    )
}

fn grant() -> impl Strategy<Value = ReferenceGrant> {
    (name(), word(&["a", "b"])).prop_map(|(name, namespace)| {
        let from = written::GrantFrom {
            group: "gateway.networking.k8s.io".into(),
            kind: "HTTPRoute".into(),
            namespace: namespace.to_string(),
        };
        let to = written::GrantTo { group: String::new(), kind: "Service".into(), name: None };
        ReferenceGrant { name, spec: written::Grant { from: vec![from], to: vec![to] } }
    })
}

fn traffic_policy() -> impl Strategy<Value = TrafficPolicy> {
    let target =
        (select(vec![("", "Service"), ("gateway.networking.k8s.io", "HTTPRoute")]), word(&["x", "y"]));
    (name(), 0u64..2, vec(target, 1..3), any::<bool>(), any::<bool>()).prop_map(
        |(name, created, targets, has_idle, has_limits)| {
            let targets = targets.into_iter().map(|((group, kind), name)| written::PolicyTarget {
                group: group.into(),
                kind: kind.into(),
                name: name.to_string(),
                section_name: None,
            });
            let connections =
                written::Connections { requests_max: Some(9), ..written::Connections::default() };
            let spec = written::TrafficPolicy {
                target_refs: targets.collect(),
                idle_timeout: has_idle.then(|| "5m".to_owned()),
                connections: has_limits.then_some(connections),
                ..written::TrafficPolicy::default()
            };
            TrafficPolicy { name, created, generation: 0, spec }
        },
    )
}

fn egress_policy() -> impl Strategy<Value = EgressPolicy> {
    // Two of the largest do not fit into one namespace.
    let rule = select(vec![1u16, 2, 300])
        .prop_map(|ports| EgressRule { cidrs: Vec::new(), ports: (1..=ports).collect() });
    (name(), labels(), vec(rule, 0..2)).prop_map(|(name, selector, rules)| EgressPolicy {
        name,
        generation: 0,
        selector,
        rules,
    })
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let kinds = vec![
        ("", "Service"),
        ("networking.istio.io", "ServiceEntry"),
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "GatewayClass"),
    ];
    let target = (select(kinds), word(&["x", "y", "istio-waypoint"]));
    let target =
        target.prop_map(|((group, kind), name)| Target { group: group.into(), kind: kind.into(), name });
    vec(target, 0..3)
}

fn http_policy() -> impl Strategy<Value = HttpPolicy> {
    let provider = proptest::option::of(word(&["x", "y", "z"]));
    (name(), targets(), any::<bool>(), provider).prop_map(|(name, targets, is_broken, provider)| {
        // DENY without rules is a mistake.
        let action = if is_broken { http::written::Action::Deny } else { http::written::Action::Allow };
        let mut spec = http::written::Policy { action, ..http::written::Policy::default() };
        if let Some(provider) = provider {
            spec.action = http::written::Action::Custom;
            spec.provider = Some(http::written::Provider { name: provider.to_string() });
            spec.rules = Some(vec![http::written::Rule::default()]);
        }
        HttpPolicy { name, generation: 0, targets, dry_run: false, spec }
    })
}

fn authentication() -> impl Strategy<Value = RequestAuthentication> {
    (name(), targets(), word(&["", "https://id.example"])).prop_map(|(name, targets, issuer)| {
        let rule = jwt::written::Rule { issuer: issuer.to_string(), ..jwt::written::Rule::default() };
        RequestAuthentication { name, generation: 0, targets, rules: vec![rule] }
    })
}

fn mesh_config() -> impl Strategy<Value = MeshConfig> {
    // A provider without a port is a mistake.
    let provider = (word(&["x", "y"]), 0u32..3, any::<bool>()).prop_map(|(name, port, can_be_read)| {
        let grpc = http::provider::written::Grpc { service: "opa.a".into(), port, ..Default::default() };
        let spec = http::provider::written::Provider {
            name: name.to_string(),
            envoy_ext_authz_grpc: Some(grpc),
            ..Default::default()
        };
        let spec = if can_be_read { Ok(spec) } else { Err(vec!["cannot be read".to_owned()]) };
        ("extensionProviders[0]".to_owned(), name.to_string(), spec)
    });
    let name = (word(&["istio-system", "a"]), word(&["istio", "x"])).prop_map(|(ns, n)| Name::new(ns, n));
    (name, vec(provider, 0..3)).prop_map(|(name, providers)| MeshConfig::new(name, providers))
}

fn service() -> impl Strategy<Value = Service> {
    let target = prop_oneof![Just(TargetPort::Number(8080)), Just(TargetPort::Name(Str::from("http"))),];
    (name(), waypoint_labels(), labels(), target, any::<bool>(), vec(address(), 0..2)).prop_map(
        |(name, labels, selector, target, external_name, cluster_ips)| Service {
            name,
            created: 0,
            labels,
            annotations: Labels::new(),
            selector,
            cluster_ips,
            ports: vec![ServicePort {
                name: Str::from("http"),
                port: 80,
                target,
                transport: Transport::Tcp,
                app_protocol: None,
            }],
            external_name,
            node_local: false,
            traffic_distribution: None,
            publish_not_ready: false,
            ip_families_v6: Vec::new(),
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let pod = prop_oneof![Just(None), name().prop_map(|name| Some(TargetRef { name, uid: Str::from("u") })),];
    let endpoint = (address(), any::<bool>(), pod).prop_map(|(address, ready, pod)| SliceEndpoint {
        address,
        ready,
        pod,
    });
    (name(), word(&["x", "y"]), vec(endpoint, 0..3)).prop_map(|(name, service, endpoints)| EndpointSlice {
        name,
        service,
        ports: vec![SlicePort { name: Str::from("http"), port: 9090 }],
        endpoints,
    })
}

fn authorization() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = select(vec![PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Audit]);
    (name(), labels(), action, 0usize..2, vec(word(&["a", "*"]), 0..2)).prop_map(
        |(name, selector, action, targets, namespaces)| AuthorizationPolicy {
            name,
            generation: 0,
            selector,
            targets,
            action,
            rules: vec![PolicyRule {
                from: vec![Source {
                    namespaces: Terms { any: namespaces, none: Vec::new() },
                    ..Source::default()
                }],
                ..PolicyRule::default()
            }],
            dry_run: false,
            until: None,
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict])
}

fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    (name(), 0u64..3, labels(), mode(), btree_map(80u16..83, mode(), 0..3)).prop_map(
        |(name, created, selector, mode, ports)| PeerAuthentication { name, created, selector, mode, ports },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (word(&["10.1.0.1", "10.1.0.2", "db.example"]), labels()).prop_map(|(address, labels)| Endpoint {
        address,
        labels,
        ..Endpoint::default()
    })
}

fn service_entry() -> impl Strategy<Value = ServiceEntry> {
    let host = word(&["x.a.svc.cluster.local", "db.example", "api.example"]);
    let resolution = select(vec![Resolution::None, Resolution::Static, Resolution::Dns]);
    (name(), 0u64..3, vec(host, 1..3), resolution, vec(endpoint(), 0..2), labels(), labels()).prop_map(
        |(name, created, hosts, resolution, endpoints, workload_selector, labels)| ServiceEntry {
            name,
            created,
            generation: 0,
            labels,
            annotations: Labels::new(),
            hosts,
            addresses: Vec::new(),
            allocated: BTreeMap::new(),
            ports: vec![EntryPort {
                name: Str::from("http"),
                number: 80,
                protocol: Str::from("HTTP"),
                target: None,
            }],
            resolution,
            endpoints,
            workload_selector,
            subject_alt_names: Vec::new(),
        },
    )
}
