//! TLS 1.3 between proxies: SPIFFE certificates on both sides, post-quantum key exchange first.
//!
//! No resumption, no early data, no server names: who a peer is stands in its certificate and nowhere else.

pub mod ahead;
mod bundles;
pub mod client;
pub mod credential;
pub mod csr;
pub mod error;
pub mod remaining;
pub mod rotation;
pub mod server;
pub mod spiffe;
pub mod store;
pub mod verifier;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ambit_runtime::clock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

pub use credential::Credential;
pub use error::{PeerRefused, TlsError};

/// ALPN protocol of a tunnel.
pub const ALPN_H2: &[u8] = b"h2";

/// Sealed bytes of one connection that may wait for its socket: one write of many records.
const SEALED_BYTES_MAX: usize = 256 * 1024;

static POST_QUANTUM_ONLY: AtomicBool = AtomicBool::new(false);

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups = match POST_QUANTUM_ONLY.load(Ordering::Relaxed) {
        true => vec![kx_group::X25519MLKEM768],
        false => {
            vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]
        }
    };
    let provider = CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups,
        ..default_provider()
    };
    Arc::new(provider)
});

/// The clock by which peers' certificates are judged: the one that ours are judged by.
#[derive(Debug)]
struct Wall;

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(clock::unix_seconds())))
    }
}

/// Leaves X25519MLKEM768 as the only key exchange of [`provider`] (`COMPLIANCE_POLICY=pqc`). To be called at start,
/// before anything asks for it; later it changes nothing. Calls to the control plane follow with
/// [`install_as_default`].
pub fn require_post_quantum() {
    POST_QUANTUM_ONLY.store(true, Ordering::Relaxed);
}

/// The algorithms of every tunnel: AES-GCM, X25519MLKEM768 before X25519.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Makes [`provider`] that of every connection of this process that names no other: discovery and the CA. To be
/// called at start, before the first of them; a default that is installed already stays.
pub fn install_as_default() {
    // The only error is that there is one already.
    let _ = CryptoProvider::clone(&provider()).install_default();
}
