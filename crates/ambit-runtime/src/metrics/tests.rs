//! What is kept and what is dropped, and the form of the text.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::process::Process;
use super::{Registry, recorder};

#[test]
fn idle_series_go_although_nobody_scrapes() {
    // Rounds before the first scrape, whether they look for idle series, and whether those are still there then.
    let rows = [(0, true, true), (5, false, true), (2, true, false)];
    for (rounds, expire, kept) in rows {
        let recorder = recorder(Duration::ZERO).unwrap();
        let registry = Registry { handle: recorder.handle(), sources: Arc::default() };
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("calls_total", "pod" => "gone").increment(1);
            metrics::histogram!("wait_seconds", "pod" => "gone").record(0.1);
        });
        (0..rounds).for_each(|_| registry.upkeep(expire));
        assert_eq!(registry.render().contains("gone"), kept, "{rounds} rounds, {expire}");
    }
}

#[test]
fn a_scrape_is_openmetrics() {
    let recorder = recorder(Duration::from_secs(60)).unwrap();
    let registry = Registry { handle: recorder.handle(), sources: Arc::default() };
    metrics::with_local_recorder(&recorder, || {
        metrics::counter!("calls_total", "pod" => "web").increment(2);
        metrics::gauge!("open").set(3.0);
    });
    let text = registry.render();
    let want = "# TYPE calls counter\ncalls_total{pod=\"web\"} 2\n# TYPE open gauge\nopen 3\n# EOF\n";
    assert_eq!(text, want);
}

#[tokio::test]
async fn a_scrape_tells_of_the_process_and_its_runtime() {
    let registry = Registry { handle: recorder(Duration::ZERO).unwrap().handle(), sources: Arc::default() };
    registry.add(Arc::new(Process::started(UNIX_EPOCH + Duration::from_millis(1500))));
    let text = registry.render();
    let value = |name: &str| -> Option<f64> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let mut values = lines.filter(|(of, _)| *of == name).map(|(_, value)| value.parse().unwrap());
        values.next()
    };
    assert_eq!(value("process_start_time_seconds"), Some(1.5), "{text}");
    let (open, most) = (value("process_open_fds").unwrap(), value("process_max_fds").unwrap());
    assert!(open > 0.0 && open <= most, "{open} of {most}");
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "tokio_num_workers"] {
        assert!(value(name).is_some_and(|value| value > 0.0), "{name}: {text}");
    }
    for name in ["tokio_num_alive_tasks", "tokio_global_queue_depth"] {
        assert!(value(name).is_some(), "{name}: {text}");
    }
    assert!(text.contains("# TYPE process_cpu_seconds counter\n") && text.ends_with("# EOF\n"), "{text}");
}
