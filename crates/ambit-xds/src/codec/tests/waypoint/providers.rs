//! Providers as random values, and what is refused of them by field.

use std::time::Duration;

use ambit_policy::http::provider::{Address, Check, HeaderName, HttpCheck, Provider, StringMatch};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::codec::provider::{decode, encode};
use crate::proto::ambit::waypoint::v1 as wire;

fn names() -> impl Strategy<Value = Vec<StringMatch>> {
    let name = ("[a-z][a-z0-9-]{0,8}", 0..3u8).prop_map(|(name, kind)| match kind {
        0 => StringMatch::Exact(name.into()),
        1 => StringMatch::Prefix(name.into()),
        _ => StringMatch::Suffix(name.into()),
    });
    vec(name, 0..3)
}

fn check() -> impl Strategy<Value = Check> {
    let header = "y-[a-z]{1,4}".prop_map(|name| HeaderName::parse(&name).expect("a name"));
    let additional = btree_map(header, "[ -~]{0,8}".prop_map(Into::into), 0..3);
    let http =
        (prop_oneof![Just(""), Just("/p"), Just("/a/b")], names(), additional, names(), names(), names());
    let http = http.prop_map(|(prefix, request_headers, additional_headers, up, yes, no)| {
        Check::Http(HttpCheck {
            path_prefix: prefix.into(),
            request_headers,
            additional_headers,
            upstream_on_allow: up,
            downstream_on_allow: yes,
            downstream_on_deny: no,
        })
    });
    prop_oneof![1 => Just(Check::Grpc), 3 => http]
}

pub(super) fn providers() -> impl Strategy<Value = Provider> {
    let service = (option::of("[a-z]{1,4}"), "[a-z]{1,4}\\.[a-z]{1,4}");
    let times = (1u64..=10_000).prop_map(Duration::from_millis);
    ("[a-z]{1,8}", service, 1..=u16::MAX, times, any::<bool>(), 400..600u16, check()).prop_map(
        |(name, (namespace, hostname), port, timeout, fail_open, status_on_error, check)| Provider {
            name: name.into(),
            service: Address { namespace: namespace.map(Into::into), hostname: hostname.into() },
            port,
            timeout,
            fail_open,
            status_on_error,
            check,
        },
    )
}

#[test]
fn what_is_malformed_is_refused_by_field() {
    let good = || {
        encode(&Provider {
            name: "opa".into(),
            service: Address { namespace: None, hostname: "opa.iam".into() },
            port: 9191,
            timeout: Duration::from_secs(1),
            fail_open: false,
            status_on_error: 403,
            check: Check::Grpc,
        })
    };
    assert!(decode(&good()).is_ok());
    let http = |check: wire::HttpCheck| Some(wire::extension_provider::Check::Http(check));
    let rows = [
        ("name: is missing", wire::ExtensionProvider { name: String::new(), ..good() }),
        ("envoyExtAuthzGrpc.service: ", wire::ExtensionProvider { hostname: "*.iam".into(), ..good() }),
        ("envoyExtAuthzGrpc.port: ", wire::ExtensionProvider { port: 65_536, ..good() }),
        ("timeout_nanos: ", wire::ExtensionProvider { timeout_nanos: 0, ..good() }),
        ("timeout_nanos: ", wire::ExtensionProvider { timeout_nanos: 11_000_000_000, ..good() }),
        ("status_on_error: ", wire::ExtensionProvider { status_on_error: 200, ..good() }),
        ("check: is missing", wire::ExtensionProvider { check: None, ..good() }),
        ("needs: ", wire::ExtensionProvider { needs: vec!["body".into()], ..good() }),
        (
            "envoyExtAuthzHttp.pathPrefix: ",
            wire::ExtensionProvider {
                check: http(wire::HttpCheck { path_prefix: "x".into(), ..Default::default() }),
                ..good()
            },
        ),
        (
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[0]: ",
            wire::ExtensionProvider {
                check: http(wire::HttpCheck { upstream_on_allow: vec!["*".into()], ..Default::default() }),
                ..good()
            },
        ),
    ];
    for (want, message) in rows {
        let said = decode(&message).expect_err(want).to_string();
        assert!(said.starts_with(want), "{said} instead of {want}");
    }
}
