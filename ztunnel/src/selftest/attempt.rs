//! One attempt of the self-test: real sockets on loopback, the node's own code at both ends.
//!
//! What counts is whether bytes that nobody else can know reach the application, not what a log says of it. Loopback
//! belongs to every program of the node, so the door serves only the connection that the attempt itself opened, and the
//! application only whoever says those bytes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ambit_hbone::request::Connect;
use ambit_net::tls::{Credential, client};
use ambit_net::tunnel;
use ambit_net::tunnel::client::{Opened, TunnelError};
use ambit_types::Reason;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::abortable;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::oneshot;

use super::Test;
use super::issuer::Life;
use super::stage::{ALLOWED, App, DENIED, LOOPBACK, NOBODY, SERVER, Stage};
use crate::admit::describe;
use crate::telemetry::FlowRecord;
use crate::{inbound, passthrough, random};

#[cfg(test)]
mod tests;

/// Longest wait for the server's own word on why it refused, once the caller has seen that it did.
const RECORD_WAIT: Duration = Duration::from_secs(1);
/// Connections that the application listens to at once; one more ends the oldest, since only others hold on in silence.
const GUESTS_MAX: usize = 64;
/// Pause after a failed accept, so that exhausted descriptors do not become a busy loop (G35).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of one attempt.
type Nonce = [u8; 16];

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tried {
    /// The connection was let in; `answered` says whether the application answered it too.
    Through {
        /// The bytes came back.
        answered: bool,
    },
    /// It was not let in.
    Refused {
        /// Why, as far as either end told.
        code: Option<Reason>,
        /// The same in words.
        detail: String,
    },
    /// It could not be tried, so that nothing is known.
    Undone(String),
}

/// That an attempt was let in, whatever becomes of it afterwards: once noted it stays, also where the attempt hangs.
#[derive(Debug, Default)]
struct LetIn(AtomicBool);

impl LetIn {
    fn note(&self) {
        let Self(noted) = self;
        noted.store(true, Ordering::SeqCst);
    }

    fn is_noted(&self) -> bool {
        let Self(noted) = self;
        noted.load(Ordering::SeqCst)
    }
}

/// Makes one attempt.
pub(super) async fn attempt(stage: &Stage, test: Test) -> Tried {
    let let_in = LetIn::default();
    let work = async {
        match test {
            Test::Allowed => tunnelled(stage, test, ALLOWED, Life::Good, SERVER, &let_in).await,
            Test::Denied => tunnelled(stage, test, DENIED, Life::Good, SERVER, &let_in).await,
            Test::WrongIdentity => tunnelled(stage, test, ALLOWED, Life::Good, NOBODY, &let_in).await,
            Test::ExpiredCertificate => tunnelled(stage, test, ALLOWED, Life::RunOut, SERVER, &let_in).await,
            Test::Plaintext => plaintext(stage, test, &let_in).await,
        }
    };
    let done = tokio::time::timeout(stage.patience, work).await;
    match done {
        Ok(done) => done.unwrap_or_else(Tried::Undone),
        // That nothing came of it afterwards does not undo that it was let in.
        Err(_) if let_in.is_noted() => Tried::Through { answered: false },
        Err(_) => Tried::Undone(format!("nothing came of it within {:?}", stage.patience)),
    }
}

/// A tunnel of `caller`, who expects to reach `expected`.
async fn tunnelled(
    stage: &Stage,
    test: Test,
    caller: &str,
    life: Life,
    expected: &str,
    let_in: &LetIn,
) -> Result<Tried, String> {
    let credential = stage.issuer.credential(&stage.identity(caller), life)?;
    let (door, app) = (Place::open().await?, Place::open().await?);
    let mut news = stage.proxy.telemetry.ring().follow();
    let nonce: Nonce = random::bytes();
    let (tell, own) = oneshot::channel();
    let serve = async {
        if let Some((tcp, peer)) = door.only(own).await {
            inbound::tunnel(stage.proxy.clone(), stage.pod.clone(), tcp, peer).await;
        }
    };
    let others = async { tokio::join!(serve, application(&app.listener, stage.app, &nonce, let_in)) };
    let work = async {
        let asked = ask(stage, &credential, expected, (door.address, app.address), (tell, let_in)).await;
        match asked {
            Ok(opened) => {
                let_in.note();
                Tried::Through { answered: exchange(opened, &nonce).await }
            }
            Err(_) if let_in.is_noted() => Tried::Through { answered: false },
            Err(error) => {
                let (code, detail) = (error.reason(), describe(&error));
                let told = if test.want() == Some(code) { None } else { told(&mut news, test.want()).await };
                Tried::Refused { code: told.or(Some(code)), detail }
            }
        }
    };
    Ok(beside(work, others).await)
}

/// The caller's end of a tunnel, with the code that carries the node's own connections.
async fn ask(
    stage: &Stage,
    credential: &Credential,
    expected: &str,
    (door, app): (SocketAddr, SocketAddr),
    (tell, let_in): (oneshot::Sender<SocketAddr>, &LetIn),
) -> Result<Opened, TunnelError> {
    let settings = &stage.proxy.settings.tunnel;
    let limit = stage.proxy.settings.connect_timeout;
    let tcp = stage.pod.sockets.connect(door, None, limit).await;
    let tcp = tcp.map_err(|error| TunnelError::Connect(Arc::new(error)))?;
    introduce(&tcp, tell);
    let is_nobody = expected == NOBODY;
    let expected = [stage.identity(expected)];
    let connected = client::connect(credential, &expected, tcp, door, settings.handshake_timeout)
        .await
        .map_err(|error| TunnelError::Tls(Arc::new(error)))?;
    if is_nobody {
        // Somebody passed for a server that nobody is: whatever comes now would be told to the wrong one.
        let_in.note();
    }
    let tunnel = tunnel::client::open(connected, door, credential.not_after(), settings.clone()).await?;
    let draws = random::draws();
    let connect = Connect {
        authority: &app.to_string(),
        baggage: "",
        forwarded: "",
        conn_id: draws.id,
        span: draws.span,
    };
    let request = connect.request().map_err(|error| TunnelError::Request(error.to_string()))?;
    tunnel.connect(request, settings).await
}

/// Sends the bytes through an open stream; whether they came back.
async fn exchange(opened: Opened, nonce: &Nonce) -> bool {
    let Opened { mut send, mut recv, .. } = opened;
    if send.send_data(Bytes::copy_from_slice(nonce), true).is_err() {
        return false;
    }
    let mut answer = Vec::with_capacity(nonce.len());
    while answer.len() < nonce.len() {
        let Some(Ok(chunk)) = recv.data().await else { break };
        answer.extend_from_slice(&chunk);
    }
    answer == nonce
}

/// Tells the door which connection is the attempt's.
fn introduce(tcp: &TcpStream, tell: oneshot::Sender<SocketAddr>) {
    // A connection without an address ends as one that nobody serves, and a door that is gone needs none.
    if let Ok(own) = tcp.local_addr() {
        let _ = tell.send(own);
    }
}

/// A connection without TLS, handed to the code that takes plaintext.
async fn plaintext(stage: &Stage, test: Test, let_in: &LetIn) -> Result<Tried, String> {
    let door = Place::open().await?;
    let mut news = stage.proxy.telemetry.ring().follow();
    let nonce: Nonce = random::bytes();
    let (tell, own) = oneshot::channel();
    // Nothing is redirected here, so that the destination is the door itself: what is let in comes to it once more.
    let others = async {
        if let Some((tcp, peer)) = door.only(own).await {
            let serve = passthrough::plaintext(stage.proxy.clone(), stage.pod.clone(), tcp, peer);
            tokio::join!(serve, application(&door.listener, stage.app, &nonce, let_in));
        }
    };
    let work = async {
        match say(door.address, &nonce, tell).await {
            Ok(back) if back == nonce => Tried::Through { answered: true },
            Ok(_) | Err(_) if let_in.is_noted() => Tried::Through { answered: false },
            Ok(_) => Tried::Undone("somebody else answered".to_owned()),
            Err(error) => {
                Tried::Refused { code: told(&mut news, test.want()).await, detail: error.to_string() }
            }
        }
    };
    Ok(beside(work, others).await)
}

/// Sends the bytes as they are, and reads as many.
async fn say(to: SocketAddr, nonce: &Nonce, tell: oneshot::Sender<SocketAddr>) -> io::Result<Nonce> {
    let mut tcp = TcpStream::connect(to).await?;
    introduce(&tcp, tell);
    tcp.write_all(nonce).await?;
    let mut answer = [0; 16];
    tcp.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The application: gives back the bytes it expects, to whoever says them, and notes that they came. Others on this
/// node may come as well, and first; they are not answered, and cannot keep the attempt's own connection out.
async fn application(listener: &TcpListener, app: App, nonce: &Nonce, let_in: &LetIn) {
    let mut guests = FuturesUnordered::new();
    let mut ends = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    let (guest, end) = abortable(attend(tcp, app, nonce, let_in));
                    guests.push(guest);
                    ends.push_back(end);
                    if ends.len() > GUESTS_MAX && let Some(oldest) = ends.pop_front() {
                        oldest.abort();
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // How one ended is nothing to anybody: what counts is noted.
            Some(_) = guests.next() => {}
        }
    }
}

/// One connection of the application.
async fn attend(mut tcp: TcpStream, app: App, nonce: &Nonce, let_in: &LetIn) {
    let mut said = [0; 16];
    if !app.reads {
        return std::future::pending().await;
    }
    if tcp.read_exact(&mut said).await.is_err() || said != *nonce {
        return;
    }
    let_in.note();
    if !app.answers {
        return std::future::pending().await;
    }
    // Whether the answer arrives is seen at the other end.
    let _ = tcp.write_all(&said).await;
    let _ = tcp.shutdown().await;
}

/// What the server recorded: the wanted code rather than that of an earlier attempt whose record comes late.
async fn told(news: &mut Receiver<FlowRecord>, want: Option<Reason>) -> Option<Reason> {
    let mut last = None;
    let look = async {
        while let Ok(record) = news.recv().await {
            last = code_of(&record).or(last);
            if last.is_some() && last == want {
                return;
            }
        }
    };
    // Who says nothing in time leaves what is known so far.
    let _ = tokio::time::timeout(RECORD_WAIT, look).await;
    last
}

fn code_of(record: &FlowRecord) -> Option<Reason> {
    record.to_json()["code"].as_str()?.parse().ok()
}

/// Does `work` to its end while `others` go on beside it, however early those end; what is left of them is dropped.
async fn beside<T, U>(work: impl Future<Output = T>, others: impl Future<Output = U>) -> T {
    let others = async {
        let _ = others.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        done = work => done,
        never = others => match never {},
    }
}

/// Somewhere to connect to, for one attempt.
struct Place {
    listener: TcpListener,
    address: SocketAddr,
}

impl Place {
    async fn open() -> Result<Self, String> {
        let open = async {
            let listener = TcpListener::bind((LOOPBACK, 0)).await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>(Self { listener, address })
        };
        open.await.map_err(|error| format!("listening on loopback: {error}"))
    }

    /// The one connection that comes from the address that is told, which is nobody else's while it lasts; whoever else
    /// comes is sent away unheard. None if no address is told.
    async fn only(&self, own: oneshot::Receiver<SocketAddr>) -> Option<(TcpStream, SocketAddr)> {
        let own = own.await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((tcp, peer)) if peer == own => return Some((tcp, peer)),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}
