//! `ambit ca`: the roots of trust, and their rotation step by step.
//!
//! Of a lab the control plane's admin socket is asked; in a cluster, the Secret of the authority, by `cluster`.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ambit_lab::{LabName, RunDir};
use ambit_runtime::admin::client;
use anyhow::bail;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Map, Value};

use cluster::Authority;

use super::form::{FORMS, Form, List};
use super::install::cluster::At;
use super::nodes::{block_on, cell, json, text};
use super::place;
use crate::out::{self, Failure};

mod cluster;
#[cfg(test)]
mod tests;

/// Pause between two looks while watching.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Looks in a row that may fail while watching: the control plane may be restarted meanwhile.
const SILENT_MAX: u32 = 60;
/// What is asked.
const STATUS: &str = "/ca/status";
/// The end of the year 9999, in seconds since 1970: no later time can be written.
const LAST: u64 = 253_402_300_799;

/// Shows the roots of trust, or replaces them without a connection noticing.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[arg(long, env = "AMBIT_LAB", global = true, help = place::LAB)]
    name: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
    /// Namespace of a cluster's control plane
    #[arg(short, long, env = "AMBIT_ROOT_NAMESPACE", default_value = "istio-system", global = true)]
    namespace: String,
    /// The control plane's admin socket, instead of a lab's
    #[arg(long, value_name = "PATH", global = true)]
    admin_socket: Option<PathBuf>,
    #[arg(short, long, default_value = "table", help = FORMS, global = true)]
    output: Form,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The roots, the issuer, and how far a rotation is; exit code 1 if something is amiss
    Status {
        /// Show every step until the rotation is over
        #[arg(long)]
        watch: bool,
    },
    /// Adds a new root, waits until every proxy trusts it, switches, re-issues, and drops the old one
    Rotate {
        /// Show every step until the rotation is over
        #[arg(long)]
        watch: bool,
        /// Go back to the issuer from before the rotation that is under way
        #[arg(long)]
        abort: bool,
        /// Have the proxies that hold the rotation up asked once more, now; it goes on by itself anyhow
        #[arg(long, conflicts_with = "abort")]
        resume: bool,
    },
}

impl Args {
    /// The lab it asks; none if it is told a socket, or is about a cluster.
    pub(super) fn lab(&self) -> Option<&LabName> {
        if self.admin_socket.is_some() {
            return None;
        }
        place::lab(self.name.as_ref(), &self.usual, &self.at)
    }
}

/// Where the control plane is asked.
enum Source {
    /// At its admin socket.
    Socket(PathBuf),
    /// At the Secret of the authority.
    Cluster(Authority),
}

impl Source {
    async fn of(args: &Args) -> anyhow::Result<Self> {
        if let Some(socket) = &args.admin_socket {
            return Ok(Self::Socket(socket.clone()));
        }
        match args.lab() {
            Some(lab) => Ok(Self::Socket(RunDir::of(lab).istiod().join("admin.sock"))),
            None => {
                let client = args.at.connect().await?;
                Ok(Self::Cluster(Authority::new(client, args.namespace.clone())))
            }
        }
    }

    async fn status(&self) -> anyhow::Result<Value> {
        match self {
            Self::Socket(socket) => json(socket, STATUS).await,
            Self::Cluster(authority) => authority.status().await,
        }
    }

    /// Has a command carried out; returns once it is.
    async fn change(&self, verb: &str) -> anyhow::Result<()> {
        match self {
            Self::Socket(socket) => change(socket, &format!("/ca/{verb}")).await,
            Self::Cluster(authority) => authority.change(verb).await,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the control plane does not answer, or refuses.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    block_on(async {
        let source = Source::of(args).await?;
        let watch = match args.what {
            What::Status { watch } => watch,
            What::Rotate { watch, abort, resume } => {
                source.change(verb(abort, resume)).await?;
                watch
            }
        };
        let last = if watch { watched(args, &source).await? } else { source.status().await? };
        let fine = last["problem"].is_null();
        print(args, last);
        Ok(if fine { out::OK } else { out::FAILED })
    })
}

/// What the options of `rotate` ask for.
fn verb(abort: bool, resume: bool) -> &'static str {
    match (abort, resume) {
        (true, _) => "abort",
        (false, true) => "resume",
        (false, false) => "rotate",
    }
}

async fn change(socket: &Path, what: &str) -> anyhow::Result<()> {
    let answer = client::post(socket, what).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&answer.body).trim().to_owned();
    if answer.status.as_u16() == 404 {
        bail!("{} knows no rotation; is it an istiod-lite of this version?", socket.display());
    }
    Err(Failure::new(out::FAILED, said).into())
}

/// Shows every change until no rotation is under way; the last status.
async fn watched(args: &Args, source: &Source) -> anyhow::Result<Value> {
    let mut shown = String::new();
    let mut silent = 0;
    loop {
        match source.status().await {
            Ok(status) if status["phase"] == "idle" => return Ok(status),
            Ok(status) => {
                silent = 0;
                let now = steps(&status);
                if matches!(args.output, Form::Table | Form::Wide) && now != shown {
                    out::say(&now);
                }
                shown = now;
            }
            Err(error) => {
                silent += 1;
                if silent > SILENT_MAX {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn print(args: &Args, mut status: Value) {
    let roots = status["roots"].take().as_array().cloned().unwrap_or_default();
    let more: Map<String, Value> = status.as_object().cloned().unwrap_or_default();
    let more = more.into_iter().filter(|(name, _)| name != "roots").collect();
    let list = List { kind: "RootList", items: roots };
    let below = below(&status);
    list.print_beside(more, &args.output, |roots, _| format!("{}{below}", table(roots)), name);
}

const HEADING: &[&str] = &["ROOT", "ROLE", "SUBJECT", "NOT AFTER"];

pub(super) fn table(roots: &[Value]) -> String {
    let row = |root: &Value| {
        let ends = root["not_after"].as_u64().map(|at| UNIX_EPOCH + Duration::from_secs(at.min(LAST)));
        let ends =
            ends.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string());
        vec![cell(root, "fingerprint"), cell(root, "role"), cell(root, "subject"), ends]
    };
    out::table(HEADING, &roots.iter().map(row).collect::<Vec<_>>())
}

/// What stands below the roots: the rotation, if one is under way, and what is wrong.
fn below(status: &Value) -> String {
    let mut text = String::new();
    if status["phase"] != "idle" {
        text.push_str(&format!("\n{}", steps(status)));
    }
    if let Some(note) = status["note"].as_str() {
        text.push_str(&format!("\n{note}\n"));
    }
    if let Some(problem) = status["problem"].as_str() {
        text.push_str(&format!("\nPROBLEM: {problem}\n"));
    }
    text
}

/// The steps of a rotation, and who holds it up.
pub(super) fn steps(status: &Value) -> String {
    let rows = status["steps"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> =
        rows.map(|row| vec![cell(row, "step"), cell(row, "state"), cell(row, "evidence")]).collect();
    let mut all = out::table(&["STEP", "STATE", "EVIDENCE"], &rows);
    let behind: Vec<&str> =
        status["behind_first"].as_array().into_iter().flatten().filter_map(Value::as_str).take(5).collect();
    let count = status["behind"].as_u64().unwrap_or_default();
    if count > 0 {
        let more = if count > behind.len() as u64 { ", …" } else { "" };
        all.push_str(&format!("waiting for {count}: {}{more}\n", behind.join(", ")));
    }
    all
}

fn name(root: &Value) -> String {
    format!("root/{}", text(root, "fingerprint"))
}
