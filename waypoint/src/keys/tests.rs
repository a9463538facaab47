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
    let uri = |n: usize| rule("", |rule| rule.jwks_uri = Some(format!("http://127.0.0.1:1/{n}")));
    let keys = Keys::new(Settings::default());
    keys.publish(&policies((0..300).map(uri).collect()));
    assert_eq!(keys.sets.load().remote.len(), 256);
    keys.publish(&policies(vec![uri(3)]));
    assert_eq!(keys.sets.load().remote.len(), 1);
}
