//! The way of one request: sanitised, its target read once, authorised, routed, changed, sent, and answered as it
//! streams by.
//!
//! Every step either goes on or ends in an answer with a code; nothing is forwarded that a step before could not
//! read. Bodies pass through without being collected.

mod answer;
mod authorize;
mod behind;
pub(crate) mod body;
mod change;
mod forward;
pub(crate) mod framing;
mod head;
pub(crate) mod places;
mod sanitize;
mod session;
mod upgrade;

use std::cell::LazyCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_policy::normalize::{self, Received};
use ambit_route::limit::Caller;
use ambit_route::{Failure, Plan, Rule, Selected};
use ambit_runtime::clock;
use ambit_types::{Identity, Reason};
use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::hooks::FieldChange;
use crate::limiters::Excess;
use crate::limiters::global::{self, Granted};
use crate::observe::Exchange;
use crate::terminate::Call;
use crate::upstream::{Endpoint, Ticket};
use crate::{State, random};
pub(crate) use answer::Refusal as Refused;
use answer::{Refusal, Told};
use authorize::Judge;
use body::Outgoing;
use change::{Change, Changed};
use head::Fields;
pub(crate) use head::Head;
use places::{Full, Holder, Place};
use sanitize::Wishes;

/// One connection of a client that carries requests.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) call: Arc<Call>,
    version: Version,
    /// The requests that its caller has under way.
    holder: Arc<Holder>,
    resets: Resets,
    /// Of a request for another protocol that came to nothing: hyper gives the stream to who holds this.
    declined: Mutex<Option<OnUpgrade>>,
}

/// Requests that a client has given up, against those that were answered, in the second at hand.
#[derive(Debug, Default)]
struct Resets {
    second: AtomicU64,
    cancelled: AtomicU32,
    completed: AtomicU32,
    dismissed: CancellationToken,
}

impl Client {
    /// A connection in a version of HTTP.
    pub(crate) fn new(call: Arc<Call>, version: Version) -> Self {
        let holder = call.waypoint.places.of(&call.peer.identity);
        Self { call, version, holder, resets: Resets::default(), declined: Mutex::default() }
    }

    /// Resolves when the client has cancelled more than it may.
    pub(crate) async fn dismissed(&self) {
        self.resets.dismissed.cancelled().await;
    }

    /// Ends a stream on which another protocol was asked for in vain, so that the answer arrives whole.
    pub(crate) async fn finish(&self) {
        let declined = self.declined.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(declined) = declined else { return };
        if let Ok(stream) = declined.await {
            // A client that is gone needs no end.
            let _ = TokioIo::new(stream).shutdown().await;
        }
    }

    fn decline(&self, upgrade: OnUpgrade) {
        *self.declined.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    /// Counts an end. Two threads that begin a second at the same time lose a count, which does no harm.
    fn ended(&self, is_complete: bool) {
        let resets = &self.resets;
        let now = clock::unix_seconds();
        if resets.second.swap(now, Ordering::Relaxed) != now {
            resets.cancelled.store(0, Ordering::Relaxed);
            resets.completed.store(0, Ordering::Relaxed);
        }
        if is_complete {
            resets.completed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let cancelled = resets.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        let most = self.call.waypoint.limits.resets_max;
        if cancelled > most && cancelled > resets.completed.load(Ordering::Relaxed) {
            resets.dismissed.cancel();
        }
    }
}

/// A request's record and places, until the last byte of its response has gone.
#[derive(Debug)]
pub(crate) struct Finish {
    client: Arc<Client>,
    record: Box<Exchange>,
    place: Option<Place>,
    ticket: Option<Ticket>,
    is_complete: bool,
}

impl Finish {
    /// The response has gone completely.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Bytes of the response have gone.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        self.record.sent(data);
    }

    /// Its trailers have gone.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        self.record.grpc_told(trailers);
    }

    /// The endpoint broke off.
    pub(crate) fn broken(&mut self) {
        self.record.flag = "UC";
        self.is_complete = true;
    }

    /// The time was over before the end.
    pub(crate) fn timed_out(&mut self, flag: &'static str) {
        self.record.flag = flag;
        self.record.reason = Some(Reason::UpstreamTimeout);
        self.is_complete = true;
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.ticket = None;
        self.place = None;
        self.client.ended(self.is_complete);
        if !self.is_complete && self.record.flag == "-" {
            self.record.flag = "DC";
        }
        self.client.call.waypoint.observe.exchanged(&self.client.call, &mut self.record);
    }
}

/// Answers a request.
pub(crate) async fn serve(client: Arc<Client>, mut asked: Request<Incoming>) -> Response<Outgoing> {
    let record = Box::new(Exchange::new(&asked));
    let (place, full) = match client.holder.take() {
        Ok(place) => (Some(place), None),
        Err(full) => (None, Some(full)),
    };
    let mut finish = Finish { client: client.clone(), record, place, ticket: None, is_complete: false };
    let is_grpc = is_grpc(asked.headers());
    finish.record.is_grpc = is_grpc;
    let is_head = asked.method() == Method::HEAD;
    let on_upgrade = hyper::upgrade::on(&mut asked);
    let wants_other = asked.headers().contains_key(UPGRADE) || asked.method() == Method::CONNECT;
    let upgrade = (wants_other && client.version == Version::HTTP_11).then(|| on_upgrade.clone());
    let passed = match full {
        None => pass(&client, asked, on_upgrade, &mut finish).await,
        Some(Full::All) => {
            Err(Refusal { flag: "OM", ..Refusal::new(503, Some(Reason::MemoryBudget), "overload") })
        }
        Some(Full::Own) => {
            Err(Refusal { flag: "OM", ..Refusal::new(503, Some(Reason::PodQuota), "caller_overload") })
        }
    };
    let response = match passed {
        Ok(response) => response,
        Err(refusal) => {
            let mut response = answer::without_body(refusal.response(is_grpc), is_head);
            // What was read wrongly once is not to be read on.
            if client.version == Version::HTTP_11 && matches!(refusal.status, 400 | 408 | 413 | 431) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            finish.record.refused(&refusal);
            response
        }
    };
    finish.record.answered(&response);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        finish.complete();
    } else if let Some(upgrade) = upgrade {
        client.decline(upgrade);
    }
    response.map(|body| body.finishing(finish))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Takes a request through all steps.
async fn pass(
    client: &Arc<Client>,
    asked: Request<Incoming>,
    on_upgrade: OnUpgrade,
    finish: &mut Finish,
) -> Result<Response<Outgoing>, Refusal> {
    let (call, waypoint) = (&client.call, &client.call.waypoint);
    let state = waypoint.state();
    let governing = state.governing(&call.target);
    let governing = governing.ok_or_else(Refusal::not_served)?;
    let (mut parts, body) = asked.into_parts();
    let wishes = sanitize::check(&parts, !body.is_end_stream(), waypoint.limits.head_fields_max)?;
    // Two are enough to know that there is more than one.
    let hosts: Vec<HeaderValue> = parts.headers.get_all(HOST).iter().take(2).cloned().collect();
    let hosts: Vec<&[u8]> = hosts.iter().map(HeaderValue::as_bytes).collect();
    let mut fields = Fields(std::mem::take(&mut parts.headers));
    sanitize::clean(&mut fields.0, &wishes);
    let trail = waypoint.observe.join(&mut fields.0, &mut finish.record);
    let target = read(&parts, &hosts, &governing.first().normalize)?;
    let judge = Judge { client, at: call.target.address(), is_grpc: finish.record.is_grpc };
    let passed = judge.all(governing.judged(), &target, &fields, Some(&mut finish.record)).await?;
    let path = String::from_utf8(target.path_and_query())
        .map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "not-ascii"))?;
    let mut head = Head {
        method: parts.method.clone(),
        scheme: ambit_route::model::Scheme::Http,
        authority: target.authority().as_str().to_owned(),
        target: path,
        fields,
        trail,
        port: call.target.address().port(),
    };
    let asked = change::Asked::of(&head, &passed);
    passed.apply(&mut head)?;
    let namespace = Some(&**call.peer.identity.namespace());
    let view = head.view();
    let selected = match call.target.service() {
        Some(service) => state.routes.select(service, namespace, &view),
        None => Selected::Service,
    };
    finish.record.routed(&selected);
    let granted = counted(call, &state, &selected, &view).await?;
    let held = session::held(call, &state, &selected, &view);
    let forward = match selected.plan_of(&view, random::number(), held.as_ref()) {
        Plan::Answer(answer) => {
            let own = answer::own(answer)?;
            return Ok(with(answer::without_body(own, head.method == Method::HEAD), &passed.response));
        }
        Plan::Forward(forward) => forward,
    };
    let origin = origin(&head.fields.0);
    let staying = session::Staying::of(call, &state, &forward, held);
    let change = Change { judge, state: &state, governing: &governing, selected, forward, asked, passed };
    let Changed { mut head, mut copies, told } = change.make(head, &mut finish.record).await?;
    announce(call, &state.own.identity(), &wishes, granted.request, &mut head, &mut copies);
    let asked = forward::Asked {
        client,
        state: &state,
        forward,
        staying,
        wishes: &wishes,
        on_upgrade,
        origin,
        copies,
    };
    let mut response = with(asked.send(head, body, finish).await?, &told);
    response.headers_mut().extend(granted.response);
    Ok(response)
}

/// The origin of a request; two are none.
fn origin(fields: &HeaderMap) -> Option<HeaderValue> {
    let mut origins = fields.get_all(ORIGIN).iter();
    origins.next().filter(|_| origins.next().is_none()).cloned()
}

/// Reads the target of a request, once for all who look at it.
fn read<'a>(
    parts: &'a http::request::Parts,
    hosts: &'a [&'a [u8]],
    options: &normalize::Options,
) -> Result<normalize::Target<'a>, Refusal> {
    let protocol = parts.extensions.get::<hyper::ext::Protocol>();
    let received = Received {
        method: parts.method.as_str().as_bytes(),
        scheme: parts.uri.scheme_str().map(str::as_bytes),
        authority: parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
        hosts,
        path: parts.uri.path_and_query().map(|path| path.as_str().as_bytes()),
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
    };
    normalize::normalize(&received, options).map_err(|refusal| Refusal::unreadable(&refusal))
}

/// Adds to a request and its copies what endpoints are told. Nothing that a route has done to the request comes after
/// this. A copy asks for no other protocol.
fn announce(
    call: &Call,
    own: &Identity,
    wishes: &Wishes,
    granted: HeaderMap,
    head: &mut Head,
    copies: &mut [(ambit_route::model::Target, Head)],
) {
    let id = LazyCell::new(new_id);
    let parties = (&call.peer.identity, own, call.peer.address.ip());
    let plain = Wishes { upgrade: None, trailers: wishes.trailers };
    for (_, copy) in copies {
        copy.fields.0.extend(granted.clone());
        sanitize::add(&mut copy.fields.0, &plain, parties, || id.clone());
    }
    head.fields.0.extend(granted);
    sanitize::add(&mut head.fields.0, wishes, parties, || id.clone());
}

/// A response with what authorizers add to it.
fn with(mut response: Response<Outgoing>, told: &[FieldChange]) -> Response<Outgoing> {
    told.iter().for_each(|change| change.apply(response.headers_mut()));
    response
}

/// Counts the request under the limits that hold for it: those of its rule, or of the services that lead to the
/// workload that it is for.
async fn counted(
    call: &Call,
    state: &State,
    selected: &Selected<'_>,
    view: &ambit_route::Request<'_, Fields>,
) -> Result<Granted, Refusal> {
    let behind = match selected {
        Selected::Rule(rule, _) => return limited(call, rule, view).await,
        Selected::Service | Selected::NoMatch(_) => behind::limiting(state, &call.target, view),
    };
    let mut granted = Granted::default();
    for rule in behind {
        let more = limited(call, rule, view).await?;
        granted.request.extend(more.request);
        granted.response.extend(more.response);
    }
    Ok(granted)
}

/// Counts the request under the limits of its rule: first those that are counted here.
async fn limited(
    call: &Call,
    rule: &Rule,
    view: &ambit_route::Request<'_, Fields>,
) -> Result<Granted, Refusal> {
    if rule.rate_limits.is_empty() {
        return Ok(Granted::default());
    }
    let caller = Caller { identity: Some(&call.peer.identity), address: Some(call.peer.address.ip()) };
    call.waypoint.limiters.admit(rule, view, &caller, clock::monotonic()).map_err(excessive)?;
    global::ask(&call.waypoint, global::questions(rule, view, &caller)).await.map_err(excessive)
}

/// What the client gets of a limit that refuses.
fn excessive(excess: Excess) -> Refusal {
    let refusal = Refusal { reason: Some(Reason::RateLimited), ..Refusal::failure(Failure::RateLimited) };
    match excess {
        Excess::Unavailable => {
            let reason = Some(Reason::RateLimitUnavailable);
            Refusal { flag: "RLSE", ..Refusal::new(503, reason, "rate_limiter_error") }
        }
        Excess::Limited(wait) => {
            let mut told = Told::default();
            // Whole seconds, rounded up: who comes too early comes in vain.
            told.headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            Refusal { told: Some(Box::new(told)), ..refusal }
        }
        Excess::Over(over) => {
            let told = Told { headers: over.headers, body: over.body };
            Refusal { told: Some(Box::new(told)), ..refusal }
        }
    }
}

/// A random UUID (RFC 9562 version 4).
fn new_id() -> String {
    let bits = random::wide();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl Finish {
    /// An endpoint was chosen.
    fn reached(&mut self, endpoint: &Arc<Endpoint>, ticket: Ticket) {
        self.ticket = Some(ticket);
        self.record.endpoint = Some(endpoint.clone());
        self.record.attempted(endpoint);
    }
}
