//! Matches of a GRPCRoute. A call's path is `/SERVICE/METHOD`, so that the index for paths serves them as well.

use super::error::{Findings, RuleFault};
use super::http::header_conditions;
use super::rule::{self, Entry, Match, Matched};
use crate::matcher::{Condition, Test};
use crate::model::{GrpcMatch, ValueMatch};
use crate::precedence::{Place, text_specificity};

/// One part of a call's name, read.
enum Part<'m> {
    Any,
    Exact(&'m str),
    Form(crate::matcher::Pattern, usize),
    Unreadable,
}

impl Match for GrpcMatch {
    fn entry(&self, field: &str, findings: &mut Findings<'_>, patterns_left: &mut usize) -> Entry {
        let mut entry = Entry::anywhere();
        let service =
            part(self.service.as_ref(), &format!("{field}.method.service"), findings, patterns_left);
        let method = part(self.method.as_ref(), &format!("{field}.method.method"), findings, patterns_left);
        entry.is_stand_in = [&service, &method].iter().any(|part| matches!(part, Part::Unreadable));
        let specificity = [service.specificity(), method.specificity()];
        match (service, method) {
            (Part::Exact(service), Part::Exact(method)) => {
                entry.place = Place::Exact(format!("/{service}/{method}").into());
            }
            (service, method) => {
                match service {
                    Part::Exact(service) => entry.place = Place::Prefix(service.into()),
                    Part::Any | Part::Form(..) | Part::Unreadable => {
                        entry.conditions.extend(service.test().map(Condition::GrpcService));
                    }
                }
                entry.conditions.extend(method.test().map(Condition::GrpcMethod));
            }
        }
        let headers = header_conditions(&self.headers, field, &mut entry, findings);
        entry.specificity = [specificity[0], specificity[1], headers, 0];
        entry
    }

    fn matched_prefix(&self) -> Option<Matched<&str>> {
        None
    }
}

fn part<'m>(
    value: Option<&'m ValueMatch>,
    field: &str,
    findings: &mut Findings<'_>,
    patterns_left: &mut usize,
) -> Part<'m> {
    match value {
        None => Part::Any,
        Some(ValueMatch::Exact(text)) if text.is_empty() || text.contains('/') => {
            let fault = RuleFault::Name { text: text.to_string(), what: "name of a gRPC service or method" };
            findings.report(field, fault);
            Part::Unreadable
        }
        Some(ValueMatch::Exact(text)) => Part::Exact(text),
        Some(ValueMatch::Regex(text)) => rule::path_pattern(text, field, findings, patterns_left)
            .map_or(Part::Unreadable, |pattern| Part::Form(pattern, text.len())),
        Some(ValueMatch::Present | ValueMatch::Absent) => {
            findings.report(field, RuleFault::MatchType);
            Part::Unreadable
        }
    }
}

impl Part<'_> {
    fn specificity(&self) -> u32 {
        match self {
            Self::Any | Self::Unreadable => 0,
            Self::Exact(text) => text_specificity(true, text.len()),
            Self::Form(_, length) => text_specificity(false, *length),
        }
    }

    fn test(self) -> Option<Test> {
        match self {
            Self::Any | Self::Unreadable => None,
            Self::Exact(text) => Some(Test::Exact(text.into())),
            Self::Form(pattern, _) => Some(Test::Pattern(pattern)),
        }
    }
}
