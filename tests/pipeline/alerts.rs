//! The rules for Prometheus, held by its own tool: they are well-formed, and each alert fires in its scenario and in no
//! other one.

use std::path::Path;
use std::process::Command;

use ambit_tests::peers;

#[test]
fn rules_are_well_formed_and_each_alert_fires_in_its_scenario_alone() {
    if Command::new("promtool").arg("--version").output().is_err() {
        peers::not_run("promtool is missing; install it with: xtask/need.sh test");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts");
    for call in [["check", "rules", "ambit.rules.yaml"], ["test", "rules", "ambit.test.yaml"]] {
        let ran = Command::new("promtool").args(call).current_dir(&folder).output();
        let ran = ran.expect("promtool can be run");
        let told = [ran.stdout, ran.stderr].concat();
        assert!(ran.status.success(), "{call:?}: {}", String::from_utf8_lossy(&told));
    }
}

#[test]
fn every_alert_has_a_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the repository");
    let (rules, scenarios) = (read("ambit.rules.yaml"), read("ambit.test.yaml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        assert!(scenarios.contains(&format!("alertname=\"{alert}\"")), "{alert} fires in no scenario");
    }
}
