//! What becomes of one request, once its rule is known: where it goes and how it is changed, or what it is answered.
//!
//! Authorization and limits on rates have been settled before. Endpoints, time and repetition come after; they have
//! modules of their own.

use crate::backend::{Backend, Failure};
use crate::filter::{End, Filters, Head, Preflight, RequestHead};
use crate::model::{Mirror, Respond, Target};
use crate::request::{Headers, Request};
use crate::rule::Rule;
use crate::select::Selected;
use crate::session::Held;

/// What becomes of a request.
#[derive(Debug)]
pub enum Plan<'t> {
    /// It goes on.
    Forward(Forward<'t>),
    /// It is answered here.
    Answer(Answer<'t>),
}

/// A request that goes on.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'t> {
    /// The rule and its backend; none for a service without routes, whose own endpoints get the request unchanged.
    pub by: Option<(&'t Rule, &'t Backend)>,
}

/// An answer that needs no backend.
#[derive(Debug)]
pub enum Answer<'t> {
    /// To a preflight request.
    Preflight(Preflight),
    /// Another address.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The address.
        location: String,
    },
    /// A fixed response.
    Respond(&'t Respond),
    /// No answer can be had.
    Failure(Failure),
}

impl<'t> Selected<'t> {
    /// Plans a request; `draw` is uniform over all of `u64` and chooses the backend.
    pub fn plan<H: Headers + ?Sized>(&self, request: &Request<'_, H>, draw: u64) -> Plan<'t> {
        self.plan_of(request, draw, None)
    }

    /// The same for a request of a session, which stays with its backend as long as that may be used.
    pub fn plan_of<H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        draw: u64,
        session: Option<&Held<'t>>,
    ) -> Plan<'t> {
        let rule = match self {
            Self::Service => return Plan::Forward(Forward { by: None }),
            Self::NoMatch(_) => return Plan::Answer(Answer::Failure(Failure::RouteNotFound)),
            Self::Rule(rule, _) => *rule,
        };
        if !rule.is_valid {
            return Plan::Answer(Answer::Failure(Failure::RuleInvalid));
        }
        if let Some(preflight) = rule.filters.cors.as_ref().and_then(|cors| cors.preflight(request)) {
            return Plan::Answer(Answer::Preflight(preflight));
        }
        if let Some(answer) = own_answer(&rule.filters, request) {
            return Plan::Answer(answer);
        }
        let held = session.and_then(|held| rule.backends.of(held.target?));
        match held.map_or_else(|| rule.backends.pick(draw), Ok) {
            Err(failure) => Plan::Answer(Answer::Failure(failure)),
            Ok(backend) => own_answer(&backend.filters, request)
                .map_or(Plan::Forward(Forward { by: Some((rule, backend)) }), Plan::Answer),
        }
    }

    /// Plans a connection that is passed through: the backend, or none for the service's own endpoints.
    ///
    /// # Errors
    /// Why there is no backend.
    pub fn plan_stream(&self, draw: u64) -> Result<Option<&'t Backend>, Failure> {
        match self {
            Self::Service => Ok(None),
            Self::NoMatch(_) => Err(Failure::RouteNotFound),
            Self::Rule(rule, _) if !rule.is_valid => Err(Failure::RuleInvalid),
            Self::Rule(rule, _) => rule.backends.pick(draw).map(Some),
        }
    }
}

fn own_answer<'t, H: Headers + ?Sized>(filters: &'t Filters, request: &Request<'_, H>) -> Option<Answer<'t>> {
    Some(match filters.end.as_deref()? {
        End::Redirect(to) => Answer::Redirect { status: to.status, location: to.location(request) },
        End::Respond(respond) => Answer::Respond(respond),
    })
}

impl<'t> Forward<'t> {
    /// Where it goes; none for the service's own endpoints.
    pub fn target(&self) -> Option<&'t Target> {
        self.by.map(|(_, backend)| &backend.target)
    }

    /// Changes the request: the rule's filters first, then the backend's. `mirrored` is shown each mirror and the
    /// head as it is at that step.
    pub fn apply<R: RequestHead>(&self, head: &mut R, mut mirrored: impl FnMut(&Mirror, &R)) {
        if let Some((rule, backend)) = self.by {
            rule.filters.apply(head, &mut mirrored);
            backend.filters.apply(head, &mut mirrored);
        }
    }

    /// Changes the backend's response: its own filters first, then the rule's, then what browsers are told. `names`
    /// are the headers that the response has, in lower case.
    pub fn apply_to_response<'a, H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        names: impl Iterator<Item = &'a str>,
        head: &mut impl Head,
    ) {
        let Some((rule, backend)) = self.by else { return };
        for change in [&backend.filters, &rule.filters].iter().filter_map(|f| f.response_headers.as_deref()) {
            change.apply(head);
        }
        if let Some(cors) = &rule.filters.cors {
            cors.mark(request, names, head);
        }
    }
}

impl Answer<'_> {
    /// The HTTP status; 200 for a failure that a gRPC caller is told in gRPC's words.
    pub fn status(&self, is_grpc: bool) -> u16 {
        match self {
            Self::Preflight(Preflight::Granted(_)) => 204,
            Self::Preflight(Preflight::Refused) => 403,
            Self::Redirect { status, .. } => *status,
            Self::Respond(respond) => respond.status,
            Self::Failure(_) if is_grpc => 200,
            Self::Failure(failure) => failure.status(),
        }
    }

    /// The gRPC status of a failure that a gRPC caller is told.
    pub fn grpc_status(&self, is_grpc: bool) -> Option<u32> {
        match self {
            Self::Failure(failure) if is_grpc => Some(failure.grpc_status()),
            Self::Failure(_) | Self::Preflight(_) | Self::Redirect { .. } | Self::Respond(_) => None,
        }
    }
}
