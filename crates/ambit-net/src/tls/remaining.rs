//! What the certificates of a store have left of their life, and how many it has received, counted at each scrape and at
//! no other time.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_runtime::clock;
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::{family, series, single};

use super::credential::Credential;
use super::spiffe;
use super::store::CertificateStore;

/// Upper bounds of what certificates have left, in seconds: an hour is too little, a day is the usual whole.
const REMAINING: [u64; 6] = [60, 600, 3600, 21_600, 43_200, 86_400];

/// The certificates of a store, for its program's metrics.
#[derive(Debug)]
pub struct Remaining(CertificateStore);

impl Remaining {
    /// Of what `store` holds.
    pub fn of(store: &CertificateStore) -> Arc<Self> {
        Arc::new(Self(store.clone()))
    }
}

impl Source for Remaining {
    fn write(&self, text: &mut String) {
        let known = self.0.list();
        let held: Vec<&Credential> = known.iter().filter_map(|known| known.credential.as_deref()).collect();
        tell(text, &held, clock::unix_seconds());
        let received = *self.0.received().borrow();
        single(text, "ambit_certificates_received_total", "counter", received);
    }
}

/// Writes what the credentials that are held have left at `now`, in seconds since 1970.
fn tell(text: &mut String, held: &[&Credential], now: u64) {
    const LEFT: &str = "ambit_certificate_remaining_seconds";
    let left: Vec<u64> = held.iter().map(|c| c.not_after().saturating_sub(now)).collect();
    family(text, "ambit_certificate_remaining_seconds", "histogram");
    for bound in REMAINING {
        let within = left.iter().filter(|left| **left <= bound).count();
        series(text, &format!("{LEFT}_bucket"), &format!("le=\"{bound}\""), within);
    }
    series(text, &format!("{LEFT}_bucket"), "le=\"+Inf\"", left.len());
    series(text, &format!("{LEFT}_sum"), "", left.iter().sum::<u64>());
    series(text, &format!("{LEFT}_count"), "", left.len());
    let shares = held.iter().map(|c| share(c.not_before(), c.not_after(), now));
    if let Some(least) = shares.min_by(f64::total_cmp) {
        single(text, "ambit_certificate_remaining_ratio", "gauge", least);
    }
    // Identities of one trust domain share their roots.
    let roots: BTreeSet<&[u8]> = held.iter().flat_map(|c| c.roots()).map(|der| &**der).collect();
    let ends = roots.into_iter().filter_map(|der| Some(spiffe::validity(der).ok()?.1));
    if let Some(first) = ends.min() {
        single(text, "ambit_root_remaining_seconds", "gauge", first.saturating_sub(now));
    }
}

/// What is left of a life from `begin` to `end` at `now`, all in seconds since 1970; 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "lives are far below 2^52 seconds")]
fn share(begin: u64, end: u64, now: u64) -> f64 {
    let whole = end.saturating_sub(begin).max(1);
    (end.saturating_sub(now) as f64 / whole as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_whole_life() {
        let rows = [(100, 200, 100, 1.0), (100, 200, 175, 0.25), (100, 200, 300, 0.0), (100, 200, 50, 1.0)];
        for (begin, end, now, want) in rows {
            assert!((share(begin, end, now) - want).abs() < 1e-9, "{begin}..{end} at {now}");
        }
    }

    #[test]
    fn a_store_without_certificates_has_no_least_one() {
        let mut text = String::new();
        tell(&mut text, &[], 0);
        assert!(text.contains("ambit_certificate_remaining_seconds_count 0\n"), "{text}");
        assert!(!text.contains("ratio") && !text.contains("root"), "{text}");
    }
}
