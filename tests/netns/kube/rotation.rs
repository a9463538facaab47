//! The root of trust is replaced under traffic, and whoever leads is killed at each step: no connection fails, and the
//! rotation goes on to its end.
//!
//! The short form waits seconds where the product waits minutes; the full one has the product's own times.

use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, all_completed, kept_its_rate, soak, summary, wait_until};
use serde_json::Value;

use super::kubectl;
use super::outages::{ELECTED, REPLICAS, leader};
use crate::cast::{PORT, namespace, pod, server};

/// Times of the short form. Replicas that cannot read the authority for two thirds of the lag sign nothing.
const SHORT: [&str; 4] = [
    "istiod_replicas=2",
    "istiod.rotation-lag=9s",
    "istiod.rotation-confirm=5s",
    "istiod.rotation-nudge=20s",
];
/// How long each of the loads that follow each other lasts, and how long two of them overlap, in seconds.
const LENGTH: u64 = 20;
const OVERLAP: u64 = 3;

/// Connections a second.
fn rate() -> u64 {
    if soak() { 200 } else { 50 }
}

/// How long a step may take at most.
fn step_limit() -> Duration {
    Duration::from_secs(if soak() { 1_200 } else { 90 })
}

#[test]
fn a_rotation_under_load_fails_no_connection_and_goes_on_wherever_the_leader_is_killed() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let settings = if soak() { &SHORT[..1] } else { &SHORT[..] };
    let Some(lab) = Lab::up_kube("rotation", &cast, settings) else { return };
    wait_until("a replica leads", ELECTED, || leader(&lab).is_some());
    let before = roots(&status(&lab));
    assert_eq!(before.len(), 1, "one root at the start");
    let serials = certificates(&lab);

    let mut load = Load::start(&lab);
    let begun = clock::monotonic();
    let watched = lab.start(&["ca", "rotate", "--watch"]);
    let mut generation = 0;
    for phase in ["waiting", "reissuing", "idle"] {
        let mut told = Value::Null;
        wait_until(&format!("the rotation is {phase}"), step_limit(), || {
            load.keep_up();
            told = status(&lab);
            told["phase"] == phase && told["generation"].as_u64() > Some(generation)
        });
        generation = told["generation"].as_u64().expect("a number");
        println!("{phase} {:?} after the start", clock::monotonic() - begun);
        kill_leader(&lab, &mut load);
    }
    let took = clock::monotonic() - begun;
    println!("the rotation, with the leader killed at each of its steps, took {took:?}");
    let watched = watched.finish(step_limit() * 3);
    assert!(watched.stderr.contains("re-issue every certificate"), "{watched:?}");
    let _ = watched.ok();

    let after = roots(&status(&lab));
    assert!(after.len() == 1 && after != before, "before {before:?}, after {after:?}");
    the_new_root_is_published(&lab);
    assert_ne!(certificates(&lab), serials, "no certificate was issued anew");
    let made = load.finish();
    println!("{made} connections, {} a second", rate());
}

/// Kills who leads as soon as that is known.
fn kill_leader(lab: &Lab, load: &mut Load<'_>) {
    let mut leads = None;
    wait_until("a replica leads", ELECTED, || {
        load.keep_up();
        leads = leader(lab);
        leads.is_some()
    });
    let _ = lab.lab(&["kill", leads.expect("a replica leads").part]);
}

/// What the replica knows that is furthest.
fn status(lab: &Lab) -> Value {
    let told = REPLICAS.into_iter().filter_map(|replica| replica.ask(lab, "/ca/status"));
    told.max_by_key(|told| told["generation"].as_u64()).unwrap_or_default()
}

/// Fingerprints of the roots in force.
fn roots(status: &Value) -> Vec<String> {
    let roots = status["roots"].as_array().into_iter().flatten();
    roots.filter_map(|root| root["fingerprint"].as_str().map(str::to_owned)).collect()
}

fn certificates(lab: &Lab) -> String {
    lab.ambit(&["get", "certificates", "-o", "json"]).ok()
}

/// Every namespace of the mesh has the one root that is left, and the cluster has it as certificates only.
#[track_caller]
fn the_new_root_is_published(lab: &Lab) {
    let count = |text: &str| text.matches("-----BEGIN CERTIFICATE-----").count();
    let map =
        ["get", "configmap", "istio-ca-root-cert", "-n", "shop", "-o", r"jsonpath={.data.root-cert\.pem}"];
    let whole =
        ["get", "clustertrustbundle", "istio.io:istiod-ca:root-cert", "-o", "jsonpath={.spec.trustBundle}"];
    let mut of_map = String::new();
    wait_until("the namespace has one root", ELECTED, || {
        of_map = kubectl(lab, &map);
        count(&of_map) == 1
    });
    let root: String = of_map.lines().filter(|line| !line.starts_with('#')).collect();
    wait_until("the cluster has the same root, and nothing else", ELECTED, || {
        kubectl(lab, &whole).lines().collect::<String>() == root
    });
}

/// Loads that follow each other, the next begun before the last one ends.
struct Load<'a> {
    lab: &'a Lab,
    target: String,
    running: Vec<Background>,
    begun: Instant,
}

impl<'a> Load<'a> {
    fn start(lab: &'a Lab) -> Self {
        let target = lab.target("shop/echo", 4, PORT);
        let mut load = Self { lab, target, running: Vec::new(), begun: clock::monotonic() };
        load.next();
        load
    }

    fn next(&mut self) {
        let (rate, length) = (rate().to_string(), format!("{LENGTH}s"));
        let args = ["--rate", &rate, "--duration", &length];
        self.running.push(self.lab.client("shop/caller", &self.target, &args));
        self.begun = clock::monotonic();
    }

    /// Begins the next load when it is time. To be called again and again.
    #[track_caller]
    fn keep_up(&mut self) {
        let ran = clock::monotonic() - self.begun;
        assert!(ran < Duration::from_secs(LENGTH), "there was a time without load: {ran:?} have passed");
        if ran >= Duration::from_secs(LENGTH - OVERLAP) {
            self.next();
        }
    }

    /// Waits for the last load; how many connections there were. None may have failed.
    #[track_caller]
    fn finish(self) -> u64 {
        let patience = step_limit() * 4;
        let loads = self.running.into_iter().map(|load| summary(&load.finish(patience)));
        loads
            .map(|load| {
                let made = kept_its_rate(&load, rate());
                assert_eq!(all_completed(&load), made);
                made
            })
            .sum()
    }
}
