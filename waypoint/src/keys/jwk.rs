//! A set of public keys (JWKS, RFC 7517), and signatures checked with it. Pure.
//!
//! The key decides the algorithm: its type, its curve and, if it says so, its `alg`. A shared secret (`oct`) is never
//! a key, so that a public key cannot be taken for one; a key that comes with its private part is not used, because
//! whoever reads the set can sign with it.

use std::fmt;

use ambit_policy::jwt::{Algorithm, Claim, Claims, SignatureError, SignedToken};
use ambit_types::Str;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest text of a set, in bytes.
pub(crate) const SET_BYTES_MAX: usize = 256 << 10;

/// Most keys of a set.
const KEYS_MAX: usize = 100;

/// Most keys that are tried for one token.
const TRIED_MAX: usize = 16;

/// Length of an RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Members of a key that are secret (RFC 7518 section 6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a text is no set of keys. It names nothing of what the text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    /// Longer than [`SET_BYTES_MAX`].
    #[error("the key set is longer than {SET_BYTES_MAX} bytes")]
    TooLong,
    /// Not an object with a list of keys, a name twice, or nested too deeply.
    #[error("this is no JSON object with a list `keys`")]
    Shape,
    /// More than [`KEYS_MAX`].
    #[error("the set has more than {KEYS_MAX} keys")]
    TooMany,
    /// None of its keys can be used.
    #[error("the set has no key that can be used; refused: {0}")]
    NoneUsable(Refused),
}

/// Why keys of a set are not used, with how many each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refused {
    /// With their private part, or shared.
    pub(crate) secret: usize,
    /// RSA of fewer than 2048 bits or more than 8192.
    pub(crate) weak: usize,
    /// For encryption.
    pub(crate) not_for_signatures: usize,
    /// Malformed, of an unknown type, or with an `alg` that is not the type's.
    pub(crate) unknown: usize,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, weak, not_for_signatures, unknown } = self;
        write!(f, "secret {secret}, weak {weak}, not for signatures {not_for_signatures}, unknown {unknown}")
    }
}

/// The keys of a set that can be used.
#[derive(Debug)]
pub(crate) struct Set {
    keys: Vec<Key>,
    /// How many cannot.
    pub(crate) refused: Refused,
}

/// One public key.
struct Key {
    id: Option<Str>,
    /// Each algorithm that it may be used with.
    uses: Vec<(Algorithm, ParsedPublicKey)>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Set {
    /// Reads a set.
    ///
    /// # Errors
    /// [`SetError`]; keys that cannot be used are left out and counted, unless there is no other.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SetError> {
        if json.len() > SET_BYTES_MAX {
            return Err(SetError::TooLong);
        }
        // The reader of claims: bounded depth, and no name twice.
        let members = Claims::parse(json).map_err(|_| SetError::Shape)?;
        let Some(Claim::List(written)) = members.get("keys") else { return Err(SetError::Shape) };
        if written.len() > KEYS_MAX {
            return Err(SetError::TooMany);
        }
        let (mut keys, mut refused) = (Vec::new(), Refused::default());
        for key in written {
            match Key::read(key) {
                Ok(key) => keys.push(key),
                Err(Unusable::Secret) => refused.secret += 1,
                Err(Unusable::Weak) => refused.weak += 1,
                Err(Unusable::NotForSignatures) => refused.not_for_signatures += 1,
                Err(Unusable::Unknown) => refused.unknown += 1,
            }
        }
        if keys.is_empty() { Err(SetError::NoneUsable(refused)) } else { Ok(Self { keys, refused }) }
    }

    /// How many keys can be used.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Checks a token's signature. Keys without an id may be any token's, and a token without one may be any key's.
    pub(crate) fn verify(&self, token: &SignedToken<'_>) -> Result<(), SignatureError> {
        let wanted = token.key_id();
        let is_candidate = |key: &&Key| match (key.id.as_deref(), wanted) {
            (Some(id), Some(wanted)) => id == wanted,
            (None, _) | (_, None) => true,
        };
        let of_algorithm =
            |key: &Key| key.uses.iter().position(|(algorithm, _)| *algorithm == token.algorithm());
        let mut told = SignatureError::NoSuchKey;
        let candidates = self.keys.iter().filter(is_candidate);
        let candidates = candidates.filter_map(|key| Some(&key.uses[of_algorithm(key)?].1));
        for key in candidates.take(TRIED_MAX) {
            if key.verify_sig(token.signed(), token.signature()).is_ok() {
                return Ok(());
            }
            told = SignatureError::Mismatch;
        }
        Err(told)
    }
}

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusable {
    Secret,
    Weak,
    NotForSignatures,
    Unknown,
}

impl Key {
    fn read(written: &Claim) -> Result<Self, Unusable> {
        let Claim::Object(members) = written else { return Err(Unusable::Unknown) };
        if SECRET_MEMBERS.iter().any(|name| members.contains_key(*name)) {
            return Err(Unusable::Secret);
        }
        let text = |name: &str| members.get(name).and_then(Claim::as_text);
        let is_to_verify = match members.get("key_ops") {
            None => true,
            Some(operations) => operations.texts().any(|operation| operation == "verify"),
        };
        if !is_to_verify || members.contains_key("use") && text("use") != Some("sig") {
            return Err(Unusable::NotForSignatures);
        }
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let parsed = match text("kty").ok_or(Unusable::Unknown)? {
            "RSA" => rsa(bytes("n"), bytes("e"))?,
            "EC" => elliptic(text("crv"), bytes("x"), bytes("y"))?,
            "OKP" => edwards(text("crv"), bytes("x"))?,
            "oct" => return Err(Unusable::Secret),
            _ => return Err(Unusable::Unknown),
        };
        let uses = match members.get("alg") {
            None => parsed,
            Some(alg) => {
                let only = alg.as_text().and_then(algorithm).ok_or(Unusable::Unknown)?;
                parsed.into_iter().filter(|(algorithm, _)| *algorithm == only).collect()
            }
        };
        let id = match members.get("kid") {
            None => None,
            Some(id) => Some(id.as_text().ok_or(Unusable::Unknown)?.into()),
        };
        if uses.is_empty() { Err(Unusable::Unknown) } else { Ok(Self { id, uses }) }
    }
}

/// The value of a key's `alg`. RFC 9864 renames what EdDSA with this curve is called.
fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDsa) } else { Algorithm::parse(name) }
}

type Uses = Vec<(Algorithm, ParsedPublicKey)>;

fn rsa(modulus: Option<Vec<u8>>, exponent: Option<Vec<u8>>) -> Result<Uses, Unusable> {
    let (Some(n), Some(e)) = (modulus, exponent) else { return Err(Unusable::Unknown) };
    // Some write a sign byte before the number.
    let (n, e) = (without_zeros(&n), without_zeros(&e));
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable::Weak);
    }
    let ways: [(Algorithm, &'static signature::RsaParameters); 6] = [
        (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
        (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
        (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    let parse = |(algorithm, way): (Algorithm, &'static signature::RsaParameters)| {
        let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(way);
        key.map(|key| (algorithm, key)).map_err(|_| Unusable::Unknown)
    };
    ways.into_iter().map(parse).collect()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn elliptic(curve: Option<&str>, x: Option<Vec<u8>>, y: Option<Vec<u8>>) -> Result<Uses, Unusable> {
    let (Some(x), Some(y)) = (x, y) else { return Err(Unusable::Unknown) };
    let (algorithm, way, length): (_, &'static dyn signature::VerificationAlgorithm, _) = match curve {
        Some("P-256") => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        Some("P-384") => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        Some("P-521") => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        Some(_) | None => return Err(Unusable::Unknown),
    };
    if x.len() != length || y.len() != length {
        return Err(Unusable::Unknown);
    }
    // An uncompressed point (SEC 1 section 2.3.3).
    let point = [&[4][..], &x, &y].concat();
    let key = ParsedPublicKey::new(way, point).map_err(|_| Unusable::Unknown)?;
    Ok(vec![(algorithm, key)])
}

fn edwards(curve: Option<&str>, x: Option<Vec<u8>>) -> Result<Uses, Unusable> {
    let Some(x) = x.filter(|_| curve == Some("Ed25519")) else { return Err(Unusable::Unknown) };
    let key = ParsedPublicKey::new(&signature::ED25519, x).map_err(|_| Unusable::Unknown)?;
    Ok(vec![(Algorithm::EdDsa, key)])
}

#[cfg(test)]
mod tests;
