//! Which persistence holds for a request, what its mark leads to, and what its client is told.
//!
//! What a rule says stands before what is said of the service it sends to. A session that is alive stands before the
//! weights. Whether an endpoint is there is the caller's to say.

use ambit_types::ServiceKey;

use super::{Scope, Seal, Session, carried, set_cookie};
use crate::model::{Persistence, Target};
use crate::request::{Headers, Request};
use crate::rule::Rule;
use crate::select::Selected;
use crate::table::Table;

/// How clients stay with an endpoint of a backend.
#[derive(Debug, Clone, Copy)]
pub struct Stay<'t> {
    persistence: &'t Persistence,
    scope: Scope<'t>,
}

/// A session that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'t> {
    /// As its mark says.
    pub session: Session,
    /// The backend that has its endpoint; none for a service without routes.
    pub target: Option<&'t Target>,
}

impl Table {
    /// How clients stay with an endpoint of `to`, a port of a service that `rule` sends to, or that has no routes.
    pub fn stay<'t>(&'t self, rule: Option<&'t Rule>, to: (&'t ServiceKey, u16)) -> Option<Stay<'t>> {
        let (service, port) = to;
        let of_rule = rule.and_then(|rule| Some((rule.persistence.as_deref()?, Scope::Rule(&rule.id))));
        let of_service =
            || Some((self.destination(service).persistence.as_ref()?, Scope::Service(service, port)));
        of_rule.or_else(of_service).map(|(persistence, scope)| Stay { persistence, scope })
    }
}

impl<'t> Stay<'t> {
    /// The session of a request; none if its mark is missing, not ours, of somewhere else, or too old.
    pub fn carried<H: Headers + ?Sized>(&self, request: &Request<'_, H>, seal: &Seal<'_>) -> Option<Session> {
        let mark = carried(self.persistence, request)?;
        Session::read(mark, &self.scope, self.persistence, seal.now, seal.mac)
    }

    /// The header line by which a client is told that it is with the endpoint of this tag: name and value. A cookie is
    /// not told to a client that brought it; a header is, since clients look for it in each response.
    pub fn told(&self, tag: u64, brought: Option<Session>, seal: &Seal<'_>) -> Option<(&'t str, String)> {
        let kept = brought.filter(|session| session.tag == tag);
        let session = kept.unwrap_or(Session { tag, began: seal.now });
        let mark = session.mark(&self.scope, seal.mac);
        // Clients of the mesh speak plain HTTP inside their tunnels.
        match set_cookie(self.persistence, &session, &mark, false, seal.now) {
            Some(cookie) => kept.is_none().then_some(("set-cookie", cookie)),
            None => Some((&*self.persistence.name, mark)),
        }
    }
}

impl<'t> Selected<'t> {
    /// The session that a request belongs to. `called` is the port of the service that was called, if one was;
    /// `exists` says whether the endpoint of a tag is among those of a backend and may be sent to.
    pub fn session<H: Headers + ?Sized>(
        &self,
        table: &'t Table,
        called: Option<(&'t ServiceKey, u16)>,
        request: &Request<'_, H>,
        seal: &Seal<'_>,
        mut exists: impl FnMut(Option<&'t Target>, u64) -> bool,
    ) -> Option<Held<'t>> {
        let mut held = |rule: Option<&'t Rule>, to: (&'t ServiceKey, u16), target: Option<&'t Target>| {
            let session = table.stay(rule, to)?.carried(request, seal)?;
            exists(target, session.tag).then_some(Held { session, target })
        };
        match *self {
            Self::NoMatch(_) => None,
            Self::Service => held(None, called?, None),
            Self::Rule(rule, _) => rule.backends.iter().find_map(|backend| match &backend.target {
                Target::Service { service, port } => {
                    held(Some(rule), (service, *port), Some(&backend.target))
                }
                Target::Invalid { .. } => None,
            }),
        }
    }
}
