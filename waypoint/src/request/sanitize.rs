//! What a client may send on: headers of one hop taken off, headers only the mesh sets taken off, contradictions
//! refused. Pure.
//!
//! Framing has been judged before ([`super::framing`]), the target is judged afterwards by `ambit-policy`.

use ambit_policy::normalize::header::is_internal;
use ambit_types::{Identity, Reason};
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use super::answer::Refusal;

/// Bytes that trailers may have.
const TRAILER_BYTES_MAX: usize = 4096;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields that trailers must not have, because they frame, route or authorise (RFC 9110 section 6.5.1).
static NOT_IN_TRAILERS: [&str; 26] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Fields that frame a message or belong to one hop: nobody who is asked about a request may set them in an answer.
static NOT_TOLD: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a request wants besides an answer.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Another protocol on this connection.
    pub(super) upgrade: Option<HeaderValue>,
    /// Trailers are welcome.
    pub(super) trailers: bool,
}

fn refused(detail: &'static str) -> Refusal {
    Refusal::new(400, Some(Reason::RequestAmbiguous), detail)
}

/// Judges a head as it came.
///
/// # Errors
/// The answer to a request that says two things at once.
pub(super) fn check(parts: &Parts, has_body: bool, fields_max: usize) -> Result<Wishes, Refusal> {
    let headers = &parts.headers;
    if headers.len() > fields_max {
        return Err(Refusal::new(431, Some(Reason::RequestAmbiguous), "too many header fields"));
    }
    check_framing(parts)?;
    if !matches!(parts.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(refused("a version that is not served"));
    }
    // Also where the target names one (RFC 9112 section 3.2): who is behind us may look at Host alone.
    if parts.version == Version::HTTP_11 && !headers.contains_key(HOST) {
        return Err(refused("no host"));
    }
    let mut expectations = headers.get_all(EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::new(417, Some(Reason::RequestAmbiguous), "an expectation that nobody can meet"));
    }
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(refused("a target for OPTIONS only"));
    }
    let trailers = names(headers, &TE).any(|name| name.eq_ignore_ascii_case(b"trailers"));
    let upgrade = upgrade(parts)?;
    if upgrade.is_some() && has_body {
        return Err(refused("an upgrade with a body"));
    }
    Ok(Wishes { upgrade, trailers })
}

fn check_framing(parts: &Parts) -> Result<(), Refusal> {
    let headers = &parts.headers;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !is_plain || headers.contains_key(CONTENT_LENGTH) {
            return Err(refused("transfer codings other than chunked"));
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !digits || lengths.next().is_some() {
            return Err(refused("a length that is none"));
        }
    }
    Ok(())
}

/// The protocol asked for on this connection. An offer of HTTP/2 is not taken up, which is no error.
fn upgrade(parts: &Parts) -> Result<Option<HeaderValue>, Refusal> {
    let asks = names(&parts.headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = parts.headers.get_all(UPGRADE).iter();
    let Some(protocol) = protocols.next() else { return Ok(None) };
    if parts.version != Version::HTTP_11 || !asks || protocol.as_bytes().eq_ignore_ascii_case(b"h2c") {
        return Ok(None);
    }
    if protocols.next().is_some() || protocol.as_bytes().contains(&b',') {
        return Err(refused("several protocols to upgrade to"));
    }
    Ok(Some(protocol.clone()))
}

/// Elements of a list of names.
fn names<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
}

/// Takes off what must not go on: headers of this hop, those that only the mesh sets, and names that some servers
/// read as others. What is wished for and was accepted stays to be seen by policies and routes.
pub(super) fn clean(headers: &mut HeaderMap, wishes: &Wishes) {
    drop_hop_by_hop(headers);
    if let Some(protocol) = &wishes.upgrade {
        headers.insert(UPGRADE, protocol.clone());
    }
    if wishes.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for name in [&HOST, &EXPECT, &HTTP2_SETTINGS, &PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    drop_foreign(headers);
    join_cookies(headers);
}

/// Puts a cookie that came in crumbs on one line, as HTTP/1.1 has it (RFC 9113 section 8.2.3): policies then read what
/// the endpoint reads.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).collect();
    // Sound values joined by what may stand in one are one.
    if let Ok(whole) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// Takes off headers that only the mesh sets, and names that some servers read as others.
pub(super) fn drop_foreign(headers: &mut HeaderMap) {
    let is_foreign = |name: &HeaderName| is_internal(name.as_str()) || name.as_str().contains('_');
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| is_foreign(name)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

/// Whether an answer of ours may have such a header because somebody who was asked about the request wants it.
pub(super) fn may_be_told(name: &HeaderName) -> bool {
    !name.as_str().starts_with("x-ambit-") && !NOT_TOLD.contains(&name.as_str())
}

/// Takes off the headers of one hop, those that Connection names too.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> =
            names(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

/// Takes off of a response what must not come down.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove("x-ambit-reason");
}

/// Adds what an endpoint is told: who calls, from where, and under which id.
pub(super) fn add(
    headers: &mut HeaderMap,
    wishes: &Wishes,
    (client, own, from): (&Identity, &Identity, std::net::IpAddr),
    new_id: impl FnOnce() -> String,
) {
    headers.remove(TE);
    headers.remove(UPGRADE);
    if let Some(protocol) = &wishes.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    } else if wishes.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Ok(value) = HeaderValue::from_str(&format!("By={own};URI={client}")) {
        headers.insert(&CLIENT_CERT, value);
    }
    // On one line, so that nobody behind us takes one of several for all.
    let mut chain = String::new();
    for line in headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(line);
        chain.push_str(", ");
    }
    chain.push_str(&from.to_string());
    if let Ok(value) = HeaderValue::from_str(&chain) {
        headers.insert(&FORWARDED_FOR, value);
    }
    headers.insert(&FORWARDED_PROTO, HeaderValue::from_static("http"));
    if !headers.get(&REQUEST_ID).is_some_and(is_id)
        && let Ok(value) = HeaderValue::from_str(&new_id())
    {
        headers.insert(&REQUEST_ID, value);
    }
}

/// Whether a client's id can stand in records: letters, digits and dashes, as a UUID has.
fn is_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (16..=64).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Takes off of a request's trailers what must not come so late, and what no request may have; all of them if nobody
/// wants them, or they are too long.
pub(super) fn clean_trailers(trailers: &mut HeaderMap, are_wanted: bool) {
    clean_response_trailers(trailers, are_wanted);
    drop_foreign(trailers);
}

/// The same of a response's. Names with an underscore stay: gRPC's may have one, and nobody takes a response's for
/// another.
pub(super) fn clean_response_trailers(trailers: &mut HeaderMap, are_wanted: bool) {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if !are_wanted || bytes > TRAILER_BYTES_MAX {
        return trailers.clear();
    }
    for name in NOT_IN_TRAILERS {
        trailers.remove(name);
    }
    let foreign: Vec<HeaderName> =
        trailers.keys().filter(|name| is_internal(name.as_str())).cloned().collect();
    for name in foreign {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

    use super::{Wishes, check, clean, clean_response_trailers, clean_trailers};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut all = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            all.append(name, value);
        }
        all
    }

    #[test]
    fn only_what_may_go_on_is_left() {
        let mut all = headers(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("x-envoy-original-path", "/admin"),
            ("x-ambit-client", "me"),
            ("x-forwarded-client-cert", "By=x"),
            ("x_user", "root"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
            ("cookie", "a=b"),
        ]);
        clean(&mut all, &Wishes::default());
        let mut left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie"]);
    }

    #[test]
    fn a_cookie_in_crumbs_is_one() {
        let mut all =
            headers(&[("cookie", "a=b"), ("accept", "*/*"), ("cookie", "c=d; e=f"), ("cookie", "g")]);
        clean(&mut all, &Wishes::default());
        assert_eq!(all, headers(&[("accept", "*/*"), ("cookie", "a=b; c=d; e=f; g")]));
    }

    #[test]
    fn a_request_of_http11_names_its_host() {
        let of = |version: Version, lines: &[(&'static str, &'static str)]| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            *request.uri_mut() = "http://web.shop/".parse().unwrap();
            *request.headers_mut() = headers(lines);
            check(&request.into_parts().0, false, 100).err().map(|refusal| refusal.status)
        };
        assert_eq!(of(Version::HTTP_11, &[]), Some(400));
        assert_eq!(of(Version::HTTP_11, &[("host", "web.shop")]), None);
        assert_eq!(of(Version::HTTP_2, &[]), None);
    }

    #[test]
    fn what_was_accepted_stays_to_be_judged() {
        let lines =
            [("connection", "upgrade, x"), ("upgrade", "websocket"), ("te", "trailers, gzip"), ("x", "1")];
        let mut request = Request::new(());
        *request.headers_mut() = headers(&lines);
        request.headers_mut().insert("host", HeaderValue::from_static("web.shop"));
        let (mut parts, ()) = request.into_parts();
        let wishes = check(&parts, false, 100).unwrap();
        clean(&mut parts.headers, &wishes);
        assert_eq!(parts.headers, headers(&[("upgrade", "websocket"), ("te", "trailers")]));
        // One that is not taken up goes nowhere, and nobody has to judge it.
        let mut declined = headers(&[("connection", "upgrade"), ("upgrade", "h2c"), ("te", "gzip")]);
        clean(&mut declined, &Wishes::default());
        assert!(declined.is_empty(), "{declined:?}");
    }

    #[test]
    fn contradictions_are_refused() {
        for (lines, has_body, want) in [
            (&[("content-length", "5")][..], true, None),
            (&[("transfer-encoding", "chunked")], true, None),
            (&[("transfer-encoding", "gzip, chunked")], true, Some(400)),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], true, Some(400)),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], true, Some(400)),
            (&[("content-length", "5"), ("content-length", "5")], true, Some(400)),
            (&[("content-length", "+5")], true, Some(400)),
            (&[("expect", "100-continue")], true, None),
            (&[("expect", "the-unexpected")], true, Some(417)),
            (&[("connection", "upgrade"), ("upgrade", "websocket")], false, None),
            (&[("connection", "upgrade"), ("upgrade", "websocket")], true, Some(400)),
            (&[("connection", "upgrade"), ("upgrade", "a, b")], false, Some(400)),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], true, None),
        ] {
            let mut request = Request::new(());
            *request.headers_mut() = headers(lines);
            request.headers_mut().insert("host", HeaderValue::from_static("web.shop"));
            let refused = check(&request.into_parts().0, has_body, 100).err();
            assert_eq!(refused.map(|refusal| refusal.status), want, "row {lines:?}");
        }
    }

    #[test]
    fn trailers_neither_frame_nor_authorise() {
        let mut all = headers(&[("grpc-status", "0"), ("content-length", "1"), ("authorization", "x")]);
        clean_trailers(&mut all, true);
        assert_eq!(all.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
        clean_trailers(&mut all, false);
        assert!(all.is_empty());
        let late = [
            ("x-checksum", "1"),
            ("x_user", "root"),
            ("proxy-authorization", "x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-ambit-client", "me"),
            ("trailer", "x"),
        ];
        let mut all = headers(&late);
        clean_trailers(&mut all, true);
        assert_eq!(all, headers(&[("x-checksum", "1")]));
        let mut all = headers(&late);
        clean_response_trailers(&mut all, true);
        assert_eq!(all, headers(&[("x-checksum", "1"), ("x_user", "root")]));
    }
}
