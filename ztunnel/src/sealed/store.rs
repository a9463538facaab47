//! The state directory: a key, the newest files, a mark. Blocking; call it from a thread that may wait.
//!
//! Everything is put in place by writing beside, syncing and renaming, so that a crash leaves the old or the new.
//! Which files count is decided in [`super::choice`]; nothing here knows what they mean.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

use super::choice::{self, MARK, UNFINISHED};
use super::content::Content;
use super::format::{self, KEY_BYTES, Key, Kind, Label, OWNER_BYTES_MAX};
use super::refused::Refused;
use crate::random;

#[cfg(test)]
mod tests;

/// Longest file read or written, in bytes; discovery takes responses of at most 200 MiB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// The most names of a directory that are looked at.
const NAMES_MAX: usize = 4096;
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// Why the directory cannot be used, or a file not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Its answer.
        #[source]
        cause: io::Error,
    },
    /// Others may enter or read.
    #[error("{} has mode {mode:o}; nobody else may have access: chmod go= it and let certificates be renewed", path.display())]
    Exposed {
        /// The directory or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("{} belongs to user {owner}, this program runs as {own}: make it a directory of its own", path.display())]
    Owned {
        /// The directory or file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// It is no directory, or no file.
    #[error("{} is no {wanted}", path.display())]
    WrongType {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// The key has another length.
    #[error("the key in {} has another length than {KEY_BYTES} bytes; give it that many random bytes", path.display())]
    KeyLength {
        /// The file.
        path: PathBuf,
    },
    /// The names of cluster and node do not fit.
    #[error("the names of cluster and node together are longer than {OWNER_BYTES_MAX} bytes")]
    OwnerTooLong,
    /// More than is ever read back.
    #[error("the state is longer than {FILE_BYTES_MAX} bytes and could not be read back")]
    TooLarge,
    /// The thread that wrote is gone.
    #[error("writing the state was given up: {what}")]
    Lost {
        /// Why.
        what: String,
    },
    /// Another instance of this program is writing.
    #[error("another instance is writing to {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io { doing, path, cause }
}

/// A file that was not used.
#[derive(Debug, PartialEq, Eq)]
pub struct Unused {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: Refused,
}

/// What a start found.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest usable state with its number.
    pub state: Option<(u64, Content)>,
    /// What was not used.
    pub unused: Vec<Unused>,
}

/// A node's state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    owner: String,
    key: Key,
}

impl Store {
    /// Opens the directory of `owner` (`CLUSTER/NODE`), making it and the key if they are not there.
    ///
    /// # Errors
    /// [`StoreError`], also if anybody else could read directory or key.
    pub fn open(dir: &Path, key_file: &Path, owner: String) -> Result<Self, StoreError> {
        if owner.len() > OWNER_BYTES_MAX {
            return Err(StoreError::OwnerTooLong);
        }
        match DirBuilder::new().mode(PRIVATE_FOLDER).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed("make", dir)(e)),
            Ok(()) | Err(_) => {}
        }
        let found = fs::symlink_metadata(dir).map_err(failed("look at", dir))?;
        if !found.is_dir() {
            return Err(StoreError::WrongType { path: dir.to_owned(), wanted: "directory" });
        }
        check_private(dir, &found)?;
        let key = Key::new(&*key(key_file)?);
        Ok(Self { dir: dir.to_owned(), owner, key })
    }

    /// The newest state that is whole, ours, of today and heard of at most `age_max` seconds before `now`.
    ///
    /// Files that the other instance of a replacement removes meanwhile are passed over.
    pub fn load(&self, now: u64, age_max: u64) -> Found {
        let mut found = Found::default();
        let numbers: Vec<u64> = match self.names() {
            Ok(names) => names.iter().filter_map(|name| choice::number_of(name)).collect(),
            Err(why) => {
                found.unused.push(Unused { path: self.dir.clone(), why });
                return found;
            }
        };
        let mark = match self.mark() {
            Ok(mark) => mark,
            Err(why) => {
                found.unused.push(Unused { path: self.dir.join(MARK), why });
                None
            }
        };
        for (number, verdict) in choice::candidates(&numbers, mark) {
            match verdict.and_then(|()| self.read_state(number, now, age_max)) {
                Ok(Some(content)) => {
                    found.state = Some((number, content));
                    return found;
                }
                Ok(None) => {}
                Err(why) => {
                    found.unused.push(Unused { path: self.dir.join(choice::file_name(number)), why });
                }
            }
        }
        found
    }

    /// Seals what `gather` yields as the newest file and removes what is no longer needed; its number and itself.
    ///
    /// It is gathered once nobody else can write, so that a newer file never holds older content.
    ///
    /// # Errors
    /// [`StoreError`]; what was there before is still there then.
    pub fn write(&self, gather: impl FnOnce() -> Content) -> Result<(u64, Content), StoreError> {
        let dir = File::open(&self.dir).map_err(failed("open", &self.dir))?;
        // Two instances run side by side while one replaces the other.
        let locked = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => StoreError::Busy { path: self.dir.clone() },
            other => failed("lock", &self.dir)(other.into()),
        })?;
        // A mark that is of no use was told at the start; numbers begin anew then.
        let mark = self.mark().ok().flatten();
        let number = choice::next(mark);
        let content = gather();
        let sealed = self.seal(Kind::State, number, &content)?;
        if mark.is_none() {
            self.put(MARK, &self.seal(Kind::Mark, number - 1, &())?)?;
        }
        self.put(&choice::file_name(number), &sealed)?;
        self.put(MARK, &self.seal(Kind::Mark, number, &())?)?;
        for name in self.names().unwrap_or_default() {
            if choice::is_superfluous(&name, number) {
                // It is tried again after the next write.
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
        drop(locked);
        Ok((number, content))
    }

    fn seal(&self, kind: Kind, number: u64, content: &impl prost::Message) -> Result<Vec<u8>, StoreError> {
        let label = Label { kind, owner: &self.owner, number };
        let sealed = format::seal(&self.key, random::bytes(), &label, content);
        sealed.filter(|bytes| bytes.len() as u64 <= FILE_BYTES_MAX).ok_or(StoreError::TooLarge)
    }

    fn names(&self) -> Result<Vec<String>, Refused> {
        let unreadable = |e: io::Error| Refused::Unreadable { what: e.to_string() };
        let entries = fs::read_dir(&self.dir).map_err(unreadable)?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.take(NAMES_MAX).collect())
    }

    /// The number on record; `None` if there is no record.
    fn mark(&self) -> Result<Option<u64>, Refused> {
        let Some(bytes) = read(&self.dir.join(MARK))? else { return Ok(None) };
        let number = format::claimed_number(Kind::Mark, &self.owner, &bytes)?;
        let label = Label { kind: Kind::Mark, owner: &self.owner, number };
        format::open(&self.key, &label, bytes).map(|_| Some(number))
    }

    fn read_state(&self, number: u64, now: u64, age_max: u64) -> Result<Option<Content>, Refused> {
        let Some(bytes) = read(&self.dir.join(choice::file_name(number)))? else { return Ok(None) };
        let label = Label { kind: Kind::State, owner: &self.owner, number };
        let plain = format::open(&self.key, &label, bytes)?;
        Content::read(plain, now, age_max).map(Some)
    }

    /// Puts a file in place in one step; without it nothing is left behind.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, fresh) = (self.dir.join(name), self.dir.join(format!("{name}{UNFINISHED}")));
        let placed = write_new(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        placed.map_err(|cause| {
            let _ = fs::remove_file(&fresh);
            failed("write", &path)(cause)
        })
    }
}

/// Writes a file that only we may read, through to the disk.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file's bytes, bounded; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Refused> {
    let unreadable = |e: io::Error| Refused::Unreadable { what: e.to_string() };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(Refused::Unreadable { what: "it is no regular file".to_owned() }),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    }
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    let length = file.metadata().map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Refused::TooLarge { bytes: length, max: FILE_BYTES_MAX });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

fn check_private(path: &Path, found: &fs::Metadata) -> Result<(), StoreError> {
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != own {
        return Err(StoreError::Owned { path: path.to_owned(), owner: found.uid(), own });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// The key in a file, which is made if it is not there.
fn key(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, StoreError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make_key(path).map_err(failed("make the key", path))?;
            File::open(path)
        }
        other => other,
    };
    let file = file.map_err(failed("open the key", path))?;
    let found = file.metadata().map_err(failed("look at the key", path))?;
    if !found.is_file() {
        return Err(StoreError::WrongType { path: path.to_owned(), wanted: "file" });
    }
    check_private(path, &found)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if found.len() != KEY_BYTES as u64 {
        return Err(StoreError::KeyLength { path: path.to_owned() });
    }
    (&file).read_exact(&mut *key).map_err(failed("read the key", path))?;
    Ok(key)
}

/// Makes a key unless somebody else makes one at the same time; whoever is first wins.
fn make_key(path: &Path) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}{UNFINISHED}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let key = Zeroizing::new(random::bytes::<KEY_BYTES>());
    write_new(&fresh, &*key)?;
    let linked = fs::hard_link(&fresh, path);
    let _ = fs::remove_file(&fresh);
    match linked {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        Ok(()) | Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
        }
    }
}
