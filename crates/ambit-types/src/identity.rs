//! SPIFFE identities: who a workload is.

use std::fmt;

use crate::Str;

#[cfg(test)]
mod tests;

/// Longest trust domain, in bytes (SPIFFE-ID section 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Longest identity, in bytes (SPIFFE-ID section 2.3).
pub const IDENTITY_BYTES_MAX: usize = 2048;

/// Root of trust an identity belongs to, such as `cluster.local`. Lower case, never empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Str);

impl TrustDomain {
    /// Reads a trust domain: letters, digits, dots, dashes and underscores, lower case, at most 255 bytes.
    ///
    /// # Errors
    /// [`IdentityError::TrustDomain`] for anything else. Spec: SPIFFE-ID section 2.1.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain { found: shorten(text) });
        }
        Ok(Self(Str::from(text)))
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, which an empty field means on the wire.
    fn default() -> Self {
        Self(Str::from("cluster.local"))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: TrustDomain,
    namespace: Str,
    service_account: Str,
}

impl Identity {
    /// Makes an identity of parts that are already known to be valid names.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: impl Into<Str>,
        service_account: impl Into<Str>,
    ) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// Reads an identity such as `spiffe://prod.example/ns/shop/sa/cart`.
    ///
    /// # Errors
    /// [`IdentityError`] names the rule that is broken. Spec: SPIFFE-ID section 2; the path layout is Istio's.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        if uri.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLong { bytes: uri.len() });
        }
        let rest =
            uri.strip_prefix("spiffe://").ok_or_else(|| IdentityError::Scheme { found: shorten(uri) })?;
        let (domain, path) =
            rest.split_once('/').ok_or_else(|| IdentityError::Path { found: shorten(rest) })?;
        let trust_domain = TrustDomain::parse(domain)?;
        let bad_path = || IdentityError::Path { found: shorten(path) };
        let mut pieces = path.split('/');
        let (Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(bad_path());
        };
        if !is_label(namespace) || !is_subdomain(account) {
            return Err(bad_path());
        }
        Ok(Self::new(trust_domain, namespace, account))
    }

    /// Root of trust.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Kubernetes namespace.
    pub fn namespace(&self) -> &Str {
        &self.namespace
    }

    /// Kubernetes service account.
    pub fn service_account(&self) -> &Str {
        &self.service_account
    }

    /// The form policies compare: without `spiffe://`.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It does not begin with `spiffe://`.
    #[error("{found:?} does not begin with \"spiffe://\"")]
    Scheme {
        /// What was given, shortened.
        found: String,
    },
    /// The trust domain is empty, too long or has characters SPIFFE forbids.
    #[error("{found:?} is no trust domain: 1 to 255 of a-z, 0-9, dot, dash, underscore")]
    TrustDomain {
        /// What was given, shortened.
        found: String,
    },
    /// The path is not `ns/NAMESPACE/sa/ACCOUNT`.
    #[error("path {found:?} is not ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Path {
        /// What was given, shortened.
        found: String,
    },
    /// Longer than SPIFFE allows.
    #[error("identity of {bytes} bytes is longer than 2048")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// An RFC 1123 label: 1 to 63 of a-z, 0-9 and inner dashes.
pub fn is_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

/// An RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
