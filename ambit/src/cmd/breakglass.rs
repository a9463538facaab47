//! `ambit breakglass …`: lets everybody call a namespace for a while, for authorization only, and loudly.
//!
//! It writes an ordinary AuthorizationPolicy that allows everything, with its beginning, end, reason and author as
//! annotations. The control plane takes it out of force at its end, also if nobody closes it, and so does every node,
//! also without a control plane. STRICT stays in force, as do DENY policies and those of waypoints.
//! Every connection that only it lets in is recorded as AMB2305.

use std::time::{Duration, SystemTime};

use ambit_control::Settings;
use ambit_lab::control::{Request, ask};
use ambit_lab::store::{Kind, ObjectKey};
use ambit_lab::{RunDir, manifests};
use ambit_runtime::clock;
use ambit_types::breakglass::{LONGEST_SECONDS, NAME, OPENED, UNTIL};
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Where, cell, no_lab, text};
use super::policy::typed_in;
use crate::out::{self, Failure};

const REASON: &str = "ambit.internal/breakglass-reason";
const BY: &str = "ambit.internal/breakglass-by";
/// The longest it may stay open.
const LONGEST: Duration = Duration::from_secs(LONGEST_SECONDS);

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
    let root = Settings::default().root_namespace;
    if *args.namespace == *root {
        let told =
            format!("{root} is the root namespace: a break-glass there would open all of them; name one");
        return Err(Failure::new(out::USAGE, told).into());
    }
    let now = clock::wall();
    let [opened, until] = [now, now + args.time].map(|at| humantime::format_rfc3339_seconds(at).to_string());
    let policy = policy(args, &opened, &until);
    ask(&at.name, &Request::Apply { objects: vec![policy], wait: Some(20_000) }, &mut out::say)?;
    let namespace = &args.namespace;
    out::data(&format!("OPEN: everybody may call namespace {namespace} until {until}: {}", args.reason));
    out::say("STRICT and DENY policies stay in force, and so do policies at waypoints");
    out::say(&format!(
        "who uses it: {}",
        typed_in(Some(&at.name), &format!("flows -n {namespace} --code AMB2305"))
    ));
    out::say(&format!(
        "close it:    {}",
        typed_in(Some(&at.name), &format!("breakglass close -n {namespace}"))
    ));
    Ok(out::OK)
}

fn policy(Open { namespace, reason, by, .. }: &Open, opened: &str, until: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "annotations": {OPENED: opened, UNTIL: until, REASON: reason, BY: by},
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

fn item(policy: &Value, now: SystemTime) -> Option<Value> {
    let metadata = &policy["metadata"];
    let until = metadata["annotations"][UNTIL].as_str().filter(|_| metadata["name"] == NAME)?;
    let time = |annotation: &str| -> Option<SystemTime> {
        humantime::parse_rfc3339(metadata["annotations"][annotation].as_str()?).ok()
    };
    let is_open =
        time(OPENED).zip(time(UNTIL)).is_some_and(|(opened, end)| end > now && end <= opened + LONGEST);
    Some(json!({
        "namespace": metadata["namespace"],
        "until": until,
        "state": if is_open { "open" } else { "ended" },
        "reason": metadata["annotations"][REASON],
        "by": metadata["annotations"][BY],
    }))
}

pub(super) fn table(items: &[Value], wide: bool) -> String {
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
