//! The tour's step at the waypoint: a canary by weight, a version by header, and a policy that knows methods.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

use super::Claims;
use super::stage::Stage;

/// Requests by weight; with one in ten, fewer than 20 or more than 84 of 500 come about once in a million tours.
const BY_WEIGHT: usize = 500;
/// Requests of every other claim.
const EACH: usize = 50;

pub(super) fn waypoint(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    stage.done(&["waypoint", "apply", "-n", "shop"])?;
    for file in ["catalog.yaml", "canary.yaml"] {
        stage.lab(&["apply", "-f", &stage.file(file)])?;
    }
    let told = |counts: &Counts| counts.to_string();
    let counts = Counts::of(stage, "web", &[], BY_WEIGHT)?;
    let canary = counts.of_answer("200 v2");
    let whole = canary + counts.of_answer("200 v1") == BY_WEIGHT;
    claims.tell("of ten requests one goes to v2", whole && (20..=84).contains(&canary), told(&counts));
    let counts = Counts::of(stage, "web", &["-H", "x-version: v2"], EACH)?;
    claims.tell("who asks for v2 gets v2", counts.of_answer("200 v2") == EACH, told(&counts));

    stage.lab(&["apply", "-f", &stage.file("only-get.yaml")])?;
    let (get, post) =
        (Counts::of(stage, "web", &[], EACH)?, Counts::of(stage, "web", &["-X", "POST"], EACH)?);
    let (read, written) = (get.of_status("200"), post.of_status("403"));
    claims.tell("web may GET", read == EACH, told(&get));
    claims.tell("and may not POST", written == EACH, told(&post));
    let other = Counts::of(stage, "batch", &[], EACH)?;
    claims.tell("batch may not even GET", other.of_status("403") == EACH, told(&other));
    past_it(stage, claims)
}

/// Nobody gets past the waypoint by calling a pod itself.
fn past_it(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    let text = stage.quiet(&["lab", "get", "pod", "catalog-v1", "-n", "shop", "-o", "json"])?;
    let pod: Value = serde_json::from_str(&text).context("reading the pod")?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).context("the pod has an address")?;
    let url = if ip.contains(':') { format!("http://[{ip}]:8080/") } else { format!("http://{ip}:8080/") };
    let answer = stage.ask("shop", "web", &url, &["-X", "POST"])?;
    let refused = answer.is_refused() || answer.status == 403;
    claims.tell("nor past the waypoint, to the pod itself", refused, answer.to_string());
    Ok(())
}

/// How often each answer came, as `STATUS BODY`.
struct Counts(BTreeMap<String, usize>);

impl Counts {
    /// Asks the catalog `number` times on one connection.
    fn of(stage: &Stage, pod: &str, options: &[&str], number: usize) -> anyhow::Result<Self> {
        let url = format!("http://catalog.shop/item/[1-{number}]");
        // Each answer on one line: the body without its line end, then the status.
        let curl = ["curl", "-s", "-m", "60", "-w", "\\t%{http_code}\\n"];
        let output = stage.exec("shop", pod, &[&curl[..], options, &[&url]].concat())?;
        let mut counts = BTreeMap::new();
        for line in output.replace("\n\t", "\t").lines() {
            let (body, status) = line.rsplit_once('\t').unwrap_or((line, "0"));
            *counts.entry(format!("{status} {}", body.trim())).or_default() += 1;
        }
        Ok(Self(counts))
    }

    fn of_answer(&self, answer: &str) -> usize {
        self.0.get(answer).copied().unwrap_or_default()
    }

    fn of_status(&self, status: &str) -> usize {
        let with = |answer: &str| answer.split(' ').next() == Some(status);
        self.0.iter().filter(|(answer, _)| with(answer)).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(answer, count)| format!("{count} x {answer}")).collect();
        f.write_str(&all.join(", "))
    }
}
