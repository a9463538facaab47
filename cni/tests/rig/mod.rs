//! Two namespaces joined by a cable, and sockets inside them: what the tests of the datapath stand on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambit_net::linux::netns::NetNs;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

pub(crate) mod ztunnel;

/// The proxy's mark.
pub(crate) const PROXY_MARK: u32 = 0x539;

/// How long a read may wait before the connection counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Whether namespaces can be made here. Fails the test if they must be (`AMBIT_REQUIRE_NETNS=1`) and cannot.
#[expect(clippy::disallowed_methods, reason = "the switch of the test run itself")]
pub(crate) fn possible(test: &str) -> bool {
    let hindrance = match NetNs::create_anonymous() {
        Ok(netns) => match netns.run(|| Command::new("nft").arg("--version").output()) {
            Ok(Ok(out)) if out.status.success() => return true,
            other => format!("nft does not run: {other:?}"),
        },
        Err(e) => format!("{e}: {:?}", std::error::Error::source(&e)),
    };
    assert!(
        std::env::var("AMBIT_REQUIRE_NETNS").as_deref() != Ok("1"),
        "{test} needs namespaces: {hindrance}"
    );
    eprintln!("{test} could not run here: {hindrance}");
    false
}

/// A namespace with a name, removed at the end.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) netns: NetNs,
}

impl Named {
    pub(crate) fn new(role: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("cnit-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let netns = NetNs::create_named(&name).unwrap();
        let named = Self { name, netns };
        named.sh("ip link set lo up");
        named
    }

    /// Runs a shell line inside the namespace.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        let out = self.netns.run(|| Command::new("sh").args(["-ec", line]).output()).unwrap().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = NetNs::remove_named(&self.name);
    }
}

/// A pod and a peer, one cable apart, with both address families.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) pod: Named,
    pub(crate) peer: Named,
}

/// The pod's addresses.
pub(crate) const POD: [&str; 2] = ["10.199.0.1", "fd00:199::1"];
/// The peer's addresses.
pub(crate) const PEER: [&str; 2] = ["10.199.0.2", "fd00:199::2"];

impl Rig {
    pub(crate) fn new() -> Self {
        let (pod, peer) = (Named::new("pod"), Named::new("peer"));
        pod.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", peer.name));
        for (side, addresses) in [(&pod, POD), (&peer, PEER)] {
            let [v4, v6] = addresses;
            side.sh(&format!(
                "ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad; ip link set eth0 up"
            ));
        }
        Self { pod, peer }
    }

    /// Pod and peer address of one family after the other.
    pub(crate) fn families() -> [(IpAddr, IpAddr); 2] {
        [0, 1].map(|i| (POD[i].parse().unwrap(), PEER[i].parse().unwrap()))
    }
}

/// Listens on `port` of every address, as the proxy does; transparent if asked.
pub(crate) fn listen(place: &Named, port: u16) -> TcpListener {
    place.netns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap().unwrap()
}

/// What a connection is opened with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Opening {
    pub(crate) mark: Option<u32>,
    pub(crate) from: Option<SocketAddr>,
}

/// Opens a connection from inside `place`.
pub(crate) fn connect(place: &Named, to: SocketAddr, how: Opening) -> std::io::Result<TcpStream> {
    place
        .netns
        .run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            if let Some(mark) = how.mark {
                socket.set_mark(mark)?;
            }
            if let Some(from) = how.from {
                match from {
                    SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                    SocketAddr::V6(_) => ambit_net::linux::sockopt::ipv6_transparent(&socket)?,
                }
                socket.set_reuse_address(true)?;
                socket.bind(&SockAddr::from(from))?;
            }
            socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
            Ok(TcpStream::from(socket))
        })
        .unwrap()
}

/// The next connection of `listener`, or a panic after [`PATIENCE`].
#[track_caller]
pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    SockRef::from(listener).set_read_timeout(Some(PATIENCE)).unwrap();
    let (stream, from) = listener.accept().expect("nobody came");
    (stream, canonical(from))
}

/// Nobody is waiting at `listener`.
#[track_caller]
pub(crate) fn assert_nobody(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let came = listener.accept();
    listener.set_nonblocking(false).unwrap();
    assert!(came.is_err(), "somebody came: {came:?}");
}

/// Where a redirected connection was going.
pub(crate) fn original_dst(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().unwrap();
    let original = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    canonical(original.unwrap().as_socket().unwrap())
}

pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Two ends of one connection.
#[derive(Debug)]
pub(crate) struct Pair(pub(crate) TcpStream, pub(crate) TcpStream);

impl Pair {
    /// Sends both ways and fails if either does not arrive.
    #[track_caller]
    pub(crate) fn exchange(&mut self, what: &str) {
        self.0.write_all(what.as_bytes()).unwrap();
        self.1.write_all(what.as_bytes()).unwrap();
        for end in [&mut self.1, &mut self.0] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = vec![0; what.len()];
            if let Err(e) = end.read_exact(&mut got) {
                panic!("{what}: {e} at {:?}", end.local_addr());
            }
            assert_eq!(got, what.as_bytes());
        }
    }

    /// Idle for the application, then one direction only: the first packet after a change comes from either side.
    #[track_caller]
    pub(crate) fn reverse(self) -> Self {
        Self(self.1, self.0)
    }
}
