//! `/ca/status`, `/ca/rotate`, `/ca/abort` and `/ca/resume` of the admin surface: what is known of the authority, for
//! people.

use std::time::{Duration, UNIX_EPOCH};

use ambit_runtime::admin::{Reply, Routes};
use ambit_runtime::clock;
use aws_lc_rs::digest::{SHA256, digest};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::keeper::{Command, Keeper, Known};
use super::material::{self, Block, Issuing, Owner};
use super::rotation::{Phase, Times};

#[cfg(test)]
mod tests;

/// One step of a rotation.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    step: &'static str,
    /// `done`, `now` or `later`.
    state: &'static str,
    evidence: String,
}

impl Keeper {
    /// The routes: GET `/ca/status`; POST `/ca/rotate`, `/ca/abort` and `/ca/resume`, which answer once the change is kept.
    pub fn routes(&self) -> Routes {
        let (shown, rotated, aborted, resumed) = (self.clone(), self.clone(), self.clone(), self.clone());
        Routes::new()
            .get("/ca/status", move |_| std::future::ready(Reply::json(&shown.status())))
            .post("/ca/rotate", move |_| carry_out(rotated.clone(), Command::Rotate))
            .post("/ca/abort", move |_| carry_out(aborted.clone(), Command::Abort))
            .post("/ca/resume", move |_| carry_out(resumed.clone(), Command::Resume))
    }

    /// What is known of the authority and its rotation.
    pub fn status(&self) -> Value {
        let known = self.known().clone();
        of(&known, self.settings.times, self.settings.trust_domain.as_str(), clock::unix_seconds())
    }
}

async fn carry_out(keeper: Keeper, command: Command) -> Reply {
    match keeper.command(command).await {
        Ok(()) => Reply::json(&keeper.status()),
        Err(why) => Reply::text(StatusCode::CONFLICT, format!("{why}\n")),
    }
}

/// What people are shown of an authority; no key is ever part of it.
pub(super) fn of(known: &Known, times: Times, trust_domain: &str, now: u64) -> Value {
    let state = known.ring.state;
    let last = match state.phase {
        Phase::Waiting => "comes",
        Phase::Idle | Phase::Reissuing => "goes",
    };
    let mut roots = certificates(&known.ring.signing, "signs");
    roots.extend(known.ring.other.iter().flat_map(|other| certificates(other, last)));
    let outlived = (state.phase != Phase::Idle).then(|| known.ring.outlived_at(times));
    json!({
        "trust_domain": trust_domain,
        "kept": match known.owner { Owner::Us => "ours", Owner::Plugged => "plugged" },
        "generation": state.generation,
        "phase": state.phase.as_str(),
        "since": state.since,
        "ends_latest": outlived,
        "leads": known.leads,
        "problem": known.problem,
        "roots": roots,
        "steps": steps(known, times, now),
        "required": known.required_count,
        "behind": known.behind_count,
        "behind_first": known.behind.iter().map(|name| &**name).collect::<Vec<_>>(),
    })
}

/// The steps of the rotation that is under way.
fn steps(known: &Known, times: Times, now: u64) -> Vec<Row> {
    let state = known.ring.state;
    let (waiting, reissuing) = match state.phase {
        Phase::Idle => return Vec::new(),
        Phase::Waiting => ("now", "later"),
        Phase::Reissuing => ("done", "now"),
    };
    let spread = now >= state.since.saturating_add(times.lag);
    let progress = |of: &str| {
        let (behind, all) = (known.behind_count, known.required_count);
        // A time of day and not what is left, so that what is told changes only when something happened.
        let end = date(known.ring.outlived_at(times));
        match spread {
            true => {
                format!("{} of {all} proxies have {of}; over at {end} at the latest", all - behind.min(all))
            }
            false => "every replica takes it up first".to_owned(),
        }
    };
    let during = |row: &str, of: &str| if row == "now" { progress(of) } else { String::new() };
    let row = |step, state, evidence| Row { step, state, evidence };
    let fresh =
        if state.phase == Phase::Waiting { known.ring.other.as_ref() } else { Some(&known.ring.signing) };
    let name = fresh.and_then(first_fingerprint).unwrap_or_default();
    vec![
        row("add root", "done", name),
        row("every proxy trusts it", waiting, during(waiting, "the bundle")),
        row("switch issuer", if waiting == "done" { "done" } else { "later" }, String::new()),
        row("re-issue every certificate", reissuing, during(reissuing, "certificates of the new issuer")),
        row("drop the old root", "later", String::new()),
    ]
}

/// A time as people read it.
fn date(seconds: u64) -> String {
    // The end of the year 9999: no later one can be written.
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}

fn first_fingerprint(of: &Issuing) -> Option<String> {
    material::blocks(material::ROOTS, &of.roots).ok()?.first().map(fingerprint)
}

fn certificates(of: &Issuing, role: &str) -> Vec<Value> {
    let blocks = material::blocks(material::ROOTS, &of.roots).unwrap_or_default();
    blocks.iter().map(|block| certificate(block, role)).collect()
}

fn certificate(block: &Block, role: &str) -> Value {
    let read = X509Certificate::from_der(&block.der);
    let (subject, not_after) = match &read {
        Ok((_, read)) => (read.subject().to_string(), read.validity().not_after.timestamp()),
        Err(_) => (String::new(), 0),
    };
    json!({ "role": role, "subject": subject, "not_after": not_after, "fingerprint": fingerprint(block) })
}

/// The beginning of the SHA-256 of a certificate: enough to tell two apart.
fn fingerprint(block: &Block) -> String {
    digest(&SHA256, &block.der).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
