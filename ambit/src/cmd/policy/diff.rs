//! `ambit policy diff FILE`: which of the connections seen would be decided or routed otherwise.

use std::path::PathBuf;
use std::time::Duration;

use ambit_explain::Compiled;
use ambit_explain::diff::{Change, Diff, diff};
use ambit_manifest::{Kind, ObjectKey};
use ambit_runtime::clock;
use serde_json::{Map, Value, json};

use super::{objects, seen, typed};
use crate::cmd::form::{FORMS, Form, List};
use crate::cmd::mesh::Mesh;
use crate::cmd::nodes::{cell, short_id, text};
use crate::cmd::objects::Objects;
use crate::out::{self, Failure};

/// Compares what is with what would be.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifests that would be applied: files, folders, or - for the standard input
    #[arg(required_unless_present = "without")]
    files: Vec<PathBuf>,
    /// AuthorizationPolicies (NS/NAME) that would be removed
    #[arg(long, value_name = "NS/NAME")]
    without: Vec<String>,
    /// How far back to look
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Make the exit code 79 for these findings
    #[arg(long, value_enum, default_value = "never")]
    fail_on: FailOn,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Something that is allowed would be refused
    Refused,
    /// Anything would change
    Changed,
    /// Anything would change, or it cannot be told whether it would
    Unclear,
    /// None
    Never,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, a policy to be removed is not there, or no node answers.
pub(super) fn run(at: &Mesh, args: &Args) -> anyhow::Result<i32> {
    let now = objects(at)?;
    let change = Objects::of_files(&args.files)?;
    if let Some(told) = change.not_decided_by() {
        out::say(&told);
    }
    if let Some(told) = change.templates() {
        out::say(&told);
    }
    let mut then = now.clone().with(change);
    for name in &args.without {
        remove(&mut then, name)?;
    }
    // Both at one time: what a break-glass lets in until it ends is no change.
    let wall = Duration::from_secs(clock::unix_seconds());
    let (before, after) = (Compiled::of(&now.index()?, "", wall), Compiled::of(&then.index()?, "", wall));
    let seen = seen::of(at, args.since)?;
    let found = diff(&before.view(), &after.view(), &seen.flows);
    let code = exit_code(args.fail_on, &found);
    let told = summary(&found);
    print(&args.output, found)?;
    seen.tell();
    out::say(&told);
    if let [file] = &args.files[..] {
        let next = match at.lab() {
            Some(_) => typed(at, &format!("lab apply -f {}", file.display())),
            None => format!("kubectl apply -f {}", file.display()),
        };
        out::say(&format!("next: {next}"));
    }
    Ok(code)
}

fn remove(objects: &mut Objects, name: &str) -> Result<(), Failure> {
    let key = name
        .split_once('/')
        .map(|(namespace, name)| ObjectKey::new(Kind::AuthorizationPolicy, Some(namespace), name));
    match key.is_some_and(|key| objects.remove(&key)) {
        true => Ok(()),
        false => Err(Failure::new(out::BAD_DATA, format!("there is no AuthorizationPolicy {name}"))),
    }
}

fn refused(diff: &Diff) -> usize {
    let is_refusal = |change: &&Change| {
        use ambit_explain::Verdict::{Allow, Deny};
        (change.before.verdict, change.after.verdict) == (Allow, Deny)
    };
    diff.changes.iter().filter(is_refusal).count()
}

fn exit_code(fail_on: FailOn, diff: &Diff) -> i32 {
    let found = match fail_on {
        FailOn::Refused => refused(diff),
        FailOn::Changed => diff.changes.len(),
        FailOn::Unclear => diff.changes.len() + diff.unclear_flows.len() + diff.unclear,
        FailOn::Never => 0,
    };
    if found > 0 { out::FINDINGS } else { out::OK }
}

fn summary(diff: &Diff) -> String {
    format!(
        "{} different connections compared, {} would change, {} of them be refused; of {} it is unclear; {} records \
         say too little, or are of pods that are gone",
        diff.compared,
        diff.changes.len(),
        refused(diff),
        diff.unclear_flows.len(),
        diff.unclear
    )
}

fn print(form: &Form, diff: Diff) -> anyhow::Result<()> {
    let Diff { changes, unclear_flows, compared, unclear } = diff;
    let mut items = Vec::new();
    for change in changes {
        let (before, after) = (change.before.to_string(), change.after.to_string());
        let mut item = serde_json::to_value(&change)?;
        item["before"]["text"] = json!(before);
        item["after"]["text"] = json!(after);
        items.push(item);
    }
    let mut more = Map::new();
    more.insert("compared".to_owned(), json!(compared));
    more.insert("unclear".to_owned(), json!(unclear));
    let open = json!(unclear_flows);
    more.insert("unclear_flows".to_owned(), open.clone());
    List { kind: "PolicyDiffList", items }
        .print_beside(more, form, table, |item| format!("flow/{}", flow(item)));
    if let (Form::Table | Form::Wide, Some(open)) = (form, open.as_array().filter(|open| !open.is_empty())) {
        out::data(&format!("\n{}", unclear_table(open)));
    }
    Ok(())
}

/// `shop/web -> 10.0.0.1:80 GET /`.
fn flow(item: &Value) -> String {
    let mut flow = format!("{} -> {}", text(item, "source"), text(item, "destination"));
    for part in [text(item, "service"), text(item, "request")] {
        if !part.is_empty() {
            flow.push(' ');
            flow.push_str(&part);
        }
    }
    flow
}

pub(in crate::cmd) fn table(items: &[Value], wide: bool) -> String {
    let row = |item: &Value| {
        let told = |when: &str| cell(&item[when], "text");
        let mut row = vec![flow(item), told("before"), told("after")];
        row.extend([cell(item, "connections"), cell(item, "last_seen")]);
        row.extend(wide.then(|| short_id(item)));
        row
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    let mut heading = vec!["FLOW", "BEFORE", "AFTER", "CONNS", "LAST SEEN"];
    heading.extend(wide.then_some("ID"));
    out::table(&heading, &rows)
}

/// Flows of which nothing can be told, and why.
fn unclear_table(items: &[Value]) -> String {
    let row = |item: &Value| {
        let cells = ["why", "connections", "last_seen"].map(|key| cell(item, key));
        [vec![flow(item)], cells.to_vec(), vec![short_id(item)]].concat()
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    out::table(&["UNCLEAR FLOW", "WHY", "CONNS", "LAST SEEN", "ID"], &rows)
}
