//! The steps of the tour and their evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::Claims;
use super::packets::{Records, Stream};
use super::stage::{Answer, Capture, Stage, eventually};
use crate::cmd::nodes::text;
use crate::out;

/// Longest wait for anything the tour waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where tunnels end.
const TUNNEL_PORT: u16 = 15008;

/// What is looked for in captures before enrolment.
const MARKER_BEFORE: &str = "MARKER-BEFORE-ENROLMENT";
/// What must never be found in one after it.
const MARKER_AFTER: &str = "MARKER-AFTER-ENROLMENT";

pub(super) fn in_clear(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    eventually(PATIENCE, || stage.count("shop", "web", "ok") > 3).context("web gets no answer from cart")?;
    let capture = stage.capture()?;
    let answer = stage.ask_cart("shop", "web", MARKER_BEFORE)?;
    let shown = eventually(PATIENCE, || capture.shows(MARKER_BEFORE)).is_ok();
    claims.tell(
        "the request crosses br0 in clear",
        answer.is_ok() && shown,
        format!("{answer}, marker {}", found(shown)),
    );
    Ok(())
}

pub(super) fn enrol(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    eventually(PATIENCE, || stage.count("shop", "viewer", "more") > 0)
        .context("the open connection gets nothing")?;
    let before = Pods::of(stage)?;
    let failed = stage.count("shop", "web", "failed");
    // From before the label on, so that the tunnels are captured from their first byte.
    let capture = stage.capture()?;
    stage.lab(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"])?;
    let more = stage.count("shop", "viewer", "more");
    let answer = stage.ask_cart("shop", "web", MARKER_AFTER)?;
    let goes_on = eventually(PATIENCE, || stage.count("shop", "viewer", "more") > more + 2);
    let lines = stage.count("shop", "viewer", "more") - more;
    claims.tell(
        "the connection opened before is still open",
        goes_on.is_ok(),
        format!("{lines} more lines since"),
    );
    tunnels(&capture, answer, claims);
    let lost = stage.count("shop", "web", "failed") - failed;
    claims.tell("no request of web failed meanwhile", lost == 0, format!("{lost} failed"));
    let after = Pods::of(stage)?;
    claims.tell("no pod was restarted", before == after && !before.0.is_empty(), before.told(&after));
    Ok(())
}

/// What crossed the fabric on the tunnels' port, byte by byte.
fn tunnels(capture: &Capture, answer: Answer, claims: &mut Claims) {
    let seen = || capture.streams_on(TUNNEL_PORT).iter().map(Stream::records).collect::<Vec<_>>();
    let encrypted = |all: &[Records]| all.iter().map(|r| r.encrypted).sum::<usize>();
    // Whether it comes about is the claim's business.
    let _ = eventually(PATIENCE, || encrypted(&seen()) > 0);
    let records = seen();
    let only_tls = encrypted(&records) > 0 && records.iter().all(|r| !r.other && r.handshake > 0);
    let hidden = !capture.shows(MARKER_AFTER);
    claims.tell(
        "the next request crosses br0 only inside TLS on 15008",
        answer.is_ok() && hidden && only_tls,
        format!(
            "{answer}, marker {}, {} directions of tunnels: {} TLS records and {} else",
            found(!hidden),
            records.len(),
            encrypted(&records) + records.iter().map(|r| r.handshake).sum::<usize>(),
            if records.iter().any(|r| r.other) { "something" } else { "nothing" },
        ),
    );
}

/// The processes of the pods, by name.
#[derive(PartialEq, Eq)]
struct Pods(BTreeMap<String, Option<u64>>);

impl Pods {
    fn of(stage: &Stage) -> anyhow::Result<Self> {
        let status = stage.status()?;
        let pods = status["pods"].as_array().cloned().unwrap_or_default();
        let named = |pod: &Value| (text(pod, "name"), pod["pid"].as_u64());
        Ok(Self(pods.iter().map(named).collect()))
    }

    /// The processes of before, and what became of those that are others now.
    fn told(&self, after: &Self) -> String {
        let pid = |pid: Option<&Option<u64>>| {
            pid.copied().flatten().map_or_else(|| "none".to_owned(), |p| p.to_string())
        };
        let told = self.0.iter().map(|(name, old)| match after.0.get(name) {
            Some(new) if new == old => format!("{name} {}", pid(Some(old))),
            new => format!("{name} {} is now {}", pid(Some(old)), pid(new)),
        });
        format!("processes {}", told.collect::<Vec<_>>().join(", "))
    }
}

pub(super) fn identities(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    let seen = |record: &Value| {
        record["path"] == "hbone"
            && record["direction"] == "inbound"
            && record["src"]["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
            && record["dst"]["identity"] == "spiffe://cluster.local/ns/shop/sa/cart"
    };
    let mut records = Vec::new();
    eventually(PATIENCE, || {
        records = stage.flows(&["--to-pod", "shop/cart"]).unwrap_or_default();
        records.iter().any(seen)
    })
    .context("no record of web calling cart")?;
    let shown = stage.ambit(&["flows", "--to-pod", "shop/cart", "--last", "5"])?;
    out::data(&indent(&shown));
    let count = records.iter().filter(|r| seen(r)).count();
    claims.tell(
        "both identities are proven and recorded",
        count > 0,
        format!("{count} connections of shop/sa/web to shop/sa/cart"),
    );
    let paired = records.iter().find(|r| seen(r)).is_some_and(|r| {
        let all = stage.flows(&[]).unwrap_or_default();
        all.iter().filter(|other| other["conn_id"] == r["conn_id"]).count() >= 2
    });
    claims.tell(
        "both ends' records share one connection id",
        paired,
        if paired { "they do" } else { "they do not" },
    );
    Ok(())
}

pub(super) fn policy(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    stage.lab(&["apply", "-f", &stage.file("only-web.yaml")])?;
    let (web, batch) = (stage.ask_cart("shop", "web", "x")?, stage.ask_cart("shop", "batch", "x")?);
    let stranger = stage.ask_cart("outside", "stranger", "x")?;
    claims.tell("web may still call cart", web.is_ok(), web.to_string());
    claims.tell("batch may not", batch.is_refused(), batch.to_string());
    claims.tell("a stranger without identity may not", stranger.is_refused(), stranger.to_string());
    let mut record = Value::Null;
    eventually(PATIENCE, || {
        record = denied(stage, "AMB2104");
        !record.is_null()
    })
    .context("no record of the refusal")?;
    let why = stage.ambit(&["why", &text(&record, "conn_id")])?;
    out::data(&indent(&why));
    let named = ["AMB2104", "shop/batch", "shop/cart-from-web, rule 0"].iter().all(|word| why.contains(word));
    claims.tell("the refusal names caller, policy and rule", named, told(&record));
    let _ = eventually(PATIENCE, || !denied(stage, "AMB2301").is_null());
    let plain = denied(stage, "AMB2301");
    claims.tell(
        "plaintext is refused by STRICT",
        text(&plain["src"], "workload") == "stranger",
        told(&plain),
    );
    Ok(())
}

/// Puts the policy in force again by which batch may not call cart, and lets it try once.
pub(super) fn leave_a_refusal(stage: &Stage) -> anyhow::Result<()> {
    stage.lab(&["apply", "-f", &stage.file("only-web.yaml")])?;
    stage.ask_cart("shop", "batch", "x")?;
    eventually(PATIENCE, || {
        let last = stage.flows(&["--verdict", "denied"]).unwrap_or_default().into_iter().next_back();
        last.is_some_and(|record| record["code"] == "AMB2104" || record["code"] == "AMB4006")
    })
    .context("no record of the refusal")?;
    Ok(())
}

/// The newest record of a refusal with that code; null if there is none.
fn denied(stage: &Stage, code: &str) -> Value {
    let found = stage.flows(&["--verdict", "denied", "--code", code]).unwrap_or_default();
    found.into_iter().next_back().unwrap_or(Value::Null)
}

/// What a record says of a refusal.
fn told(record: &Value) -> String {
    if record.is_null() {
        return "no record".to_owned();
    }
    let end = |end: &Value| format!("{}/{}", text(end, "namespace"), text(end, "workload"));
    let by = match (text(record, "policy"), text(record, "rule")) {
        (policy, _) if policy.is_empty() => String::new(),
        (policy, rule) if rule.is_empty() => format!(", policy {policy}"),
        (policy, rule) => format!(", policy {policy} rule {rule}"),
    };
    let (code, reason) = (text(record, "code"), text(record, "reason"));
    format!("{code} {reason}, {} -> {}{by}", end(&record["src"]), end(&record["dst"]))
}

pub(super) fn without_control_plane(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    stage.lab(&["stop", "istiod"])?;
    let gone = stage.program("istiod")?.is_none();
    let (ok, failed) = (stage.count("shop", "web", "ok"), stage.count("shop", "web", "failed"));
    eventually(PATIENCE, || stage.count("shop", "web", "ok") > ok + 20).context("web gets no answers")?;
    let (more, lost) = (stage.count("shop", "web", "ok") - ok, stage.count("shop", "web", "failed") - failed);
    let still = if gone { "istiod has no process" } else { "istiod still runs" };
    claims.tell(
        "new connections go on without it",
        lost == 0 && gone,
        format!("{still}, {more} more answered, {lost} failed"),
    );
    stage.lab(&["apply", "--no-wait", "-f", &stage.file("batch-too.yaml")])?;
    stage.lab(&["start", "istiod"])?;
    let took = eventually(PATIENCE, || stage.ask_cart("shop", "batch", "x").is_ok_and(Answer::is_ok))
        .context("the change made meanwhile never came into force")?;
    claims.tell(
        "a change made meanwhile is in force after its return",
        true,
        format!("batch may call cart after {} ms", took.as_millis()),
    );
    Ok(())
}

pub(super) fn kill_ztunnel(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    let before = stage.program("ztunnel/node1")?;
    stage.lab(&["kill", "ztunnel/node1"])?;
    let took = eventually(PATIENCE, || stage.ask_cart("shop", "web", "x").is_ok_and(Answer::is_ok))
        .context("web never reached cart again")?;
    let after = stage.program("ztunnel/node1")?;
    let pid = |pid: Option<u64>| pid.map_or_else(|| "none".to_owned(), |p| p.to_string());
    claims.tell(
        "it is killed and comes back",
        before.is_some() && after.is_some() && before != after,
        format!("process {} is now {}", pid(before), pid(after)),
    );
    claims.tell("new connections work again", true, format!("after {} ms", took.as_millis()));
    Ok(())
}

pub(super) fn rotation(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    let before = serial(stage)?;
    let (ok, failed) = (stage.count("shop", "web", "ok"), stage.count("shop", "web", "failed"));
    eventually(PATIENCE * 2, || serial(stage).is_ok_and(|now| now != before && !now.is_empty()))
        .context("the certificate of web was not renewed")?;
    eventually(PATIENCE, || stage.count("shop", "web", "ok") > ok + 20).context("web gets no answers")?;
    let after = serial(stage)?;
    let (more, lost) = (stage.count("shop", "web", "ok") - ok, stage.count("shop", "web", "failed") - failed);
    let short = |s: &str| s.chars().take(8).collect::<String>();
    claims.tell(
        "the certificate of web was renewed",
        true,
        format!("serial {}… is now {}…", short(&before), short(&after)),
    );
    claims.tell("no request failed meanwhile", lost == 0, format!("{more} answered, {lost} failed"));
    Ok(())
}

/// Serial number of web's certificate on its node.
fn serial(stage: &Stage) -> anyhow::Result<String> {
    let output = stage.quiet(&["get", "certificates", "--node", "node1", "-o", "json"])?;
    let list: Value = serde_json::from_str(&output).context("reading `ambit get certificates`")?;
    let web = |c: &&Value| c["identity"] == "spiffe://cluster.local/ns/shop/sa/web";
    let found = list["items"].as_array().into_iter().flatten().find(web);
    Ok(found.and_then(|c| c["certChain"][0]["serialNumber"].as_str()).unwrap_or_default().to_owned())
}

fn found(is: bool) -> &'static str {
    if is { "found" } else { "not found" }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
