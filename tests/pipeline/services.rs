//! Connections to services and probes: manifests to plans, through encoded discovery.

use std::net::{IpAddr, SocketAddr};

use ambit_policy::Facts;
use ambit_state::{
    MeshedPlaintext, OutboundFacts, OutboundPlan, PlainFacts, PlainPlan, SameNode, Snapshot, authorize,
    plan_inbound_plain, plan_outbound, speaks_for_others,
};
use ambit_types::{Identity, Network, Reason, Uid};

use crate::mesh;

/// One client, four backends: two ready ones of which one names its port otherwise, one unready, one out of the mesh.
const SHOP: &str = r#"
{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {ambit.internal/node-addresses: "10.9.1.1,192.0.2.1"}},
 status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, annotations: {ambit.internal/node-addresses: "10.9.2.1,192.0.2.2"}},
 status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.9.1.10, podIPs: [{ip: 10.9.1.10}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop, labels: {app: web, place: near}, annotations: {ambient.istio.io/redirection: enabled}}
spec:
  nodeName: n1
  containers:
  - name: app
    image: app
    ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {port: http, path: /}}
    readinessProbe: {tcpSocket: {port: 9000}}
status: {phase: Running, podIP: 10.9.1.11, podIPs: [{ip: 10.9.1.11}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: web, place: far}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n2, containers: [{name: app, image: app, ports: [{name: http, containerPort: 8181}]}]}
status: {phase: Running, podIP: 10.9.2.11, podIPs: [{ip: 10.9.2.11}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: unready, namespace: shop, labels: {app: web, place: unready}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n2, containers: [{name: app, image: app, ports: [{name: http, containerPort: 8282}]}]}
status: {phase: Running, podIP: 10.9.2.12, podIPs: [{ip: 10.9.2.12}], conditions: [{type: Ready, status: "False"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop, labels: {app: plain}}
spec: {nodeName: n2, containers: [{name: app, image: app, ports: [{containerPort: 5432}]}]}
status: {phase: Running, podIP: 10.9.2.13, podIPs: [{ip: 10.9.2.13}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n2, containers: [{name: app, image: app, ports: [{name: http, containerPort: 8383}]}]}
status: {phase: Succeeded, podIP: 10.9.2.14, podIPs: [{ip: 10.9.2.14}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: number, namespace: shop}
spec: {clusterIP: 10.96.0.11, clusterIPs: [10.96.0.11], selector: {place: far}, ports: [{name: a, port: 81, targetPort: 7000}, {name: b, port: 82}]}
---
apiVersion: v1
kind: Service
metadata: {name: down, namespace: shop}
spec: {clusterIP: 10.96.0.12, clusterIPs: [10.96.0.12], selector: {place: unready}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: clear, namespace: shop}
spec: {clusterIP: 10.96.0.13, clusterIPs: [10.96.0.13], selector: {app: plain}, ports: [{port: 15432, targetPort: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], selector: {place: far}, ports: [{name: http, port: 8181, targetPort: http}]}
"#;

/// Restricts the pods that take part, so that the network must see them apart.
const NETWORK_POLICY: &str = r"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-near, namespace: shop}
spec: {podSelector: {matchLabels: {place: near}}, policyTypes: [Ingress]}
";

/// A waypoint, and services behind it in front of pods that others are in front of too.
const WAYPOINT: &str = r#"
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: gate, namespace: shop}}
---
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: shop}
spec: {clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], selector: {app: gate}, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gate, namespace: shop, labels: {app: gate, networking.istio.io/tunnel: http}}
spec: {nodeName: n2, serviceAccountName: gate, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.9.2.20, podIPs: [{ip: 10.9.2.20}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: bound, namespace: shop, labels: {istio.io/use-waypoint: gate}}
spec: {clusterIP: 10.96.0.14, clusterIPs: [10.96.0.14], selector: {place: far}, ports: [{name: http, port: 84, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: set, namespace: shop, labels: {istio.io/use-waypoint: gate}}
spec: {clusterIP: None, clusterIPs: [None], selector: {place: near}, ports: [{name: http, port: 9000}]}
"#;

#[test]
fn pods_behind_a_waypoint_are_reached_through_it_by_their_own_address_too() {
    let both = [SHOP, WAYPOINT].concat();
    check(
        &both,
        &[
            ("the service", "10.96.0.14:84", "waypoint 10.9.2.20:15008 for 10.96.0.14:84"),
            ("its pod", "10.9.2.11:8181", "waypoint 10.9.2.20:15008 for 10.9.2.11:8181"),
            (
                "a pod of a service without address",
                "10.9.1.11:9000",
                "waypoint 10.9.2.20:15008 for 10.9.1.11:9000",
            ),
            ("a port that no such service leads to", "10.9.2.11:1", "hbone 10.9.2.11:1"),
            ("the waypoint itself", "10.9.2.20:9100", "hbone 10.9.2.20:9100"),
        ],
    );
    let down = both.replace("labels: {app: gate, networking", "labels: {app: gone, networking");
    let both_refused =
        [("the service", "10.96.0.14:84", "AMB3101"), ("its pod", "10.9.2.11:8181", "AMB3101")];
    check(&down, &both_refused);
}

#[test]
fn a_pod_behind_a_waypoint_takes_it_and_asks_policy_about_whom_it_calls_for() {
    let deny = r"
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: lock, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/jobs/sa/cron]}}]}]}
";
    let (_, delta) = mesh::compile(&[SHOP, WAYPOINT, deny].concat());
    let snapshot = mesh::discover("n2", &mesh::publish(delta));
    let own = Uid::from("Kubernetes//Pod/shop/far");
    let identity =
        |account: &str| Identity::parse(&format!("spiffe://cluster.local/ns/{account}")).expect("one");
    let (gate, client, cron) =
        (identity("shop/sa/gate"), identity("shop/sa/default"), identity("jobs/sa/cron"));
    for (what, peer, on_behalf, port, want) in [
        ("the waypoint for somebody", &gate, Some(&client), 8181, None),
        ("the waypoint for nobody", &gate, None, 8181, None),
        ("the waypoint for whom is denied", &gate, Some(&cron), 8181, Some(Reason::DenyRuleMatched)),
        ("past it", &client, None, 8181, Some(Reason::WaypointBypassed)),
        ("a port without a waypoint", &client, None, 1, None),
        ("who is denied there", &cron, None, 1, Some(Reason::DenyRuleMatched)),
    ] {
        let facts = Facts::new(Some(peer), [10, 9, 2, 20].into(), [10, 9, 2, 11].into(), port);
        let decision = authorize(&snapshot, &own, &facts.on_behalf_of(on_behalf));
        assert_eq!(decision.reason, want, "row {what}");
        let speaks = speaks_for_others(&snapshot, &own, peer, port);
        assert_eq!(speaks, Some(*peer == gate && port == 8181), "row {what}");
    }
}

#[test]
fn destinations_lead_to_the_right_endpoints_and_ports() {
    check(
        SHOP,
        &[
            ("a pod of another node", "10.9.2.11:8181", "hbone 10.9.2.11:8181"),
            ("a pod of this node", "10.9.1.11:8080", "local 10.9.1.11:8080"),
            ("any port of a pod, declared or not", "10.9.2.11:1", "hbone 10.9.2.11:1"),
            ("a pod that is not ready, by its address", "10.9.2.12:8282", "hbone 10.9.2.12:8282"),
            ("a pod out of the mesh", "10.9.2.13:5432", "plain 10.9.2.13:5432"),
            ("the port a service has, not the pod's", "10.96.0.10:8080", "AMB3002"),
            (
                "a named port, each pod's own number",
                "10.96.0.10:80",
                "local 10.9.1.11:8080, hbone 10.9.2.11:8181",
            ),
            ("a numbered target port", "10.96.0.11:81", "hbone 10.9.2.11:7000"),
            ("no target port is the same port", "10.96.0.11:82", "hbone 10.9.2.11:82"),
            ("only unready endpoints", "10.96.0.12:80", "AMB3002"),
            ("a service of a pod out of the mesh", "10.96.0.13:15432", "plain 10.9.2.13:5432"),
            ("an endpoint of a headless service, by its address", "10.9.2.11:8181", "hbone 10.9.2.11:8181"),
            ("a finished pod's address is nobody's", "10.9.2.14:8383", "pass 10.9.2.14:8383"),
            ("an address nobody has", "198.51.100.7:443", "pass 198.51.100.7:443"),
            ("the tunnel port of a pod", "10.9.2.11:15008", "AMB1106"),
            ("the client's own listener", "10.9.1.10:15001", "AMB1106"),
        ],
    );
}

/// Of the client's pod alone; the rest of the namespace has other rules.
const EGRESS: &str = r"
---
apiVersion: ambit.internal/v1alpha1
kind: EgressPolicy
metadata: {name: client, namespace: shop}
spec: {selector: {matchLabels: {app: client}}, allow: [{cidrs: [198.51.100.0/24, 192.0.2.9], ports: [443]}]}
---
apiVersion: ambit.internal/v1alpha1
kind: EgressPolicy
metadata: {name: everybody, namespace: shop}
spec: {default: Deny, allow: [{ports: [53]}]}
---
apiVersion: ambit.internal/v1alpha1
kind: EgressPolicy
metadata: {name: others, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, allow: [{cidrs: [0.0.0.0/0]}]}
";

/// Declared, which is enough.
const DECLARED: &str = r"
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner, namespace: shop}
spec: {hosts: [partner.example], addresses: [203.0.113.7], resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]}
";

#[test]
fn egress_policies_say_where_pods_leave_the_mesh() {
    let outside = ("an address nobody has", "203.0.113.7:443", "pass 203.0.113.7:443");
    check(SHOP, &[outside]);
    check(
        &[SHOP, EGRESS].concat(),
        &[
            ("an address nobody has", "203.0.113.7:443", "AMB3005"),
            ("a range at its port", "198.51.100.7:443", "pass 198.51.100.7:443"),
            ("a range at another port", "198.51.100.7:80", "AMB3005"),
            ("an address at its port", "192.0.2.9:443", "pass 192.0.2.9:443"),
            ("a node", "192.0.2.2:443", "AMB3005"),
            ("a port of another policy", "203.0.113.7:53", "pass 203.0.113.7:53"),
            ("a finished pod's address", "10.9.2.14:8383", "AMB3005"),
            ("a service", "10.96.0.11:81", "hbone 10.9.2.11:7000"),
            ("a pod out of the mesh", "10.9.2.13:5432", "plain 10.9.2.13:5432"),
            ("the tunnel port of a pod", "10.9.2.11:15008", "AMB1106"),
        ],
    );
    check(&[SHOP, EGRESS, DECLARED].concat(), &[outside]);
}

#[test]
fn a_network_policy_keeps_connections_of_one_node_in_tunnels() {
    let both = [SHOP, NETWORK_POLICY].concat();
    check(
        &both,
        &[
            ("a selected pod of this node", "10.9.1.11:8080", "hbone 10.9.1.11:8080"),
            ("through a service", "10.96.0.10:80", "hbone 10.9.1.11:8080, hbone 10.9.2.11:8181"),
        ],
    );
}

#[test]
fn probes_of_the_node_reach_declared_ports_only() {
    let (_, delta) = mesh::compile(SHOP);
    let snapshot = mesh::discover("n1", &mesh::publish(delta));
    let own = snapshot.workload(&Uid::from("Kubernetes//Pod/shop/near")).expect("known");
    for (what, source, port, want) in [
        ("a named port, from the gateway of the pods", "10.9.1.1:33000", 8080, "probe"),
        ("a numbered port, from the node's address", "192.0.2.1:33000", 9000, "probe"),
        ("a port no probe declares", "192.0.2.1:33000", 9001, "authorize"),
        ("another node", "192.0.2.2:33000", 8080, "authorize"),
        ("a pod", "10.9.2.13:33000", 8080, "authorize"),
    ] {
        let facts = PlainFacts {
            own: Some(own),
            source: address(source),
            destination: SocketAddr::new([10, 9, 1, 11].into(), port),
            from_node: false,
            meshed_plaintext: MeshedPlaintext::Record,
        };
        let got = match plan_inbound_plain(&snapshot, &facts) {
            PlainPlan::Probe => "probe",
            PlainPlan::Authorize { .. } => "authorize",
            PlainPlan::Refuse(refusal) => refusal.reason.code(),
        };
        assert_eq!(got, want, "row {what}");
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Plans connections of the client's pod; every draw's outcome is in `want`, in order and without repetition.
#[track_caller]
fn check(manifests: &str, rows: &[(&str, &str, &str)]) {
    let (_, delta) = mesh::compile(manifests);
    let snapshot = mesh::discover("n1", &mesh::publish(delta));
    for (what, destination, want) in rows {
        let mut plans: Vec<String> =
            (0..64).map(|draw: u64| plan(&snapshot, address(destination), draw << 58)).collect();
        plans.sort_by_key(|plan| plan.rsplit(' ').next().map(ToOwned::to_owned));
        plans.dedup();
        assert_eq!(plans.join(", "), *want, "row {what}");
    }
}

fn plan(snapshot: &Snapshot, destination: SocketAddr, draw: u64) -> String {
    let own: IpAddr = [10, 9, 1, 10].into();
    let facts = OutboundFacts {
        source: snapshot.workload_at(&Network::default(), own),
        source_address: own,
        destination,
        same_node: SameNode::Auto,
        tried: &[],
        draw: draw | (draw >> 32) | (draw >> 58),
    };
    match plan_outbound(snapshot, &facts) {
        OutboundPlan::Passthrough { address } => format!("pass {address}"),
        OutboundPlan::Plain(hop) => format!("plain {}", hop.address),
        OutboundPlan::Hbone(hop) => format!("hbone {}", hop.address),
        OutboundPlan::Local(hop) => format!("local {}", hop.address),
        OutboundPlan::Refuse(refusal) => refusal.reason.code().to_owned(),
        OutboundPlan::Waypoint(via) => format!("waypoint {} for {}", via.tunnel, via.authority),
        OutboundPlan::Gateway(_) | OutboundPlan::Resolve(_) => {
            panic!("no such thing here")
        }
    }
}
