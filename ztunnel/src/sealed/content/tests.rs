//! Content is read whole and fresh or not at all, and never shows a key.

use ambit_xds::Kind;
use proptest::prelude::*;

use super::*;

fn response(kind: Kind) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: kind.url().to_owned(), ..DeltaDiscoveryResponse::default() }
}

fn content(responses: Vec<DeltaDiscoveryResponse>) -> Content {
    Content { heard_at: 1000, responses, credentials: vec![credential().into()] }
}

fn credential() -> Exported {
    Exported {
        identity: Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
        chain: vec![vec![1], vec![2]],
        roots: vec![vec![3]],
        key: Zeroizing::new(b"very secret".to_vec()),
    }
}

fn read(content: &Content, now: u64) -> Result<Content, Refused> {
    Content::read(Zeroizing::new(content.encode_to_vec()), now, 60)
}

#[test]
fn a_state_may_be_as_old_as_the_setting_says() {
    let whole = content(Kind::ALL.map(response).to_vec());
    let rows = [
        ("at once", 1000, Ok(())),
        ("a clock set back", 10, Ok(())),
        ("the last second", 1060, Ok(())),
        ("one more", 1061, Err(Refused::TooOld { age: 61, max: 60 })),
        ("the end of time", u64::MAX, Err(Refused::TooOld { age: u64::MAX - 1000, max: 60 })),
    ];
    for (row, now, want) in rows {
        let read = read(&whole, now);
        assert_eq!(read.as_ref().map(drop).map_err(Clone::clone), want, "row {row}");
        if let Ok(read) = read {
            assert_eq!(read, whole, "row {row}");
        }
    }
}

#[test]
fn half_a_state_is_none() {
    for (kind, missing) in [(Kind::Address, "Authorization"), (Kind::Authorization, "Address")] {
        let error = read(&content(vec![response(kind)]), 1000).unwrap_err();
        assert_eq!(error.to_string(), format!("its content cannot be read: nothing is said of {missing}"));
    }
}

#[test]
fn a_credential_comes_back_as_it_went() {
    let whole = content(Kind::ALL.map(response).to_vec());
    let mut back = read(&whole, 1000).unwrap();
    let (back, want) = (back.credentials.remove(0).exported().unwrap(), credential());
    assert_eq!(
        (back.identity, back.chain, back.roots),
        (want.identity.clone(), want.chain.clone(), want.roots.clone())
    );
    assert_eq!(*back.key, *want.key);
}

#[test]
fn keys_are_not_shown() {
    let kept: KeptCredential = credential().into();
    let key = format!("{:?}", &**credential().key);
    for shown in [format!("{kept:?}"), format!("{:?}", content(Vec::new())), format!("{:?}", credential())] {
        assert!(!shown.contains("secret") && !shown.contains(&key), "{shown}");
    }
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Content::read(Zeroizing::new(bytes), 0, u64::MAX).is_err());
    }
}
