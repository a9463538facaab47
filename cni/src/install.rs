//! Keeps the CNI plugin installed on the node: its binary, and our entry in the configuration in use.
//!
//! Other programs write that configuration too, at any time, so the directory is followed and looked at again every few
//! seconds. A program that takes our entry out again and again is not fought without pause, and is named. Ending leaves
//! everything in place, so that new pods wait rather than start outside the mesh; only [`Installer::remove`] removes.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use inotify::{Inotify, WatchMask};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, info, warn};

use crate::plugin::conflist::{self, Change, ConfFile, Entry, PLUGIN_TYPE, Plan};
use contest::Contest;

mod contest;

#[cfg(test)]
mod tests;

/// Longest configuration that is read.
const CONF_MAX: u64 = 1 << 20;
/// How often the directories are looked at without being told of a change.
const LOOK: Duration = Duration::from_secs(5);
/// How long a burst of changes is let settle.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the end is looked for while waiting.
const TICK: Duration = Duration::from_millis(500);
/// Prefix of files that are being written; no container runtime reads them.
const TEMPORARY: &str = ".ambit-new-";

/// Why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
pub struct InstallError {
    /// What was to be done.
    what: &'static str,
    /// With which file.
    path: PathBuf,
    /// The system's answer.
    #[source]
    cause: io::Error,
}

fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |cause| InstallError { what, path, cause }
}

/// Where the plugin goes, and what is written there.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The directory of plugin binaries.
    pub bin_dir: PathBuf,
    /// The directory of network configurations.
    pub conf_dir: PathBuf,
    /// The configuration to use; `None` for the one that the container runtime uses.
    pub only: Option<String>,
    /// The program to copy.
    pub program: PathBuf,
    /// Our entry.
    pub entry: Entry,
}

/// What a look at the directories came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The configuration with our entry; `None` if there is none to put it into.
    pub primary: Option<String>,
    /// Whether a configuration had to be changed.
    pub changed: bool,
    /// What a person should know, one sentence each.
    pub remarks: Vec<String>,
}

impl Installer {
    /// Puts everything in place that is not.
    ///
    /// # Errors
    /// [`InstallError`]; what was there before still is.
    pub fn repair(&self) -> Result<Looked, InstallError> {
        self.copy_program()?;
        let plan = conflist::install(&self.read()?, &self.entry, self.only.as_deref());
        self.apply(&plan)?;
        let remarks = plan.problems.iter().map(ToString::to_string);
        let remarks = remarks.chain(plan.findings.iter().map(ToString::to_string)).collect();
        Ok(Looked { primary: plan.primary, changed: !plan.changes.is_empty(), remarks })
    }

    /// Takes out everything that was put there, the configuration first: no pod may need a binary that is gone.
    ///
    /// # Errors
    /// [`InstallError`]; it may be repeated.
    pub fn remove(&self) -> Result<(), InstallError> {
        let plan = conflist::uninstall(&self.read()?);
        self.apply(&plan)?;
        for problem in &plan.problems {
            warn!(%problem, "a configuration that names our plugin is left as it is");
        }
        for directory in [&self.conf_dir, &self.bin_dir] {
            remove_temporaries(directory)?;
        }
        remove_file(&self.bin_dir.join(PLUGIN_TYPE))
    }

    fn apply(&self, plan: &Plan) -> Result<(), InstallError> {
        for change in &plan.changes {
            match change {
                Change::Write { name, text, like } => {
                    let like = self.conf_dir.join(like);
                    let mode = fs::metadata(&like).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
                    write(&self.conf_dir, name, &mut text.as_bytes(), mode)?;
                    info!(file = name, "wrote the network configuration");
                }
                Change::Rename { from, to } => {
                    let from = self.conf_dir.join(from);
                    fs::rename(&from, self.conf_dir.join(to)).map_err(fail("renaming", &from))?;
                }
                Change::Remove { name } => remove_file(&self.conf_dir.join(name))?,
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<Vec<ConfFile>, InstallError> {
        let directory = &self.conf_dir;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(fail("listing", directory))? {
            let entry = entry.map_err(fail("listing", directory))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !conflist::is_configuration(&name) {
                continue;
            }
            match read_text(&entry.path()) {
                Ok(Some(text)) => files.push(ConfFile { name, text }),
                Ok(None) => {}
                // It went away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail("reading", &entry.path())(error)),
            }
        }
        Ok(files)
    }

    /// Copies the program unless that very copy is there.
    fn copy_program(&self) -> Result<(), InstallError> {
        let there = self.bin_dir.join(PLUGIN_TYPE);
        let source = fs::metadata(&self.program).map_err(fail("looking at", &self.program))?;
        if same_contents(&self.program, &there, source.size()).map_err(fail("comparing", &there))? {
            return Ok(());
        }
        let mut program = fs::File::open(&self.program).map_err(fail("opening", &self.program))?;
        write(&self.bin_dir, PLUGIN_TYPE, &mut program, 0o755)?;
        info!(path = %there.display(), "copied the CNI plugin");
        Ok(())
    }
}

/// A configuration's text; `None` if it is no file of a sensible size, or no text.
fn read_text(path: &Path) -> io::Result<Option<String>> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(CONF_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONF_MAX {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}

fn same_contents(one: &Path, other: &Path, size: u64) -> io::Result<bool> {
    let meta = match fs::metadata(other) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta?,
    };
    if meta.size() != size || meta.permissions().mode() & 0o777 != 0o755 {
        return Ok(false);
    }
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    let (mut left, mut right) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        let right = right.get_mut(..read).unwrap_or_default();
        other.read_exact(right)?;
        if left.get(..read) != Some(&*right) {
            return Ok(false);
        }
    }
}

/// Writes a whole file beside its place and moves it there, so that nobody ever reads half of it.
fn write(directory: &Path, name: &str, contents: &mut dyn io::Read, mode: u32) -> Result<(), InstallError> {
    let temporary = directory.join(format!("{TEMPORARY}{name}"));
    let written =
        write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        // The cause matters more than what is left.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(fail("writing", &directory.join(name)))
}

fn write_new(path: &Path, contents: &mut dyn io::Read, mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
    // One left by an earlier run may have others, and a new one those that the umask leaves.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    io::copy(contents, &mut file)?;
    file.flush()?;
    file.sync_all()
}

fn remove_file(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("removing", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_temporaries(directory: &Path) -> Result<(), InstallError> {
    for entry in fs::read_dir(directory).map_err(fail("listing", directory))? {
        let entry = entry.map_err(fail("listing", directory))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// The plugin being kept installed.
#[derive(Debug)]
pub struct Following {
    drain: Drain,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Following {
    /// Stops keeping it installed and waits until nothing is written any more; blocks for at most a moment.
    pub fn stop(&self) {
        self.drain.begin();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("keeping the CNI plugin installed had failed");
        }
    }
}

/// Keeps it installed until `drain` begins; `ready` is set while our entry is in the configuration in use.
///
/// # Errors
/// The system's answer if the thread cannot be started.
pub fn follow(installer: Installer, ready: Part, drain: &Drain) -> io::Result<Following> {
    let drain = drain.child();
    let keeper = Keeper { installer, ready, contest: Contest::default(), said: Vec::new() };
    let until = drain.clone();
    // A thread, because every step of it blocks on the file system.
    let thread = std::thread::Builder::new().name("cni-install".to_owned());
    let thread = thread.spawn(move || keeper.run(&until))?;
    Ok(Following { drain, thread: Mutex::new(Some(thread)) })
}

struct Keeper {
    installer: Installer,
    ready: Part,
    contest: Contest,
    /// Remarks that have been logged.
    said: Vec<String>,
}

impl Keeper {
    fn run(mut self, drain: &Drain) {
        let begun = clock::monotonic();
        while !drain.is_draining() {
            let watching = self.watch();
            let pause = self.look(clock::monotonic().duration_since(begun));
            let until = clock::monotonic() + pause.unwrap_or(LOOK);
            match (watching, pause) {
                (Ok(watching), None) => wait_for_change(&watching, until, drain),
                (Ok(_), Some(_)) => sleep_until(until, drain),
                (Err(error), _) => {
                    debug!(error = %error, "the directories cannot be followed; they are looked at every {LOOK:?}");
                    sleep_until(until, drain);
                }
            }
        }
    }

    fn watch(&self) -> io::Result<Inotify> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(&self.installer.conf_dir, mask)?;
        inotify.watches().add(&self.installer.bin_dir, mask)?;
        Ok(inotify)
    }

    /// Looks once. Returns how long to leave the directory alone if somebody keeps changing it back.
    fn look(&mut self, now: Duration) -> Option<Duration> {
        let looked = match self.installer.repair() {
            Ok(looked) => looked,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                self.say(vec![format!("{error}: {cause}")]);
                self.show(false);
                return None;
            }
        };
        let mut remarks = looked.remarks;
        let pause = if looked.changed { self.contest.note(now) } else { None };
        if let (Some(pause), Some(primary)) = (pause, &looked.primary) {
            remarks.push(format!(
                "another program keeps taking our plugin out of {primary}; it is put back every {pause:?} at most. If it is \
                 Cilium, set its value cni.exclusive=false. Pods that start meanwhile are captured after their start"
            ));
        }
        match &looked.primary {
            Some(primary) => debug!(primary, changed = looked.changed, "looked at the network configuration"),
            None => remarks.push(format!(
                "no network configuration in {} yet; waiting for the network plugin to write one",
                self.installer.conf_dir.display()
            )),
        }
        if looked.changed {
            metrics::counter!("ambit_cni_config_writes_total").increment(1);
        }
        self.show(looked.primary.is_some() && pause.is_none());
        self.say(remarks);
        pause
    }

    fn show(&self, installed: bool) {
        metrics::gauge!("ambit_cni_plugin_installed").set(f64::from(u8::from(installed)));
        self.ready.set(installed);
    }

    /// Logs what has not been said the last time.
    fn say(&mut self, remarks: Vec<String>) {
        for remark in remarks.iter().filter(|remark| !self.said.contains(remark)) {
            warn!(remark, "installing the CNI plugin");
        }
        self.said = remarks;
    }
}

/// Returns soon after a change, at `until`, or when `drain` begins.
fn wait_for_change(inotify: &Inotify, until: Instant, drain: &Drain) {
    use std::os::fd::AsFd as _;
    while !drain.is_draining() && clock::monotonic() < until {
        let left = until.saturating_duration_since(clock::monotonic()).min(TICK);
        let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                std::thread::sleep(SETTLE);
                return;
            }
            Err(error) => {
                debug!(%error, "waiting for changes failed");
                sleep_until(until, drain);
            }
        }
    }
}

fn sleep_until(until: Instant, drain: &Drain) {
    while !drain.is_draining() && clock::monotonic() < until {
        std::thread::sleep(TICK.min(until.saturating_duration_since(clock::monotonic())));
    }
}
