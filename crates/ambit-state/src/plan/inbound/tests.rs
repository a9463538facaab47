//! Every step of an inbound connection before policy.

use std::net::SocketAddr;

use super::{
    Authority, HboneFacts, MeshedPlaintext, PlainFacts, PlainPlan, plan_inbound_hbone, plan_inbound_plain,
};
use crate::testing::{refused, uid, world};

const MESH: &str = "
    pod shop/web 10.244.1.5,fd00:10:244:1::5 backs=shop/web backs=shop/named:80->7000 probes=8080,9090 nodeips=10.244.1.1,10.89.0.11
    pod shop/client 10.244.2.7 node=n2
    pod shop/plain 10.244.2.9 node=n2 plain
    svc shop/web 10.96.0.1 ports=80->8080,443
    svc shop/named 10.96.0.2 ports=80->0,81->0
    svc shop/other 10.96.0.3 ports=80
    svc data/hidden 10.96.0.4 ports=80 private";

/// Asks `own` at `local` for `authority`, as the client.
fn connect(mesh: &str, own: &str, local: &str, authority: &str, forwarded: Option<&str>) -> String {
    let snapshot = world(mesh).snapshot();
    let asked = match authority.parse::<SocketAddr>() {
        Ok(address) => Authority::Address(address),
        Err(_) => {
            let (host, port) = authority.rsplit_once(':').unwrap();
            Authority::Host { host, port: port.parse().unwrap() }
        }
    };
    let facts = HboneFacts {
        own: snapshot.workload(&uid(own)),
        authority: asked,
        local: local.parse().unwrap(),
        peer: "10.244.2.7:40000".parse().unwrap(),
        forwarded_host: forwarded,
    };
    match plan_inbound_hbone(&snapshot, &facts) {
        Err(no) => format!("{} {}", no.status, refused(&no.refusal)),
        Ok(target) => {
            let service = target.service.map(|s| format!(" of {}", s.name)).unwrap_or_default();
            let from = target.source.map(|w| format!(" from {}", w.name)).unwrap_or_default();
            let spoof = if target.spoof { "" } else { " unspoofed" };
            format!("{}{service}{from}{spoof}", target.address)
        }
    }
}

#[track_caller]
fn check(rows: &[(&str, &str)]) {
    for (authority, want) in rows {
        let found = connect(MESH, "shop/web", "10.244.1.5:15008", authority, None);
        assert_eq!(found, *want, "authority {authority}");
    }
}

const NOT_OURS: &str = "400 AMB2101 authority-not-owned";

#[test]
fn i3_an_unknown_workload_answers_503() {
    let found = connect(MESH, "shop/new", "10.244.1.9:15008", "10.244.1.9:80", None);
    assert_eq!(found, "503 AMB6002 workload-unknown");
}

#[test]
fn i4_an_address_authority_has_to_be_the_address_that_was_dialled() {
    // T-83: the target equals the pod whose listener accepted.
    check(&[
        ("10.244.1.5:8080", "10.244.1.5:8080 of web from client"),
        ("[::ffff:10.244.1.5]:8080", "10.244.1.5:8080 of web from client"),
        ("10.244.1.5:5432", "10.244.1.5:5432 from client"),
        ("10.244.2.7:80", NOT_OURS),
        ("127.0.0.1:80", NOT_OURS),
        ("[::1]:80", NOT_OURS),
        ("10.89.0.11:10250", NOT_OURS),
        ("10.96.0.1:80", NOT_OURS),
        ("192.0.2.1:80", NOT_OURS),
        ("0.0.0.0:80", NOT_OURS),
        // Its other address was not dialled.
        ("[fd00:10:244:1::5]:8080", NOT_OURS),
    ]);
    let v6 = connect(MESH, "shop/web", "[fd00:10:244:1::5]:15008", "[fd00:10:244:1::5]:443", None);
    assert_eq!(v6, "[fd00:10:244:1::5]:443 of web from client");
    let mapped = connect(MESH, "shop/web", "[::ffff:10.244.1.5]:15008", "10.244.1.5:443", None);
    assert_eq!(mapped, "10.244.1.5:443 of web from client");
}

#[test]
fn i4_a_waypoint_may_be_asked_for_what_names_it() {
    let mesh = "
        pod shop/wp 10.244.1.50 native backs=shop/wp
        svc shop/wp 10.96.0.50 ports=15008
        svc shop/web 10.96.0.1 ports=80 waypoint=shop/wp
        svc shop/canary 10.96.0.2 ports=80 weighted=shop/elsewhere*1,shop/wp*9
        svc shop/lone 10.96.0.3 ports=80
        svc shop/byip 10.96.0.4 ports=80 waypoint=10.244.1.50
        svc shop/byvip 10.96.0.5 ports=80 waypoint=10.96.0.50
        pod shop/pod 10.244.2.8 node=n2 waypoint=shop/wp
        pod shop/pod2 10.244.2.9 node=n2 waypoint=shop/elsewhere
        pod shop/client 10.244.2.7 node=n2";
    for (authority, want) in [
        ("10.96.0.1:80", "10.244.1.50:80 from client"),
        ("10.96.0.2:80", "10.244.1.50:80 from client"),
        ("10.96.0.3:80", NOT_OURS),
        ("10.96.0.4:80", "10.244.1.50:80 from client"),
        ("10.96.0.5:80", "10.244.1.50:80 from client"),
        ("10.244.2.8:80", "10.244.1.50:80 from client"),
        ("10.244.2.9:80", NOT_OURS),
        ("10.9.9.9:80", NOT_OURS),
    ] {
        let found = connect(mesh, "shop/wp", "10.244.1.50:15008", authority, None);
        assert_eq!(found, want, "authority {authority}");
    }
    // A tunnel to the application decides by itself, and replaces the port.
    let tunnelled = mesh.replace("native", "native apptunnel=15088");
    let found = connect(&tunnelled, "shop/wp", "10.244.1.50:15008", "10.9.9.9:80", None);
    assert_eq!(found, "10.244.1.50:15088 from client");
    // Nobody else's bytes may stand where it expects to be told who the peer is.
    let told = mesh.replace("native", "native apptunnel=PROXY/15088");
    for authority in ["10.9.9.9:80", "10.244.1.50:15088"] {
        let found = connect(&told, "shop/wp", "10.244.1.50:15008", authority, None);
        assert_eq!(found, "503 AMB4004 tunnel-protocol", "authority {authority}");
    }
}

#[test]
fn i5_and_i6_a_host_authority_has_to_be_a_service_that_the_pod_backs() {
    // Attacker 6: upstream accepts any host name that it knows.
    check(&[
        ("web.shop.svc.cluster.local:80", "10.244.1.5:8080 of web from client"),
        ("web.shop.svc.cluster.local:443", "10.244.1.5:443 of web from client"),
        ("named.shop.svc.cluster.local:80", "10.244.1.5:7000 of named from client"),
        ("named.shop.svc.cluster.local:81", "503 AMB3002 no-healthy-endpoint"),
        ("web.shop.svc.cluster.local:81", "503 AMB3002 no-healthy-endpoint"),
        ("other.shop.svc.cluster.local:80", NOT_OURS),
        ("hidden.data.svc.cluster.local:80", "503 AMB3001 unknown-destination"),
        ("nobody.example:80", "503 AMB3001 unknown-destination"),
    ]);
}

#[test]
fn i7_the_ports_of_the_proxy_are_refused_before_a_tunnel_replaces_them() {
    for port in [15001, 15006, 15008] {
        check(&[(&format!("10.244.1.5:{port}"), "503 AMB1106 proxy-port-target")]);
    }
    let mesh = "pod shop/wp 10.244.1.50 apptunnel=15088";
    let found = connect(mesh, "shop/wp", "10.244.1.50:15008", "10.96.0.1:15006", None);
    assert_eq!(found, "503 AMB1106 proxy-port-target");
}

#[test]
fn i9_a_tunnel_port_replaces_the_one_asked_for() {
    let mesh = "pod shop/wp 10.244.1.50 apptunnel=15088";
    let found = connect(mesh, "shop/wp", "10.244.1.50:15008", "10.96.0.1:80", None);
    assert_eq!(found, "10.244.1.50:15088");
    let kept = connect(&mesh.replace("=15088", "=-"), "shop/wp", "10.244.1.50:15008", "10.96.0.1:80", None);
    assert_eq!(kept, "10.244.1.50:80");
}

#[test]
fn a_pod_that_calls_itself_is_not_spoofed() {
    let mesh = "pod shop/web 10.244.2.7";
    let found = connect(mesh, "shop/web", "10.244.2.7:15008", "10.244.2.7:80", None);
    assert_eq!(found, "10.244.2.7:80 from web unspoofed");
}

#[test]
fn the_service_of_the_record_is_the_one_the_peer_names_if_the_pod_backs_it() {
    let named = |host| connect(MESH, "shop/web", "10.244.1.5:15008", "10.244.1.5:8080", Some(host));
    assert_eq!(named("named.shop.svc.cluster.local"), "10.244.1.5:8080 of named from client");
    assert_eq!(named("other.shop.svc.cluster.local"), "10.244.1.5:8080 of web from client");
}

fn plain(mesh: &str, own: &str, source: &str, destination: &str, facts: (bool, MeshedPlaintext)) -> String {
    let snapshot = world(mesh).snapshot();
    let plan = plan_inbound_plain(
        &snapshot,
        &PlainFacts {
            own: snapshot.workload(&uid(own)),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            from_node: facts.0,
            meshed_plaintext: facts.1,
        },
    );
    match plan {
        PlainPlan::Probe => "probe".to_owned(),
        PlainPlan::Authorize { source, meshed } => {
            let name = source.map(|w| format!(" {}", w.name)).unwrap_or_default();
            format!("authorize{name}{}", if meshed { " meshed" } else { "" })
        }
        PlainPlan::Refuse(refusal) => refused(&refusal),
    }
}

#[track_caller]
fn check_plain(rows: &[(&str, &str, &str)]) {
    for (source, destination, want) in rows {
        let found = plain(MESH, "shop/web", source, destination, (false, MeshedPlaintext::Record));
        assert_eq!(found, *want, "{source} to {destination}");
    }
}

#[test]
fn p0_and_p1_proxy_ports_and_unknown_workloads_are_refused() {
    for port in [15001, 15006, 15008] {
        let to = format!("10.244.1.5:{port}");
        check_plain(&[("10.244.2.7:4000", &to, "AMB1106 proxy-port-target")]);
    }
    let found = plain(MESH, "shop/new", "10.244.2.7:4000", "10.244.1.9:80", (false, MeshedPlaintext::Record));
    assert_eq!(found, "AMB6002 workload-unknown");
}

#[test]
fn p2_plaintext_is_left_to_policy() {
    check_plain(&[
        ("10.244.2.9:4000", "10.244.1.5:8080", "authorize plain"),
        ("192.0.2.1:4000", "10.244.1.5:8080", "authorize"),
        ("[::ffff:10.244.2.9]:4000", "[::ffff:10.244.1.5]:8080", "authorize plain"),
        ("[2001:db8::1]:4000", "[fd00:10:244:1::5]:8080", "authorize"),
    ]);
}

#[test]
fn only_the_node_to_a_declared_port_is_a_probe() {
    check_plain(&[
        ("10.244.1.1:4000", "10.244.1.5:8080", "probe"),
        ("10.89.0.11:4000", "10.244.1.5:9090", "probe"),
        ("[::ffff:10.244.1.1]:4000", "[::ffff:10.244.1.5]:8080", "probe"),
        ("169.254.7.127:4000", "10.244.1.5:8080", "probe"),
        ("[fd16:9254:7127:1337:ffff:ffff:ffff:ffff]:4000", "[fd00:10:244:1::5]:8080", "probe"),
        ("10.244.1.1:4000", "10.244.1.5:8081", "authorize"),
        ("169.254.7.127:4000", "10.244.1.5:80", "authorize"),
        ("169.254.7.128:4000", "10.244.1.5:8080", "authorize"),
        ("10.244.2.1:4000", "10.244.1.5:8080", "authorize"),
        ("10.244.2.9:4000", "10.244.1.5:8080", "authorize plain"),
    ]);
}

#[test]
fn what_the_node_itself_says_of_its_addresses_opens_probes_and_nothing_else() {
    let told = |source, to| plain(MESH, "shop/web", source, to, (true, MeshedPlaintext::Record));
    assert_eq!(told("10.99.0.1:4000", "10.244.1.5:8080"), "probe");
    assert_eq!(told("10.99.0.1:4000", "10.244.1.5:8081"), "authorize", "a port of no probe");
    // The address was the node's and is a pod's by now.
    assert_eq!(told("10.244.2.9:4000", "10.244.1.5:8080"), "authorize plain");
    assert_eq!(told("10.244.2.7:4000", "10.244.1.5:8080"), "authorize client meshed");
}

#[test]
fn a_packet_for_somebody_else_is_not_relayed() {
    check_plain(&[
        ("10.244.2.9:4000", "192.0.2.1:80", "AMB2101 authority-not-owned"),
        ("10.244.1.1:4000", "10.244.2.7:8080", "AMB2101 authority-not-owned"),
        ("127.0.0.1:4000", "127.0.0.1:8080", "authorize"),
    ]);
}

#[test]
fn plaintext_from_an_hbone_workload_is_told_of_and_refused_where_asked() {
    // T-81: it satisfies no principal either way.
    check_plain(&[("10.244.2.7:4000", "10.244.1.5:80", "authorize client meshed")]);
    let strict = |source| plain(MESH, "shop/web", source, "10.244.1.5:80", (false, MeshedPlaintext::Refuse));
    assert_eq!(strict("10.244.2.7:4000"), "AMB2303 meshed-source-plaintext");
    assert_eq!(strict("10.244.2.9:4000"), "authorize plain");
    assert_eq!(strict("192.0.2.1:4000"), "authorize");
}
