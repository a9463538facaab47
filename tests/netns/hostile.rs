//! Hostile certificates at a pod's 15008: refused in the handshake, with a reason, in time, and the application hears
//! nothing of it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_tests::certs::{Shown, Template};
use ambit_tests::corpus::{self, Case, PEER};
use ambit_tests::lab::{Lab, peer, wait_until};
use serde_json::Value;

use crate::cast::{namespace, pod};
use crate::stranger::{self, Answer};

const PORT: u16 = 8000;
const STRANGER: &str = "legacy/stranger";
/// Longest time until a stranger is refused.
const BOUND: Duration = Duration::from_secs(1);
/// What a stranger would like the application to read.
const WORDS: &[u8] = b"let me in";
/// What the application logs of each connection.
const HEARD: &str = "connection from";

#[test]
fn hostile_certificates_are_refused_before_the_application_hears() {
    let web = pod("shop/web", "node2", &["python3", &peer("echo.py"), &PORT.to_string()]);
    let cast = [namespace("shop", true), namespace("legacy", false), pod(STRANGER, "node1", &[]), web];
    let Some(lab) = Lab::up("hostile", &cast, &[]) else { return };
    let (ca, web) = (stranger::authority(&lab), lab.address("shop/web", 4));
    let good = Case { name: "a good one", shown: ca.leaf(&Template::leaf(PEER)), want: "accepted" };
    wait_until("the application listens", Duration::from_secs(10), || ask(&lab, web, &good).said == WORDS);

    let nobody = Case {
        name: "no certificate",
        shown: Shown { chain: Vec::new(), key: good.shown.key.clone() },
        want: "AMB2008",
    };
    let (cases, before) = (corpus::cases(&ca).into_iter().chain([nobody]), heard(&lab));
    let mut answers: Vec<(Case, Answer)> = Vec::new();
    for case in cases {
        let answer = ask(&lab, web, &case);
        answers.push((case, answer));
    }
    let (welcome, hostile): (Vec<_>, Vec<_>) = answers.iter().partition(|(case, _)| case.want == "accepted");
    assert!(hostile.len() >= 25, "only {} hostile certificates", hostile.len());
    wait_until("every attempt is recorded", Duration::from_secs(5), || {
        let flows = lab.flows(&[]);
        answers.iter().all(|(_, answer)| !records(&flows, answer.from).is_empty())
    });

    let (flows, mut wrong) = (lab.flows(&[]), String::new());
    for (case, answer) in &answers {
        if let Some(problem) = problem(case, answer, &records(&flows, answer.from)) {
            let _ = writeln!(wrong, "{}: {problem}", case.name);
        }
    }
    assert!(wrong.is_empty(), "of {} attempts:\n{wrong}", answers.len());
    // Those that were let in show that the application would have told of the others.
    assert_eq!(heard(&lab) - before, welcome.len(), "{:#?}", lab.log_lines(HEARD));
    println!("{} hostile certificates refused, {} odd ones accepted", hostile.len(), welcome.len());
}

/// Shows a case's certificate, asks for the application and speaks at once.
fn ask(lab: &Lab, web: IpAddr, case: &Case) -> Answer {
    let at = |port| SocketAddr::new(web, port);
    stranger::ask(lab, STRANGER, at(15008), &case.shown, &at(PORT).to_string(), WORDS)
}

/// What is not as the case wants it: as the stranger saw it, then as the pod's node recorded it.
fn problem(case: &Case, answer: &Answer, records: &[&Value]) -> Option<String> {
    let Answer { status, said, took, .. } = answer;
    if case.want == "accepted" {
        return (said != WORDS).then(|| format!("refused: {status:?}, recorded as {records:#?}"));
    }
    let told = format!("{status:?}, {} bytes after {took:?}, recorded as {records:#?}", said.len());
    let [record] = records else { return Some(format!("{} records: {told}", records.len())) };
    let (code, rule) =
        case.want.split_once(" rule ").map_or((case.want, None), |(code, rule)| (code, Some(rule)));
    let error = record["error"].as_str().unwrap_or_default();
    // Rule 11, the trust domain, is ours and no rule of SPIFFE's: it is told in words.
    let named = match rule {
        Some("11") => error.contains("belongs to trust domain evil.example, we trust cluster.local"),
        Some(rule) => error.contains(&format!("SPIFFE rule {rule}:")),
        None => !error.contains("SPIFFE rule"),
    };
    let as_wanted = status.is_err()
        && said.is_empty()
        && *took < BOUND
        && record["verdict"] == "denied"
        && record["code"] == code
        && (error.starts_with("TLS handshake with") || error.starts_with("the certificate of"))
        && record["dst"]["workload"] == "web"
        && record["duration_ms"].as_u64().is_some_and(|ms| Duration::from_millis(ms) < BOUND)
        && named;
    (!as_wanted).then(|| format!("expected {}, got {told}", case.want))
}

/// What the pod's node recorded of the connection that came from an address.
fn records(flows: &[Value], from: SocketAddr) -> Vec<&Value> {
    flows.iter().filter(|f| f["src"]["addr"] == from.to_string()).collect()
}

/// How many connections the application took.
fn heard(lab: &Lab) -> usize {
    lab.log_lines(HEARD).len()
}
