//! Finding processes in a directory that looks like `/proc`.

use std::os::unix::fs::symlink;

use super::*;

const POD: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";

/// A process as `/proc` shows it; its namespace is ours unless it has none.
fn process(proc: &Path, pid: u32, uid: &str, started: u64, netns: Option<&str>) {
    let directory = proc.join(pid.to_string());
    std::fs::create_dir_all(directory.join("ns")).unwrap();
    std::fs::write(directory.join("cgroup"), format!("0::/kubepods/burstable/pod{uid}/x\n")).unwrap();
    let name = "a ) (odd) name";
    let stat = format!("{pid} ({name}) S {} {started} 0\n", ["1"; 18].join(" "));
    std::fs::write(directory.join("stat"), stat).unwrap();
    if let Some(netns) = netns {
        symlink(netns, directory.join("ns/net")).unwrap();
    }
}

#[test]
fn the_oldest_process_outside_the_nodes_network_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ours = "/proc/self/ns/net";
    process(dir.path(), 40, POD, 900, Some(ours));
    process(dir.path(), 50, POD, 100, Some(ours));
    process(dir.path(), 60, POD, 50, None);
    process(dir.path(), 70, "11111111-2222-3333-4444-555555555555", 10, Some(ours));
    let processes = Processes::new(dir.path());
    let (path, _) = processes.open(POD, &BTreeSet::new()).unwrap().unwrap();
    assert_eq!(path, dir.path().join("50/ns/net"), "the oldest that lives");
    let node = BTreeSet::from([NetNs::current().unwrap().id()]);
    assert!(processes.open(POD, &node).unwrap().is_none(), "all are in the node's network");
    assert!(processes.open("22222222-2222-3333-4444-555555555555", &BTreeSet::new()).unwrap().is_none());
    assert_eq!(processes.pods().len(), 2);
}

#[test]
fn a_number_that_another_process_has_by_now_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    process(dir.path(), 40, POD, 900, Some("/proc/self/ns/net"));
    let processes = Processes::new(dir.path());
    assert!(processes.open(POD, &BTreeSet::new()).unwrap().is_some());
    std::fs::remove_dir_all(dir.path().join("40")).unwrap();
    process(dir.path(), 40, "11111111-2222-3333-4444-555555555555", 950, Some("/proc/self/ns/net"));
    assert!(processes.open(POD, &BTreeSet::new()).unwrap().is_none());
}

#[test]
fn a_directory_without_processes_names_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Processes::new(&dir.path().join("absent")).open(POD, &BTreeSet::new()).unwrap().is_none());
    assert_eq!(start_time("1 (x) S 1 2"), None);
    assert_eq!(start_time("nonsense"), None);
}
