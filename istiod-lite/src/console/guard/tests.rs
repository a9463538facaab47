//! Who is answered and who is not.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Guard;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
    let each = rows.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header of the test"))
    });
    each.collect()
}

fn check(guard: &Guard, method: &Method, rows: &[(&'static str, &str)], is_data: bool) -> StatusCode {
    guard.check(method, &headers(rows), is_data).map_or_else(|(status, _)| status, |()| StatusCode::OK)
}

#[test]
fn on_one_machine_only_its_own_names_and_pages_are_answered() {
    let guard = Guard::new(None);
    let local = ("host", "127.0.0.1:7070");
    let rows: &[(&[(&'static str, &str)], StatusCode)] = &[
        (&[local], StatusCode::OK),
        (&[("host", "localhost:7070")], StatusCode::OK),
        (&[("host", "LOCALHOST")], StatusCode::OK),
        (&[("host", "[::1]:7070")], StatusCode::OK),
        (&[("host", "[::1]")], StatusCode::OK),
        (&[], StatusCode::MISDIRECTED_REQUEST),
        (&[("host", "evil.example:7070")], StatusCode::MISDIRECTED_REQUEST),
        (&[("host", "localhost.evil.example")], StatusCode::MISDIRECTED_REQUEST),
        (&[("host", "127.0.0.1.evil.example:7070")], StatusCode::MISDIRECTED_REQUEST),
        (&[("host", "10.0.0.1:7070")], StatusCode::MISDIRECTED_REQUEST),
        (&[local, ("origin", "http://127.0.0.1:7070")], StatusCode::OK),
        (&[local, ("origin", "http://127.0.0.1:8080")], StatusCode::FORBIDDEN),
        (&[local, ("origin", "https://evil.example")], StatusCode::FORBIDDEN),
        (&[local, ("origin", "null")], StatusCode::FORBIDDEN),
        (&[local, ("sec-fetch-site", "same-origin")], StatusCode::OK),
        (&[local, ("sec-fetch-site", "none")], StatusCode::OK),
        (&[local, ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (&[local, ("sec-fetch-site", "same-site")], StatusCode::FORBIDDEN),
    ];
    for (row, status) in rows {
        assert_eq!(check(&guard, &Method::GET, row, true), *status, "{row:?}");
    }
}

#[test]
fn questions_carry_what_no_foreign_page_can_send() {
    let guard = Guard::new(None);
    let local = ("host", "localhost");
    assert_eq!(check(&guard, &Method::POST, &[local], true), StatusCode::FORBIDDEN);
    assert_eq!(check(&guard, &Method::POST, &[local, ("x-ambit-console", "1")], true), StatusCode::OK);
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let status = check(&guard, &method, &[local, ("x-ambit-console", "1")], true);
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[test]
fn data_is_for_those_with_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let guard = Guard::new(Some(path.clone()));
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {}", TOKEN.replace('0', "1"));
    let host = ("host", "console.example");
    let ask = |given: Option<&str>, is_data| {
        let rows: Vec<_> = [host].into_iter().chain(given.map(|given| ("authorization", given))).collect();
        check(&guard, &Method::GET, &rows, is_data)
    };
    assert_eq!(ask(None, false), StatusCode::OK, "the bundle is no secret");
    assert_eq!(ask(None, true), StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Some(&right), true), StatusCode::OK);
    for given in [&*wrong, TOKEN, "Bearer ", "Basic eA==", &right[..right.len() - 1]] {
        assert_eq!(ask(Some(given), true), StatusCode::UNAUTHORIZED, "{given}");
    }
    let through =
        |rows: &[(&'static str, &str)]| check(&guard, &Method::GET, &[&[host], rows].concat(), true);
    let header = "x-ambit-console-token";
    assert_eq!(through(&[(header, TOKEN)]), StatusCode::OK, "an API server takes `Authorization` out");
    for given in [&wrong["Bearer ".len()..], &TOKEN[1..], "", &*right] {
        assert_eq!(through(&[(header, given)]), StatusCode::UNAUTHORIZED, "{given:?}");
    }
    let both = [("authorization", &*wrong), (header, TOKEN)];
    assert_eq!(
        through(&both),
        StatusCode::UNAUTHORIZED,
        "wrong credentials are not mended by another header"
    );
    std::fs::write(&path, "").unwrap();
    assert_eq!(through(&[(header, "")]), StatusCode::UNAUTHORIZED, "an empty file lets nobody in");
    assert_eq!(ask(Some("Bearer "), true), StatusCode::UNAUTHORIZED, "an empty file lets nobody in");
    std::fs::write(&path, "short").unwrap();
    assert_eq!(ask(Some("Bearer short"), true), StatusCode::UNAUTHORIZED, "neither does a short one");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(Some(&right), true), StatusCode::UNAUTHORIZED, "nor a file that is gone");
}

#[test]
fn a_token_that_cannot_be_read_is_worth_a_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let guard = Guard::new(Some(path.clone()));
    let right = format!("Bearer {TOKEN}");
    let ask = || check(&guard, &Method::GET, &[("authorization", &*right)], true);
    assert_eq!([ask(), ask()], [StatusCode::UNAUTHORIZED; 2]);
    assert!(!guard.clone().has_turned(true), "it was told, to clones too");
    std::fs::write(&path, TOKEN).unwrap();
    assert_eq!(ask(), StatusCode::OK);
    assert!(!guard.has_turned(false), "that it can be read again was told too");
    assert!(guard.has_turned(true), "and the next change is news");
}
