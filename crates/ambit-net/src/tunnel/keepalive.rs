//! Finding a silent peer: PING only when nothing was heard, give up when nothing answers (P13).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use h2::{Ping, PingPong};

use super::TunnelSettings;

/// Counts signs of life of a peer.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Something arrived.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Resolves when the peer has been silent for the time the settings allow.
pub async fn until_silent(mut pings: PingPong, heard: Heard, settings: &TunnelSettings) {
    loop {
        let before = heard.count();
        tokio::time::sleep(settings.ping_after).await;
        if heard.count() != before {
            continue;
        }
        match tokio::time::timeout(settings.pong_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
