//! The server: greets with its name, sends every frame back, tells at the end what it saw.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_runtime::tasks;
use bytes::BytesMut;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::connection::{Hello, broken, stopped};
use super::frame::{Faults, Frame, Kind, Sequencer, Verifier, decode};
use super::summary::Failure;
use super::{Event, Events};

/// Connections that are served at once; the next ones wait to be accepted.
const CONNECTIONS_MAX: usize = 60_000;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Pause after a failure that the next attempt would repeat at once, such as no free descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The name it gives.
    pub name: String,
    /// Whether it speaks first.
    pub speaks_first: bool,
    /// How long it goes on as before once it is told to stop, so that nobody who was sent here is turned away.
    pub linger: Duration,
}

/// What a server saw until it was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections on which everything was said.
    pub completed: u64,
    /// Connections that ended without a byte: a health check does that.
    pub silent: u64,
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// What was wrong with frames.
    pub faults: Faults,
    /// Connections that ended early, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// The first failure's text.
    pub first_error: Option<String>,
}

/// Opens the server's socket.
///
/// # Errors
/// The system's answer.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` holds true and the server's linger time is over.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    events: Events,
    mut stop: watch::Receiver<bool>,
) -> Served {
    let served = Arc::new(Mutex::new(Served::default()));
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    if let Ok(address) = listener.local_addr() {
        events(Event::Listening { address, server: server.name.clone() });
    }
    let server = Arc::new(server);
    let linger = server.linger;
    let over = async move {
        stopped(&mut stop).await;
        tokio::time::sleep(linger).await;
    };
    let mut over = std::pin::pin!(over);
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut over => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, served) = (Arc::clone(&server), Arc::clone(&served));
                locked(&served).accepted += 1;
                tasks::spawn("echoer connection", async move {
                    let _permit = permit;
                    converse(stream, peer, &server, &served).await;
                });
            }
            Err(error) => {
                let (_, text) = broken(error);
                locked(&served).first_error.get_or_insert_with(|| format!("accepting: {text}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    locked(&served).clone()
}

fn locked(served: &Mutex<Served>) -> std::sync::MutexGuard<'_, Served> {
    served.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(stream: TcpStream, peer: SocketAddr, server: &Server, served: &Mutex<Served>) {
    let mut one = Conversation {
        stream,
        peer,
        server,
        buffer: BytesMut::new(),
        out: BytesMut::new(),
        verifier: Verifier::new(None),
        sequencer: Sequencer::default(),
    };
    let result = one.run().await;
    let report = one.verifier.report();
    let mut served = locked(served);
    served.bytes += report.bytes;
    served.faults.add(&report.faults);
    match result {
        Ok(()) => served.completed += 1,
        Err(_) if report.frames == 0 && one.buffer.is_empty() => served.silent += 1,
        Err((failure, text)) => {
            *served.failures.entry(failure).or_default() += 1;
            served.first_error.get_or_insert(text);
        }
    }
}

struct Conversation<'a> {
    stream: TcpStream,
    peer: SocketAddr,
    server: &'a Server,
    buffer: BytesMut,
    out: BytesMut,
    verifier: Verifier,
    sequencer: Sequencer,
}

type Failed = (Failure, String);

impl Conversation<'_> {
    async fn run(&mut self) -> Result<(), Failed> {
        self.stream.set_nodelay(true).map_err(broken)?;
        if self.server.speaks_first {
            self.greet(0).await?;
        }
        loop {
            let frame = self.next().await?;
            self.verifier.accept(&frame);
            match frame.kind {
                Kind::Hello => {
                    self.sequencer.stream = frame.stream;
                    if !self.server.speaks_first {
                        self.greet(frame.sent_us).await?;
                    }
                }
                Kind::Data => self.send(Kind::Data, frame.sent_us, &frame.payload).await?,
                Kind::End => {
                    let report = serde_json::to_vec(self.verifier.report())
                        .map_err(|e| (Failure::Local, e.to_string()))?;
                    self.send(Kind::End, frame.sent_us, &report).await?;
                    // The client's close comes next or has come already; ours goes out now.
                    return self.stream.shutdown().await.map_err(broken);
                }
            }
        }
    }

    async fn greet(&mut self, sent_us: u64) -> Result<(), Failed> {
        let peer = self.peer.ip().to_canonical();
        let hello = Hello { server: self.server.name.clone(), peer };
        let hello = serde_json::to_vec(&hello).map_err(|e| (Failure::Local, e.to_string()))?;
        self.send(Kind::Hello, sent_us, &hello).await
    }

    async fn send(&mut self, kind: Kind, sent_us: u64, payload: &[u8]) -> Result<(), Failed> {
        self.out.clear();
        self.sequencer.encode(kind, sent_us, payload, &mut self.out);
        self.stream.write_all(&self.out).await.map_err(broken)
    }

    async fn next(&mut self) -> Result<Frame, Failed> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).map_err(|e| (Failure::Garbage, e.to_string()))? {
                return Ok(frame);
            }
            // Room is made when bytes come: an idle connection keeps none.
            if self.buffer.is_empty() {
                (self.buffer, self.out) = (BytesMut::new(), BytesMut::new());
                self.stream.readable().await.map_err(broken)?;
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                let text = format!("{} closed before its last frame", self.peer);
                return Err((Failure::Truncated, text));
            }
        }
    }
}
