//! Rows of identities that are and are not.

use super::{Identity, IdentityError};

#[test]
fn identities_are_read_strictly() {
    let long = format!("spiffe://td/ns/{}/sa/b", "a".repeat(2048));
    let rows = [
        ("spiffe://cluster.local/ns/shop/sa/cart", Ok(())),
        ("spiffe://td/ns/a/sa/b.c", Ok(())),
        ("SPIFFE://td/ns/a/sa/b", Err("scheme")),
        ("https://td/ns/a/sa/b", Err("scheme")),
        ("spiffe://TD/ns/a/sa/b", Err("domain")),
        ("spiffe:///ns/a/sa/b", Err("domain")),
        ("spiffe://user@td/ns/a/sa/b", Err("domain")),
        ("spiffe://td:1/ns/a/sa/b", Err("domain")),
        ("spiffe://td", Err("path")),
        ("spiffe://td/", Err("path")),
        ("spiffe://td/ns/a/sa/b/", Err("path")),
        ("spiffe://td/ns/a/sa/b/c", Err("path")),
        ("spiffe://td/ns//sa/b", Err("path")),
        ("spiffe://td/ns/../sa/b", Err("path")),
        ("spiffe://td/ns/a/sa/b?x", Err("path")),
        ("spiffe://td/ns/a/sa/b#x", Err("path")),
        ("spiffe://td/ns/a/sa/%62", Err("path")),
        ("spiffe://td/ns/a\0/sa/b", Err("path")),
        ("spiffe://td/ns/a/sa/B", Err("path")),
        ("spiffe://td/ns/*/sa/b", Err("path")),
        (long.as_str(), Err("long")),
    ];
    for (uri, want) in rows {
        let got = Identity::parse(uri).map(|id| assert_eq!(id.to_string(), uri)).map_err(|e| match e {
            IdentityError::Scheme { .. } => "scheme",
            IdentityError::TrustDomain { .. } => "domain",
            IdentityError::Path { .. } => "path",
            IdentityError::TooLong { .. } => "long",
        });
        assert_eq!(got, want, "row {uri:?}");
    }
}

#[test]
fn principal_has_no_scheme() {
    let id = Identity::parse("spiffe://td/ns/a/sa/b").unwrap();
    assert_eq!(id.principal(), "td/ns/a/sa/b");
}
