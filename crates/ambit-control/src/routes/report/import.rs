//! How a VirtualService stands: conditions of its own, where a route has them by parent.

use ambit_types::Reason;

use crate::index::Settings;
use crate::input::{Claim, Route, RouteSpec, Virtual};
use crate::status::{
    ACCEPTED, Condition, OUT_OF_NAMESPACE, PARTIALLY_INVALID, ParentReport, RESOLVED_REFS, Report,
};

/// The report; nothing of one that is for gateways of somebody else.
pub(super) fn report(
    settings: &Settings,
    route: &Route,
    spec: &Virtual,
    parents: Vec<ParentReport>,
) -> Option<Report> {
    let refused = |words: String| vec![Condition::fails(ACCEPTED, OUT_OF_NAMESPACE, words)];
    let conditions = match (&spec.claim, route.foreign_domain(&settings.cluster_domain)) {
        (Claim::Elsewhere, _) => return None,
        (Claim::Refused(words), _) => refused(words.to_string()),
        (Claim::Own, Some(domain)) => {
            let (own, code) = (&settings.cluster_domain, Reason::ImportOutOfNamespace.code());
            refused(format!("hosts of domain {domain} are not of this cluster, which has {own} ({code})"))
        }
        (Claim::Own, None) => merged(parents),
    };
    Some(Report { generation: route.generation, conditions, parents: Vec::new() })
}

/// Conditions of all hosts as one set: where they differ, it is in force in part.
fn merged(parents: Vec<ParentReport>) -> Vec<Condition> {
    let count = parents.len();
    let all: Vec<Condition> = parents.into_iter().flat_map(|parent| parent.conditions).collect();
    let of = |kind: &'static str| all.iter().filter(move |one| one.kind == kind);
    let failing: Vec<&Condition> = of(ACCEPTED).filter(|one| !one.holds).collect();
    let words = failing.iter().map(|one| one.message.as_str()).collect::<Vec<_>>().join("; ");
    let mut made = Vec::new();
    let mut partly = of(PARTIALLY_INVALID).next().cloned();
    match failing.first() {
        None => made.extend(of(ACCEPTED).next().cloned()),
        Some(first) if failing.len() == count => made.push(Condition::fails(ACCEPTED, first.reason, words)),
        Some(first) => {
            made.push(Condition::holds(ACCEPTED, "Accepted", "in force in part"));
            let words = match &partly {
                Some(before) => format!("{}; {words}", before.message),
                None => format!("Fall Back: {words}"),
            };
            partly = Some(Condition::holds(PARTIALLY_INVALID, first.reason, words));
        }
    }
    let resolved = of(RESOLVED_REFS).find(|one| !one.holds).or_else(|| of(RESOLVED_REFS).next());
    made.extend(resolved.cloned());
    made.extend(partly);
    made
}

/// A field as the object has it: rules of a VirtualService are made of others, `http[1]` instead of `rules[2]`.
pub(super) fn field(route: Option<&Route>, field: String) -> String {
    let Some(Route { spec: RouteSpec::Virtual(spec), .. }) = route else { return field };
    let place = field.strip_prefix("rules[").and_then(|rest| rest.split_once(']'));
    let found =
        place.and_then(|(number, rest)| Some((spec.rules.get(number.parse::<usize>().ok()?)?.at, rest)));
    match found {
        Some((at, rest)) => format!("http[{at}]{rest}"),
        None => field,
    }
}
