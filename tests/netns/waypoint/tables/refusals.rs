//! Connections that an application refuses: the kernel does it in the application's place, so many times for each row.

use std::collections::BTreeMap;

use ambit_tests::lab::Lab;
use serde_json::Value;

use super::routes::schema::Row;

/// Stands for every connection there will ever be.
const ALWAYS: u32 = 1_000_000;

/// Connections to be refused at some ports of a pod, together.
pub(super) struct Refusal {
    pub(super) pod: String,
    pub(super) ports: Vec<u16>,
    pub(super) times: u32,
}

/// How many connections the backends of a row refuse; none if the row does not speak of it.
pub(super) fn of(row: &Row) -> Option<u32> {
    let is_refused = |value: &&Value| value.as_str() == Some("refused");
    let first = row.upstream.iter().take_while(is_refused).count();
    let all = row.upstream.iter().filter(is_refused).count();
    assert_eq!(first, all, "{}: connections are refused before any is taken", row.name);
    match first {
        0 => None,
        // The last deed goes on.
        _ if all == row.upstream.len() => Some(ALWAYS),
        _ => u32::try_from(first).ok(),
    }
}

/// Has the kernel refuse them from now on.
#[track_caller]
pub(super) fn begin(lab: &Lab, refusals: &[Refusal]) {
    for (pod, rules) in by_pod(refusals) {
        let rule = |refusal: &&Refusal| {
            let ports: Vec<String> = refusal.ports.iter().map(u16::to_string).collect();
            let which = if refusal.times == ALWAYS {
                String::new()
            } else {
                format!("numgen inc mod {ALWAYS} < {} ", refusal.times)
            };
            let begins = "tcp flags & (fin | syn | rst | ack) == syn";
            // The first port names the rule.
            format!(
                "tcp dport {{ {} }} {begins} {which}counter reject with tcp reset comment \"{}\"",
                ports.join(", "),
                ports[0]
            )
        };
        let rules: Vec<String> = rules.iter().map(rule).collect();
        let text = format!(
            "table inet refusals {{\nchain refuse {{\ntype filter hook input priority 0; policy accept;\n{}\n}}\n}}\n",
            rules.join("\n")
        );
        let file = lab.file("refusals.nft", &text);
        drop(lab.exec(pod, &["nft", "-f", &file]).ok());
    }
}

/// How many were refused, by the first port of each.
#[track_caller]
pub(super) fn counted(lab: &Lab, refusals: &[Refusal]) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for pod in by_pod(refusals).keys() {
        let told = lab.exec(pod, &["nft", "-j", "list", "table", "inet", "refusals"]).ok();
        let told: Value = serde_json::from_str(&told).expect("JSON from nft");
        for rule in told["nftables"].as_array().into_iter().flatten().map(|object| &object["rule"]) {
            let Some(port) = rule["comment"].as_str().and_then(|port| port.parse().ok()) else { continue };
            let counters = rule["expr"].as_array().into_iter().flatten();
            counts.insert(port, counters.filter_map(|expr| expr["counter"]["packets"].as_u64()).sum());
        }
    }
    counts
}

fn by_pod(refusals: &[Refusal]) -> BTreeMap<&str, Vec<&Refusal>> {
    let mut by_pod: BTreeMap<&str, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals {
        by_pod.entry(&refusal.pod).or_default().push(refusal);
    }
    by_pod
}
