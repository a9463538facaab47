//! Cluster DNS of a lab: answers for `cluster.local` inside each node's namespace, over UDP and TCP.
//!
//! [`Table`] and [`answer()`] decide, pure; the functions here only carry messages. Every query reads the table
//! anew, so a change is seen by the next one. There is no way out of a lab: other names are refused at once.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ambit_net::linux::netns::NetNs;
use ambit_runtime::tasks;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::address::{Families, dns};
use crate::error::LabError;

mod answer;
mod table;

pub use answer::{Transport, answer};
pub use table::Table;

/// The port of DNS.
const PORT: u16 = 53;
/// Longest query that is read, in bytes; longer ones cannot be a single question.
const QUERY_BYTES_MAX: usize = 4096;
/// TCP connections that are served at once on one address; the next ones wait to be accepted.
const TCP_CONNECTIONS_MAX: usize = 128;
/// How long a TCP connection may sit without a query.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Pause after a failure that the next attempt would repeat at once, such as no free descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The table as its readers see it.
pub type Tables = watch::Receiver<Arc<Table>>;

/// The sockets of one node's DNS, bound and not yet served.
#[derive(Debug)]
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// Binds the cluster DNS's addresses inside a node's namespace, which has to have them.
///
/// # Errors
/// If the namespace cannot be entered or an address is not there or taken.
pub fn open(node: &NetNs, families: Families) -> Result<Sockets, LabError> {
    let bound = node.run_on_thread(|| {
        let all: Result<Vec<(UdpSocket, TcpListener)>, (IpAddr, io::Error)> =
            dns(families).into_iter().map(|a| bind(a).map_err(|e| (a, e))).collect();
        all
    })?;
    let fail = |(address, cause): (IpAddr, io::Error)| {
        LabError::file("binding cluster DNS to", SocketAddr::new(address, PORT).to_string())(cause)
    };
    let (udp, tcp) = bound.map_err(fail)?.into_iter().unzip();
    Ok(Sockets { udp, tcp })
}

fn bind(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((address, PORT))?;
    let tcp = TcpListener::bind((address, PORT))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

/// Answers until dropped, or until nobody can change the table any more.
///
/// # Errors
/// If the sockets cannot be handed to the runtime.
pub async fn serve(sockets: Sockets, tables: Tables) -> Result<(), LabError> {
    let fail = |cause| LabError::file("serving", "cluster DNS")(cause);
    let udp: Vec<_> = sockets
        .udp
        .into_iter()
        .map(tokio::net::UdpSocket::from_std)
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    let tcp: Vec<_> = sockets
        .tcp
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    let over_udp = join_all(udp.iter().map(|socket| serve_udp(socket, &tables)));
    let over_tcp = join_all(tcp.iter().map(|listener| serve_tcp(listener, &tables)));
    let mut end = tables.clone();
    let gone = async move { while end.changed().await.is_ok() {} };
    tokio::select! {
        _ = over_udp => {}
        _ = over_tcp => {}
        () = gone => {}
    }
    Ok(())
}

async fn serve_udp(socket: &tokio::net::UdpSocket, tables: &Tables) {
    let mut query = [0u8; QUERY_BYTES_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            Err(error) => {
                // An unreachable client's ICMP arrives here as well; the socket goes on.
                tracing::debug!(%error, "receiving a DNS query");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let table = Arc::clone(&tables.borrow());
        let Some(reply) = answer(&table, &query[..length], Transport::Udp) else { continue };
        if let Err(error) = socket.send_to(&reply, client).await {
            tracing::debug!(%error, %client, "sending a DNS answer");
        }
    }
}

async fn serve_tcp(listener: &tokio::net::TcpListener, tables: &Tables) {
    let free = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let tables = tables.clone();
                tasks::spawn("dns connection", async move {
                    let _permit = permit;
                    if let Err(error) = converse(stream, &tables).await {
                        tracing::debug!(%error, %client, "a DNS connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the queries of one TCP connection, each behind its length (RFC 1035 section 4.2.2).
async fn converse(mut stream: TcpStream, tables: &Tables) -> io::Result<()> {
    loop {
        let length = match timeout(TCP_IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Ok(()),
        };
        if length > QUERY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a query of {length} bytes")));
        }
        let mut query = vec![0; length];
        timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        let table = Arc::clone(&tables.borrow());
        let Some(reply) = answer(&table, &query, Transport::Tcp) else { return Ok(()) };
        let mut framed = u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        framed.extend(reply);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}
