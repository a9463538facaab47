//! Node tokens: what a node's proxy shows to the control plane and the CA.
//!
//! Plays the part of the cluster's service account issuer: one key a lab, short-lived tokens bound to audience,
//! pod and node, replaced in their files before half of their life is over. Who is given a token is decided by
//! the caller; who accepts one, by the CA.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_runtime::clock;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;

/// Who issues the tokens of a lab.
pub const ISSUER: &str = "ambit-lab";
/// For whom they are meant.
pub const AUDIENCE: &str = "istio-ca";
/// File of the private key, below the control plane's directory, mode 0600.
pub const KEY_FILE: &str = "token-issuer.key.pem";
/// File of the public key, below the control plane's directory.
pub const PUBLIC_FILE: &str = "token-issuer.pub.pem";
/// Life of a token. The control plane accepts up to 10 minutes.
pub const LIFE: Duration = Duration::from_secs(9 * 60);
/// From one writing of a token to the next: under half of its life.
pub const REFRESH: Duration = Duration::from_secs(4 * 60);
/// Pause before a token that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The service account of the node proxies.
const NAMESPACE: &str = "istio-system";
const SERVICE_ACCOUNT: &str = "ztunnel";

/// Why tokens cannot be issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A file could not be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The key could not be made or understood.
    #[error("the token issuer's key {} is no P-256 key in PEM; remove it to have a new one made", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// The library's answer.
        #[source]
        cause: rcgen::Error,
    },
    /// The token could not be signed.
    #[error("signing a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Whom a token is for: one node's proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Name of the node.
    pub node: String,
    /// Uid of the Node object.
    pub node_uid: String,
    /// Uid of the proxy's pod; the same for the life of the lab.
    pub pod_uid: String,
}

/// What a token says, in the layout of Kubernetes' projected service account tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// For whom it is meant.
    pub aud: Vec<String>,
    /// Whose it is: `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// From when it is valid, in seconds since 1970.
    pub nbf: u64,
    /// When it runs out, in seconds since 1970.
    pub exp: u64,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

/// What a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Namespace of service account and pod.
    pub namespace: String,
    /// The service account.
    pub serviceaccount: Named,
    /// The pod.
    pub pod: Named,
    /// The node.
    pub node: Named,
}

/// Name and uid of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid; left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Claims {
    /// What the token of a node's proxy says.
    pub fn of(bearer: &Bearer, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let named = |name: String, uid: &str| Named { name, uid: Some(uid.to_owned()) };
        Self {
            iss: ISSUER.to_owned(),
            aud: vec![AUDIENCE.to_owned()],
            sub: format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"),
            iat: now,
            nbf: now,
            exp: now + LIFE.as_secs(),
            kubernetes: Bound {
                namespace: NAMESPACE.to_owned(),
                serviceaccount: Named { name: SERVICE_ACCOUNT.to_owned(), uid: None },
                pod: named(format!("{SERVICE_ACCOUNT}-{}", bearer.node), &bearer.pod_uid),
                node: named(bearer.node.clone(), &bearer.node_uid),
            },
        }
    }
}

/// Holds a lab's key and signs with it.
pub struct Issuer {
    key: EncodingKey,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer { key: .. }")
    }
}

impl Issuer {
    /// Takes the key in the control plane's directory, or makes one; writes the public key beside it.
    ///
    /// # Errors
    /// If a file cannot be read or written, or holds something else.
    pub fn load_or_create(directory: &Path) -> Result<Self, TokenError> {
        let path = directory.join(KEY_FILE);
        let bad = |cause| TokenError::Key { path: path.clone(), cause };
        let pair = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(bad)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(bad)?;
                write_private(&path, &pair.serialize_pem())?;
                pair
            }
            Err(cause) => return Err(TokenError::File { doing: "reading", path, cause }),
        };
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
        write_private(&directory.join(PUBLIC_FILE), &pair.public_key_pem())?;
        Ok(Self { key })
    }

    /// Signs any claims; tests use it for tokens that have to be refused.
    ///
    /// # Errors
    /// [`TokenError::Sign`].
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.key)?)
    }

    /// Writes a fresh token for a node's proxy into a file, in one step.
    ///
    /// # Errors
    /// If it cannot be signed or written; the old file is as it was then.
    pub fn refresh(&self, bearer: &Bearer, path: &Path, now: SystemTime) -> Result<(), TokenError> {
        let token = self.sign(&Claims::of(bearer, now))?;
        write_private(path, &token)
    }
}

/// Keeps the tokens in these files fresh until dropped. The first writing is the caller's: [`Issuer::refresh`].
pub async fn keep_fresh(issuer: Arc<Issuer>, tokens: Vec<(Bearer, PathBuf)>) {
    let mut pause = REFRESH;
    loop {
        tokio::time::sleep(pause).await;
        pause = REFRESH;
        for (bearer, path) in &tokens {
            if let Err(error) = issuer.refresh(bearer, path, clock::wall()) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(node = bearer.node, error, "writing a fresh node token");
                pause = AGAIN;
            }
        }
    }
}

/// Writes a file that only its owner reads; a reader sees the old text or the new, never a part.
fn write_private(path: &Path, text: &str) -> Result<(), TokenError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let fail = |cause| TokenError::File { doing: "writing", path: path.to_owned(), cause };
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    drop(file);
    fs::rename(&fresh, path).map_err(fail)
}

#[cfg(test)]
mod tests;
