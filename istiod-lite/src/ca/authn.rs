//! Who calls: a bearer token, verified on every call.
//!
//! Either keys of the issuer are at hand: the signature is checked first, then what the token says of itself. Or an API
//! server is asked (`review`). Where it came from, and whether its node exists, is decided later, together with
//! everything else. Nobody is trusted for calling from this machine (T-46).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_types::Str;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use tonic::Code;

use super::review::Reviewer;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(30);
/// What a service account's subject begins with.
pub(super) const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What tokens must say.
#[derive(Debug, Clone)]
pub struct Expected {
    /// `iss`.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
    /// Longest time between now and `exp`; longer-lived tokens are refused.
    pub life_max: Duration,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Namespace of its service account.
    pub namespace: Str,
    /// Its service account.
    pub service_account: Str,
    /// The node it is bound to; empty if none.
    pub node: Str,
    /// Uid of that node; empty if none.
    pub node_uid: Str,
    /// The pod it is bound to; empty if none.
    pub pod: Str,
    /// Uid of that pod; empty if none.
    pub pod_uid: Str,
    /// When it runs out, since 1970.
    pub expires: Duration,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFault {
    /// There is none.
    #[error("the call carries no bearer token")]
    Missing,
    /// There is more than one.
    #[error("the call carries {count} authorization headers")]
    Several {
        /// How many.
        count: usize,
    },
    /// It is no token of the kind we take.
    #[error("the token is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// None of our keys has signed it.
    #[error("the token is not signed by a trusted issuer")]
    Signature,
    /// Another issuer.
    #[error("the token's issuer is {found:?}")]
    Issuer {
        /// What it says.
        found: String,
    },
    /// For somebody else.
    #[error("the token's audience is {found:?}")]
    Audience {
        /// What it says.
        found: Vec<String>,
    },
    /// Run out.
    #[error("the token ran out {ago:?} ago")]
    Expired {
        /// How long.
        ago: Duration,
    },
    /// Not valid yet.
    #[error("the token is not valid yet, for another {ahead:?}")]
    Early {
        /// How long.
        ahead: Duration,
    },
    /// It lives too long.
    #[error("the token lives for another {left:?}, at most {max:?} is accepted")]
    LongLived {
        /// How long.
        left: Duration,
        /// At most.
        max: Duration,
    },
    /// Its subject is no service account, or another than it says elsewhere.
    #[error("the token's subject {found:?} is no service account, or not the one it names elsewhere")]
    Subject {
        /// What it says.
        found: String,
    },
    /// It is bound to no pod.
    #[error("the token is bound to no pod; mount a projected token into the pod that calls")]
    Unbound,
    /// The API server knows nobody with it.
    #[error("the API server does not accept the token: {said}")]
    NotAuthenticated {
        /// Its words.
        said: String,
    },
    /// The API server could not be asked.
    #[error("the token could not be reviewed: {why}")]
    Unreviewed {
        /// Why.
        why: String,
    },
    /// Too many tokens are under review.
    #[error("{count} tokens are under review, {of}")]
    Busy {
        /// How many.
        count: usize,
        /// Of whom.
        of: &'static str,
    },
}

impl TokenFault {
    /// Its name in records and metrics.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Missing => "token-missing",
            Self::Several { .. } => "token-several",
            Self::Malformed { .. } => "token-malformed",
            Self::Signature => "token-signature",
            Self::Issuer { .. } => "token-issuer",
            Self::Audience { .. } => "token-audience",
            Self::Expired { .. } => "token-expired",
            Self::Early { .. } => "token-early",
            Self::LongLived { .. } => "token-long-lived",
            Self::Subject { .. } => "token-subject",
            Self::Unbound => "token-unbound",
            Self::NotAuthenticated { .. } => "token-not-authenticated",
            Self::Unreviewed { .. } => "token-unreviewed",
            Self::Busy { .. } => "token-reviews",
        }
    }

    /// How the answer is classed on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreviewed { .. } => Code::Unavailable,
            Self::Busy { .. } => Code::ResourceExhausted,
            Self::Missing
            | Self::Several { .. }
            | Self::Malformed { .. }
            | Self::Signature
            | Self::Issuer { .. }
            | Self::Audience { .. }
            | Self::Expired { .. }
            | Self::Early { .. }
            | Self::LongLived { .. }
            | Self::Subject { .. }
            | Self::Unbound
            | Self::NotAuthenticated { .. } => Code::Unauthenticated,
        }
    }
}

/// Why there are no keys to verify with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key file cannot be read.
    #[error("reading the token issuer's public key from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// A key file holds no key.
    #[error("{} holds no P-256 public key in PEM", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The library's answer.
        #[source]
        cause: jsonwebtoken::errors::Error,
    },
}

/// Verifies tokens, in one of two ways.
#[derive(Debug)]
pub enum Verifier {
    /// By keys at hand.
    Keys(Keys),
    /// By asking an API server.
    Review(Reviewer),
}

impl Verifier {
    /// A verifier with the public keys (P-256, PEM) in these files; any of them may have signed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(paths: &[PathBuf], expected: Expected) -> Result<Self, KeyError> {
        Keys::open(paths, expected).map(Self::Keys)
    }

    /// Verifies the token in the values of the authorization headers of a call from `source`. `now` is the time since
    /// 1970.
    ///
    /// # Errors
    /// [`TokenFault`] names the first thing that is wrong.
    pub async fn verify(
        &self,
        headers: &[&[u8]],
        source: Option<IpAddr>,
        now: Duration,
    ) -> Result<Token, TokenFault> {
        match self {
            Self::Keys(keys) => keys.verify(headers, now),
            Self::Review(reviewer) => reviewer.verify(bearer(headers)?, source, now).await,
        }
    }

    /// Whether a token that names a pod and no node is of that pod's node: API servers before 1.32 leave the node out.
    pub fn places_by_pod(&self) -> bool {
        matches!(self, Self::Review(_))
    }
}

/// The token in the values of the authorization headers, if there is exactly one of a sane length.
pub(super) fn bearer<'h>(headers: &[&'h [u8]]) -> Result<&'h str, TokenFault> {
    let header = match headers {
        [] => return Err(TokenFault::Missing),
        [one] => *one,
        several => return Err(TokenFault::Several { count: several.len() }),
    };
    let malformed = |what: &str| TokenFault::Malformed { what: what.to_owned() };
    if header.len() > TOKEN_BYTES_MAX + "bearer ".len() {
        return Err(malformed("it is longer than 8 KiB"));
    }
    let text = std::str::from_utf8(header).map_err(|_| malformed("it is no text"))?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenFault::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenFault::Missing);
    }
    Ok(token.trim())
}

/// Verifies tokens by the keys of their issuers.
pub struct Keys {
    keys: Vec<DecodingKey>,
    expected: Expected,
    validation: Validation,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("keys", &self.keys.len()).field("expected", &self.expected).finish()
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    sub: String,
    exp: Option<u64>,
    nbf: Option<u64>,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Bound,
}

/// `aud` as RFC 7519 section 4.1.3 has it: one text or a list.
#[derive(Debug, Default)]
struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(one) => Ok(Self(vec![one])),
            list => serde_json::from_value(list).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    pod: Named,
    node: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    uid: String,
}

impl Keys {
    /// The public keys (P-256, PEM) in these files; any of them may have signed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(paths: &[PathBuf], expected: Expected) -> Result<Self, KeyError> {
        let keys = paths.iter().map(|path| read_key(path)).collect::<Result<Vec<_>, _>>()?;
        let mut validation = Validation::new(Algorithm::ES256);
        // Everything but the signature is compared below, against our own clock.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Ok(Self { keys, expected, validation })
    }

    /// Verifies the token in the values of the authorization headers. `now` is the time since 1970.
    ///
    /// # Errors
    /// [`TokenFault`] names the first thing that is wrong.
    pub fn verify(&self, headers: &[&[u8]], now: Duration) -> Result<Token, TokenFault> {
        let claims = self.signed(bearer(headers)?)?;
        check(&self.expected, claims, now)
    }

    fn signed(&self, token: &str) -> Result<Claims, TokenFault> {
        use jsonwebtoken::errors::ErrorKind;
        for key in &self.keys {
            match decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    _ => return Err(TokenFault::Malformed { what: error.to_string() }),
                },
            }
        }
        Err(TokenFault::Signature)
    }
}

fn read_key(path: &Path) -> Result<DecodingKey, KeyError> {
    let pem = std::fs::read(path).map_err(|cause| KeyError::Read { path: path.to_owned(), cause })?;
    DecodingKey::from_ec_pem(&pem).map_err(|cause| KeyError::Key { path: path.to_owned(), cause })
}

fn check(expected: &Expected, claims: Claims, now: Duration) -> Result<Token, TokenFault> {
    if claims.iss != expected.issuer {
        return Err(TokenFault::Issuer { found: claims.iss });
    }
    if !claims.aud.0.contains(&expected.audience) {
        return Err(TokenFault::Audience { found: claims.aud.0 });
    }
    let Some(expires) = claims.exp.map(Duration::from_secs) else {
        return Err(TokenFault::Malformed { what: "it never runs out".to_owned() });
    };
    if now > expires + LEEWAY {
        return Err(TokenFault::Expired { ago: now - expires });
    }
    let starts = Duration::from_secs(claims.nbf.unwrap_or_default());
    if starts > now + LEEWAY {
        return Err(TokenFault::Early { ahead: starts - now });
    }
    let left = expires.saturating_sub(now);
    if left > expected.life_max + LEEWAY {
        return Err(TokenFault::LongLived { left, max: expected.life_max });
    }
    let subject = claims.sub.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let bound = claims.kubernetes;
    match subject {
        Some((namespace, account))
            if !namespace.is_empty()
                && !account.is_empty()
                && namespace == bound.namespace
                && account == bound.serviceaccount.name =>
        {
            Ok(Token {
                namespace: Str::from(namespace),
                service_account: Str::from(account),
                node: Str::from(bound.node.name),
                node_uid: Str::from(bound.node.uid),
                pod: Str::from(bound.pod.name),
                pod_uid: Str::from(bound.pod.uid),
                expires,
            })
        }
        Some(_) | None => Err(TokenFault::Subject { found: claims.sub }),
    }
}
