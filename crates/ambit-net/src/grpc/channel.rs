//! A TLS channel to the control plane, and the headers every call carries.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Where the control plane is and how it proves itself.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https://HOST:PORT`; https is added where no scheme is given.
    pub address: String,
    /// A file of PEM roots, PEM itself, or `SYSTEM`. Read anew for every channel, so a rotated root is found.
    pub roots: String,
    /// Another name the server's certificate may have, tried second.
    pub alternative_name: Option<String>,
    /// The address to call from, where the system's choice will not do.
    pub local_address: Option<IpAddr>,
}

/// What identifies the caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// A token file, or the token itself. Read anew for every call.
    pub token: String,
    /// Cluster id, sent as `clusterid`.
    pub cluster_id: String,
    /// More headers, as some control planes want them.
    pub headers: Vec<(String, String)>,
}

/// Why there is no channel or no header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The roots cannot be read.
    #[error("reading the control plane's roots from {path}; was the trust bundle mounted?")]
    Roots {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// The address is none, or the TLS settings are refused.
    #[error("preparing the channel to {address}")]
    Endpoint {
        /// The address.
        address: String,
        /// The library's answer.
        #[source]
        cause: tonic::transport::Error,
    },
    /// The address is not https.
    #[error("{address} is not https; the control plane is only spoken to with TLS")]
    Scheme {
        /// The address.
        address: String,
    },
    /// No connection.
    #[error("connecting to the control plane at {address}")]
    Connect {
        /// The address.
        address: String,
        /// The library's answer.
        #[source]
        cause: tonic::transport::Error,
    },
    /// A header that was set is none.
    #[error("the header {name:?} or its value has characters that no header may have")]
    Header {
        /// Its name.
        name: String,
    },
    /// The token cannot be read or is empty.
    #[error("reading the token from {path}: {what}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl Target {
    /// Connects, trying the alternative name if the first is refused.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub async fn connect(&self) -> Result<Channel, ChannelError> {
        let address = self.https()?;
        let pem = self.read_roots()?;
        let first = self.connect_as(&address, &pem, None).await;
        match (&self.alternative_name, first) {
            (Some(name), Err(_)) => self.connect_as(&address, &pem, Some(name)).await,
            (_, first) => first,
        }
    }

    async fn connect_as(
        &self,
        address: &str,
        pem: &[u8],
        name: Option<&str>,
    ) -> Result<Channel, ChannelError> {
        let wrong = |cause| ChannelError::Endpoint { address: address.to_owned(), cause };
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).timeout(CONNECT_TIMEOUT);
        if let Some(name) = name {
            tls = tls.domain_name(name);
        }
        Endpoint::from_shared(address.to_owned())
            .map_err(wrong)?
            .tls_config(tls)
            .map_err(wrong)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Some(Duration::from_secs(300)))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .local_address(self.local_address)
            .connect()
            .await
            .map_err(|cause| ChannelError::Connect { address: address.to_owned(), cause })
    }

    fn https(&self) -> Result<String, ChannelError> {
        if self.address.starts_with("https://") {
            return Ok(self.address.clone());
        }
        if self.address.contains("://") {
            return Err(ChannelError::Scheme { address: self.address.clone() });
        }
        Ok(format!("https://{}", self.address))
    }

    fn read_roots(&self) -> Result<Vec<u8>, ChannelError> {
        if self.roots.contains("-----BEGIN") {
            return Ok(self.roots.clone().into_bytes());
        }
        let path = match &*self.roots {
            "SYSTEM" => system_roots(),
            path => path,
        };
        std::fs::read(path).map_err(|cause| ChannelError::Roots { path: path.to_owned(), cause })
    }
}

/// Longest wait for TCP, and then for TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The operating system's bundle of roots, where distributions keep it.
pub fn system_roots() -> &'static str {
    let known =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
    known.into_iter().find(|path| Path::new(path).exists()).unwrap_or(known[0])
}

impl Caller {
    /// Adds `authorization`, `clusterid` and the other headers.
    ///
    /// # Errors
    /// [`ChannelError::Token`] or [`ChannelError::Header`].
    pub fn identify(&self, headers: &mut MetadataMap) -> Result<(), ChannelError> {
        let fail = |what: &str| ChannelError::Token { path: self.shown(), what: what.to_owned() };
        let text = if self.is_literal() {
            self.token.clone()
        } else {
            std::fs::read_to_string(&self.token).map_err(|e| fail(&e.to_string()))?
        };
        let token = text.trim();
        if token.is_empty() {
            return Err(fail("it is empty"));
        }
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| fail("it has characters no header may have"))?;
        bearer.set_sensitive(true);
        headers.insert("authorization", bearer);
        if let Ok(cluster) = self.cluster_id.parse() {
            headers.insert("clusterid", cluster);
        }
        for (name, value) in &self.headers {
            let key = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes());
            let (Ok(key), Ok(value)) = (key, value.parse()) else {
                return Err(ChannelError::Header { name: name.clone() });
            };
            headers.insert(key, value);
        }
        Ok(())
    }

    /// A token has two dots and no slash at its head; anything else is a path.
    fn is_literal(&self) -> bool {
        self.token.matches('.').count() == 2 && !self.token.contains('/') && !Path::new(&self.token).exists()
    }

    /// What may stand in an error: a path, never the token.
    fn shown(&self) -> String {
        if self.is_literal() { "the setting itself".to_owned() } else { self.token.clone() }
    }
}
