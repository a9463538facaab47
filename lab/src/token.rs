//! Service account tokens: what a node's proxy and a pod show to the control plane and the CA.
//!
//! Plays the part of the cluster's service account issuer: one key a lab, short-lived tokens bound to audience,
//! pod and node, replaced in their files before they run out. Who is given a token is decided by the caller; who
//! accepts one, by the CA.

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

use crate::kube::tokens::Requests;

/// Who issues the tokens of a lab.
pub const ISSUER: &str = "ambit-lab";
/// For whom the tokens of the node proxies are meant.
pub const AUDIENCE: &str = "istio-ca";
/// File of the private key, below the control plane's directory, mode 0600.
pub const KEY_FILE: &str = "token-issuer.key.pem";
/// File of the public key, below the control plane's directory.
pub const PUBLIC_FILE: &str = "token-issuer.pub.pem";
/// For whom a pod's token is meant whose volume names nobody: the API server, as in a cluster.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// Life of a token, and the longest a pod can ask for. The control plane accepts up to 10 minutes.
pub const LIFE: Duration = Duration::from_secs(9 * 60);
/// From one writing of a node proxy's token to the next: under half of its life.
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
    /// The API server gave none.
    #[error("asking for a token of {account} for pod {pod}: {why}")]
    Server {
        /// Namespace and name of the service account.
        account: String,
        /// The pod that it is for.
        pod: String,
        /// What the server said.
        why: String,
    },
    /// The token could not be signed.
    #[error("signing a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Whom a token is for: a pod of a service account on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Namespace of service account and pod.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the node.
    pub node: String,
    /// Uid of the Node object.
    pub node_uid: String,
    /// For whom the token is meant.
    pub audience: String,
    /// How long the token lives; [`LIFE`] at most.
    pub life: Duration,
}

impl Bearer {
    /// The proxy of a node. The uid of its pod is the same for the life of the lab.
    pub fn node_proxy(node: &str, node_uid: &str, pod_uid: String) -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            service_account: SERVICE_ACCOUNT.to_owned(),
            pod: format!("{SERVICE_ACCOUNT}-{node}"),
            pod_uid,
            node: node.to_owned(),
            node_uid: node_uid.to_owned(),
            audience: AUDIENCE.to_owned(),
            life: LIFE,
        }
    }

    /// When a pod's token is replaced, counted from its issue: at four fifths of its life, as kubelets do it.
    pub fn refresh_after(&self) -> Duration {
        self.life.min(LIFE) * 4 / 5
    }
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
    /// What somebody's token says that is issued at `now`.
    pub fn of(bearer: &Bearer, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let known = |uid: &str| Some(uid.to_owned()).filter(|uid| !uid.is_empty());
        let named = |name: &str, uid: &str| Named { name: name.to_owned(), uid: known(uid) };
        Self {
            iss: ISSUER.to_owned(),
            aud: vec![bearer.audience.clone()],
            sub: format!("system:serviceaccount:{}:{}", bearer.namespace, bearer.service_account),
            iat: now,
            nbf: now,
            exp: now + bearer.life.min(LIFE).as_secs(),
            kubernetes: Bound {
                namespace: bearer.namespace.clone(),
                serviceaccount: named(&bearer.service_account, ""),
                pod: named(&bearer.pod, &bearer.pod_uid),
                node: named(&bearer.node, &bearer.node_uid),
            },
        }
    }
}

/// Gives tokens out: holds a lab's key and signs with it, or asks the API server that does.
pub struct Issuer {
    from: Origin,
}

/// From where tokens come.
enum Origin {
    Key(EncodingKey),
    Server(Requests),
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer { .. }")
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
        Ok(Self { from: Origin::Key(key) })
    }

    /// Asks an API server, which knows pods and accounts.
    pub fn server(requests: Requests) -> Self {
        Self { from: Origin::Server(requests) }
    }

    /// Signs any claims; tests use it for tokens that have to be refused.
    ///
    /// # Errors
    /// [`TokenError::Sign`]; without a key always.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        match &self.from {
            Origin::Key(key) => Ok(jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, key)?),
            Origin::Server(_) => {
                Err(jsonwebtoken::errors::Error::from(jsonwebtoken::errors::ErrorKind::InvalidEcdsaKey)
                    .into())
            }
        }
    }

    /// Writes a fresh token for somebody into a file, in one step.
    ///
    /// # Errors
    /// If it cannot be signed or written; the old file is as it was then.
    pub fn refresh(&self, bearer: &Bearer, path: &Path, now: SystemTime) -> Result<(), TokenError> {
        let token = match &self.from {
            Origin::Key(_) => self.sign(&Claims::of(bearer, now))?,
            // Callers are threads that may block.
            Origin::Server(requests) => {
                tokio::runtime::Handle::current().block_on(requests.request(bearer))?
            }
        };
        write_private(path, &token)
    }

    /// [`Self::refresh`] for tasks, which may not block.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn renew(&self, bearer: &Bearer, path: &Path) -> Result<(), TokenError> {
        match &self.from {
            Origin::Key(_) => self.refresh(bearer, path, clock::wall()),
            Origin::Server(requests) => write_private(path, &requests.request(bearer).await?),
        }
    }
}

/// Writes the tokens in these files anew, again and again, until dropped. The first writing is the caller's:
/// [`Issuer::refresh`].
pub async fn keep_fresh(issuer: Arc<Issuer>, tokens: Vec<(Bearer, PathBuf)>, every: Duration) {
    let mut pause = every;
    loop {
        tokio::time::sleep(pause).await;
        pause = every;
        for (bearer, path) in &tokens {
            if let Err(error) = issuer.renew(bearer, path).await {
                let error: &dyn std::error::Error = &error;
                let Bearer { namespace, pod, .. } = bearer;
                tracing::warn!(namespace, pod, error, "writing a fresh token");
                pause = AGAIN.min(every);
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
