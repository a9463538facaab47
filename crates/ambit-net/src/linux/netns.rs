//! Network namespaces: open one, prove that it is one, do something inside it.
//!
//! A namespace is entered by the calling *thread*. [`NetNs::run`] enters, calls a synchronous closure and
//! returns before anything else can run on the thread; [`NetNs::run_on_thread`] gives the closure a thread of
//! its own, which is what netlink sockets, child processes and long work need.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces live, as `ip netns` expects it.
pub const NETNS_DIR: &str = "/run/netns";

/// Why a network namespace could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetNsError {
    /// The file could not be opened.
    #[error("opening network namespace {path}; is the pod still running?")]
    Open {
        /// The file that was named.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The descriptor is no network namespace.
    #[error("descriptor is not a network namespace: {found}")]
    NotANamespace {
        /// What it is instead.
        found: String,
    },
    /// The kernel refused to enter it.
    #[error("entering network namespace {inode}; CAP_SYS_ADMIN is needed")]
    Enter {
        /// Inode of the namespace.
        inode: u64,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// Making or binding a new namespace failed.
    #[error("making network namespace {name}")]
    Create {
        /// Its name below [`NETNS_DIR`].
        name: String,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The thread for the closure could not be started or panicked.
    #[error("running work inside network namespace {inode}: {what}")]
    Thread {
        /// Inode of the namespace.
        inode: u64,
        /// What went wrong.
        what: String,
    },
}

/// Names one namespace for the life of the machine: device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode, as `readlink /proc/PID/ns/net` shows it.
    pub inode: u64,
}

/// An open network namespace; the namespace lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NetNsId,
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetNsError::Open`] if `/proc` is not mounted.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens a namespace by a file such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`NetNsError::Open`], or [`NetNsError::NotANamespace`] if the file is something else.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let file = File::open(path).map_err(|cause| NetNsError::Open { path: path.to_owned(), cause })?;
        Self::from_fd(OwnedFd::from(file))
    }

    /// Takes a descriptor received from somebody else, after proving what it is.
    ///
    /// # Errors
    /// [`NetNsError::NotANamespace`] if it is any other kind of file or namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetNsError> {
        // The link text of a namespace descriptor is `net:[INODE]`; no other file can have it.
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_err(|e| NetNsError::NotANamespace { found: e.to_string() })?;
        let magic = rustix::fs::fstatfs(&fd).map(|s| s.f_type).unwrap_or_default();
        const NSFS_MAGIC: i64 = 0x6e73_6673;
        let by_name = link.as_os_str().to_string_lossy().starts_with("net:[");
        // A bind mount shows its path instead of `net:[..]`; then only the file system type can tell.
        if magic != NSFS_MAGIC || (!by_name && is_other_namespace(&fd)) {
            return Err(NetNsError::NotANamespace { found: link.display().to_string() });
        }
        let file = File::from(fd);
        let meta = file.metadata().map_err(|e| NetNsError::NotANamespace { found: e.to_string() })?;
        let id = NetNsId { dev: meta.dev(), inode: meta.ino() };
        Ok(Self { fd: OwnedFd::from(file), id })
    }

    /// Makes a new namespace and binds it under [`NETNS_DIR`] so that `ip netns exec NAME` finds it.
    ///
    /// # Errors
    /// [`NetNsError::Create`], also if the name is taken.
    pub fn create_named(name: &str) -> Result<Self, NetNsError> {
        let fail = |cause: io::Error| NetNsError::Create { name: name.to_owned(), cause };
        prepare_dir().map_err(fail)?;
        let path = Path::new(NETNS_DIR).join(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(fail)?;
        drop(file);
        let target = path.clone();
        let made = std::thread::spawn(move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")));
        if let Err(cause) = made {
            let _ = std::fs::remove_file(&path);
            return Err(fail(cause));
        }
        Self::open(&path)
    }

    /// Makes a new namespace without a name; it goes away with this value and its clones.
    ///
    /// # Errors
    /// [`NetNsError::Create`].
    pub fn create_anonymous() -> Result<Self, NetNsError> {
        let fail = |cause: io::Error| NetNsError::Create { name: "without a name".to_owned(), cause };
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| fail(e.into()))?;
            Self::current()
        })
        .join()
        .unwrap_or_else(|_| Err(fail(io::Error::other("the thread that makes the namespace panicked"))))
    }

    /// Unbinds a named namespace; it goes away when its last user does. Missing names are not an error.
    ///
    /// # Errors
    /// The system's answer if the mount cannot be removed.
    pub fn remove_named(name: &str) -> io::Result<()> {
        let path = Path::new(NETNS_DIR).join(name);
        if !path.exists() {
            return Ok(());
        }
        match nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(e) => return Err(e.into()),
        }
        std::fs::remove_file(&path)
    }

    /// Device and inode.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// Calls `work` with this thread inside the namespace and comes back before returning.
    ///
    /// `work` must not block for long, start threads or await: everything it opens belongs to the namespace.
    ///
    /// # Errors
    /// [`NetNsError::Enter`] if the kernel refuses. If the way back is refused the process aborts: a worker
    /// thread left in a pod's namespace would open every later socket there.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> Result<R, NetNsError> {
        let home = home()?;
        if home.id == self.id {
            return Ok(work());
        }
        self.switch()?;
        let back = WayBack { home, outer: INSIDE.replace(true) };
        let result = work();
        drop(back);
        Ok(result)
    }

    /// Calls `work` on a new thread that lives inside the namespace and waits for it.
    ///
    /// # Errors
    /// [`NetNsError::Enter`] or [`NetNsError::Thread`].
    pub fn run_on_thread<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, NetNsError> {
        let thread = |what: String| NetNsError::Thread { inode: self.id.inode, what };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || self.enter().map(|()| work()))
                .map_err(|e| thread(e.to_string()))?
                .join()
                .map_err(|_| thread("it panicked".to_owned()))?
        })
    }

    /// Moves the calling thread into the namespace for good.
    ///
    /// # Errors
    /// [`NetNsError::Enter`].
    pub fn enter(&self) -> Result<(), NetNsError> {
        HOME.take();
        self.switch()
    }

    fn switch(&self) -> Result<(), NetNsError> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET)
            .map_err(|e| NetNsError::Enter { inode: self.id.inode, cause: e.into() })
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// The system's answer when descriptors are exhausted.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, id: self.id })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

thread_local! {
    /// The namespace this thread lives in, once it was looked up: a socket costs two switches and no look-up.
    static HOME: RefCell<Option<Rc<NetNs>>> = const { RefCell::new(None) };
    /// Whether the thread is away from home.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Where the calling thread has to come back to.
fn home() -> Result<Rc<NetNs>, NetNsError> {
    if INSIDE.get() {
        return NetNs::current().map(Rc::new);
    }
    if let Some(home) = HOME.with_borrow(Clone::clone) {
        return Ok(home);
    }
    let home = Rc::new(NetNs::current()?);
    HOME.set(Some(home.clone()));
    Ok(home)
}

/// Brings the thread home even if the work inside panics.
struct WayBack {
    home: Rc<NetNs>,
    outer: bool,
}

impl Drop for WayBack {
    fn drop(&mut self) {
        if self.home.switch().is_err() {
            std::process::abort();
        }
        INSIDE.set(self.outer);
    }
}

fn is_other_namespace(fd: &OwnedFd) -> bool {
    nix::ioctl_none_bad!(ns_get_nstype, 0xb703);
    // SAFETY: NS_GET_NSTYPE takes no argument and only reads from the namespace file.
    #[expect(unsafe_code, reason = "an ioctl without a safe wrapper in nix or rustix")]
    let kind = unsafe { ns_get_nstype(fd.as_raw_fd()) };
    kind != Ok(CloneFlags::CLONE_NEWNET.bits())
}

/// Makes [`NETNS_DIR`] a shared mount as iproute2 does, so that namespaces show up in every mount namespace.
fn prepare_dir() -> io::Result<()> {
    std::fs::create_dir_all(NETNS_DIR)?;
    let shared =
        || mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if shared().is_err() {
        mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
        shared()?;
    }
    Ok(())
}
