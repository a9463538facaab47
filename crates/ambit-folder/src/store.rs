//! Writing objects: atomically, under a lock, one object a file.
//!
//! A reader never sees half an object, and no writer loses what another wrote. Files of people are read but never
//! rewritten unless they hold exactly the object concerned.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use ambit_manifest::{Located, ObjectKey, read_value, to_yaml};
use ambit_runtime::clock;
use serde_json::Value;

use crate::contents::{Contents, FolderState, News};
use crate::error::FolderError;
use crate::layout::{self, LOCK, REVISION};
use crate::read::{self, FileRead};

/// Longest time a writer waits for the lock; each holder needs it for a few milliseconds.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
/// Secrets may be among the objects.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A folder of objects. All methods block on the file system for a few milliseconds.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now stored.
    pub object: Located,
    /// The store's revision that contains it.
    pub revision: u64,
    /// Whether the file was written; an object that already said the same is left alone.
    pub changed: bool,
}

impl Folder {
    /// Opens the folder, making it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`FolderError::Io`] if it cannot be made or is not a folder.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let root = root.into();
        make_folder(&root)?;
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`FolderError::Io`] if the folder cannot be listed. A broken file is a problem in the state, no error.
    pub fn load(&self) -> Result<FolderState, FolderError> {
        load(&self.root)
    }

    /// Reads one object.
    ///
    /// # Errors
    /// [`FolderError::Absent`] if there is none, [`FolderError::Refused`] if its file is broken.
    pub fn object(&self, key: &ObjectKey) -> Result<Located, FolderError> {
        let found = self.find(key)?.ok_or_else(|| FolderError::Absent { key: key.clone() })?;
        Ok(found.object)
    }

    /// How many writes the store has seen.
    ///
    /// # Errors
    /// [`FolderError::Revision`] if somebody damaged the counter.
    pub fn revision(&self) -> Result<u64, FolderError> {
        revision(&self.root)
    }

    /// Stores an object, new or in place of the one of the same name.
    ///
    /// # Errors
    /// [`FolderError::Refused`] if it has problems, [`FolderError::SharedFile`] if it stands in a file with others.
    pub fn put(&self, value: &Value) -> Result<Written, FolderError> {
        let written = self.put_all(std::slice::from_ref(value))?;
        Ok(written.into_iter().next().expect("one object in, one out"))
    }

    /// Stores several objects under one lock and one revision; if any of them is refused, none is stored.
    ///
    /// # Errors
    /// As [`Folder::put`].
    pub fn put_all(&self, values: &[Value]) -> Result<Vec<Written>, FolderError> {
        let objects = checked(values)?;
        let lock = Lock::take(&self.root)?;
        let mut targets = Vec::with_capacity(objects.len());
        let mut dropped_in = None;
        for object in objects {
            let found = match self.own(&object.key) {
                // A damaged file of the store's own is repaired by writing it anew.
                Err(FolderError::Refused { .. }) => None,
                Ok(None) => {
                    let dropped_in = match &mut dropped_in {
                        Some(known) => known,
                        unknown => unknown.insert(self.dropped_in()?),
                    };
                    dropped_in.remove(&object.key)
                }
                found => found?,
            };
            let path = match &found {
                Some(found) if found.shared => {
                    return Err(FolderError::SharedFile {
                        key: object.key,
                        file: self.root.join(&found.path),
                    });
                }
                Some(found) => found.path.clone(),
                None => layout::path_of(&object.key)?,
            };
            let changed = found.is_none_or(|f| f.object.value != object.value);
            targets.push((path, object, changed));
        }
        for (path, object, _) in targets.iter().filter(|(_, _, changed)| *changed) {
            self.write(path, to_yaml(&object.value).as_bytes())?;
        }
        let any = targets.iter().any(|(_, _, changed)| *changed);
        let revision = if any { self.raise(&lock)? } else { self.revision()? };
        Ok(targets.into_iter().map(|(_, object, changed)| Written { object, revision, changed }).collect())
    }

    /// Changes an object in place; `change` sees the newest state, and nobody else writes meanwhile.
    ///
    /// With `expect_uid`, only the object with this `metadata.uid` is changed.
    ///
    /// # Errors
    /// [`FolderError::Absent`], [`FolderError::Replaced`] if the uid differs, [`FolderError::Refused`] if the result
    /// has problems, [`FolderError::Renamed`] if it is another object.
    pub fn patch(
        &self,
        key: &ObjectKey,
        expect_uid: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Written, FolderError> {
        let lock = Lock::take(&self.root)?;
        let found = self.find(key)?.ok_or_else(|| FolderError::Absent { key: key.clone() })?;
        if found.shared {
            return Err(FolderError::SharedFile { key: key.clone(), file: self.root.join(found.path) });
        }
        let uid = found.object.value["metadata"]["uid"].as_str().unwrap_or_default();
        if let Some(expected) = expect_uid.filter(|e| *e != uid) {
            let (expected, found) = (expected.to_owned(), uid.to_owned());
            return Err(FolderError::Replaced { key: key.clone(), expected, found });
        }
        let mut value = Value::clone(&found.object.value);
        change(&mut value);
        if value == *found.object.value {
            return Ok(Written { object: found.object, revision: self.revision()?, changed: false });
        }
        let object = checked(&[value])?.remove(0);
        if object.key != *key {
            return Err(FolderError::Renamed { key: key.clone(), became: object.key });
        }
        self.write(&found.path, to_yaml(&object.value).as_bytes())?;
        Ok(Written { object, revision: self.raise(&lock)?, changed: true })
    }

    /// Removes an object and returns the revision without it.
    ///
    /// # Errors
    /// [`FolderError::Absent`] if there is none, [`FolderError::SharedFile`] if it stands in a file with others.
    pub fn remove(&self, key: &ObjectKey) -> Result<u64, FolderError> {
        let lock = Lock::take(&self.root)?;
        let own = layout::path_of(key)?;
        let path = if self.root.join(&own).exists() {
            // The store's own file goes away even when somebody broke it.
            own
        } else {
            let found = self.find(key)?.ok_or_else(|| FolderError::Absent { key: key.clone() })?;
            if found.shared {
                return Err(FolderError::SharedFile { key: key.clone(), file: self.root.join(found.path) });
            }
            found.path
        };
        let whole = self.root.join(path);
        fs::remove_file(&whole).map_err(FolderError::io("remove", &whole))?;
        self.raise(&lock)
    }

    /// Where an object stands now; the store's own path first, then the files of people.
    fn find(&self, key: &ObjectKey) -> Result<Option<Found>, FolderError> {
        match self.own(key)? {
            Some(found) => Ok(Some(found)),
            None => Ok(self.dropped_in()?.remove(key)),
        }
    }

    /// An object in the file that is reserved for it.
    fn own(&self, key: &ObjectKey) -> Result<Option<Found>, FolderError> {
        let path = layout::path_of(key)?;
        match read::file(&self.root, &path) {
            FileRead::Good(mut objects) => {
                Ok(objects.pop().map(|object| Found { object, path, shared: false }))
            }
            FileRead::Broken(problems) => Err(FolderError::Refused { problems }),
            FileRead::Absent => Ok(None),
        }
    }

    /// All objects in files of people; of two definitions the first, as in a load.
    fn dropped_in(&self) -> Result<BTreeMap<ObjectKey, Found>, FolderError> {
        let mut all = BTreeMap::new();
        for path in layout::files(&self.root)?.into_iter().filter(|path| layout::key_of(path).is_none()) {
            let FileRead::Good(objects) = read::file(&self.root, &path) else { continue };
            let shared = objects.len() > 1;
            for object in objects {
                let found = || Found { object: object.clone(), path: path.clone(), shared };
                all.entry(object.key.clone()).or_insert_with(found);
            }
        }
        Ok(all)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
        let whole = self.root.join(path);
        if let Some(parent) = whole.parent() {
            make_folder(parent)?;
        }
        replace(&whole, bytes)
    }

    /// Counts one write; only after its files are in place, so that a reader of the count finds them.
    fn raise(&self, _held: &Lock) -> Result<u64, FolderError> {
        let next = self.revision()? + 1;
        replace(&self.root.join(REVISION), format!("{next}\n").as_bytes())?;
        Ok(next)
    }
}

struct Found {
    object: Located,
    path: PathBuf,
    /// Other objects stand in the same file.
    shared: bool,
}

/// Reads the whole folder.
fn load(root: &Path) -> Result<FolderState, FolderError> {
    let revision = revision(root)?;
    let readings = layout::files(root)?.into_iter().map(|path| {
        let reading = read::file(root, &path);
        (path, reading)
    });
    let news = Contents::new(|object| object).take(revision, readings);
    // Nothing new in comparison with nothing at all: the folder is empty.
    Ok(news.map_or_else(|| FolderState::empty(revision), News::state))
}

/// The count of writes; 0 if none was counted yet.
pub(crate) fn revision(root: &Path) -> Result<u64, FolderError> {
    let path = root.join(REVISION);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| FolderError::Revision { path, text }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(FolderError::io("read", path)(cause)),
    }
}

fn checked(values: &[Value]) -> Result<Vec<Located>, FolderError> {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for value in values {
        match read_value("object", value) {
            Ok(object) => objects.push(object),
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(read::repeated(&objects));
    if problems.is_empty() { Ok(objects) } else { Err(FolderError::Refused { problems }) }
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.map_err(FolderError::io("make the folder", path))
}

/// Puts a file in place in one step; whoever reads sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Only the holder of the lock writes, so the process id makes the name its own even after a crash.
    let temporary = path.with_file_name(format!(".write-{}-{name}", process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|cause| {
        // The first failure is the one to tell; a left-over is hidden and overwritten by the next write.
        let _ = fs::remove_file(&temporary);
        FolderError::io("write", path)(cause)
    })
}

/// The right to write, given back when dropped.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(root: &Path) -> Result<Self, FolderError> {
        let path = root.join(LOCK);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
        let file = opened.map_err(FolderError::io("open", &path))?;
        let start = clock::monotonic();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(cause)) => return Err(FolderError::io("lock", path)(cause)),
                Err(TryLockError::WouldBlock) => {
                    let waited = clock::monotonic().duration_since(start);
                    if waited > LOCK_WAIT_MAX {
                        return Err(FolderError::Busy { path, waited });
                    }
                    thread::sleep(LOCK_PAUSE);
                }
            }
        }
    }
}
