//! May this request pass? Gathers facts, asks `ambit-policy`, and asks those whom it says to ask.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_policy::http::{
    self as policy, Answer, Ask, Decision, Verdict, asks_before_token, decide, remote_address,
};
use ambit_policy::jwt::{
    Authentication, Carrier, Edits, Outcome, SignatureError, TokenError, Verified, authenticate, challenge,
    without_cookies, without_params,
};
use ambit_policy::normalize::Target;
use ambit_route::split_target;
use ambit_runtime::clock;
use ambit_types::{Reason, Str};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, WWW_AUTHENTICATE};

use super::Client;
use super::answer::{Refusal, Told};
use super::head::{Fields, Head};
use crate::hooks::{Asked, Checked, FieldChange};
use crate::observe::Exchange;
use crate::state::Applied;
use crate::terminate::Call;

/// Judges requests of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) client: &'a Client,
    /// The address and port of a service that policies compare.
    pub(super) at: SocketAddr,
    pub(super) is_grpc: bool,
}

/// What is to be changed in a request that may pass, and in its response.
#[derive(Debug, Default)]
pub(super) struct Passed {
    edits: Vec<Edits>,
    request: Vec<FieldChange>,
    remove: Vec<HeaderName>,
    /// What authorizers change in the response.
    pub(super) response: Vec<FieldChange>,
}

impl Passed {
    /// Whether the request goes on as it was judged.
    pub(super) fn is_unchanging(&self) -> bool {
        self.edits.is_empty() && self.request.is_empty() && self.remove.is_empty()
    }

    /// Headers that authorizers set or take off.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.request.iter().map(|change| &change.name).chain(&self.remove)
    }

    /// Changes the request: tokens first, then what authorizers want.
    ///
    /// # Errors
    /// 400 if its query cannot be written without the token.
    pub(super) fn apply(&self, head: &mut Head) -> Result<(), Refusal> {
        for edits in &self.edits {
            edit(edits, head)?;
        }
        self.request.iter().for_each(|change| change.apply(&mut head.fields.0));
        for name in &self.remove {
            head.fields.0.remove(name);
        }
        Ok(())
    }
}

impl Judge<'_> {
    /// Judges a request by everything that applies: all have to allow it. The record is told of every decision.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub(super) async fn all<'s>(
        &self,
        applied: impl Iterator<Item = (&'s Arc<Applied>, u16)>,
        target: &Target<'_>,
        fields: &Fields,
        mut record: Option<&mut Exchange>,
    ) -> Result<Passed, Refusal> {
        let mut passed = Passed::default();
        for (applied, port) in applied {
            let at = SocketAddr::new(self.at.ip(), port);
            let facts = Facts { judge: self, call: &self.client.call, applied, at, target };
            facts.judged(fields, record.as_deref_mut(), &mut passed).await?;
        }
        Ok(passed)
    }
}

/// What is asked about.
struct Facts<'a> {
    judge: &'a Judge<'a>,
    call: &'a Call,
    applied: &'a Applied,
    /// The address and the service's port that policies compare.
    at: SocketAddr,
    target: &'a Target<'a>,
}

impl Facts<'_> {
    async fn judged(
        &self,
        fields: &Fields,
        record: Option<&mut Exchange>,
        passed: &mut Passed,
    ) -> Result<(), Refusal> {
        let mut answers: Vec<(Str, Answer)> = Vec::new();
        for ask in self.asks_before_token(fields) {
            self.ask(&ask, fields, &mut answers, passed).await?;
        }
        let (token, edits) = self.authenticated(fields).await?;
        let mut decision = self.decide(fields, token.as_deref(), &answers);
        if decision.verdict == Verdict::Ask {
            for ask in std::mem::take(&mut decision.asks) {
                self.ask(&ask, fields, &mut answers, passed).await?;
            }
            decision = self.decide(fields, token.as_deref(), &answers);
        }
        if let Some(record) = record {
            record.decided(&decision);
        }
        if !decision.is_allow() {
            let reason = decision.reason.unwrap_or(Reason::ExtAuthzUnavailable);
            return Err(Refusal::new(403, Some(reason), "rbac_access_denied"));
        }
        if edits != Edits::default() {
            passed.edits.push(edits);
        }
        Ok(())
    }

    fn with<T>(
        &self,
        fields: &Fields,
        token: Option<&Verified>,
        act: impl FnOnce(&policy::Facts<'_>) -> T,
    ) -> T {
        let (peer, address) = (&self.call.peer, self.at);
        let source = peer.address.ip();
        let connection = ambit_policy::Facts::new(Some(&peer.identity), source, address.ip(), address.port());
        let remote = remote_address(source, fields, self.applied.trusted_hops).ok();
        let request = policy::Request { target: self.target, headers: fields, remote, token };
        act(&policy::Facts::of_request(connection, request))
    }

    fn asks_before_token(&self, fields: &Fields) -> Vec<Ask> {
        self.with(fields, None, |facts| asks_before_token(&self.applied.policies, facts))
    }

    fn decide(&self, fields: &Fields, token: Option<&Verified>, answers: &[(Str, Answer)]) -> Decision {
        let answers: Vec<(&str, Answer)> = answers.iter().map(|(name, answer)| (&**name, *answer)).collect();
        self.with(fields, token, |facts| decide(&self.applied.policies, facts, &answers))
    }

    /// As [`Self::authenticate`], once there are keys to check with. An unknown key may be a new one, and then the
    /// token is looked at again with the keys of now.
    async fn authenticated(&self, fields: &Fields) -> Result<(Option<Box<Verified>>, Edits), Refusal> {
        let keys = self.call.waypoint.hooks.keys.as_ref().filter(|_| !self.applied.tokens.rules().is_empty());
        let Some(keys) = keys else { return self.authenticate(fields) };
        keys.ready(&self.applied.tokens).await;
        let first = self.authenticate(fields);
        let unknown = TokenError::Signature(SignatureError::NoSuchKey).name();
        let is_unknown = first.as_ref().is_err_and(|refusal| refusal.detail == unknown);
        if is_unknown && keys.renewed(&self.applied.tokens).await {
            return self.authenticate(fields);
        }
        first
    }

    /// The token, if there is one, and what changes in the request because of it.
    fn authenticate(&self, fields: &Fields) -> Result<(Option<Box<Verified>>, Edits), Refusal> {
        let tokens = &self.applied.tokens;
        if tokens.rules().is_empty() {
            return Ok((None, Edits::default()));
        }
        let carrier = Carrier { target: self.target, headers: fields };
        let verifier = &*self.call.waypoint.hooks.verifier;
        let now = clock::unix_seconds();
        let Authentication { outcome, edits } =
            authenticate(tokens, &carrier, verifier, now, &self.applied.token_options);
        match outcome {
            Outcome::Unauthenticated => Ok((None, edits)),
            Outcome::Authenticated(verified) => Ok((Some(verified), edits)),
            Outcome::Rejected(error) => {
                let mut told = Told::default();
                if let Ok(value) = HeaderValue::from_str(&challenge(self.target.authority())) {
                    told.headers.insert(WWW_AUTHENTICATE, value);
                }
                let refusal = Refusal::new(error.status(), Some(error.reason()), error.name());
                let refusal = refusal.because(error.to_string());
                Err(Refusal { told: Some(Box::new(told)), ..refusal })
            }
        }
    }

    /// Asks one provider; its no ends the request with what it wants the client to see.
    async fn ask(
        &self,
        ask: &Ask,
        fields: &Fields,
        answers: &mut Vec<(Str, Answer)>,
        passed: &mut Passed,
    ) -> Result<(), Refusal> {
        let path = self.target.path_and_query();
        let asked = Asked {
            peer: &self.call.peer.identity,
            source: self.call.peer.address,
            destination: self.at,
            method: self.target.method(),
            authority: self.target.authority().as_str(),
            path: std::str::from_utf8(&path).unwrap_or_default(),
            headers: &fields.0,
            version: self.judge.client.version,
            waypoint: &self.call.waypoint,
        };
        let checked = self.call.waypoint.hooks.external.check(ask, asked).await;
        let Checked { answer, request, remove, response, status, mut answer_headers, body } = checked;
        answers.push((ask.provider.clone(), answer));
        let reason = match answer {
            Answer::Allowed => {
                passed.request.extend(request);
                passed.remove.extend(remove);
                passed.response.extend(response);
                return Ok(());
            }
            Answer::Denied => Reason::ExtAuthzDenied,
            Answer::Unavailable => Reason::ExtAuthzUnavailable,
        };
        let refusal = Refusal::new(status.unwrap_or(403), Some(reason), "ext_authz_denied");
        let body = Some(body).filter(|body| !body.is_empty());
        if self.judge.is_grpc || body.is_none() {
            // They describe a body that is not sent: gRPC is told in its own words.
            answer_headers.remove(CONTENT_TYPE);
            answer_headers.remove(CONTENT_ENCODING);
        }
        if self.judge.is_grpc {
            answer_headers.remove("grpc-status");
            answer_headers.remove("grpc-message");
        }
        let told = Some(Box::new(Told { headers: answer_headers, body }));
        Err(Refusal { flag: "UAEX", told, ..refusal })
    }
}

/// Takes tokens out and puts claims in.
fn edit(edits: &Edits, head: &mut Head) -> Result<(), Refusal> {
    let fields = &mut head.fields.0;
    for name in &edits.remove_headers {
        fields.remove(name.as_str());
    }
    if !edits.remove_cookies.is_empty() {
        let lines: Vec<HeaderValue> = fields.get_all(COOKIE).iter().cloned().collect();
        fields.remove(COOKIE);
        let kept = lines.iter().filter_map(|line| without_cookies(line.as_bytes(), &edits.remove_cookies));
        for line in kept.filter_map(|line| HeaderValue::from_bytes(&line).ok()) {
            fields.append(COOKIE, line);
        }
    }
    for (name, value) in &edits.set_headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            fields.insert(name, value);
        }
    }
    let (path, query) = split_target(&head.target);
    let Some(query) = query.filter(|_| !edits.remove_params.is_empty()) else { return Ok(()) };
    let left = without_params(query.as_bytes(), &edits.remove_params).map(String::from_utf8).transpose();
    let left = left.map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "not-ascii"))?;
    head.target = left.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    Ok(())
}
