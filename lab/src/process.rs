//! Starting host processes inside a lab's namespaces, watching them and ending them.
//!
//! Each process has a thread of ours that stays inside its namespaces until it ends: the kernel then knows
//! whose child it is, and kills it if we are killed. Which processes there are is decided elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use ambit_net::linux::netns::NetNs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use crate::error::LabError;
use crate::paths::RUN_ROOT;

pub mod expand;

/// Set in every process of a lab to the lab's name, so that each can be found again.
pub const MEMBER_ENV: &str = "AMBIT_LAB_MEMBER";

/// Stack of a thread that only waits, in bytes.
const WAITER_STACK_BYTES: usize = 256 * 1024;

/// A process to be started.
#[derive(Debug)]
pub struct Launch {
    /// This program's own binary, which prepares the process and then becomes it.
    pub runner: PathBuf,
    /// Program and arguments; empty holds the namespaces and does nothing else.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Directory to start in.
    pub directory: PathBuf,
    /// Network namespace to start in.
    pub netns: NetNs,
    /// A container's own view of files, processes and host name; none for the mesh's programs.
    pub container: Option<Container>,
    /// Takes standard output and error.
    pub log: File,
}

/// What a container does not share with the machine.
#[derive(Debug, Clone)]
pub struct Container {
    /// Host name, the pod's name.
    pub hostname: String,
    /// Files and directories bound over others.
    pub binds: Vec<Bind>,
    /// A directory of the pod's own, for what has to be written to make room for a bind.
    pub scratch: PathBuf,
}

/// A file or directory bound over another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// What is seen.
    pub from: PathBuf,
    /// Where it is seen.
    pub to: PathBuf,
    /// Whether it may not be written.
    pub read_only: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 plus the signal's number when it was killed, as shells say it.
    pub code: i32,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let by_signal = status.signal().map(|s| 128 + s);
        Self { code: status.code().or(by_signal).unwrap_or(-1) }
    }
}

/// A process that was started; dropping this does not end it.
#[derive(Debug)]
pub struct Running {
    /// Its number on this machine.
    pub pid: u32,
    /// Resolves when it has ended; an error means our own thread was lost.
    pub ended: oneshot::Receiver<Exit>,
    handle: Signaller,
}

/// Sends signals to one process and never to another that got its number later.
#[derive(Debug, Clone)]
pub struct Signaller(std::sync::Arc<OwnedFd>);

impl Signaller {
    /// Sends a signal; a process that has ended is no error.
    ///
    /// # Errors
    /// The system's answer.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        let signal = rustix::process::Signal::from_named_raw(signal as i32)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        match pidfd_send_signal(&*self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl Running {
    /// What sends it signals.
    pub fn signaller(&self) -> Signaller {
        self.handle.clone()
    }
}

/// Starts a process and returns once it exists.
///
/// # Errors
/// If a namespace cannot be entered or made, or the runner cannot be started. A program that is missing
/// shows as exit code 127 with a line in its log.
pub fn start(launch: Launch) -> Result<Running, LabError> {
    let what = launch.argv.first().cloned().unwrap_or_else(|| "pause".to_owned());
    on_own_thread(what, move || spawn_inside(&launch))
}

/// Lets `spawn` start a process on a thread of its own, which then waits for the process.
fn on_own_thread(
    what: String,
    spawn: impl FnOnce() -> Result<std::process::Child, LabError> + Send + 'static,
) -> Result<Running, LabError> {
    let fail = |program: String| move |cause: io::Error| LabError::Start { program, cause };
    let (told, started) = std::sync::mpsc::sync_channel::<Result<(u32, OwnedFd), LabError>>(1);
    let (ended_tx, ended) = oneshot::channel();
    let (label, for_thread) = (what.clone(), fail(what.clone()));
    std::thread::Builder::new()
        .name(format!("run {}", label.rsplit('/').next().unwrap_or("?")))
        .stack_size(WAITER_STACK_BYTES)
        .spawn(move || {
            let mut child = match spawn() {
                Ok(child) => child,
                Err(e) => {
                    let _ = told.send(Err(e));
                    return;
                }
            };
            let pid = child.id();
            let raw =
                i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel's pids are positive");
            let handle = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| for_thread(e.into()));
            let _ = told.send(handle.map(|fd| (pid, fd)));
            if let Ok(status) = child.wait() {
                let _ = ended_tx.send(status.into());
            }
        })
        .map_err(fail(what.clone()))?;
    let lost = || io::Error::other("the thread that starts it was lost");
    let (pid, fd) = started.recv().map_err(|_| fail(what)(lost()))??;
    Ok(Running { pid, ended, handle: Signaller(std::sync::Arc::new(fd)) })
}

/// Watches a process that somebody else started; how it ended is not told to us, so its exit code reads -1.
///
/// # Errors
/// If there is no such process any more.
pub fn adopt(pid: u32) -> io::Result<Running> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let handle = std::sync::Arc::new(pidfd_open(raw, PidfdFlags::empty())?);
    let watched = std::sync::Arc::clone(&handle);
    let (told, ended) = oneshot::channel();
    std::thread::Builder::new().name(format!("watch {pid}")).stack_size(WAITER_STACK_BYTES).spawn(
        move || {
            // It becomes readable when the process has ended.
            while poll(&mut [PollFd::new(&*watched, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
            let _ = told.send(Exit { code: -1 });
        },
    )?;
    Ok(Running { pid, ended, handle: Signaller(handle) })
}

/// The last lines of a log, for a message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 8;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}

/// Starts a command in all namespaces of a process, with that process's environment and directory.
///
/// Its output goes nowhere; only its end is told.
///
/// # Errors
/// If the process has ended, or its namespaces cannot be entered.
pub fn start_beside(runner: PathBuf, pid: u32, argv: Vec<String>) -> Result<Running, LabError> {
    let program = argv.first().cloned().unwrap_or_default();
    let pid = i32::try_from(pid).expect("the kernel's pids fit");
    let environment = crate::exec::environment_of(pid)?;
    let directory = crate::exec::directory_of(pid);
    on_own_thread(program.clone(), move || {
        let fail = |cause: io::Error| LabError::Start { program, cause };
        crate::exec::join(pid).map_err(fail.clone())?;
        let mut command = Command::new(runner);
        command.arg(crate::runner::COMMAND).arg("--").args(argv).env_clear().envs(environment);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(fail)
    })
}

/// Enters the namespaces with the calling thread, for good, and starts the process from there.
fn spawn_inside(launch: &Launch) -> Result<std::process::Child, LabError> {
    let program = || launch.argv.first().cloned().unwrap_or_else(|| "pause".to_owned());
    let fail = |cause: io::Error| LabError::Start { program: program(), cause };
    launch.netns.enter()?;
    if let Some(container) = &launch.container {
        contain(container)?;
    }
    let (out, err) = (launch.log.try_clone().map_err(fail)?, launch.log.try_clone().map_err(fail)?);
    let mut command = Command::new(&launch.runner);
    command.arg(crate::runner::COMMAND);
    if launch.container.is_some() {
        command.arg(crate::runner::INIT_FLAG);
    }
    command
        .arg("--")
        .args(&launch.argv)
        .env_clear()
        .envs(launch.env.iter().map(|(k, v)| (k, v)))
        .current_dir(&launch.directory)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    command.spawn().map_err(fail)
}

/// Gives the calling thread, and so its children, a container's own view.
///
/// # Errors
/// If the kernel refuses a namespace or a mount.
pub fn contain(container: &Container) -> Result<(), LabError> {
    let start = |cause: io::Error| LabError::Start { program: "a container's namespaces".to_owned(), cause };
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS)
        .map_err(|e| start(e.into()))?;
    own_mounts(container)?;
    rustix::system::sethostname(container.hostname.as_bytes()).map_err(|e| start(e.into()))
}

/// Keeps a pod from removing the machine's devices: a mount point cannot be unlinked from where it is seen.
///
/// Programs that end by removing "their" pid file `/dev/null` exist, and a pod's root is the machine's.
fn guard_devices() -> Result<(), LabError> {
    for device in
        ["null", "zero", "full", "random", "urandom", "tty"].map(|name| Path::new("/dev").join(name))
    {
        if device.exists() {
            mount(Some(&device), &device, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|e| LabError::file("guarding", device.clone())(e.into()))?;
        }
    }
    Ok(())
}

/// Binds files over the machine's own, seen by the calling thread's mount namespace only.
fn own_mounts(container: &Container) -> Result<(), LabError> {
    // Slave, not private: a namespace file that the lab unbinds must vanish here too, or it would live on.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|e| LabError::file("cutting mounts loose from", "/")(e.into()))?;
    // A copy of every namespace binding would keep other pods' namespaces alive; this one needs none.
    let netns = ambit_net::linux::netns::NETNS_DIR;
    let _ = umount2(netns, MntFlags::MNT_DETACH);
    hide_namespaces().map_err(LabError::file("hiding", netns))?;
    guard_devices()?;
    let fail = |bind: &Bind| LabError::file("binding a file or directory over", bind.to.clone());
    // First room for all, then the binds: a layer would hide what is bound below it already.
    let mut layers = Vec::new();
    for bind in &container.binds {
        make_room(bind, &container.scratch, &mut layers).map_err(fail(bind))?;
    }
    // Then a hold on everything that is to be seen: a volume over the labs' own directory hides what the next is from.
    let mut held = Vec::new();
    for bind in &container.binds {
        held.push(hold(&bind.from).map_err(fail(bind))?);
    }
    for (bind, from) in container.binds.iter().zip(&held) {
        bind_one(bind, from).map_err(fail(bind))?;
    }
    Ok(())
}

/// A handle of a file or directory that stays good whatever is mounted over its path.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// The path of what a handle holds, for this process.
fn held_path(held: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

fn bind_one(bind: &Bind, from: &OwnedFd) -> io::Result<()> {
    let from = held_path(from);
    let how = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from.as_str()), &bind.to, None::<&str>, how, None::<&str>)?;
    if bind.read_only {
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &bind.to, None::<&str>, again, None::<&str>)?;
    }
    Ok(())
}

/// The labs' own directory, if it lies below a place that gets a layer: sockets in there have to stay what they are.
fn keep_below(above: &Path) -> io::Result<Option<OwnedFd>> {
    if !Path::new(RUN_ROOT).starts_with(above) {
        return Ok(None);
    }
    hold(Path::new(RUN_ROOT)).map(Some)
}

/// Shows no namespaces of other pods: an empty directory says so to tools that look.
fn hide_namespaces() -> io::Result<()> {
    let netns = ambit_net::linux::netns::NETNS_DIR;
    mount(Some("none"), netns, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)?;
    Ok(())
}

/// Makes a place that the machine does not have, without making it on the machine: in a layer over the nearest
/// directory above that exists, seen by this mount namespace only.
fn make_room(bind: &Bind, scratch: &Path, layers: &mut Vec<PathBuf>) -> io::Result<()> {
    if bind.to.exists() {
        return Ok(());
    }
    let above = bind.to.ancestors().find(|a| a.is_dir()).unwrap_or_else(|| Path::new("/"));
    // A place such as /var/run is another one's name.
    let above = &*above.canonicalize()?;
    if above == Path::new("/") {
        return Err(io::Error::other(
            "the machine has no such place; mount it below /etc, /srv, /var or /tmp",
        ));
    }
    if !layers.iter().any(|layer| above.starts_with(layer)) {
        let own = scratch.join(layers.len().to_string());
        std::fs::create_dir_all(&own)?;
        if scratch.starts_with(above) {
            // A layer cannot be kept below what it is laid over.
            mount(Some("none"), &own, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        }
        let kept = keep_below(above)?;
        let (upper, work) = (own.join("upper"), own.join("work"));
        std::fs::create_dir_all(&upper)?;
        std::fs::create_dir_all(&work)?;
        let (lower, upper, work) = (above.display(), upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount(Some("overlay"), above, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        if let Some(kept) = kept {
            let again = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(held_path(&kept).as_str()), RUN_ROOT, None::<&str>, again, None::<&str>)?;
            hide_namespaces()?;
        }
        layers.push(above.to_owned());
    }
    if bind.from.is_dir() {
        return std::fs::create_dir_all(&bind.to);
    }
    std::fs::create_dir_all(bind.to.parent().unwrap_or(above))?;
    File::create(&bind.to).map(|_| ())
}
