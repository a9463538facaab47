//! Matches of an HTTPRoute: where the index keeps them, and what is left to compare.

use std::collections::BTreeSet;

use ambit_types::Str;

use super::error::{Findings, RuleFault};
use super::rule::{Entry, Match, Matched};
use super::{checks, rule};
use crate::filter::is_token;
use crate::matcher::{Condition, Pattern, Test};
use crate::model::limits::CONDITIONS_MAX;
use crate::model::{HttpMatch, NameMatch, PathMatch, ValueMatch};
use crate::precedence::Place;

impl Match for HttpMatch {
    fn entry(&self, field: &str, findings: &mut Findings<'_>, patterns_left: &mut usize) -> Entry {
        let mut entry = Entry::anywhere();
        let pattern_length = self.path.as_ref().map_or(0, |path| {
            at_path(path, &format!("{field}.path.value"), &mut entry, findings, patterns_left)
        });
        if let Some(method) = &self.method {
            if is_token(method) {
                entry.conditions.push(Condition::Method(method.clone()));
            } else {
                let text = method.to_string();
                findings.report(&format!("{field}.method"), RuleFault::Name { text, what: "method" });
                entry.is_stand_in = true;
            }
        }
        let headers = header_conditions(&self.headers, field, &mut entry, findings);
        let query = query_conditions(&self.query, field, &mut entry, findings);
        entry.specificity = [pattern_length, u32::from(self.method.is_some()), headers, query];
        entry
    }

    fn matched_prefix(&self) -> Option<Matched<&str>> {
        match &self.path {
            None => Some(Matched::Segments("/")),
            Some(PathMatch::Prefix(prefix)) => Some(Matched::Segments(prefix)),
            Some(PathMatch::Start(start)) => Some(Matched::Letters(start)),
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => None,
        }
    }
}

/// Puts the match where its path says; returns the length of a pattern.
fn at_path(
    path: &PathMatch,
    field: &str,
    entry: &mut Entry,
    findings: &mut Findings<'_>,
    patterns_left: &mut usize,
) -> u32 {
    let plain = |text: &Str, findings: &mut Findings<'_>| {
        let checked = checks::path(text);
        checked.map_err(|why| findings.report(field, RuleFault::Path { path: text.to_string(), why })).ok()
    };
    let (place, text) = match path {
        PathMatch::Exact(text) => (plain(text, findings).map(|path| Place::Exact(path.into())), text),
        PathMatch::Prefix(text) => (plain(text, findings).map(|path| Place::Prefix(path.into())), text),
        PathMatch::Regex(text) => {
            let pattern = rule::path_pattern(text, field, findings, patterns_left);
            let place = pattern.map(|pattern| {
                entry.conditions.push(Condition::Path(pattern));
                Place::Patterns
            });
            (place, text)
        }
        PathMatch::Start(text) => {
            let place = plain(text, findings).map(|start| {
                entry.conditions.push(Condition::PathStart(start.into()));
                Place::Patterns
            });
            (place, text)
        }
    };
    // Letters need not be cut at a slash either.
    let is_pattern = matches!(path, PathMatch::Regex(_) | PathMatch::Start(_));
    entry.is_stand_in |= place.is_none();
    entry.place = place.unwrap_or_else(|| Place::Prefix(checks::readable_prefix(text, is_pattern)));
    if entry.place == Place::Patterns { u32::try_from(text.len()).unwrap_or(u32::MAX) } else { 0 }
}

/// Adds conditions on headers; returns how many count.
pub(super) fn header_conditions(
    headers: &[NameMatch],
    field: &str,
    entry: &mut Entry,
    findings: &mut Findings<'_>,
) -> u32 {
    let field = format!("{field}.headers");
    findings.length(&field, headers.len(), CONDITIONS_MAX);
    let names = headers.iter().map(|header| Str::from(header.name.to_ascii_lowercase()));
    let valid = |name: &Str| is_token(name);
    conditions(names.zip(headers), &field, ("header name", valid), header, entry, findings)
}

/// A condition on a header. A host has no case: requests have theirs in lower case.
fn header(name: Str, test: Test) -> Condition {
    match test {
        Test::Exact(host) if &*name == "host" => {
            Condition::Header(name, Test::Exact(host.to_ascii_lowercase().into()))
        }
        other @ (Test::Exact(_) | Test::Pattern(_) | Test::Present | Test::Absent) => {
            Condition::Header(name, other)
        }
    }
}

/// Adds conditions on query parameters; returns how many count.
fn query_conditions(
    parameters: &[NameMatch],
    field: &str,
    entry: &mut Entry,
    findings: &mut Findings<'_>,
) -> u32 {
    let field = format!("{field}.queryParams");
    findings.length(&field, parameters.len(), CONDITIONS_MAX);
    let names = parameters.iter().map(|parameter| parameter.name.clone());
    let valid = |name: &Str| !name.is_empty();
    // The index numbers the parameters it is asked for.
    let condition = |name, test| Condition::Query(name, 0, test);
    conditions(names.zip(parameters), &field, ("parameter name", valid), condition, entry, findings)
}

/// Conditions on named values. Of several on one name the first counts (Gateway API, HTTPHeaderMatch.name).
fn conditions<'m>(
    named: impl Iterator<Item = (Str, &'m NameMatch)>,
    field: &str,
    (what, is_name): (&'static str, fn(&Str) -> bool),
    condition: fn(Str, Test) -> Condition,
    entry: &mut Entry,
    findings: &mut Findings<'_>,
) -> u32 {
    let mut seen = BTreeSet::new();
    for (position, (name, one)) in named.enumerate() {
        if !is_name(&name) {
            let fault = RuleFault::Name { text: one.name.to_string(), what };
            findings.report(&format!("{field}[{position}].name"), fault);
            entry.is_stand_in = true;
        } else if seen.insert(name.clone()) {
            // What cannot be read agrees with every value, but not with none.
            let unread = Test::Present;
            let test = test(&one.value, &format!("{field}[{position}].value"), findings).unwrap_or(unread);
            entry.conditions.push(condition(name, test));
        }
    }
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}

/// How a value is compared; none if its pattern cannot be used.
pub(super) fn test(value: &ValueMatch, field: &str, findings: &mut Findings<'_>) -> Option<Test> {
    match value {
        ValueMatch::Exact(text) => Some(Test::Exact(text.clone())),
        ValueMatch::Present => Some(Test::Present),
        ValueMatch::Absent => Some(Test::Absent),
        ValueMatch::Regex(text) => match Pattern::compile(text) {
            Ok(pattern) => Some(Test::Pattern(pattern)),
            Err(cause) => {
                findings.report(field, RuleFault::Pattern { pattern: text.to_string(), cause });
                None
            }
        },
    }
}
