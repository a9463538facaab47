//! Unix `SOCK_SEQPACKET`: whole messages with passed descriptors, between programs of one machine.
//!
//! This is what the node agent and ztunnel talk over. It keeps message boundaries, hands over descriptors and says
//! who is at the other end. It knows nothing of the messages, and it does not decide whether a peer is welcome.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::linux::readiness::watch;

#[cfg(test)]
mod tests;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Descriptors taken from one message; what a peer sends beyond them is closed by the kernel.
const FDS_MAX: usize = 4;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeqpacketError {
    /// The path cannot be listened on.
    #[error("listening on {path}; is the directory there, writable and the path under 108 bytes?")]
    Bind {
        /// Where the socket was to be.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// Another process serves this path.
    #[error("listening on {path}: another process serves it already; stop that one first")]
    InUse {
        /// Where the socket was to be.
        path: PathBuf,
    },
    /// Nobody answers at the path.
    #[error("connecting to {path}; is its server running?")]
    Connect {
        /// Where the server was expected.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

/// Who holds the other end, as the kernel recorded it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id, seen from our pid namespace; 0 if the peer is not visible there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// One message as it arrived.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0 means that the peer has closed.
    pub len: usize,
    /// Descriptors that came with the message, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Whether bytes or descriptors were cut off because they did not fit.
    pub truncated: bool,
}

impl Received {
    /// Whether the peer has closed and nothing more will come.
    pub fn is_end(&self) -> bool {
        self.len == 0 && self.fds.is_empty() && !self.truncated
    }
}

/// A listening socket; its file is removed when this value goes away.
#[derive(Debug)]
pub struct SeqpacketListener {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Device and inode of our file, so that a successor's file is never removed.
    file: (u64, u64),
}

impl SeqpacketListener {
    /// Listens at `path`, whose file gets permission bits `mode`. A file left by a dead server is replaced.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`SeqpacketError::InUse`] if somebody serves the path, else [`SeqpacketError::Bind`].
    pub fn bind(path: &Path, mode: u32) -> Result<Self, SeqpacketError> {
        let fail = |cause: io::Error| SeqpacketError::Bind { path: path.to_owned(), cause };
        if !remove_dead(path).map_err(fail)? {
            return Err(SeqpacketError::InUse { path: path.to_owned() });
        }
        let socket = new_socket().map_err(fail)?;
        let address = SocketAddrUnix::new(path).map_err(|e| fail(e.into()))?;
        // The mode of the socket's own inode becomes the file's: there is no moment in which others may connect.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode)).map_err(|e| fail(e.into()))?;
        rustix::net::bind(&socket, &address).map_err(|e| fail(e.into()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
        let meta = std::fs::symlink_metadata(path).map_err(fail)?;
        rustix::net::listen(&socket, BACKLOG).map_err(|e| fail(e.into()))?;
        let socket = watch(socket, Interest::READABLE).map_err(fail)?;
        Ok(Self { socket, path: path.to_owned(), file: (meta.dev(), meta.ino()) })
    }

    /// Waits for the next peer. May be dropped without losing a connection.
    ///
    /// # Errors
    /// The system's answer; after `EMFILE` or `ENFILE` the caller must pause before it asks again.
    pub async fn accept(&self) -> io::Result<(SeqpacketConn, PeerCred)> {
        let socket = self
            .socket
            .async_io(Interest::READABLE, |listener| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                rustix::net::accept_with(listener, flags).map_err(io::Error::from)
            })
            .await?;
        let conn = SeqpacketConn::new(socket)?;
        let peer = conn.peer()?;
        Ok((conn, peer))
    }

    /// Where this listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SeqpacketListener {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if ours {
            // Nobody is left to tell; a file that stays behind is replaced by the next server.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct SeqpacketConn {
    socket: AsyncFd<OwnedFd>,
}

impl SeqpacketConn {
    /// Connects to the server at `path`. Never waits: a full backlog is an error to be tried again.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`SeqpacketError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, SeqpacketError> {
        let fail = |cause: io::Error| SeqpacketError::Connect { path: path.to_owned(), cause };
        let socket = new_socket().map_err(fail)?;
        let address = SocketAddrUnix::new(path).map_err(|e| fail(e.into()))?;
        rustix::net::connect(&socket, &address).map_err(|e| fail(e.into()))?;
        Self::new(socket).map_err(fail)
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The system's answer.
    pub fn peer(&self) -> io::Result<PeerCred> {
        let cred = getsockopt(self.socket.get_ref(), PeerCredentials)?;
        Ok(PeerCred { pid: cred.pid(), uid: cred.uid(), gid: cred.gid() })
    }

    /// Sends one message, with a descriptor if one is given. Either all of it is sent or nothing; may be dropped.
    ///
    /// # Errors
    /// `EPIPE` if the peer has closed, `EMSGSIZE` if the message is larger than the socket's buffer, and
    /// `InvalidInput` for an empty message, which a receiver could not tell from the end.
    pub async fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if message.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an empty message would look like the end",
            ));
        }
        self.socket.async_io(Interest::WRITABLE, |socket| send_now(socket.as_fd(), message, fd)).await
    }

    /// Waits for the next message. May be dropped without losing one.
    ///
    /// # Errors
    /// The system's answer, such as `ECONNRESET`.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.socket.async_io(Interest::READABLE, |socket| recv_now(socket.as_fd(), &mut *buffer)).await
    }
}

impl AsFd for SeqpacketConn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Makes room at `path`; `false` if a living server is there.
fn remove_dead(path: &Path) -> io::Result<bool> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    let address = SocketAddrUnix::new(path)?;
    match rustix::net::connect(new_socket()?, &address) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => {}
        // Connected, backlog full or another socket type: somebody is alive behind this file.
        Ok(()) | Err(_) => return Ok(false),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(true),
    }
}

fn send_now(socket: BorrowedFd<'_>, message: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn recv_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(buffer)];
    let got = rustix::net::recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    let truncated = got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received { len: got.bytes, fds, truncated })
}
