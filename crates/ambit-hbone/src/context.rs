//! What a waypoint says on the CONNECT towards an endpoint: on whose behalf it calls, and that it was there.
//!
//! Neither is ever a header of a user's request. The destination believes [`CLIENT`] only from an identity that is a
//! waypoint of the workload asked for; from anybody else it is a forgery. [`HOP`] keeps a second waypoint from
//! taking over what one has sent on.

use ambit_types::{Identity, IdentityError};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The caller's identity, as a SPIFFE URI.
pub static CLIENT: HeaderName = HeaderName::from_static("x-ambit-client");

/// The identity of the waypoint that sent the request on.
pub static HOP: HeaderName = HeaderName::from_static("x-ambit-hop");

/// Adds both to a tunnel request.
pub fn add(headers: &mut HeaderMap, client: Option<&Identity>, waypoint: &Identity) {
    let parts = [(&CLIENT, client), (&HOP, Some(waypoint))];
    for (name, identity) in parts {
        // An identity is ASCII without control characters, so it can always be written.
        let value = identity.and_then(|identity| HeaderValue::from_str(&identity.to_string()).ok());
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Whether a waypoint has sent this request on already.
pub fn has_passed_a_waypoint(headers: &HeaderMap) -> bool {
    headers.contains_key(&HOP)
}

/// The caller that the peer asserts; none if it asserts none.
///
/// # Errors
/// [`IdentityError`] if there is something else than one identity.
pub fn client(headers: &HeaderMap) -> Result<Option<Identity>, IdentityError> {
    let mut lines = headers.get_all(&CLIENT).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = lines.next().map_or_else(|| line.to_str().unwrap_or_default(), |_| "");
    Identity::parse(text).map(Some)
}

#[cfg(test)]
mod tests {
    use ambit_types::Identity;
    use http::{HeaderMap, HeaderValue};

    use super::{CLIENT, add, client, has_passed_a_waypoint};

    #[test]
    fn what_is_said_is_read_back_and_two_callers_are_none() {
        let caller = Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        let waypoint = Identity::parse("spiffe://cluster.local/ns/shop/sa/waypoint").unwrap();
        let mut headers = HeaderMap::new();
        assert!(!has_passed_a_waypoint(&headers));
        assert_eq!(client(&headers), Ok(None));
        add(&mut headers, Some(&caller), &waypoint);
        assert!(has_passed_a_waypoint(&headers));
        assert_eq!(client(&headers), Ok(Some(caller)));
        headers.append(&CLIENT, HeaderValue::from_static("spiffe://cluster.local/ns/a/sa/b"));
        assert!(client(&headers).is_err());
    }
}
