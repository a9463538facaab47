//! The authority on disk and the audit log.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

use ambit_types::{Identity, TrustDomain};
use proptest::prelude::*;
use rcgen::KeyPair;

use super::audit::{Audit, Record};
use super::authn::{Expected, Keys};
use super::sign::SignError;
use super::store::{self, StoreError};

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn open(home: &tempfile::TempDir) -> Result<super::Authority, StoreError> {
    store::open(&home.path().join("ca"), &TrustDomain::default(), start())
}

#[test]
fn keys_are_made_once_and_readable_by_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let first = open(&home).unwrap();
    let again = open(&home).unwrap();
    assert_eq!(first.roots_pem(), again.roots_pem());
    let mode = |path: &str| fs::metadata(home.path().join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode("ca"), 0o700);
    for file in ["root-cert.pem", "root-key.pem", "intermediate-cert.pem", "intermediate-key.pem"] {
        assert_eq!(mode(&format!("ca/{file}")), 0o600, "{file}");
    }
}

#[test]
fn an_authority_that_cannot_be_trusted_is_refused_and_never_replaced() {
    type Damage = fn(&std::path::Path);
    let rows: &[(&str, Damage)] = &[
        ("chmod", |ca| {
            fs::set_permissions(ca.join("intermediate-key.pem"), Permissions::from_mode(0o644)).unwrap()
        }),
        ("chmod", |ca| fs::set_permissions(ca.join("root-key.pem"), Permissions::from_mode(0o640)).unwrap()),
        ("chmod", |ca| fs::set_permissions(ca, Permissions::from_mode(0o755)).unwrap()),
        ("cannot look at", |ca| fs::remove_file(ca.join("intermediate-key.pem")).unwrap()),
        ("backup", |ca| fs::write(ca.join("intermediate-key.pem"), "").unwrap()),
        ("backup", |ca| fs::write(ca.join("intermediate-cert.pem"), "nonsense").unwrap()),
        ("not the one in", |ca| {
            let other = KeyPair::generate().unwrap();
            fs::write(ca.join("intermediate-key.pem"), other.serialize_pem()).unwrap();
        }),
        ("not signed by the root", |ca| {
            let elsewhere = tempfile::tempdir().unwrap();
            drop(open(&elsewhere).unwrap());
            fs::copy(elsewhere.path().join("ca/root-cert.pem"), ca.join("root-cert.pem")).unwrap();
        }),
    ];
    for (want, damage) in rows {
        let home = tempfile::tempdir().unwrap();
        drop(open(&home).unwrap());
        damage(&home.path().join("ca"));
        let error = open(&home).unwrap_err().to_string();
        assert!(error.contains(want), "{want}: {error}");
        assert!(open(&home).is_err(), "still refused");
    }
}

#[test]
fn another_trust_domain_needs_another_authority() {
    let home = tempfile::tempdir().unwrap();
    drop(open(&home).unwrap());
    let other = TrustDomain::parse("prod.example").unwrap();
    let error = store::open(&home.path().join("ca"), &other, start()).unwrap_err().to_string();
    assert!(error.contains("prod.example"), "{error}");
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("ca.new")).unwrap();
    fs::write(home.path().join("ca.new/root-cert.pem"), "half").unwrap();
    drop(open(&home).unwrap());
    assert!(!home.path().join("ca.new").exists());
}

#[test]
fn no_certificate_outlives_its_authority() {
    let home = tempfile::tempdir().unwrap();
    let authority = open(&home).unwrap();
    let identity = Identity::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let key = KeyPair::generate().unwrap();
    let key = rcgen::PublicKeyData::subject_public_key_info(&key);
    let day = Duration::from_secs(86_400);
    let last_hour = SystemTime::UNIX_EPOCH + authority.not_after() - Duration::from_secs(3600);
    let issued = authority.issue(&identity, &key, day, last_hour).unwrap();
    assert_eq!(issued.not_after, authority.not_after().as_secs());
    let after = last_hour + day;
    let refused = authority.issue(&identity, &key, day, after);
    assert!(matches!(refused, Err(SignError::AuthorityExpired { .. })), "{refused:?}");
}

#[test]
fn serial_numbers_are_positive_and_differ() {
    let one = super::sign::serial().to_bytes();
    let two = super::sign::serial().to_bytes();
    assert_ne!(one, two);
    for serial in [one, two] {
        assert_eq!(serial.len(), 16);
        assert!(serial[0] & 0x80 == 0 && serial[0] != 0);
    }
}

proptest! {
    /// Whatever a stranger sends as a request or a token is answered, never a panic (T-47).
    #[test]
    fn no_bytes_of_a_stranger_can_stop_us(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        text in ".{0,200}",
    ) {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let mut der = params.serialize_request(&key).unwrap().der().to_vec();
        for (at, byte) in flips {
            let at = at.index(der.len());
            der[at] = byte;
        }
        der.truncate(cut.index(der.len()) + 1);
        let encoded: String = pem(&der);
        super::csr::read(&encoded);
        super::csr::read(&text);

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("issuer.pem");
        fs::write(&path, key.public_key_pem()).unwrap();
        let expected = Expected {
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            life_max: Duration::from_secs(60),
        };
        let verifier = Keys::open(&[path], expected).unwrap();
        let header = format!("Bearer {text}");
        prop_assert!(verifier.verify(&[header.as_bytes()], Duration::ZERO).is_err());
        prop_assert!(verifier.verify(&[&der[..]], Duration::ZERO).is_err());
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

fn record(check: &str) -> Record<'_> {
    Record {
        time: 1.5,
        outcome: "turned-away",
        asked: "certificate",
        source: Some(IpAddr::from([10, 0, 0, 1])),
        caller: "",
        node: "",
        identity: "",
        serial: "",
        asked_seconds: None,
        not_after: None,
        code: "",
        check,
        detail: "",
        unrecorded: 0,
    }
}

#[test]
fn strangers_cannot_fill_the_disk_but_are_counted() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("audit.jsonl");
    let audit = Audit::open(&path).unwrap();
    let second = Duration::from_secs(1);
    for _ in 0..1000 {
        audit.record_stranger(second, record("token-missing")).unwrap();
    }
    let lines = |text: &str| text.lines().count();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&text), 50);
    audit.record_stranger(second * 2, record("token-missing")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["unrecorded"], 950);
    // Known callers are always written.
    for _ in 0..100 {
        audit.record(&record("pod-unknown")).unwrap();
    }
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), 151);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_log_is_continued_and_its_lines_cannot_be_forged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("audit.jsonl");
    Audit::open(&path).unwrap().record(&record("one\n{\"outcome\":\"issued\"}")).unwrap();
    Audit::open(&path).unwrap().record(&record("two")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let checks: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["check"].to_string())
        .collect();
    assert_eq!(checks, ["\"one\\n{\\\"outcome\\\":\\\"issued\\\"}\"", "\"two\""]);
}
