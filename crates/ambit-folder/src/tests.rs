//! Tests on real folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ambit_manifest::{Kind, Located, ObjectKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;
use crate::watch::Watcher;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_is_put_is_loaded_and_what_is_removed_is_gone() {
    let (_dir, folder) = folder();
    assert_eq!(folder.put(&config("a", "1")).unwrap().revision, 1);
    let again = folder.put(&config("a", "1")).unwrap();
    assert!(!again.changed && again.revision == 1, "the same object is not written again");
    assert_eq!(folder.put(&config("a", "2")).unwrap().revision, 2);
    let state = folder.load().unwrap();
    assert_eq!(state.revision, 2);
    assert_eq!(state.objects[&key("a")].value["data"]["k"], "2");
    assert_eq!(folder.object(&key("a")).unwrap().value["data"]["k"], "2");
    assert_eq!(folder.remove(&key("a")).unwrap(), 3);
    assert!(folder.load().unwrap().objects.is_empty());
    assert!(matches!(folder.remove(&key("a")), Err(FolderError::Absent { .. })));
    assert!(matches!(folder.object(&key("a")), Err(FolderError::Absent { .. })));
}

#[test]
fn cluster_wide_objects_have_their_place_too() {
    let (dir, folder) = folder();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    folder.put(&namespace).unwrap();
    assert!(dir.path().join("Namespace/_/shop.yaml").is_file());
    assert!(folder.load().unwrap().objects.contains_key(&ObjectKey::new(Kind::Namespace, None, "shop")));
}

#[test]
fn only_the_owner_may_read() {
    let (dir, folder) = folder();
    folder.put(&config("a", "1")).unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    for path in ["ConfigMap", "ConfigMap/default"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    for path in ["ConfigMap/default/a.yaml", ".lock", ".revision"] {
        assert_eq!(mode(path), 0o600, "{path}");
    }
}

#[test]
fn nothing_is_stored_when_one_of_several_is_refused() {
    let (_dir, folder) = folder();
    let mut broken = config("b", "1");
    broken["dada"] = json!({});
    let refused = folder.put_all(&[config("a", "1"), broken]).unwrap_err();
    assert!(refused.to_string().contains(r#"dada: unknown field, did you mean "data"?"#), "{refused}");
    let twice = folder.put_all(&[config("a", "1"), config("a", "2")]).unwrap_err();
    assert!(twice.to_string().contains("defined twice"), "{twice}");
    let state = folder.load().unwrap();
    assert!(state.objects.is_empty() && state.revision == 0);
    let both = folder.put_all(&[config("a", "1"), config("b", "1")]).unwrap();
    assert!(both.iter().all(|w| w.revision == 1 && w.changed), "one revision for all of them");
}

#[test]
fn a_patch_changes_only_the_object_that_is_meant() {
    let (_dir, folder) = folder();
    let mut value = config("a", "1");
    value["metadata"]["uid"] = json!("u1");
    folder.put(&value).unwrap();
    let patched = folder.patch(&key("a"), Some("u1"), |v| v["data"]["k"] = json!("2")).unwrap();
    assert_eq!((patched.revision, patched.changed), (2, true));
    let idle = folder.patch(&key("a"), None, |_| {}).unwrap();
    assert_eq!((idle.revision, idle.changed), (2, false));
    let replaced = folder.patch(&key("a"), Some("u2"), |v| v["data"]["k"] = json!("3"));
    assert!(matches!(replaced, Err(FolderError::Replaced { .. })));
    let renamed = folder.patch(&key("a"), None, |v| v["metadata"]["name"] = json!("b"));
    assert!(matches!(renamed, Err(FolderError::Renamed { .. })));
    let refused = folder.patch(&key("a"), None, |v| v["data"]["k"] = json!(3));
    assert!(matches!(refused, Err(FolderError::Refused { .. })));
    assert!(matches!(folder.patch(&key("x"), None, |_| {}), Err(FolderError::Absent { .. })));
    assert_eq!(folder.object(&key("a")).unwrap().value["data"]["k"], "2");
}

#[test]
fn a_file_of_people_is_rewritten_only_if_it_holds_one_object() {
    let (dir, folder) = folder();
    fs::write(dir.path().join("one.yml"), yaml("one", "1")).unwrap();
    fs::write(dir.path().join("two.yaml"), format!("{}---\n{}", yaml("two", "1"), yaml("three", "1")))
        .unwrap();
    folder.patch(&key("one"), None, |v| v["data"]["k"] = json!("2")).unwrap();
    assert!(fs::read_to_string(dir.path().join("one.yml")).unwrap().contains('2'));
    assert!(!dir.path().join("ConfigMap").exists(), "the object stays where people put it");
    for refused in [
        folder.patch(&key("two"), None, |v| v["data"]["k"] = json!("2")).map(|_| ()),
        folder.put(&config("two", "2")).map(|_| ()),
        folder.remove(&key("three")).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(FolderError::SharedFile { .. })), "{refused:?}");
    }
    assert_eq!(folder.load().unwrap().objects.len(), 3);
}

#[test]
fn a_broken_file_of_the_store_is_repaired_by_a_put() {
    let (dir, folder) = folder();
    folder.put(&config("a", "1")).unwrap();
    fs::write(dir.path().join("ConfigMap/default/a.yaml"), "kind: [").unwrap();
    assert!(matches!(folder.patch(&key("a"), None, |_| {}), Err(FolderError::Refused { .. })));
    folder.put(&config("a", "1")).unwrap();
    assert!(folder.load().unwrap().problems.is_empty());
}

#[test]
fn names_that_would_leave_the_folder_are_refused() {
    let (_dir, folder) = folder();
    for name in ["../x", "", ".", "..", "a/b", ".hidden"] {
        let refused = folder.remove(&key(name));
        assert!(matches!(refused, Err(FolderError::Name { .. })), "{name:?} {refused:?}");
    }
}

#[test]
fn a_damaged_revision_is_an_error_and_not_a_zero() {
    let (dir, folder) = folder();
    fs::write(dir.path().join(".revision"), "many").unwrap();
    assert!(matches!(folder.put(&config("a", "1")), Err(FolderError::Revision { .. })));
}

#[test]
fn patches_of_many_threads_lose_nothing() {
    let (_dir, folder) = folder();
    folder.put(&config("a", "0")).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| count(&folder)));
        }
    });
    assert_eq!(folder.object(&key("a")).unwrap().value["data"]["k"], "100");
    assert_eq!(folder.revision().unwrap(), 101);
}

/// Runs this test program several times as a process of its own; see `child_that_patches`.
#[test]
fn patches_of_many_processes_lose_nothing() {
    let (dir, folder) = folder();
    folder.put(&config("a", "0")).unwrap();
    let program = std::env::current_exe().unwrap();
    let start = || {
        let mut command = Command::new(&program);
        command.args(["--exact", "tests::child_that_patches"]).env(CHILD_FOLDER, dir.path());
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(folder.object(&key("a")).unwrap().value["data"]["k"], "100");
}

const CHILD_FOLDER: &str = "AMBIT_FOLDER_TEST_CHILD";

#[test]
fn child_that_patches() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test tells its children where to work")]
    let Ok(root) = std::env::var(CHILD_FOLDER) else { return };
    let folder = Folder::open(root).unwrap();
    (0..25).for_each(|_| count(&folder));
}

#[tokio::test]
async fn a_watch_sees_every_write_and_its_revision() {
    let (dir, folder) = folder();
    folder.put(&config("a", "1")).unwrap();
    let (state, mut batches) = watch(dir.path()).unwrap();
    assert_eq!((state.objects.len(), state.revision), (1, 1));
    let written = folder.put(&config("b", "1")).unwrap();
    let seen = until(&mut batches, |b| b.revision >= written.revision).await;
    assert_eq!(names(&seen), ["b"]);
    let written = folder.patch(&key("a"), None, |v| v["data"]["k"] = json!("2")).unwrap();
    let seen = until(&mut batches, |b| b.revision >= written.revision).await;
    assert_eq!(names(&seen), ["a"]);
    let revision = folder.remove(&key("b")).unwrap();
    let seen = until(&mut batches, |b| b.revision >= revision).await;
    assert_eq!(seen.iter().flat_map(|b| &b.removed).collect::<Vec<_>>(), [&key("b")]);
}

#[tokio::test]
async fn the_revision_never_runs_ahead_of_the_objects() {
    let (dir, folder) = folder();
    let (_, mut batches) = watch(dir.path()).unwrap();
    let writer = thread::spawn(move || {
        for n in 1..=200 {
            let name = format!("c{}", n % 7);
            folder.put(&config(&name, &n.to_string())).unwrap();
        }
    });
    let (mut newest, mut revision) = (BTreeMap::new(), 0);
    while revision < 200 {
        let batch = timeout(PATIENCE, batches.recv()).await.unwrap().unwrap();
        for object in &batch.changed {
            let n: u64 = object.value["data"]["k"].as_str().unwrap().parse().unwrap();
            newest.insert(n % 7, n);
        }
        revision = batch.revision;
        for lane in 0..7 {
            // The newest number of this lane that the revision promises.
            let promised = (1..=revision).rev().find(|n| n % 7 == lane).unwrap_or(0);
            let seen = newest.get(&lane).copied().unwrap_or(0);
            assert!(seen >= promised, "revision {revision} promised {promised}, seen {seen}");
        }
    }
    writer.join().unwrap();
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_objects() {
    let (dir, _folder) = folder();
    let file = dir.path().join("shop.yaml");
    drop_in(&file, &format!("{}---\n{}", yaml("a", "1"), yaml("b", "1")));
    let (state, mut batches) = watch(dir.path()).unwrap();
    assert_eq!(state.objects.len(), 2);
    drop_in(&file, &format!("{}---\n{}dada: {{}}\n", yaml("a", "2"), yaml("b", "2")));
    let seen = until(&mut batches, |b| !b.problems.is_empty()).await;
    let last = seen.last().unwrap();
    assert!(seen.iter().all(|b| b.changed.is_empty() && b.removed.is_empty()), "{seen:?}");
    let said = last.problems[0].to_string();
    let place = format!("{}:14:1: ConfigMap default/b: dada: unknown field", file.display());
    assert!(said.starts_with(&place), "{said}");
    drop_in(&file, &yaml("a", "3"));
    let seen = until(&mut batches, |b| b.problems.is_empty()).await;
    assert_eq!(names(&seen), ["a"]);
    assert_eq!(seen.last().unwrap().removed, [key("b")]);
}

#[tokio::test]
async fn the_first_of_two_definitions_stays() {
    let (dir, _folder) = folder();
    drop_in(&dir.path().join("z.yaml"), &yaml("a", "first"));
    let (state, mut batches) = watch(dir.path()).unwrap();
    assert_eq!(state.objects.len(), 1);
    drop_in(&dir.path().join("b.yaml"), &yaml("a", "second"));
    let seen = until(&mut batches, |b| !b.problems.is_empty()).await;
    assert!(names(&seen).is_empty());
    let problem = &seen.last().unwrap().problems[0];
    assert!(problem.location.file.ends_with("b.yaml"), "{problem}");
    assert!(problem.other.as_ref().unwrap().file.ends_with("z.yaml"), "{problem}");
    fs::remove_file(dir.path().join("z.yaml")).unwrap();
    let seen = until(&mut batches, |b| b.problems.is_empty()).await;
    let last = seen.last().unwrap();
    assert_eq!(last.changed[0].value["data"]["k"], "second");
    assert!(last.removed.is_empty());
}

#[tokio::test]
async fn new_folders_moved_folders_and_removed_folders_are_followed() {
    let (dir, _folder) = folder();
    let (_, mut batches) = watch(dir.path()).unwrap();
    fs::create_dir_all(dir.path().join("x/y")).unwrap();
    drop_in(&dir.path().join("x/y/a.yaml"), &yaml("a", "1"));
    assert_eq!(names(&until(&mut batches, |b| !b.changed.is_empty()).await), ["a"]);
    fs::rename(dir.path().join("x"), dir.path().join("z")).unwrap();
    drop_in(&dir.path().join("z/y/b.yaml"), &yaml("b", "1"));
    let seen = until(&mut batches, |b| b.changed.iter().any(|o| o.key == key("b"))).await;
    assert!(seen.iter().all(|b| b.removed.is_empty()), "the moved object never was away");
    fs::remove_dir_all(dir.path().join("z")).unwrap();
    let mut gone = 0;
    let _ = until(&mut batches, |b| {
        gone += b.removed.len();
        gone == 2
    })
    .await;
}

#[tokio::test]
async fn other_files_hidden_files_and_half_written_files_are_left_alone() {
    let (dir, _folder) = folder();
    drop_in(&dir.path().join("notes.txt"), "kind: [");
    fs::create_dir(dir.path().join(".git")).unwrap();
    drop_in(&dir.path().join(".git/x.yaml"), "kind: [");
    let (state, mut batches) = watch(dir.path()).unwrap();
    assert!(state.problems.is_empty());
    let mut half = fs::File::create(dir.path().join("half.yaml")).unwrap();
    std::io::Write::write_all(&mut half, b"kind: [").unwrap();
    drop_in(&dir.path().join("whole.yaml"), &yaml("a", "1"));
    let seen = until(&mut batches, |b| !b.changed.is_empty()).await;
    assert!(seen.last().unwrap().problems.is_empty(), "a file is read when it is closed");
    drop(half);
    let _ = until(&mut batches, |b| !b.problems.is_empty()).await;
}

#[tokio::test]
async fn everything_is_read_again_when_the_folder_was_away() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("objects");
    Folder::open(&root).unwrap().put(&config("a", "1")).unwrap();
    let (_, mut batches) = watch(&root).unwrap();
    fs::rename(&root, parent.path().join("away")).unwrap();
    let seen = until(&mut batches, |b| !b.problems.is_empty()).await;
    assert!(seen.iter().all(|b| b.removed.is_empty()), "what was good stays in force");
    drop_in(&parent.path().join("away/b.yaml"), &yaml("b", "1"));
    fs::rename(parent.path().join("away"), &root).unwrap();
    let seen = until(&mut batches, |b| b.problems.is_empty()).await;
    assert_eq!(names(&seen), ["b"]);
    drop_in(&root.join("c.yaml"), &yaml("c", "1"));
    assert_eq!(names(&until(&mut batches, |b| !b.changed.is_empty()).await), ["c"]);
}

#[test]
fn everything_is_read_again_when_the_kernel_lost_count() {
    let (dir, folder) = folder();
    folder.put(&config("a", "1")).unwrap();
    folder.put(&config("b", "1")).unwrap();
    let mut watcher = Watcher::start(dir.path().to_owned(), |object| object).unwrap();
    let first = watcher.refresh().unwrap().batch();
    assert_eq!(first.changed.len(), 2);
    let room = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let room: usize = room.trim().parse().unwrap();
    let noise = ["x.yaml", "y.yaml"].map(|name| dir.path().join(name));
    for n in 0..=room {
        // Each closing of a written file is an event; the kernel merges only neighbours that are equal.
        fs::write(&noise[n % 2], "").unwrap();
    }
    folder.put(&config("a", "2")).unwrap();
    folder.remove(&key("b")).unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    drop_in(&dir.path().join("new/c.yaml"), &yaml("c", "1"));
    let batch = watcher.refresh().unwrap().batch();
    assert_eq!(names(std::slice::from_ref(&batch)), ["a", "c"]);
    assert_eq!((batch.removed, batch.revision), (vec![key("b")], 4));
    drop_in(&dir.path().join("new/c.yaml"), &yaml("c", "2"));
    assert_eq!(names(&[watcher.refresh().unwrap().batch()]), ["c"], "the folder found meanwhile is watched");
}

#[test]
fn only_what_changed_is_read_again() {
    let (dir, folder) = folder();
    folder.put(&config("a", "1")).unwrap();
    folder.put(&config("b", "1")).unwrap();
    let mut watcher = Watcher::start(dir.path().to_owned(), |object| object).unwrap();
    assert_eq!(watcher.dirty().unwrap().len(), 2, "at first everything is");
    folder.put(&config("a", "2")).unwrap();
    assert_eq!(
        watcher.dirty().unwrap().into_iter().collect::<Vec<_>>(),
        [Path::new("ConfigMap/default/a.yaml")]
    );
    folder.remove(&key("b")).unwrap();
    assert_eq!(
        watcher.dirty().unwrap().into_iter().collect::<Vec<_>>(),
        [Path::new("ConfigMap/default/b.yaml")]
    );
    assert!(watcher.dirty().unwrap().is_empty());
}

#[test]
fn only_what_a_change_concerns_is_checked_again() {
    let (dir, folder) = folder();
    let many: Vec<Value> = (0..100).map(|n| config(&format!("c{n}"), "1")).collect();
    folder.put_all(&many).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let make = move |object: Located| {
        count.fetch_add(1, Ordering::Relaxed);
        object.key.name
    };
    let mut watcher = Watcher::start(dir.path().to_owned(), make).unwrap();
    assert_eq!(watcher.refresh().unwrap().state().objects.len(), 100);
    assert_eq!((made.load(Ordering::Relaxed), watcher.checked()), (100, 100));
    folder.put(&config("c7", "2")).unwrap();
    assert_eq!(watcher.refresh().unwrap().batch().changed, ["c7"]);
    assert_eq!((made.load(Ordering::Relaxed), watcher.checked()), (101, 101));
    folder.remove(&key("c7")).unwrap();
    assert_eq!(watcher.refresh().unwrap().batch().removed, [key("c7")]);
    assert_eq!((made.load(Ordering::Relaxed), watcher.checked()), (101, 101));
}

#[test]
fn what_comes_into_force_later_is_handed_on_then_unless_it_says_the_same() {
    let (dir, _folder) = folder();
    let file = |name: &str| dir.path().join(name);
    drop_in(&file("1.yaml"), &yaml("a", "first"));
    let mut watcher = Watcher::start(dir.path().to_owned(), |object| object).unwrap();
    watcher.refresh().unwrap();
    for (name, says) in [("2.yaml", "second"), ("3.yaml", "third"), ("4.yaml", "third")] {
        drop_in(&file(name), &yaml("a", says));
        assert_eq!(names(&[watcher.refresh().unwrap().batch()]), [""; 0], "{name}");
    }
    drop_in(&file("2.yaml"), &yaml("a", "changed"));
    assert!(watcher.refresh().is_none(), "nobody can see it");
    let mut after = |gone: &str| {
        fs::remove_file(file(gone)).unwrap();
        let batch = watcher.refresh().unwrap().batch();
        let says: Vec<_> = batch.changed.iter().map(|o| o.value["data"]["k"].clone()).collect();
        (says, batch.removed.len(), batch.problems.len())
    };
    assert_eq!(after("1.yaml"), (vec![json!("changed")], 0, 2));
    assert_eq!(after("2.yaml"), (vec![json!("third")], 0, 1));
    assert_eq!(after("3.yaml"), (vec![], 0, 0), "the same");
    assert_eq!(after("4.yaml"), (vec![], 1, 0));
}

#[tokio::test]
async fn a_turned_link_is_a_new_version_of_a_mounted_config_map() {
    let (dir, _folder) = folder();
    for version in ["..v1", "..v2"] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("a.yaml"), yaml("a", version)).unwrap();
    }
    let turn = |to: &str| {
        std::os::unix::fs::symlink(to, dir.path().join("..tmp")).unwrap();
        fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    };
    turn("..v1");
    std::os::unix::fs::symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let (state, mut batches) = watch(dir.path()).unwrap();
    assert_eq!(state.objects[&key("a")].value["data"]["k"], "..v1");
    turn("..v2");
    let seen = until(&mut batches, |b| !b.changed.is_empty()).await;
    assert_eq!(seen.last().unwrap().changed[0].value["data"]["k"], "..v2");
}

/// Waits for batches until one fits, and returns all of them.
async fn until(batches: &mut Receiver<Batch>, mut fits: impl FnMut(&Batch) -> bool) -> Vec<Batch> {
    let mut seen = Vec::new();
    loop {
        let next = timeout(PATIENCE, batches.recv()).await;
        let batch = next.unwrap_or_else(|_| panic!("no such batch came, only {seen:#?}")).unwrap();
        let done = fits(&batch);
        seen.push(batch);
        if done {
            return seen;
        }
    }
}

fn names(batches: &[Batch]) -> Vec<&str> {
    batches.iter().flat_map(|b| &b.changed).map(|o| o.key.name.as_str()).collect()
}

/// Puts a file in place in one step, as an editor does.
fn drop_in(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn count(folder: &Folder) {
    let add = |v: &mut Value| {
        let n: u64 = v["data"]["k"].as_str().unwrap().parse().unwrap();
        v["data"]["k"] = json!((n + 1).to_string());
    };
    folder.patch(&key("a"), None, add).unwrap();
}

fn folder() -> (TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::ConfigMap, None, name)
}

fn config(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

fn yaml(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  k: \"{value}\"\n")
}
