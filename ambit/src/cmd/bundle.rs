//! `ambit support-bundle`: one archive with what is needed to help somebody whose mesh misbehaves, and no secret in it.
//!
//! Gathered and redacted first, packed, and then looked through for key material before it gets its name:
//! an archive in which anything is found never exists under a name. The index in it lists what could not be had.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_lab::{LabName, RunDir};
use ambit_runtime::clock;
use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::form::{FORMS, Form, List};
use super::install::cluster::At;
use super::nodes::{block_on, cell, text};
use crate::out::{self, Failure};

mod archive;
mod cluster;
mod find;
mod gather;
mod lab;
mod redact;
mod scan;

use gather::{Gathered, OBJECTS, TOTAL_BYTES_MAX};
use scan::Known;

/// Gaps that are told one by one; the index has all of them.
const TOLD_MAX: usize = 5;

/// Collects versions, state, flow records, metrics, logs and objects into one archive without secrets; exit code 1 if
/// one is found in it all the same, and then there is no archive.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How far back flow records, and in a cluster logs, go; at most as far as they are kept
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Leave every secret in, and look for none: only for whoever may have them all
    #[arg(long)]
    full_secrets: bool,
    /// The archive [default: ambit-bundle-TIME.tar.gz, here]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// The lab it is about; unset: the cluster of --kubeconfig or KUBECONFIG, else the lab named `lab` if it is up, else
    /// the cluster of ~/.kube/config
    #[arg(long, visible_alias = "name", env = "AMBIT_LAB")]
    lab: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

impl Args {
    /// The lab that the command is about; none if it is about a cluster.
    pub(super) fn lab(&self) -> Option<&LabName> {
        if self.lab.is_some() {
            return self.lab.as_ref();
        }
        let is_up = || RunDir::of(&self.usual).root().exists();
        (!self.at.is_named() && is_up()).then_some(&self.usual)
    }
}

/// Runs the command.
///
/// # Errors
/// When there is nobody to ask, the archive cannot be written, or a secret was found in it.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let made = clock::wall();
    let name = name(made);
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    archive::check_free(&to).map_err(failed)?;
    if args.full_secrets {
        out::say(
            "WARNING: --full-secrets: keys, tokens and passwords stay in the archive, and nobody looks for them",
        );
    }
    let mut all = Gathered::new(TOTAL_BYTES_MAX, !args.full_secrets);
    let of = gather(args, &mut all)?;
    all.close(&of, made);
    let seconds = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut packed = archive::pack(&to, &name, seconds, all.files()).map_err(failed)?;
    if !args.full_secrets {
        look_through(&mut packed, args.lab(), &to)?;
    }
    archive::keep(packed, &to).map_err(failed)?;
    show(args, &all, &to)
}

/// Gathers; what it was gathered of.
fn gather(args: &Args, all: &mut Gathered) -> anyhow::Result<String> {
    block_on(async {
        match args.lab() {
            Some(lab) => {
                lab::gather(all, lab, args.since).await?;
                Ok(format!("lab {lab}"))
            }
            None => {
                let client = args.at.connect().await?;
                cluster::gather(all, &client, args.since).await?;
                Ok("cluster".to_owned())
            }
        }
    })
}

/// Refuses an archive with key material in it; it is gone then.
fn look_through(packed: &mut NamedTempFile, lab: Option<&LabName>, to: &Path) -> anyhow::Result<()> {
    let known = lab.map(|lab| Known::below(RunDir::of(lab).root())).unwrap_or_default();
    let found = scan::scan(packed.as_file_mut(), &known)
        .map_err(|error| failed(anyhow::Error::new(error).context("looking for secrets in the archive")))?;
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.iter().map(|one| format!("{}: {}", one.file, one.kind)).collect();
    let text = format!(
        "secrets were found, so {} was not kept:\n  {}\ntake them out at their source, or give the whole with \
         --full-secrets to somebody who may have them",
        to.display(),
        lines.join("\n  ")
    );
    Err(Failure::new(out::FAILED, text).into())
}

/// What goes wrong with the archive is a failed operation, and no mesh out of reach.
fn failed(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Failure::new(out::FAILED, format!("{:#}", error.into())).into()
}

/// Name of the archive without its ending, and of the folder in it: `ambit-bundle-20260102T030405Z`.
fn name(made: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(made).to_string();
    format!("ambit-bundle-{}", time.replace(['-', ':'], ""))
}

fn show(args: &Args, all: &Gathered, to: &Path) -> anyhow::Result<i32> {
    let bytes = to.metadata().with_context(|| format!("looking at {}", to.display()))?.len();
    let item = json!({
        "path": to.to_string_lossy(),
        "bytes": bytes,
        "files": all.count(),
        "secrets": if args.full_secrets { "all" } else { "redacted" },
        "redactions": all.redactions(),
        "missing": all.missing(),
    });
    let list = List { kind: "SupportBundleList", items: vec![item] };
    list.print(&args.output, table, |item| format!("supportbundle/{}", text(item, "path")));
    let missing = all.missing();
    let more = missing.len().saturating_sub(TOLD_MAX);
    for one in missing.iter().take(TOLD_MAX) {
        out::say(&format!("not in it: {}: {}", text(one, "what"), text(one, "why")));
    }
    if more > 0 {
        out::say(&format!("not in it: {more} more, which its {} lists", gather::INDEX));
    }
    out::say("read it before you send it: names, addresses and policies of your mesh are in it");
    Ok(out::OK)
}

/// The path alone, so that a script has it without further ado; more when somebody asks.
pub(super) fn table(items: &[Value], wide: bool) -> String {
    const KEYS: [&str; 5] = ["path", "bytes", "files", "secrets", "redactions"];
    if !wide {
        return items.iter().map(|item| text(item, "path")).collect::<Vec<_>>().join("\n");
    }
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| KEYS.iter().map(|key| cell(item, key)).collect()).collect();
    out::table(&["PATH", "BYTES", "FILES", "SECRETS", "REDACTIONS"], &rows)
}

/// The objects that an archive holds, for commands that judge them without a mesh.
///
/// # Errors
/// When the file is no such archive.
pub(super) fn objects_of(file: &Path) -> anyhow::Result<Vec<Value>> {
    let bad = |why: String| Failure::new(out::BAD_DATA, format!("{}: {why}", file.display()));
    let read =
        archive::one(file, OBJECTS).map_err(|error| bad(format!("{:#}", anyhow::Error::new(error))))?;
    let content = read.ok_or_else(|| bad(format!("no support bundle: it has no {OBJECTS}")))?;
    let mut list: Value =
        serde_json::from_slice(&content).map_err(|error| bad(format!("{OBJECTS}: {error}")))?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(bad(format!("{OBJECTS} is no list")).into())
        }
    }
}

/// When an archive was made; none if its index does not tell.
pub(super) fn made(file: &Path) -> Option<SystemTime> {
    let content = archive::one(file, gather::INDEX).ok()??;
    let index: Value = serde_json::from_slice(&content).ok()?;
    humantime::parse_rfc3339(index["made"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_by_its_time() {
        let made = humantime::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(name(made), "ambit-bundle-20260102T030405Z");
    }

    #[test]
    fn an_archive_says_when_it_was_made() {
        let folder = tempfile::TempDir::new().unwrap();
        let rows = [
            (r#"{"made": "1970-01-01T00:00:07Z"}"#, Some(UNIX_EPOCH + Duration::from_secs(7))),
            (r#"{"made": "soon"}"#, None),
            ("{}", None),
            ("", None),
        ];
        for (number, (index, want)) in rows.into_iter().enumerate() {
            let to = folder.path().join(format!("{number}.tar.gz"));
            let files = [(gather::INDEX, index.as_bytes())];
            archive::keep(archive::pack(&to, "a", 0, files.into_iter()).unwrap(), &to).unwrap();
            assert_eq!(made(&to), want, "{index}");
        }
        assert_eq!(made(&folder.path().join("b.tar.gz")), None);
    }

    #[test]
    fn objects_are_read_back_and_nothing_else_is_an_archive() {
        let folder = tempfile::TempDir::new().unwrap();
        let to = folder.path().join("a.tar.gz");
        let list = br#"{"items": [{"kind": "Pod"}]}"#;
        let files = [("objects.json", &list[..])];
        archive::keep(archive::pack(&to, "a", 0, files.into_iter()).unwrap(), &to).unwrap();
        assert_eq!(objects_of(&to).unwrap(), [json!({"kind": "Pod"})]);
        let other = folder.path().join("b.tar.gz");
        let files = [("index.json", &b"{}"[..])];
        archive::keep(archive::pack(&other, "a", 0, files.into_iter()).unwrap(), &other).unwrap();
        std::fs::write(folder.path().join("c.tar.gz"), "text").unwrap();
        for bad in ["b.tar.gz", "c.tar.gz", "d.tar.gz"] {
            let error = objects_of(&folder.path().join(bad)).unwrap_err();
            assert_eq!(
                error.downcast_ref::<Failure>().map(|failure| failure.code),
                Some(out::BAD_DATA),
                "{bad}"
            );
        }
    }
}
