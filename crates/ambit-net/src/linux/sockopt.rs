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

/// What the kernel counts of a TCP connection, from its beginning to its end and beyond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpCounts {
    /// How often in a row the first segment without acknowledgement was sent again after a time-out.
    pub retransmits: u8,
    /// Bytes of a full segment that we send.
    pub mss: u32,
    /// Bytes sent, those that were sent again included.
    pub bytes_sent: u64,
    /// Bytes sent again.
    pub bytes_resent: u64,
    /// Bytes that the peer has acknowledged, and one for the beginning of a connection that we opened.
    pub bytes_acked: u64,
    /// Segments with data that came, those that came twice included.
    pub data_segments_in: u32,
    /// Bytes that came, each once.
    pub bytes_received: u64,
}

/// Asks what the kernel counts of a connection.
///
/// # Errors
/// The system's answer, also that a kernel before 4.19 does not count all of it.
pub fn tcp_counts(socket: &impl AsFd) -> io::Result<TcpCounts> {
    let mut answer = [0_u8; TCP_INFO_BYTES];
    let mut length = libc::socklen_t::try_from(answer.len()).expect("a few hundred fit");
    // SAFETY: the descriptor is open for the call, and pointer and length describe the live array.
    #[expect(unsafe_code, reason = "getsockopt with an option neither socket2 nor nix wraps")]
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    let answer = usize::try_from(length).ok().and_then(|length| answer.get(..length));
    answer.and_then(read_counts).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// As many bytes of `struct tcp_info` as are read.
const TCP_INFO_BYTES: usize = 216;

/// Reads the members by their places in the kernel's `struct tcp_info`, which only ever grows at its end.
fn read_counts(info: &[u8]) -> Option<TcpCounts> {
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
    Some(TcpCounts {
        retransmits: *info.get(2)?,
        mss: word(16)?,
        bytes_acked: long(120)?,
        bytes_received: long(128)?,
        data_segments_in: word(152)?,
        bytes_sent: long(200)?,
        bytes_resent: long(208)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_was_exchanged_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[7; 10]).unwrap();
        // The answer carries the acknowledgement.
        client.read_exact(&mut [0; 10]).unwrap();
        let counts = tcp_counts(&client).unwrap();
        assert_eq!((counts.bytes_sent, counts.bytes_received), (1000, 10), "{counts:?}");
        assert!((1000..=1001).contains(&counts.bytes_acked), "{counts:?}");
        assert_eq!(
            (counts.bytes_resent, counts.retransmits, counts.data_segments_in),
            (0, 0, 1),
            "{counts:?}"
        );
        assert!(counts.mss >= 500, "{counts:?}");
    }
}
