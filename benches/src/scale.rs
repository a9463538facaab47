//! What the benchmark of the control plane in a large mesh is asked, and how its results are told.
//!
//! It is a program of its own, since it links what speaks to the control plane, which this library does not.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use serde_json::{Value, json};

use crate::cpu::Usage;
use crate::options::{self, Options};
use crate::out;

/// Raised when a reader of older files would misunderstand newer ones.
const VERSION: u32 = 1;

/// Where the objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In a folder of manifests.
    Folder,
    /// On an API server.
    Kube,
}

/// What the simulated proxies subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Their own node and some services.
    OnDemand,
    /// The whole mesh.
    Wildcard,
}

impl Source {
    /// Both, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Folder, Self::Kube];

    /// The word that asks for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Folder => "scale-folder",
            Self::Kube => "scale-kube",
        }
    }
}

impl Mode {
    /// Both, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::OnDemand, Self::Wildcard];

    /// The word that asks for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Wildcard => "wildcard",
        }
    }
}

/// Sources and modes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub sources: Vec<Source>,
    pub modes: Vec<Mode>,
}

/// Words that ask for it or a part of it.
pub(crate) fn words() -> Vec<&'static str> {
    Source::ALL.iter().map(|s| s.word()).chain(Mode::ALL.iter().map(|m| m.word())).collect()
}

/// Reads such words. The API server is used only where it is named: filling it takes minutes.
pub(crate) fn select(words: &[&str]) -> Selection {
    let named = |source: &Source| words.contains(&source.word());
    let mut sources: Vec<Source> = Source::ALL.into_iter().filter(named).collect();
    if sources.is_empty() {
        sources.push(Source::Folder);
    }
    let wanted = |mode: &Mode| words.contains(&mode.word());
    let mut modes: Vec<Mode> = Mode::ALL.into_iter().filter(wanted).collect();
    if modes.is_empty() {
        modes.extend(Mode::ALL);
    }
    Selection { sources, modes }
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Sources, one after the other.
    pub sources: Vec<Source>,
    /// Modes, one after the other for each source, each with a control plane of its own.
    pub modes: Vec<Mode>,
    /// Pods behind services; at least as many as services.
    pub pods: usize,
    /// Services, at least 1.
    pub services: usize,
    /// Nodes, and proxies on demand, at least 1.
    pub clients: usize,
    /// Proxies that want the whole mesh, at most as many as nodes.
    pub wildcard_clients: usize,
    /// Single changes that are timed.
    pub changes: usize,
    /// How long pods keep changing.
    pub churn: Duration,
    /// How long memory settles before it is read.
    pub settle: Duration,
    /// The program `istiod-lite`.
    pub istiod: PathBuf,
    /// The program with the parts of Kubernetes.
    pub kube: PathBuf,
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name for machines.
    pub name: &'static str,
    /// Its name for people.
    pub title: String,
    /// Its value.
    pub value: f64,
    /// The unit, such as `MiB`.
    pub unit: &'static str,
    /// What it is for each object, or what is aimed at; may be empty.
    pub note: String,
}

/// What one source came to in one mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The source.
    pub source: Source,
    /// The mode.
    pub mode: Mode,
    /// Its numbers in the order in which they are told.
    pub rows: Vec<Row>,
    /// What did not hold and has nothing to do with speed, such as a change that reached a proxy it is not for.
    pub faults: Vec<String>,
}

/// Who measures; is given a function that says something to a person.
pub type Measure = fn(&Scale, fn(&str)) -> anyhow::Result<Vec<Run>>;

/// Reads the command line, and has `measure` measure if this part was asked for.
#[must_use]
pub fn run(measure: Measure) -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        return ExitCode::SUCCESS;
    }
    match all(&options, measure) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            out::say(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn all(options: &Options, measure: Measure) -> anyhow::Result<bool> {
    let Some(selection) = options::parts(&options.filters)?.scale else { return Ok(true) };
    let asked = options.scale(selection)?;
    let folder = Options::folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let runs = measure(&asked, out::say)?;
    let file = folder.join("scale.json");
    fs::write(&file, format!("{:#}\n", json(&asked, &runs)))
        .with_context(|| format!("writing {}", file.display()))?;
    out::data(&text(&asked, &runs));
    out::data(&format!("all of it: {}", file.display()));
    Ok(runs.iter().all(|run| run.faults.is_empty()))
}

/// CPU-seconds that a process has used so far, user and system.
///
/// # Errors
/// If it is gone.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    Ok(Usage::now(&[pid])?.proxies)
}

fn text(asked: &Scale, runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let Scale { pods, services, clients, .. } = asked;
        let mut lines = vec![vec![format!(
            "{}, {}: {pods} pods, {services} services, {clients} nodes",
            run.source.word(),
            run.mode.word()
        )]];
        let shown = |row: &Row| {
            let value = format!("{} {}", crate::table::number(row.value), row.unit);
            vec![format!("  {}", row.title), value, row.note.clone()]
        };
        lines.extend(run.rows.iter().map(shown));
        // The head is no column.
        let head = lines.remove(0).concat();
        text.push_str(&format!("{head}\n{}", crate::table::aligned(&lines)));
        for fault in &run.faults {
            text.push_str(&format!("  FAULT: {fault}\n"));
        }
        text.push('\n');
    }
    text
}

fn json(asked: &Scale, runs: &[Run]) -> Value {
    let row = |row: &Row| json!({"name": row.name, "value": row.value, "unit": row.unit, "note": row.note});
    let run = |run: &Run| {
        json!({
            "source": run.source.word(), "mode": run.mode.word(), "faults": run.faults,
            "rows": run.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    json!({
        "version": VERSION,
        "settings": {
            "pods": asked.pods, "services": asked.services, "clients": asked.clients,
            "wildcardClients": asked.wildcard_clients, "changes": asked.changes,
            "churnSeconds": asked.churn.as_secs(), "settleSeconds": asked.settle.as_secs(),
        },
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_used_only_where_it_is_named() {
        let cases: [(&[&str], &[Source], &[Mode]); 3] = [
            (&[], &[Source::Folder], &Mode::ALL),
            (&["wildcard"], &[Source::Folder], &[Mode::Wildcard]),
            (&["scale-kube", "on-demand"], &[Source::Kube], &[Mode::OnDemand]),
        ];
        for (words, sources, modes) in cases {
            let got = select(words);
            assert_eq!((&*got.sources, &*got.modes), (sources, modes), "{words:?}");
        }
    }

    #[test]
    fn a_fault_is_told_with_the_numbers() {
        let row = Row {
            name: "rss_loaded",
            title: "memory".to_owned(),
            value: 70.0,
            unit: "MiB",
            note: "1.0 KiB a pod".to_owned(),
        };
        let faults = vec!["a change reached too many".to_owned()];
        let run = Run { source: Source::Folder, mode: Mode::OnDemand, rows: vec![row], faults };
        let asked = Scale {
            sources: vec![Source::Folder],
            modes: vec![Mode::OnDemand],
            pods: 50,
            services: 5,
            clients: 1,
            wildcard_clients: 1,
            changes: 1,
            churn: Duration::from_secs(1),
            settle: Duration::ZERO,
            istiod: PathBuf::new(),
            kube: PathBuf::new(),
        };
        let text = text(&asked, &[run]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "scale-folder, on-demand: 50 pods, 5 services, 1 nodes");
        assert_eq!(lines[1], "  memory  70.0 MiB  1.0 KiB a pod");
        assert_eq!(lines[2], "  FAULT: a change reached too many");
    }
}
