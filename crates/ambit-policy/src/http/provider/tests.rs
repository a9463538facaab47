//! Providers as Istio's users write them, and what is refused of them.

use std::time::Duration;

use super::{Check, Provider, StringMatch, compile, is_listed, written};

fn read(yaml: &str) -> Result<Provider, Vec<String>> {
    let written: written::Provider = serde_saphyr::from_str(yaml).expect("the shape of a provider");
    compile(&written).map_err(|all| all.iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_left_out_has_its_default() {
    let provider =
        read("{name: opa, envoyExtAuthzGrpc: {service: opa.iam.svc.cluster.local, port: 9191}}").unwrap();
    assert_eq!((&*provider.name, provider.port), ("opa", 9191));
    assert_eq!(
        (provider.service.namespace.as_deref(), &*provider.service.hostname),
        (None, "opa.iam.svc.cluster.local")
    );
    assert_eq!((provider.timeout, provider.fail_open), (Duration::from_secs(1), false));
    assert_eq!((provider.status_on_error, provider.check), (403, Check::Grpc));
}

#[test]
fn everything_that_can_be_said_is_read() {
    let yaml = "
name: oauth
envoyExtAuthzHttp:
  service: iam/OAuth.example.com
  port: 4180
  timeout: 0.25s
  pathPrefix: /check/
  failOpen: true
  clearRouteCache: true
  statusOnError: '503'
  includeHeadersInCheck: [Cookie]
  includeRequestHeadersInCheck: [x-team-*]
  includeAdditionalHeadersInCheck: {X-Mesh: 'yes'}
  headersToUpstreamOnAllow: [x-user]
  headersToDownstreamOnAllow: ['*-cookie']
  headersToDownstreamOnDeny: [location]
";
    let provider = read(yaml).unwrap();
    assert_eq!(provider.service.namespace.as_deref(), Some("iam"));
    assert_eq!(&*provider.service.hostname, "oauth.example.com");
    assert_eq!(provider.timeout, Duration::from_millis(250));
    assert_eq!((provider.fail_open, provider.status_on_error), (true, 503));
    let Check::Http(check) = provider.check else { panic!("asked in HTTP") };
    assert_eq!(&*check.path_prefix, "/check");
    let sent = [StringMatch::Exact("cookie".into()), StringMatch::Prefix("x-team-".into())];
    assert_eq!(check.request_headers, sent);
    let (name, value) = check.additional_headers.first_key_value().unwrap();
    assert_eq!((name.as_str(), &**value), ("x-mesh", "yes"));
    assert!(is_listed(&check.downstream_on_allow, "Set-Cookie"));
    assert!(!is_listed(&check.downstream_on_allow, "cookie"));
    assert!(!is_listed(&check.upstream_on_allow, "x-users"));
}

#[test]
fn every_mistake_is_named() {
    let http = |more: &str| format!("{{name: a, envoyExtAuthzHttp: {{service: a.b, port: 80, {more}}}}}");
    let rows = [
        ("{envoyExtAuthzGrpc: {service: a.b, port: 1}}".to_owned(), "name: is missing"),
        ("{name: A_B, envoyExtAuthzGrpc: {service: a.b, port: 1}}".to_owned(), "name: a provider's name"),
        ("{name: a}".to_owned(), "provider: needs one of"),
        ("{name: a, envoyExtAuthzGrpc: {}, envoyExtAuthzHttp: {}}".to_owned(), "provider: needs one of"),
        ("{name: a, envoyExtAuthzGrpc: {port: 1}}".to_owned(), "envoyExtAuthzGrpc.service: is missing"),
        (
            "{name: a, envoyExtAuthzGrpc: {service: '*.b', port: 1}}".to_owned(),
            "envoyExtAuthzGrpc.service: a service",
        ),
        (
            "{name: a, envoyExtAuthzGrpc: {service: a/b/c, port: 1}}".to_owned(),
            "envoyExtAuthzGrpc.service: a service",
        ),
        ("{name: a, envoyExtAuthzGrpc: {service: a.b}}".to_owned(), "envoyExtAuthzGrpc.port: is no port"),
        (
            "{name: a, envoyExtAuthzGrpc: {service: a.b, port: 65536}}".to_owned(),
            "envoyExtAuthzGrpc.port: is no port",
        ),
        (http("timeout: 600s"), "envoyExtAuthzHttp.timeout: is no duration"),
        (http("timeout: 0s"), "envoyExtAuthzHttp.timeout: is no duration"),
        (http("timeout: soon"), "envoyExtAuthzHttp.timeout: is no duration"),
        (http("pathPrefix: check"), "envoyExtAuthzHttp.pathPrefix: is no path"),
        (http("pathPrefix: '/a?b'"), "envoyExtAuthzHttp.pathPrefix: is no path"),
        (http("statusOnError: '200'"), "envoyExtAuthzHttp.statusOnError: is no status"),
        (http("statusOnError: forbidden"), "envoyExtAuthzHttp.statusOnError: is no status"),
        (
            http("includeRequestBodyInCheck: {maxRequestBytes: 1}"),
            "envoyExtAuthzHttp.includeRequestBodyInCheck: is not",
        ),
        (
            http("headersToUpstreamOnAllow: ['*']"),
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[0]: is no header name",
        ),
        (
            http("headersToUpstreamOnAllow: [a, 'b*c']"),
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[1]: is no header",
        ),
        (
            http("includeAdditionalHeadersInCheck: {Host: x}"),
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck[Host]: is a",
        ),
        (
            http("includeAdditionalHeadersInCheck: {x-ambit-a: x}"),
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck[x-ambit-a]",
        ),
        (
            http(r#"includeAdditionalHeadersInCheck: {x: "a\nb"}"#),
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck[x]: is no header value",
        ),
    ];
    for (yaml, want) in rows {
        let said = read(&yaml).expect_err(&yaml);
        assert_eq!(said.len(), 1, "{yaml}: {said:?}");
        assert!(said[0].starts_with(want), "{yaml}: {said:?} instead of {want}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("x{n}")).collect();
    let said = read(&http(&format!("headersToUpstreamOnAllow: [{}]", many.join(", ")))).unwrap_err();
    assert_eq!(said, ["envoyExtAuthzHttp.headersToUpstreamOnAllow: has 65 elements, more than 64"]);
}
