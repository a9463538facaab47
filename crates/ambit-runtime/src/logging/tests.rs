//! Lines are well formed whatever is logged.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::{Format, Item, LineWriter, write_lines};

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

/// What is written while `log` runs.
pub(crate) fn logged(format: Format, log: impl FnOnce()) -> String {
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
    let text = logged(Format::Plain, || {
        tracing::info!(target: "access", { src.addr = "1.2.3.4:5", n = 3, yes = true }, "done");
    });
    let mut columns = text.trim_end().split('\t').skip(1);
    assert_eq!(columns.next(), Some("info"));
    assert_eq!(columns.next(), Some("access"));
    assert_eq!(columns.next(), Some("done"));
    assert_eq!(columns.next(), Some("src.addr=\"1.2.3.4:5\" n=3 yes=true"));
}

/// Strings always, so that readers need no second rule; what is only shown as text where it could be misread.
#[test]
fn strings_are_quoted_and_other_values_where_they_must_be() {
    let rows = [
        (logged(Format::Plain, || tracing::info!(v = "word", "m")), "v=\"word\""),
        (logged(Format::Plain, || tracing::info!(v = "a \"b\"", "m")), "v=\"a \\\"b\\\"\""),
        (logged(Format::Plain, || tracing::info!(v = "", "m")), "v=\"\""),
        (logged(Format::Plain, || tracing::info!(v = %"10.0.0.1:80", "m")), "v=10.0.0.1:80"),
        (logged(Format::Plain, || tracing::info!(v = %"it left", "m")), "v=\"it left\""),
        (logged(Format::Plain, || tracing::info!(v = ?Some(1), "m")), "v=Some(1)"),
    ];
    for (line, want) in rows {
        assert_eq!(line.trim_end().rsplit('\t').next(), Some(want), "{line}");
    }
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
    for format in [Format::Plain, Format::Json] {
        let text = logged(format, || tracing::info!(v = long, "m"));
        assert!(text.len() < 3000, "{}", text.len());
        let text = logged(format, || tracing::info!("{long}"));
        assert!(text.len() < 3000, "message: {}", text.len());
    }
}

/// Answers writes with what it was told, then takes everything.
struct Moody {
    moods: VecDeque<io::Result<usize>>,
    sink: Sink,
}

impl io::Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.moods.pop_front().unwrap_or(Ok(usize::MAX))?;
        self.sink.write(&bytes[..bytes.len().min(most)])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn interrupted_and_partial_writes_lose_nothing_and_failed_ones_are_counted() {
    let fails = |kind: io::ErrorKind| Err(io::Error::from(kind));
    let rows: [(&str, Vec<io::Result<usize>>, &str, usize); 5] = [
        ("all is well", vec![], "one\ntwo\n", 0),
        ("a signal", vec![fails(io::ErrorKind::Interrupted)], "one\ntwo\n", 0),
        ("piece by piece", vec![Ok(1), Ok(2), fails(io::ErrorKind::Interrupted), Ok(1)], "one\ntwo\n", 0),
        ("nobody reads", vec![fails(io::ErrorKind::BrokenPipe)], "", 2),
        ("the disk fills up", vec![Ok(4), fails(io::ErrorKind::StorageFull)], "one\n", 1),
    ];
    for (name, moods, written, lost) in rows {
        let sink = Sink::default();
        let (lines, queue) = sync_channel(8);
        for line in ["one\n", "two\n"] {
            lines.send(Item::Line(line.into())).unwrap();
        }
        drop(lines);
        let mut counted = 0;
        write_lines(&queue, &mut Moody { moods: moods.into(), sink: sink.clone() }, |n| counted += n);
        assert_eq!(String::from_utf8_lossy(&sink.0.lock().unwrap()), written, "{name}");
        assert_eq!(counted, lost, "{name}");
    }
}

#[test]
fn lines_that_wait_are_written_before_the_end() {
    /// Takes one line at a time, when it is let.
    struct Slow(Arc<Mutex<()>>, Sink);
    impl io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.0.lock());
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (gate, sink) = (Arc::new(Mutex::new(())), Sink::default());
    let closed = gate.lock().unwrap();
    let writer = LineWriter::start(Slow(gate.clone(), sink.clone())).unwrap();
    for _ in 0..500 {
        io::Write::write_all(&mut writer.make_writer(), b"line\n").unwrap();
    }
    assert!(sink.0.lock().unwrap().is_empty());
    drop(closed);
    writer.flush();
    assert_eq!(sink.0.lock().unwrap().len(), 500 * 5);
}
