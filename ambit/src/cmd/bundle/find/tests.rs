//! What is found in a text that must not be in an archive, and what is none of it.

use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;

/// Beginnings of keys in DER, each long enough to be looked at.
const PKCS8_EC: &[u8] = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
const PKCS1: &[u8] = b"\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00\xc1\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf";
const SEC1: &[u8] =
    b"\x30\x77\x02\x01\x01\x04\x20\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20\x21\x22";
/// A certificate and a public key begin otherwise.
const CERTIFICATE: &[u8] = b"\x30\x82\x01\x8c\x30\x82\x01\x32\xa0\x03\x02\x01\x02\x02\x14\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b";
const PUBLIC: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";

/// PEM of a kind, put together here so that no text of this file is a key.
fn pem(label: &str) -> String {
    let body = STANDARD.encode([PKCS8_EC, &[7; 40]].concat());
    let (first, second) = body.split_at(64);
    format!("-----BEGIN {label}-----\n{first}\n{second}\n-----END {label}-----\n")
}

fn token(header: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(header), part(r#"{"sub":"a"}"#), part("0123456789abcdef"))
}

fn wrapped(text: &str, width: usize, end: &str) -> String {
    let lines: Vec<String> =
        text.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.join(end)
}

#[track_caller]
fn check(text: &str, want: Option<Kind>) {
    let found = keys(text.as_bytes());
    assert_eq!(found.first().map(|one| one.kind), want, "{text}");
    if let (Some(_), Some(last)) = (found.first(), found.last()) {
        assert!(found.windows(2).all(|two| two[0].range.end <= two[1].range.start), "{found:?}");
        assert!(last.range.end <= text.len());
    }
}

#[test]
fn private_keys_are_found_in_every_form_of_pem() {
    for label in
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
    {
        let whole = pem(label);
        check(&whole, Some(Kind::PrivateKey));
        check(&format!("{{\"key\":\"{}\"}}", whole.replace('\n', "\\n")), Some(Kind::PrivateKey));
        check(&whole.replace('\n', " "), Some(Kind::PrivateKey));
        let begun: Vec<&str> = whole.lines().take(2).collect();
        check(&begun.join("\n"), Some(Kind::PrivateKey));
        let ended: Vec<&str> = whole.lines().skip(2).collect();
        check(&ended.join("\n"), Some(Kind::PrivateKey));
    }
}

#[test]
fn a_whole_key_is_meant_and_not_its_first_line() {
    let text = format!("before {}after", pem("PRIVATE KEY"));
    let found = keys(text.as_bytes());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(&text[..found[0].range.start], "before ");
    assert_eq!(text[found[0].range.end..].trim(), "after");
}

#[test]
fn keys_are_found_in_base64_wherever_they_begin() {
    for before in ["", "a", "ab", "abc", "tls.key: "] {
        let once = STANDARD.encode(format!("{before}{}", pem("EC PRIVATE KEY")));
        check(&once, Some(Kind::EncodedKey));
        check(&format!("file_{once}"), Some(Kind::EncodedKey));
        check(&STANDARD.encode(&once), Some(Kind::EncodedKey));
        check(&once.replace('+', "-").replace('/', "_"), Some(Kind::EncodedKey));
    }
    let once = STANDARD.encode(pem("PRIVATE KEY"));
    for end in ["\n", "\r\n", "\n    ", "\\n"] {
        let lines = wrapped(&once, 76, end);
        let found = keys(lines.as_bytes());
        assert_eq!(found.len(), 1, "{lines}: {found:?}");
        assert_eq!(found[0].range, 0..lines.len(), "{lines}");
    }
    for der in [PKCS8_EC, PKCS1, SEC1] {
        check(&STANDARD.encode([der, &[9; 20]].concat()), Some(Kind::EncodedKey));
    }
}

#[test]
fn tokens_are_found_behind_anything() {
    for header in [r#"{"alg":"ES256"}"#, r#"{ "alg": "ES256" }"#, "{\n\"alg\":\"RS256\"}"] {
        for before in ["", "Bearer ", "key-", "?access_token=", "eyeline-"] {
            check(&format!("{before}{}", token(header)), Some(Kind::Token));
        }
    }
}

#[test]
fn what_is_no_key_is_left() {
    let certificate = pem("CERTIFICATE").replace("MIGH", "MIIB");
    let rows = [
        certificate.as_str(),
        &STANDARD.encode([CERTIFICATE, &[9; 20]].concat()),
        &STANDARD.encode([PUBLIC, &[9; 20]].concat()),
        &pem("PUBLIC KEY").replace("MIGH", "MFkw"),
        "spiffe://cluster.local/ns/shop/sa/a-service-account-with-a-long-name-indeed",
        "key-service.shop.svc.cluster.local",
        "eyewitness-service.production-namespace.svc-cluster-local",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "[redacted]",
        "a private key is never shown",
    ];
    for row in rows {
        check(row, None);
    }
}
