//! Socket options that no safe wrapper names.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Lets a socket use an address that is not the machine's own (IPv6 twin of `IP_TRANSPARENT`).
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN or CAP_NET_RAW.
pub fn ipv6_transparent(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)
}

fn set_int(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four fits");
    // SAFETY: the descriptor is open for the call, and pointer and length describe one live i32.
    #[expect(unsafe_code, reason = "setsockopt with an option neither socket2 nor nix wraps")]
    let rc = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
