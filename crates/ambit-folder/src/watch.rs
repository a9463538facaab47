//! Following a folder: what changed, soon after it did.
//!
//! One thread waits for the kernel's word, lets a burst settle, reads the files concerned and sends one batch. When
//! the kernel lost count, or the folder itself went away, everything is read again. What the readings mean is
//! decided in `contents`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ambit_manifest::Located;
use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::contents::{Batch, Contents, FolderState, News};
use crate::error::FolderError;
use crate::layout::{self, ROOT};
use crate::read;
use crate::store;

/// How long a burst of changes is collected before it is read, counted from its first change.
pub const COALESCE: Duration = Duration::from_millis(20);
/// Most batches that wait for a slow receiver; further changes wait in the kernel and become one batch.
pub const QUEUE_MAX: usize = 16;
/// Pause between two looks for a folder that went away, and whether the receiver still is there.
const LOOK: Duration = Duration::from_secs(1);
/// Room for a few hundred events at a time.
const EVENT_BYTES: usize = 64 << 10;

/// Reads a folder and follows it; blocks for the first reading.
///
/// Batches follow the returned state without a gap. A batch also comes when only the revision or the problems
/// changed, so that `batch.revision >= N` is seen for every write `N`. Dropping the receiver ends the watch.
///
/// # Errors
/// [`FolderError::Io`] if the folder cannot be listed or the kernel grants no watch. Later trouble is reported as a
/// problem in the batches, with the last good state in force.
pub fn watch(root: impl Into<PathBuf>) -> Result<(FolderState, mpsc::Receiver<Batch>), FolderError> {
    watch_as(root, |object| object)
}

/// As [`watch`], with `make` applied to each object as soon as it is read, so that no more is kept of it: of many objects
/// nothing else is ever held at once.
///
/// # Errors
/// As [`watch`].
pub fn watch_as<T: Send + 'static>(
    root: impl Into<PathBuf>,
    make: impl Fn(Located) -> T + Send + 'static,
) -> Result<(FolderState<T>, mpsc::Receiver<Batch<T>>), FolderError> {
    let root = root.into();
    let mut watcher = Watcher::start(root.clone(), make)?;
    let news = watcher.refresh();
    if let Some(cause) = watcher.failed.take() {
        return Err(cause);
    }
    let state = news.map_or_else(|| FolderState::empty(watcher.contents.revision()), News::state);
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let name = "folder-watch".to_owned();
    // A thread, because every step of it blocks on the file system; it ends with its receiver.
    let started = thread::Builder::new().name(name).spawn(move || {
        if let Err(cause) = follow(&mut watcher, &sender) {
            error!(%cause, root = %watcher.root.display(), "the folder is not watched any more");
        }
    });
    started.map_err(FolderError::io("start a thread to watch", root))?;
    Ok((state, receiver))
}

fn follow<T>(watcher: &mut Watcher<T>, sender: &mpsc::Sender<Batch<T>>) -> io::Result<()> {
    while !sender.is_closed() {
        if !watcher.wait()? {
            continue;
        }
        thread::sleep(COALESCE);
        let Some(batch) = watcher.refresh().map(News::batch) else { continue };
        let (changed, removed) = (batch.changed.len(), batch.removed.len());
        debug!(
            revision = batch.revision,
            changed,
            removed,
            problems = batch.problems.len(),
            "folder changed"
        );
        if sender.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

/// The watch of one folder, without the thread that waits.
pub(crate) struct Watcher<T> {
    root: PathBuf,
    inotify: Inotify,
    /// Which folder each watch is for, below the root.
    folders: BTreeMap<WatchDescriptor, PathBuf>,
    contents: Contents<T>,
    /// Everything must be read again, because we cannot know what changed.
    all: bool,
    /// Why the last reading was not complete; it is tried again until it is.
    failed: Option<FolderError>,
}

/// What the kernel says has changed.
#[derive(Default)]
struct Changes {
    files: BTreeSet<PathBuf>,
    new_folders: BTreeSet<PathBuf>,
    gone_folders: BTreeSet<PathBuf>,
    all: bool,
}

impl<T> Watcher<T> {
    pub(crate) fn start(
        root: PathBuf,
        make: impl Fn(Located) -> T + Send + 'static,
    ) -> Result<Self, FolderError> {
        let inotify = Inotify::init().map_err(FolderError::io("watch", &root))?;
        let (folders, contents) = (BTreeMap::new(), Contents::new(make));
        Ok(Self { root, inotify, folders, contents, all: true, failed: None })
    }

    /// Waits for something to read, at most for [`LOOK`].
    fn wait(&self) -> io::Result<bool> {
        if self.failed.is_some() {
            thread::sleep(LOOK);
            return Ok(true);
        }
        let mut ready = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Reads what changed; blocks on the file system.
    pub(crate) fn refresh(&mut self) -> Option<News<T>> {
        // The revision comes first: a write that it counts has already put its events into the queue.
        let (revision, damage) = match store::revision(&self.root) {
            Ok(revision) => (revision, None),
            Err(cause) => (self.contents.revision(), Some(cause)),
        };
        let dirty = self.dirty();
        let paths = match dirty {
            Ok(paths) => {
                self.failed = None;
                paths
            }
            Err(cause) => {
                self.all = true;
                self.failed = Some(cause);
                BTreeSet::new()
            }
        };
        let name = self.root.display().to_string();
        let trouble = damage.iter().chain(&self.failed);
        let trouble = trouble.map(|cause| read::about_file(&name, in_full(cause))).collect();
        self.contents.set_trouble(trouble);
        // Read one by one as they are taken in: a file takes far more memory than what stays of it.
        let root = &self.root;
        let readings = paths.into_iter().map(|path| {
            let reading = read::file(root, &path);
            (path, reading)
        });
        self.contents.take(revision, readings)
    }

    /// How many objects were checked against others so far.
    #[cfg(test)]
    pub(crate) fn checked(&self) -> u64 {
        self.contents.checked()
    }

    /// The files to read, after the watches were brought up to date.
    pub(crate) fn dirty(&mut self) -> Result<BTreeSet<PathBuf>, FolderError> {
        let changes = self.drain()?;
        let mut dirty = changes.files;
        for gone in changes.gone_folders {
            self.forget(&gone);
            dirty.extend(self.contents.paths().filter(|p| p.starts_with(&gone)).map(Path::to_owned));
        }
        if mem::take(&mut self.all) || changes.all {
            dirty.extend(self.contents.paths().map(Path::to_owned));
            self.adopt(Path::new(ROOT), &mut dirty)?;
        }
        for folder in changes.new_folders {
            self.adopt(&folder, &mut dirty)?;
        }
        Ok(dirty)
    }

    /// Watches a folder and all below it, and adds their files.
    fn adopt(&mut self, start: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), FolderError> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut open = vec![start.to_owned()];
        while let Some(folder) = open.pop() {
            let path = self.root.join(&folder);
            // Watched before it is listed: what comes in between is seen twice rather than never.
            match self.inotify.watches().add(&path, mask) {
                Ok(watch) => self.folders.insert(watch, folder.clone()),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && folder != Path::new(ROOT) => {
                    continue;
                }
                Err(cause) => return Err(FolderError::io("watch", path)(cause)),
            };
            let found = layout::entries(&self.root, &folder)?;
            files.extend(found.files);
            open.extend(found.folders);
        }
        Ok(())
    }

    /// Gives up the watches of a folder that is gone and of all below it.
    fn forget(&mut self, gone: &Path) {
        let mut watches = self.inotify.watches();
        self.folders.retain(|watch, folder| {
            let keep = !folder.starts_with(gone);
            if !keep {
                // A deleted folder's watch is gone already, a moved one's is not; both are right here.
                let _ = watches.remove(watch.clone());
            }
            keep
        });
    }

    /// Takes all events that wait.
    fn drain(&mut self) -> Result<Changes, FolderError> {
        let mut changes = Changes::default();
        let mut buffer = vec![0; EVENT_BYTES];
        loop {
            let events = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(FolderError::io("read changes of", &self.root)(cause)),
            };
            for event in events {
                note(&self.root, &mut self.folders, &event, &mut changes);
            }
        }
    }
}

/// Sorts one event into the changes.
fn note(
    root: &Path,
    folders: &mut BTreeMap<WatchDescriptor, PathBuf>,
    event: &Event<&std::ffi::OsStr>,
    changes: &mut Changes,
) {
    let mask = event.mask;
    if mask.contains(EventMask::Q_OVERFLOW) {
        changes.all = true;
        return;
    }
    if mask.contains(EventMask::IGNORED) {
        folders.remove(&event.wd);
        return;
    }
    let Some(folder) = folders.get(&event.wd) else { return };
    let Some(name) = event.name else {
        // The folder itself went away; for the root nobody else will say so.
        changes.all |= folder == Path::new(ROOT) && !mask.contains(EventMask::ATTRIB);
        return;
    };
    let path = folder.join(name);
    let left = mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM);
    if mask.contains(EventMask::ISDIR) {
        let came = mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
        if left {
            changes.gone_folders.insert(path);
        } else if came && !layout::is_hidden(&path) {
            changes.new_folders.insert(path);
        }
    } else if name == "..data" {
        // Kubernetes replaces the contents of a mounted ConfigMap by turning the link `..data`.
        changes.all = true;
    } else if layout::is_manifest(&path) && (!mask.contains(EventMask::CREATE) || is_link(&root.join(&path)))
    {
        changes.files.insert(path);
    }
}

/// Whether a file that was just created is complete because it is another name of one; all others are still being
/// written and will be closed.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_symlink() || m.nlink() > 1)
}

fn in_full(cause: &FolderError) -> String {
    use std::error::Error as _;
    match cause.source() {
        Some(below) => format!("{cause}: {below}"),
        None => cause.to_string(),
    }
}
