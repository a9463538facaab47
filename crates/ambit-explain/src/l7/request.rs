//! A request as policies and routes read it, and what the first make of it.

use std::net::SocketAddr;

use ambit_policy::Facts;
use ambit_policy::http::{self, Answer, Verdict, remote_address};
use ambit_policy::jwt::{
    Authentication, Carrier, Edits, Options, Outcome, Rule, SignatureError, SignedToken, Verifier,
    authenticate,
};
use ambit_policy::normalize::{Target, header};
use ambit_route::filter::{Head, RequestHead};
use ambit_route::model::Scheme;
use ambit_route::{Request, split_target};
use ambit_state::waypoint::Applied;

use super::AtWaypoint;
use crate::explanation::Step;
use crate::question::HttpQuestion;
use crate::walk::{Ground, Walk};

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) host: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

/// Believes every signature: who explains has no keys. What it believed is told.
struct Believing;

impl Verifier for Believing {
    fn verify(&self, _: &Rule, _: &SignedToken<'_>) -> Result<(), SignatureError> {
        Ok(())
    }
}

impl Asked {
    /// The request that a question means, without what never reaches policies.
    ///
    /// # Errors
    /// What is wrong with a header.
    pub(super) fn of(question: &HttpQuestion, host: &str) -> Result<Self, String> {
        for (name, value) in &question.headers {
            let checked = header::check(name.as_bytes(), value.as_bytes());
            checked.map_err(|malformed| format!("header {name:?}: {malformed}"))?;
        }
        let own_host = question.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = question.host.as_deref().or_else(|| own_host.map(|(_, value)| &**value)).unwrap_or(host);
        let headers = question.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let mut asked = Self {
            method: question.method.clone(),
            target: question.path.clone(),
            host: host.to_owned(),
            headers: headers.filter(|(name, _)| name != "host").collect(),
        };
        asked.clean();
        Ok(asked)
    }

    /// Takes off what no client can send.
    pub(super) fn clean(&mut self) {
        self.headers.retain(|(name, _)| !header::is_taken_off(name));
    }

    /// As routes read it; path and query are those of its target.
    pub(super) fn view<'a>(
        &'a self,
        path: &'a str,
        query: Option<&'a str>,
        port: u16,
    ) -> Request<'a, Vec<(String, String)>> {
        Request {
            method: &self.method,
            scheme: Scheme::Http,
            authority: &self.host,
            port,
            path,
            query,
            headers: &self.headers,
        }
    }

    /// Takes the target as it was judged.
    pub(super) fn read(&mut self, target: &Target<'_>) {
        self.target = String::from_utf8_lossy(&target.path_and_query()).into_owned();
        target.authority().as_str().clone_into(&mut self.host);
    }

    /// Takes tokens out of the headers and puts claims in. No route compares cookies or parameters with tokens.
    pub(super) fn edit(&mut self, edits: &Edits) {
        self.headers.retain(|(name, _)| edits.remove_headers.iter().all(|gone| gone.as_str() != name));
        for (name, value) in &edits.set_headers {
            self.set(name.as_str(), value);
        }
    }
}

impl Head for Asked {
    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }
}

impl RequestHead for Asked {
    fn path(&self) -> &str {
        split_target(&self.target).0
    }

    fn set_path(&mut self, path: &str) {
        let query = split_target(&self.target).1;
        self.target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    }

    fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }
}

impl Walk<'_> {
    /// Judges a request by one service's rules; what changes in it because of its token.
    pub(super) fn judge(
        &mut self,
        at: &AtWaypoint<'_>,
        applied: &Applied,
        address: SocketAddr,
        target: &Target<'_>,
        asked: &Asked,
    ) -> Edits {
        let Authentication { outcome, edits } = self.authenticated(applied, target, asked);
        if let Outcome::Rejected(error) = &outcome {
            let ground = Ground { status: Some(error.status()), ..Ground::default() };
            self.refuse(Step::WaypointPolicy, error.reason(), error.to_string(), ground);
            return edits;
        }
        let peer = at.peer;
        let connection = Facts::new(Some(&peer.identity), peer.address, address.ip(), address.port());
        let remote = remote_address(peer.address, &asked.headers, applied.trusted_hops).ok();
        let of = |token| http::Request { target, headers: &asked.headers, remote, token };
        let without_token = http::Facts::of_request(connection, of(None));
        let facts = http::Facts::of_request(connection, of(outcome.token()));
        self.policies_read(applied, &facts);
        let mut asks = http::asks_before_token(&applied.policies, &without_token);
        let first = http::explain(&applied.policies, &facts, &answers(&asks));
        let evaluated = match first.decision.verdict {
            Verdict::Ask => {
                asks.extend(first.decision.asks.iter().cloned());
                http::explain(&applied.policies, &facts, &answers(&asks))
            }
            Verdict::Allow | Verdict::Deny => first,
        };
        // Behind a refusal, and where the rules refuse whatever it says, its word changes nothing.
        let is_its_word = !self.is_refused() && evaluated.decision.is_allow();
        for ask in &asks {
            if is_its_word {
                self.unkept.authorizers.insert(ask.provider.to_string());
            }
            self.assume(format!(
                "authorizer {} says yes (asked by {} rule {})",
                ask.provider, ask.policy, ask.rule
            ));
        }
        self.judged(&evaluated, Some(403));
        edits
    }

    /// Looks for a token. Its signature and its times are believed.
    fn authenticated(&mut self, applied: &Applied, target: &Target<'_>, asked: &Asked) -> Authentication {
        if applied.tokens.rules().is_empty() {
            return Authentication { outcome: Outcome::Unauthenticated, edits: Edits::default() };
        }
        let carrier = Carrier { target, headers: &asked.headers };
        // No time is far from any other by this allowance.
        let options = Options { leeway_seconds: u64::MAX, ..applied.token_options };
        let authentication = authenticate(&applied.tokens, &carrier, &Believing, 0, &options);
        if let Outcome::Authenticated(_) = &authentication.outcome {
            self.assume("the token's signature fits, and it is valid at this time");
        }
        authentication
    }
}

/// Everybody who is asked says yes.
fn answers(asks: &[http::Ask]) -> Vec<(&str, Answer)> {
    asks.iter().map(|ask| (&*ask.provider, Answer::Allowed)).collect()
}
