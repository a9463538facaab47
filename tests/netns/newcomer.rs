//! A newcomer's path as a script: after the tour, from the refused edge to the policy that lets it in, under ten
//! commands, each of which says what comes next.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Lab, ambit};

/// Longest time a warm tour may take.
const TOUR: Duration = Duration::from_secs(120);

#[test]
fn a_newcomer_gets_from_a_refusal_to_the_rule_that_ends_it() {
    let Some(lab) = Lab::adopt("newcomer") else { return };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let folder = demo.display().to_string();
    let tour = lab.start(&["demo", "--keep", "--name", lab.name(), "--folder", &folder]).finish(TOUR);
    assert_eq!(tour.code, Some(0), "stdout: {}\nstderr: {}", tour.stdout, tour.stderr);
    let script = Command::new("sh")
        .arg(demo.join("newcomer.sh"))
        .env("AMBIT", ambit())
        .env("LAB", lab.name())
        .env_remove("AMBIT_LAB")
        .output()
        .expect("a shell");
    let (said, told) = (String::from_utf8_lossy(&script.stdout), String::from_utf8_lossy(&script.stderr));
    assert!(script.status.success(), "{said}\n{told}");
    let commands = said.lines().filter(|line| line.starts_with("$ ")).count() + 1;
    assert!(commands < 10, "{commands} commands:\n{said}");
    let down = lab.lab(&["down"]);
    assert_eq!(lab.left(), Vec::<String>::new(), "{down:?}");
}
