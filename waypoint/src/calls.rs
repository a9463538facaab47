//! Calls that the waypoint makes for itself, to services of the mesh: by the tunnels, certificates and balancing that
//! requests have, with its own identity.
//!
//! One call, one endpoint, no repetition: whoever calls has a short deadline and decides what a failure means. What
//! comes back is bounded.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ambit_hbone::ConnId;
use ambit_route::model::Target as Backend;
use ambit_route::outlier::Health;
use ambit_runtime::clock;
use ambit_types::service::Visibility;
use ambit_types::workload::NetworkMode;
use ambit_types::{AppProtocol, ServiceKey, Workload};
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Body;

use crate::request::body::{Held, Upload};
use crate::terminate::Target;
use crate::upstream::{Caller, Destination, Download, Endpoint, Io, Sending, Ticket, View};
use crate::{State, Waypoint, random};

/// The namespace of the mesh's own objects, which speak for every namespace.
pub(crate) const ROOT_NAMESPACE: &str = "istio-system";

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The service, or its port, is not in the mesh.
    #[error("there is no service {0} with port {1}")]
    NoService(ServiceKey, u16),
    /// None of its endpoints can be used.
    #[error("the service has no endpoint to call")]
    NoEndpoint,
    /// It has as many requests or connections as it may.
    #[error("the service has as many requests under way as it may")]
    Overflow,
    /// The request cannot be written.
    #[error("the request's target or authority is malformed")]
    Request,
    /// The endpoint could not be reached, or broke off.
    #[error("{0}")]
    Send(String),
    /// The answer broke off.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Called {
    /// Its head and body.
    pub(crate) response: Response<Download>,
    /// Counts the call as under way.
    pub(crate) ticket: Ticket,
}

/// Sends one request to an endpoint of a service. The request's URI is a path; its authority is `authority`.
/// `must_http2` is for gRPC; else what the port declares is spoken, and HTTP/1.1 if it declares nothing.
///
/// Waits as long as it takes: the caller bounds the time.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn send(
    waypoint: &Waypoint,
    service: &ServiceKey,
    port: u16,
    authority: &str,
    request: Request<Bytes>,
    must_http2: bool,
) -> Result<Called, CallError> {
    let Chosen { state, destination, view, at, ticket } = choose(waypoint, service, port)?;
    let endpoint = view.endpoint(at);
    let is_http2 = must_http2 || matches!(endpoint.protocol, AppProtocol::Http2 | AppProtocol::Grpc);
    let request = prepare(request, authority, is_http2).ok_or(CallError::Request)?;
    let (policy, caller) = (&view.policy, &itself(&state));
    let sending =
        Sending { waypoint, state: &state, destination: &destination, policy, endpoint, caller, is_http2 };
    let sent = sending.send(request).await;
    let health = match &sent {
        Ok(response) => Health::of_status(response.status().as_u16()),
        Err(_) => Health::GatewayError,
    };
    destination.observe(endpoint, health, clock::monotonic());
    match sent {
        Ok(response) => Ok(Called { response, ticket }),
        Err(error) if error.overflow.is_some() => Err(CallError::Overflow),
        Err(error) => Err(CallError::Send(error.text)),
    }
}

/// A connection of its own to an endpoint of a service.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The connection.
    pub(crate) io: Io,
    /// Counts the call as under way.
    pub(crate) _ticket: Ticket,
}

/// Opens a connection to an endpoint of a service, for what [`send`] cannot say, if `judge` lets it pass. The tunnel
/// names the waypoint as the client: nobody else stands behind the call, and it is not taken for one that was judged
/// on somebody's behalf.
///
/// # Errors
/// [`CallError`], and what `judge` says.
pub(crate) async fn open<E: From<CallError>>(
    waypoint: &Waypoint,
    service: &ServiceKey,
    port: u16,
    judge: impl FnOnce(&State, &Endpoint) -> Result<(), E>,
) -> Result<Connected, E> {
    let Chosen { state, view, at, ticket, .. } = choose(waypoint, service, port)?;
    let endpoint = view.endpoint(at);
    judge(&state, endpoint)?;
    let identity = state.own.identity();
    let caller = Caller { peer: Some(&identity), ..itself(&state) };
    let opened = waypoint.upstream.connect(waypoint, &state, endpoint, &caller).await;
    let io = opened.map_err(|error| CallError::Send(error.to_string()))?;
    Ok(Connected { io, _ticket: ticket })
}

/// An endpoint to call, and the call's place there.
struct Chosen {
    state: Arc<State>,
    destination: Arc<Destination>,
    view: Arc<View>,
    at: usize,
    ticket: Ticket,
}

fn choose(waypoint: &Waypoint, service: &ServiceKey, port: u16) -> Result<Chosen, CallError> {
    let state = waypoint.state();
    let called = Target::Workload { workload: state.own.workload.clone(), address: address(&state) };
    let backend = Backend::Service { service: service.clone(), port };
    let found = waypoint.upstream.destination(&state, &called, Some(&backend));
    let destination = found.ok_or_else(|| CallError::NoService(service.clone(), port))?;
    let view = destination.view(&state);
    let at = view.pick_any(&[], random::number(), clock::monotonic()).ok_or(CallError::NoEndpoint)?;
    let ticket = destination.ticket(&view.policy, view.endpoint(at)).map_err(|_| CallError::Overflow)?;
    Ok(Chosen { state, destination, view, at, ticket })
}

/// The waypoint as a caller: its own identity stands in the tunnel's certificate, and nobody's behind it.
fn itself(state: &State) -> Caller<'static> {
    Caller { peer: None, address: address(state), id: ConnId::from_random(random::wide()) }
}

/// The address that the waypoint calls from, as it is told.
pub(crate) fn address(state: &State) -> SocketAddr {
    let own = state.own.workload.addresses.first().copied();
    SocketAddr::new(own.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 0)
}

/// What a host name means to a namespace whose owner has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// A service of that namespace or of the root namespace.
    Own(ServiceKey),
    /// A Kubernetes service of another namespace, whose name nobody can take.
    Other(ServiceKey),
    /// No service, or only what other namespaces call so: a ServiceEntry may have any host and gives its owner no
    /// right to it.
    Foreign,
}

/// What a host name means to a namespace. What others have written changes nothing about it.
pub(crate) fn named(state: &State, host: &str, namespace: &str) -> Named {
    let mesh = &state.mesh;
    let own = ServiceKey::new(namespace, host);
    if mesh.service(&own).is_some() {
        return Named::Own(own);
    }
    if let Some(found) = mesh.service_by_host(host, namespace).filter(|entry| entry.service().canonical) {
        let key = found.service().key();
        return if *key.namespace == *ROOT_NAMESPACE { Named::Own(key) } else { Named::Other(key) };
    }
    let root = mesh.service(&ServiceKey::new(ROOT_NAMESPACE, host));
    match root.filter(|entry| entry.service().visibility == Visibility::Public) {
        Some(entry) => Named::Own(entry.service().key()),
        None => Named::Foreign,
    }
}

/// The cluster's domain, by the waypoint's own service.
pub(crate) fn cluster_domain(state: &State) -> &str {
    let own = state.own.service.as_ref().and_then(|key| key.hostname.split_once(".svc."));
    own.map_or("cluster.local", |(_, domain)| domain)
}

/// Whether an address is a workload's, a service's or a node's of the mesh.
pub(crate) fn is_of_mesh(state: &State, address: IpAddr) -> bool {
    let (network, namespace) = (&state.own.workload.network, &state.own.workload.namespace);
    let address = address.to_canonical();
    state.mesh.workload_at(network, address).is_some()
        || state.mesh.service_at(network, address, namespace).is_some()
        || state.own.has_address(address)
        || is_of_host(state, address)
}

/// Whether an address is a node's, or of a workload that has no address of its own (host network) and is found by
/// none.
pub(crate) fn is_of_host(state: &State, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_at = |workload: &Workload| {
        let is_host = workload.network_mode == NetworkMode::HostNetwork;
        workload.node_addresses().contains(&address) || is_host && workload.addresses.contains(&address)
    };
    is_at(&state.own.workload) || state.mesh.workloads().into_iter().any(|workload| is_at(workload))
}

/// The request in one version of HTTP; none if its target or authority is malformed.
fn prepare(request: Request<Bytes>, authority: &str, is_http2: bool) -> Option<Request<Upload>> {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if is_http2 {
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target);
        (parts.version, parts.uri) = (Version::HTTP_2, uri.build().ok()?);
    } else {
        (parts.version, parts.uri) = (Version::HTTP_11, Uri::from(target));
        parts.headers.insert(HOST, HeaderValue::from_str(authority).ok()?);
    }
    let body = match body.is_empty() {
        true => Upload::Empty,
        false => Upload::Copy(VecDeque::from([Held::Data(body)])),
    };
    Some(Request::from_parts(parts, body))
}

/// Reads a body to its end.
///
/// # Errors
/// [`CallError::Broken`], or [`CallError::TooLong`] as soon as there is one byte more than `bytes_max`.
pub(crate) async fn collect<B>(mut body: B, bytes_max: usize) -> Result<(Bytes, HeaderMap), CallError>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let (mut all, mut trailers) = (BytesMut::new(), HeaderMap::new());
    loop {
        let frame = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose()),
            Poll::Pending => Poll::Pending,
        });
        let Some(frame) = frame.await.map_err(CallError::Broken)? else {
            return Ok((all.freeze(), trailers));
        };
        match frame.into_data() {
            Ok(data) if all.len() + data.len() > bytes_max => return Err(CallError::TooLong(bytes_max)),
            Ok(data) => all.extend_from_slice(&data),
            Err(other) => trailers = other.into_trailers().unwrap_or_default(),
        }
    }
}

/// The authority by which a service of the mesh is called.
pub(crate) fn authority(service: &ServiceKey, port: u16) -> String {
    format!("{}:{port}", service.hostname)
}

/// The waypoint, as long as it is there: for what lives inside it and calls through it.
pub(crate) type Weak = std::sync::Weak<Waypoint>;

/// A waypoint that may not be made yet when those who call through it are.
#[derive(Debug, Default)]
pub(crate) struct Through(std::sync::OnceLock<Weak>);

impl Through {
    /// Names the waypoint; the first one counts.
    pub(crate) fn set(&self, waypoint: &Arc<Waypoint>) {
        // A second call changes nothing, which is what it is meant to do.
        let _ = self.0.set(Arc::downgrade(waypoint));
    }

    /// The waypoint, if it has been named and is still there.
    pub(crate) fn get(&self) -> Option<Arc<Waypoint>> {
        self.0.get()?.upgrade()
    }
}
