//! From the model to a table: everything is checked, and what is wrong stays where it is.
//!
//! A rule with something wrong in it is not skipped. It keeps its place and answers 500 there, because the next
//! rule that would take its requests was not written for them. A condition that cannot be read counts as fulfilled,
//! or, where it is on a path, as the segments that can be read; in the last case every valid match on the same path
//! comes first.

mod checks;
mod error;
mod filters;
mod grpc;
mod http;
mod rule;

#[cfg(test)]
mod tests;

use crate::model::limits::PATH_PATTERNS_MAX;
use crate::model::{Frontend, Group, Route, RouteKey, StreamRoute};
use crate::precedence::{Candidate, Index, Rank};
use crate::rule::{Rule, RuleId};
use crate::stream::StreamIndex;
use crate::table::{FrontendRoutes, Lookup, RouteSet};
pub use error::{Effect, PathFault, RuleError, RuleFault};
use error::{Findings, RuleAt};
use rule::{Entry, Match};

/// Compiles the routes of one port of a service.
pub(crate) fn frontend(frontend: &Frontend) -> (FrontendRoutes, Vec<RuleError>) {
    let mut errors = Vec::new();
    let producer = frontend.producer.as_ref().and_then(|group| compile_group(group, &mut errors));
    let consumers = frontend.consumers.iter().filter_map(|(namespace, group)| {
        compile_group(group, &mut errors).map(|routes| (namespace.clone(), routes))
    });
    let consumers = consumers.collect();
    (FrontendRoutes { producer, consumers }, errors)
}

/// Compiles a group; none if nothing is attached.
fn compile_group(group: &Group, errors: &mut Vec<RuleError>) -> Option<RouteSet> {
    if group.is_empty() {
        return None;
    }
    Some(match group {
        Group::Http(routes) => requests(routes, Lookup::Http, |entry| entry, errors),
        Group::Listed(routes) => requests(routes, Lookup::Http, Entry::in_order, errors),
        Group::Grpc(routes) => requests(routes, Lookup::Grpc, |entry| entry, errors),
        Group::Tls(routes) => streams(routes, Lookup::Tls, errors),
        Group::Tcp(routes) => streams(routes, Lookup::Tcp, errors),
        Group::Unrouted(routes) => requests(routes, Lookup::Unrouted, |entry| entry, errors),
    })
}

/// Compiles routes for requests; `arrange` has the last word on where a match is looked for.
fn requests<M: Match>(
    routes: &[Route<M>],
    lookup: fn(Index) -> Lookup,
    arrange: fn(Entry) -> Entry,
    errors: &mut Vec<RuleError>,
) -> RouteSet {
    let mut patterns_left = PATH_PATTERNS_MAX;
    let mut entries = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    for route in routes {
        for (number, rule) in route.rules.iter().enumerate() {
            let at = RuleAt { route: &route.key, rule: number };
            let mut findings = Findings::new(at, errors);
            let mut matches = rule::matches(rule, &mut findings, &mut patterns_left);
            let own = rule::compile(id(&route.key, number, rule.name.clone()), rule, findings);
            let Ok(index) = u32::try_from(rules.len()) else { break };
            rules.push(own);
            entries.extend(matches.drain(..).map(arrange).enumerate().map(|(position, entry)| {
                let rank = Rank {
                    is_stand_in: entry.is_stand_in,
                    specificity: std::cmp::Reverse(entry.specificity),
                    created: route.created,
                    route: route.key.clone(),
                    position: (number, position),
                };
                let conditions = entry.conditions.into();
                (entry.place, Candidate { rank, conditions, rule: index })
            }));
        }
    }
    RouteSet { lookup: lookup(Index::new(entries)), rules: rules.into() }
}

fn streams(
    routes: &[StreamRoute],
    lookup: fn(StreamIndex) -> Lookup,
    errors: &mut Vec<RuleError>,
) -> RouteSet {
    let mut ordered: Vec<&StreamRoute> = routes.iter().collect();
    ordered.sort_by_key(|route| (route.created, &route.key));
    let mut index = StreamIndex::default();
    let mut rules = Vec::new();
    for (route, number) in ordered.into_iter().zip(0..) {
        let findings = Findings::new(RuleAt { route: &route.key, rule: 0 }, errors);
        rules.push(rule::compile_stream(id(&route.key, 0, None), route, findings));
        if route.hostnames.is_empty() {
            index.insert(None, number);
        }
        for hostname in &route.hostnames {
            index.insert(Some(hostname), number);
        }
    }
    RouteSet { lookup: lookup(index), rules: rules.into() }
}

fn id(route: &RouteKey, rule: usize, name: Option<ambit_types::Str>) -> RuleId {
    RuleId { route: route.clone(), rule, name }
}
