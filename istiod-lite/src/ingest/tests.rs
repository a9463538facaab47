//! What manifests are reduced to, and what is refused.

use ambit_control::input::{Event, Object, TargetPort, Transport};
use ambit_manifest::parse;

use super::put;

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
