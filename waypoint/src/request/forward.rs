//! A request on its way to an endpoint: chosen, sent, sent again if that is safe and wanted, and its response on its
//! way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_route::balance::{Ask, hash_of};
use ambit_route::model::{Abort, Balance, DestinationPolicy, Retry, Timeouts};
use ambit_route::outlier::Health;
use ambit_route::retry::{Attempt, Next, Outcome};
use ambit_route::timeout::{Deadline, Limit, parse_grpc_timeout};
use ambit_route::{Failure, Forward};
use ambit_runtime::clock;
use ambit_types::{AppProtocol, Reason};
use http::header::{HeaderValue, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::answer::Refusal;
use super::body::{Outgoing, Replay, Upload};
use super::head::{Fields, Head};
use super::sanitize::{Wishes, clean_response};
use super::{Client, Finish, upgrade};
use crate::upstream::{Caller, Destination, Download, Endpoint, SendError, Sending};
use crate::{State, filters, random};

/// Endpoints that may be tried for one request, whatever a rule says.
const TRIED_MAX: usize = 32;

/// A request that goes on, and what is known of it.
pub(super) struct Asked<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) state: &'a Arc<State>,
    pub(super) forward: Forward<'a>,
    pub(super) wishes: &'a Wishes,
    pub(super) on_upgrade: OnUpgrade,
}

/// What attempts have in common.
struct Sendable<'a> {
    head: Head,
    replay: Option<Arc<Replay>>,
    destination: Arc<Destination>,
    policy: Arc<DestinationPolicy>,
    retry: &'a Retry,
    deadline: Deadline,
    hash: Option<u64>,
    is_grpc: bool,
}

/// A response, or why there is none.
type Tried = Result<Response<Download>, SendError>;

impl Asked<'_> {
    /// Sends the request and answers with what comes of it.
    pub(super) async fn send(
        self,
        mut head: Head,
        body: Incoming,
        finish: &mut Finish,
    ) -> Result<Response<Outgoing>, Refusal> {
        let begun = finish.record.begun;
        self.inject().await?;
        let origin = self.needs_origin().then(|| head.fields.0.get(ORIGIN).cloned()).flatten();
        let waypoint = &self.client.call.waypoint;
        let has_body = !body.is_end_stream();
        let keeps_trailers = self.wishes.trailers || finish.record.is_grpc || has_body;
        let replay = has_body.then(|| Replay::new(body, waypoint.limits.replay_bytes_max, keeps_trailers));
        filters::apply(&self.forward, &mut head, &self.client.call, self.state, replay.as_ref());
        let called = &self.client.call.target;
        let destination = waypoint.upstream.destination(self.state, called, self.forward.target());
        let destination = destination.ok_or_else(|| Refusal::failure(Failure::NoEndpoint))?;
        finish.record.destination = Some(destination.clone());
        let deadline = Deadline::new(&self.timeouts(), asked_timeout(&head, finish, waypoint)?, begun);
        let policy = destination.view(self.state).policy.clone();
        let hash = match &policy.balance {
            Balance::ConsistentHash(keys) => {
                hash_of(keys, &head.view(), Some(self.client.call.peer.address.ip()))
            }
            Balance::LeastRequest | Balance::RoundRobin | Balance::Random => None,
        };
        destination.count(begun);
        let default = Retry::of_the_mesh();
        let retry = self.forward.by.map_or(&default, |(rule, _)| &rule.retry);
        let is_grpc = finish.record.is_grpc;
        let sendable = Sendable { head, replay, destination, policy, retry, deadline, hash, is_grpc };
        let response = self.attempts(&sendable, finish).await;
        finish.record.bytes_received = sendable.replay.as_ref().map_or(0, |replay| replay.bytes());
        finish.record.body = sendable.replay.clone();
        self.answer(response?, &sendable, origin, finish)
    }

    /// Puts in the faults that the rule asks for.
    async fn inject(&self) -> Result<(), Refusal> {
        let Some(fault) = self.forward.by.and_then(|(rule, _)| rule.fault.as_ref()) else { return Ok(()) };
        let injected = ambit_route::filter::inject(fault, random::number(), random::number());
        if let Some(pause) = injected.pause {
            tokio::time::sleep(pause).await;
        }
        match injected.abort {
            None => Ok(()),
            Some(Abort::Http(status)) => Err(Refusal::failure(Failure::Injected(status))),
            Some(Abort::Grpc(status)) => {
                let refusal = Refusal::failure(Failure::Injected(500));
                Err(Refusal { grpc: Some(status), ..refusal })
            }
        }
    }

    fn needs_origin(&self) -> bool {
        self.forward.by.is_some_and(|(rule, _)| rule.filters.cors.is_some())
    }

    fn timeouts(&self) -> Timeouts {
        self.forward.by.map_or_else(Timeouts::default, |(rule, _)| rule.timeouts)
    }

    /// Tries endpoints until one answers, or there is nothing left to try.
    async fn attempts(
        &self,
        sendable: &Sendable<'_>,
        finish: &mut Finish,
    ) -> Result<Response<Download>, Refusal> {
        let mut tried: Vec<usize> = Vec::new();
        loop {
            let begun = clock::monotonic();
            let limit = sendable.deadline.of_attempt(begun);
            let attempt = self.attempt(sendable, &mut tried, finish);
            let outcome = match limit {
                None => Ok(attempt.await),
                Some((within, which)) => tokio::time::timeout(within, attempt).await.map_err(|_| which),
            };
            finish.record.attempts += 1;
            let ended = clock::monotonic();
            if let (Some(endpoint), Some(health)) = (&finish.record.endpoint, health(&outcome)) {
                sendable.destination.observe(endpoint, health, ended);
            }
            let refusal = match outcome {
                Ok(Err(refusal)) => return Err(refusal),
                Err(Limit::Request) => return Err(Refusal::failure(Failure::Timeout)),
                Ok(Ok(Ok(response))) if is_good(&response) => return Ok(response),
                Ok(Ok(tried)) => Ok(tried),
                Err(Limit::Try) => Err(Refusal::failure(Failure::Timeout)),
            };
            let made = finish.record.attempts;
            match sendable.next(&refusal, made, ended) {
                Next::Again(pause) => tokio::time::sleep(pause).await,
                Next::Stop(stop) => {
                    finish.record.stopped = Some(stop);
                    return settled(refusal);
                }
            }
        }
    }

    /// Sends the request to one endpoint. The outer error is final.
    async fn attempt(
        &self,
        sendable: &Sendable<'_>,
        tried: &mut Vec<usize>,
        finish: &mut Finish,
    ) -> Result<Tried, Refusal> {
        let view = sendable.destination.view(self.state);
        let ask = Ask {
            balance: &sendable.policy.balance,
            hash: sendable.hash,
            turn: sendable.destination.turn(),
            draw: random::number(),
            now: clock::monotonic(),
        };
        let at = view.pick(&ask, tried).ok_or_else(|| Refusal::failure(Failure::NoEndpoint))?;
        if tried.len() < TRIED_MAX && !tried.contains(&at) {
            tried.push(at);
        }
        let endpoint = view.endpoint(at);
        // A former attempt's place is free again by now.
        finish.ticket = None;
        let ticket = sendable.destination.ticket(&sendable.policy, endpoint);
        finish.reached(endpoint, ticket.map_err(|_| Refusal::failure(Failure::Overflow))?);
        let is_http2 = self.speaks_http2(sendable, endpoint);
        let body = sendable
            .replay
            .as_ref()
            .map_or(Upload::Empty, |replay| Upload::Replayed { replay: replay.clone(), sent: 0 });
        let request = sendable.head.request(is_http2, body);
        let request = request.ok_or_else(|| Refusal::failure(Failure::RuleInvalid))?;
        let call = &self.client.call;
        let caller = Caller { peer: Some(&call.peer.identity), address: call.peer.address, id: call.id };
        let sending = Sending {
            waypoint: &call.waypoint,
            state: self.state,
            destination: &sendable.destination,
            policy: &sendable.policy,
            endpoint,
            caller: &caller,
            is_http2,
        };
        match sending.send(request).await {
            Err(error) if error.overflow.is_some() => Err(Refusal::failure(Failure::Overflow)),
            tried => Ok(tried),
        }
    }

    fn speaks_http2(&self, sendable: &Sendable<'_>, endpoint: &Endpoint) -> bool {
        if self.wishes.upgrade.is_some() {
            return false;
        }
        match endpoint.protocol {
            AppProtocol::Http2 | AppProtocol::Grpc => true,
            AppProtocol::Http11 => false,
            // What the client speaks the application is taken to understand.
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => {
                sendable.is_grpc || self.client.version == Version::HTTP_2
            }
        }
    }

    /// The response as the client gets it.
    fn answer(
        self,
        response: Response<Download>,
        sendable: &Sendable<'_>,
        origin: Option<HeaderValue>,
        finish: &mut Finish,
    ) -> Result<Response<Outgoing>, Refusal> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return upgrade::switch(self.client, self.wishes, self.on_upgrade, response, finish);
        }
        let (mut parts, mut body) = response.into_parts();
        clean_response(&mut parts.headers);
        if self.wishes.upgrade.is_some() {
            // Neither side is to take what follows for a request, or for its body.
            body.close_after();
            if self.client.version == Version::HTTP_11 {
                parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        self.filter_response(&sendable.head, origin, &mut parts.headers);
        finish.record.grpc_told(&parts.headers);
        let left = sendable.deadline.remaining(clock::monotonic());
        let idle = self.timeouts().idle.filter(|idle| !idle.is_zero());
        let idle = idle.unwrap_or(self.client.call.waypoint.limits.idle_timeout);
        let keeps_trailers =
            self.wishes.trailers || finish.record.is_grpc || self.client.version == Version::HTTP_2;
        parts.version = self.client.version;
        let body = Outgoing::upstream(body, left, Some(idle), keeps_trailers);
        Ok(Response::from_parts(parts, body))
    }

    fn filter_response(&self, head: &Head, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if self.forward.by.is_none() {
            return;
        }
        let mut only_origin = Fields::default();
        if let Some(origin) = origin {
            only_origin.0.insert(ORIGIN, origin);
        }
        let (names, mut fields) = {
            let names: Vec<String> = match self.needs_origin() {
                true => headers.keys().map(|name| name.as_str().to_owned()).collect(),
                false => Vec::new(),
            };
            (names, Fields(std::mem::take(headers)))
        };
        let asked = ambit_route::Request { headers: &only_origin, ..bare(head) };
        self.forward.apply_to_response(&asked, names.iter().map(String::as_str), &mut fields);
        *headers = fields.0;
    }
}

/// A request's head without its header lines.
fn bare(head: &Head) -> ambit_route::Request<'_, Fields> {
    static NONE: std::sync::LazyLock<Fields> = std::sync::LazyLock::new(Fields::default);
    ambit_route::Request { headers: &NONE, ..head.view() }
}

impl Sendable<'_> {
    /// What follows an attempt that brought no good answer.
    fn next(&self, tried: &Result<Tried, Refusal>, made: u32, now: Instant) -> Next {
        let (outcome, is_sent) = match tried {
            Ok(Ok(response)) => (answered(response), true),
            Ok(Err(error)) => (error.outcome, error.is_sent),
            Err(_) => (Outcome::TryTimeout, true),
        };
        let attempt = Attempt {
            method: self.head.method.as_str(),
            made,
            outcome,
            is_sent,
            is_replayable: self.replay.as_ref().is_none_or(|replay| replay.is_replayable()),
            is_answered: false,
        };
        self.destination.next(self.retry, &attempt, self.deadline.remaining(now), now, random::number())
    }
}

/// How long the caller of a gRPC method is ready to wait.
fn asked_timeout(
    head: &Head,
    finish: &Finish,
    waypoint: &crate::Waypoint,
) -> Result<Option<Duration>, Refusal> {
    let asked = head.fields.0.get("grpc-timeout").filter(|_| finish.record.is_grpc);
    let read = asked.map(|value| parse_grpc_timeout(value.as_bytes(), waypoint.limits.grpc_timeout_max));
    read.transpose().map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "grpc-timeout"))
}

/// Whether nothing about a response asks for another attempt.
fn is_good(response: &Response<Download>) -> bool {
    response.status().as_u16() < 400 && grpc_status(response.headers()).is_none_or(|status| status == 0)
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn answered(response: &Response<Download>) -> Outcome {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Outcome::Response {
        status: response.status().as_u16(),
        grpc_status: grpc_status(response.headers()),
        retry_after: asked.map(Duration::from_secs),
    }
}

/// What an attempt says about its endpoint, if it was one's.
fn health(outcome: &Result<Result<Tried, Refusal>, Limit>) -> Option<Health> {
    match outcome {
        Ok(Ok(Ok(response))) => Some(Health::of_status(response.status().as_u16())),
        Ok(Ok(Err(_))) | Err(_) => Some(Health::GatewayError),
        Ok(Err(_)) => None,
    }
}

/// What the client gets of the last attempt.
fn settled(tried: Result<Tried, Refusal>) -> Result<Response<Download>, Refusal> {
    match tried? {
        Ok(response) => Ok(response),
        Err(error) => {
            let refusal = Refusal::failure(Failure::Unreachable);
            let flag = if error.is_sent { "UC" } else { "UF" };
            Err(Refusal { reason: Some(error.reason), flag, ..refusal }.because(error.text))
        }
    }
}
