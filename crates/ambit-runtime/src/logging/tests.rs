//! Lines are well formed whatever is logged.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::Format;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(format: Format, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let layer =
        tracing_subscriber::fmt::layer().event_format(format).with_writer(sink.clone()).with_ansi(false);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let text = sink.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

#[test]
fn hostile_text_cannot_break_a_line() {
    for format in [Format::Plain, Format::Json] {
        let text = logged(format, || tracing::info!(name = "a\nb\x1b[31m", "evil \n\x1b[2J message"));
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}

#[test]
fn plain_has_tabs_and_pairs() {
    let text =
        logged(Format::Plain, || tracing::info!(target: "access", { src.addr = "1.2.3.4:5", n = 3 }, "done"));
    let mut columns = text.trim_end().split('\t').skip(1);
    assert_eq!(columns.next(), Some("info"));
    assert_eq!(columns.next(), Some("access"));
    assert_eq!(columns.next(), Some("done"));
    assert_eq!(columns.next(), Some("src.addr=1.2.3.4:5 n=3"));
}

#[test]
fn json_is_one_flat_object() {
    let text =
        logged(Format::Json, || tracing::warn!(target: "access", { src.addr = "1.2.3.4:5", n = 3 }, "done"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["level"], "warn");
    assert_eq!(value["scope"], "access");
    assert_eq!(value["message"], "done");
    assert_eq!(value["src.addr"], "1.2.3.4:5");
    assert_eq!(value["n"], 3);
}

#[test]
fn long_values_are_cut() {
    let long = "x".repeat(70_000);
    let text = logged(Format::Plain, || tracing::info!(v = long, "m"));
    assert!(text.len() < 3000, "{}", text.len());
}
