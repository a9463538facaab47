//! The server: one port for HTTP/1.1, HTTP/2 by prior knowledge and gRPC, in clear or by TLS.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ambit_runtime::tasks;
use anyhow::Context as _;
use futures_util::future::try_join_all;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

mod app;
mod bodies;
mod chain;
mod conversation;
mod script;
mod tally;
mod tls;
mod wire;

pub(crate) use app::listed;
pub(crate) use bodies::{Body, empty, pattern, whole};

use app::App;
use wire::Wire;

/// Streams that one HTTP/2 connection may hold: more than any load of the tests opens.
const STREAMS: u32 = 2000;

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port, on every address; may be said again.
    #[arg(long, required = true)]
    port: Vec<u16>,
    /// Name told in `x-peer` and in answers.
    #[arg(long, default_value = "peer")]
    name: String,
    /// Speaks TLS with a certificate of its own making.
    #[arg(long)]
    tls: bool,
    /// Speaks TLS to who begins with it, and in clear to others.
    #[arg(long, conflicts_with = "tls")]
    sniff: bool,
}

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 0x16;

/// With whom TLS is spoken.
#[derive(Clone)]
enum Security {
    Clear,
    Tls(TlsAcceptor),
    Either(TlsAcceptor),
}

/// Serves until it is ended from outside.
///
/// # Errors
/// If a port cannot be had, or accepting fails for good.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let security = match (options.tls, options.sniff) {
        (true, _) => Security::Tls(tls::acceptor(&options.name)?),
        (false, true) => Security::Either(tls::acceptor(&options.name)?),
        (false, false) => Security::Clear,
    };
    let app = App::new(&options.name);
    let ports = options.port.iter().map(|port| accept(*port, app.at(*port), security.clone()));
    try_join_all(ports).await.map(drop)
}

async fn accept(port: u16, app: App, security: Security) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    // Of IPv6 and, as the kernel is set by default, IPv4.
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
    eprintln!("listens at {address}");
    loop {
        let (tcp, _) = listener.accept().await.context("accepting a connection")?;
        app.tally.connected();
        tasks::spawn("peer-connection", connection(tcp, app.clone(), security.clone()));
    }
}

async fn connection(tcp: TcpStream, app: App, security: Security) {
    // Only a delay, if it fails.
    let _ = tcp.set_nodelay(true);
    let acceptor = match security {
        Security::Clear => None,
        Security::Tls(acceptor) => Some(acceptor),
        Security::Either(acceptor) => {
            let mut first = [0; 1];
            match tcp.peek(&mut first).await {
                Ok(read) => (read == 1 && first[0] == HANDSHAKE).then_some(acceptor),
                Err(error) => return eprintln!("connection ended: {error}"),
            }
        }
    };
    let wire = Wire::new(tcp, acceptor.is_none());
    let control = wire.control();
    match acceptor {
        None => serve(TokioIo::new(wire), app, control).await,
        Some(acceptor) => match acceptor.accept(wire).await {
            Ok(stream) => serve(TokioIo::new(stream), app, control).await,
            Err(error) => eprintln!("TLS handshake: {error}"),
        },
    }
}

async fn serve<I>(io: I, app: App, control: Arc<wire::Control>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    let service = service_fn(move |request| {
        let (app, control) = (app.clone(), control.clone());
        async move { app.answer(request, &control).await }
    });
    if let Err(error) = builder.serve_connection_with_upgrades(io, service).await {
        eprintln!("connection ended: {error}");
    }
}
