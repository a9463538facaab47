//! Rows: what came, and the one reading of it or the refusal.

use super::header::{self, Malformed};
use super::{Ambiguity, Normalization, Options, Received, Refusal, TARGET_BYTES_MAX, Target, normalize};

fn keep(normalization: Normalization) -> Options {
    Options { normalization, ambiguity: Ambiguity::Keep, ..Options::default() }
}

fn refuse(normalization: Normalization) -> Options {
    Options { normalization, ..Options::default() }
}

fn told(outcome: &Result<Target<'_>, Refusal>) -> String {
    match outcome {
        Ok(target) => String::from_utf8_lossy(&target.path_and_query()).into_owned(),
        Err(refusal) => format!("{} {}", refusal.status(), refusal.name()),
    }
}

#[track_caller]
fn check(options: &Options, rows: &[(&str, &str)]) {
    for (path, want) in rows {
        let received = Received {
            method: b"GET",
            hosts: &[b"web.shop"],
            path: Some(path.as_bytes()),
            ..Received::default()
        };
        assert_eq!(told(&normalize(&received, options)), *want, "{path:?} with {options:?}");
    }
}

#[test]
fn every_mode_does_what_its_name_says() {
    let rows = [
        ("/a/../b", ["/a/../b", "/b", "/b", "/b"]),
        ("//a", ["//a", "//a", "/a", "/a"]),
        ("/a%2Fb", ["/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"]),
        ("/a%2fb", ["/a%2fb", "/a%2Fb", "/a%2Fb", "/a/b"]),
        ("/a\\b", ["/a\\b", "/a/b", "/a/b", "/a/b"]),
        ("/a%5cb", ["/a%5cb", "/a%5Cb", "/a%5Cb", "/a/b"]),
        ("/%61%7Eb", ["/%61%7Eb", "/a~b", "/a~b", "/a~b"]),
        ("/%c3%a9", ["/%c3%a9", "/%C3%A9", "/%C3%A9", "/%C3%A9"]),
        ("/5%3adelete", ["/5%3adelete", "/5:delete", "/5:delete", "/5:delete"]),
        ("/x/%2e%2E/a", ["/x/%2e%2E/a", "/a", "/a", "/a"]),
        ("/x%2F..%2Fa", ["/x%2F..%2Fa", "/x%2F..%2Fa", "/x%2F..%2Fa", "/a"]),
        ("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]),
        ("/a/./b/.", ["/a/./b/.", "/a/b/", "/a/b/", "/a/b/"]),
        ("/../../a", ["/../../a", "/a", "/a", "/a"]),
        ("/a/b/..", ["/a/b/..", "/a/", "/a/", "/a/"]),
        ("/..", ["/..", "/", "/", "/"]),
        ("/a?x=/../%2e#f", ["/a?x=/../%2e", "/a?x=/../%2e", "/a?x=/../%2e", "/a?x=/../%2e"]),
        ("/a#/../b?c", ["/a", "/a", "/a", "/a"]),
    ];
    let modes = [
        Normalization::None,
        Normalization::Base,
        Normalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes,
    ];
    for (path, wanted) in rows {
        for (mode, want) in modes.into_iter().zip(wanted) {
            check(&keep(mode), &[(path, want)]);
        }
    }
}

#[test]
fn every_escape_has_one_reading() {
    for octet in 0x20..=0x7f_u8 {
        let text = char::from(octet);
        let (escape, stays) = (format!("/a%{octet:02x}b"), format!("/a%{octet:02X}b"));
        let want = match text {
            '/' | '\\' => "400 escaped-slash".to_owned(),
            // `%25` only before two digits is an escape in an escape.
            '+' | ' ' | '"' | '#' | '%' | ';' | '<' | '>' | '?' | '[' | ']' | '^' | '`' | '{' | '|' | '}'
            | '\x7f' => stays,
            plain => format!("/a{plain}b"),
        };
        check(&Options::default(), &[(&escape, &want)]);
    }
}

/// A bare plus sign is a blank to some applications and an escaped one is not: none is made of the other, and a policy
/// about one holds for both.
#[test]
fn an_escaped_plus_sign_is_compared_undone_and_goes_on_as_it_came() {
    let rows = [
        ("/a%2Bb", "/a+b", "/a%2Bb"),
        ("/a%2bb+c?d=%2b+", "/a+b+c", "/a%2Bb+c?d=%2b+"),
        ("/a+b", "/a+b", "/a+b"),
        ("/x/../%2B%3a", "/+:", "/%2B:"),
        ("/a%2B;v=1/b", "/a+;v=1/b", "/a%2B;v=1/b"),
    ];
    for mode in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
        for (path, compared, sent) in rows {
            let received = Received {
                method: b"GET",
                hosts: &[b"h"],
                path: Some(path.as_bytes()),
                ..Received::default()
            };
            let options = refuse(mode);
            let target = normalize(&received, &options).unwrap();
            let goes_on = target.path_and_query();
            let told = (target.path(), &*goes_on);
            assert_eq!(told, (compared.as_bytes(), sent.as_bytes()), "{path} with {mode:?}");
        }
    }
    let path = b"/a%2B;v=1/b";
    let received = Received { method: b"GET", hosts: &[b"h"], path: Some(path), ..Received::default() };
    let target = normalize(&received, &Options::default()).unwrap();
    assert_eq!((target.sent_path(), target.bare_path()), (&path[..], Some(&b"/a+/b"[..])));
    check(&Options::default(), &[("/a%252Bb", "400 escaped-twice")]);
    let as_it_came = normalize(&Received { path: Some(b"/a%2bb"), ..received }, &refuse(Normalization::None));
    assert_eq!(as_it_came.unwrap().path(), b"/a%2bb", "nothing is read where nothing is normalised");
}

#[test]
fn what_servers_read_differently_is_refused() {
    check(
        &Options::default(),
        &[
            ("/a%2fb", "400 escaped-slash"),
            ("/a%2Fb", "400 escaped-slash"),
            ("/a%5Cb", "400 escaped-slash"),
            ("/admin%00", "400 escaped-nul"),
            ("/%252e%252e/a", "400 escaped-twice"),
            ("/100%25", "/100%25"),
            ("/100%25of", "/100%25of"),
            ("/..;/admin", "400 dot-parameter"),
            ("/.;/admin", "400 dot-parameter"),
            ("/..;x=1/admin", "400 dot-parameter"),
            ("/..%3b/admin", "400 dot-parameter"),
            ("/%2e%2e;/admin", "400 dot-parameter"),
            ("/a#b", "400 fragment"),
            ("/a?b#c", "400 fragment"),
            ("/caf\u{e9}", "400 not-ascii"),
            ("/a%", "400 percent"),
            ("/a%4", "400 percent"),
            ("/a%zz", "400 percent"),
            ("/a%%32F", "400 percent"),
            ("/a%2", "400 percent"),
        ],
    );
    check(
        &refuse(Normalization::None),
        &[
            ("/a\\b", "400 backslash"),
            ("/%2e/a", "400 escaped-dot"),
            ("/x/../a", "400 dot-segment"),
            ("/a//b", "/a//b"),
            ("/a%4", "400 percent"),
        ],
    );
    check(
        &refuse(Normalization::DecodeAndMergeSlashes),
        &[("/a%2fb", "/a/b"), ("/a%252fb", "400 escaped-twice")],
    );
}

#[test]
fn what_no_target_may_hold_is_refused_in_every_mode() {
    for mode in [Normalization::None, Normalization::DecodeAndMergeSlashes] {
        check(
            &keep(mode),
            &[
                ("/a b", "400 byte"),
                ("/a\r\nx: y", "400 byte"),
                ("/a\0", "400 byte"),
                ("/a?b\tc", "400 byte"),
                ("/a\x7f", "400 byte"),
                ("", "400 path-missing"),
                ("a/b", "400 path-form"),
                ("*", "400 path-form"),
                ("http://web.shop/", "400 path-form"),
                ("?a", "400 path-form"),
            ],
        );
    }
    check(&keep(Normalization::None), &[("/a%4", "/a%4")]);
    check(&keep(Normalization::Base), &[("/a%4", "400 percent"), ("/a%%32F", "400 percent")]);
}

#[test]
fn query_and_plain_paths_pass_untouched() {
    check(
        &Options::default(),
        &[
            ("/", "/"),
            ("/a.b/c.d", "/a.b/c.d"),
            ("/pkg.Service/Method", "/pkg.Service/Method"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a/...", "/a/..."),
            ("/a/.well-known", "/a/.well-known"),
            ("/a?", "/a?"),
            ("/a?x=%2F..%2f&y=\\&z=%zz", "/a?x=%2F..%2f&y=\\&z=%zz"),
            ("/a?b?c", "/a?b?c"),
        ],
    );
}

#[test]
fn length_is_bounded() {
    let fits = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
    check(&Options::default(), &[(&fits, &fits), (&format!("{fits}a"), "414 too-long")]);
    let small = Options { target_bytes_max: 4, ..Options::default() };
    check(&small, &[("/abc", "/abc"), ("/ab?c", "414 too-long")]);
}

#[test]
fn parameters_give_a_second_reading() {
    for (path, want) in [
        ("/admin", None),
        ("/admin;v=1", Some("/admin")),
        ("/a;x/../admin", None),
        ("/a/;x/admin", Some("/a/admin")),
        ("/a;x/b;y=1;z/c", Some("/a/b/c")),
        ("/;", Some("/")),
    ] {
        let received =
            Received { method: b"GET", hosts: &[b"h"], path: Some(path.as_bytes()), ..Received::default() };
        let target = normalize(&received, &Options::default()).unwrap();
        assert_eq!(target.bare_path(), want.map(str::as_bytes), "{path}");
    }
    let received = Received { method: b"GET", hosts: &[b"h"], path: Some(b"/..;/a"), ..Received::default() };
    let kept = normalize(&received, &keep(Normalization::Base)).unwrap();
    assert_eq!((kept.path(), kept.bare_path()), (&b"/..;/a"[..], Some(&b"/a"[..])));
}

#[track_caller]
fn check_authority(authority: Option<&str>, hosts: &[&str], want: &str) {
    let hosts: Vec<&[u8]> = hosts.iter().map(|h| h.as_bytes()).collect();
    let received = Received {
        method: b"GET",
        authority: authority.map(str::as_bytes),
        hosts: &hosts,
        path: Some(b"/"),
        ..Received::default()
    };
    let found = match normalize(&received, &Options::default()) {
        Ok(target) => target.authority().to_string(),
        Err(refusal) => format!("{} {}", refusal.status(), refusal.name()),
    };
    assert_eq!(found, want, "authority {authority:?}, hosts {hosts:?}");
}

#[test]
fn a_request_has_one_authority() {
    check_authority(Some("web.shop"), &[], "web.shop");
    check_authority(None, &["web.shop"], "web.shop");
    check_authority(Some("web.shop"), &["WEB.shop."], "web.shop");
    check_authority(None, &[], "400 authority-missing");
    check_authority(None, &[""], "400 authority-missing");
    check_authority(Some(""), &["web.shop"], "400 authority-missing");
    check_authority(Some("web.shop"), &["other"], "400 host-conflict");
    check_authority(Some("web.shop"), &["web.shop:80"], "400 host-conflict");
    check_authority(None, &["web.shop", "web.shop"], "400 host-repeated");
    check_authority(Some("web.shop"), &["web.shop", "web.shop"], "400 host-repeated");
}

#[test]
fn an_authority_has_one_form() {
    for (text, want) in [
        ("Secret.COM", "secret.com"),
        ("secret.com.", "secret.com"),
        ("secret.com:80", "secret.com:80"),
        ("secret.com.:0080", "secret.com:80"),
        ("secret.com..", "400 host-name"),
        ("secret..com", "400 host-name"),
        (".secret.com", "400 host-name"),
        (".", "400 host-name"),
        ("secret.com:", "400 port"),
        ("secret.com:0", "400 port"),
        ("secret.com:65536", "400 port"),
        ("secret.com:+80", "400 port"),
        ("secret.com:8a", "400 port"),
        ("secret.com:80:80", "400 port"),
        ("a@secret.com", "400 user-info"),
        ("secret.com@evil", "400 user-info"),
        ("secret.com/x", "400 host-name"),
        ("secret%2ecom", "400 host-name"),
        ("secret.com#x", "400 host-name"),
        ("secret.com,evil", "400 host-name"),
        ("b\u{fc}cher.example", "400 host-name"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_svc.shop", "my_svc.shop"),
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("010.0.0.1", "400 host-name"),
        ("127.1", "400 host-name"),
        ("2130706433", "400 host-name"),
        ("0x7f.0x1", "400 host-name"),
        ("10.0.0.1.", "10.0.0.1"),
        ("v1.0x.example", "v1.0x.example"),
        ("[::1]", "[::1]"),
        ("[0:0::1]:8080", "[::1]:8080"),
        ("[FD00::A]", "[fd00::a]"),
        ("[fe80::1%25eth0]", "400 host-name"),
        ("[fe80::1%eth0]", "400 host-name"),
        ("[::1", "400 host-name"),
        ("[::1]x", "400 host-name"),
        ("::1", "400 host-name"),
    ] {
        check_authority(None, &[text], want);
    }
}

#[test]
fn method_scheme_and_connect() {
    let base = Received { method: b"GET", hosts: &[b"h"], path: Some(b"/x"), ..Received::default() };
    let star = Received { path: Some(b"*"), ..base };
    for (received, want) in [
        (base, "GET /x"),
        (Received { method: b"get", ..base }, "get /x"),
        (Received { method: b"M-SEARCH", ..base }, "M-SEARCH /x"),
        (Received { method: b"GET ", ..base }, "400 method"),
        (Received { method: b"", ..base }, "400 method"),
        (Received { method: b"GE\xff", ..base }, "400 method"),
        (Received { method: &[b'A'; 65], ..base }, "400 method"),
        (Received { scheme: Some(b"hTTp"), ..base }, "GET /x"),
        (Received { scheme: Some(b"HTTPS"), ..base }, "GET /x"),
        (Received { scheme: Some(b"ftp"), ..base }, "400 scheme"),
        (Received { scheme: Some(b"https "), ..base }, "400 scheme"),
        (Received { method: b"OPTIONS", ..star }, "OPTIONS *"),
        (Received { method: b"GET", ..star }, "400 path-form"),
        (Received { method: b"CONNECT", ..base }, "400 connect"),
        (Received { method: b"CONNECT", path: None, ..base }, "400 connect"),
        (Received { path: None, ..base }, "400 path-missing"),
        (Received { protocol: Some(b"websocket"), ..base }, "400 protocol"),
        (Received { method: b"CONNECT", protocol: Some(b"websocket"), ..base }, "GET /x websocket"),
        (Received { method: b"CONNECT", protocol: Some(b"web socket"), ..base }, "400 protocol"),
        (
            Received { method: b"CONNECT", protocol: Some(b"websocket"), path: None, ..base },
            "400 path-missing",
        ),
    ] {
        let found = match normalize(&received, &Options::default()) {
            Ok(target) => {
                let protocol = target.protocol().map(|p| format!(" {p}")).unwrap_or_default();
                format!("{} {}{protocol}", target.method(), String::from_utf8_lossy(target.path()))
            }
            Err(refusal) => format!("{} {}", refusal.status(), refusal.name()),
        };
        assert_eq!(found, want, "{received:?}");
    }
}

#[test]
fn header_names_and_values_that_split_messages_are_malformed() {
    let value = |byte| Err(Malformed::Value { name_bytes: 1, byte });
    for (name, text, want) in [
        (&b"x"[..], &b"a\tb \xff"[..], Ok(())),
        (b"x", b"", Ok(())),
        (b"x", b"a\r", value(b'\r')),
        (b"x", b"a\n", value(b'\n')),
        (b"x", b"\0", value(0)),
        (b"x", b"\x7f", value(0x7f)),
        (b"", b"a", Err(Malformed::Name)),
        (b"x y", b"a", Err(Malformed::Name)),
        (b"x:", b"a", Err(Malformed::Name)),
        (b"x\xff", b"a", Err(Malformed::Name)),
        (b"x\0", b"a", Err(Malformed::Name)),
    ] {
        assert_eq!(header::check(name, text), want, "{name:?}: {text:?}");
    }
}

#[test]
fn internal_headers_are_known_in_any_case() {
    for name in
        ["x-envoy-original-path", "X-Envoy-Attempt-Count", "x-istio-source", "X-Forwarded-Client-Cert"]
    {
        assert!(header::is_internal(name), "{name}");
    }
    for name in ["x-forwarded-for", "baggage", "forwarded", "x-envoy", "authorization", ""] {
        assert!(!header::is_internal(name), "{name}");
    }
}
