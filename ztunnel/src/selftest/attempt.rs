//! One attempt of the self-test: real sockets on loopback, the node's own code at both ends.
//!
//! What counts is whether bytes that nobody else can know reach the application, not what a log says of it.

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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;

use super::Test;
use super::issuer::Life;
use super::stage::{ALLOWED, DENIED, LOOPBACK, NOBODY, SERVER, Stage};
use crate::admit::describe;
use crate::telemetry::FlowRecord;
use crate::{inbound, passthrough, random};

/// Longest time of one attempt; the steps inside have limits of their own, which the node's settings may make longer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the server's own word on why it refused, once the caller has seen that it did.
const RECORD_WAIT: Duration = Duration::from_secs(1);

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

/// Makes one attempt.
pub(super) async fn attempt(stage: &Stage, test: Test) -> Tried {
    let work = async {
        match test {
            Test::Allowed => tunnelled(stage, test, ALLOWED, Life::Good, SERVER).await,
            Test::Denied => tunnelled(stage, test, DENIED, Life::Good, SERVER).await,
            Test::WrongIdentity => tunnelled(stage, test, ALLOWED, Life::Good, NOBODY).await,
            Test::ExpiredCertificate => tunnelled(stage, test, ALLOWED, Life::RunOut, SERVER).await,
            Test::Plaintext => plaintext(stage, test).await,
        }
    };
    let late = || Err(format!("nothing came of it within {ATTEMPT_TIMEOUT:?}"));
    let done = tokio::time::timeout(ATTEMPT_TIMEOUT, work).await.unwrap_or_else(|_| late());
    done.unwrap_or_else(Tried::Undone)
}

/// A tunnel of `caller`, who expects to reach `expected`.
async fn tunnelled(
    stage: &Stage,
    test: Test,
    caller: &str,
    life: Life,
    expected: &str,
) -> Result<Tried, String> {
    let credential = stage.issuer.credential(&stage.identity(caller), life)?;
    let (door, app) = (Place::open().await?, Place::open().await?);
    let mut news = stage.proxy.telemetry.ring().follow();
    let (nonce, arrived): (Nonce, _) = (random::bytes(), AtomicBool::new(false));
    let serve = async {
        if let Ok((tcp, peer)) = door.listener.accept().await {
            inbound::tunnel(stage.proxy.clone(), stage.pod.clone(), tcp, peer).await;
        }
    };
    let others = async { tokio::join!(serve, application(&app.listener, &nonce, &arrived)) };
    let work = async {
        let asked = ask(stage, &credential, expected, (door.address, app.address)).await;
        match asked {
            Ok(opened) => Tried::Through { answered: exchange(opened, &nonce).await },
            Err(_) if arrived.load(Ordering::SeqCst) => Tried::Through { answered: false },
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
) -> Result<Opened, TunnelError> {
    let settings = &stage.proxy.settings.tunnel;
    let limit = stage.proxy.settings.connect_timeout;
    let tcp = stage.pod.sockets.connect(door, None, limit).await;
    let tcp = tcp.map_err(|error| TunnelError::Connect(Arc::new(error)))?;
    let expected = [stage.identity(expected)];
    let connected = client::connect(credential, &expected, tcp, door, settings.handshake_timeout)
        .await
        .map_err(|error| TunnelError::Tls(Arc::new(error)))?;
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

/// A connection without TLS, handed to the code that takes plaintext.
async fn plaintext(stage: &Stage, test: Test) -> Result<Tried, String> {
    let door = Place::open().await?;
    let mut news = stage.proxy.telemetry.ring().follow();
    let (nonce, arrived): (Nonce, _) = (random::bytes(), AtomicBool::new(false));
    // Nothing is redirected here, so that the destination is the door itself: what is let in comes to it once more.
    let others = async {
        if let Ok((tcp, peer)) = door.listener.accept().await {
            let serve = passthrough::plaintext(stage.proxy.clone(), stage.pod.clone(), tcp, peer);
            tokio::join!(serve, application(&door.listener, &nonce, &arrived));
        }
    };
    let work = async {
        let answer = say(door.address, &nonce).await;
        let through = arrived.load(Ordering::SeqCst);
        match answer {
            Ok(back) if back == nonce => Tried::Through { answered: true },
            Ok(_) | Err(_) if through => Tried::Through { answered: false },
            Ok(_) => Tried::Undone("somebody else answered".to_owned()),
            Err(error) => {
                Tried::Refused { code: told(&mut news, test.want()).await, detail: error.to_string() }
            }
        }
    };
    Ok(beside(work, others).await)
}

/// Sends the bytes as they are, and reads as many.
async fn say(to: SocketAddr, nonce: &Nonce) -> io::Result<Nonce> {
    let mut tcp = TcpStream::connect(to).await?;
    tcp.write_all(nonce).await?;
    let mut answer = [0; 16];
    tcp.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The application: gives back the bytes it expects, and notes that they came; others it does not answer.
async fn application(listener: &TcpListener, nonce: &Nonce, arrived: &AtomicBool) {
    let Ok((mut tcp, _)) = listener.accept().await else { return };
    let mut said = [0; 16];
    if tcp.read_exact(&mut said).await.is_ok() && said == *nonce {
        arrived.store(true, Ordering::SeqCst);
        // Whether the answer arrives is seen at the other end.
        let _ = tcp.write_all(&said).await;
        let _ = tcp.shutdown().await;
    }
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
}
