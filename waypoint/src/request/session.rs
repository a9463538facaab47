//! A client that stays with an endpoint: its mark looked up before anything is chosen, and told with the response.

use ambit_route::model::Target;
use ambit_route::session::{Held, Seal, Session, Stay};
use ambit_route::{Forward, Request, Selected};
use ambit_runtime::clock;
use http::header::{HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response};

use super::head::Fields;
use super::sanitize::may_be_told;
use crate::State;
use crate::sessions::Sessions;
use crate::terminate::Call;
use crate::upstream::{Destination, Endpoint};

/// The session of a request whose endpoint may be sent to.
pub(super) fn held<'t>(
    call: &'t Call,
    state: &'t State,
    selected: &Selected<'t>,
    view: &Request<'_, Fields>,
) -> Option<Held<'t>> {
    let waypoint = &call.waypoint;
    let called = call.target.service().map(|service| (service, call.target.address().port()));
    waypoint.hooks.sessions.sealing(|seal| {
        let exists = |target: Option<&Target>, tag: u64| {
            let destination = waypoint.upstream.destination(state, &call.target, target);
            destination.is_some_and(|destination| {
                let now = clock::monotonic();
                destination.staying(&destination.view(state), tag, seal, &[], now).is_some()
            })
        };
        selected.session(&state.routes, called, view, seal, exists)
    })
}

/// How the client of a request that goes on stays with its endpoint.
#[derive(Debug)]
pub(super) struct Staying<'t> {
    stay: Stay<'t>,
    brought: Option<Session>,
}

impl<'t> Staying<'t> {
    /// None if nobody wants it.
    pub(super) fn of(
        call: &'t Call,
        state: &'t State,
        forward: &Forward<'t>,
        held: Option<Held<'t>>,
    ) -> Option<Self> {
        let to = match forward.target() {
            Some(Target::Service { service, port }) => (service, *port),
            Some(Target::Invalid { .. }) => return None,
            None => (call.target.service()?, call.target.address().port()),
        };
        let stay = state.routes.stay(forward.by.map(|(rule, _)| rule), to)?;
        Some(Self { stay, brought: held.map(|held| held.session) })
    }

    /// What stands in the mark that the client brought.
    pub(super) fn tag(&self) -> Option<u64> {
        self.brought.map(|session| session.tag)
    }

    /// Adds to a response what its client needs to come back to the endpoint that made it.
    pub(super) fn tell<B>(
        &self,
        sessions: &Sessions,
        destination: &Destination,
        endpoint: &Endpoint,
        response: &mut Response<B>,
    ) {
        sessions.sealing(|seal| self.add(destination, endpoint, seal, response.headers_mut()));
    }

    fn add(&self, destination: &Destination, endpoint: &Endpoint, seal: &Seal<'_>, headers: &mut HeaderMap) {
        let tag = destination.tag(endpoint, seal);
        let Some((name, value)) = tag.and_then(|tag| self.stay.told(tag, self.brought, seal)) else { return };
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(may_be_told);
        let Some((name, value)) = name.zip(HeaderValue::from_str(&value).ok()) else { return };
        if name == SET_COOKIE {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}
