//! The way of one question: every step's answer, and the first refusal.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_policy::Explanation as Evaluated;
use ambit_route::Hidden;
use ambit_types::{Identity, Reason, Str, Workload};

use crate::explanation::{
    Code, DecidedBy, Explanation, Hop, Nearest, Onward, Outcome, PolicyConsidered, Routed, Step, Verdict, Way,
};
use crate::mesh::{self, Caller, Dialled};
use crate::nearest;
use crate::question::Question;
use crate::unkept::{self, Unkept};
use crate::view::{Certificate, View};

/// What decided, and what came nearest to deciding otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ground {
    pub(crate) decided_by: Option<DecidedBy>,
    pub(crate) nearest: Option<Nearest>,
    pub(crate) policies: Vec<PolicyConsidered>,
    pub(crate) details: Vec<String>,
    /// The status that an HTTP client gets.
    pub(crate) status: Option<u16>,
}

/// The first refusal.
#[derive(Debug)]
struct Refused {
    reason: Reason,
    ground: Ground,
}

/// A way that is being gone.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) question: &'a Question,
    hops: Vec<Hop>,
    assumed: Vec<String>,
    refused: Option<Refused>,
    /// What is worth knowing of what goes through.
    noted: Option<Reason>,
    allowed_by: Option<DecidedBy>,
    nearest: Option<Nearest>,
    pub(crate) way: Option<Way>,
    pub(crate) route: Option<Routed>,
    endpoint: Option<(String, Str)>,
    source_node: Option<Str>,
    pub(crate) onward: Option<Onward>,
    /// The status of an answer that a route gives itself.
    pub(crate) status: Option<u16>,
    /// What was not kept, of a record that is asked about.
    pub(crate) hidden: Hidden,
    /// What of that the answer depends on.
    pub(crate) unkept: Unkept,
}

/// Goes the whole way.
pub(crate) fn walk(view: &View<'_>, question: &Question) -> Explanation {
    walk_again(view, question, unkept::NOTHING).0
}

/// Goes the whole way of a record, of which more is hidden than its headers; also tells what the answer depends on that
/// was not kept.
pub(crate) fn walk_again(view: &View<'_>, question: &Question, hidden: Hidden) -> (Explanation, Unkept) {
    let mut walk = Walk { hidden, ..Walk::new(view, question) };
    let name = match mesh::caller(view.snapshot, &question.source) {
        Some(caller) => {
            let name = caller.name.clone();
            match mesh::dialled(view.snapshot, &caller, &question.destination, question.draw) {
                Ok(Dialled::At(at)) => walk.go(&caller, at),
                Ok(Dialled::ByDns { host, port }) => walk.out_by_name(&caller, &host, port),
                Err((reason, what)) => walk.refuse(Step::Service, reason, what, Ground::default()),
            }
            name
        }
        None => {
            let what = format!("nobody of the mesh is called {}", question.source);
            walk.refuse(Step::Capture, Reason::WorkloadUnknown, what, Ground::default());
            question.source.to_string()
        }
    };
    let mut unkept = std::mem::take(&mut walk.unkept);
    unkept.is_refused_anyway = walk.is_refused() && unkept.read.is_empty();
    (walk.finish(name), unkept)
}

impl<'a> Walk<'a> {
    fn new(view: &'a View<'a>, question: &'a Question) -> Self {
        Self {
            view,
            question,
            hops: Vec::new(),
            assumed: Vec::new(),
            refused: None,
            noted: None,
            allowed_by: None,
            nearest: None,
            way: None,
            route: None,
            endpoint: None,
            source_node: None,
            onward: None,
            status: None,
            hidden: unkept::NOTHING,
            unkept: Unkept::default(),
        }
    }

    fn go(&mut self, caller: &Caller, at: SocketAddr) {
        let caller = &caller.towards(at.ip());
        match self.opens_tunnels(caller) {
            Some(workload) => self.captured(caller, &workload, at),
            None => self.plain(caller, at),
        }
    }

    /// The caller's workload, if its connections are captured. Who passes on a client's identity is a waypoint, which
    /// opens tunnels by itself and is not.
    pub(crate) fn opens_tunnels(&mut self, caller: &Caller) -> Option<Arc<Workload>> {
        self.source_node = caller.workload.as_ref().map(|workload| workload.node.clone());
        let is_waypoint = self.question.client.is_some();
        caller.workload.clone().filter(|workload| is_waypoint || crate::source::is_captured(workload))
    }

    /// Notes a step that goes on, or does not apply.
    pub(crate) fn note(
        &mut self,
        step: Step,
        outcome: Outcome,
        what: impl Into<String>,
        details: Vec<String>,
    ) {
        let what = what.into();
        self.hops.push(Hop { step, outcome, what, reason: None, details, policies: Vec::new() });
    }

    /// Notes a step that goes on because of `ground`.
    pub(crate) fn pass(&mut self, step: Step, reason: Option<Reason>, what: String, ground: Ground) {
        let Ground { decided_by, nearest, policies, details, .. } = ground;
        self.noted = self.noted.or(reason);
        // Of several decisions the last that a policy made is told: the one nearest to the destination.
        self.allowed_by = decided_by.or_else(|| self.allowed_by.take());
        self.nearest = nearest.or_else(|| self.nearest.take());
        let reason = reason.map(Code);
        self.hops.push(Hop { step, outcome: Outcome::Passed, what, reason, details, policies });
    }

    /// Notes a refusal. The first one is the verdict.
    pub(crate) fn refuse(&mut self, step: Step, reason: Reason, what: impl Into<String>, ground: Ground) {
        self.hops.push(Hop {
            step,
            outcome: Outcome::Refused,
            what: what.into(),
            reason: Some(Code(reason)),
            details: ground.details.clone(),
            policies: ground.policies.clone(),
        });
        self.refused.get_or_insert(Refused { reason, ground });
    }

    /// Notes where it ends.
    pub(crate) fn end_at(&mut self, workload: &Workload) {
        self.endpoint = Some((mesh::name_of(workload), workload.node.clone()));
    }

    /// Notes what nobody here can know, once.
    pub(crate) fn assume(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.assumed.contains(&what) {
            self.assumed.push(what);
        }
    }

    /// Whether something on the way has refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Notes what was not kept and may change the answer. What comes behind a refusal changes nothing any more.
    pub(crate) fn depends_on(&mut self, what: impl IntoIterator<Item = String>) {
        if !self.is_refused() {
            self.unkept.read.extend(what);
        }
    }

    /// Notes a decision of L4 policies.
    pub(crate) fn decided(&mut self, evaluated: &Evaluated) {
        let decision = &evaluated.decision;
        let ground = Ground {
            decided_by: nearest::decided_by(decision.policy.as_ref(), decision.rule),
            nearest: evaluated.nearest.as_ref().map(nearest::nearest),
            policies: nearest::considered(&evaluated.policies),
            details: nearest::dry_runs(&decision.dry_run).collect(),
            status: None,
        };
        let what = decision.to_string();
        match decision.is_allow() {
            true => self.pass(Step::Policy, decision.reason, what, ground),
            // As ztunnel does: a refusal without a reason counts as one by policy.
            false => self.refuse(Step::Policy, decision.reason.unwrap_or(Reason::PolicyDenied), what, ground),
        }
    }

    /// Notes how it stands with the certificates of both ends of a tunnel.
    pub(crate) fn certificates(&mut self, ends: [&Identity; 2]) {
        let mut details = Vec::new();
        let mut fault = None;
        for identity in ends {
            let Some(held) = self.view.certificates.get(identity) else { continue };
            let (text, reason) = match held {
                Certificate::Valid { remaining_s } => (format!("valid for {remaining_s} s"), None),
                Certificate::Expired => ("expired".to_owned(), Some(Reason::CertificateOutsideValidity)),
                Certificate::Missing => ("not issued yet".to_owned(), Some(Reason::NoCertificate)),
                Certificate::Refused => ("refused by the CA".to_owned(), Some(Reason::IssuanceRefused)),
            };
            fault = fault.or_else(|| reason.map(|reason| (reason, format!("that of {identity} is {text}"))));
            details.push(format!("{identity}: {text}"));
        }
        match fault {
            Some((reason, what)) => {
                self.refuse(Step::Certificate, reason, what, Ground { details, ..Ground::default() });
            }
            None if details.is_empty() => {
                self.note(Step::Certificate, Outcome::Unknown, "not known here", details);
                self.assume("the certificates of both ends are valid");
            }
            None => self.note(Step::Certificate, Outcome::Passed, "all that are known are valid", details),
        }
    }

    fn finish(self, source: String) -> Explanation {
        let question = self.question;
        let request = question.http.as_ref().map(|http| format!("{} {}", http.method, http.path));
        let (verdict, reason, ground) = match self.refused {
            Some(Refused { reason, ground }) => (Verdict::Deny, Some(reason), ground),
            None => {
                let (decided_by, nearest) = (self.allowed_by, self.nearest);
                let ground = Ground { decided_by, nearest, status: self.status, ..Ground::default() };
                (Verdict::Allow, self.noted, ground)
            }
        };
        let (endpoint, endpoint_node) = self.endpoint.unzip();
        Explanation {
            source,
            destination: question.destination.to_string(),
            request,
            verdict,
            reason: reason.map(Code),
            decided_by: ground.decided_by,
            nearest: ground.nearest,
            status: ground.status,
            way: self.way,
            route: self.route,
            endpoint,
            endpoint_node: endpoint_node.filter(|node| !node.is_empty()).map(|node| node.to_string()),
            source_node: self.source_node.filter(|node| !node.is_empty()).map(|node| node.to_string()),
            hops: self.hops,
            assumed: self.assumed,
            onward: self.onward,
        }
    }
}

/// Whoever calls the next proxy: proven, and where from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) address: IpAddr,
    /// On whose behalf, if it is a waypoint.
    pub(crate) client: Option<Identity>,
}
