//! One framing at most, and none where there can be no body.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::fault;

fn judged(status: u16, lines: &[(&'static str, &'static str)]) -> Option<&'static str> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    fault(StatusCode::from_u16(status).unwrap(), &headers)
}

#[test]
fn one_framing_at_most_and_none_without_a_body() {
    let (length, coding) = ("content-length", "transfer-encoding");
    let sound: &[(u16, &[(&'static str, &'static str)])] = &[
        (200, &[]),
        (200, &[(length, "5")]),
        (200, &[(coding, "chunked")]),
        (200, &[(coding, "Chunked")]),
        (204, &[]),
        (204, &[(length, "0")]),
        (304, &[(length, "5")]),
        (304, &[(coding, "chunked")]),
    ];
    for (status, lines) in sound {
        assert_eq!(judged(*status, lines), None, "row {status} {lines:?}");
    }
    let wrong: &[(u16, &[(&'static str, &'static str)])] = &[
        (200, &[(length, "5"), (coding, "chunked")]),
        (200, &[(coding, "chunked"), (length, "0")]),
        (200, &[(length, "5"), (length, "5")]),
        (200, &[(coding, "gzip, chunked")]),
        (200, &[(coding, "identity")]),
        (200, &[(coding, "chunked"), (coding, "chunked")]),
        (204, &[(length, "5")]),
        (204, &[(coding, "chunked")]),
        (304, &[(length, "5"), (coding, "chunked")]),
    ];
    for (status, lines) in wrong {
        assert!(judged(*status, lines).is_some(), "row {status} {lines:?}");
    }
}
