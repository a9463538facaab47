//! The web console, made reachable on this machine: a lab serves it in the namespace of its control plane.
//!
//! Only loopback is listened on, and each connection is passed on as it is. In a cluster `kubectl port-forward` does the
//! same; the command is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_lab::programs::spec::CONSOLE;
use ambit_lab::rootless;
use ambit_net::linux::netns::NetNs;
use ambit_runtime::tasks;
use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::cmd::nodes::{Where, block_on};
use crate::out::{self, Failure};

/// Longest wait for the console to take a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Listens until interrupted.
///
/// # Errors
/// When there is no such lab, or the port is taken.
pub(super) fn open(at: &Where, port: u16) -> anyhow::Result<i32> {
    // There must be such a lab, and the words for it are there already.
    at.nodes()?;
    if rootless::is_inside() {
        let text = "the lab of a user without root keeps its console to itself; `ambit map` draws it here";
        return Err(Failure::new(out::FAILED, text).into());
    }
    let path = PathBuf::from(format!("/run/netns/{}-fabric", at.name));
    let fabric = NetNs::open(&path).context("finding the control plane's namespace; is the lab up?")?;
    let console: SocketAddr = CONSOLE.parse().context("the console's address")?;
    block_on(serve(Arc::new(fabric), console, port))
}

/// What to do in a cluster, whose API server leads there as well.
pub(super) fn in_cluster(namespace: &str, port: u16) -> Failure {
    let words = format!(
        "in a cluster kubectl makes the console reachable: kubectl port-forward -n {namespace} deployment/istiod-lite \
         {port}:15019, then open https://localhost:{port}/ with the token in Secret ambit-console; `ambit map` draws it here"
    );
    Failure::new(out::FAILED, words)
}

async fn serve(fabric: Arc<NetNs>, console: SocketAddr, port: u16) -> anyhow::Result<i32> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; take another --port if something is there"))?;
    out::data(&format!("http://{}/", listener.local_addr().context("asking for our own address")?));
    out::say("the console is reachable there until you press Ctrl-C");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.context("taking a connection of the browser")?;
                tasks::spawn("console-forward", forward(fabric.clone(), console, client));
            }
            _ = tokio::signal::ctrl_c() => return Ok(out::INTERRUPTED),
        }
    }
}

async fn forward(fabric: Arc<NetNs>, console: SocketAddr, mut client: TcpStream) {
    // Loopback of the namespace answers at once, or not at all.
    let connected = fabric.run(|| std::net::TcpStream::connect_timeout(&console, CONNECT));
    let reached = match connected {
        Ok(Ok(stream)) => stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)),
        Ok(Err(error)) => Err(error),
        Err(error) => return out::say(&format!("warning: the control plane's namespace is gone: {error}")),
    };
    match reached {
        // An end that goes away ends the other.
        Ok(mut console) => drop(copy_bidirectional(&mut client, &mut console).await),
        Err(error) => out::say(&format!("warning: the console does not answer: {error}")),
    }
}
