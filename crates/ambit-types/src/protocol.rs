//! How a workload is spoken to.

/// How connections reach a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TunnelProtocol {
    /// Plain TCP.
    #[default]
    None,
    /// HTTP/2 CONNECT over mutual TLS on port 15008.
    Hbone,
    /// Sidecar mutual TLS, which this mesh does not speak: such a workload is refused, never sent plaintext.
    LegacyIstioMtls,
}

/// What a service port declares to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AppProtocol {
    /// Nothing declared.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Plain TCP.
    Tcp,
    /// TLS by the application.
    Tls,
}

/// How decrypted traffic is handed to a workload that terminates for others (a sandwiched waypoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApplicationTunnel {
    /// Whether a PROXY protocol v2 header goes first.
    pub proxy_protocol: bool,
    /// Port that replaces the one asked for.
    pub port: Option<u16>,
}
