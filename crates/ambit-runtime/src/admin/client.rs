//! Asking another program's admin socket.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::tasks;

/// Longest wait for a whole answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer taken whole; that of a large mesh is some tens of megabytes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody listens.
    #[error("connecting to {path}; is the program running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The answer broke off.
    #[error("reading the answer of {path} to {what}")]
    Http {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        what: String,
        /// The cause.
        #[source]
        cause: hyper::Error,
    },
    /// What was asked is no path.
    #[error("{what:?} is no path")]
    Path {
        /// What was asked.
        what: String,
    },
    /// The answer is longer than anything these programs say.
    #[error("the answer of {path} to {what} is longer than {BODY_BYTES_MAX} bytes")]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        what: String,
    },
    /// The answer is a refusal.
    #[error("{path} answered {what} with {status}")]
    Status {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        what: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// It took longer than [`TIMEOUT`].
    #[error("{path} did not answer {what} within {TIMEOUT:?}")]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        what: String,
    },
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
}

/// Asks `GET what` on a Unix socket.
///
/// # Errors
/// [`CallError`].
pub async fn get(socket: &Path, what: &str) -> Result<Answer, CallError> {
    whole(socket, Method::GET, what, Bytes::new()).await
}

/// Asks `POST what` on a Unix socket.
///
/// # Errors
/// [`CallError`].
pub async fn post(socket: &Path, what: &str) -> Result<Answer, CallError> {
    whole(socket, Method::POST, what, Bytes::new()).await
}

/// Asks `POST what` with a body on a Unix socket.
///
/// # Errors
/// [`CallError`].
pub async fn post_body(socket: &Path, what: &str, body: impl Into<Bytes>) -> Result<Answer, CallError> {
    whole(socket, Method::POST, what, body.into()).await
}

async fn whole(socket: &Path, method: Method, what: &str, sent: Bytes) -> Result<Answer, CallError> {
    let call = async {
        let (status, mut body) = open(socket, method, what, sent).await?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| http_error(socket, what, cause))?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(CallError::TooLong { path: socket.to_owned(), what: what.to_owned() });
            }
            bytes.extend_from_slice(data);
        }
        Ok(Answer { status, body: Bytes::from(bytes) })
    };
    in_time(socket, what, call).await
}

async fn in_time<T>(
    socket: &Path,
    what: &str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .map_err(|_| CallError::Timeout { path: socket.to_owned(), what: what.to_owned() })?
}

/// An answer that goes on, piece by piece.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    socket: PathBuf,
    what: String,
}

impl Stream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`CallError::Http`] if the other side breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|cause| http_error(&self.socket, &self.what, cause))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Asks `GET what` and reads the answer as it comes, without a bound of time once it has begun.
///
/// # Errors
/// [`CallError`], also if the answer is a refusal.
pub async fn stream(socket: &Path, what: &str) -> Result<Stream, CallError> {
    let (status, body) = in_time(socket, what, open(socket, Method::GET, what, Bytes::new())).await?;
    let (path, what) = (socket.to_owned(), what.to_owned());
    if !status.is_success() {
        return Err(CallError::Status { path, what, status });
    }
    Ok(Stream { body, socket: path, what })
}

async fn open(
    socket: &Path,
    method: Method,
    what: &str,
    sent: Bytes,
) -> Result<(StatusCode, Incoming), CallError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|cause| CallError::Connect { path: socket.to_owned(), cause })?;
    let http = |cause| http_error(socket, what, cause);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    tasks::spawn("admin-client", async move {
        // The caller sees a broken connection as an error of its own request.
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(method)
        .uri(what)
        .header(http::header::HOST, "localhost")
        .body(Full::new(sent))
        .map_err(|_| CallError::Path { what: what.to_owned() })?;
    let response = sender.send_request(request).await.map_err(http)?;
    Ok((response.status(), response.into_body()))
}

fn http_error(socket: &Path, what: &str, cause: hyper::Error) -> CallError {
    CallError::Http { path: socket.to_owned(), what: what.to_owned(), cause }
}
