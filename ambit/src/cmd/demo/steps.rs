//! The steps of the tour and their evidence.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::Claims;
use super::stage::{Stage, eventually};
use crate::out;

/// Longest wait for anything the tour waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is looked for in captures before enrolment.
const MARKER_BEFORE: &str = "MARKER-BEFORE-ENROLMENT";
/// What must never be found in one after it.
const MARKER_AFTER: &str = "MARKER-AFTER-ENROLMENT";

pub(super) fn in_clear(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    eventually(PATIENCE, || stage.count("shop", "web", "ok") > 3).context("web gets no answer from cart")?;
    let capture = stage.capture()?;
    let status = stage.ask_cart("shop", "web", MARKER_BEFORE)?;
    let shown = eventually(PATIENCE, || capture.shows(MARKER_BEFORE)).is_ok();
    claims.tell(
        "the request crosses br0 in clear",
        status == 200 && shown,
        format!("status {status}, marker {}", found(shown)),
    );
    Ok(())
}

pub(super) fn enrol(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    eventually(PATIENCE, || stage.count("shop", "viewer", "more") > 0)
        .context("the open connection gets nothing")?;
    let pods = pids(stage)?;
    let failed = stage.count("shop", "web", "failed");
    stage.lab(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"])?;
    let before = stage.count("shop", "viewer", "more");
    let capture = stage.capture()?;
    let status = stage.ask_cart("shop", "web", MARKER_AFTER)?;
    eventually(PATIENCE, || stage.count("shop", "viewer", "more") > before + 2)
        .context("the connection that was open before enrolment is dead")?;
    claims.tell("the connection opened before is still open", true, "it goes on receiving");
    eventually(PATIENCE, || capture.packets_on(15008) > 0)
        .context("nothing crosses the fabric on port 15008")?;
    let tunnelled = capture.packets_on(15008);
    let hidden = !capture.shows(MARKER_AFTER);
    claims.tell(
        "the next request crosses br0 only inside TLS on 15008",
        status == 200 && hidden && tunnelled > 0,
        format!("status {status}, marker {}, {tunnelled} packets on 15008", found(!hidden)),
    );
    let lost = stage.count("shop", "web", "failed") - failed;
    claims.tell("no request of web failed meanwhile", lost == 0, format!("{lost} failed"));
    let same = pids(stage)? == pods;
    claims.tell(
        "no pod was restarted",
        same,
        if same { "all processes are the same" } else { "processes changed" },
    );
    Ok(())
}

/// Which processes run the pods.
fn pids(stage: &Stage) -> anyhow::Result<Value> {
    let output = stage.quiet_lab(&["get", "pods", "-A", "-o", "json"])?;
    let list: Value = serde_json::from_slice(&output.stdout).context("reading `ambit lab get pods`")?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let started = items.iter().map(|pod| {
        let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let runs: Vec<Value> = containers.iter().map(|c| c["restartCount"].clone()).collect();
        Value::from(vec![pod["metadata"]["uid"].clone(), Value::from(runs)])
    });
    Ok(Value::from(started.collect::<Vec<_>>()))
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
    claims.tell("web may still call cart", web == 200, format!("status {web}"));
    claims.tell("batch may not", batch != 200, format!("status {batch}"));
    claims.tell("a stranger without identity may not", stranger != 200, format!("status {stranger}"));
    let denied = |code: &str| {
        stage.flows(&["--verdict", "denied", "--code", code]).unwrap_or_default().into_iter().next_back()
    };
    let mut record = None;
    eventually(PATIENCE, || {
        record = denied("AMB2104");
        record.is_some()
    })
    .context("no record of the refusal")?;
    let id = record.as_ref().and_then(|r| r["conn_id"].as_str()).unwrap_or_default().to_owned();
    let why = stage.ambit(&["why", &id])?;
    out::data(&indent(&why));
    let named = ["AMB2104", "shop/batch", "shop/cart-from-web, rule 0"].iter().all(|word| why.contains(word));
    claims.tell(
        "the refusal names caller, policy and rule",
        named,
        "AMB2104, shop/batch, shop/cart-from-web rule 0",
    );
    let plain = denied("AMB2301").is_some();
    claims.tell(
        "plaintext is refused by STRICT",
        plain,
        if plain { "AMB2301 plaintext-refused" } else { "no record" },
    );
    Ok(())
}

pub(super) fn without_control_plane(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    stage.lab(&["stop", "istiod"])?;
    let (ok, failed) = (stage.count("shop", "web", "ok"), stage.count("shop", "web", "failed"));
    eventually(PATIENCE, || stage.count("shop", "web", "ok") > ok + 20).context("web gets no answers")?;
    let lost = stage.count("shop", "web", "failed") - failed;
    claims.tell("new connections go on without it", lost == 0, format!("20 more requests, {lost} failed"));
    stage.lab(&["apply", "--no-wait", "-f", &stage.file("batch-too.yaml")])?;
    stage.lab(&["start", "istiod"])?;
    let took =
        eventually(PATIENCE, || stage.ask_cart("shop", "batch", "x").is_ok_and(|status| status == 200))
            .context("the change made meanwhile never came into force")?;
    claims.tell(
        "a change made meanwhile is in force after its return",
        true,
        format!("batch may call cart after {} ms", took.as_millis()),
    );
    Ok(())
}

pub(super) fn kill_ztunnel(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    stage.lab(&["kill", "ztunnel/node1"])?;
    let took = eventually(PATIENCE, || stage.ask_cart("shop", "web", "x").is_ok_and(|status| status == 200))
        .context("web never reached cart again")?;
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
    let output = stage.quiet_ambit(&["get", "certificates", "--node", "node1", "-o", "json"])?;
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
