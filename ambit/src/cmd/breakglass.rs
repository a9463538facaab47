//! `ambit breakglass …`: lets everybody call a namespace for a while, for authorization only, and loudly.
//!
//! It writes an ordinary AuthorizationPolicy that allows everything, with its end, reason and author as annotations; the
//! control plane takes it out of force at its end, also if nobody closes it. STRICT stays in force, as do DENY policies.
//! Every connection that only it lets in is recorded as AMB2305.

use std::time::Duration;

use ambit_lab::control::{Request, ask};
use ambit_lab::store::{Kind, ObjectKey};
use ambit_lab::{RunDir, manifests};
use ambit_runtime::clock;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Where, cell, no_lab, text};
use super::policy::typed;
use crate::out::{self, Failure};

/// Name of the policy; the engine knows it, see `ambit_policy::decide::BREAKGLASS`.
const NAME: &str = ambit_policy::decide::BREAKGLASS;
/// Until when, RFC 3339.
const UNTIL: &str = "ambit.internal/breakglass-until";
const REASON: &str = "ambit.internal/breakglass-reason";
const BY: &str = "ambit.internal/breakglass-by";
/// The longest it may stay open.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Opens, shows and closes passes.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let everybody call a namespace for a while; STRICT and DENY policies stay in force
    Open(Open),
    /// Show what is open
    List(Show),
    /// Close it before its time
    Close(Close),
}

#[derive(Debug, ClapArgs)]
struct Open {
    /// The namespace that may be called
    #[arg(short = 'n', long)]
    namespace: String,
    /// For how long, at most 24h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Why; everybody reads it
    #[arg(long)]
    reason: String,
    /// Who opens it
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

#[derive(Debug, ClapArgs)]
struct Show {
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, ClapArgs)]
struct Close {
    /// The namespace
    #[arg(short = 'n', long)]
    namespace: String,
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab or namespace, or the lab refuses the change.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if !RunDir::of(&args.at.name).root().exists() {
        return Err(Failure::new(out::UNREACHABLE, no_lab(&args.at.name)).into());
    }
    match &args.command {
        Command::Open(open) => self::open(&args.at, open),
        Command::List(show) => list(&args.at, show),
        Command::Close(close) => self::close(&args.at, close),
    }
}

fn open(at: &Where, args: &Open) -> anyhow::Result<i32> {
    if args.reason.trim().is_empty() || args.time > LONGEST || args.time.is_zero() {
        let told = "it needs a reason, and a time of at most 24h";
        return Err(Failure::new(out::USAGE, told).into());
    }
    let end = clock::wall() + args.time;
    let until = humantime::format_rfc3339_seconds(end).to_string();
    let policy = policy(&args.namespace, &until, &args.reason, &args.by);
    ask(&at.name, &Request::Apply { objects: vec![policy], wait: Some(20_000) }, &mut out::say)?;
    let namespace = &args.namespace;
    out::data(&format!("OPEN: everybody may call namespace {namespace} until {until}: {}", args.reason));
    out::say("STRICT and DENY policies stay in force, and so do policies at waypoints");
    out::say(&format!("who uses it: {}", typed(at, &format!("flows -n {namespace} --code AMB2305"))));
    out::say(&format!("close it:    {}", typed(at, &format!("breakglass close -n {namespace}"))));
    Ok(out::OK)
}

fn policy(namespace: &str, until: &str, reason: &str, by: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "annotations": {UNTIL: until, REASON: reason, BY: by},
        },
        "spec": {"action": "ALLOW", "rules": [{}]},
    })
}

fn list(at: &Where, args: &Show) -> anyhow::Result<i32> {
    let stored = manifests::stored(&RunDir::of(&at.name), Kind::AuthorizationPolicy)?;
    let now = clock::wall();
    let items: Vec<Value> = stored.iter().filter_map(|policy| item(policy, now)).collect();
    let open = items.iter().filter(|item| item["state"] == "open").count();
    List { kind: "BreakglassList", items }
        .print(&args.output, table, |item| format!("breakglass/{}", text(item, "namespace")));
    out::say(&format!("{open} open"));
    Ok(out::OK)
}

fn item(policy: &Value, now: std::time::SystemTime) -> Option<Value> {
    let metadata = &policy["metadata"];
    let until = metadata["annotations"][UNTIL].as_str().filter(|_| metadata["name"] == NAME)?;
    let is_open = humantime::parse_rfc3339(until).is_ok_and(|end| end > now);
    Some(json!({
        "namespace": metadata["namespace"],
        "until": until,
        "state": if is_open { "open" } else { "ended" },
        "reason": metadata["annotations"][REASON],
        "by": metadata["annotations"][BY],
    }))
}

fn table(items: &[Value], wide: bool) -> String {
    let row = |item: &Value| {
        let mut cells = ["namespace", "until", "reason", "by"].map(|key| cell(item, key)).to_vec();
        cells.extend(wide.then(|| cell(item, "state")));
        cells
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    let heading = ["NAMESPACE", "UNTIL", "REASON", "BY", "STATE"];
    out::table(if wide { &heading } else { &heading[..4] }, &rows)
}

fn close(at: &Where, args: &Close) -> anyhow::Result<i32> {
    let policy = ObjectKey::new(Kind::AuthorizationPolicy, Some(&args.namespace), NAME);
    let request = Request::Delete { objects: vec![policy], ignore_missing: true, wait: Some(20_000) };
    ask(&at.name, &request, &mut out::say)?;
    out::data(&format!("closed: the policies of namespace {} decide alone", args.namespace));
    Ok(out::OK)
}
