//! Resources of a waypoint: what is written is read back, what is malformed is refused by field, no bytes panic.

mod policies;
mod providers;
mod refused;
mod routes;

use proptest::prelude::*;
use prost::Message;

use crate::any::Any;
use crate::codec::{
    DESTINATION, EXTENSION_PROVIDER, FRONTEND, HTTP_POLICY, Notes, REQUEST_AUTHENTICATION, destination,
    frontend, http_policy, provider, request_authentication,
};

/// Reads bytes as each of the five resources; what is read is written and read back.
fn read_as_all(bytes: &[u8]) {
    let any = |name: &str| Any { type_url: name.into(), value: bytes.to_vec().into() };
    let notes = &mut Notes::default();
    if let Ok(read) = frontend::decode_any(&any(FRONTEND), notes) {
        assert_eq!(frontend::decode_any(&frontend::encode_any(&read), &mut Notes::default()), Ok(read));
    }
    if let Ok(read) = destination::decode_any(&any(DESTINATION), notes) {
        assert_eq!(destination::decode_any(&destination::encode_any(&read), &mut Notes::default()), Ok(read));
    }
    if let Ok(read) = http_policy::decode_any(&any(HTTP_POLICY)) {
        assert_eq!(http_policy::decode_any(&http_policy::encode_any(&read)), Ok(read));
    }
    if let Ok(read) = request_authentication::decode_any(&any(REQUEST_AUTHENTICATION)) {
        assert_eq!(request_authentication::decode_any(&request_authentication::encode_any(&read)), Ok(read));
    }
    if let Ok(read) = provider::decode_any(&any(EXTENSION_PROVIDER)) {
        assert_eq!(provider::decode_any(&provider::encode_any(&read)), Ok(read));
    }
    let _ = http_policy::targets_hint(&any(HTTP_POLICY));
    let _ = request_authentication::targets_hint(&any(REQUEST_AUTHENTICATION));
}

/// Valid bytes of one of the five resources.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        routes::frontends().prop_map(|one| frontend::encode(&one).encode_to_vec()),
        routes::destinations().prop_map(|one| destination::encode(&one).encode_to_vec()),
        policies::policies().prop_map(|one| http_policy::encode(&one).encode_to_vec()),
        policies::authentications().prop_map(|one| request_authentication::encode(&one).encode_to_vec()),
        providers::providers().prop_map(|one| provider::encode(&one).encode_to_vec()),
    ]
}

proptest! {
    #[test]
    fn a_frontend_is_read_back(one in routes::frontends()) {
        let mut notes = Notes::default();
        prop_assert_eq!(frontend::decode_any(&frontend::encode_any(&one), &mut notes), Ok(one));
        prop_assert!(notes.is_empty());
    }

    #[test]
    fn a_provider_is_read_back(one in providers::providers()) {
        prop_assert_eq!(provider::decode_any(&provider::encode_any(&one)), Ok(one));
    }

    #[test]
    fn a_destination_is_read_back(one in routes::destinations()) {
        let mut notes = Notes::default();
        prop_assert_eq!(destination::decode_any(&destination::encode_any(&one), &mut notes), Ok(one));
        prop_assert!(notes.is_empty());
    }

    #[test]
    fn a_policy_is_read_back(one in policies::policies()) {
        let any = http_policy::encode_any(&one);
        prop_assert_eq!(http_policy::targets_hint(&any), Some(one.targets.clone()));
        prop_assert_eq!(http_policy::decode_any(&any), Ok(one));
    }

    #[test]
    fn rules_for_tokens_are_read_back(one in policies::authentications()) {
        let any = request_authentication::encode_any(&one);
        prop_assert_eq!(request_authentication::targets_hint(&any), Some(one.targets.clone()));
        prop_assert_eq!(request_authentication::decode_any(&any), Ok(one));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_as_all(&bytes);
    }

    #[test]
    fn no_altered_bytes_panic(
        mut bytes in valid(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        end in any::<proptest::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if is_cut && !bytes.is_empty() {
            bytes.truncate(end.index(bytes.len()));
        }
        read_as_all(&bytes);
    }
}
