//! Installing into directories, while others write there too.

use std::os::unix::fs::symlink;

use ambit_runtime::readiness::Readiness;

use super::*;

const LIST: &str = "{\"name\":\"n\",\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"bridge\"}]}\n";

struct World {
    dir: tempfile::TempDir,
    installer: Installer,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for directory in ["bin", "net.d"] {
        fs::create_dir(path(directory)).unwrap();
    }
    fs::write(path("program"), "the program").unwrap();
    let entry = Entry {
        kind: PLUGIN_TYPE.to_owned(),
        socket: "/run/a.sock".to_owned(),
        exclude_namespaces: Vec::new(),
        agent_namespace: None,
    };
    let installer = Installer {
        bin_dir: path("bin"),
        conf_dir: path("net.d"),
        only: None,
        program: path("program"),
        entry,
    };
    World { dir, installer }
}

impl World {
    fn put(&self, name: &str, text: &str) {
        fs::write(self.installer.conf_dir.join(name), text).unwrap();
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.installer.conf_dir.join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let list = |directory: &Path| -> Vec<String> {
            let entries = fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut names = [list(&self.installer.conf_dir), list(&self.installer.bin_dir)].concat();
        names.sort();
        names
    }
}

#[test]
fn it_is_put_in_place_kept_and_taken_out_without_trace() {
    let world = world();
    let looked = world.installer.repair().unwrap();
    assert_eq!((looked.primary, looked.changed), (None, false), "nothing to put it into yet");
    world.put("10-a.conflist", LIST);
    fs::set_permissions(world.installer.conf_dir.join("10-a.conflist"), fs::Permissions::from_mode(0o640))
        .unwrap();
    symlink("/nowhere", world.installer.conf_dir.join("05-dangling.conf")).unwrap();
    fs::create_dir(world.installer.conf_dir.join("06-directory.conf")).unwrap();
    let looked = world.installer.repair().unwrap();
    assert_eq!((looked.primary.as_deref(), looked.changed), (Some("10-a.conflist"), true));
    assert!(world.get("10-a.conflist").contains("\"ambit-cni\""));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.installer.conf_dir.join("10-a.conflist")), 0o640, "as it was");
    let binary = world.installer.bin_dir.join(PLUGIN_TYPE);
    assert_eq!((fs::read_to_string(&binary).unwrap().as_str(), mode(binary.clone())), ("the program", 0o755));
    assert!(!world.installer.repair().unwrap().changed);
    // A new version of the program.
    fs::write(&world.installer.program, "other code!").unwrap();
    world.installer.repair().unwrap();
    assert_eq!(fs::read_to_string(&binary).unwrap(), "other code!");
    world.put(".ambit-new-10-a.conflist", "half");
    world.installer.remove().unwrap();
    world.installer.remove().unwrap();
    assert_eq!(world.get("10-a.conflist"), LIST);
    assert_eq!(world.names(), ["05-dangling.conf", "06-directory.conf", "10-a.conflist"]);
    drop(world.dir);
}

#[test]
fn a_single_configuration_is_converted_and_restored() {
    let world = world();
    let single = "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\"}";
    world.put("10-a.conf", single);
    world.installer.repair().unwrap();
    assert_eq!(world.names(), ["10-a.conf.ambit-saved", "10-a.conflist", "ambit-cni"]);
    world.installer.remove().unwrap();
    assert_eq!(world.names(), ["10-a.conf"]);
    assert_eq!(world.get("10-a.conf"), single);
}

#[test]
fn a_list_that_is_written_again_gets_our_entry_again() {
    let world = world();
    world.put("10-a.conflist", LIST);
    let (readiness, drain) = (Readiness::new(), Drain::new());
    let following = follow(world.installer.clone(), readiness.part("plugin"), &drain).unwrap();
    readiness.complete();
    let wait = |what: &str, until: &dyn Fn() -> bool| {
        let begun = clock::monotonic();
        while !until() {
            assert!(clock::monotonic().duration_since(begun) < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let is_in = || world.get("10-a.conflist").contains(PLUGIN_TYPE);
    wait("the first writing", &is_in);
    wait("readiness", &|| readiness.pending().is_empty());
    world.put("10-a.conflist", LIST);
    wait("the repair", &is_in);
    fs::remove_file(world.installer.bin_dir.join(PLUGIN_TYPE)).unwrap();
    wait("the binary's repair", &|| world.installer.bin_dir.join(PLUGIN_TYPE).exists());
    fs::remove_file(world.installer.conf_dir.join("10-a.conflist")).unwrap();
    wait("not ready without a configuration", &|| !readiness.pending().is_empty());
    drain.begin();
    following.stop();
    following.stop();
}

#[test]
fn whoever_undoes_our_changes_is_not_fought_without_pause() {
    let mut contest = Contest::default();
    let seconds = Duration::from_secs;
    assert!([0, 1, 2].iter().all(|at| contest.note(seconds(*at)).is_none()));
    assert_eq!(contest.note(seconds(3)), Some(seconds(2)));
    assert_eq!(contest.note(seconds(6)), Some(seconds(4)));
    for at in [10, 20, 30, 40] {
        assert!(contest.note(seconds(at)).is_some());
    }
    assert_eq!(contest.note(seconds(50)), Some(seconds(30)), "never longer");
    assert_eq!(contest.note(seconds(500)), None, "it is over");
}
