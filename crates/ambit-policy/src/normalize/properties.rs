//! Properties of normalisation over hostile bytes.

use proptest::prelude::*;

use super::{Ambiguity, Authority, Normalization, Options, Received, normalize};

fn mode() -> impl Strategy<Value = Normalization> {
    prop::sample::select(vec![
        Normalization::None,
        Normalization::Base,
        Normalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes,
    ])
}

fn ambiguity() -> impl Strategy<Value = Ambiguity> {
    prop::sample::select(vec![Ambiguity::Refuse, Ambiguity::Keep])
}

/// Paths out of the pieces that path tricks are made of.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"/", b"//", b".", b"..", b";", b"%", b"%2", b"%2e", b"%2F", b"%5c", b"\\", b"%25", b"2e", b"2F",
        b"a", b"admin", b"%61", b"%3b", b"%3A", b"%40", b"%2b", b"?", b"#", b"\xff", b"%00", b"%ff", b"=1",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..12)
        .prop_map(|pieces| [&b"/"[..], &pieces.concat()].concat())
}

/// Authorities likewise.
fn authority() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> =
        vec![b"a", b".", b"Z", b":", b"80", b"0", b"[", b"]", b"::1", b"@", b"%", b"0x1", b"1.2.3", b"-"];
    prop::collection::vec(prop::sample::select(pieces), 0..6).prop_map(|pieces| pieces.concat())
}

fn get<'a>(path: &'a [u8], hosts: &'a [&'a [u8]]) -> Received<'a> {
    Received { method: b"GET", hosts, path: Some(path), ..Received::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn is_idempotent(path in path(), normalization in mode(), ambiguity in ambiguity()) {
        let options = Options { normalization, ambiguity, ..Options::default() };
        let Ok(once) = normalize(&get(&path, &[b"h"]), &options) else { return Ok(()) };
        let forwarded = once.path_and_query();
        let twice = normalize(&get(&forwarded, &[b"h"]), &options);
        prop_assert_eq!(twice.as_ref(), Ok(&once));
    }

    /// What goes on is what was compared, but for the escape of the plus sign.
    #[test]
    fn differs_only_in_plus_signs(path in path(), normalization in mode(), ambiguity in ambiguity()) {
        let options = Options { normalization, ambiguity, ..Options::default() };
        let Ok(target) = normalize(&get(&path, &[b"h"]), &options) else { return Ok(()) };
        if normalization == Normalization::None {
            prop_assert_eq!(target.path(), target.sent_path());
            return Ok(());
        }
        let sent = String::from_utf8_lossy(target.sent_path()).replace("%2B", "+");
        prop_assert_eq!(String::from_utf8_lossy(target.path()).into_owned(), sent);
    }

    /// Whatever is let through by default has no piece left that some server reads otherwise.
    #[test]
    fn leaves_nothing_to_interpret(path in path()) {
        let Ok(target) = normalize(&get(&path, &[b"h"]), &Options::default()) else { return Ok(()) };
        let text = std::str::from_utf8(target.path()).unwrap().to_owned();
        prop_assert!(text.is_ascii() && text.starts_with('/') && !text.contains("//"));
        prop_assert!(!text.contains(['\\', '#', '?']));
        let escapes = ["%2F", "%5C", "%2E", "%00", "%61", "%252", "%3A", "%40", "%2B"];
        prop_assert!(!escapes.iter().any(|e| text.to_uppercase().contains(e)), "{}", text);
        prop_assert!(!text.split('/').any(|s| matches!(s.split(';').next(), Some("." | ".."))), "{}", text);
    }

    #[test]
    fn never_panics(
        method in prop::collection::vec(any::<u8>(), 0..6),
        path in prop::collection::vec(any::<u8>(), 0..40),
        host in prop::collection::vec(any::<u8>(), 0..20),
        normalization in mode(),
        ambiguity in ambiguity(),
    ) {
        let options = Options { normalization, ambiguity, ..Options::default() };
        let _ = normalize(&Received { method: &method, ..get(&path, &[&host]) }, &options);
    }

    #[test]
    fn an_authority_reads_back_as_itself(text in authority()) {
        let Ok(once) = Authority::parse(&text) else { return Ok(()) };
        prop_assert_eq!(Authority::parse(once.as_str().as_bytes()), Ok(once));
    }
}
