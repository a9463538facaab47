//! Rows of filters: prefixes replaced, locations, CORS, shares.

use super::*;
use crate::model::{Abort, BackendFault, Cors, Delay, Fault, Fraction, Scheme, Target};
use crate::request::{Request, split_target};

type Lines<'a> = Vec<(&'a str, &'a str)>;

fn request<'a>(method: &'a str, target: &'a str, headers: &'a Lines<'a>) -> Request<'a, Lines<'a>> {
    let (path, query) = split_target(target);
    Request { method, scheme: Scheme::Http, authority: "echo:8080", port: 80, path, query, headers }
}

/// A head as plain lines.
#[derive(Default)]
struct Plain(Vec<(String, String)>);

impl Head for Plain {
    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }
}

fn prefix(matched: &str, replacement: &str) -> NewPath {
    let trim = |text: &str| text.strip_suffix('/').unwrap_or(text).into();
    NewPath::Prefix { matched: trim(matched), replacement: trim(replacement) }
}

#[test]
fn prefixes_are_replaced_as_the_specification_lists_it() {
    for (path, matched, replacement, want) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        // Beyond the list.
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/bar", "/", "/xyz", "/xyz/bar"),
        ("/bar", "/", "/", "/bar"),
        ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
        ("/foobar", "/foo", "/xyz", "/foobar"),
        ("/other", "/foo", "/xyz", "/other"),
        ("/a%2Bb/c%2Bd", "/a+b", "/xyz", "/xyz/c%2Bd"),
        ("/a+b", "/a+b/", "/xyz", "/xyz"),
    ] {
        assert_eq!(prefix(matched, replacement).of(path), want, "{path} {matched} {replacement}");
    }
}

#[test]
fn letters_are_replaced_where_a_plus_sign_is_escaped() {
    let start = NewPath::Start { matched: "/a+".into(), replacement: "/x".into() };
    for (path, want) in [("/a%2Bb%2B", "/xb%2B"), ("/a+b", "/xb"), ("/ab", "/ab")] {
        assert_eq!(start.of(path), want, "{path}");
    }
}

#[test]
fn a_location_has_the_path_that_was_asked_for() {
    let no_headers = Lines::new();
    let asked = request("GET", "/a%2Bb?c", &no_headers);
    assert_eq!(redirect(None, None, None).location(&asked), "http://echo/a%2Bb?c");
}

fn redirect(scheme: Option<Scheme>, hostname: Option<&str>, port: Option<u16>) -> RedirectTo {
    RedirectTo { status: 302, scheme, hostname: hostname.map(Into::into), port, path: None }
}

#[test]
fn locations_have_the_right_port() {
    use Scheme::{Http, Https};
    let no_headers = Lines::new();
    let base = request("GET", "/a?b=c", &no_headers);
    for (scheme, host, port, addressed, want) in [
        (None, None, None, 80, "http://echo/a?b=c"),
        (None, None, None, 8080, "http://echo:8080/a?b=c"),
        (None, None, None, 443, "http://echo:443/a?b=c"),
        (None, Some("x.org"), None, 80, "http://x.org/a?b=c"),
        (None, Some("x.org"), None, 8080, "http://x.org:8080/a?b=c"),
        (None, None, Some(8083), 80, "http://echo:8083/a?b=c"),
        (None, None, Some(80), 8080, "http://echo/a?b=c"),
        (None, None, Some(443), 80, "http://echo:443/a?b=c"),
        (Some(Https), None, None, 80, "https://echo/a?b=c"),
        (Some(Https), None, None, 8080, "https://echo/a?b=c"),
        (Some(Http), None, None, 8080, "http://echo/a?b=c"),
        (Some(Https), None, Some(443), 80, "https://echo/a?b=c"),
        (Some(Https), Some("x.org"), Some(80), 80, "https://x.org:80/a?b=c"),
    ] {
        let got = redirect(scheme, host, port).location(&Request { port: addressed, ..base });
        assert_eq!(got, want, "{scheme:?} {host:?} {port:?} {addressed}");
    }
    let https = Request { scheme: Https, port: 443, ..base };
    assert_eq!(redirect(None, None, None).location(&https), "https://echo/a?b=c");
}

#[test]
fn locations_keep_addresses_whole_and_never_turn_a_path_into_a_host() {
    let no_headers = Lines::new();
    let with = |authority, target| Request { authority, ..request("GET", target, &no_headers) };
    let same = redirect(None, None, None);
    for (authority, target, want) in [
        ("[::1]:8080", "/a", "http://[::1]/a"),
        ("[::1]", "/a", "http://[::1]/a"),
        ("10.0.0.1", "/a?", "http://10.0.0.1/a?"),
        ("", "/a", "/a"),
        ("", "//evil.org/a", "/evil.org/a"),
        ("echo", "//evil.org/a", "http://echo//evil.org/a"),
    ] {
        assert_eq!(same.location(&with(authority, target)), want, "{authority} {target}");
    }
}

fn policy(origins: &[&str], credentials: bool) -> CorsPolicy {
    let names = |list: &[&str]| list.iter().map(|name| (*name).into()).collect();
    let cors = Cors {
        allow_origins: names(origins),
        allow_methods: names(&["GET", "PUT"]),
        allow_headers: names(&["x-a", "x-b"]),
        expose_headers: names(&["x-c"]),
        allow_credentials: credentials,
        max_age_seconds: None,
    };
    CorsPolicy::compile(&cors).expect("a policy that can be read")
}

fn told(policy: &CorsPolicy, method: &str, headers: &Lines<'_>) -> String {
    let join = |lines: &[(&str, String)]| lines.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
    match policy.preflight(&request(method, "/", headers)) {
        None => "no preflight".to_owned(),
        Some(Preflight::Refused) => "refused".to_owned(),
        Some(Preflight::Granted(lines)) => join(&lines).join("; ").replace("access-control-", ""),
    }
}

#[test]
fn preflights_are_told_apart_and_answered() {
    let some = policy(&["https://a.org"], false);
    let asked = |origin| vec![("Origin", origin), ("Access-Control-Request-Method", "PUT")];
    let granted = "allow-origin=https://a.org; allow-methods=GET, PUT; allow-headers=x-a, x-b; max-age=5; \
        vary=origin, request-method, request-headers";
    assert_eq!(told(&some, "OPTIONS", &asked("https://a.org")), granted);
    assert_eq!(told(&some, "OPTIONS", &asked("https://b.org")), "refused");
    assert_eq!(told(&some, "GET", &asked("https://a.org")), "no preflight");
    assert_eq!(told(&some, "OPTIONS", &vec![("origin", "https://a.org")]), "no preflight");
    assert_eq!(told(&some, "OPTIONS", &vec![("access-control-request-method", "PUT")]), "no preflight");
    let two = vec![("origin", "https://a.org"), ("origin", "https://b.org"), asked("")[1]];
    assert_eq!(told(&some, "OPTIONS", &two), "no preflight");
}

#[test]
fn with_credentials_no_star_is_sent() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    let all = |allow_credentials| {
        let any = names(&["*"]);
        let cors = Cors {
            allow_origins: any.clone(),
            allow_methods: any.clone(),
            allow_headers: any.clone(),
            expose_headers: any,
            allow_credentials,
            max_age_seconds: Some(60),
        };
        CorsPolicy::compile(&cors).expect("a policy that can be read")
    };
    let asked = |origin| {
        let wanted = ("access-control-request-headers", "x-a,x-z");
        vec![("origin", origin), ("access-control-request-method", "PATCH"), wanted]
    };
    let vary = "vary=origin, request-method, request-headers";
    let open = format!("allow-origin=*; allow-methods=*; allow-headers=*; max-age=60; {vary}");
    assert_eq!(told(&all(false), "OPTIONS", &asked("null")), open);
    let echoed = format!(
        "allow-origin=https://x; allow-methods=PATCH; allow-headers=x-a,x-z; allow-credentials=true; \
         max-age=60; {vary}"
    );
    assert_eq!(told(&all(true), "OPTIONS", &asked("https://x")), echoed);
    assert_eq!(told(&all(true), "OPTIONS", &asked("null")), "refused");
}

#[test]
fn responses_are_marked_for_origins_that_may_call_and_only_for_them() {
    let marked = |policy: &CorsPolicy, headers: &Lines<'_>| {
        let mut head = Plain::default();
        head.add("access-control-allow-origin", "*");
        head.add("x-own", "1");
        let names = ["access-control-allow-origin", "x-own", "set-cookie"];
        policy.mark(&request("GET", "/", headers), names.into_iter(), &mut head);
        head.0
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect::<Vec<_>>()
            .join("; ")
            .replace("access-control-", "")
    };
    let some = policy(&["https://a.org"], true);
    let good = "x-own=1; vary=origin; allow-origin=https://a.org; allow-credentials=true; expose-headers=x-c";
    assert_eq!(marked(&some, &vec![("origin", "https://a.org")]), good);
    assert_eq!(marked(&some, &vec![("origin", "https://b.org")]), "x-own=1; vary=origin");
    assert_eq!(marked(&some, &vec![]), "x-own=1; vary=origin");
    let all = policy(&["*"], false);
    let open = "x-own=1; allow-origin=*; expose-headers=x-c";
    assert_eq!(marked(&all, &vec![("origin", "https://b.org")]), open);
}

#[test]
fn exposing_all_headers_with_credentials_lists_them() {
    let expose_headers = vec!["*".into()];
    let cors = Cors {
        allow_origins: vec!["https://a.org".into()],
        expose_headers,
        allow_credentials: true,
        ..Cors::default()
    };
    let policy = CorsPolicy::compile(&cors).expect("a policy that can be read");
    let mut head = Plain::default();
    let headers = vec![("origin", "https://a.org")];
    let names = ["x-own", "set-cookie", "x-two"];
    policy.mark(&request("GET", "/", &headers), names.into_iter(), &mut head);
    assert!(head.0.contains(&("access-control-expose-headers".to_owned(), "x-own, x-two".to_owned())));
}

#[test]
fn origins_match_by_scheme_host_and_port() {
    for (listed, origin, want) in [
        ("https://a.org", "https://a.org", true),
        ("https://a.org", "https://A.org", true),
        ("https://a.org", "http://a.org", false),
        ("https://a.org", "https://a.org:8443", false),
        ("https://a.org:8443", "https://a.org:8443", true),
        ("https://*.a.org", "https://x.a.org", true),
        ("https://*.a.org", "https://x.y.a.org", true),
        ("https://*.a.org", "https://a.org", false),
        ("https://*.a.org", "https://.a.org", false),
        ("https://*.a.org", "https://evil-a.org", false),
        ("https://*.a.org", "https://evil.org/.a.org", false),
        ("https://*.a.org", "https://evil.org:80.a.org", false),
        ("https://*.a.org", "https://u@x.a.org", false),
        ("https://*.a.org:8443", "https://x.a.org:8443", true),
        ("https://*", "https://x.org", true),
        ("https://*", "http://x.org", false),
        ("https://*", "null", false),
        ("https://[::1]:80", "https://[::1]:80", true),
    ] {
        let headers = vec![("origin", origin), ("access-control-request-method", "GET")];
        let got = told(&policy(&[listed], true), "OPTIONS", &headers) != "refused";
        assert_eq!(got, want, "{listed} {origin}");
    }
    for origin in ["a.org", "https://", "https://*a.org", "https://a*.org", "https://a.org:x", "https://a/b"]
    {
        let cors = Cors { allow_origins: vec![origin.into()], ..Cors::default() };
        assert!(matches!(CorsPolicy::compile(&cors), Err(CorsError::Origin { .. })), "{origin}");
    }
}

#[test]
fn shares_are_exact_over_many_draws() {
    let service = Target::Service { service: ambit_types::ServiceKey::new("ns", "copy"), port: 80 };
    let missing = Target::Invalid { fault: BackendFault::BackendNotFound, what: "copy".into() };
    for (fraction, want) in [
        (Fraction::percent(20), 200),
        (Fraction { numerator: 1, denominator: 2 }, 500),
        (Fraction { numerator: 35, denominator: 100 }, 350),
        (Fraction { numerator: 1, denominator: 1000 }, 1),
        (Fraction::percent(0), 0),
        (Fraction::ALL, 1000),
    ] {
        let count = |target: &Target| {
            let mirror = Mirror { target: target.clone(), fraction };
            (0..1000_u64).filter(|step| is_mirrored(&mirror, (2 * step + 1) * (u64::MAX / 2000))).count()
        };
        assert_eq!(count(&service), want, "{fraction:?}");
        assert_eq!(count(&missing), 0, "{fraction:?}");
    }
}

#[test]
fn faults_are_drawn_each_for_itself() {
    let half = Fraction::percent(50);
    let pause = std::time::Duration::from_secs(1);
    let fault = Fault { delay: Some(Delay { pause, fraction: half }), abort: Some((Abort::Http(503), half)) };
    for (pause_draw, abort_draw, want) in [
        (0, 0, (true, true)),
        (0, u64::MAX, (true, false)),
        (u64::MAX, 0, (false, true)),
        (u64::MAX, u64::MAX, (false, false)),
    ] {
        let got = inject(&fault, pause_draw, abort_draw);
        assert_eq!((got.pause.is_some(), got.abort.is_some()), want);
    }
    assert_eq!(inject(&Fault::default(), 0, 0), Injection::default());
}

#[test]
fn header_changes_are_checked() {
    let pair = |name: &str, value: &str| vec![(name.into(), value.into())];
    let set = |name, value| HeaderChange { set: pair(name, value), ..HeaderChange::default() };
    assert_eq!(&*check_change(&set("X-A", "1"), Of::Request).expect("valid").set[0].0, "x-a");
    let framing = |name: &str| HeaderError::Framing { name: name.to_owned() };
    for (change, want) in [
        (set("x a", ""), HeaderError::Name { name: "x a".to_owned() }),
        (set(":path", "/"), HeaderError::Name { name: ":path".to_owned() }),
        (set("", ""), HeaderError::Name { name: String::new() }),
        (set("x", "a\r\nb: c"), HeaderError::Value { name: "x".to_owned() }),
        (set("x", "a\0"), HeaderError::Value { name: "x".to_owned() }),
        (set("Host", "x"), framing("host")),
        (set("Transfer-Encoding", "x"), framing("transfer-encoding")),
        (
            HeaderChange { remove: vec!["content-length".into()], ..HeaderChange::default() },
            framing("content-length"),
        ),
        (
            HeaderChange { set: pair("x", "1"), add: pair("X", "2"), remove: Vec::new() },
            HeaderError::Repeated { name: "x".to_owned() },
        ),
        (HeaderChange { remove: vec!["x".into(); 17], ..HeaderChange::default() }, HeaderError::TooMany),
    ] {
        assert_eq!(check_change(&change, Of::Request), Err(want));
    }
}

#[test]
fn nobody_but_the_mesh_says_who_calls() {
    let remove = |name: &str| HeaderChange { remove: vec![name.into()], ..HeaderChange::default() };
    for (name, on_request, on_response) in [
        ("X-Forwarded-Client-Cert", false, true),
        ("x_forwarded_client_cert", false, true),
        ("X-Ambit-Client", false, false),
        ("x-ambit-reason", false, false),
        ("X_Ambit-Reason", false, false),
        ("x-envoy-upstream-service-time", false, true),
        ("x-istio-attributes", false, true),
        ("x-forwarded-for", true, true),
        ("x-ambit", true, true),
        ("my-x-ambit-client", true, true),
    ] {
        let refused = Err(HeaderError::Reserved { name: name.to_ascii_lowercase() });
        for (of, is_free) in [(Of::Request, on_request), (Of::Response, on_response)] {
            let got = check_change(&remove(name), of).map(|_| ());
            assert_eq!(got, if is_free { Ok(()) } else { refused.clone() }, "{name} {of:?}");
        }
        let set = HeaderChange { set: vec![(name.into(), "1".into())], ..HeaderChange::default() };
        let add = HeaderChange { add: set.set.clone(), ..HeaderChange::default() };
        for change in [set, add] {
            assert_eq!(check_change(&change, Of::Request).is_ok(), on_request, "{name}");
        }
    }
}
