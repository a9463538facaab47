//! Accept loops: one a listener, until the pod or the process drains.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::{INBOUND_CAPTURE_PORT, INBOUND_PORT, OUTBOUND_CAPTURE_PORT};
use ambit_net::linux::netns::NetNs;
use ambit_net::socket::{SocketError, wildcard};
use ambit_runtime::tasks;
use ambit_types::Reason;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::proxy::{Pod, Proxy};
use crate::{inbound, outbound, passthrough};

/// Pause after a failed accept: exhausted descriptors must not become a busy loop (G35).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
        let bind = |port, transparent| pod.sockets.listen(wildcard(ipv6, port), transparent);
        Ok(Self {
            tunnel: bind(INBOUND_PORT, false)?,
            plaintext: bind(INBOUND_CAPTURE_PORT, pod.transparent)?,
            outbound: bind(OUTBOUND_CAPTURE_PORT, false)?,
        })
    }

    /// Serves all three.
    pub fn serve(self, proxy: &Arc<Proxy>, pod: &Arc<Pod>) {
        accept("accept-tunnel", self.tunnel, proxy, pod, inbound::tunnel);
        accept("accept-plaintext", self.plaintext, proxy, pod, passthrough::plaintext);
        accept("accept-outbound", self.outbound, proxy, pod, outbound::serve);
    }
}

fn accept<F>(
    name: &'static str,
    listener: TcpListener,
    proxy: &Arc<Proxy>,
    pod: &Arc<Pod>,
    serve: impl Fn(Arc<Proxy>, Arc<Pod>, TcpStream, SocketAddr) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (proxy, pod) = (proxy.clone(), pod.clone());
    tasks::spawn(name, async move {
        let begin = |tcp, peer| {
            tasks::spawn("connection", pod.drain.track(serve(proxy.clone(), pod.clone(), tcp, peer)));
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = pod.drain.draining() => break,
            };
            match accepted {
                Ok((tcp, peer)) => begin(tcp, peer),
                Err(error) => pause(name, &error).await,
            }
        }
        // What waits in the queue was promised a connection; the listener's end would reset it (G37).
        while let Some(Ok((tcp, peer))) = now(listener.accept()).await {
            begin(tcp, peer);
        }
    });
}

/// The result of `work` if it is there at once.
async fn now<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        result = work => Some(result),
        () = std::future::ready(()) => None,
    }
}

async fn pause(listener: &str, error: &std::io::Error) {
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
