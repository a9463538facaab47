//! The command line: what is measured and how often. Parsed once; decides nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use crate::contenders::{Contender, Place};
use crate::measures::Measure;
use crate::scale::{self, Scale};
use crate::waypoint;

/// Pairs of a full run: even, so that both directions of the order weigh the same.
const PAIRS: usize = 6;
/// Pairs of a quick run.
const PAIRS_QUICK: usize = 2;

/// Requests a second of the measures at a fixed rate.
const RATE: u32 = 2000;
/// Single changes that are timed in the large mesh.
const CHANGES: usize = 50;
/// The same of a quick run.
const CHANGES_QUICK: usize = 10;
/// The word that asks for the decisions alone; they are a program of their own.
const DECISIONS: &str = "decisions";

/// Measures Ambit against no mesh, HAProxy as two plain TCP hops and Envoy in a waypoint's place, in the lab's topology.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cargo bench -p ambit-benches --")]
pub(crate) struct Options {
    /// What to measure, all if empty. The mesh: bulk, bulk-1, bulk-4, connections, requests, requests-1,
    /// requests-128, memory; cross-node, same-node; no-mesh, haproxy, ambit, ambit-hbone. A waypoint, all of it:
    /// waypoint; or fixed-rate, saturation; http1, http2; routes-1, routes-100, routes-10000; direct, envoy,
    /// envoy-tls, ambit-waypoint. Without a network: decisions. The control plane of a large mesh: scale-folder,
    /// scale-kube (only where it is named); on-demand, wildcard. Words of one kind add up
    pub filters: Vec<String>,
    /// How often each contender runs each measure (default 6; 2 with --quick)
    #[arg(long)]
    pairs: Option<usize>,
    /// How long each run takes (default 5; 2 with --quick)
    #[arg(long)]
    seconds: Option<u64>,
    /// A first impression: fewer and shorter runs
    #[arg(long)]
    quick: bool,
    /// Idle connections of the memory measure (default 5000; 1000 with --quick)
    #[arg(long)]
    connections: Option<usize>,
    /// Requests a second where the rate is fixed (default 2000)
    #[arg(long)]
    rate: Option<u32>,
    /// How long memory settles before it is read (default 30; 5 with --quick)
    #[arg(long)]
    settle: Option<u64>,
    /// Pods of the large mesh (default 50000; 5000 with --quick)
    #[arg(long)]
    pods: Option<usize>,
    /// Services of the large mesh (default 5000; 500 with --quick)
    #[arg(long)]
    services: Option<usize>,
    /// Nodes of the large mesh, each with a simulated proxy on demand (default 1000; 100 with --quick)
    #[arg(long)]
    clients: Option<usize>,
    /// Simulated proxies that want the whole large mesh; each may cost the control plane and this program as much
    /// memory as the mesh has bytes (default 100; 10 with --quick)
    #[arg(long)]
    wildcard_clients: Option<usize>,
    /// How long 1000 pods a minute change in the large mesh, in seconds (default 300; 20 with --quick)
    #[arg(long)]
    churn: Option<u64>,
    /// The program with the parts of Kubernetes, for scale-kube (default: kube/ambit-kube in the target folder)
    #[arg(long, env = "AMBIT_KUBE_BIN")]
    kube: Option<PathBuf>,
    /// Folder of ambit, ztunnel, istiod-lite and ambit-cni (default: the release folder of this build)
    #[arg(long, env = "AMBIT_BENCH_BIN")]
    bin: Option<PathBuf>,
    /// A setting of the lab, as `ambit lab up --set` takes it
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Name of the lab that is made, and removed if it is there
    #[arg(long, default_value = "bench")]
    pub name: String,
    /// Where results go for machines (default: mesh.json in the target folder's `bench`)
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes; without it nothing is measured
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What was asked for, in the order in which it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub measures: Vec<Measure>,
    pub places: Vec<Place>,
    pub contenders: Vec<Contender>,
}

/// What was asked for, by part; none where a part was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub mesh: Option<Selection>,
    pub waypoint: Option<waypoint::Selection>,
    pub decisions: bool,
    pub scale: Option<scale::Selection>,
}

impl Options {
    /// Runs of each contender, at least 1.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.quick { PAIRS_QUICK } else { PAIRS }).max(1)
    }

    /// Whether a first impression is enough.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    /// Seconds of a run, at least 1.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// Idle connections of the memory measure.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or(if self.quick { 1000 } else { 5000 }).max(1)
    }

    /// Requests a second where the rate is fixed, at least 1.
    pub(crate) fn rate(&self) -> u32 {
        self.rate.unwrap_or(RATE).max(1)
    }

    /// Seconds for memory to settle.
    pub(crate) fn settle(&self) -> u64 {
        self.settle.unwrap_or(if self.quick { 5 } else { 30 })
    }

    /// Folder of the programs that are measured.
    pub(crate) fn binaries(&self) -> anyhow::Result<PathBuf> {
        match &self.bin {
            Some(folder) => Ok(std::path::absolute(folder)?),
            None => own_profile(),
        }
    }

    /// What is asked of the large mesh.
    pub(crate) fn scale(&self, selection: scale::Selection) -> anyhow::Result<Scale> {
        let or = |given: Option<usize>, full, quick| given.unwrap_or(if self.quick { quick } else { full });
        let services = or(self.services, 5000, 500).max(1);
        let clients = or(self.clients, 1000, 100).max(1);
        let profile = own_profile()?;
        let kube = || profile.parent().unwrap_or(&profile).join("kube").join("ambit-kube");
        Ok(Scale {
            sources: selection.sources,
            modes: selection.modes,
            pods: or(self.pods, 50_000, 5000).max(services),
            services,
            clients,
            wildcard_clients: or(self.wildcard_clients, 100, 10).clamp(1, clients),
            changes: if self.quick { CHANGES_QUICK } else { CHANGES },
            churn: Duration::from_secs(self.churn.unwrap_or(if self.quick { 20 } else { 300 }).max(1)),
            settle: Duration::from_secs(self.settle()),
            istiod: self.binaries()?.join("istiod-lite"),
            kube: self.kube.clone().unwrap_or_else(kube),
        })
    }

    /// Folder for the bench's own files, inside the target folder.
    pub(crate) fn folder() -> anyhow::Result<PathBuf> {
        let profile = own_profile()?;
        Ok(profile.parent().unwrap_or(&profile).join("bench"))
    }

    /// Envoy's program, where `xtask/need.sh bench` puts it.
    pub(crate) fn envoy() -> anyhow::Result<PathBuf> {
        let profile = own_profile()?;
        Ok(profile.parent().unwrap_or(&profile).join("peers").join("bin").join("envoy"))
    }

    /// Where results go for machines.
    pub(crate) fn json(&self) -> anyhow::Result<PathBuf> {
        self.json.clone().map_or_else(|| Ok(Self::folder()?.join("mesh.json")), Ok)
    }
}

/// The folder of a profile (`target/release`), from the bench's own place in its `deps`.
fn own_profile() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().unwrap_or(&own);
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.to_path_buf())
}

/// Sorts the filter words by part; without any, everything is asked for.
///
/// # Errors
/// Names the words there are, if one is none of them.
pub(crate) fn parts(words: &[String]) -> anyhow::Result<Parts> {
    let (mut mesh, mut of_waypoint, mut decisions) = (Vec::new(), Vec::new(), words.is_empty());
    let mut of_scale = Vec::new();
    for word in words.iter().map(String::as_str) {
        if waypoint::words().contains(&word) {
            of_waypoint.push(word);
        } else if scale::words().contains(&word) {
            of_scale.push(word);
        } else if word == DECISIONS {
            decisions = true;
        } else if is_of_mesh(word) {
            mesh.push(word);
        } else {
            let mut known: Vec<&str> = vec!["bulk", "requests"];
            known.extend(Measure::ALL.iter().map(|m| m.name()));
            known.extend(Place::ALL.iter().map(|p| p.name()));
            known.extend(Contender::ALL.iter().map(|c| c.name()));
            known.extend(waypoint::words());
            known.extend(scale::words());
            known.push(DECISIONS);
            bail!("{word:?} is nothing to measure; there are: {}", known.join(", "));
        }
    }
    let all = words.is_empty();
    Ok(Parts {
        mesh: (all || !mesh.is_empty()).then(|| select(&mesh)),
        waypoint: (all || !of_waypoint.is_empty()).then(|| waypoint::select(&of_waypoint)),
        decisions,
        scale: (all || !of_scale.is_empty()).then(|| scale::select(&of_scale)),
    })
}

fn begins(measure: Measure, word: &str) -> bool {
    measure.name() == word || measure.name().split_once('-').is_some_and(|n| n.0 == word)
}

fn is_of_mesh(word: &str) -> bool {
    Measure::ALL.iter().any(|m| begins(*m, word))
        || Place::ALL.iter().any(|p| p.name() == word)
        || Contender::ALL.iter().any(|c| c.name() == word)
}

/// Reads words of the mesh; words of one kind add up, a kind without a word is not filtered.
fn select(words: &[&str]) -> Selection {
    let (mut measures, mut places, mut contenders) = (Vec::new(), Vec::new(), Vec::new());
    for word in words {
        measures.extend(Measure::ALL.iter().filter(|m| begins(**m, word)).copied());
        places.extend(Place::ALL.iter().filter(|p| p.name() == *word).copied());
        contenders.extend(Contender::ALL.iter().filter(|c| c.name() == *word).copied());
    }
    Selection {
        measures: in_order(&Measure::ALL, &measures),
        places: in_order(&Place::ALL, &places),
        contenders: in_order(&Contender::ALL, &contenders),
    }
}

/// Those of `all` that are wanted, in the order of `all`; all if none is.
fn in_order<T: Copy + PartialEq>(all: &[T], wanted: &[T]) -> Vec<T> {
    all.iter().filter(|one| wanted.is_empty() || wanted.contains(one)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_kind_add_up_and_kinds_narrow_each_other() {
        let cases: [(&str, usize, usize, usize); 6] = [
            ("", 6, 2, 4),
            ("bulk", 2, 2, 4),
            ("bulk-1 connections same-node", 2, 1, 4),
            ("connections bulk-1 bulk", 3, 2, 4),
            ("ambit haproxy requests-128 cross-node", 1, 1, 2),
            ("memory ambit", 1, 2, 1),
        ];
        for (line, measures, places, contenders) in cases {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let got = parts(&words).expect(line).mesh.expect(line);
            let counts = (got.measures.len(), got.places.len(), got.contenders.len());
            assert_eq!(counts, (measures, places, contenders), "{line}");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_those_there_are() {
        let error = parts(&["bluk".to_owned()]).expect_err("no such word").to_string();
        assert!(
            error.contains("\"bluk\"") && error.contains("bulk-4") && error.contains("same-node"),
            "{error}"
        );
    }

    #[test]
    fn words_of_one_part_leave_the_others_out() {
        for (line, wanted) in [
            ("", [true, true, true, true]),
            ("bulk", [true, false, false, false]),
            ("http1 routes-1", [false, true, false, false]),
            ("waypoint decisions", [false, true, true, false]),
            ("scale-folder on-demand", [false, false, false, true]),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let got = parts(&words).expect(line);
            let parts = [got.mesh.is_some(), got.waypoint.is_some(), got.decisions, got.scale.is_some()];
            assert_eq!(parts, wanted, "{line:?}");
        }
    }
}
