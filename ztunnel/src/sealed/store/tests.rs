//! A directory of our own: what is written is found again, what was tampered with is passed over, nothing is exposed.

use std::os::unix::fs::PermissionsExt as _;

use ambit_xds::Kind as Resources;
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use tempfile::TempDir;

use super::*;

const OWNER: &str = "Kubernetes/node1";
const NOW: u64 = 1_000_000;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("state.key")
    }

    fn store(&self) -> Store {
        self.open().expect("a directory of our own")
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.dir(), &self.key(), OWNER.to_owned())
    }

    /// The path of the file with a number.
    fn file(&self, number: u64) -> PathBuf {
        self.dir().join(choice::file_name(number))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.store().names().unwrap();
        names.sort();
        names
    }
}

/// A state that can be told from others.
fn state(heard_at: u64) -> Content {
    let response = |kind: Resources| DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    Content { heard_at, responses: Resources::ALL.map(response).to_vec(), credentials: Vec::new() }
}

fn write(store: &Store, heard_at: u64) -> Result<u64, StoreError> {
    store.write(|| state(heard_at)).map(|(number, _)| number)
}

/// Number and time of what was found, and the files that were refused.
type Loaded = (Option<(u64, u64)>, Vec<(String, Refused)>);

fn loaded(store: &Store) -> Loaded {
    let found = store.load(NOW, 3600);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let unused = found.unused.into_iter().map(|unused| (name(&unused.path), unused.why)).collect();
    (found.state.map(|(number, content)| (number, content.heard_at)), unused)
}

/// A place with states 1 to `count`, heard at `NOW` less what is missing to `count`.
fn filled(count: u64) -> Place {
    let place = Place::new();
    let store = place.store();
    for number in 1..=count {
        assert_eq!(write(&store, NOW - count + number).unwrap(), number);
    }
    place
}

#[test]
fn an_empty_directory_yields_nothing_and_complains_of_nothing() {
    assert_eq!(loaded(&Place::new().store()), (None, vec![]));
}

#[test]
fn the_newest_state_is_found_and_three_are_kept() {
    let place = filled(5);
    assert_eq!(loaded(&place.store()), (Some((5, NOW)), vec![]));
    assert_eq!(place.names(), ["newest.mark", "state-3.seal", "state-4.seal", "state-5.seal"]);
}

#[test]
fn everything_is_ours_alone() {
    let place = filled(1);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&place.dir()), 0o700);
    assert_eq!(mode(&place.key()), 0o600);
    for name in place.names() {
        assert_eq!(mode(&place.dir().join(&name)), 0o600, "row {name}");
    }
}

#[test]
fn a_newest_file_that_is_no_good_is_passed_over() {
    type Harm = fn(&Place);
    let rows: [(&str, Harm, Refused); 5] = [
        ("a flipped bit", |p| change(&p.file(4), |bytes| *bytes.last_mut().unwrap() ^= 1), Refused::Altered),
        ("cut short", |p| change(&p.file(4), |bytes| bytes.truncate(40)), Refused::Truncated),
        ("emptied", |p| change(&p.file(4), Vec::clear), Refused::Truncated),
        ("something else", |p| change(&p.file(4), |bytes| *bytes = vec![b'x'; 500]), Refused::NotSealed),
        (
            "an older one under its name",
            |p| change(&p.file(4), |bytes| *bytes = fs::read(p.file(2)).unwrap()),
            Refused::Renumbered { found: 2 },
        ),
    ];
    for (row, harm, why) in rows {
        let place = filled(4);
        harm(&place);
        assert_eq!(
            loaded(&place.store()),
            (Some((3, NOW - 1)), vec![("state-4.seal".to_owned(), why)]),
            "row {row}"
        );
    }
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    how(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_file_can_be_no_good_and_then_there_is_none() {
    let place = filled(3);
    for number in 1..=3 {
        change(&place.file(number), |bytes| bytes[40] ^= 0x80);
    }
    let (state, unused) = loaded(&place.store());
    assert_eq!(state, None);
    assert_eq!(unused.len(), 3);
    // And life goes on: the next write is found.
    assert_eq!(write(&place.store(), NOW).unwrap(), 4);
    assert_eq!(loaded(&place.store()).0, Some((4, NOW)));
}

#[test]
fn no_sampled_bit_of_any_file_is_accepted() {
    let place = filled(1);
    let store = place.store();
    for name in [choice::file_name(1), MARK.to_owned()] {
        let path = place.dir().join(&name);
        let good = fs::read(&path).unwrap();
        for bit in (0..good.len() * 8).step_by(7) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            let (state, unused) = loaded(&store);
            assert_eq!(state, None, "bit {bit} of {name}");
            assert!(!unused.is_empty(), "bit {bit} of {name}");
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(loaded(&store).0, Some((1, NOW)));
}

#[test]
fn the_past_does_not_come_back() {
    let place = filled(2);
    let kept = fs::read(place.file(2)).unwrap();
    let store = place.store();
    for _ in 3..=6 {
        write(&store, NOW).unwrap();
    }
    // An old state, whole and sealed by us, in place of everything newer.
    for number in 4..=6 {
        fs::remove_file(place.file(number)).unwrap();
    }
    fs::write(place.file(2), kept).unwrap();
    let refused = vec![("state-2.seal".to_owned(), Refused::Rollback { oldest: 4 })];
    assert_eq!(refused[0].1.reason().code(), "AMB6004");
    assert_eq!(loaded(&place.store()), (None, refused));
    // Without the mark nothing can be told from the past.
    fs::remove_file(place.dir().join(MARK)).unwrap();
    assert_eq!(loaded(&place.store()), (None, vec![("state-2.seal".to_owned(), Refused::Unmarked)]));
}

#[test]
fn a_state_of_long_ago_is_not_used() {
    let place = Place::new();
    write(&place.store(), NOW - 3601).unwrap();
    let why = Refused::TooOld { age: 3601, max: 3600 };
    assert_eq!(why.reason().code(), "AMB6005");
    assert_eq!(loaded(&place.store()), (None, vec![("state-1.seal".to_owned(), why)]));
}

#[test]
fn another_node_or_key_does_not_open_it() {
    let place = filled(1);
    let other = Store::open(&place.dir(), &place.key(), "Kubernetes/node2".to_owned()).unwrap();
    let (state, unused) = loaded(&other);
    assert_eq!(state, None);
    assert!(matches!(unused[0].1, Refused::Foreign { .. }), "{unused:?}");
    fs::remove_file(place.key()).unwrap();
    let (state, unused) = loaded(&place.store());
    assert_eq!((state, &unused[0]), (None, &(MARK.to_owned(), Refused::Altered)));
}

#[test]
fn a_crash_between_file_and_mark_loses_nothing() {
    let place = filled(3);
    let mark = fs::read(place.dir().join(MARK)).unwrap();
    write(&place.store(), NOW).unwrap();
    fs::write(place.dir().join(MARK), mark).unwrap();
    assert_eq!(loaded(&place.store()), (Some((4, NOW)), vec![]));
    assert_eq!(write(&place.store(), NOW).unwrap(), 4);
    assert_eq!(loaded(&place.store()), (Some((4, NOW)), vec![]));
}

#[test]
fn what_an_unfinished_write_left_is_in_nobodys_way() {
    let place = filled(1);
    fs::write(place.dir().join("state-2.seal.tmp"), b"half").unwrap();
    assert_eq!(loaded(&place.store()), (Some((1, NOW)), vec![]));
    assert_eq!(write(&place.store(), NOW).unwrap(), 2);
    assert_eq!(place.names(), ["newest.mark", "state-1.seal", "state-2.seal"]);
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let place = filled(1);
    let store = place.store();
    // A directory cannot be replaced by a file.
    fs::create_dir_all(place.file(2).join("in the way")).unwrap();
    let error = write(&store, NOW).unwrap_err();
    assert!(matches!(&error, StoreError::Io { doing: "write", .. }), "{error}");
    assert_eq!(loaded(&store).0, Some((1, NOW)));
    assert!(!place.names().iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn two_instances_do_not_write_at_once() {
    let place = filled(1);
    let dir = File::open(place.dir()).unwrap();
    let held = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap();
    assert!(matches!(write(&place.store(), NOW), Err(StoreError::Busy { .. })));
    drop(held);
    assert_eq!(write(&place.store(), NOW).unwrap(), 2);
}

#[test]
fn a_directory_or_key_that_others_can_read_is_refused() {
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o750, 0o701, 0o777] {
        let place = filled(1);
        set(&place.dir(), mode);
        assert!(matches!(place.open(), Err(StoreError::Exposed { mode: found, .. }) if found == mode));
    }
    let place = filled(1);
    set(&place.key(), 0o640);
    assert!(matches!(place.open(), Err(StoreError::Exposed { mode: 0o640, .. })));
}

#[test]
fn what_is_no_directory_or_no_key_is_refused() {
    let place = Place::new();
    fs::write(place.dir(), b"").unwrap();
    assert!(matches!(place.open(), Err(StoreError::WrongType { wanted: "directory", .. })));

    let place = filled(1);
    let (dir, away) = (place.dir(), place.folder.path().join("away"));
    fs::rename(&dir, &away).unwrap();
    std::os::unix::fs::symlink(&away, &dir).unwrap();
    assert!(matches!(place.open(), Err(StoreError::WrongType { wanted: "directory", .. })));

    for length in [0, 31, 33] {
        let place = filled(1);
        change(&place.key(), |bytes| bytes.resize(length, 0));
        assert!(matches!(place.open(), Err(StoreError::KeyLength { .. })), "row {length}");
    }

    let owner = "n".repeat(OWNER_BYTES_MAX + 1);
    let place = Place::new();
    assert!(matches!(Store::open(&place.dir(), &place.key(), owner), Err(StoreError::OwnerTooLong)));
}

#[test]
fn the_key_is_made_once() {
    let place = filled(1);
    let key = fs::read(place.key()).unwrap();
    assert_eq!(key.len(), KEY_BYTES);
    assert_ne!(key, [0; KEY_BYTES]);
    drop(place.store());
    make_key(&place.key()).unwrap();
    assert_eq!(fs::read(place.key()).unwrap(), key, "whoever is first wins");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 2, "nothing is left of the second");
}
