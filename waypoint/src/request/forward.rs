//! A request on its way to an endpoint: chosen, sent, sent again if that is safe and wanted ([`attempts`]), and its
//! response on its way back.

mod attempts;

use std::sync::Arc;
use std::time::Duration;

use ambit_route::balance::hash_of;
use ambit_route::filter::Step;
use ambit_route::model::{Abort, Balance, Retry, Target, Timeouts};
use ambit_route::timeout::{Deadline, parse_grpc_timeout};
use ambit_route::{Failure, Forward};
use ambit_runtime::clock;
use ambit_types::Reason;
use http::header::{HeaderValue, ORIGIN};
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::answer::Refusal;
use super::body::{Keeping, Outgoing, Rate, Replay, Watch};
use super::head::{Fields, Head};
use super::sanitize::{Wishes, clean_response};
use super::{Client, Finish, session, upgrade};
use crate::upstream::{Destination, Download};
use crate::{State, filters, random};
use attempts::Sendable;

/// A request that goes on, and what is known of it.
pub(super) struct Asked<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) state: &'a Arc<State>,
    pub(super) forward: Forward<'a>,
    /// How its client stays with an endpoint.
    pub(super) staying: Option<session::Staying<'a>>,
    pub(super) wishes: &'a Wishes,
    pub(super) on_upgrade: OnUpgrade,
    /// `Origin` as the client sent it.
    pub(super) origin: Option<HeaderValue>,
    /// Copies of the request for mirrors.
    pub(super) copies: Vec<(Target, Head)>,
}

impl Asked<'_> {
    /// Sends the request and answers with what comes of it.
    pub(super) async fn send(
        self,
        head: Head,
        body: Incoming,
        finish: &mut Finish,
    ) -> Result<Response<Outgoing>, Refusal> {
        let sent = self.forward(head, body, finish).await;
        if sent.is_err()
            && let Some(body) = &finish.record.body
        {
            // What the client still sends is for nobody.
            body.close();
        }
        sent
    }

    async fn forward(
        mut self,
        head: Head,
        body: Incoming,
        finish: &mut Finish,
    ) -> Result<Response<Outgoing>, Refusal> {
        let begun = finish.record.begun;
        let waypoint = &self.client.call.waypoint;
        let deadline = Deadline::new(&self.timeouts(), asked_timeout(&head, finish, waypoint)?, begun);
        self.inject(&deadline).await?;
        let origin = self.origin.take().filter(|_| self.needs_origin());
        let default = Retry::of_the_mesh();
        let retry = self.forward.by.map_or(&default, |(rule, _)| &rule.retry);
        let keeping = self.keeping(retry, finish.record.is_grpc);
        let replay = (!body.is_end_stream()).then(|| Replay::new(body, keeping));
        finish.record.body.clone_from(&replay);
        filters::send(std::mem::take(&mut self.copies), &self.client.call, replay.as_ref());
        let called = &self.client.call.target;
        let destination = waypoint.upstream.destination(self.state, called, self.forward.target());
        let destination = destination.ok_or_else(|| Refusal::failure(Failure::NoEndpoint))?;
        finish.record.destination = Some(destination.clone());
        let policy = destination.view(self.state).policy.clone();
        let hash = match &policy.balance {
            Balance::ConsistentHash(keys) => {
                hash_of(keys, &head.view(), Some(self.client.call.peer.address.ip()))
            }
            Balance::LeastRequest | Balance::RoundRobin | Balance::Random => None,
        };
        destination.count(begun);
        let is_grpc = finish.record.is_grpc;
        let mut watch = self.watch(replay.is_some() && !is_grpc);
        let stays = self.staying.as_ref().and_then(session::Staying::tag);
        let sendable = Sendable { head, replay, destination, policy, retry, deadline, hash, stays, is_grpc };
        let response = self.attempts(&sendable, &mut watch, finish).await?;
        self.answer(response, sendable, watch, origin, finish)
    }

    /// What is done with the request's body besides sending it.
    fn keeping(&self, retry: &Retry, is_grpc: bool) -> Keeping {
        let is_mirrored = self.forward.by.is_some_and(|(rule, backend)| {
            let mut steps = rule.filters.steps.iter().chain(&backend.filters.steps);
            steps.any(|step| matches!(step, Step::Mirror(_)))
        });
        let is_wanted = retry.attempts > 0 || is_mirrored;
        Keeping {
            bytes_max: if is_wanted { self.client.call.waypoint.limits.replay_bytes_max } else { 0 },
            is_mirrored,
            keeps_trailers: self.wishes.trailers || is_grpc,
            is_grpc,
            is_paced: self.client.version == Version::HTTP_11,
        }
    }

    /// Watches the request from now on. A rule that allows more time than the usual silence means it.
    fn watch(&self, has_timed_body: bool) -> Watch {
        let (limits, timeouts) = (&self.client.call.waypoint.limits, self.timeouts());
        let allowed = timeouts.request.max(timeouts.backend_request).unwrap_or_default();
        let idle = timeouts.idle.filter(|idle| !idle.is_zero());
        let idle = idle.unwrap_or_else(|| limits.idle_timeout.max(allowed));
        let window = limits.upload_rate_window;
        let bytes_min = limits.upload_rate_min.saturating_mul(window.as_secs().max(1));
        let rate = Rate { bytes_min, window };
        Watch::new(clock::monotonic(), idle, (has_timed_body && bytes_min > 0).then_some(rate))
    }

    /// Puts in the faults that the rule asks for. A delay takes of the request's time as an endpoint's would.
    async fn inject(&self, deadline: &Deadline) -> Result<(), Refusal> {
        let Some(fault) = self.forward.by.and_then(|(rule, _)| rule.fault.as_ref()) else { return Ok(()) };
        let injected = ambit_route::filter::inject(fault, random::number(), random::number());
        if let Some(pause) = injected.pause {
            let left = deadline.remaining(clock::monotonic());
            tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
            if left.is_some_and(|left| left <= pause) {
                return Err(Refusal::failure(Failure::Timeout));
            }
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

    /// The response as the client gets it.
    fn answer(
        mut self,
        response: Response<Download>,
        sendable: Sendable<'_>,
        mut watch: Watch,
        origin: Option<HeaderValue>,
        finish: &mut Finish,
    ) -> Result<Response<Outgoing>, Refusal> {
        let staying = self.staying.take();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let idle = self.timeouts().idle.filter(|idle| !idle.is_zero());
            let near = self.on_upgrade;
            let switched = upgrade::switch(self.client, self.wishes, near, idle, response, finish)?;
            return Ok(told(staying, self.client, &sendable.destination, switched, finish));
        }
        let Sendable { head, replay, destination, .. } = sendable;
        if let Some(replay) = &replay {
            replay.answered();
        }
        watch.answered(clock::monotonic());
        let (mut parts, mut body) = response.into_parts();
        clean_response(&mut parts.headers);
        if self.wishes.upgrade.is_some() {
            // Neither side is to take what follows for a request, or for its body.
            body.close_after();
            if self.client.version == Version::HTTP_11 {
                parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        self.filter_response(&head, origin, &mut parts.headers);
        finish.record.grpc_told(&parts.headers);
        let keeps_trailers =
            self.wishes.trailers || finish.record.is_grpc || self.client.version == Version::HTTP_2;
        parts.version = self.client.version;
        let body = Outgoing::upstream(body, watch, replay, keeps_trailers);
        let response = Response::from_parts(parts, body);
        Ok(told(staying, self.client, &destination, response, finish))
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

/// A response that tells its client how to come back to the endpoint it is of.
fn told(
    staying: Option<session::Staying<'_>>,
    client: &Client,
    destination: &Destination,
    mut response: Response<Outgoing>,
    finish: &Finish,
) -> Response<Outgoing> {
    if let Some((staying, endpoint)) = staying.zip(finish.record.endpoint.as_ref()) {
        let sessions = &client.call.waypoint.hooks.sessions;
        staying.tell(sessions, destination, endpoint, &mut response);
    }
    response
}

/// A request's head without its header lines.
fn bare(head: &Head) -> ambit_route::Request<'_, Fields> {
    static NONE: std::sync::LazyLock<Fields> = std::sync::LazyLock::new(Fields::default);
    ambit_route::Request { headers: &NONE, ..head.view() }
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
