//! Which cargo calls make up a level.
//!
//! Every call selects the whole workspace and then targets by name, so that all levels share one resolution of features
//! and nothing is compiled twice. Only a soak compiles for speed as well, where a row has a bound in time.

use std::collections::BTreeSet;

use cargo_metadata::Metadata;

use super::Level;

/// Names of integration test targets in the workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    names: BTreeSet<String>,
}

const SOAK: &str = "soak";

/// Targets that need namespaces although their name is another one: without root they would pass with nothing done.
const IN_NAMESPACES: [&str; 2] = ["program", "reconcile"];

impl Targets {
    /// The integration test targets that cargo knows.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let targets = metadata.workspace_packages().into_iter().flat_map(|package| &package.targets);
        let names = targets.filter(|target| target.is_test()).map(|target| target.name.clone()).collect();
        Self { names }
    }

    /// The arguments of each cargo call of a level; none when there is nothing to call.
    pub(crate) fn calls(&self, level: Level, soak: bool) -> Vec<Vec<String>> {
        match level {
            Level::Fmt | Level::Clippy | Level::Tidy | Level::Build => Vec::new(),
            Level::Unit => {
                let others = self.names.iter().filter(|name| !is_level(name) && *name != SOAK);
                let selected = others.flat_map(|name| ["--test".to_owned(), name.clone()]);
                let code = ["--lib".to_owned(), "--bins".to_owned()].into_iter().chain(selected);
                vec![call(code), call(["--doc".to_owned()])]
            }
            Level::Pipeline if soak => {
                let optimized = |mut call: Vec<String>| {
                    call.push("--release".to_owned());
                    call
                };
                self.named(&[&level.to_string()]).into_iter().map(optimized).collect()
            }
            Level::Pipeline | Level::Loopback | Level::Foreign => self.named(&[&level.to_string()]),
            Level::Netns => {
                let own = level.to_string();
                let further = soak.then_some(SOAK);
                let all = [own.as_str()].into_iter().chain(IN_NAMESPACES).chain(further);
                self.named(&all.collect::<Vec<_>>())
            }
        }
    }

    fn named(&self, wanted: &[&str]) -> Vec<Vec<String>> {
        let present = wanted.iter().filter(|name| self.names.contains(**name));
        present.map(|name| call(["--test".to_owned(), (*name).to_owned()])).collect()
    }
}

fn is_level(name: &str) -> bool {
    IN_NAMESPACES.contains(&name)
        || [Level::Pipeline, Level::Loopback, Level::Foreign, Level::Netns]
            .iter()
            .any(|level| level.to_string() == name)
}

fn call(selection: impl IntoIterator<Item = String>) -> Vec<String> {
    let fixed = ["test", "--workspace", "--no-fail-fast", "--locked"].map(str::to_owned);
    fixed.into_iter().chain(selection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(names: &[&str]) -> Targets {
        Targets { names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[track_caller]
    fn check(names: &[&str], level: Level, soak: bool, want: &[&str]) {
        let calls = targets(names).calls(level, soak);
        let got: Vec<String> = calls.iter().map(|call| call[4..].join(" ")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn unit_runs_everything_that_has_no_level_of_its_own() {
        let names = ["netns", "pipeline", "loopback", "foreign", "soak", "model"];
        check(&names, Level::Unit, false, &["--lib --bins --test model", "--doc"]);
    }

    #[test]
    fn what_needs_namespaces_is_never_run_as_a_unit_test() {
        let names = ["netns", "program", "reconcile", "model"];
        check(&names, Level::Unit, false, &["--lib --bins --test model", "--doc"]);
        let want = ["--test netns", "--test program", "--test reconcile"];
        check(&names, Level::Netns, false, &want);
    }

    #[test]
    fn a_level_without_target_has_nothing_to_call() {
        check(&["pipeline"], Level::Netns, false, &[]);
        check(&["pipeline"], Level::Pipeline, false, &["--test pipeline"]);
    }

    #[test]
    fn soak_measures_the_pipeline_in_an_optimized_build() {
        check(&["netns", "pipeline"], Level::Pipeline, true, &["--test pipeline --release"]);
    }

    #[test]
    fn soak_adds_its_own_target() {
        check(&["netns", "soak"], Level::Netns, false, &["--test netns"]);
        check(&["netns", "soak"], Level::Netns, true, &["--test netns", "--test soak"]);
    }
}
