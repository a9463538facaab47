//! Which service an address or a host name means.

use ambit_types::Network;

use crate::testing::world;

#[track_caller]
fn check(text: &str, rows: &[(&str, &str, &str)]) {
    let snapshot = world(text).snapshot();
    for (ip, client, want) in rows {
        let found = snapshot.service_at(&Network::default(), ip.parse().unwrap(), client);
        let found = found
            .map_or_else(|| "-".to_owned(), |e| format!("{}/{}", e.service().namespace, e.service().name));
        assert_eq!(found, *want, "{ip} for {client}");
    }
}

#[test]
fn of_several_services_at_an_address_the_own_namespace_then_the_canonical_wins() {
    check(
        "svc b/x.example 10.7.0.1 ports=80 canonical
         svc a/x.example 10.7.0.1 ports=80
         svc c/x.example 10.7.0.1 ports=80",
        &[("10.7.0.1", "c", "c/x.example"), ("10.7.0.1", "z", "b/x.example"), ("10.7.0.2", "z", "-")],
    );
    check(
        "svc b/x.example 10.7.0.1 ports=80
         svc a/x.example 10.7.0.1 ports=80",
        &[("10.7.0.1", "z", "a/x.example")],
    );
}

#[test]
fn a_private_service_is_seen_from_its_namespace_only() {
    check(
        "svc a/x.example 10.7.0.1 ports=80 private canonical
         svc b/y.example 10.7.0.1 ports=80
         svc a/z.example 10.7.0.2 range=10.8.0.0/16 ports=80 private",
        &[
            ("10.7.0.1", "a", "a/x.example"),
            ("10.7.0.1", "b", "b/y.example"),
            ("10.7.0.1", "z", "b/y.example"),
            ("10.7.0.2", "z", "-"),
            ("10.8.1.1", "a", "a/z.example"),
            ("10.8.1.1", "z", "-"),
        ],
    );
}

#[test]
fn an_exact_address_beats_any_range_and_own_namespace_beats_length() {
    check(
        "svc a/exact.example 10.8.0.5 ports=80
         svc b/wide.example range=10.0.0.0/8 ports=80
         svc c/narrow.example range=10.8.0.0/24 ports=80
         svc d/same.example range=10.8.0.0/24 ports=80 canonical",
        &[
            ("10.8.0.5", "b", "a/exact.example"),
            ("10.8.0.6", "b", "b/wide.example"),
            ("10.8.0.6", "c", "c/narrow.example"),
            ("10.8.0.6", "z", "d/same.example"),
            ("10.8.1.6", "z", "b/wide.example"),
            ("11.0.0.1", "z", "-"),
        ],
    );
    check(
        "svc a/six.example range=2001:db8::/32 ports=80
         svc a/six-narrow.example range=2001:db8:1::/48 ports=80
         svc a/all.example range=0.0.0.0/0 ports=80",
        &[
            ("2001:db8:1::1", "z", "a/six-narrow.example"),
            ("2001:db8:2::1", "z", "a/six.example"),
            ("2001:db9::1", "z", "-"),
            ("192.0.2.1", "z", "a/all.example"),
        ],
    );
    // Host bits in a range are nobody's business.
    check("svc a/loose.example range=10.8.0.77/24 ports=80", &[("10.8.0.1", "z", "a/loose.example")]);
}

#[test]
fn a_host_name_means_the_service_of_the_own_namespace_then_the_canonical_one() {
    let snapshot = world(
        "svc a/x.example ports=80
         svc b/x.example ports=80 canonical
         svc c/x.example ports=80 private",
    )
    .snapshot();
    let found = |client: &str| {
        snapshot.service_by_host("x.example", client).map(|e| e.service().namespace.to_string())
    };
    assert_eq!(found("a").as_deref(), Some("a"));
    assert_eq!(found("c").as_deref(), Some("c"));
    assert_eq!(found("z").as_deref(), Some("b"));
    assert!(snapshot.service_by_host("y.example", "a").is_none());
}
