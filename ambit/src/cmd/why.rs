//! `ambit why`: what a code means, or why a connection was refused.

use ambit_types::Reason;
use ambit_types::reason::Kind;
use clap::{Args as ClapArgs, Parser as _};
use serde_json::Value;

use super::nodes::{Where, block_on, text};
use crate::out;

/// Records of each node that are searched: more than a ring holds.
const RECORDS: usize = 100_000;

/// Explains a reason code, a connection by its id, or the last refusal.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A code (AMB2104), a reason (policy-denied), a connection id, or `last`
    what: String,
    #[command(flatten)]
    at: Where,
}

/// Runs the command.
///
/// # Errors
/// When there is no such thing, with what to type.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if let Ok(reason) = args.what.parse::<Reason>() {
        out::data(&page(reason));
        return Ok(out::OK);
    }
    let looks_like_id = args.what.len() == 32 && args.what.bytes().all(|b| b.is_ascii_hexdigit());
    if args.what != "last" && !looks_like_id {
        out::say(&format!(
            "{:?} is neither a code (AMB2104), a reason (policy-denied), a connection id nor `last`; `ambit flows` shows codes and ids",
            args.what
        ));
        return Ok(out::BAD_DATA);
    }
    let records = block_on(async {
        let mut flows = FlowArgs::parse_from(["flows"]).flows;
        flows.at = args.at.clone();
        flows.last = RECORDS;
        super::flows::records(&flows, &args.at.nodes()?).await
    })?;
    let refused = |record: &&Value| record["verdict"] == "denied";
    let found = match args.what.as_str() {
        "last" => records.iter().rev().find(refused),
        id => records
            .iter()
            .rev()
            .find(|r| r["conn_id"] == id && refused(r))
            .or_else(|| records.iter().rev().find(|r| r["conn_id"] == id)),
    };
    // The end that decided knows the policy; the other one only knows that it was refused.
    let decided =
        |r: &&Value| found.is_some_and(|f| r["conn_id"] == f["conn_id"]) && !text(r, "policy").is_empty();
    match records.iter().rev().find(decided).or(found) {
        Some(record) => {
            out::data(&explain(record));
            Ok(out::OK)
        }
        None => {
            out::say("no such record; it may have left the ring, see `ambit flows --last 100000`");
            Ok(out::FAILED)
        }
    }
}

#[derive(clap::Parser)]
struct FlowArgs {
    #[command(flatten)]
    flows: super::flows::Args,
}

/// What is known of a code.
fn page(reason: Reason) -> String {
    let entry = reason.entry();
    let kind = match entry.kind {
        Kind::Refusal => "the connection was refused or cut",
        Kind::Info => "the connection went through",
    };
    format!(
        "{reason}\n  when    {}\n  means   {kind}; to be changed by: {}\n  flag    response_flags=\"{}\"\n  try     {}\n  read    docs/reference/reasons.md#{}\n",
        entry.when,
        format!("{:?}", entry.fault).to_lowercase(),
        entry.flag,
        entry.try_next,
        reason.code().to_lowercase(),
    )
}

/// One record in five parts: what, decided by, saw, try, read.
fn explain(record: &Value) -> String {
    let end = |end: &Value| match text(end, "workload") {
        name if name.is_empty() => text(end, "addr"),
        name => format!("{}/{name} ({})", text(end, "namespace"), text(end, "addr")),
    };
    let reason: Option<Reason> = text(record, "code").parse().ok();
    let head = reason.map_or_else(|| "allowed".to_owned(), |r| r.to_string());
    let policy = match text(record, "policy") {
        none if none.is_empty() => "no policy".to_owned(),
        key => match text(record, "rule") {
            rule if rule.is_empty() => format!("policy {key}"),
            rule => format!("policy {key}, rule {rule}"),
        },
    };
    let nearest = match text(record, "nearest") {
        none if none.is_empty() => none,
        nearest => format!("  nearest     {nearest}\n"),
    };
    let saw = match text(&record["src"], "identity") {
        none if none.is_empty() => "no identity (plaintext)".to_owned(),
        identity => format!("{identity} by {}", text(record, "path")),
    };
    let (next, link) = reason.map_or(("none needed", String::new()), |r| {
        (r.entry().try_next, format!("docs/reference/reasons.md#{}", r.code().to_lowercase()))
    });
    format!(
        "{head}   {} -> {} {}\n  decided by  {policy}: {}\n  saw         {saw}\n{nearest}  connection  {} at {} on {}\n  try         {next}\n  read        {link}\n",
        end(&record["src"]),
        end(&record["dst"]),
        text(record, "hbone_addr"),
        text(record, "error"),
        text(record, "conn_id"),
        text(record, "time"),
        text(record, "node"),
    )
}
