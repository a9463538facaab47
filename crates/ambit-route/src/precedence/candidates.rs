//! Matches that share a place, in their order.
//!
//! A long list is cut short by one thing that most of its matches want an exact value of, such as a header that names
//! a tenant: the request's own value leads to the few that can agree. Those without such a condition are kept beside,
//! and both lists are walked in the common order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Map, Rank};
use crate::matcher::{Asked, Attribute, Condition};
use crate::request::{Headers, Hidden};

/// Length up to which a list is simply walked.
const WALK_MAX: usize = 8;

/// A match with its rank: the conditions that its place does not answer, and the rule it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) rank: Rank,
    pub(crate) conditions: Box<[Condition]>,
    pub(crate) rule: u32,
}

/// A match as the index holds it: ranks have given the order and are not kept.
#[derive(Debug)]
struct Held {
    conditions: Box<[Condition]>,
    rule: u32,
}

impl Held {
    fn agrees<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> bool {
        self.conditions.iter().all(|condition| condition.agrees(asked))
    }
}

/// Candidates in order.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    ordered: Box<[Held]>,
    shortcut: Option<Box<Shortcut>>,
}

/// Positions in the list by the value of one attribute.
#[derive(Debug)]
struct Shortcut {
    attribute: Attribute,
    by_value: Map<Box<[u8]>, Box<[u32]>>,
    others: Box<[u32]>,
}

/// What a request says about an attribute.
enum Found<'a> {
    /// One value.
    Value(&'a [u8]),
    /// None, so that no exact condition agrees.
    Nothing,
    /// Something that has to be compared one by one, such as a header on several lines.
    Unclear,
}

impl Candidates {
    /// Puts them in order.
    pub(super) fn new(mut candidates: Vec<Candidate>) -> Self {
        candidates.sort_by(|a, b| a.rank.cmp(&b.rank));
        let ordered: Box<[Held]> = candidates
            .into_iter()
            .map(|Candidate { conditions, rule, .. }| Held { conditions, rule })
            .collect();
        let shortcut = (ordered.len() > WALK_MAX).then(|| Shortcut::over(&ordered)).flatten();
        Self { ordered, shortcut: shortcut.map(Box::new) }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// The rule of the first that agrees.
    pub(super) fn first<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> Option<u32> {
        self.first_match(asked).map(|candidate| candidate.rule)
    }

    fn first_match<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> Option<&Held> {
        let Some(shortcut) = &self.shortcut else { return self.walk(asked) };
        let by_value = match shortcut.attribute.of(asked) {
            Found::Value(value) => shortcut.by_value.get(value).map_or(&[][..], |list| &**list),
            Found::Nothing => &[],
            Found::Unclear => return self.walk(asked),
        };
        let agreeing = |list: &[u32]| {
            let mut positions = list.iter().copied();
            positions.find(|at| self.at(*at).is_some_and(|candidate| candidate.agrees(asked)))
        };
        let (one, other) = (agreeing(by_value), agreeing(&shortcut.others));
        self.at(one.into_iter().chain(other).min()?)
    }

    /// Notes what was not kept and decides whether one of these is taken; whether one is taken whatever that is.
    pub(super) fn depends_on<H: Headers + ?Sized>(
        &self,
        asked: &Asked<'_, H>,
        hidden: Hidden,
        read: &mut BTreeSet<String>,
    ) -> bool {
        for candidate in &self.ordered {
            let own: Vec<String> = candidate.conditions.iter().filter_map(|one| one.reads(hidden)).collect();
            let mut known = candidate.conditions.iter().filter(|one| one.reads(hidden).is_none());
            if !known.all(|condition| condition.agrees(asked)) {
                continue;
            }
            if own.is_empty() {
                return true;
            }
            read.extend(own);
        }
        false
    }

    /// Whether the first of them takes whatever comes here.
    pub(super) fn takes_all(&self) -> bool {
        self.ordered.first().is_some_and(|first| first.conditions.is_empty())
    }

    fn walk<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> Option<&Held> {
        self.ordered.iter().find(|candidate| candidate.agrees(asked))
    }

    fn at(&self, position: u32) -> Option<&Held> {
        self.ordered.get(usize::try_from(position).ok()?)
    }
}

impl Shortcut {
    /// By the attribute that has the most different values; none if that would not shorten anything.
    fn over(candidates: &[Held]) -> Option<Self> {
        let mut values: BTreeMap<Attribute, BTreeMap<&str, Vec<u32>>> = BTreeMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let at = u32::try_from(at).ok()?;
            for (attribute, value) in candidate.conditions.iter().filter_map(Condition::only_value) {
                values.entry(attribute).or_default().entry(value).or_default().push(at);
            }
        }
        let (attribute, by_value) = values.into_iter().max_by_key(|(_, by_value)| by_value.len())?;
        let mut is_other = vec![true; candidates.len()];
        for at in by_value.values().flatten().filter_map(|at| usize::try_from(*at).ok()) {
            is_other[at] = false;
        }
        let others = (0..).zip(is_other).filter_map(|(at, other)| other.then_some(at)).collect();
        let bytes = |value: &str| Box::from(value.as_bytes());
        let by_value: Map<_, _> =
            by_value.into_iter().map(|(value, list)| (bytes(value), list.into())).collect();
        (by_value.len() > 1).then_some(Self { attribute, by_value, others })
    }
}

impl Attribute {
    fn of<'a, H: Headers + ?Sized>(&'a self, asked: &'a Asked<'_, H>) -> Found<'a> {
        let request = asked.request;
        let call = || request.grpc_call();
        let value = match self {
            Self::Method => Some(request.method.as_bytes()),
            Self::Header(name) => {
                let mut lines = request.header_lines(name);
                let first = lines.next();
                if lines.next().is_some() {
                    return Found::Unclear;
                }
                first
            }
            Self::Query(slot) => asked.query_value(*slot),
            Self::GrpcService => call().map(|(service, _)| service.as_bytes()),
            Self::GrpcMethod => call().map(|(_, method)| method.as_bytes()),
        };
        value.map_or(Found::Nothing, Found::Value)
    }
}
