//! Sending one probe and judging the answer. Which probe, and what follows, is not decided here.
//!
//! Sockets are made in the node's namespace, so that the pod sees one of its node's own addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use super::probe::{Check, Probe};
use super::{ExecInPod, Patient, grpc, tls};
use crate::link::Place;

/// How probes introduce themselves, as a kubelet of the API's version does.
const AGENT: &str = "kube-probe/1.35";

/// Sends probes to one container.
pub(super) struct Prober {
    node: Arc<Place>,
    address: IpAddr,
    container: String,
    exec: ExecInPod,
}

impl Prober {
    pub(super) fn new(patient: &Patient, container: &str) -> Self {
        Self {
            node: Arc::clone(&patient.node),
            address: patient.address,
            container: container.to_owned(),
            exec: Arc::clone(&patient.exec),
        }
    }

    /// Sends the probe; an error says what was wrong with the answer.
    pub(super) async fn run(&self, probe: &Probe) -> Result<(), String> {
        let answer = tokio::time::timeout(probe.timeout, self.ask(&probe.check)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", probe.timeout.as_secs())))
    }

    async fn ask(&self, check: &Check) -> Result<(), String> {
        match check {
            Check::Http { tls, host, port, path, headers } => {
                let (stream, target) = self.reach(host.as_deref(), *port).await?;
                let request = request(&target.to_string(), path, headers)?;
                let status = if *tls {
                    get(tls::wrap(stream, target.ip()).await?, request).await
                } else {
                    get(stream, request).await
                };
                judge(status?)
            }
            Check::Tcp { host, port } => self.reach(host.as_deref(), *port).await.map(|_| ()),
            Check::Exec(command) => match (self.exec)(self.container.clone(), command.clone()).await? {
                0 => Ok(()),
                code => Err(format!("{} ended with exit code {code}", command.join(" "))),
            },
            Check::Grpc { port, service } => {
                let (stream, target) = self.reach(None, *port).await?;
                grpc::check(stream, &target.to_string(), service).await
            }
        }
    }

    /// Connects from the node; also returns the target's address.
    async fn reach(&self, host: Option<&str>, port: u16) -> Result<(TcpStream, SocketAddr), String> {
        let address = match host.map(|h| (h, h.parse::<IpAddr>())) {
            None => self.address,
            Some((_, Ok(address))) => address,
            Some((name, Err(_))) => {
                return Err(format!("host {name} is no address; leave it out to probe the pod itself"));
            }
        };
        let target = SocketAddr::new(address, port);
        let socket = self.node.netns.run(|| socket_for(target)).map_err(|e| e.to_string())?;
        let stream = match socket {
            Ok(socket) => socket.connect(target).await,
            Err(e) => Err(e),
        };
        stream.map(|s| (s, target)).map_err(|e| format!("connecting to {target}: {e}"))
    }
}

fn socket_for(target: SocketAddr) -> io::Result<TcpSocket> {
    if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn request(
    authority: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path).body(Empty::new()).map_err(|e| format!("path {path}: {e}"))?;
    let own = request.headers_mut();
    own.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    own.insert(ACCEPT, HeaderValue::from_static("*/*"));
    own.insert(CONNECTION, HeaderValue::from_static("close"));
    own.insert(HOST, HeaderValue::from_str(authority).map_err(|e| e.to_string())?);
    for (name, value) in headers {
        let wrong = |e: &dyn std::fmt::Display| format!("header {name}: {e}");
        let name_of = HeaderName::try_from(name.as_str()).map_err(|e| wrong(&e))?;
        let value = HeaderValue::from_str(value).map_err(|e| wrong(&e))?;
        own.insert(name_of, value);
    }
    Ok(request)
}

fn judge(status: u16) -> Result<(), String> {
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP status {status}")) }
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<u16, String> {
    let failed = |e: hyper::Error| format!("speaking HTTP: {}", with_causes(&e));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let response: Response<Incoming> =
        beside(connection, sender.send_request(request)).await.map_err(failed)?;
    Ok(response.status().as_u16())
}

/// Drives a connection while `work` uses it; the end of the connection alone does not end the work.
pub(super) async fn beside<R>(connection: impl Future, work: impl Future<Output = R>) -> R {
    let (connection, work) = (std::pin::pin!(connection), std::pin::pin!(work));
    match futures_util::future::select(work, connection).await {
        futures_util::future::Either::Left((result, _)) => result,
        futures_util::future::Either::Right((_, work)) => work.await,
    }
}

/// An error with everything that caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
