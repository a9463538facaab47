//! May this request pass? Gathers facts, asks `ambit-policy`, and asks those whom it says to ask.

use ambit_policy::http::{
    self as policy, Answer, Ask, Decision, Verdict, asks_before_token, decide, remote_address,
};
use ambit_policy::jwt::{
    Authentication, Carrier, Edits, Outcome, Verified, authenticate, challenge, without_cookies,
    without_params,
};
use ambit_policy::normalize::Target;
use ambit_runtime::clock;
use ambit_types::{Reason, Str};
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};

use super::Finish;
use super::answer::{Refusal, Told};
use super::head::Fields;
use crate::hooks::{Asked, Checked};
use crate::state::Applied;
use crate::terminate::Call;

/// Authorises a request and answers with the path and query that go on.
///
/// # Errors
/// The refusal that the client gets.
pub(super) async fn authorize(
    call: &Call,
    applied: &Applied,
    target: &Target<'_>,
    fields: &mut Fields,
    finish: &mut Finish,
) -> Result<String, Refusal> {
    let mut answers: Vec<(Str, Answer)> = Vec::new();
    let mut changes = HeaderMap::new();
    let facts = Facts { call, applied, target };
    for ask in facts.asks_before_token(fields) {
        facts.ask(&ask, fields, &mut answers, &mut changes).await?;
    }
    let (token, edits) = facts.authenticate(fields)?;
    let mut decision = facts.decide(fields, token.as_deref(), &answers);
    if decision.verdict == Verdict::Ask {
        for ask in std::mem::take(&mut decision.asks) {
            facts.ask(&ask, fields, &mut answers, &mut changes).await?;
        }
        decision = facts.decide(fields, token.as_deref(), &answers);
    }
    finish.record.decided(&decision);
    if !decision.is_allow() {
        let reason = decision.reason.unwrap_or(Reason::ExtAuthzUnavailable);
        return Err(Refusal::new(403, Some(reason), "rbac_access_denied"));
    }
    let query = edit(&edits, target, fields);
    for (name, value) in changes {
        // A name is given once, and more values of it without.
        if let Some(name) = name {
            fields.0.insert(name, value);
        }
    }
    String::from_utf8(target.path_with(query.as_deref()))
        .map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "not-ascii"))
}

/// What is asked about.
struct Facts<'a> {
    call: &'a Call,
    applied: &'a Applied,
    target: &'a Target<'a>,
}

impl Facts<'_> {
    fn with<T>(
        &self,
        fields: &Fields,
        token: Option<&Verified>,
        act: impl FnOnce(&policy::Facts<'_>) -> T,
    ) -> T {
        let (peer, address) = (&self.call.peer, self.call.target.address());
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
        changes: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        let path = self.target.path_and_query();
        let asked = Asked {
            peer: &self.call.peer.identity,
            method: self.target.method(),
            authority: self.target.authority().as_str(),
            path: std::str::from_utf8(&path).unwrap_or_default(),
            headers: &fields.0,
        };
        let Checked { answer, set_headers, status, answer_headers, body } =
            self.call.waypoint.hooks.external.check(ask, asked).await;
        answers.push((ask.provider.clone(), answer));
        let reason = match answer {
            Answer::Allowed => {
                changes.extend(set_headers);
                return Ok(());
            }
            Answer::Denied => Reason::ExtAuthzDenied,
            Answer::Unavailable => Reason::ExtAuthzUnavailable,
        };
        let refusal = Refusal::new(status.unwrap_or(403), Some(reason), "ext_authz_denied");
        let body = Some(body).filter(|body| !body.is_empty());
        let told = Some(Box::new(Told { headers: answer_headers, body }));
        Err(Refusal { flag: "UAEX", told, ..refusal })
    }
}

/// Takes tokens out and puts claims in; answers with the query that is left.
fn edit(edits: &Edits, target: &Target<'_>, fields: &mut Fields) -> Option<Vec<u8>> {
    for name in &edits.remove_headers {
        fields.0.remove(name.as_str());
    }
    if !edits.remove_cookies.is_empty() {
        let lines: Vec<HeaderValue> = fields.0.get_all(COOKIE).iter().cloned().collect();
        fields.0.remove(COOKIE);
        let kept = lines.iter().filter_map(|line| without_cookies(line.as_bytes(), &edits.remove_cookies));
        for line in kept.filter_map(|line| HeaderValue::from_bytes(&line).ok()) {
            fields.0.append(COOKIE, line);
        }
    }
    for (name, value) in &edits.set_headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            fields.0.insert(name, value);
        }
    }
    let query = target.query()?;
    match edits.remove_params.is_empty() {
        true => Some(query.to_vec()),
        false => without_params(query, &edits.remove_params),
    }
}
