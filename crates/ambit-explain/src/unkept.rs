//! What an answer depends on that no record keeps: headers, queries, tokens, what authorizers said, and of some records
//! the request itself.
//!
//! It is gathered on the way, where the waypoint's rules are asked, and only as far as it may change the answer.

use std::collections::BTreeSet;

use ambit_policy::http::{self, Attribute};
use ambit_policy::jwt::RuleSet;
use ambit_route::{Hidden, Request, RouteKind};
use ambit_state::waypoint::{Applied, State, Target};

use crate::walk::Walk;

/// What a way has met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unkept {
    /// What rules read and nobody kept, in words.
    pub(crate) read: BTreeSet<String>,
    /// Whose word it takes.
    pub(crate) authorizers: BTreeSet<String>,
    /// By which rules tokens are checked, in the order in which they were met.
    pub(crate) tokens: Vec<RuleSet>,
    /// It ends in a refusal, whatever was not kept: tokens and authorizers could only have refused it before.
    pub(crate) is_refused_anyway: bool,
}

impl Unkept {
    /// Why the two ways of one record cannot be compared; none if they can.
    pub(crate) fn parts(before: &Self, after: &Self) -> Option<String> {
        let mut read: BTreeSet<String> = before.read.union(&after.read).cloned().collect();
        if !after.is_refused_anyway {
            // What an authorizer said is in the record's verdict, unless another one is asked.
            let others = after.authorizers.difference(&before.authorizers);
            read.extend(others.map(|name| format!("the word of authorizer {name}")));
            if before.tokens != after.tokens {
                read.insert("the token".to_owned());
            }
        }
        let read: Vec<String> = read.into_iter().collect();
        (!read.is_empty()).then(|| format!("it depends on what no record keeps: {}", read.join(", ")))
    }
}

impl Walk<'_> {
    /// Notes what a waypoint's policies read of a connection or request.
    pub(crate) fn policies_read(&mut self, applied: &Applied, facts: &http::Facts<'_>) {
        let (hidden, is_request) = (self.hidden, facts.request().is_some());
        let is_hidden = |attribute: &Attribute| match attribute {
            Attribute::Principal
            | Attribute::Namespace
            | Attribute::ServiceAccount
            | Attribute::TrustDomain
            | Attribute::SourceIp
            | Attribute::DestinationIp
            | Attribute::DestinationPort => false,
            // Behind trusted proxies a header has it.
            Attribute::RemoteIp => is_request && applied.trusted_hops > 0,
            Attribute::ServerName => !is_request,
            Attribute::Host => is_request && hidden.host,
            Attribute::Method | Attribute::Path => is_request && hidden.request,
            Attribute::Header(_)
            | Attribute::RequestPrincipal
            | Attribute::Audience
            | Attribute::Presenter
            | Attribute::Claim(_) => is_request,
        };
        let read = http::depends_on(&applied.policies, facts, &is_hidden);
        self.depends_on(read.iter().map(ToString::to_string));
        if is_request && !self.is_refused() && !applied.tokens.rules().is_empty() {
            self.unkept.tokens.push(applied.tokens.clone());
        }
    }

    /// Notes what a waypoint's routes read of a request.
    pub(crate) fn routes_read(
        &mut self,
        state: &State,
        target: &Target,
        client: Option<&str>,
        request: &Request<'_, Vec<(String, String)>>,
    ) {
        let Some(service) = target.service() else { return };
        let Some((routes, _)) = state.routes.routes_for(service, request.port, client) else { return };
        self.depends_on(routes.depends_on(request, self.hidden));
    }

    /// Notes what a waypoint's routes read of a connection.
    pub(crate) fn stream_routes_read(&mut self, state: &State, target: &Target, client: Option<&str>) {
        let Some(service) = target.service() else { return };
        let routes = state.routes.routes_for(service, target.address().port(), client);
        if routes.is_some_and(|(routes, _)| routes.kind() == RouteKind::Tls) {
            self.depends_on(["server name".to_owned()]);
        }
    }
}

/// What is hidden of a record that tells its host and its request: what no record tells.
pub(crate) const NOTHING: Hidden = Hidden { host: false, request: false };
