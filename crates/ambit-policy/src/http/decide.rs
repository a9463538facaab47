//! The verdict on a request: which policy and rule decide, and who has to be asked first.
//!
//! Order: DENY refuses; a policy that has not arrived refuses; CUSTOM asks its provider, whose no is final; without
//! ALLOW policies everything else is allowed, with them one must match. AUDIT only marks, dry-run only tells.
//! [`CustomOrder::BeforeToken`] moves CUSTOM to the front. Asking is the caller's work: it brings the answers and
//! asks for the verdict again.

use std::fmt;
use std::ops::ControlFlow;

use ambit_types::{PolicyKey, Reason, Str};

use super::PolicySet;
use super::facts::Facts;
use super::list::List;
use super::matcher::is_unevaluable;
use super::model::{Action, Attribute, Policy};
use super::set::CustomOrder;
use crate::decide::DryRun;
use crate::trace::{Recorder, Unrecorded};

/// Yes, no, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The request may proceed.
    Allow,
    /// It must be refused.
    Deny,
    /// Providers have to be asked before it is known.
    Ask,
}

/// A verdict with what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that nobody reads allows"]
pub struct Decision {
    /// Yes, no, or not yet.
    pub verdict: Verdict,
    /// Why, where there is something to say: every refusal, and plaintext that was let in.
    pub reason: Option<Reason>,
    /// The policy that decided, or the first one that is missing.
    pub policy: Option<PolicyKey>,
    /// Its rule that agreed, counted from 0.
    pub rule: Option<usize>,
    /// Whom to ask, each provider once; empty unless the verdict is [`Verdict::Ask`].
    pub asks: Vec<Ask>,
    /// AUDIT policies that matched before the verdict was clear.
    pub audit: Vec<Mark>,
    /// What dry-run policies would have done.
    pub dry_run: Vec<DryRun>,
}

/// A provider to ask, and who wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The provider's name.
    pub provider: Str,
    /// The CUSTOM policy that matched; the first, if several name this provider.
    pub policy: PolicyKey,
    /// Its rule that agreed.
    pub rule: usize,
}

/// An AUDIT policy that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The policy.
    pub policy: PolicyKey,
    /// Its rule that agreed.
    pub rule: usize,
}

/// What a provider said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// Yes, or no answer where the provider is configured to fail open.
    Allowed,
    /// No.
    Denied,
    /// No answer, an answer that is none, or nobody of that name.
    Unavailable,
}

/// Answers by provider.
pub type Answers<'a> = [(&'a str, Answer)];

impl Decision {
    /// Whether the request may proceed.
    pub fn is_allow(&self) -> bool {
        match self.verdict {
            Verdict::Allow => true,
            Verdict::Deny | Verdict::Ask => false,
        }
    }

    /// A refusal for a reason outside policy, such as a token that was rejected.
    pub fn refusal(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::of(Verdict::Deny) }
    }

    fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            reason: None,
            policy: None,
            rule: None,
            asks: Vec::new(),
            audit: Vec::new(),
            dry_run: Vec::new(),
        }
    }

    fn by(mut self, policy: &PolicyKey, rule: Option<usize>) -> Self {
        self.policy = Some(policy.clone());
        self.rule = rule;
        self
    }
}

impl fmt::Display for Decision {
    /// `allow by shop/web rule 0`, `AMB2201 http-deny-rule-matched by shop/lock rule 1`, `ask opa by shop/ext rule 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.verdict, self.reason) {
            (Verdict::Allow, None) => f.write_str("allow")?,
            (Verdict::Allow, Some(reason)) => write!(f, "allow {reason}")?,
            (Verdict::Deny, None) => f.write_str("deny")?,
            (Verdict::Deny, Some(reason)) => write!(f, "{reason}")?,
            (Verdict::Ask, _) => {
                let names: Vec<&str> = self.asks.iter().map(|ask| &*ask.provider).collect();
                write!(f, "ask {}", names.join(", "))?;
            }
        }
        if let Some(policy) = &self.policy {
            write!(f, " by {policy}")?;
        }
        self.rule.map_or(Ok(()), |rule| write!(f, " rule {rule}"))
    }
}

/// Decides about a request or connection. Allocates little: only what AUDIT, CUSTOM and dry-run have to say.
///
/// `answers` are those of providers asked so far. With [`Verdict::Ask`] the caller asks whom [`Decision::asks`] names
/// and comes again with their answers, and those it had; a second [`Verdict::Ask`] cannot follow for the same facts.
pub fn decide(set: &PolicySet, facts: &Facts<'_>, answers: &Answers<'_>) -> Decision {
    evaluate(set, facts, answers, &mut Unrecorded)
}

/// Whom to ask before the token is looked at, for [`CustomOrder::BeforeToken`]; `facts` hold no token yet.
///
/// With the other order nobody: [`decide()`] says when.
pub fn asks_before_token(set: &PolicySet, facts: &Facts<'_>) -> Vec<Ask> {
    match set.order {
        CustomOrder::BeforeToken => asks(set, facts, &mut Unrecorded),
        CustomOrder::AfterToken => Vec::new(),
    }
}

/// One step of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Audit,
    DryRunDeny,
    Deny,
    Unresolved,
    Custom,
    DryRunAllow,
    Allow,
}

impl CustomOrder {
    fn steps(self) -> [Step; 7] {
        use Step::{Allow, Audit, Custom, Deny, DryRunAllow, DryRunDeny, Unresolved};
        match self {
            Self::AfterToken => [Audit, DryRunDeny, Deny, Unresolved, Custom, DryRunAllow, Allow],
            Self::BeforeToken => [Custom, Audit, DryRunDeny, Deny, Unresolved, DryRunAllow, Allow],
        }
    }
}

/// The one evaluation behind [`decide()`] and [`super::explain()`].
pub(super) fn evaluate<R: Recorder<Attribute, Action>>(
    set: &PolicySet,
    facts: &Facts<'_>,
    answers: &Answers<'_>,
    recorder: &mut R,
) -> Decision {
    let mut evaluation =
        Evaluation { set, facts, answers, recorder, verdict: None, audit: Vec::new(), dry_run: Vec::new() };
    for step in set.order.steps() {
        if evaluation.verdict.is_some() && !R::THOROUGH {
            break;
        }
        let verdict = evaluation.step(step);
        evaluation.verdict = evaluation.verdict.or(verdict);
    }
    let Evaluation { verdict, audit, dry_run, .. } = evaluation;
    let decision = verdict.unwrap_or_else(|| allowed(facts));
    Decision { audit, dry_run, ..decision }
}

fn allowed(facts: &Facts<'_>) -> Decision {
    let reason = facts.peer().is_none().then_some(Reason::PlaintextAccepted);
    Decision { reason, ..Decision::of(Verdict::Allow) }
}

/// An evaluation under way.
struct Evaluation<'a, 'f, R> {
    set: &'a PolicySet,
    facts: &'a Facts<'f>,
    answers: &'a Answers<'a>,
    recorder: &'a mut R,
    verdict: Option<Decision>,
    audit: Vec<Mark>,
    dry_run: Vec<DryRun>,
}

impl<R: Recorder<Attribute, Action>> Evaluation<'_, '_, R> {
    /// The verdict of one step, if it has one.
    fn step(&mut self, step: Step) -> Option<Decision> {
        let set = self.set;
        match step {
            Step::Audit => self.audit(),
            Step::DryRunDeny => self.dry_run_deny(),
            Step::DryRunAllow => self.dry_run_allow(),
            Step::Deny => {
                let (policy, rule) = first_match(&set.deny, self.facts, self.recorder)?;
                Some(self.refused(policy, rule))
            }
            Step::Unresolved => {
                let missing = set.unresolved.first()?;
                Some(Decision::refusal(Reason::PolicyUnresolved).by(missing, None))
            }
            Step::Custom => {
                let asks = asks(set, self.facts, self.recorder);
                answered(asks, self.answers)
            }
            Step::Allow if set.allow.is_empty() => None,
            Step::Allow => match first_match(&set.allow, self.facts, self.recorder) {
                Some((policy, rule)) => Some(allowed(self.facts).by(&policy.key, Some(rule))),
                None => Some(Decision::refusal(match self.facts.request() {
                    Some(_) => Reason::HttpPolicyDenied,
                    None => Reason::PolicyDenied,
                })),
            },
        }
    }

    /// The refusal of a DENY rule that agreed.
    fn refused(&self, policy: &Policy, rule: usize) -> Decision {
        let unevaluable = policy.rules.get(rule).is_some_and(|rule| is_unevaluable(rule, self.facts));
        let reason = match (unevaluable, self.facts.request()) {
            (true, _) => Reason::PolicyUnevaluable,
            (false, Some(_)) => Reason::HttpDenyRuleMatched,
            (false, None) => Reason::DenyRuleMatched,
        };
        Decision::refusal(reason).by(&policy.key, Some(rule))
    }

    /// Whether what a policy has to say still belongs to the decision.
    fn is_reached(&self) -> bool {
        self.verdict.is_none()
    }

    fn audit(&mut self) -> Option<Decision> {
        let (set, is_reached) = (self.set, self.is_reached());
        set.audit.matches(self.facts, self.recorder, |policy, rule| {
            if is_reached {
                self.audit.push(Mark { policy: policy.key.clone(), rule });
            }
            ControlFlow::Continue(())
        });
        None
    }

    fn dry_run_deny(&mut self) -> Option<Decision> {
        let set = self.set;
        self.tell_each(&set.dry_run_deny, crate::Verdict::Deny);
        None
    }

    fn dry_run_allow(&mut self) -> Option<Decision> {
        let set = self.set;
        let matched = self.tell_each(&set.dry_run_allow, crate::Verdict::Allow);
        if !matched && !set.dry_run_allow.is_empty() && set.allow.is_empty() && self.is_reached() {
            self.dry_run.push(DryRun { verdict: crate::Verdict::Deny, policy: None, rule: None });
        }
        None
    }

    /// Tells what each matching policy would have done, and whether any matched.
    fn tell_each(&mut self, list: &List, verdict: crate::Verdict) -> bool {
        let (is_reached, mut matched) = (self.is_reached(), false);
        list.matches(self.facts, self.recorder, |policy, rule| {
            matched = true;
            if is_reached {
                self.dry_run.push(DryRun { verdict, policy: Some(policy.key.clone()), rule: Some(rule) });
            }
            ControlFlow::Continue(())
        });
        matched
    }
}

/// The first policy that agrees, and its rule.
fn first_match<'p, R: Recorder<Attribute, Action>>(
    list: &'p List,
    facts: &Facts<'_>,
    recorder: &mut R,
) -> Option<(&'p Policy, usize)> {
    let mut first = None;
    list.matches(facts, recorder, |policy, rule| {
        first = Some((policy, rule));
        ControlFlow::Break(())
    });
    first
}

/// Every provider that a matching CUSTOM policy names, once.
fn asks<R: Recorder<Attribute, Action>>(set: &PolicySet, facts: &Facts<'_>, recorder: &mut R) -> Vec<Ask> {
    let mut asks: Vec<Ask> = Vec::new();
    set.custom.matches(facts, recorder, |policy, rule| {
        let Action::Custom(provider) = &policy.action else { return ControlFlow::Continue(()) };
        if asks.iter().all(|ask| ask.provider != *provider) {
            asks.push(Ask { provider: provider.clone(), policy: policy.key.clone(), rule });
        }
        ControlFlow::Continue(())
    });
    asks
}

/// What the answers come to: one no refuses, a missing one has to be fetched, all yes decides nothing.
fn answered(asks: Vec<Ask>, answers: &Answers<'_>) -> Option<Decision> {
    let answer = |ask: &Ask| answers.iter().find(|(name, _)| *name == &*ask.provider).map(|(_, a)| *a);
    let mut unanswered = Vec::new();
    for ask in asks {
        let reason = match answer(&ask) {
            Some(Answer::Allowed) => continue,
            Some(Answer::Denied) => Reason::ExtAuthzDenied,
            Some(Answer::Unavailable) => Reason::ExtAuthzUnavailable,
            None => {
                unanswered.push(ask);
                continue;
            }
        };
        return Some(Decision::refusal(reason).by(&ask.policy, Some(ask.rule)));
    }
    let first = unanswered.first()?.clone();
    let decision = Decision::of(Verdict::Ask).by(&first.policy, Some(first.rule));
    Some(Decision { asks: unanswered, ..decision })
}
