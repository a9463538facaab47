//! The demo: every claim of the tour is observed, and whatever ends it early leaves a machine that one command cleans.

use std::path::Path;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, wait_until};
use nix::sys::signal::Signal;

/// Longest time a warm tour may take.
const TOUR: Duration = Duration::from_secs(90);

/// Starts the tour of the repository's own folder.
fn begin(lab: &Lab) -> Background {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").display().to_string();
    lab.start(&["demo", "--name", lab.name(), "--folder", &folder])
}

/// Starts the tour and waits until it says `word`.
#[track_caller]
fn begin_until(lab: &Lab, word: &str) -> Background {
    let mut tour = begin(lab);
    wait_until(word, TOUR, || {
        assert!(tour.is_running(), "the tour ended early: {}\n{}", tour.stdout(), tour.stderr());
        tour.stdout().contains(word)
    });
    tour
}

#[test]
fn every_claim_of_the_tour_is_observed() {
    let Some(lab) = Lab::adopt("demo") else { return };
    let before = lab.machine();
    let tour = begin(&lab).finish(TOUR);
    assert_eq!(tour.code, Some(0), "stdout: {}\nstderr: {}", tour.stdout, tour.stderr);
    let table = tour.stdout.split("CLAIM ").nth(1).expect("a table at the end");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.contains("   ")).collect();
    assert!(rows.len() >= 16, "too few claims: {table}");
    for row in rows {
        assert!(row.ends_with(" pass"), "{row}");
    }
    assert_eq!(lab.left(), Vec::<String>::new());
    assert_eq!(lab.changed_since(&before), Vec::<String>::new(), "the machine is not as it was");
}

#[test]
fn a_tour_killed_midway_is_cleaned_up_by_down() {
    let Some(lab) = Lab::adopt("demo-killed") else { return };
    let before = lab.machine();
    let tour = begin_until(&lab, "== who called whom");
    tour.signal(Signal::SIGKILL);
    assert_eq!(tour.finish(Duration::from_secs(100)).code, None, "a signal ended it");
    let _ = lab.lab(&["down"]);
    assert_eq!(lab.left(), Vec::<String>::new());
    assert_eq!(lab.changed_since(&before), Vec::<String>::new(), "the machine is not as it was");
}

#[test]
fn an_interrupted_tour_removes_its_lab() {
    // While the lab is made, and in the middle of a step; as a terminal and as a service manager would.
    let moments =
        [("demo-terminated", "== start", Signal::SIGTERM), ("demo-interrupted", "== enrol", Signal::SIGINT)];
    for (name, word, signal) in moments {
        let Some(lab) = Lab::adopt(name) else { return };
        let tour = begin_until(&lab, word);
        wait_until("there is something to remove", Duration::from_secs(10), || lab.run_dir().exists());
        tour.signal(signal);
        let tour = tour.finish(Duration::from_secs(100));
        assert_eq!(tour.code, Some(130), "{word}: stdout: {}\nstderr: {}", tour.stdout, tour.stderr);
        assert_eq!(lab.left(), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn what_a_kept_tour_prints_runs_as_it_is_typed() {
    let Some(lab) = Lab::adopt("demo-kept") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").display().to_string();
    let tour = lab.start(&["demo", "--keep", "--name", lab.name(), "--folder", &folder]).finish(TOUR);
    assert_eq!(tour.code, Some(0), "stdout: {}\nstderr: {}", tour.stdout, tour.stderr);
    let lines = tour.stdout.split("Try:").nth(1).expect("what to try");
    let commands: Vec<&str> = lines.lines().map(str::trim).take_while(|l| !l.starts_with("CLAIM")).collect();
    let commands: Vec<&str> = commands.into_iter().filter(|l| !l.is_empty()).collect();
    assert!(commands.len() >= 6, "{lines}");
    for command in commands {
        // Nothing of the test's own environment helps: neither the lab's name nor a search path.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).env_remove("AMBIT_LAB").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(lab.left(), Vec::<String>::new(), "the last line takes the lab down");
}
