//! The server's side of a WebSocket: sends back what it gets until the client closes.

use std::io;

use ambit_runtime::tasks;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Body, empty, whole};
use crate::websocket::{Kind, accept, read, write};

/// Answers a request to upgrade, and converses once the connection is free for it.
pub(super) fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).map(accept);
    let asked =
        request.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let (Some(key), true) = (key, asked) else {
        let mut answer = Response::new(whole("this path speaks WebSocket only\n"));
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return answer;
    };
    let upgrading = hyper::upgrade::on(&mut request);
    tasks::spawn("peer-websocket", async move {
        match upgrading.await {
            Ok(upgraded) => {
                if let Err(error) = converse(TokioIo::new(upgraded)).await {
                    eprintln!("WebSocket ended: {error}");
                }
            }
            Err(error) => eprintln!("upgrade failed: {error}"),
        }
    });
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    if let Ok(key) = http::HeaderValue::from_str(&key) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    }
    answer
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let (kind, payload) = read(&mut stream).await?;
        match kind {
            Kind::Text | Kind::Binary => write(&mut stream, kind, &payload, false).await?,
            Kind::Ping => write(&mut stream, Kind::Pong, &payload, false).await?,
            Kind::Pong => {}
            Kind::Close => return write(&mut stream, Kind::Close, &payload, false).await,
        }
    }
}
