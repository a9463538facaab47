//! Asking for certificates anew when the mounted trust bundle changes.
//!
//! A control plane that rotates its root publishes every step of it there, so its proxies follow within a minute and
//! not at their next renewal, half a certificate's life later.

use std::path::PathBuf;
use std::time::Duration;

use ambit_runtime::tasks;
use tracing::{debug, info};

use super::CertificateStore;

/// Between two readings; a mounted bundle is replaced by swapping links, which no watch of the file itself sees.
const READ: Duration = Duration::from_secs(2);

impl CertificateStore {
    /// Fetches every certificate anew whenever the file of roots changes; `roots` that are no file of ours (PEM itself,
    /// `SYSTEM`) change nothing.
    pub fn follow_roots(&self, roots: &str) {
        if roots.contains("-----BEGIN") || roots == "SYSTEM" {
            return;
        }
        let (store, path) = (self.clone(), PathBuf::from(roots));
        tasks::spawn("roots", async move {
            let mut held = None;
            let mut ticks = tokio::time::interval(READ);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let now = match std::fs::read(&path) {
                    Ok(now) => now,
                    Err(error) => {
                        // In the middle of a swap, or not mounted: what is held stays.
                        debug!(path = %path.display(), %error, "the trust bundle cannot be read");
                        continue;
                    }
                };
                let differs = held.as_ref().is_some_and(|held| *held != now);
                held = Some(now);
                if differs {
                    info!(path = %path.display(), "the trust bundle changed; certificates are fetched anew");
                    store.renew_all();
                }
            }
        });
    }
}
