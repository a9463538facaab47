//! What ends an archive, and what does not.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;

/// A body of PEM that no certificate has, and the end of a file of raw bytes.
const SEED: &[u8] =
    b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20abcdefghijklmnopqrstuvwxyz012345";
const RAW: [u8; 32] = *b"\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18the-raw-key-ends";

fn pem() -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(SEED))
}

/// A lab's directory with a key in PEM, a raw one, a public one, and an object that mentions a key.
fn lab() -> TempDir {
    let lab = TempDir::new().unwrap();
    let put = |path: &str, content: &[u8]| {
        let path = lab.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(content).unwrap();
    };
    put("istiod/ca/root-key.pem", pem().as_bytes());
    put(
        "istiod/ca/root-cert.pem",
        b"-----BEGIN CERTIFICATE-----\nMIIBcertificate-of-the-root\n-----END CERTIFICATE-----\n",
    );
    put("nodes/node1/state.key", &RAW);
    put("nodes/node1/token", b"  a-token-of-a-node-that-is-no-web-token\n");
    put("objects/key.json", b"what people wrote may be anywhere");
    put("pods/uid/volumes/settings/key-of-the-cache", b"what people mount may be anywhere");
    lab
}

#[track_caller]
fn check(content: &[u8], known: &Known, want: &[&str]) {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("a.tar.gz");
    let files = [("index.json", &b"{}"[..]), ("logs/x.log", content)];
    let mut packed = archive::pack(&to, "a", 0, files.into_iter()).unwrap();
    let found = scan(packed.as_file_mut(), known).unwrap();
    let told: Vec<&str> = found.iter().map(|finding| finding.kind.as_str()).collect();
    assert_eq!(told, want, "{}", String::from_utf8_lossy(content));
    assert!(found.iter().all(|finding| finding.file == "logs/x.log"), "{found:?}");
}

#[test]
fn what_looks_like_a_key_is_found() {
    let none = Known::default();
    check(b"nothing to see", &none, &[]);
    check(pem().as_bytes(), &none, &["private key"]);
    check(STANDARD.encode(pem()).as_bytes(), &none, &["private key in base64"]);
    let part = |text: &str| STANDARD_NO_PAD.encode(text);
    let token =
        format!("{}.{}.{}", part(r#"{"alg":"none"}"#), part(r#"{"sub":"someone"}"#), part("signature"));
    check(token.as_bytes(), &none, &["JSON web token"]);
}

#[test]
fn a_labs_own_keys_are_found_in_whatever_form() {
    let (lab, own) = (lab(), "key or token of the lab itself");
    let known = Known::below(lab.path());
    for bytes in [SEED, &RAW[..], b"a-token-of-a-node-that-is-no-web-token"] {
        check(&[&b"before "[..], bytes, b" behind"].concat(), &known, &[own]);
    }
    check(STANDARD.encode(RAW).as_bytes(), &known, &[own]);
    check(b"0102030405060708111213141516171874 no", &known, &[]);
    let hex: String = RAW.iter().map(|byte| format!("{byte:02x}")).collect();
    check(hex.as_bytes(), &known, &[own]);
    check(STANDARD.encode(SEED).as_bytes(), &known, &[own, "private key in base64"]);
    for innocent in [
        "what people wrote may be anywhere",
        "what people mount may be anywhere",
        "MIIBcertificate-of-the-root",
    ] {
        check(innocent.as_bytes(), &known, &[]);
    }
}

#[test]
fn an_archive_is_its_owners_alone_and_replaces_nothing() {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("a.tar.gz");
    let files = || [("one.txt", &b"1"[..]), ("two/three.txt", &b"23"[..])].into_iter();
    let packed = archive::pack(&to, "a", 1, files()).unwrap();
    assert!(!to.exists());
    archive::keep(packed, &to).unwrap();
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(archive::one(&to, "two/three.txt").unwrap().as_deref(), Some(&b"23"[..]));
    assert_eq!(archive::one(&to, "three.txt").unwrap(), None);
    assert!(matches!(archive::check_free(&to), Err(ArchiveError::Exists(_))));
    let again = archive::pack(&to, "a", 1, files()).unwrap();
    assert!(matches!(archive::keep(again, &to), Err(ArchiveError::Exists(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    fs::write(folder.path().join("no.tar.gz"), "nothing of the kind").unwrap();
    assert!(matches!(archive::one(&folder.path().join("no.tar.gz"), "x"), Err(ArchiveError::Read(_))));
}
