//! Sets with real keys, and tokens signed with them.

use ambit_policy::jwt::{SignatureError, SignedToken};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Refused, Set, SetError};

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key and its public part as members of a JWK.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec(curve: &'static str) -> Self {
        let way = match curve {
            "P-256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(curve, EcdsaKeyPair::generate(way).unwrap())
    }

    fn members(&self) -> String {
        match self {
            Self::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                format!(r#""kty":"RSA","n":"{}","e":"{}""#, encode(n), encode(e))
            }
            Self::Ec(curve, pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                format!(r#""kty":"EC","crv":"{curve}","x":"{}","y":"{}""#, encode(x), encode(y))
            }
            Self::Ed(pair) => {
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, encode(pair.public_key()))
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let way: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(way, &random, message, &mut signed).unwrap();
                signed
            }
            Self::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, key_id: Option<&str>) -> String {
        let id = key_id.map(|id| format!(r#","kid":"{id}""#)).unwrap_or_default();
        let header = format!(r#"{{"alg":"{algorithm}"{id}}}"#);
        let content = format!("{}.{}", encode(header), encode(r#"{"iss":"i","sub":"s"}"#));
        let signature = self.sign(algorithm, content.as_bytes());
        format!("{content}.{}", encode(signature))
    }
}

/// Modulus and exponent of an `RSAPublicKey` in DER (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, rest) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), &der[2..]),
            0x81 => (usize::from(der[2]), &der[3..]),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), &der[4..]),
        };
        rest.split_at(length)
    }
    let (n, rest) = value(value(der).0);
    (n, value(rest).0)
}

fn set(keys: &[String]) -> Result<Set, SetError> {
    let keys: Vec<String> = keys.iter().map(|members| format!("{{{members}}}")).collect();
    Set::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
}

fn verify(set: &Set, token: &str) -> Result<(), SignatureError> {
    set.verify(&SignedToken::parse(token.as_bytes()).unwrap())
}

const ALL: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

fn signers() -> [Signer; 5] {
    let ed = Signer::Ed(Ed25519KeyPair::generate().unwrap());
    [Signer::rsa(), Signer::ec("P-256"), Signer::ec("P-384"), Signer::ec("P-521"), ed]
}

fn signer_of<'s>(signers: &'s [Signer; 5], algorithm: &str) -> &'s Signer {
    let at = match algorithm {
        "ES256" => 1,
        "ES384" => 2,
        "ES512" => 3,
        "EdDSA" => 4,
        _ => 0,
    };
    &signers[at]
}

#[test]
fn every_algorithm_is_verified_with_its_key_and_no_other() {
    let (ours, theirs) = (signers(), signers());
    let all = set(&ours.iter().map(Signer::members).collect::<Vec<_>>()).unwrap();
    assert_eq!((all.len(), all.refused), (5, Refused::default()));
    for algorithm in ALL {
        let token = signer_of(&ours, algorithm).token(algorithm, None);
        assert_eq!(verify(&all, &token), Ok(()), "{algorithm}");
        let forged = signer_of(&theirs, algorithm).token(algorithm, None);
        assert_eq!(verify(&all, &forged), Err(SignatureError::Mismatch), "{algorithm}");
        let (content, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = content.split_once('.').unwrap();
        let changed = format!("{header}.{}.{signature}", encode(r#"{"iss":"i","sub":"admin"}"#));
        assert_eq!(verify(&all, &changed), Err(SignatureError::Mismatch), "{algorithm}");
    }
}

#[test]
fn the_key_says_which_algorithm() {
    let signer = Signer::rsa();
    let only = set(&[format!(r#"{},"alg":"RS256","kid":"a""#, signer.members())]).unwrap();
    assert_eq!(verify(&only, &signer.token("RS256", Some("a"))), Ok(()));
    for other in ["RS384", "PS256"] {
        assert_eq!(verify(&only, &signer.token(other, Some("a"))), Err(SignatureError::NoSuchKey), "{other}");
    }
    // A shared secret is no public key: such tokens do not come this far.
    for algorithm in ["HS256", "none", "None", "rs256"] {
        let token = signer.token("RS256", Some("a"));
        let (_, rest) = token.split_once('.').unwrap();
        let renamed = format!("{}.{rest}", encode(format!(r#"{{"alg":"{algorithm}"}}"#)));
        assert!(SignedToken::parse(renamed.as_bytes()).is_err(), "{algorithm}");
    }
    let curve = Signer::ec("P-256");
    let wrong = set(&[format!(r#"{},"alg":"ES384""#, curve.members())]);
    assert!(matches!(wrong, Err(SetError::NoneUsable(Refused { unknown: 1, .. }))));
    for alg in ["HS256", "none", "RSA-OAEP"] {
        assert!(set(&[format!(r#"{},"alg":"{alg}""#, signer.members())]).is_err(), "{alg}");
    }
}

#[test]
fn a_key_is_found_by_its_id() {
    let (a, b) = (Signer::ec("P-256"), Signer::ec("P-256"));
    let named = |signer: &Signer, id: &str| format!(r#"{},"kid":"{id}""#, signer.members());
    let both = set(&[named(&a, "a"), named(&b, "b")]).unwrap();
    assert_eq!(verify(&both, &a.token("ES256", Some("a"))), Ok(()));
    assert_eq!(verify(&both, &a.token("ES256", Some("b"))), Err(SignatureError::Mismatch));
    assert_eq!(verify(&both, &a.token("ES256", Some("c"))), Err(SignatureError::NoSuchKey));
    assert_eq!(verify(&both, &b.token("ES256", None)), Ok(()), "a token without id tries all");
    let nameless = set(&[a.members()]).unwrap();
    assert_eq!(verify(&nameless, &a.token("ES256", Some("c"))), Ok(()), "a key without id is tried");
}

#[test]
fn no_more_than_sixteen_keys_are_tried() {
    let last = Signer::ec("P-256");
    let others = |count| (0..count).map(|_| Signer::ec("P-256").members());
    let some: Vec<String> = others(15).chain([last.members()]).collect();
    assert_eq!(verify(&set(&some).unwrap(), &last.token("ES256", None)), Ok(()));
    let many: Vec<String> = others(16).chain([last.members()]).collect();
    assert_eq!(verify(&set(&many).unwrap(), &last.token("ES256", None)), Err(SignatureError::Mismatch));
}

#[test]
fn keys_that_are_secret_weak_or_for_something_else_are_not_used() {
    let good = Signer::ec("P-256").members();
    let rsa = Signer::rsa().members();
    let with = |more: &str| format!("{},{more}", Signer::ec("P-256").members());
    let short = format!(r#""kty":"RSA","n":"{}","e":"AQAB""#, encode([0xff; 128]));
    let rows = [
        (with(r#""d":"AAAA""#), Refused { secret: 1, ..Refused::default() }),
        (format!(r#"{rsa},"p":"AAAA""#), Refused { secret: 1, ..Refused::default() }),
        (r#""kty":"oct","k":"AAAA""#.to_owned(), Refused { secret: 1, ..Refused::default() }),
        (r#""kty":"oct""#.to_owned(), Refused { secret: 1, ..Refused::default() }),
        (short, Refused { weak: 1, ..Refused::default() }),
        (with(r#""use":"enc""#), Refused { not_for_signatures: 1, ..Refused::default() }),
        (with(r#""key_ops":["encrypt"]"#), Refused { not_for_signatures: 1, ..Refused::default() }),
        (
            r#""kty":"EC","crv":"P-256","x":"AA","y":"AA""#.into(),
            Refused { unknown: 1, ..Refused::default() },
        ),
        (r#""kty":"EC","crv":"secp256k1""#.into(), Refused { unknown: 1, ..Refused::default() }),
        (r#""kty":"OKP","crv":"X25519","x":"AA""#.into(), Refused { unknown: 1, ..Refused::default() }),
        (with(r#""kid":7"#), Refused { unknown: 1, ..Refused::default() }),
    ];
    for (written, want) in rows {
        let both = set(&[written.clone(), good.clone()]).unwrap();
        assert_eq!((both.len(), both.refused), (1, want), "{written}");
        assert_eq!(set(std::slice::from_ref(&written)).unwrap_err(), SetError::NoneUsable(want), "{written}");
    }
    assert_eq!(set(&[with(r#""use":"sig","key_ops":["verify"]"#)]).unwrap().len(), 1);
}

#[test]
fn what_is_no_set_or_too_large_is_refused() {
    for text in
        ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]"#, "<html></html>", r#"{"keys":[],"keys":[]}"#]
    {
        assert_eq!(Set::parse(text.as_bytes()).unwrap_err(), SetError::Shape, "{text}");
    }
    let none = SetError::NoneUsable(Refused::default());
    assert_eq!(Set::parse(br#"{"keys":[]}"#).unwrap_err(), none);
    let deep = format!(r#"{{"keys":[],"x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    assert_eq!(Set::parse(deep.as_bytes()).unwrap_err(), SetError::Shape);
    let key = Signer::ec("P-256").members();
    assert_eq!(set(&vec![key.clone(); 100]).unwrap().len(), 100);
    assert_eq!(set(&vec![key; 101]).unwrap_err(), SetError::TooMany);
    let long = format!(r#"{{"keys":[],"x":"{}"}}"#, "a".repeat(300_000));
    assert_eq!(Set::parse(long.as_bytes()).unwrap_err(), SetError::TooLong);
}
