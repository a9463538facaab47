//! Endpoints tried one after the other until one answers, and what each of them is told to have done.
//!
//! What a client can bring about by itself is no endpoint's failure: a limit of time counts against one only once the
//! whole request has arrived, and never if the caller set it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_route::Failure;
use ambit_route::balance::Ask;
use ambit_route::model::{DestinationPolicy, Retry};
use ambit_route::outlier::Health;
use ambit_route::retry::{Attempt, Next, Outcome, Stop};
use ambit_route::timeout::{Deadline, Limit};
use ambit_runtime::clock;
use ambit_types::AppProtocol;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, Version};

use super::super::Finish;
use super::super::answer::Refusal;
use super::super::body::{Due, Replay, Upload, Watch};
use super::super::head::Head;
use super::Asked;
use crate::random;
use crate::upstream::{Caller, Destination, Download, Endpoint, SendError, Sending, View};

/// Endpoints that may be tried for one request, whatever a rule says.
const TRIED_MAX: usize = 32;

/// What attempts have in common.
pub(super) struct Sendable<'a> {
    pub(super) head: Head,
    pub(super) replay: Option<Arc<Replay>>,
    pub(super) destination: Arc<Destination>,
    pub(super) policy: Arc<DestinationPolicy>,
    pub(super) retry: &'a Retry,
    pub(super) deadline: Deadline,
    pub(super) hash: Option<u64>,
    /// What stands for the endpoint that the client is to stay with.
    pub(super) stays: Option<u64>,
    pub(super) is_grpc: bool,
}

/// A response, or why there is none.
type Tried = Result<Response<Download>, SendError>;

impl Asked<'_> {
    /// Tries endpoints until one answers, or there is nothing left to try.
    pub(super) async fn attempts(
        &self,
        sendable: &Sendable<'_>,
        watch: &mut Watch,
        finish: &mut Finish,
    ) -> Result<Response<Download>, Refusal> {
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        loop {
            let begun = clock::monotonic();
            watch.begin(begun, sendable.limit(begun));
            let outcome = {
                let attempt = pin!(self.attempt(sendable, &mut tried, finish));
                watch.during(sendable.replay.as_deref(), attempt).await
            };
            finish.record.attempts += 1;
            let ended = clock::monotonic();
            if let (Some(endpoint), Some(health)) = (&finish.record.endpoint, sendable.health(&outcome)) {
                sendable.destination.observe(endpoint, health, ended);
            }
            let tried = match outcome {
                Ok(Err(refusal)) => return Err(refusal),
                Ok(Ok(Ok(response))) if is_good(&response) => return Ok(response),
                Ok(Ok(Err(_))) if sendable.is_broken() => return Err(broken()),
                Ok(Ok(tried)) => Ok(tried),
                Err(Due::Over(Limit::Try)) => Err(Refusal::failure(Failure::Timeout)),
                Err(due) => return Err(sendable.ended(due)),
            };
            let stop = match sendable.next(&tried, finish.record.attempts, ended) {
                // From here on the body is not to be lost to the attempt that is over.
                Next::Again(pause) if sendable.retire() => {
                    drop(tried);
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Next::Again(_) => Stop::BodyGone,
                Next::Stop(stop) => stop,
            };
            finish.record.stopped = Some(stop);
            return if stop == Stop::BudgetSpent { Err(spent(tried)) } else { settled(tried) };
        }
    }

    /// Sends the request to one endpoint. The outer error is final.
    async fn attempt(
        &self,
        sendable: &Sendable<'_>,
        tried: &mut Vec<Arc<Endpoint>>,
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
        let at = self.staying(sendable, &view, tried, ask.now).or_else(|| view.pick(&ask, tried));
        let endpoint = view.endpoint(at.ok_or_else(|| Refusal::failure(Failure::NoEndpoint))?);
        let is_new = tried.iter().all(|tried| tried.workload.uid != endpoint.workload.uid);
        if tried.len() < TRIED_MAX && is_new {
            tried.push(endpoint.clone());
        }
        // A former attempt's place is free again by now.
        finish.ticket = None;
        let ticket = sendable.destination.ticket(&sendable.policy, endpoint);
        finish.reached(endpoint, ticket.map_err(|_| Refusal::failure(Failure::Overflow))?);
        let is_http2 = self.speaks_http2(sendable, endpoint);
        let body = match &sendable.replay {
            None => Upload::Empty,
            Some(replay) => replay
                .begin()
                .ok_or_else(|| Refusal::failure(Failure::Unreachable).because("the body is gone"))?,
        };
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

    /// The endpoint that the client is to stay with, unless it is gone, left out or tried: then another is chosen.
    fn staying(
        &self,
        sendable: &Sendable<'_>,
        view: &View,
        tried: &[Arc<Endpoint>],
        now: Instant,
    ) -> Option<usize> {
        let wanted = sendable.stays?;
        let sessions = &self.client.call.waypoint.hooks.sessions;
        sessions.sealing(|seal| sendable.destination.staying(view, wanted, seal, tried, now))
    }

    fn speaks_http2(&self, sendable: &Sendable<'_>, endpoint: &Endpoint) -> bool {
        if self.wishes.upgrade.is_some() {
            return false;
        }
        if sendable.is_grpc {
            // There is no gRPC on HTTP/1.1, whatever a port is said to carry.
            return true;
        }
        match endpoint.protocol {
            AppProtocol::Http2 | AppProtocol::Grpc => true,
            AppProtocol::Http11 => false,
            // What the client speaks the application is taken to understand.
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => {
                self.client.version == Version::HTTP_2
            }
        }
    }
}

impl Sendable<'_> {
    /// Until when an attempt that begins now may take, its whole response included.
    fn limit(&self, begun: Instant) -> Option<(Instant, Limit)> {
        let (within, limit) = self.deadline.of_attempt(begun)?;
        Some((begun.checked_add(within)?, limit))
    }

    /// Whether all of the request has arrived.
    fn is_whole(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.is_whole())
    }

    /// Whether its client broke off.
    fn is_broken(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| replay.is_broken())
    }

    /// Takes the body away from the attempt that had it, if it can be sent again.
    fn retire(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.retire())
    }

    /// What an attempt says about its endpoint, if it was one's.
    fn health(&self, outcome: &Result<Result<Tried, Refusal>, Due>) -> Option<Health> {
        let is_endpoints = match outcome {
            Ok(Ok(Ok(response))) => return Some(Health::of_status(response.status().as_u16())),
            Ok(Ok(Err(error))) => !error.is_refusal && !self.is_broken(),
            Err(Due::Over(Limit::Request)) => self.is_whole() && !self.deadline.is_callers(),
            Err(Due::Over(Limit::Try) | Due::Idle) => self.is_whole(),
            Err(Due::Slow) | Ok(Err(_)) => false,
        };
        is_endpoints.then_some(Health::GatewayError)
    }

    /// What follows an attempt that brought no good answer.
    fn next(&self, tried: &Result<Tried, Refusal>, made: u32, now: Instant) -> Next {
        let (outcome, is_sent) = match tried {
            Ok(Ok(response)) => (answered(response), true),
            // Whoever is asked next has the same answer to give.
            Ok(Err(error)) if error.is_refusal => return Next::Stop(Stop::NotListed),
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

    /// What the client gets of a request that had to end.
    fn ended(&self, due: Due) -> Refusal {
        let is_clients = self.replay.as_ref().is_some_and(|replay| replay.seen().is_starved);
        let late = |detail| {
            let grpc = Failure::Timeout.grpc_status();
            Refusal { grpc: Some(grpc), flag: "SI", ..Refusal::new(408, None, detail) }
        };
        match due {
            Due::Over(_) => Refusal::failure(Failure::Timeout),
            Due::Slow => late("request_body_too_slow"),
            Due::Idle if is_clients => late("request_body_idle"),
            Due::Idle => {
                Refusal { flag: "SI", detail: "stream_idle_timeout", ..Refusal::failure(Failure::Timeout) }
            }
        }
    }
}

/// What a client gets that broke off and still listens.
fn broken() -> Refusal {
    Refusal { flag: "DC", ..Refusal::new(400, None, "request_body_broken") }
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

/// What the client gets where another attempt was due and the budget had none left: 503, whatever the last one brought
/// (GEP-3388).
fn spent(tried: Result<Tried, Refusal>) -> Refusal {
    let (reason, text) = match tried {
        Ok(Ok(response)) => (None, format!("the last attempt was answered {}", response.status().as_u16())),
        Ok(Err(error)) => (Some(error.reason), error.text),
        Err(refusal) => (refusal.reason, refusal.error.unwrap_or_else(|| refusal.detail.to_owned())),
    };
    let refusal = Refusal::failure(Failure::Unreachable);
    Refusal { reason, flag: "URX", detail: "retry_budget_spent", ..refusal }.because(text)
}

/// What the client gets of the last attempt.
fn settled(tried: Result<Tried, Refusal>) -> Result<Response<Download>, Refusal> {
    match tried? {
        Ok(response) => Ok(response),
        Err(error) => {
            let refusal = Refusal::failure(Failure::Unreachable);
            let flag = if error.is_sent { "UC" } else { "UF" };
            let refusal = match error.is_invalid {
                true => Refusal { status: 502, flag: "UPE", detail: "upstream_protocol_error", ..refusal },
                false => Refusal { flag, ..refusal },
            };
            Err(Refusal { reason: Some(error.reason), ..refusal }.because(error.text))
        }
    }
}
