//! Sockets inside a pod's namespace, with the options every one of them needs.
//!
//! A socket belongs to the namespace its thread is in when it is made; waiting for it may happen anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::conntrack::{self, Usage};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::linux::netns::{NetNs, NetNsError};
use crate::linux::sockopt::ipv6_transparent;

/// Options of the sockets a proxy opens and accepts.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// Packet mark that keeps our own packets from being captured again; 1337 in a pod's namespace.
    pub mark: Option<u32>,
    /// Keepalive of application-facing and outgoing sockets.
    pub keepalive: Option<Keepalive>,
    /// Whether `TCP_USER_TIMEOUT` follows the keepalive.
    pub user_timeout: bool,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Congestion control asked for on application-facing sockets, where the kernel permits it.
    ///
    /// A local hop needs no bandwidth probing; bbr halves its throughput.
    pub local_congestion: Option<&'static str>,
    /// Where the kernel shows how full its table of connection tracking is; another folder only in tests.
    pub conntrack: PathBuf,
}

/// When a silent connection is probed and given up.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Silence before the first probe; 180 s by default.
    pub time: Duration,
    /// Between probes; 180 s by default.
    pub interval: Duration,
    /// Probes before giving up; 9 by default.
    pub retries: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        let keepalive =
            Keepalive { time: Duration::from_secs(180), interval: Duration::from_secs(180), retries: 9 };
        Self {
            mark: None,
            keepalive: Some(keepalive),
            user_timeout: false,
            backlog: 4096,
            local_congestion: Some("cubic"),
            conntrack: PathBuf::from(conntrack::FOLDER),
        }
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The namespace could not be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The socket could not be made or set up.
    #[error("opening a socket for {address}")]
    Open {
        /// Local or remote address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The peer did not take the connection.
    #[error("connecting to {address}")]
    Connect {
        /// The peer.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The peer did not answer in time.
    #[error("no answer from {address} within {waited:?}")]
    Timeout {
        /// The peer.
        address: SocketAddr,
        /// How long we waited.
        waited: Duration,
    },
    /// The kernel had no room to track another connection, so it dropped the first packet.
    #[error(
        "no answer from {address}: connection tracking is full, {} of {} entries are in use",
        .usage.count, .usage.max
    )]
    ConntrackFull {
        /// The peer.
        address: SocketAddr,
        /// How full it is.
        usage: Usage,
    },
}

impl SocketError {
    /// Whether the peer's machine answered that nothing listens there, or that it cannot be reached.
    pub fn is_refusal(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
        match self {
            Self::Connect { cause, .. } => {
                matches!(
                    cause.kind(),
                    ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
                )
            }
            Self::NetNs(_) | Self::Open { .. } | Self::Timeout { .. } | Self::ConntrackFull { .. } => false,
        }
    }

    /// Whether this process has no descriptors left.
    pub fn is_descriptor_shortage(&self) -> bool {
        let codes = [Some(libc::EMFILE), Some(libc::ENFILE)];
        match self {
            Self::Open { cause, .. } => codes.contains(&cause.raw_os_error()),
            Self::NetNs(_) | Self::Connect { .. } | Self::Timeout { .. } | Self::ConntrackFull { .. } => {
                false
            }
        }
    }

    /// Whether no local port was left.
    pub fn is_port_shortage(&self) -> bool {
        match self {
            Self::Open { cause, .. } | Self::Connect { cause, .. } => {
                cause.kind() == io::ErrorKind::AddrNotAvailable
            }
            Self::NetNs(_) | Self::Timeout { .. } | Self::ConntrackFull { .. } => false,
        }
    }

    /// Whether the kernel had no room to track another connection.
    pub fn is_conntrack_shortage(&self) -> bool {
        matches!(self, Self::ConntrackFull { .. })
    }

    /// The peer that may be out of reach because the kernel dropped the first packet: then it looks as if the peer were
    /// silent, or the kernel says that the packet was not permitted or found no buffer.
    fn may_be_dropped(&self) -> Option<SocketAddr> {
        match self {
            Self::Timeout { address, .. } => Some(*address),
            Self::Connect { address, cause } => {
                let dropped = [Some(libc::EPERM), Some(libc::ENOBUFS)].contains(&cause.raw_os_error());
                dropped.then_some(*address)
            }
            Self::NetNs(_) | Self::Open { .. } | Self::ConntrackFull { .. } => None,
        }
    }
}

/// Whom a listener serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accepts {
    /// Sockets accepted may keep foreign addresses.
    pub transparent: bool,
    /// The other end is on this machine.
    pub local: bool,
}

/// Opens sockets in one namespace.
#[derive(Debug, Clone)]
pub struct SocketFactory {
    netns: Option<Arc<NetNs>>,
    options: Arc<SocketOptions>,
}

impl SocketFactory {
    /// Sockets of the given namespace; `None` is the process's own.
    pub fn new(netns: Option<Arc<NetNs>>, options: Arc<SocketOptions>) -> Self {
        Self { netns, options }
    }

    /// The same in the process's own namespace.
    pub fn of_process(&self) -> Self {
        Self { netns: None, options: self.options.clone() }
    }

    /// The options in force.
    pub fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// The namespace, if it is not the process's own.
    pub fn netns(&self) -> Option<&Arc<NetNs>> {
        self.netns.as_ref()
    }

    /// Connects within `timeout`; `source` is used as local address even if it is not the machine's own.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn connect(
        &self,
        address: SocketAddr,
        source: Option<IpAddr>,
        timeout: Duration,
    ) -> Result<TcpStream, SocketError> {
        let reached = self.reach(address, source, timeout).await;
        reached.map_err(|error| {
            let full = error.may_be_dropped().and_then(|address| Some((address, self.full_conntrack()?)));
            full.map_or(error, |(address, usage)| SocketError::ConntrackFull { address, usage })
        })
    }

    async fn reach(
        &self,
        address: SocketAddr,
        source: Option<IpAddr>,
        timeout: Duration,
    ) -> Result<TcpStream, SocketError> {
        let stream = self.within(|| begin_connect(address, source, &self.options))??;
        match tokio::time::timeout(timeout, stream.writable()).await {
            Err(_) => return Err(SocketError::Timeout { address, waited: timeout }),
            Ok(Err(cause)) => return Err(SocketError::Connect { address, cause }),
            Ok(Ok(())) => {}
        }
        match stream.take_error() {
            Ok(None) => Ok(stream),
            Ok(Some(cause)) | Err(cause) => Err(SocketError::Connect { address, cause }),
        }
    }

    /// A datagram socket that hears `peer` alone, at a port that the kernel draws.
    ///
    /// # Errors
    /// [`SocketError::Open`] if the kernel refuses an option or knows no way to the peer.
    pub fn datagrams(&self, peer: SocketAddr) -> Result<UdpSocket, SocketError> {
        self.within(|| datagrams(peer, &self.options))?
            .map_err(|cause| SocketError::Open { address: peer, cause })
    }

    /// Listens on `address`. Sockets accepted have the options already: the kernel hands them on, for nothing.
    ///
    /// # Errors
    /// [`SocketError::Open`] if the port is taken or the kernel refuses an option.
    pub fn listen(&self, address: SocketAddr, accepts: Accepts) -> Result<TcpListener, SocketError> {
        self.within(|| listen(address, accepts, &self.options))?
            .map_err(|cause| SocketError::Open { address, cause })
    }

    /// Listens as [`Self::listen`] does; of the address that stands for all, IPv4 alone where the kernel has no IPv6.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn listen_wide(&self, address: SocketAddr, accepts: Accepts) -> Result<TcpListener, SocketError> {
        let cause = match self.listen(address, accepts) {
            Err(SocketError::Open { cause, .. }) => cause,
            other => return other,
        };
        match without_ipv6(address, &cause) {
            Some(instead) => self.listen(instead, accepts),
            None => Err(SocketError::Open { address, cause }),
        }
    }

    /// The table of connection tracking that has no room, if one on the way has none: the namespace's, or that of our
    /// own, which is the node's where a proxy lives in it.
    fn full_conntrack(&self) -> Option<Usage> {
        let read = || Usage::read(&self.options.conntrack);
        let inside = self.within(read).ok().flatten();
        [inside, read()].into_iter().flatten().find(|usage| usage.is_full())
    }

    fn within<R>(&self, work: impl FnOnce() -> R) -> Result<R, NetNsError> {
        match &self.netns {
            Some(netns) => netns.run(work),
            None => Ok(work()),
        }
    }
}

fn begin_connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    options: &SocketOptions,
) -> Result<TcpStream, SocketError> {
    let open = |cause| SocketError::Open { address, cause };
    let socket = new_socket(address, options).map_err(open)?;
    if let Some(source) = source {
        bind_foreign(&socket, source).map_err(open)?;
    }
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(cause) => return Err(SocketError::Connect { address, cause }),
    }
    TcpStream::from_std(socket.into()).map_err(open)
}

fn datagrams(peer: SocketAddr, options: &SocketOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    socket.connect(&SockAddr::from(peer))?;
    UdpSocket::from_std(socket.into())
}

fn new_socket(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    prepare(&socket, options)?;
    Ok(socket)
}

/// Gives a socket, or a listener and thereby all it accepts, what every connection has: no delay, keepalive.
///
/// # Errors
/// The kernel refuses an option.
pub fn prepare(socket: &impl AsFd, options: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    set_keepalive(&socket, options)
}

/// Binds to an address of somebody else, so that the application sees its real client.
fn bind_foreign(socket: &Socket, source: IpAddr) -> io::Result<()> {
    match source {
        IpAddr::V4(_) => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
        }
        IpAddr::V6(_) => {
            ipv6_transparent(socket)?;
            socket.set_freebind_v6(true)?;
        }
    }
    // The port is chosen when the destination is known: one that is taken by bind is taken for all destinations.
    // A level-IP option serves IPv6 sockets too. A kernel without it runs out of ports sooner, and says so then.
    let _ = setsockopt(socket, sockopt::IpBindAddressNoPort, &true);
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}

fn set_keepalive(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if let Some(keepalive) = options.keepalive {
        let params = TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries);
        socket.set_tcp_keepalive(&params)?;
        if options.user_timeout {
            let total = keepalive.time + keepalive.interval * keepalive.retries;
            socket.set_tcp_user_timeout(Some(total))?;
        }
    }
    Ok(())
}

fn listen(address: SocketAddr, accepts: Accepts, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = new_socket(address, options)?;
    if accepts.local {
        prefer_congestion(&socket, options);
    }
    if address.is_ipv6() {
        // One listener serves both families; a pod without IPv4 or IPv6 loses nothing.
        socket.set_only_v6(false)?;
    }
    if accepts.transparent {
        socket.set_ip_transparent_v4(true).or_else(|e| if address.is_ipv6() { Ok(()) } else { Err(e) })?;
        if address.is_ipv6() {
            ipv6_transparent(&socket)?;
        }
    }
    // The successor of this process binds beside it, so that no connection is refused in between.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(options.backlog)?;
    TcpListener::from_std(socket.into())
}

/// The wildcard address to listen on: both families where the namespace has IPv6, else IPv4.
pub fn wildcard(ipv6: bool, port: u16) -> SocketAddr {
    if ipv6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() }
}

/// Where to listen instead of at `address`, which the system `refused`: a kernel without IPv6 still has IPv4, so the
/// address that stands for all of both stands for all of that. Nothing takes the place of any other address.
pub fn without_ipv6(address: SocketAddr, refused: &io::Error) -> Option<SocketAddr> {
    let has_none = matches!(refused.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
    let is_every = address.is_ipv6() && address.ip().is_unspecified();
    (has_none && is_every).then(|| wildcard(false, address.port()))
}

/// Asks for the local congestion control; a kernel that does not permit it keeps its default.
pub fn prefer_congestion(socket: &impl AsFd, options: &SocketOptions) {
    if let Some(name) = options.local_congestion {
        let _ = SockRef::from(socket).set_tcp_congestion(name.as_bytes());
    }
}

/// Makes the coming close of `stream` a reset instead of an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    // A socket that is already gone needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Where the connection was going before it was redirected here; the local address if it was not.
///
/// # Errors
/// The system's answer, when the socket is already gone.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let redirected = match stream.local_addr()? {
        local if local.ip().to_canonical().is_ipv4() => socket.original_dst_v4(),
        _ => socket.original_dst_v6(),
    };
    let found = redirected.ok().and_then(|address| address.as_socket());
    let address = match found {
        Some(address) => address,
        None => stream.local_addr()?,
    };
    Ok(ambit_types::canonical(address))
}

/// Whether the kernel lets this process use foreign addresses on its sockets.
pub fn may_be_transparent() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .is_ok_and(|socket| socket.set_ip_transparent_v4(true).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_all_gives_way_and_only_to_a_kernel_without_ipv6() {
        let rows = [
            ("[::]:15012", libc::EAFNOSUPPORT, Some("0.0.0.0:15012")),
            ("[::]:15017", libc::EADDRNOTAVAIL, Some("0.0.0.0:15017")),
            ("[::]:15012", libc::EADDRINUSE, None),
            ("[::]:80", libc::EACCES, None),
            ("[::1]:15012", libc::EAFNOSUPPORT, None),
            ("[fd00::1]:15012", libc::EADDRNOTAVAIL, None),
            ("0.0.0.0:15012", libc::EADDRNOTAVAIL, None),
        ];
        for (address, code, want) in rows {
            let instead = without_ipv6(address.parse().unwrap(), &io::Error::from_raw_os_error(code));
            assert_eq!(instead, want.map(|text| text.parse().unwrap()), "{address} {code}");
        }
        assert_eq!(without_ipv6("[::]:1".parse().unwrap(), &io::Error::other("no code")), None);
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_first_address_is_told_and_not_passed_over() {
        let own = SocketFactory::new(None, Arc::new(SocketOptions::default()));
        // Nobody has this one.
        let foreign = "[2001:db8::1]:0".parse().unwrap();
        let refused = own.listen_wide(foreign, Accepts::default()).unwrap_err();
        assert!(matches!(refused, SocketError::Open { address, .. } if address == foreign), "{refused}");
        let every =
            own.listen_wide(wildcard(true, 0), Accepts::default()).expect("every kernel has one of the two");
        assert_ne!(every.local_addr().unwrap().port(), 0);
    }
}
