//! Serving the webhook over HTTPS: every body, wait and number of calls is bounded.
//!
//! HTTP/1.1 only, which API servers take when it is what is offered. A call that cannot be judged in time is answered
//! with an error, which the API server treats by the webhook's failurePolicy.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::sync::AcquireError;
use tokio::time;
use tonic::transport::server::Connected as _;
use tracing::{debug, info, warn};

use super::judge::{Caller, Verdict, judge};
use super::review::{API_VERSION, Answer, KIND, Review};
use super::room::{Place, Room};
use crate::tls::{self, Connection};
use crate::world::World;

/// Where questions are asked.
const PATH: &str = "/validate";
/// Largest question: an object before and after, each as large as etcd takes.
const BODY_BYTES_MAX: usize = 3 << 20;
/// Bytes of questions of API servers that are being read or judged.
const BODIES_BYTES_MAX: usize = 48 << 20;
/// The same of everybody else together, one whole question an address: whoever can reach us cannot keep API servers
/// waiting, whether we know their addresses or not.
const STRANGERS_BYTES_MAX: usize = 12 << 20;
/// Questions of API servers that are judged at once; each takes a thread.
const JUDGED_MAX: usize = 4;
/// The same of everybody else together.
const STRANGERS_JUDGED_MAX: usize = 1;
/// Longest call; the API server waits for 10 s unless told otherwise.
const CALL: Duration = Duration::from_secs(5);
/// Longest wait for the next head; clients in Go give an idle connection up after 90 s, so that they do it first.
const HEAD: Duration = Duration::from_secs(100);
/// Longest head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why the webhook cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The address cannot be had.
    #[error("listening on {address} for the admission webhook; does something else listen there?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

/// What the webhook needs.
#[derive(Debug)]
pub struct AdmitParts {
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS with the certificate of our own server, as [`tls::settings`] makes it.
    pub tls: ServerConfig,
    /// The index that objects are held against.
    pub world: Arc<World>,
    /// When to stop.
    pub drain: Drain,
}

/// Serves the webhook until `drain` begins; returns where.
///
/// # Errors
/// [`AdmitError::Listen`].
pub async fn serve(parts: AdmitParts) -> Result<SocketAddr, AdmitError> {
    let AdmitParts { listen, mut tls, world, drain } = parts;
    let refused = |cause| AdmitError::Listen { address: listen, cause };
    let listener = crate::listen::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut connections = tls::accept(listener, tls, &drain);
    let desk = Arc::new(Desk {
        world,
        servers: Room::shared(BODIES_BYTES_MAX, JUDGED_MAX),
        strangers: Room::divided(STRANGERS_BYTES_MAX, STRANGERS_JUDGED_MAX, BODY_BYTES_MAX),
    });
    drop(tasks::spawn("admission", async move {
        loop {
            let next = tokio::select! {
                next = connections.recv() => next,
                () = drain.draining() => return,
            };
            match next {
                Some(Ok(connection)) => {
                    let serving = serve_connection(connection, desk.clone(), drain.clone());
                    drop(tasks::spawn("admission-connection", drain.track(serving)));
                }
                Some(Err(cause)) => debug!(%cause, "a connection of the webhook failed"),
                None => return,
            }
        }
    }));
    info!(listen = %address, "the admission webhook is served");
    Ok(address)
}

async fn serve_connection(connection: Connection, desk: Arc<Desk>, drain: Drain) {
    let caller = Caller { address: connection.connect_info().remote_addr().map(|peer| peer.ip()) };
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request, caller).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = drain.draining() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = drain.forced() => return,
            }
        }
    };
    if let Err(cause) = served {
        debug!(%cause, "a connection of the webhook ended early");
    }
}

/// Why a call is answered with an error.
type Failure = (StatusCode, &'static str);

/// Where questions are answered.
#[derive(Debug)]
struct Desk {
    world: Arc<World>,
    /// For API servers that the mesh knows by their addresses.
    servers: Arc<Room>,
    /// For everybody else: API servers behind a translation of addresses or an agent in the cluster, and whoever reaches
    /// us.
    strangers: Arc<Room>,
}

impl Desk {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Caller) -> Response<Full<Bytes>> {
        let late =
            Err((StatusCode::SERVICE_UNAVAILABLE, "the question could not be judged in time; ask again"));
        match time::timeout(CALL, self.decide(request, caller)).await.unwrap_or(late) {
            Ok(body) => respond(StatusCode::OK, "application/json", body.into()),
            Err((status, words)) => {
                count("failed");
                respond(status, "text/plain; charset=utf-8", Bytes::from_static(words.as_bytes()))
            }
        }
    }

    async fn decide(&self, request: Request<Incoming>, caller: Caller) -> Result<Vec<u8>, Failure> {
        match (request.uri().path(), request.method()) {
            (PATH, &Method::POST) => {}
            (PATH, _) => return Err((StatusCode::METHOD_NOT_ALLOWED, "questions are posted")),
            _ => return Err((StatusCode::NOT_FOUND, "there is only /validate")),
        }
        let announced = request.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = announced.unwrap_or(BODY_BYTES_MAX);
        if bytes > BODY_BYTES_MAX {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the question has more than 3 MiB"));
        }
        let is_server = caller.address.is_some_and(|address| self.world.index().is_api_server(address));
        let room = if is_server { &self.servers } else { &self.strangers };
        let mut place = room.enter(caller.address);
        place.reserve(bytes).await.map_err(gone)?;
        let body = read(request.into_body(), &mut place).await?;
        place.turn().await.map_err(gone)?;
        let world = self.world.clone();
        // Reading a large object takes long enough to keep others waiting. The thread goes on when the call is given up,
        // so that what it takes is given back by the thread.
        let judging = move || {
            let decided = decide(&body, caller, &world);
            drop(place);
            decided
        };
        let decided = tokio::task::spawn_blocking(judging).await;
        decided.unwrap_or_else(|cause| {
            warn!(%cause, "judging an object failed");
            Err((StatusCode::INTERNAL_SERVER_ERROR, "judging the object failed; see the log of istiod-lite"))
        })
    }
}

fn gone(_: AcquireError) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, "the webhook is stopping")
}

/// The whole body, as long as it is no longer than it may be, and as fast as there is room for it.
async fn read(mut body: Incoming, place: &mut Place) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the question broke off"))?;
        if let Ok(part) = frame.into_data() {
            if whole.len() + part.len() > BODY_BYTES_MAX {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "the question has more than 3 MiB"));
            }
            place.take(part.len()).await.map_err(gone)?;
            whole.extend_from_slice(&part);
        }
    }
    Ok(whole.freeze())
}

fn decide(body: &[u8], caller: Caller, world: &World) -> Result<Vec<u8>, Failure> {
    let unreadable =
        (StatusCode::BAD_REQUEST, "the body is no AdmissionReview of admission.k8s.io/v1 with a request");
    let review: Review = serde_json::from_slice(body).map_err(|_| unreadable)?;
    let is_known = review.api_version == API_VERSION && review.kind == KIND;
    let request = review.request.filter(|request| is_known && request.has_uid()).ok_or(unreadable)?;
    let verdict = judge(&request, caller, world);
    match &verdict {
        Verdict::Allowed { .. } => count("allowed"),
        Verdict::Refused { .. } => count("refused"),
    }
    serde_json::to_vec(&Answer::new(request.uid, verdict))
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the answer has no JSON form"))
}

fn count(verdict: &'static str) {
    metrics::counter!("ambit_admission_reviews_total", "verdict" => verdict).increment(1);
}

fn respond(status: StatusCode, content: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    response
}
