//! Rules whose keys are with them, or cannot be had.

use std::sync::Arc;

use ambit_policy::jwt::{self, Rule, RuleSet, SignatureError, SignedToken, Verifier as _, written};

use super::{Keys, Settings};
use crate::{Applied, Policies};

fn rule(keys: &str, written: impl FnOnce(&mut written::Rule)) -> Rule {
    let mut rule = written::Rule { issuer: "i".to_owned(), ..written::Rule::default() };
    written(&mut rule);
    let mut compiled = jwt::compile(&rule).expect(keys);
    if !keys.is_empty() {
        compiled.keys = jwt::Keys::Inline(keys.into());
    }
    compiled
}

fn policies(rules: Vec<Rule>) -> Policies {
    let all = Arc::new(Applied { tokens: RuleSet::new(rules), ..Applied::default() });
    Policies { all, ..Policies::default() }
}

/// Signed with no key of anybody's.
const TOKEN: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.e30.AAAA";

#[tokio::test]
async fn a_rule_without_keys_that_can_be_used_accepts_nothing() {
    let token = SignedToken::parse(TOKEN).unwrap();
    let garbage = rule("<html>", |_| {});
    let nowhere = rule("", |rule| rule.jwks_uri = Some("http://127.0.0.1:1/".to_owned()));
    let keys = Keys::new(Settings::default());
    for rule in [&garbage, &nowhere] {
        assert_eq!(keys.verify(rule, &token), Err(SignatureError::KeysUnavailable), "nobody told of it");
    }
    keys.publish(&policies(vec![garbage.clone(), nowhere.clone()]));
    keys.ready(&RuleSet::new([garbage.clone(), nowhere.clone()])).await;
    for rule in [&garbage, &nowhere] {
        assert_eq!(keys.verify(rule, &token), Err(SignatureError::KeysUnavailable));
    }
}

#[tokio::test]
async fn sets_beyond_the_bound_are_not_kept() {
    let uri = |n: usize| {
        let made = rule("", |rule| rule.jwks_uri = Some(format!("http://127.0.0.1:1/{n}")));
        Rule { namespace: format!("n{}", n / 30).into(), ..made }
    };
    let keys = Keys::new(Settings::default());
    keys.publish(&policies((0..300).map(uri).collect()));
    assert_eq!(keys.sets.load().remote.len(), 256);
    keys.publish(&policies(vec![uri(3)]));
    assert_eq!(keys.sets.load().remote.len(), 1);
}

#[tokio::test]
async fn no_namespace_takes_the_sets_of_another() {
    let of = |namespace: &str, n: usize, keys: &str| {
        let made = rule(keys, |rule| rule.jwks_uri = Some(format!("http://127.0.0.1:1/{n}")));
        Rule { namespace: namespace.into(), ..made }
    };
    let keys = Keys::new(Settings::default());
    let held: Vec<Rule> = (50..52).map(|n| of("zoo", n, "")).collect();
    keys.publish(&policies(held.clone()));
    let has = |rule: &Rule| match super::source(rule) {
        super::Needed::Fetched(source) => keys.sets.load().remote.contains_key(&source),
        super::Needed::Inline(own) => keys.sets.load().inline.contains_key(&own),
        super::Needed::Nothing => false,
    };
    let crowd = |namespace: &str| (0..300).map(|n| of(namespace, n, "")).collect::<Vec<_>>();
    keys.publish(&policies([crowd("ant"), held.clone()].concat()));
    assert!(held.iter().all(&has), "what is held stays");
    assert_eq!(keys.sets.load().remote.len(), 34, "32 of the crowd");
    keys.publish(&policies([crowd("zoo"), held.clone()].concat()));
    assert!(held.iter().all(&has), "of one's own namespace too");
    let inline = |n: usize| of("ant", 0, &format!("<{n}>"));
    let late = of("bee", 0, "<bee>");
    keys.publish(&policies((0..300).map(inline).chain([late.clone()]).collect()));
    assert!(has(&late), "read");
    assert_eq!(keys.sets.load().inline.len(), 33);
}

#[tokio::test]
async fn what_has_not_changed_is_not_looked_at() {
    let all = policies(vec![rule("<html>", |_| {})]);
    let keys = Keys::new(Settings::default());
    keys.publish(&all);
    let before = keys.sets.load_full();
    keys.publish(&all.clone());
    assert!(Arc::ptr_eq(&before, &keys.sets.load_full()));
    keys.publish(&policies(vec![rule("<html>", |_| {})]));
    assert!(!Arc::ptr_eq(&before, &keys.sets.load_full()));
}

#[test]
fn a_source_is_told_without_what_may_be_secret() {
    let told = |uri: &str| {
        let at = super::At::Uri(uri.into());
        super::Source { namespace: "shop".into(), at }.to_string()
    };
    assert_eq!(told("https://id.example/keys?key=secret#x"), "https://id.example/keys");
    assert_eq!(told("http://u:secret@id.example/"), "no URL of keys");
}
