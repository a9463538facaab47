//! Rows of `tests/tables/http_policy.yaml`, and what does not fit in a table.

use std::sync::Arc;

use ambit_types::PolicyKey;

use super::{
    Answer, CustomOrder, Decision, Facts, Headers, PolicySet, Request, Verdict, asks_before_token, compile,
    decide, explain, model, remote_address, unknown_features,
};
use crate::normalize::{self, Refusal};
use table::{Given, Group, Row, Settings, Table};

mod indexed;
mod properties;
mod table;
mod words;

/// What a row comes to.
#[derive(Debug, Clone, PartialEq)]
enum Found {
    Refused(&'static str),
    Decided(Decision),
}

fn policy(given: &Given, settings: &Settings) -> Arc<model::Policy> {
    let key = PolicyKey::parse(given.authorization.as_deref().unwrap()).unwrap();
    let compiled = compile(&key, &given.spec, given.dry_run, &settings.compile_options());
    Arc::new(compiled.unwrap_or_else(|invalid| panic!("{key}: {invalid:?}")))
}

fn set(group: &Group) -> PolicySet {
    let missing = group.given.iter().filter_map(|g| g.missing.as_deref());
    let held = group.given.iter().filter(|g| g.missing.is_none());
    PolicySet::new(
        held.map(|given| policy(given, &group.settings)),
        missing.map(|key| PolicyKey::parse(key).unwrap()),
        group.settings.custom_order(),
    )
}

/// Runs a row through normalisation, decision and explanation.
fn run(set: &PolicySet, settings: &Settings, row: &Row) -> Found {
    let Ok(peer) = row.peer() else { return Found::Refused("identity") };
    let connection =
        crate::Facts::new(peer.as_ref(), row.source(), row.destination.parse().unwrap(), row.port);
    let answers = row.answers();
    let answers: Vec<(&str, Answer)> = answers.iter().map(|(name, answer)| (&**name, *answer)).collect();
    if row.tcp {
        let facts = Facts::of_connection(connection, row.sni.as_deref());
        return Found::Decided(decided(set, &facts, &answers));
    }
    let headers = row.headers();
    if headers.iter().any(|(name, value)| normalize::header::check(name.as_bytes(), value).is_err()) {
        return Found::Refused("header");
    }
    let received = row.received();
    let hosts = received.hosts();
    let target = match normalize::normalize(&received.as_received(&hosts), &settings.normalize_options()) {
        Ok(target) => target,
        Err(refusal) => return Found::Refused(Refusal::name(&refusal)),
    };
    let remote = remote_address(connection.source(), &headers as &dyn Headers, settings.trusted_hops).ok();
    let token = row.token();
    let request = Request { target: &target, headers: &headers, remote, token: token.as_ref() };
    Found::Decided(decided(set, &Facts::of_request(connection, request), &answers))
}

fn decided(set: &PolicySet, facts: &Facts<'_>, answers: &[(&str, Answer)]) -> Decision {
    let decision = decide(set, facts, answers);
    assert_eq!(explain(set, facts, answers).decision, decision, "explain disagrees");
    if set.custom_order() == CustomOrder::AfterToken {
        assert_eq!(asks_before_token(set, facts), []);
    }
    decision
}

fn mismatch(row: &Row, found: &Found) -> Option<String> {
    let want = &row.expect;
    let decision = match found {
        Found::Refused(why) => {
            let well = want.verdict == "refuse" && want.why.as_deref() == Some(why);
            return (!well).then(|| format!("refused for {why}"));
        }
        Found::Decided(decision) => decision,
    };
    let verdict = match decision.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Ask => "ask",
    };
    let policy = decision.policy.as_ref().map(ToString::to_string);
    let code = decision.reason.map(|reason| reason.code());
    let asks: Vec<&str> = decision.asks.iter().map(|ask| &*ask.provider).collect();
    let audit: Vec<String> = decision.audit.iter().map(|mark| mark.policy.to_string()).collect();
    let well = verdict == want.verdict
        && code == want.code.as_deref()
        && policy == want.policy
        && (want.rule.is_none() || want.rule == decision.rule)
        && asks == want.asks
        && audit == want.audit
        && words::dry_run(decision) == want.dry_run;
    (!well).then(|| format!("{decision:?}"))
}

#[test]
fn every_row_of_the_table_holds() {
    let table = Table::read();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for group in &table.groups {
        let set = set(group);
        for row in &group.when {
            rows += 1;
            let found = run(&set, &group.settings, row);
            wrong.extend(mismatch(row, &found).map(|what| format!("{} / {}: {what}", group.name, row.name)));
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 300, "only {rows} rows were read");
}

#[test]
fn rows_of_a_group_have_names_of_their_own() {
    for group in &Table::read().groups {
        let mut names: Vec<&str> = group.when.iter().map(|row| &*row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), group.when.len(), "{}", group.name);
    }
}

/// A38: the golden table of every way to compare one attribute.
#[test]
fn truth_tables_hold() {
    let table = Table::read();
    assert!(table.truth.iter().all(|truth| truth.rows.len() == 32));
    for truth in &table.truth {
        for [kind, list, fact, allow, deny] in &truth.rows {
            let value = &truth.kinds[kind];
            for (action, want) in [("ALLOW", allow), ("DENY", deny)] {
                let group = truth.group(action, list, value);
                let found = run(&set(&group), &group.settings, &truth.facts[fact]);
                let Found::Decided(decision) = found else { panic!("{found:?}") };
                let agrees = (action == "ALLOW") == decision.is_allow();
                let row = format!("{} {kind} {list} {fact} in {action}", truth.attribute);
                assert_eq!(if agrees { "yes" } else { "no" }, want, "{row}");
            }
        }
    }
}

#[test]
fn what_cannot_be_compiled_is_named_by_field() {
    for rejected in &Table::read().rejected {
        let key = PolicyKey::new("shop", "x");
        let options = rejected.settings.compile_options();
        let invalid = compile(&key, &rejected.spec, rejected.dry_run, &options).unwrap_err();
        let fields: Vec<&str> = invalid.iter().map(|one| &*one.at).collect();
        assert_eq!(fields, rejected.fields, "{}: {invalid:?}", rejected.name);
    }
}

/// A6, T-21 (CVE-2022-21679): a policy names what it needs, and what is not known is noticed.
#[test]
fn policies_name_what_they_use() {
    for group in &Table::read().groups {
        for policy in set(group).policies() {
            let features = policy.features();
            assert_eq!(unknown_features(features.iter().copied()), Vec::<&str>::new());
            let named = policy.conditions().count() == 0 || !features.is_empty();
            assert!(named, "{}", policy.key);
        }
    }
    assert_eq!(unknown_features(["source.ip", "source.moon"]), ["source.moon"]);
    assert!(super::FEATURES.is_sorted());
}
