//! The command line: what is measured and how often. Parsed once; decides nothing else.

use std::path::PathBuf;

use anyhow::bail;

use crate::contenders::{Contender, Place};
use crate::measures::Measure;

/// Pairs of a full run: even, so that both directions of the order weigh the same.
const PAIRS: usize = 6;
/// Pairs of a quick run.
const PAIRS_QUICK: usize = 2;

/// Measures Ambit against no mesh and against HAProxy as two plain TCP hops, in the lab's topology.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cargo bench -p ambit-benches --")]
pub(crate) struct Options {
    /// What to measure, all if empty: bulk, bulk-1, bulk-4, connections, requests, requests-1, requests-128,
    /// memory; cross-node, same-node; no-mesh, haproxy, ambit, ambit-hbone. Words of one kind add up
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
    /// How long memory settles before it is read (default 30; 5 with --quick)
    #[arg(long)]
    settle: Option<u64>,
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

impl Options {
    /// Runs of each contender, at least 1.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.quick { PAIRS_QUICK } else { PAIRS }).max(1)
    }

    /// Seconds of a run, at least 1.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// Idle connections of the memory measure.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or(if self.quick { 1000 } else { 5000 }).max(1)
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

    /// Folder for the bench's own files, inside the target folder.
    pub(crate) fn folder() -> anyhow::Result<PathBuf> {
        let profile = own_profile()?;
        Ok(profile.parent().unwrap_or(&profile).join("bench"))
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

/// Reads the filter words; words of one kind add up, a kind without a word is not filtered.
///
/// # Errors
/// Names the words there are, if one is none of them.
pub(crate) fn select(words: &[String]) -> anyhow::Result<Selection> {
    let (mut measures, mut places, mut contenders) = (Vec::new(), Vec::new(), Vec::new());
    for word in words {
        let begins = |m: &&Measure| m.name() == word || m.name().split_once('-').is_some_and(|n| n.0 == word);
        let found = Measure::ALL.iter().filter(begins).copied();
        let before = measures.len() + places.len() + contenders.len();
        measures.extend(found);
        places.extend(Place::ALL.iter().filter(|p| p.name() == word));
        contenders.extend(Contender::ALL.iter().filter(|c| c.name() == word));
        if measures.len() + places.len() + contenders.len() == before {
            let mut known: Vec<&str> = vec!["bulk", "requests"];
            known.extend(Measure::ALL.iter().map(|m| m.name()));
            known.extend(Place::ALL.iter().map(|p| p.name()));
            known.extend(Contender::ALL.iter().map(|c| c.name()));
            bail!("{word:?} is nothing to measure; there are: {}", known.join(", "));
        }
    }
    Ok(Selection {
        measures: in_order(&Measure::ALL, &measures),
        places: in_order(&Place::ALL, &places),
        contenders: in_order(&Contender::ALL, &contenders),
    })
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
            let got = select(&words).expect(line);
            let counts = (got.measures.len(), got.places.len(), got.contenders.len());
            assert_eq!(counts, (measures, places, contenders), "{line}");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_those_there_are() {
        let error = select(&["bluk".to_owned()]).expect_err("no such word").to_string();
        assert!(
            error.contains("\"bluk\"") && error.contains("bulk-4") && error.contains("same-node"),
            "{error}"
        );
    }
}
