//! What manifests are reduced to, and what is refused.

use ambit_control::input::{Event, Kind, Object, RouteSpec, TargetPort, Transport};
use ambit_manifest::parse;

use super::{put, remove};

fn object(text: &str) -> Object {
    let parsed = parse("m.yaml", text);
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    match put(&parsed.objects[0]).map_err(|p| p[0].to_string()).unwrap() {
        Some(Event::Put(object)) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_keeps_what_the_mesh_reads() {
    let Object::Pod(pod) = object(
        r#"
apiVersion: v1
kind: Pod
metadata:
  {name: p, namespace: shop, uid: u, labels: {a: b}, annotations: {other: thing, ambient.istio.io/redirection: enabled}, deletionTimestamp: "2026-01-01T00:00:00Z"}
spec:
  nodeName: node1
  initContainers:
  - {name: side, image: i, restartPolicy: Always, ports: [{name: side, containerPort: 7000}]}
  - {name: once, image: i, ports: [{containerPort: 7001}]}
  containers:
  - name: c
    image: i
    ports: [{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
    livenessProbe: {httpGet: {port: web}}
    readinessProbe: {tcpSocket: {port: 9000}}
    startupProbe: {grpc: {port: 9001}}
  - {name: d, image: i, livenessProbe: {exec: {command: [x]}}}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], conditions: [{type: Ready, status: "False"}]}
"#,
    ) else {
        panic!("no pod")
    };
    assert_eq!(&*pod.service_account, "default");
    assert_eq!(pod.annotations.len(), 1, "other annotations change often and mean nothing");
    assert_eq!(pod.addresses.len(), 2);
    assert!(!pod.ready && pod.deleting && !pod.host_network);
    let ports: Vec<_> = pod.ports.iter().map(|p| (p.port, p.transport)).collect();
    assert_eq!(ports, [(7000, Transport::Tcp), (8080, Transport::Tcp), (53, Transport::Udp)]);
    assert_eq!(pod.probe_ports, [8080, 9000, 9001]);
}

#[test]
fn a_service_gets_the_defaults_an_api_server_writes() {
    let Object::Service(service) = object(
        "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: shop}
spec: {clusterIP: None, selector: {a: b}, ports: [{name: a, port: 80}, {name: b, port: 81, targetPort: web}, {name: c, port: 82, targetPort: 9000}]}
",
    ) else {
        panic!("no service")
    };
    assert!(service.cluster_ips.is_empty());
    let targets: Vec<_> = service.ports.iter().map(|p| p.target.clone()).collect();
    let wanted = [TargetPort::Number(80), TargetPort::Name("web".into()), TargetPort::Number(9000)];
    assert_eq!(targets, wanted);
}

#[test]
fn a_node_has_the_addresses_of_its_status_and_its_annotation() {
    let Object::Node(node) = object(
        "
apiVersion: v1
kind: Node
metadata: {name: node1, uid: u, annotations: {ambit.internal/node-addresses: '10.244.1.1, fd00::1'}}
status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: Hostname, address: node1}]}
",
    ) else {
        panic!("no node")
    };
    let texts: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["172.18.0.2", "10.244.1.1", "fd00::1"]);
}

#[test]
fn kinds_the_mesh_does_not_read_are_passed_over() {
    let parsed = parse("m.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}");
    assert_eq!(put(&parsed.objects[0]), Ok(None));
}

#[test]
fn an_unreadable_value_refuses_the_object_with_its_place() {
    // Written by a controller, so manifests may hold anything there.
    let text = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec: {hosts: [db.example], ports: [{number: 80, name: tcp, protocol: TCP}], resolution: DNS}
status: {addresses: [{value: nowhere, host: db.example}]}
";
    let parsed = parse("m.yaml", text);
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    let problems = put(&parsed.objects[0]).unwrap_err();
    assert_eq!(problems.len(), 1);
    let shown = problems[0].to_string();
    assert!(shown.starts_with("m.yaml:6:30"), "{shown}");
    assert!(shown.contains("\"nowhere\" is no IP address"), "{shown}");
}

#[test]
fn an_authorization_policy_with_targets_is_for_waypoints() {
    let policy = |spec: &str| {
        object(&format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop, generation: 3, annotations: {{istio.io/dry-run: 'true'}}}}
spec: {spec}
"
        ))
    };
    let target = "{group: '', kind: Service, name: cart}";
    let rules = "rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]";
    for spec in [format!("{{targetRef: {target}, {rules}}}"), format!("{{targetRefs: [{target}], {rules}}}")]
    {
        let Object::HttpPolicy(made) = policy(&spec) else { panic!("{spec}") };
        assert_eq!((made.generation, made.dry_run, made.targets.len()), (3, true, 1));
        assert_eq!((&*made.targets[0].kind, &*made.targets[0].name), ("Service", "cart"));
        assert_eq!(made.spec.rules.unwrap().len(), 1);
    }
    for spec in ["{selector: {matchLabels: {app: cart}}, rules: [{}]}", "{targetRefs: [], rules: [{}]}"] {
        let Object::AuthorizationPolicy(made) = policy(spec) else { panic!("{spec}") };
        assert!(made.dry_run && made.targets == 0);
    }
}

#[test]
fn a_gateway_has_an_address_once_its_status_says_so() {
    let gateway = |status: &str| {
        let made = object(&format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: waypoint, namespace: shop, labels: {{istio.io/waypoint-for: all}}}}
spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}
{status}
"
        ));
        let Object::Gateway(gateway) = made else { panic!("no gateway") };
        assert_eq!(gateway.labels.get("istio.io/waypoint-for").map(|of| &**of), Some("all"));
        gateway.has_address
    };
    assert!(!gateway(""));
    assert!(!gateway("status: {addresses: []}"));
    assert!(gateway("status: {addresses: [{type: IPAddress, value: 10.96.0.9}]}"));
}

#[test]
fn every_kind_for_waypoints_is_read_and_removed_under_one_key() {
    let rows = [
        ("gateway.networking.k8s.io/v1", "GatewayClass", "{controllerName: istio.io/mesh-controller}"),
        (
            "gateway.networking.k8s.io/v1",
            "Gateway",
            "{gatewayClassName: c, listeners: [{name: m, port: 15008, protocol: HBONE}]}",
        ),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "{parentRefs: [{group: '', kind: Service, name: s}]}"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute", "{parentRefs: [{group: '', kind: Service, name: s}]}"),
        (
            "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
            "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}]}",
        ),
        (
            "security.istio.io/v1",
            "RequestAuthentication",
            "{jwtRules: [{issuer: a.example, jwksUri: 'https://a.example/k'}]}",
        ),
    ];
    for (version, kind, spec) in rows {
        let text = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: one}}, spec: {spec}}}");
        let parsed = parse("m.yaml", &text);
        assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
        let Ok(Some(Event::Put(made))) = put(&parsed.objects[0]) else { panic!("{kind}") };
        assert_eq!(made.key().kind.as_str(), kind);
        assert_eq!(remove(&parsed.objects[0].key), Some(Event::Remove(made.key())));
    }
}

#[test]
fn the_share_of_a_canary_comes_through() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: shop, annotations: {istio.io/use-waypoint-canary-weight: '10', other: thing}}
spec: {ports: [{port: 80}]}
";
    let Object::Service(service) = object(text) else { panic!("no service") };
    assert_eq!(service.annotations.len(), 1);
    assert_eq!(service.annotations.get("istio.io/use-waypoint-canary-weight").map(|w| &**w), Some("10"));
}

#[test]
fn the_mesh_configuration_is_read_out_of_its_config_map() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: ask
      envoyExtAuthzGrpc: {service: ask.shop.svc.cluster.local, port: 9000}
";
    let Object::MeshConfig(made) = object(text) else { panic!("no mesh configuration") };
    assert_eq!((made.name.to_string().as_str(), made.providers.len()), ("istio-system/istio", 1));
    assert!(&*made.providers[0].name == "ask" && made.providers[0].spec.is_ok(), "{:?}", made.providers[0]);
    let parsed = parse("m.yaml", &text.replace("extensionProviders:", "extensionProviders: ["));
    assert!(parsed.problems.is_empty());
    assert!(put(&parsed.objects[0]).is_err(), "what was in force stays so");
}

#[test]
fn an_egress_policy_keeps_ranges_and_ports_that_can_be_compared() {
    let text = |cidr: &str| {
        format!(
            "
apiVersion: ambit.internal/v1alpha1
kind: EgressPolicy
metadata: {{name: out, namespace: shop, generation: 3}}
spec: {{selector: {{matchLabels: {{app: web}}}}, allow: [{{cidrs: [192.0.2.0/24, '{cidr}'], ports: [443]}}]}}
"
        )
    };
    let Object::EgressPolicy(policy) = object(&text("2001:db8::1")) else { panic!("no policy") };
    assert_eq!((policy.generation, policy.selector.len(), policy.rules.len()), (3, 1, 1));
    let cidrs: Vec<String> = policy.rules[0].cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["192.0.2.0/24", "2001:db8::1/128"]);
    assert_eq!(policy.rules[0].ports, [443]);
    for mapped in ["::ffff:192.0.2.1", "::ffff:192.0.2.0/120"] {
        let parsed = parse("m.yaml", &text(mapped));
        let problems = put(&parsed.objects[0]).expect_err("it never matches");
        assert_eq!(problems[0].field, "spec.allow[0].cidrs[1]");
    }
}

#[test]
fn a_virtual_service_is_imported_as_a_route_or_refused_with_its_field() {
    let text = "
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: v, namespace: shop, generation: 3}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: a}, weight: 9}, {destination: {host: b}, weight: 1}]}]
";
    let Object::Route(route) = object(text) else { panic!("no route") };
    let RouteSpec::Virtual(spec) = &route.spec else { panic!("{:?}", route.spec) };
    let weights: Vec<Option<i64>> = spec.rules[0].rule.backend_refs.iter().map(|one| one.weight).collect();
    assert_eq!((route.kind(), route.generation, weights), (Kind::VirtualService, 3, vec![Some(9), Some(1)]));
    let parsed = parse("m.yaml", &text.replace("host: b}", "host: b, subset: new}"));
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let problems = put(&parsed.objects[0]).expect_err("a field that is not imported");
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].field.as_str(), problems[0].location.line),
        ("spec.http[0].route[1].destination.subset", 7)
    );
    let key = &parsed.objects[0].key;
    assert!(matches!(remove(key), Some(Event::Remove(key)) if key.kind == Kind::VirtualService));
}
