//! Leaves that live for twenty seconds, under load: renewal is never seen by a connection.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, soak, summary, wait_until};

use crate::cast::{PORT, namespace, pod, server};

#[test]
fn short_lived_certificates_are_renewed_unseen() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("leaves", &cast, &["leaf_ttl=20s"]) else { return };
    let (rate, length, patience) = if soak() { ("200", "120s", 180) } else { ("50", "30s", 60) };
    let target = lab.target("shop/echo", 4, PORT);
    let serials = |lab: &Lab| lab.ambit(&["get", "certificates", "-o", "json"]).ok();
    let first = serials(&lab);
    let args = ["--hold", "--connections", "5", "--duration", length, "--interval", "200ms"];
    let held = lab.client("shop/caller", &target, &args);
    wait_until("the connections are held", Duration::from_secs(5), || held.stderr().contains("\"open\":5"));
    let load = lab.client("shop/caller", &target, &["--rate", rate, "--duration", length]);
    let patience = Duration::from_secs(patience);
    let count = all_completed(&summary(&load.finish(patience)));
    assert!(count > 1000, "only {count} connections were made");
    assert_eq!(all_completed(&summary(&held.finish(patience))), 5);
    assert_ne!(first, serials(&lab), "no certificate was renewed");
}
