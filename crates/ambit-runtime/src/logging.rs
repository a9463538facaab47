//! Logs: plain or JSON, one line an event, never blocking the data path.
//!
//! The formats are those operators of ztunnel know: `TIME\tLEVEL\tSCOPE\tMESSAGE\tk=v …` with strings in quotes, or one
//! flat JSON object. Control characters are escaped, long text is cut. A full queue drops lines and counts them, as does
//! a reader that is gone.

use std::io::{self, IoSlice, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod format;
#[cfg(test)]
pub(crate) mod tests;

pub use format::Format;

/// Lines that wait for a slow reader before further ones are dropped.
const QUEUE_LINES: usize = 10_000;

/// Lines written at once; the kernel takes 1024 pieces.
const BATCH_LINES: usize = 512;
/// How long the writer lets lines gather: waking it for each would cost a connection more than its line does.
const GATHER: Duration = Duration::from_millis(5);
/// Longest wait for the last lines at the end of the program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The writer of this process.
static WRITER: OnceLock<LineWriter> = OnceLock::new();

/// The filter or the format is not understood, or logging was started twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// `RUST_LOG` or the level given is no filter.
    #[error(
        "log filter {filter:?} is not understood; use a level such as \"info\" or \"ztunnel=debug,info\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// The parser's answer.
        #[source]
        cause: tracing_subscriber::filter::ParseError,
    },
    /// `LOG_FORMAT` is no format.
    #[error("log format {format:?} is neither \"plain\" nor \"json\"")]
    Format {
        /// What was given.
        format: String,
    },
    /// Something else has installed a subscriber.
    #[error("logging is already started in this process")]
    Started,
    /// The writer's thread could not be started.
    #[error("starting the log writer's thread")]
    Thread(#[source] io::Error),
}

/// Changes the filter while the program runs.
#[derive(Clone)]
pub struct LogControl {
    reload: tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>,
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogControl")
    }
}

impl LogControl {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LoggingError::Filter`] if it is not understood; the old one stays in force.
    pub fn set(&self, filter: &str) -> Result<(), LoggingError> {
        let parsed = parse(filter)?;
        self.reload.reload(parsed).map_err(|_| LoggingError::Started)
    }

    /// The filter in force.
    pub fn current(&self) -> String {
        self.reload.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Starts logging to stdout with the given filter (`RUST_LOG` syntax) and format.
///
/// # Errors
/// [`LoggingError`] if an argument is not understood or logging was started before.
pub fn start(filter: &str, format: Format) -> Result<LogControl, LoggingError> {
    let (layer, reload) = tracing_subscriber::reload::Layer::new(parse(filter)?);
    let writer = LineWriter::start(io::stdout())?;
    WRITER.set(writer.clone()).map_err(|_| LoggingError::Started)?;
    let lines = tracing_subscriber::fmt::layer().event_format(format).with_writer(writer).with_ansi(false);
    tracing_subscriber::registry().with(layer).with(lines).try_init().map_err(|_| LoggingError::Started)?;
    Ok(LogControl { reload })
}

/// Waits at most a second until every line is written; a program's last act.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|cause| LoggingError::Filter { filter: filter.to_owned(), cause })
}

/// What the writer's thread is given.
enum Item {
    Line(Vec<u8>),
    /// Everything before this is to be written, then said.
    Flush(SyncSender<()>),
}

/// Hands lines to a thread that writes them; drops them when the reader is too slow.
#[derive(Clone)]
struct LineWriter {
    lines: SyncSender<Item>,
}

impl LineWriter {
    fn start(mut out: impl Write + Send + 'static) -> Result<Self, LoggingError> {
        let (lines, queue) = sync_channel(QUEUE_LINES);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&queue, &mut out, lost))
            .map_err(LoggingError::Thread)?;
        Ok(Self { lines })
    }

    fn flush(&self) {
        let (written, done) = sync_channel(1);
        // A full queue means that nobody reads; there is no use in waiting then.
        if self.lines.try_send(Item::Flush(written)).is_ok() {
            let _ = done.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Counts lines that nobody will read.
fn lost(lines: usize) {
    metrics::counter!("ambit_log_records_lost_total").increment(lines as u64);
}

fn write_lines(queue: &Receiver<Item>, out: &mut impl Write, mut lost: impl FnMut(usize)) {
    while let Ok(first) = queue.recv() {
        let (mut lines, mut flushes) = (Vec::new(), Vec::new());
        for item in std::iter::once(first).chain(queue.try_iter().take(BATCH_LINES - 1)) {
            match item {
                Item::Line(line) => lines.push(line),
                Item::Flush(written) => flushes.push(written),
            }
        }
        match write_all(&lines, out) {
            0 => {}
            unwritten => lost(unwritten),
        }
        let is_behind = lines.len() == BATCH_LINES;
        for written in flushes {
            // Who asked may have given up.
            let _ = written.try_send(());
        }
        if !is_behind {
            std::thread::sleep(GATHER);
        }
    }
}

/// Writes lines; how many could not be written whole.
fn write_all(lines: &[Vec<u8>], out: &mut impl Write) -> usize {
    let mut slices: Vec<IoSlice<'_>> = lines.iter().map(|line| IoSlice::new(line)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match out.write_vectored(rest) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return rest.len(),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
        }
    }
    // What a flush cannot write stays in the buffer for the next one.
    let _ = out.flush();
    0
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::with_capacity(256), lines: self.lines.clone() }
    }
}

/// One line being put together; sent when dropped.
struct Line {
    text: Vec<u8>,
    lines: SyncSender<Item>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Item::Line(text))
        {
            lost(1);
        }
    }
}
