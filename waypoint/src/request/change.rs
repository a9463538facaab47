//! What the filters of a route make of a request, and whether that may still pass.
//!
//! Policies have judged the request as the client sent it. Filters of the service's own namespace may then change what
//! they like: whoever writes them writes the policies too. A consumer's filters may do no more than its clients could
//! do themselves, so what they make of a request is judged as if the client had sent it so. A backend with policies
//! of its own that is not the service called has its say about everything that a consumer, or another namespace,
//! sends to it.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_policy::normalize::{Options, Received, Target as Read, normalize};
use ambit_route::filter::{Filters, Head as Changes, RequestHead, Step};
use ambit_route::model::Target;
use ambit_route::{Forward, Selected, Side};
use ambit_types::Reason;
use http::HeaderMap;

use super::answer::Refusal;
use super::authorize::{Judge, Passed};
use super::head::{Fields, Head};
use super::sanitize::drop_foreign;
use crate::hooks::FieldChange;
use crate::observe::Exchange;
use crate::state::{Applied, Governing};
use crate::{State, filters};

/// A request that policies have let pass, before the filters of its route.
pub(super) struct Change<'a> {
    pub(super) judge: Judge<'a>,
    pub(super) state: &'a State,
    /// What applies to whoever is called.
    pub(super) governing: &'a Governing<'a>,
    pub(super) selected: Selected<'a>,
    pub(super) forward: Forward<'a>,
    /// As the client sent it.
    pub(super) asked: Asked,
    /// What judging it has changed since.
    pub(super) passed: Passed,
}

/// What of a request is another once it has been judged.
pub(super) struct Asked {
    /// Path and query.
    target: String,
    /// None if they are the same.
    fields: Option<Fields>,
}

/// A request as it goes on.
pub(super) struct Changed {
    pub(super) head: Head,
    /// Copies for mirrors.
    pub(super) copies: Vec<(Target, Head)>,
    /// What authorizers change in the response.
    pub(super) told: Vec<FieldChange>,
}

/// Two heads that filters change alike.
#[derive(Debug, Clone)]
struct Both {
    /// As the client sent it.
    asked: Head,
    /// As it goes on: without its token, and with what authorizers added.
    sent: Head,
}

impl Asked {
    /// Keeps what `passed` is going to change.
    pub(super) fn of(head: &Head, passed: &Passed) -> Self {
        let fields = (!passed.is_unchanging()).then(|| head.fields.clone());
        Self { target: head.target.clone(), fields }
    }
}

impl Change<'_> {
    /// Carries out the filters. The record is told of decisions about the request itself, not about its copies.
    ///
    /// # Errors
    /// The refusal that the client gets, if what has become of the request may not pass.
    pub(super) async fn make(mut self, mut head: Head, record: &mut Exchange) -> Result<Changed, Refusal> {
        let is_remade = self.is_remade();
        if !is_remade && !self.targets().any(|to| self.own_of(to).is_some()) {
            let copies = filters::apply(&self.forward, &mut head);
            return Ok(Changed { head, copies, told: self.passed.response });
        }
        let before = is_remade.then(|| head.fields.0.clone());
        let fields = self.asked.fields.take().unwrap_or_else(|| head.fields.clone());
        let asked = Head { target: std::mem::take(&mut self.asked.target), fields, ..head.clone() };
        let mut both = Both { asked, sent: head };
        let made = filters::apply(&self.forward, &mut both);
        let told = self.judged(&mut both, self.forward.target(), before.as_ref(), Some(record)).await?;
        let mut copies = Vec::with_capacity(made.len());
        for (to, mut copy) in made {
            match self.judged(&mut copy, Some(&to), before.as_ref(), None).await {
                Ok(_) => copies.push((to, copy.sent)),
                Err(_) => filters::refused(),
            }
        }
        Ok(Changed { head: both.sent, copies, told })
    }

    /// Whether somebody changes the request who has no say about the service that is called.
    fn is_remade(&self) -> bool {
        let is_change = |step: &Step| match step {
            Step::Headers(_) | Step::Rewrite(_) => true,
            Step::Mirror(_) => false,
        };
        self.is_consumers() && self.filters().flat_map(|filters| &filters.steps).any(is_change)
    }

    fn is_consumers(&self) -> bool {
        match self.selected {
            Selected::Rule(_, Side::Consumer) => true,
            Selected::Rule(_, Side::Producer) | Selected::Service | Selected::NoMatch(_) => false,
        }
    }

    fn filters(&self) -> impl Iterator<Item = &Filters> {
        self.forward.by.into_iter().flat_map(|(rule, backend)| [&rule.filters, &backend.filters])
    }

    /// Where the request goes, and its copies may.
    fn targets(&self) -> impl Iterator<Item = &Target> {
        let mirrors = self.filters().flat_map(|filters| &filters.steps).filter_map(|step| match step {
            Step::Mirror(mirror) => Some(&mirror.target),
            Step::Headers(_) | Step::Rewrite(_) => None,
        });
        self.forward.target().into_iter().chain(mirrors)
    }

    /// What applies to a backend by itself and has not been asked, and where the backend is.
    fn own_of(&self, to: &Target) -> Option<(&Arc<Applied>, SocketAddr)> {
        let called = &self.judge.client.call.target;
        self.state.rules_of_backend(called, self.governing, self.is_consumers(), to)
    }

    /// Judges what has become of a request, or of a copy, that goes to `to`; answers with what authorizers change in
    /// the response. `before` are the header lines that a stranger's filters were given, if it was one's.
    async fn judged(
        &self,
        both: &mut Both,
        to: Option<&Target>,
        before: Option<&HeaderMap>,
        mut record: Option<&mut Exchange>,
    ) -> Result<Vec<FieldChange>, Refusal> {
        let mut told = self.passed.response.clone();
        if let Some(before) = before {
            // No client can send these.
            drop_foreign(&mut both.asked.fields.0);
            let options = &self.governing.first().normalize;
            let read = read(&both.asked, options)?;
            let fields = &both.asked.fields;
            let passed =
                self.judge.all(self.governing.judged(), &read, fields, record.as_deref_mut()).await?;
            let mut sent = both.asked.clone();
            align(&mut sent, &read)?;
            passed.apply(&mut sent)?;
            self.restore(&passed, before, &mut sent.fields.0);
            both.sent = sent;
            told = passed.response;
        }
        if let Some((applied, at)) = to.and_then(|to| self.own_of(to)) {
            let read = read(&both.asked, &applied.normalize)?;
            let judge = Judge { at, ..self.judge };
            let passed =
                judge.all(std::iter::once((applied, at.port())), &read, &both.asked.fields, record).await?;
            align(&mut both.sent, &read)?;
            passed.apply(&mut both.sent)?;
            told.extend(passed.response);
        }
        Ok(told)
    }

    /// Puts back what authorizers said of the request before it was changed, unless they have said it anew.
    fn restore(&self, anew: &Passed, before: &HeaderMap, fields: &mut HeaderMap) {
        for name in self.passed.names().filter(|name| anew.names().all(|one| one != *name)) {
            fields.remove(name);
            for value in before.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
    }
}

/// Reads the target of a head that filters have changed, as that of a request is read.
fn read<'h>(head: &'h Head, options: &Options) -> Result<Read<'h>, Refusal> {
    let received = Received {
        method: head.method.as_str().as_bytes(),
        authority: Some(head.authority.as_bytes()),
        path: Some(head.target.as_bytes()),
        ..Received::default()
    };
    normalize(&received, options).map_err(|refusal| Refusal::unreadable(&refusal))
}

/// What was judged is what goes on; the query is left as it is.
fn align(head: &mut Head, read: &Read<'_>) -> Result<(), Refusal> {
    let path = std::str::from_utf8(read.sent_path());
    let path = path.map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "not-ascii"))?;
    head.set_path(path);
    read.authority().as_str().clone_into(&mut head.authority);
    Ok(())
}

impl Changes for Both {
    fn set(&mut self, name: &str, value: &str) {
        self.asked.set(name, value);
        self.sent.set(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.asked.add(name, value);
        self.sent.add(name, value);
    }

    fn remove(&mut self, name: &str) {
        self.asked.remove(name);
        self.sent.remove(name);
    }
}

impl RequestHead for Both {
    fn path(&self) -> &str {
        self.sent.path()
    }

    fn set_path(&mut self, path: &str) {
        self.asked.set_path(path);
        self.sent.set_path(path);
    }

    fn set_host(&mut self, host: &str) {
        self.asked.set_host(host);
        self.sent.set_host(host);
    }
}
