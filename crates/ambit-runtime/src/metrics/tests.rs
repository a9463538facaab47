//! What is kept and what is dropped.

use std::time::Duration;

use super::{Registry, recorder};

#[test]
fn idle_series_go_although_nobody_scrapes() {
    // Rounds before the first scrape, whether they look for idle series, and whether those are still there then.
    let rows = [(0, true, true), (5, false, true), (2, true, false)];
    for (rounds, expire, kept) in rows {
        let recorder = recorder(Duration::ZERO).unwrap();
        let registry = Registry { handle: recorder.handle(), sources: std::sync::Arc::default() };
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("calls_total", "pod" => "gone").increment(1);
            metrics::histogram!("wait_seconds", "pod" => "gone").record(0.1);
        });
        (0..rounds).for_each(|_| registry.upkeep(expire));
        assert_eq!(registry.render().contains("gone"), kept, "{rounds} rounds, {expire}");
    }
}
