//! Objects that the control plane cannot read: their status says so where they have one of ours, an Event does else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_control::Name;
use ambit_control::input::{Key, Kind};
use ambit_control::status::{ACCEPTED, Condition, Report};
use ambit_manifest::{Kind as Written, ObjectKey, Problem};

use super::render::Turned;
use super::{KINDS, resource};
use crate::lead::Lead;
use crate::lead::api::At;
use crate::lead::events::Notice;

/// Most problems that are told of one object.
const LISTED_MAX: usize = 8;
/// Most objects that Events are written of; further ones are in the log and the admin surface.
const TOLD_MAX: usize = 1_000;
/// What mostly becomes of such an object.
const STAYS: &str = "what was in force before stays so";
/// Reason of an object that cannot be read.
const INVALID: &str = "Invalid";

/// Adds what is wrong to what objects say of themselves.
pub(super) fn add(wanted: &mut BTreeMap<Key, Arc<Report>>, problems: &[Problem]) {
    for (object, words) in by_object(problems) {
        let Some(key) = key_of(object) else { continue };
        let before = wanted.get(&key).map(|report| Report::clone(report));
        let aftermath = aftermath(object.kind, before.is_some());
        let mut report = Report { generation: 0, ..before.unwrap_or_default() };
        report.conditions.retain(|one| one.kind != ACCEPTED);
        report.conditions.push(Condition {
            kind: ACCEPTED,
            holds: false,
            reason: INVALID,
            message: text(&words, aftermath),
        });
        wanted.insert(key, Arc::new(report));
    }
}

/// What is in force of an object that cannot be read, as far as what is told of it shows that.
///
/// Of an AuthorizationPolicy that is in force something is always told, so that one of which nothing is known leaves open
/// what it was to deny: its author has to hear that.
fn aftermath(kind: Written, is_known: bool) -> &'static str {
    if kind == Written::AuthorizationPolicy && !is_known {
        "nothing of it is in force, so that it restricts nobody"
    } else {
        STAYS
    }
}

fn text(words: &[String], aftermath: &str) -> String {
    let mut text = words.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if words.len() > LISTED_MAX {
        text.push_str(&format!("; and {} more", words.len() - LISTED_MAX));
    }
    format!("{text}; {aftermath}")
}

fn by_object(problems: &[Problem]) -> BTreeMap<&ObjectKey, Vec<String>> {
    let mut all: BTreeMap<&ObjectKey, Vec<String>> = BTreeMap::new();
    for problem in problems {
        let words = match &*problem.field {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        if let Some(object) = &problem.object {
            all.entry(object).or_default().push(words);
        }
    }
    all
}

/// The key of an object whose status has conditions of its own. Routes have them by parent, and which parents one that
/// cannot be read has is not known.
fn key_of(object: &ObjectKey) -> Option<Key> {
    let (kind, _) = KINDS.iter().find(|(_, written)| *written == object.kind)?;
    let is_route = matches!(kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute);
    let name = Name::new(object.namespace.as_deref().unwrap_or_default(), object.name.as_str());
    (!is_route).then(|| Key::new(*kind, name))
}

/// What was told of objects without such a status.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: BTreeSet<(ObjectKey, String)>,
}

impl Refusals {
    /// Has an Event written of everything that is new.
    pub(super) async fn tell(&mut self, lead: &Lead<'_>, problems: &[Problem]) {
        let refused = by_object(problems).into_iter().filter(|(object, _)| key_of(object).is_none());
        let now: BTreeSet<(ObjectKey, String)> =
            refused.take(TOLD_MAX).map(|(object, words)| (object.clone(), text(&words, STAYS))).collect();
        for (object, message) in now.difference(&self.told) {
            let Some(version) = object.kind.api_versions().first() else { continue };
            let namespace = object.namespace.as_deref().unwrap_or_default();
            let at = At { resource: resource(object.kind, version), namespace, name: &object.name };
            // Its uid is what `kubectl describe` finds Events by; without it the Event is found by name.
            let live = lead.server.get(at).await.ok().flatten().unwrap_or_default();
            let turned = Turned {
                condition: ACCEPTED.to_owned(),
                reason: INVALID.to_owned(),
                message: message.clone(),
            };
            lead.notice(Notice::of(at, &live, turned));
        }
        self.told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: lock, \
                    namespace: shop}\nspec: {action: DENY, rules: [{}]}\n";
        let object = ambit_manifest::parse("m.yaml", text).objects.remove(0);
        object.problem("spec.newer", "unknown field")
    }

    #[track_caller]
    fn told(wanted: &mut BTreeMap<Key, Arc<Report>>) -> String {
        add(wanted, &[problem()]);
        let key = Key::new(Kind::AuthorizationPolicy, Name::new("shop", "lock"));
        let report = wanted.get(&key).expect("a report");
        assert_eq!(report.conditions.len(), 1);
        report.conditions[0].message.clone()
    }

    #[test]
    fn a_policy_of_which_nothing_is_in_force_says_so() {
        let message = told(&mut BTreeMap::new());
        assert!(message.contains("spec.newer") && message.contains("restricts nobody"), "{message}");
    }

    #[test]
    fn a_policy_whose_earlier_version_is_in_force_says_that() {
        let key = Key::new(Kind::AuthorizationPolicy, Name::new("shop", "lock"));
        let mut wanted = BTreeMap::from([(key, Arc::new(Report::default()))]);
        let message = told(&mut wanted);
        assert!(message.ends_with(STAYS), "{message}");
    }
}
