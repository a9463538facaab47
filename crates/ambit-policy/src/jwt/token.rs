//! A signed token in compact form, taken apart but not believed (RFC 7515 section 7.1).

use ambit_types::Str;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::TokenError;
use super::claims::{Claim, Claims};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Longest `kid`, in bytes.
const KEY_ID_BYTES_MAX: usize = 512;

/// What a token says it is signed with. `none` and HMACs have no place here: a public key is no shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// Reads the value of `alg`, exactly as registered.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token taken apart. Nothing in it is true before its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedToken<'t> {
    signed: &'t str,
    payload_text: &'t str,
    payload: Vec<u8>,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key_id: Option<Str>,
}

impl<'t> SignedToken<'t> {
    /// Takes a token apart.
    ///
    /// Keys that the header itself brings or points to (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
    ///
    /// # Errors
    /// [`TokenError`] for length, shape, header, algorithm and `crit`.
    pub fn parse(token: &'t [u8]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: token.len() });
        }
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Shape)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, payload_text) = signed.split_once('.').ok_or(TokenError::Shape)?;
        if payload_text.contains('.') {
            return Err(TokenError::Shape);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape);
        let (header, payload, signature) = (decode(header)?, decode(payload_text)?, decode(signature)?);
        let (algorithm, key_id) = read_header(&header)?;
        Ok(Self { signed, payload_text, payload, signature, algorithm, key_id })
    }

    /// What the signature is over.
    pub fn signed(&self) -> &'t [u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// What the token says it is signed with; a key of another algorithm must not verify it.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Which key the token says it is signed with: a name to compare, nothing else.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The payload, decoded.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload as it stands in the token.
    pub fn payload_text(&self) -> &'t str {
        self.payload_text
    }
}

fn read_header(json: &[u8]) -> Result<(Algorithm, Option<Str>), TokenError> {
    let header = Claims::parse(json).map_err(|_| TokenError::Header)?;
    if header.get("crit").is_some() {
        return Err(TokenError::Critical);
    }
    let name = header.get("alg").and_then(Claim::as_text).ok_or(TokenError::Algorithm)?;
    let algorithm = Algorithm::parse(name).ok_or(TokenError::Algorithm)?;
    let key_id = match header.get("kid") {
        None => None,
        Some(Claim::Text(id)) if id.len() <= KEY_ID_BYTES_MAX => Some(id.clone()),
        Some(_) => return Err(TokenError::Header),
    };
    Ok((algorithm, key_id))
}
