//! A pod that calls itself or the proxy's ports: no loop, no way around the mesh, and a code that says why.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_tests::certs::Template;
use ambit_tests::corpus::PEER;
use ambit_tests::lab::{Lab, all_completed, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server, service};
use crate::stranger;

const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const HBONE: u16 = 15008;
/// A proxy's port was aimed at.
const AIMED: &str = "AMB1106";
/// A tunnel's end is that to its own pod as to anybody: what is no TLS is refused there by the handshake.
const NO_TLS: &str = "AMB2008";
/// What is asked of a pod is not the pod's.
const NOT_OWNED: &str = "AMB2101";

#[test]
fn a_pod_reaches_itself_and_never_the_proxy() {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        server("shop/echo", "node1"),
        server("shop/near", "node1"),
        server("shop/far", "node2"),
        pod("legacy/plain", "node2", &[]),
        service("shop/echo", "echo", 80, PORT),
        service("shop/far-in", "far", 80, INBOUND),
        service("shop/far-tunnel", "far", 80, HBONE),
        service("shop/near-in", "near", 80, INBOUND),
        service("shop/near-tunnel", "near", 80, HBONE),
        service("shop/echo-tunnel", "echo", 80, HBONE),
    ];
    let Some(lab) = Lab::up("loops", &cast, &[]) else { return };
    for family in [4, 6] {
        itself(&lab, family);
        addresses(&lab, family);
        services(&lab, family);
        tunnels(&lab, family);
    }
    // Nothing came round later either.
    let denied = records(&lab).iter().filter(|f| f["verdict"] == "denied").count();
    assert_eq!(denied, 2 * (15 + 5 + 6), "more refusals than attempts: {:#?}", lab.flows(&[]));
    // Nothing of that broke anything.
    for pod in ["shop/far", "shop/near", "shop/echo"] {
        let summary = lab.call("shop/echo", &lab.target(pod, 4, PORT), &["--connections", "20"]);
        assert_eq!(all_completed(&summary), 20);
    }
}

/// Its own address, service and loopback lead to itself.
#[track_caller]
fn itself(lab: &Lab, family: u8) {
    let loopback = if family == 4 { "127.0.0.1:7000" } else { "[::1]:7000" };
    for target in [&*lab.target("shop/echo", family, PORT), "echo.shop:80", loopback] {
        let summary = lab.call("shop/echo", target, &["--connections", "20"]);
        assert_eq!(all_completed(&summary), 20, "{target}");
        assert_eq!(summary["servers"]["echo"], 20, "{target} answered by itself alone");
    }
}

/// The proxy's ports in itself and in others, from a pod of the mesh and from one outside.
#[track_caller]
fn addresses(lab: &Lab, family: u8) {
    let rows = [
        ("shop/echo", "shop/echo", [AIMED, AIMED, NO_TLS]),
        ("shop/echo", "shop/near", [AIMED, AIMED, AIMED]),
        ("shop/echo", "shop/far", [AIMED, AIMED, AIMED]),
        ("legacy/plain", "shop/echo", [AIMED, AIMED, NO_TLS]),
        ("legacy/plain", "shop/far", [AIMED, AIMED, NO_TLS]),
    ];
    for (client, aimed_at, codes) in rows {
        for (port, code) in [OUTBOUND, INBOUND, HBONE].into_iter().zip(codes) {
            refused(lab, client, &lab.target(aimed_at, family, port), code);
        }
    }
}

/// Services whose endpoints would be the proxy's ports.
#[track_caller]
fn services(lab: &Lab, family: u8) {
    for name in ["far-in", "far-tunnel", "near-in", "near-tunnel", "echo-tunnel"] {
        let addresses = lab.get("service", &format!("shop/{name}"))["spec"]["clusterIPs"].clone();
        let mut addresses =
            addresses.as_array().into_iter().flatten().filter_map(|a| a.as_str()?.parse().ok());
        let address = addresses.find(|a: &IpAddr| a.is_ipv4() == (family == 4)).expect("a service address");
        refused(lab, "shop/echo", &SocketAddr::new(address, 80).to_string(), AIMED);
    }
}

/// Demands that a call is refused at once, and that all that is recorded of it is one refusal with that code.
#[track_caller]
fn refused(lab: &Lab, client: &str, target: &str, code: &str) {
    let before = conn_ids(lab);
    let summary = lab.call(client, target, &["--connections", "1", "--stall-timeout", "3s"]);
    assert_eq!(summary["ok"], false, "{client} to {target} was answered: {summary:#}");
    assert!(summary["duration_ms"].as_u64() < Some(1000), "{target} was not refused at once: {summary:#}");
    recorded(lab, &before, code, &format!("{client} to {target}"));
}

/// What a valid peer may not ask a pod's tunnel end for: the proxy's ports and addresses that are not the pod's.
#[track_caller]
fn tunnels(lab: &Lab, family: u8) {
    let shown = stranger::authority(lab).leaf(&Template::leaf(PEER));
    let far = lab.address("shop/far", family);
    let (loopback, own) = if family == 4 {
        (IpAddr::from([127, 0, 0, 1]), lab.address("shop/near", 4))
    } else {
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), lab.address("shop/near", 6))
    };
    let rows = [
        (far, OUTBOUND, 503, AIMED),
        (far, INBOUND, 503, AIMED),
        (far, HBONE, 503, AIMED),
        (loopback, PORT, 400, NOT_OWNED),
        (loopback, 15000, 400, NOT_OWNED),
        (own, PORT, 400, NOT_OWNED),
    ];
    for (address, port, status, code) in rows {
        let (before, asked) = (conn_ids(lab), SocketAddr::new(address, port).to_string());
        let at = SocketAddr::new(far, HBONE);
        let answer = stranger::ask(lab, "legacy/plain", at, &shown, &asked, b"let me in");
        assert_eq!(answer.status, Ok((status, Some(code.to_owned()))), "{asked}");
        assert!(answer.said.is_empty() && answer.took < Duration::from_secs(1), "{asked}: {answer:?}");
        recorded(lab, &before, code, &format!("a tunnel to {asked}"));
    }
}

/// Waits for what is recorded since, and demands that it is one refusal with that code.
#[track_caller]
fn recorded(lab: &Lab, before: &[String], code: &str, what: &str) {
    let mut fresh: Vec<Value> = Vec::new();
    wait_until(&format!("{what} is recorded"), Duration::from_secs(5), || {
        fresh = records(lab);
        fresh.retain(|f| !before.iter().any(|id| f["conn_id"] == **id));
        !fresh.is_empty()
    });
    let denied = fresh.iter().all(|f| f["verdict"] == "denied" && f["code"] == code);
    assert!(denied && fresh.len() == 1, "{what}: expected one refusal with {code}, got {fresh:#?}");
}

fn conn_ids(lab: &Lab) -> Vec<String> {
    records(lab).iter().filter_map(|f| f["conn_id"].as_str().map(str::to_owned)).collect()
}

/// Every record but those of the node's probes, which go on all the time.
fn records(lab: &Lab) -> Vec<Value> {
    let mut flows = lab.flows(&[]);
    flows.retain(|f| f["path"] != "probe");
    flows
}
