//! The compiled index against a naive reading of the specification: every match compared, all that agree sorted.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ambit_route::model::{
    Frontend, Group, GrpcMatch, HttpMatch, NameMatch, PathMatch, Route, RouteConfig, RouteKey, Rule, Scheme,
    ValueMatch,
};
use ambit_route::{Request, Selected, Table, split_target};
use ambit_types::ServiceKey;
use proptest::prelude::*;

/// Straight from the Gateway API's text on HTTPRouteRule.matches and GRPCRouteRule.matches, hostnames left out.
mod naive {
    use super::*;

    /// What a request is like.
    #[derive(Debug, Clone)]
    pub(super) struct Asked {
        pub(super) method: &'static str,
        pub(super) path: String,
        pub(super) query: Vec<(&'static str, &'static str)>,
        pub(super) headers: Vec<(&'static str, &'static str)>,
    }

    /// How much a match is preferred: the greatest wins.
    type Preference = (u8, usize, usize, usize, bool, usize, usize);

    /// A rule that wants the request, by preference, then by age, name and place.
    type Candidate = (Preference, Reverse<u64>, Reverse<RouteKey>, Reverse<usize>);

    pub(super) fn http(routes: &[Route<HttpMatch>], asked: &Asked) -> Option<(RouteKey, usize)> {
        best(routes, &|one| http_agrees(one, asked).then(|| http_preference(one)))
    }

    pub(super) fn grpc(routes: &[Route<GrpcMatch>], asked: &Asked) -> Option<(RouteKey, usize)> {
        let parts: Vec<&str> = asked.path[1..].split('/').collect();
        let [service, method] = parts[..] else { return None };
        best(routes, &|one| {
            let agrees = text_agrees(one.service.as_ref(), service)
                && text_agrees(one.method.as_ref(), method)
                && headers_agree(&one.headers, asked);
            agrees.then(|| {
                let (service, method) = (specific(one.service.as_ref()), specific(one.method.as_ref()));
                (service.0, service.1, usize::from(method.0), method.1, false, count(&one.headers, true), 0)
            })
        })
    }

    fn best<M>(routes: &[Route<M>], wants: &dyn Fn(&M) -> Option<Preference>) -> Option<(RouteKey, usize)>
    where
        M: Default,
    {
        let mut found: Vec<Candidate> = Vec::new();
        for route in routes {
            for (place, rule) in route.rules.iter().enumerate() {
                let implied = [M::default()];
                let matches = if rule.matches.is_empty() { &implied[..] } else { &rule.matches };
                for preference in matches.iter().filter_map(wants) {
                    let key = Reverse(route.key.clone());
                    found.push((preference, Reverse(route.created), key, Reverse(place)));
                }
            }
        }
        found.sort();
        found.pop().map(|(_, _, key, place)| (key.0, place.0))
    }

    fn http_preference(one: &HttpMatch) -> Preference {
        let (kind, length) = match &one.path {
            Some(PathMatch::Exact(_)) => (2, 0),
            Some(PathMatch::Regex(text) | PathMatch::Start(text)) => (1, text.len()),
            Some(PathMatch::Prefix(prefix)) => (0, prefix.trim_end_matches('/').len()),
            None => (0, 0),
        };
        (kind, length, 0, 0, one.method.is_some(), count(&one.headers, true), count(&one.query, false))
    }

    fn http_agrees(one: &HttpMatch, asked: &Asked) -> bool {
        let path = match &one.path {
            None => true,
            Some(PathMatch::Exact(path)) => **path == *asked.path,
            Some(PathMatch::Prefix(prefix)) => {
                let want: Vec<&str> = prefix.split('/').filter(|s| !s.is_empty()).collect();
                let have: Vec<&str> = asked.path.split('/').skip(1).collect();
                have.len() >= want.len() && have[..want.len()] == want[..]
            }
            Some(PathMatch::Regex(pattern)) => form_agrees(pattern, &asked.path),
            Some(PathMatch::Start(start)) => asked.path.starts_with(&**start),
        };
        path && one.method.as_ref().is_none_or(|method| **method == *asked.method)
            && headers_agree(&one.headers, asked)
            && effective(&one.query, false).iter().all(|(name, value)| {
                let first = asked.query.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
                value_agrees(value, first)
            })
    }

    fn headers_agree(headers: &[NameMatch], asked: &Asked) -> bool {
        effective(headers, true).iter().all(|(name, value)| {
            let lines: Vec<&str> =
                asked.headers.iter().filter(|(n, _)| n.to_lowercase() == *name).map(|(_, v)| *v).collect();
            let joined = (!lines.is_empty()).then(|| lines.join(","));
            value_agrees(value, joined.as_deref())
        })
    }

    fn value_agrees(want: &ValueMatch, have: Option<&str>) -> bool {
        match want {
            ValueMatch::Exact(text) => have == Some(text),
            ValueMatch::Regex(pattern) => have.is_some_and(|have| form_agrees(pattern, have)),
            ValueMatch::Present => have.is_some(),
            ValueMatch::Absent => have.is_none(),
        }
    }

    fn text_agrees(want: Option<&ValueMatch>, have: &str) -> bool {
        want.is_none_or(|want| value_agrees(want, Some(have)))
    }

    fn specific(part: Option<&ValueMatch>) -> (u8, usize) {
        match part {
            Some(ValueMatch::Exact(text)) => (2, text.len()),
            Some(ValueMatch::Regex(text)) => (1, text.len()),
            Some(ValueMatch::Present | ValueMatch::Absent) | None => (0, 0),
        }
    }

    /// The only forms that are generated: literals and `[ab]`, each maybe followed by `+`; or `.*` at the end.
    fn form_agrees(pattern: &str, text: &str) -> bool {
        let Some(first) = pattern.chars().next() else { return text.is_empty() };
        if pattern == ".*" {
            return true;
        }
        let (set, rest) = match first {
            '[' => ("ab".to_owned(), &pattern[4..]),
            literal => (literal.to_string(), &pattern[1..]),
        };
        let Some(next) = text.strip_prefix(|c| set.contains(c)) else { return false };
        match rest.strip_prefix('+') {
            Some(after) => form_agrees(after, next) || form_agrees(pattern, next),
            None => form_agrees(rest, next),
        }
    }

    fn count(list: &[NameMatch], fold: bool) -> usize {
        effective(list, fold).len()
    }

    /// Of two entries with one name the first counts.
    fn effective(list: &[NameMatch], fold: bool) -> BTreeMap<String, &ValueMatch> {
        let mut first = BTreeMap::new();
        for entry in list {
            let name = if fold { entry.name.to_lowercase() } else { entry.name.to_string() };
            first.entry(name).or_insert(&entry.value);
        }
        first
    }
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "c"]);
    (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let mut path = segments.iter().map(|s| format!("/{s}")).collect::<String>();
        if path.is_empty() || slash {
            path.push('/');
        }
        path
    })
}

fn form() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["/a.*", "/[ab]", "/[ab]+/.*", "/a+/b+", "/c/[ab]+", "/.*", "/ab/"])
        .prop_map(str::to_owned)
}

fn path_match() -> impl Strategy<Value = Option<PathMatch>> {
    prop_oneof![
        1 => Just(None),
        3 => path().prop_map(|p| Some(PathMatch::Exact(p.into()))),
        4 => path().prop_map(|p| Some(PathMatch::Prefix(p.into()))),
        1 => form().prop_map(|p| Some(PathMatch::Regex(p.into()))),
    ]
}

fn value() -> impl Strategy<Value = ValueMatch> {
    let exact = prop::sample::select(vec!["1", "2", "3", "1,2"]);
    prop_oneof![
        8 => exact.prop_map(|v| ValueMatch::Exact(v.into())),
        1 => Just(ValueMatch::Regex("1.*".into())),
        1 => Just(ValueMatch::Present),
        1 => Just(ValueMatch::Absent),
    ]
}

fn named(names: Vec<&'static str>) -> impl Strategy<Value = Vec<NameMatch>> {
    let one = (prop::sample::select(names), value());
    prop::collection::vec(one.prop_map(|(name, value)| NameMatch { name: name.into(), value }), 0..3)
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let method = prop::option::weighted(0.3, prop::sample::select(vec!["GET", "POST"]));
    (path_match(), method, named(vec!["x", "X", "y"]), named(vec!["q", "Q"])).prop_map(
        |(path, method, headers, query)| HttpMatch { path, method: method.map(Into::into), headers, query },
    )
}

fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    let part = |names: Vec<&'static str>| {
        let exact = prop::sample::select(names).prop_map(|n| ValueMatch::Exact(n.into()));
        let form = prop::sample::select(vec!["a+", "[ab]+", "a.*"]).prop_map(|p| ValueMatch::Regex(p.into()));
        prop::option::of(prop_oneof![3 => exact, 1 => form])
    };
    (part(vec!["a", "b", "ab"]), part(vec!["a", "c"]), named(vec!["x", "y"]))
        .prop_map(|(service, method, headers)| GrpcMatch { service, method, headers })
}

fn routes<M: std::fmt::Debug + Clone>(one: impl Strategy<Value = M>) -> impl Strategy<Value = Vec<Route<M>>> {
    let rule = prop::collection::vec(one, 0..4).prop_map(|matches| Rule { matches, ..Rule::default() });
    let route = (prop::collection::vec(rule, 1..4), 0_u64..3, 0_u8..4);
    prop::collection::vec(route, 1..24).prop_map(|routes| {
        let numbered = routes.into_iter().enumerate();
        numbered
            .map(|(number, (rules, created, namespace))| {
                // Two routes never share a name, as in a cluster.
                let key = RouteKey::new(format!("ns{namespace}"), format!("r{}", 99 - number));
                Route { key, created, rules }
            })
            .collect()
    })
}

fn asked() -> impl Strategy<Value = naive::Asked> {
    let pair = |names: Vec<&'static str>| {
        let values = prop::sample::select(vec!["1", "2", "3", ""]);
        prop::collection::vec((prop::sample::select(names), values), 0..4)
    };
    let method = prop::sample::select(vec!["GET", "POST", "PUT"]);
    (method, path(), pair(vec!["q", "Q", "r"]), pair(vec!["x", "X", "y", "z"]))
        .prop_map(|(method, path, query, headers)| naive::Asked { method, path, query, headers })
}

fn compiled(group: Group) -> Table {
    let producer = Some(group);
    let frontend = Frontend { service: service(), port: 80, producer, consumers: BTreeMap::new() };
    let (table, errors) =
        Table::compile(&RouteConfig { frontends: vec![frontend], destinations: Vec::new() });
    assert!(errors.is_empty(), "{errors:?}");
    table
}

fn service() -> ServiceKey {
    ServiceKey::new("shop", "web.shop.svc.cluster.local")
}

fn selected(table: &Table, asked: &naive::Asked) -> Option<(RouteKey, usize)> {
    let query: Vec<String> = asked.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let target = format!("{}?{}", asked.path, query.join("&"));
    let (path, query) = split_target(&target);
    let request = Request {
        method: asked.method,
        scheme: Scheme::Http,
        authority: "web",
        port: 80,
        path,
        query,
        headers: &asked.headers,
    };
    match table.select(&service(), None, &request) {
        Selected::Rule(rule, _) => Some((rule.id.route.clone(), rule.id.rule)),
        Selected::NoMatch(_) => None,
        Selected::Service => panic!("routes are attached"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn http_routes_agree_with_the_naive_reading(
        routes in routes(http_match()),
        requests in prop::collection::vec(asked(), 1..20),
    ) {
        let table = compiled(Group::Http(routes.clone()));
        for asked in requests {
            prop_assert_eq!(selected(&table, &asked), naive::http(&routes, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn grpc_routes_agree_with_the_naive_reading(
        routes in routes(grpc_match()),
        requests in prop::collection::vec(asked(), 1..20),
    ) {
        let table = compiled(Group::Grpc(routes.clone()));
        for mut asked in requests {
            asked.path = asked.path.trim_end_matches('/').to_owned() + "/a";
            prop_assert_eq!(selected(&table, &asked), naive::grpc(&routes, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn the_order_in_which_routes_arrive_does_not_matter(
        routes in routes(http_match()),
        requests in prop::collection::vec(asked(), 1..10),
    ) {
        let table = compiled(Group::Http(routes.clone()));
        let turned = compiled(Group::Http(routes.into_iter().rev().collect()));
        for asked in requests {
            prop_assert_eq!(selected(&table, &asked), selected(&turned, &asked), "{:?}", asked);
        }
    }
}
