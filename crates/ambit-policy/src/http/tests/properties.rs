//! The evaluation against a naive one written from the rules of matching, and properties that hold for any policy.

use std::sync::Arc;

use ambit_types::{Identity, PolicyKey, Reason};
use proptest::prelude::*;

use super::super::model::{
    Action, Clause, Condition, Glob, HeaderName, PathMatch, Policy, RequestPrincipal, Rule, StringMatch,
    Template, Values,
};
use super::super::{Answer, CustomOrder, Decision, Facts, PolicySet, Request, Verdict, decide, explain};
use crate::jwt::{ClaimPath, Claims, Verified};
use crate::normalize::{self, Ambiguity, Received, Target};

mod naive;

/// A request that owns everything.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    peer: Option<Identity>,
    port: u16,
    method: &'static str,
    host: &'static str,
    path: Vec<u8>,
    headers: Vec<(&'static str, Vec<u8>)>,
    pub(super) remote: Option<&'static str>,
    claims: Option<&'static str>,
    tcp: bool,
}

impl Asked {
    pub(super) fn with<T>(&self, act: impl FnOnce(&Facts<'_>) -> T) -> T {
        let address = [10, 0, 0, 1].into();
        let connection = crate::Facts::new(self.peer.as_ref(), address, [10, 0, 0, 2].into(), self.port);
        if self.tcp {
            return act(&Facts::of_connection(connection, Some(self.host)));
        }
        let token = self.claims.map(|json| Verified::unchecked(Claims::parse(json.as_bytes()).unwrap()));
        let hosts = [self.host.as_bytes()];
        let target = self.target(&hosts);
        let remote = self.remote.map(|ip| ip.parse().unwrap());
        let request = Request { target: &target, headers: &self.headers, remote, token: token.as_ref() };
        act(&Facts::of_request(connection, request))
    }

    fn target<'a>(&'a self, hosts: &'a [&'a [u8]]) -> Target<'a> {
        let (method, path) = (self.method.as_bytes(), Some(&self.path[..]));
        let received = Received { method, hosts, path, ..Received::default() };
        let options = normalize::Options { ambiguity: Ambiguity::Keep, ..normalize::Options::default() };
        normalize::normalize(&received, &options).unwrap()
    }
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let peer = prop::sample::select(vec![None, Some("a/x"), Some("a/xy"), Some("b/x")]).prop_map(|account| {
        let (namespace, name) = account?.split_once('/')?;
        Identity::parse(&format!("spiffe://td/ns/{namespace}/sa/{name}")).ok()
    });
    let segment = prop::sample::select(vec!["a", "ab", "b", "a;b", ";q", "b;p=1", ""]);
    let path =
        prop::collection::vec(segment, 1..4).prop_map(|all| format!("/{}", all.join("/")).into_bytes());
    let value = prop::sample::select(vec![&b"a"[..], b"ab", b"b", b"", b"a,b", b" b ", b"a\xff", b"\xff"]);
    let header = (prop::sample::select(vec!["x", "y"]), value.prop_map(<[u8]>::to_vec));
    let claims = prop::sample::select(vec![
        None,
        Some(r#"{"iss":"a","sub":"b/a","c":"a"}"#),
        Some(r#"{"iss":"a/b","sub":"a","c":["a","ab",7]}"#),
        Some(r#"{"c":{"a":"b"},"aud":["a","b"]}"#),
        Some(r#"{"sub":"a","c":7}"#),
    ]);
    (
        (peer, 1u16..4, prop::sample::select(vec!["GET", "PUT", "get"])),
        (prop::sample::select(vec!["a", "ab", "B", "a:80", "b.a:81"]), path),
        (prop::collection::vec(header, 0..4), claims),
        (prop::sample::select(vec![None, Some("10.0.0.1"), Some("8.8.8.8")]), prop::bool::weighted(0.1)),
    )
        .prop_map(|((peer, port, method), (host, path), (headers, claims), (remote, tcp))| Asked {
            peer,
            port,
            method,
            host,
            path,
            headers,
            remote,
            claims,
            tcp,
        })
}

pub(super) fn values<T: std::fmt::Debug + Clone + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Values<T>> {
    let one = one.boxed();
    let list = |most: usize| prop::collection::vec(one.clone(), 0..most);
    (list(3), list(2)).prop_map(|(any, none)| Values { any, none }).boxed()
}

pub(super) fn texts(of: &'static [&'static str]) -> BoxedStrategy<StringMatch> {
    prop::sample::select(of).prop_map(crate::shorthand::string_match).boxed()
}

pub(super) fn condition() -> impl Strategy<Value = Condition> {
    let plain = || values(texts(&["a", "a*", "*b", "*", "ab", "b"]));
    let hosts = texts(&["a", "b", "a:80", "*.a", "a*", "*:1", "b:2", "*"]);
    let principals = texts(&["td/ns/a/sa/x", "td/ns/a*", "*/sa/x", "*"]);
    let methods = texts(&["GET", "P*", "*", "get"]);
    let paths = prop::sample::select(&["/a", "/a/*", "*b", "/a/{*}", "/{**}/b", "/a/{**}/", "/a;p", "*"][..])
        .prop_map(|text| match Template::is_template(text) {
            true => PathMatch::Template(Template::parse(text).unwrap()),
            false => PathMatch::Text(crate::shorthand::string_match(text)),
        });
    let principal = prop::sample::select(&["a/b/a", "*", "a/*", "*/a", "*a", "a*"][..])
        .prop_map(|text| RequestPrincipal::parse(text).unwrap());
    let range =
        prop::sample::select(&["10.0.0.0/8", "8.8.8.8/32"][..]).prop_map(|range| range.parse().unwrap());
    let header = prop::sample::select(&["x", "y"][..]).prop_map(|name| HeaderName::parse(name).unwrap());
    let claim = prop::sample::select(vec!["c", "c/a", "sub"])
        .prop_map(|names| ClaimPath::new(names.split('/')).unwrap());
    prop_oneof![
        values(principals).prop_map(Condition::Principal),
        values(prop::sample::select(&["a", "*", "a*b"][..]).prop_map(Glob::new))
            .prop_map(Condition::Namespace),
        values(range).prop_map(Condition::RemoteIp),
        values(1u16..4).prop_map(Condition::DestinationPort),
        values(hosts.clone()).prop_map(Condition::Host),
        values(hosts).prop_map(Condition::ServerName),
        values(methods).prop_map(Condition::Method),
        values(paths.clone()).prop_map(Condition::Path),
        values(paths).prop_map(Condition::Path),
        (header.clone(), plain()).prop_map(|(name, values)| Condition::Header(name, values)),
        (header, plain()).prop_map(|(name, values)| Condition::Header(name, values)),
        values(principal).prop_map(Condition::RequestPrincipal),
        plain().prop_map(Condition::Audience),
        (claim, plain()).prop_map(|(path, values)| Condition::Claim(path, values)),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let alternative = prop::collection::vec(condition(), 0..3);
    let clause = prop::collection::vec(alternative, 0..3).prop_map(|alternatives| Clause { alternatives });
    (prop::collection::vec(clause, 0..3), prop::bool::weighted(0.05)).prop_map(|(clauses, unknown)| Rule {
        clauses,
        unevaluable: if unknown { vec!["moon".into()] } else { Vec::new() },
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let action = prop::sample::select(vec![
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Deny,
        Action::Audit,
        Action::Custom("p".into()),
        Action::Custom("q".into()),
    ]);
    let policy = (action, prop::bool::weighted(0.15), prop::collection::vec(rule(), 0..3));
    prop::collection::vec(policy, 0..4).prop_map(|all| {
        let named = |(index, (action, dry_run, rules)): (usize, (Action, bool, Vec<Rule>))| {
            let dry_run = dry_run && matches!(action, Action::Allow | Action::Deny);
            Policy { key: PolicyKey::new("ns", format!("p{index}")), action, rules, dry_run }
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

pub(super) fn answers() -> impl Strategy<Value = Vec<(&'static str, Answer)>> {
    let answer =
        prop::sample::select(vec![Answer::Allowed, Answer::Allowed, Answer::Denied, Answer::Unavailable]);
    let given = prop::option::of(answer);
    (given.clone(), given)
        .prop_map(|(p, q)| p.map(|p| ("p", p)).into_iter().chain(q.map(|q| ("q", q))).collect())
}

pub(super) fn order() -> impl Strategy<Value = CustomOrder> {
    prop::sample::select(vec![CustomOrder::AfterToken, CustomOrder::BeforeToken])
}

fn set(policies: &[Policy], order: CustomOrder) -> PolicySet {
    PolicySet::new(policies.iter().cloned().map(Arc::new), None, order)
}

fn everything(name: &str, action: Action) -> Policy {
    Policy { key: PolicyKey::new("ns", name), action, rules: vec![Rule::default()], dry_run: false }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_naive_evaluation(
        policies in policies(),
        asked in asked(),
        answers in answers(),
        order in order(),
    ) {
        let set = set(&policies, order);
        let (decision, explained, want) = asked.with(|facts| {
            let explained = explain(&set, facts, &answers).decision;
            (decide(&set, facts, &answers), explained, naive::verdict(&policies, facts, &answers, order))
        });
        prop_assert_eq!(decision.verdict, want);
        prop_assert_eq!(&explained, &decision);
        let refused = decision.reason.is_some_and(Reason::is_refusal);
        prop_assert_eq!(decision.verdict == Verdict::Deny, refused);
        prop_assert_eq!(decision.verdict == Verdict::Ask, !decision.asks.is_empty());
    }

    #[test]
    fn a_deny_beats_every_allow(policies in policies(), asked in asked(), answers in answers(), order in order()) {
        let mut all: Vec<Policy> = policies;
        all.push(everything("all", Action::Allow));
        all.push(everything("none", Action::Deny));
        let decision: Decision = asked.with(|facts| decide(&set(&all, order), facts, &answers));
        prop_assert_ne!(decision.verdict, Verdict::Allow);
    }

    /// More DENY or CUSTOM never permits what was refused; more ALLOW never refuses what an ALLOW permitted.
    #[test]
    fn further_policies_only_go_their_way(
        policies in policies(),
        further in policies(),
        asked in asked(),
        answers in answers(),
        order in order(),
    ) {
        let renamed = |p: &Policy| Policy { key: PolicyKey::new("zz", p.key.name.clone()), ..p.clone() };
        let with = |keep: fn(&Action) -> bool| {
            let more = further.iter().filter(|p| keep(&p.action)).map(renamed);
            let all: Vec<Policy> = policies.iter().cloned().chain(more).collect();
            asked.with(|facts| decide(&set(&all, order), facts, &answers))
        };
        let before = with(|_| false);
        let stricter = with(|action| matches!(action, Action::Deny | Action::Custom(_) | Action::Audit));
        prop_assert!(before.is_allow() || !stricter.is_allow());
        let wider = with(|action| *action == Action::Allow);
        if before.is_allow() && before.policy.is_some() {
            prop_assert!(wider.is_allow());
        }
    }

    /// A second line of a header that is there gains nothing.
    #[test]
    fn a_further_header_line_never_permits(
        policies in policies(),
        asked in asked(),
        line in prop::sample::select(vec![&b"a"[..], b"b", b"", b"a,b", b"\xff"]),
        order in order(),
    ) {
        let set = set(&policies, order);
        let allows = |asked: &Asked| asked.with(|facts| decide(&set, facts, &[]).is_allow());
        let Some((name, _)) = asked.headers.first() else { return Ok(()) };
        let mut more = asked.clone();
        more.headers.push((name, line.to_vec()));
        prop_assert!(allows(&asked) || !allows(&more));
    }

    /// Parameters gain nothing either, unless a policy speaks of them.
    #[test]
    fn path_parameters_never_permit(policies in policies(), asked in asked(), order in order()) {
        let names_them = |c: &Condition| {
            let (any, none) = c.values();
            matches!(c, Condition::Path(_)) && any.iter().chain(&none).any(|value| value.contains(';'))
        };
        prop_assume!(!policies.iter().flat_map(Policy::conditions).any(names_them));
        let set = set(&policies, order);
        let allows = |asked: &Asked| asked.with(|facts| decide(&set, facts, &[]).is_allow());
        let hosts = [asked.host.as_bytes()];
        let Some(bare) = asked.target(&hosts).bare_path().map(<[u8]>::to_vec) else { return Ok(()) };
        let without = Asked { path: bare, ..asked.clone() };
        prop_assert!(allows(&without) || !allows(&asked));
    }
}
