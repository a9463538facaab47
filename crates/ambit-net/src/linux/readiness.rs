//! Descriptors that the runtime watches for readiness.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the current tokio runtime watch a descriptor that is already in non-blocking mode.
///
/// # Errors
/// The system's answer if the descriptor cannot be polled.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "tokio marks registration unsafe for types that may change their descriptor"
    )]
    // SAFETY: an OwnedFd names the same open descriptor from here until the AsyncFd that takes it is dropped,
    // and AsyncFd hands it out mutably only together with the registration.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(io::Error::from)
}
