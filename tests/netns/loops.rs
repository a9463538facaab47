//! A pod that calls itself or the proxy's ports: no loop, no way around the mesh, and a code that says why.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, server, service};

const PROXY_PORTS: [u16; 3] = [15001, 15006, 15008];

#[test]
fn a_pod_reaches_itself_and_never_the_proxy() {
    let cast = [
        namespace("shop", true),
        server("shop/echo", "node1"),
        server("shop/near", "node1"),
        server("shop/far", "node2"),
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("loops", &cast, &[]) else { return };
    for family in [4, 6] {
        let loopback = if family == 4 { "127.0.0.1:7000" } else { "[::1]:7000" };
        for target in [&*lab.target("shop/echo", family, PORT), "echo.shop:80", loopback] {
            let summary = lab.call("shop/echo", target, &["--connections", "20"]);
            assert_eq!(all_completed(&summary), 20, "{target}");
            assert_eq!(summary["servers"]["echo"], 20, "{target} answered by itself alone");
        }
        for pod in ["shop/echo", "shop/near", "shop/far"] {
            for port in PROXY_PORTS {
                refused(&lab, &lab.target(pod, family, port));
            }
        }
    }
    let mut coded = 0;
    wait_until("every refusal is recorded with its code", Duration::from_secs(5), || {
        coded = lab.flows(&[]).iter().filter(|f| is_refusal(f)).count();
        coded >= 18
    });
    assert!(coded <= 36, "{coded} records for 18 attempts: something went round");
    // Nothing of that broke anything.
    assert_eq!(
        all_completed(&lab.call("shop/echo", &lab.target("shop/far", 4, PORT), &["--connections", "20"])),
        20
    );
}

#[track_caller]
fn refused(lab: &Lab, target: &str) {
    let summary = lab.call("shop/echo", target, &["--connections", "1", "--stall-timeout", "3s"]);
    assert_eq!(summary["ok"], false, "{target} answered: {summary:#}");
    assert!(summary["duration_ms"].as_u64() < Some(2000), "{target} was not refused at once: {summary:#}");
}

/// A pod's own port 15008 is a tunnel's end to it as to anybody: what is no TLS is refused there by the handshake.
fn is_refusal(flow: &Value) -> bool {
    flow["verdict"] == "denied" && (flow["code"] == "AMB1106" || flow["code"] == "AMB2008")
}
