//! Accept loops: one a listener, until the pod or the process drains.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::{INBOUND_CAPTURE_PORT, INBOUND_PORT, OUTBOUND_CAPTURE_PORT};
use ambit_net::linux::netns::NetNs;
use ambit_net::socket::{Accepts, SocketError, wildcard};
use ambit_runtime::{drain::Drain, tasks};
use ambit_types::Reason;
use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::proxy::{Pod, Proxy};
use crate::{inbound, outbound, passthrough};

/// Pause after a failed accept: exhausted descriptors must not become a busy loop (G35).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Connections taken from the queue of a listener that ends before other tasks get a turn.
const SWEEP_TURN: u32 = 64;

/// The three listeners of a pod, bound and not yet served.
#[derive(Debug)]
pub struct Listeners {
    tunnel: TcpListener,
    plaintext: TcpListener,
    outbound: TcpListener,
}

impl Listeners {
    /// Binds all three in the pod's namespace.
    ///
    /// # Errors
    /// [`SocketError`]; then none is left bound.
    pub fn bind(pod: &Pod, ipv6: bool) -> Result<Self, SocketError> {
        let bind = |port, accepts| pod.sockets.listen_wide(wildcard(ipv6, port), accepts);
        let plaintext = Accepts { transparent: pod.transparent, local: true };
        Ok(Self {
            tunnel: bind(INBOUND_PORT, Accepts::default())?,
            plaintext: bind(INBOUND_CAPTURE_PORT, plaintext)?,
            outbound: bind(OUTBOUND_CAPTURE_PORT, Accepts { local: true, ..Accepts::default() })?,
        })
    }

    /// Serves all three.
    pub fn serve(self, proxy: &Arc<Proxy>, pod: &Arc<Pod>) {
        accept(("accept-tunnel", "destination"), self.tunnel, proxy, pod, inbound::tunnel);
        accept(("accept-plaintext", "destination"), self.plaintext, proxy, pod, passthrough::plaintext);
        accept(("accept-outbound", "source"), self.outbound, proxy, pod, outbound::serve);
    }
}

/// An accepted socket that is counted until it is dropped.
struct OpenSocket(metrics::Gauge);

impl OpenSocket {
    fn counted(open: &metrics::Gauge) -> Self {
        open.increment(1.0);
        Self(open.clone())
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn accept<F>(
    (name, reporter): (&'static str, &'static str),
    listener: TcpListener,
    proxy: &Arc<Proxy>,
    pod: &Arc<Pod>,
    serve: impl Fn(Arc<Proxy>, Arc<Pod>, TcpStream, SocketAddr) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (proxy, served) = (proxy.clone(), pod.clone());
    let open = metrics::gauge!("istio_tcp_sockets_open", "reporter" => reporter);
    spawn(name, listener, &pod.drain, move |tcp, peer| {
        let socket = OpenSocket::counted(&open);
        let work = serve(proxy.clone(), served.clone(), tcp, peer);
        // Not an async block, which would keep room for the connection's state twice.
        let work = work.map(move |()| drop(socket));
        tasks::spawn("connection", served.drain.track(work));
    });
}

/// Starts a loop that hands every connection to `begin`, which must return at once, until `drain` begins; those that
/// wait in the queue at that moment are handed over as well, and `drain` waits for it.
pub fn spawn(
    name: &'static str,
    listener: TcpListener,
    drain: &Drain,
    mut begin: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
) {
    let (tracker, drain) = (drain.clone(), drain.clone());
    // Tracked, so that the end of the drain comes after the queue's.
    tasks::spawn(
        name,
        tracker.track(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = drain.draining() => break,
                };
                match accepted {
                    Ok((tcp, peer)) => begin(tcp, peer),
                    Err(error) => pause(name, &error).await,
                }
            }
            sweep(name, listener, &drain, begin).await;
        }),
    );
}

/// Takes what waits in the queue: it was promised a connection; the listener's end would reset it (G37).
///
/// Asks the kernel itself, because a task's budget, or an event that has not been seen yet, would end the sweep early.
async fn sweep(
    name: &str,
    listener: TcpListener,
    drain: &Drain,
    mut begin: impl FnMut(TcpStream, SocketAddr),
) {
    let Ok(listener) = listener.into_std() else { return };
    let mut taken = 0_u32;
    while !drain.is_forced() {
        match accept_now(&listener) {
            Ok((tcp, peer)) => begin(tcp, peer),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return,
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => pause(name, &error).await,
            },
        }
        taken += 1;
        if taken.is_multiple_of(SWEEP_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

fn accept_now(listener: &std::net::TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (tcp, peer) = listener.accept()?;
    tcp.set_nonblocking(true)?;
    Ok((TcpStream::from_std(tcp)?, peer))
}

async fn pause(listener: &str, error: &io::Error) {
    metrics::counter!("ambit_connections_refused_total", "code" => Reason::FdExhausted.code(), "policy" => "")
        .increment(1);
    warn!(listener, %error, code = Reason::FdExhausted.code(), "accepting a connection failed; shedding until it works");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// What the kernel of a pod's namespace permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// IPv6 sockets can be made.
    pub ipv6: bool,
    /// Sockets may carry foreign addresses.
    pub transparent: bool,
}

impl Permits {
    /// Tries it out inside the namespace; also asks the kernel to hand queued connections of a closing listener to
    /// its successor, where it can.
    pub fn probe(netns: Option<&NetNs>) -> Self {
        let probe = || {
            // Best effort: without it a handover may reset a connection that was queued but not accepted.
            let _ = std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1");
            let ipv6 = std::net::TcpListener::bind("[::]:0").is_ok();
            Self { ipv6, transparent: ambit_net::socket::may_be_transparent() }
        };
        match netns {
            Some(netns) => netns.run(probe).unwrap_or(Self { ipv6: false, transparent: false }),
            None => probe(),
        }
    }
}
