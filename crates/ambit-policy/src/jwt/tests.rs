//! Rows of `tests/tables/jwt.yaml`, and what does not fit in a table.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Algorithm, Authentication, Carrier, Claims, Options, Outcome, Rule, RuleSet, SignatureError, SignedToken,
    TOKEN_BYTES_MAX, Verifier, authenticate, challenge, compile, without_cookies, without_params, written,
};
use crate::normalize::{self, Authority, Received};

const TABLE: &str = include_str!("../../../../tests/tables/jwt.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    now: u64,
    keys: BTreeMap<String, BTreeMap<String, String>>,
    tokens: BTreeMap<String, Token>,
    groups: Vec<Group>,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Token {
    header: Map<String, Value>,
    claims: Value,
    signed_by: Option<String>,
    payload: Option<String>,
    raw: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<written::Rule>,
    #[serde(default)]
    options: GroupOptions,
    when: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct GroupOptions {
    demand_expiry: bool,
    skip_preflight: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    headers: Vec<[String; 2]>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    outcome: String,
    principal: Option<String>,
    rule: Option<usize>,
    why: Option<String>,
    code: Option<String>,
    remove: Option<Remove>,
    set: Option<BTreeMap<String, String>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    headers: Vec<String>,
    params: Vec<String>,
    cookies: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejected {
    name: String,
    rule: written::Rule,
    fields: Vec<String>,
}

impl Table {
    fn read() -> Self {
        serde_saphyr::from_str(TABLE).unwrap_or_else(|error| panic!("jwt.yaml: {error}"))
    }

    /// A text with every `{NAME}` replaced.
    fn filled(&self, text: &str) -> String {
        let each = |text: String, (name, token): (&String, &Token)| {
            text.replace(&format!("{{{name}}}"), &token.text())
        };
        self.tokens.iter().fold(text.to_owned(), each)
    }
}

impl Token {
    fn text(&self) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut header =
            Map::from_iter([("alg".to_owned(), json!("RS256")), ("kid".to_owned(), json!("k1"))]);
        header.extend(self.header.clone());
        header.retain(|_, value| !value.is_null());
        let payload = self.payload.clone().unwrap_or_else(|| self.claims.to_string());
        let signature = format!("by {}", self.signed_by.as_deref().unwrap_or("k1"));
        let parts = [Value::Object(header).to_string(), payload, signature];
        parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }
}

/// Keys that sign by writing their name. Of several issuers' keys it takes those of the token's own issuer.
struct Keys<'t>(&'t Table);

impl Verifier for Keys<'_> {
    fn verify(&self, rule: &Rule, token: &SignedToken<'_>) -> Result<(), SignatureError> {
        let claims = Claims::parse(token.payload()).unwrap();
        let issuer = claims.get("iss").and_then(|iss| iss.as_text()).unwrap_or(&rule.issuer);
        let keys = self.0.keys.get(issuer).ok_or(SignatureError::KeysUnavailable)?;
        let is_meant = |kid: &str, algorithm: &str| {
            token.key_id().is_none_or(|id| id == kid)
                && Algorithm::parse(algorithm) == Some(token.algorithm())
        };
        let mut meant = keys.iter().filter(|(kid, algorithm)| is_meant(kid, algorithm)).peekable();
        if meant.peek().is_none() {
            return Err(SignatureError::NoSuchKey);
        }
        assert!(token.signed().ends_with(token.payload_text().as_bytes()));
        let fits = |kid: &str| token.signature() == format!("by {kid}").as_bytes();
        if meant.any(|(kid, _)| fits(kid)) { Ok(()) } else { Err(SignatureError::Mismatch) }
    }
}

fn run(table: &Table, group: &Group, rules: &RuleSet, row: &Row) -> Authentication {
    let path = table.filled(row.path.as_deref().unwrap_or("/"));
    let received = Received {
        method: row.method.as_deref().unwrap_or("GET").as_bytes(),
        hosts: &[b"web.shop"],
        path: Some(path.as_bytes()),
        ..Received::default()
    };
    let target = normalize::normalize(&received, &normalize::Options::default()).unwrap();
    let headers: Vec<(&str, String)> =
        row.headers.iter().map(|[name, value]| (&**name, table.filled(value))).collect();
    let options = Options {
        demand_expiry: group.options.demand_expiry,
        skip_preflight: group.options.skip_preflight.unwrap_or(true),
        ..Options::default()
    };
    let carrier = Carrier { target: &target, headers: &headers };
    authenticate(rules, &carrier, &Keys(table), table.now, &options)
}

fn mismatch(table: &Table, row: &Row, found: &Authentication) -> Option<String> {
    let want = &row.expect;
    let outcome = match &found.outcome {
        Outcome::Unauthenticated => want.outcome == "none",
        Outcome::Authenticated(verified) => {
            let principal = verified.principal().map(|(issuer, subject)| format!("{issuer}/{subject}"));
            want.outcome == "accepted"
                && (want.principal.is_none() || want.principal == principal)
                && want.rule.is_none_or(|rule| rule == verified.rule())
        }
        Outcome::Rejected(error) => {
            want.outcome == error.status().to_string()
                && want.why.as_deref() == Some(error.name())
                && want.code.as_ref().is_none_or(|code| code == error.reason().code())
        }
    };
    let names = |all: &[ambit_types::Str]| all.iter().map(ToString::to_string).collect();
    let mut removed: Vec<String> = found.edits.remove_headers.iter().map(ToString::to_string).collect();
    removed.sort_unstable();
    let removed = Remove {
        headers: removed,
        params: names(&found.edits.remove_params),
        cookies: names(&found.edits.remove_cookies),
    };
    let set: BTreeMap<String, String> =
        found.edits.set_headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let payload = |text: &str| text.split('.').nth(1).map(str::to_owned);
    let told = |wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(name, value)| {
            let filled = table.filled(value);
            let value = if filled == *value { filled } else { payload(&filled).unwrap() };
            set.get(name) == Some(&value)
        }) && wanted.len() == set.len()
    };
    let well = outcome
        && want.remove.as_ref().is_none_or(|remove| *remove == removed)
        && want.set.as_ref().is_none_or(told);
    (!well).then(|| format!("{found:?}"))
}

#[test]
fn every_row_of_the_table_holds() {
    let table = Table::read();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for group in &table.groups {
        let rules: Vec<Rule> = group.rules.iter().map(|rule| compile(rule).unwrap()).collect();
        let rules = RuleSet::new(rules);
        for row in &group.when {
            rows += 1;
            let found = run(&table, group, &rules, row);
            wrong.extend(
                mismatch(&table, row, &found).map(|what| format!("{} / {}: {what}", group.name, row.name)),
            );
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 80, "only {rows} rows were read");
}

#[test]
fn what_cannot_be_compiled_is_named_by_field() {
    for rejected in &Table::read().rejected {
        let invalid = compile(&rejected.rule).unwrap_err();
        let fields: Vec<&str> = invalid.iter().map(|one| &*one.at).collect();
        assert_eq!(fields, rejected.fields, "{}: {invalid:?}", rejected.name);
    }
}

#[test]
fn a_token_has_a_bound() {
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    let error = SignedToken::parse(long.as_bytes()).unwrap_err();
    assert_eq!((error.name(), error.status()), ("too-long", 401));
    assert_eq!(SignedToken::parse(&long.as_bytes()[1..]).unwrap_err().name(), "shape");
}

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, want) in [
        ("5s", Some(5_000)),
        ("500ms", Some(500)),
        ("1m30s", Some(90_000)),
        ("0.5s", Some(500)),
        ("1h", Some(3_600_000)),
        ("1h1s", None),
        ("5", None),
        ("s", None),
        ("", None),
        ("5us", None),
        ("1.2.3s", None),
    ] {
        let rule =
            written::Rule { issuer: "a".into(), timeout: Some(text.into()), ..written::Rule::default() };
        let found = compile(&rule).ok().map(|rule| rule.fetch_timeout);
        assert_eq!(found, want.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn parameters_and_cookies_are_taken_out() {
    for (query, want) in [
        ("a=1&t=x&b=2", Some("a=1&b=2")),
        ("t=x", None),
        ("%74=x&T=y&tt=z&t", Some("T=y&tt=z")),
        ("a&&b", Some("a&&b")),
    ] {
        let found = without_params(query.as_bytes(), &["t".into()]);
        assert_eq!(found.as_deref(), want.map(str::as_bytes), "{query}");
    }
    for (line, want) in [
        ("a=1; sid=x; b=2", Some("a=1; b=2")),
        ("sid=x", None),
        (" sid =x;sid=y;asid=z", Some("asid=z")),
        ("a=1;b=2", Some("a=1; b=2")),
    ] {
        let found = without_cookies(line.as_bytes(), &["sid".into()]);
        assert_eq!(found.as_deref(), want.map(str::as_bytes), "{line}");
    }
}

#[test]
fn the_challenge_names_the_host() {
    let authority = Authority::parse(b"Web.shop:8080").unwrap();
    assert_eq!(challenge(&authority), r#"Bearer realm="web.shop:8080", error="invalid_token""#);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_never_panic_and_are_never_accepted(
        token in prop::collection::vec(any::<u8>(), 0..80),
        query in "[a-z=&%+._-]{0,40}",
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        struct Nobody;
        impl Verifier for Nobody {
            fn verify(&self, _: &Rule, _: &SignedToken<'_>) -> Result<(), SignatureError> {
                Err(SignatureError::Mismatch)
            }
        }
        let rule = written::Rule { issuer: "a".into(), ..written::Rule::default() };
        let rules = RuleSet::new([compile(&rule).unwrap()]);
        let path = format!("/?{query}");
        let received =
            Received { method: b"GET", hosts: &[b"h"], path: Some(path.as_bytes()), ..Received::default() };
        let target = normalize::normalize(&received, &normalize::Options::default()).unwrap();
        let parts = [&b"{\"alg\":\"RS256\"}"[..], &payload, b"x"].map(|part| URL_SAFE_NO_PAD.encode(part));
        for value in [[&b"Bearer "[..], &token].concat(), format!("Bearer {}", parts.join(".")).into_bytes()] {
            let headers = [("authorization", value)];
            let carrier = Carrier { target: &target, headers: &headers.to_vec() };
            let found = authenticate(&rules, &carrier, &Nobody, 0, &Options::default());
            prop_assert!(!matches!(found.outcome, Outcome::Authenticated(_)));
        }
    }
}
