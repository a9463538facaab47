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
/// Target of the tests in namespaces; those of its module `kube` need a real API server.
const NETNS: &str = "netns";
/// Those tests, by what their names begin with.
const SERVED: &str = "kube::";
/// Says to the tests of the mesh that their labs keep objects in a real API server, changed by `kubectl`.
const LAB_SOURCE: (&str, &str) = ("AMBIT_LAB_SOURCE", "kube");

/// Tests of the mesh that are run again over a real API server. One that does not exist is no error to cargo, so a test
/// of this file looks for each.
const AGAIN: [&str; 8] = [
    "enrol::a_label_moves_new_connections_into_the_mesh_dual_stack",
    "policy::the_policy_table_holds_over_ipv6",
    "cuts::a_new_denial_cuts_live_connections",
    "cuts::strict_cuts_live_plaintext",
    "cuts::a_new_label_puts_live_connections_under_a_policy",
    "strict::strict_refuses_plaintext_and_admits_probes_dual_stack",
    "outage::traffic_goes_on_without_control_plane_and_changes_follow_its_return",
    "waypoint::tables::authorization::the_policy_table_holds_through_a_waypoint",
];
/// What a soak runs again beside those.
const AGAIN_IN_FULL: [&str; 8] = [
    "waypoint::tables::routes::every_routing_table_holds_through_a_waypoint",
    "enrol::a_label_moves_new_connections_into_the_mesh_ipv4",
    "enrol::a_label_moves_new_connections_into_the_mesh_ipv6",
    "policy::the_policy_table_holds_for_real_connections",
    "strict::strict_refuses_plaintext_and_admits_probes_ipv4",
    "strict::strict_refuses_plaintext_and_admits_probes_ipv6",
    "certificates::a_token_of_a_node_is_worth_nothing_elsewhere",
    "waypoint::tables::tokens::the_token_table_holds_through_a_waypoint",
];

/// One call of cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// A variable that its tests have beside those of every level.
    pub(crate) variable: Option<(&'static str, &'static str)>,
}

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
    pub(crate) fn calls(&self, level: Level, soak: bool) -> Vec<Call> {
        match level {
            Level::Fmt | Level::Clippy | Level::Tidy | Level::Build => Vec::new(),
            Level::Unit => {
                let others = self.names.iter().filter(|name| !is_level(name) && *name != SOAK);
                let selected = others.flat_map(|name| ["--test".to_owned(), name.clone()]);
                let code = ["--lib".to_owned(), "--bins".to_owned()].into_iter().chain(selected);
                vec![call(code), call(["--doc".to_owned()])]
            }
            Level::Pipeline if soak => {
                let optimized = |mut call: Call| {
                    call.arguments.push("--release".to_owned());
                    call
                };
                self.named(&[&level.to_string()]).into_iter().map(optimized).collect()
            }
            Level::Pipeline | Level::Loopback | Level::Foreign => self.named(&[&level.to_string()]),
            Level::Netns => {
                let further = soak.then_some(SOAK);
                let mut own = self.named(&[NETNS]);
                own.iter_mut().for_each(|call| call.tests(&["--skip", SERVED]));
                own.extend(self.named(&IN_NAMESPACES.into_iter().chain(further).collect::<Vec<_>>()));
                own
            }
            Level::Kube => {
                let (mut own, mut again) = (self.named(&[NETNS]), self.named(&[NETNS]));
                own.iter_mut().for_each(|call| call.tests(&[SERVED]));
                let full: &[&str] = if soak { &AGAIN_IN_FULL } else { &[] };
                for call in &mut again {
                    call.tests(&[&["--exact"][..], &AGAIN, full].concat());
                    call.variable = Some(LAB_SOURCE);
                }
                own.extend(again);
                own
            }
        }
    }

    fn named(&self, wanted: &[&str]) -> Vec<Call> {
        let present = wanted.iter().filter(|name| self.names.contains(**name));
        present.map(|name| call(["--test".to_owned(), (*name).to_owned()])).collect()
    }
}

impl Call {
    /// Picks tests by what their own program is told.
    fn tests(&mut self, told: &[&str]) {
        self.arguments.push("--".to_owned());
        self.arguments.extend(told.iter().map(|word| (*word).to_owned()));
    }
}

fn is_level(name: &str) -> bool {
    IN_NAMESPACES.contains(&name)
        || [Level::Pipeline, Level::Loopback, Level::Foreign, Level::Netns]
            .iter()
            .any(|level| level.to_string() == name)
}

fn call(selection: impl IntoIterator<Item = String>) -> Call {
    let fixed = ["test", "--workspace", "--no-fail-fast", "--locked"].map(str::to_owned);
    Call { arguments: fixed.into_iter().chain(selection).collect(), variable: None }
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
        let got: Vec<String> = calls.iter().map(|call| call.arguments[4..].join(" ")).collect();
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
        let want = ["--test netns -- --skip kube::", "--test program", "--test reconcile"];
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
        check(&["netns", "soak"], Level::Netns, false, &["--test netns -- --skip kube::"]);
        let want = ["--test netns -- --skip kube::", "--test soak"];
        check(&["netns", "soak"], Level::Netns, true, &want);
    }

    #[test]
    fn tests_over_an_api_server_are_a_level_of_their_own_and_soak_runs_more_of_them_again() {
        let calls = |soak| targets(&["netns", "program"]).calls(Level::Kube, soak);
        let (short, full) = (calls(false), calls(true));
        assert_eq!(short[0].arguments[4..].join(" "), "--test netns -- kube::");
        assert_eq!(short[0].variable, None);
        assert_eq!(short[1].variable, Some(LAB_SOURCE));
        let named = |calls: &[Call]| calls[1].arguments.iter().filter(|word| word.contains("::")).count();
        assert_eq!((named(&short), named(&full)), (AGAIN.len(), AGAIN.len() + AGAIN_IN_FULL.len()));
    }

    #[test]
    fn every_test_that_is_run_again_exists() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/netns");
        for name in AGAIN.iter().chain(&AGAIN_IN_FULL) {
            let (module, test) = name.rsplit_once("::").expect("a module and a test");
            let file = folder.join(module.replace("::", "/")).with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            assert!(text.contains(&format!("fn {test}()")), "{} has no test {test}", file.display());
        }
    }
}
