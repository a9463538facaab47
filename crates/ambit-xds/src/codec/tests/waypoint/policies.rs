//! Policies and rules for tokens: every value the models can hold, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use ambit_policy::http::model::*;
use ambit_policy::http::{RULES_MAX, SERVICE_ACCOUNTS_MAX, VALUE_BYTES_MAX, VALUES_MAX};
use ambit_policy::jwt::{self, ClaimPath, Keys, Location};
use ambit_types::{PolicyKey, Str};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::routes::{service, word};
use crate::codec::{HttpPolicy, PolicyTarget, RequestAuthentication, http_policy, request_authentication};
use crate::proto::ambit::waypoint::v1 as wire;

fn targets() -> impl Strategy<Value = Vec<PolicyTarget>> {
    vec(prop_oneof![service().prop_map(PolicyTarget::Service), Just(PolicyTarget::Waypoint)], 1..3)
}

fn key() -> impl Strategy<Value = PolicyKey> {
    (word(), word()).prop_map(|(namespace, name)| PolicyKey::new(namespace, name))
}

fn text_match() -> impl Strategy<Value = StringMatch> {
    let text = || ".{1,8}".prop_map(Str::from);
    prop_oneof![
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        text().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ]
}

fn values<T: std::fmt::Debug + Clone>(
    one: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Values<T>> {
    (vec(one.clone(), 0..3), vec(one, 0..3)).prop_map(|(any, none)| Values { any, none })
}

fn range() -> impl Strategy<Value = IpNet> + Clone {
    let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, length)| IpNet::new(ip.into(), length));
    let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(ip, length)| IpNet::new(ip.into(), length));
    prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
}

fn path() -> impl Strategy<Value = PathMatch> {
    let templates = ["/{*}", "/foo/{**}", "/foo/{**}/", "/a/{*}/b/{**}/c"];
    prop_oneof![
        text_match().prop_map(PathMatch::Text),
        select(templates.to_vec()).prop_map(|text| PathMatch::Template(Template::parse(text).unwrap())),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    use Condition as C;
    let texts = || values(text_match().boxed());
    let header = "[a-zA-Z][a-zA-Z0-9-]{0,6}".prop_map(|name| HeaderName::parse(&name).unwrap());
    let principals = ["*", "iss/sub", "*/sub", "*iss/sub", "iss/*", "iss/sub*", "*sub", "iss*", "**"];
    let principal =
        select(principals.to_vec()).prop_map(|text| RequestPrincipal::parse(text).unwrap()).boxed();
    let account = (word(), word()).prop_map(|(namespace, name)| ServiceAccount { namespace, name }).boxed();
    let glob = "[a-z*]{1,6}".prop_map(Glob::new).boxed();
    let claim = vec(word(), 1..3).prop_map(|names| ClaimPath::new(names).unwrap());
    prop_oneof![
        texts().prop_map(C::Principal),
        values(glob).prop_map(C::Namespace),
        values(account).prop_map(C::ServiceAccount),
        texts().prop_map(C::TrustDomain),
        values(range().boxed()).prop_map(C::SourceIp),
        values(range().boxed()).prop_map(C::RemoteIp),
        values(range().boxed()).prop_map(C::DestinationIp),
        values(any::<u16>().boxed()).prop_map(C::DestinationPort),
        texts().prop_map(C::ServerName),
        texts().prop_map(C::Host),
        texts().prop_map(C::Method),
        values(path().boxed()).prop_map(C::Path),
        (header, texts()).prop_map(|(name, values)| C::Header(name, values)),
        values(principal).prop_map(C::RequestPrincipal),
        texts().prop_map(C::Audience),
        texts().prop_map(C::Presenter),
        (claim, texts()).prop_map(|(path, values)| C::Claim(path, values)),
    ]
}

pub(super) fn policies() -> impl Strategy<Value = HttpPolicy> {
    let clause = vec(vec(condition(), 0..3), 0..3).prop_map(|alternatives| Clause { alternatives });
    let rule = (vec(clause, 0..3), vec(word(), 0..2))
        .prop_map(|(clauses, unevaluable)| Rule { clauses, unevaluable });
    let action = prop_oneof![
        Just(Action::Allow),
        Just(Action::Deny),
        Just(Action::Audit),
        "[a-z]{1,5}".prop_map(|name| Action::Custom(name.into())),
    ];
    (targets(), key(), action, vec(rule, 1..3), any::<bool>()).prop_map(
        |(targets, key, action, rules, dry_run)| HttpPolicy {
            targets,
            policy: Arc::new(Policy { key, action, rules, dry_run }),
        },
    )
}

pub(super) fn authentications() -> impl Strategy<Value = RequestAuthentication> {
    let header = || "[a-z][a-z0-9_-]{2,6}".prop_map(|name| HeaderName::parse(&format!("x-{name}")).unwrap());
    let keys = prop_oneof![
        Just(Keys::Inline(r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"AA"}]}"#.into())),
        word().prop_map(|host| Keys::Uri(format!("https://{host}/keys").into())),
        Just(Keys::Discovery),
    ];
    let location = prop_oneof![
        (header(), ".{0,6}").prop_map(|(name, prefix)| Location::Header { name, prefix: prefix.into() }),
        word().prop_map(Location::Param),
        word().prop_map(Location::Cookie),
    ];
    let timeout = (1..=3_600_000_000_000u64).prop_map(Duration::from_nanos);
    let first = (word(), vec(word(), 0..3), keys, timeout, vec(location, 1..4));
    let second = (any::<bool>(), option::of(header()), vec((header(), word()), 0..3), vec(word(), 0..3));
    let rule = (first, second).prop_map(
        |(
            (issuer, audiences, keys, fetch_timeout, locations),
            (forward_original_token, output_payload, output_claims, space_delimited),
        )| jwt::Rule {
            namespace: Default::default(),
            issuer,
            audiences,
            keys,
            fetch_timeout,
            locations,
            forward_original_token,
            output_payload,
            output_claims,
            space_delimited,
        },
    );
    (key(), targets(), vec(rule, 0..3)).prop_map(|(key, targets, rules)| RequestAuthentication {
        key,
        targets,
        rules,
    })
}

fn policy(change: impl Fn(&mut wire::HttpPolicy)) -> Result<HttpPolicy, String> {
    let mut message = wire::HttpPolicy {
        key: Some(wire::ObjectRef { namespace: "n".into(), name: "p".into() }),
        targets: vec![wire::PolicyTarget { kind: Some(wire::policy_target::Kind::Waypoint(())) }],
        action: wire::Action::Allow.into(),
        ..wire::HttpPolicy::default()
    };
    change(&mut message);
    http_policy::decode(&message).map_err(|e| e.to_string())
}

/// What is wrong with a policy of one condition.
fn condition_fault(attribute: Option<wire::condition::Attribute>) -> String {
    let conditions = vec![wire::Condition { attribute }];
    let clauses = vec![wire::Clause { alternatives: vec![wire::Alternative { conditions }] }];
    let rules = vec![wire::PolicyRule { clauses, unevaluable: vec![] }];
    policy(|p| p.rules = rules.clone()).unwrap_err()
}

#[test]
fn a_policy_that_cannot_be_read_whole_is_refused_by_field() {
    let fault = |change: &dyn Fn(&mut wire::HttpPolicy)| policy(change).unwrap_err();
    let rows = [
        (fault(&|p| p.key = None), "key: is missing"),
        (fault(&|p| p.targets.clear()), "targets: is missing"),
        (fault(&|p| p.targets.push(wire::PolicyTarget::default())), "targets[1].kind: is missing"),
        (fault(&|p| p.action = 0), "action: is missing"),
        (fault(&|p| p.action = 9), "action: unknown value 9"),
        (fault(&|p| p.action = wire::Action::Deny.into()), "rules: is missing"),
        (fault(&|p| p.action = wire::Action::Custom.into()), "provider: \"\" is no name of a provider"),
        (
            fault(&|p| p.rules = vec![wire::PolicyRule::default(); RULES_MAX + 1]),
            "rules: has 513 elements, more than 512",
        ),
        (
            fault(&|p| p.needs = vec!["source.ip".into(), "source.moon".into(), "tide".into()]),
            "needs: needs what this version does not know: source.moon, tide",
        ),
    ];
    for (found, want) in rows {
        assert_eq!(found, want);
    }
}

#[test]
fn a_condition_that_cannot_be_read_is_refused_by_field() {
    use wire::condition::Attribute as A;
    use wire::text_match::Kind;
    let text = |kind| wire::TextValues { any: vec![wire::TextMatch { kind }], none: vec![] };
    let many = |count| wire::TextValues {
        any: vec![wire::TextMatch { kind: Some(Kind::Presence(())) }; count],
        none: vec![],
    };
    let words = |word: &str| wire::WordValues { any: vec![], none: vec![word.to_owned()] };
    let account = wire::ObjectRef { namespace: "n".into(), name: "a".into() };
    let accounts = wire::AccountValues { any: vec![account; SERVICE_ACCOUNTS_MAX + 1], none: vec![] };
    let range = wire::Range { address: vec![1, 2, 3].into(), length: 8 };
    let header = wire::HeaderValues { name: "a b".into(), values: None };
    let template = wire::path_value::Kind::Template("/a{*}".into());
    let paths = wire::PathValues { any: vec![wire::PathValue { kind: Some(template) }], none: vec![] };
    let long = "x".repeat(VALUE_BYTES_MAX + 1);
    let rows = [
        (None, "attribute: is missing"),
        (Some(A::Method(text(None))), "method.any[0].kind: is missing"),
        (Some(A::Method(text(Some(Kind::Prefix(String::new()))))), "method.any[0].prefix: is missing"),
        (Some(A::Host(text(Some(Kind::Exact(long))))), "host.any[0].exact: has 4097 bytes"),
        (Some(A::Host(many(VALUES_MAX + 1))), "host.any: has 4097 elements"),
        (Some(A::Namespace(words("a/b"))), "namespace.none[0]: \"a/b\" is no namespace"),
        (Some(A::RequestPrincipal(words("x"))), "request_principal.none[0]: \"x\" is no token principal"),
        (Some(A::ServiceAccount(accounts)), "service_account.any: has 17 elements, more than 16"),
        (
            Some(A::SourceIp(wire::RangeValues { any: vec![range], none: vec![] })),
            "source_ip.any[0].range.address: has 3 bytes",
        ),
        (
            Some(A::DestinationPort(wire::PortValues { any: vec![], none: vec![65_536] })),
            "destination_port.none[0]: 65536 is no port",
        ),
        (Some(A::Path(paths)), "path.any[0].template: \"/a{*}\" is no path template"),
        (Some(A::Header(header)), "header.name: \"a b\" is no name of a header"),
        (Some(A::Claim(wire::ClaimValues::default())), "claim.path: is missing"),
    ];
    for (attribute, want) in rows {
        let found = condition_fault(attribute);
        let want = format!("rules[0].clauses[0].alternatives[0].conditions[0].{want}");
        assert!(found.starts_with(&want), "{found}\nis not\n{want}");
    }
}

#[test]
fn a_policy_travels_with_what_its_reader_has_to_know() {
    let values = Values { any: vec![StringMatch::Exact("GET".into())], none: vec![] };
    let clauses = vec![Clause { alternatives: vec![vec![Condition::Method(values)]] }];
    let policy = Policy {
        key: PolicyKey::new("n", "p"),
        action: Action::Audit,
        rules: vec![Rule { clauses, unevaluable: vec![] }],
        dry_run: false,
    };
    let one = HttpPolicy { targets: vec![PolicyTarget::Waypoint], policy: Arc::new(policy) };
    assert_eq!(http_policy::encode(&one).needs, ["action.audit", "operation.methods"]);
}

#[test]
fn rules_for_tokens_that_manifests_may_not_say_are_refused() {
    use wire::token_rule::Keys as Wire;
    let fault = |change: &dyn Fn(&mut wire::TokenRule)| {
        let location = wire::token_location::Kind::Param("t".into());
        let mut rule = wire::TokenRule {
            issuer: "i".into(),
            keys: Some(Wire::Discovery(())),
            fetch_timeout_nanos: 1,
            locations: vec![wire::TokenLocation { kind: Some(location) }],
            ..wire::TokenRule::default()
        };
        change(&mut rule);
        let message = wire::RequestAuthentication {
            key: Some(wire::ObjectRef { namespace: "n".into(), name: "p".into() }),
            targets: vec![wire::PolicyTarget { kind: Some(wire::policy_target::Kind::Waypoint(())) }],
            rules: vec![rule],
            needs: vec![],
        };
        request_authentication::decode(&message).unwrap_err().to_string()
    };
    let secret = r#"{"keys":[{"kty":"oct","k":"AA"}]}"#;
    let rows = [
        (fault(&|r| r.keys = None), "keys: is missing"),
        (fault(&|r| r.issuer.clear()), "issuer: is needed unless jwksUri is given"),
        (fault(&|r| r.keys = Some(Wire::Uri("file:///etc".into()))), "jwksUri: is no http or https URL"),
        (fault(&|r| r.keys = Some(Wire::Inline(secret.into()))), "jwks: holds a private or shared key"),
        (fault(&|r| r.locations.clear()), "locations: is missing"),
        (fault(&|r| r.locations.push(wire::TokenLocation::default())), "locations[1].kind: is missing"),
        (fault(&|r| r.fetch_timeout_nanos = 0), "fetch_timeout_nanos: 0ns is not between 1ns and 3600s"),
        (fault(&|r| r.output_payload = Some("host".into())), "outputPayloadToHeader: this header frames"),
        (fault(&|r| r.space_delimited = vec!["a".into(); 65]), "spaceDelimitedClaims: has more than 64"),
    ];
    for (found, want) in rows {
        let want = format!("rules[0].{want}");
        assert!(found.starts_with(&want), "{found}\nis not\n{want}");
    }
}
