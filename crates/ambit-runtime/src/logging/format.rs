//! The two line formats.

use std::fmt::{self, Debug, Write as _};
use std::str::FromStr;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LoggingError;
use crate::clock;

/// Longest value of one field, in characters; the rest is cut (T-60).
const VALUE_CHARS_MAX: usize = 2048;
/// What is set aside for the fields of a line; an access log's need about as much.
const LINE_BYTES: usize = 1024;

/// How an event becomes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Tab-separated text.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "plain" | "" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format { format: other.to_owned() }),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let spans = span_text(ctx);
        match self {
            Self::Plain => plain(out, event, &spans),
            Self::Json => json(out, event, spans),
        }
    }
}

fn span_text<S, N>(ctx: &FmtContext<'_, S, N>) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut text = String::new();
    for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
        if !text.is_empty() {
            text.push(':');
        }
        text.push_str(span.name());
        let extensions = span.extensions();
        let fields =
            extensions.get::<tracing_subscriber::fmt::FormattedFields<N>>().filter(|f| !f.is_empty());
        if let Some(fields) = fields {
            let _ = write!(text, "{{{}}}", Escaped(fields));
        }
    }
    text
}

fn plain(mut out: Writer<'_>, event: &Event<'_>, spans: &str) -> fmt::Result {
    let mut fields = Words { message: String::new(), line: String::with_capacity(LINE_BYTES) };
    event.record(&mut fields);
    let time = humantime::format_rfc3339_micros(clock::wall());
    write!(out, "{time}\t{}\t{}", level(event), event.metadata().target())?;
    if !spans.is_empty() {
        write!(out, ":{spans}")?;
    }
    write!(out, "\t{}\t", Escaped(&fields.message))?;
    out.write_str(&fields.line)?;
    out.write_char('\n')
}

fn level(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json(mut out: Writer<'_>, event: &Event<'_>, spans: String) -> fmt::Result {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut object = Map::new();
    object.insert("level".to_owned(), Value::from(level(event)));
    object
        .insert("time".to_owned(), Value::from(humantime::format_rfc3339_micros(clock::wall()).to_string()));
    object.insert("scope".to_owned(), Value::from(event.metadata().target()));
    object.insert("message".to_owned(), Value::from(cut(&fields.message)));
    if !spans.is_empty() {
        object.insert("span".to_owned(), Value::from(spans));
    }
    for (name, value) in fields.values {
        let value = match value {
            Given::Text(text) => Value::from(cut(&text)),
            Given::Other(value) => value,
        };
        object.insert(name.to_owned(), value);
    }
    writeln!(out, "{}", Value::Object(object))
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '='))
}

fn cut(text: &str) -> &str {
    if text.len() <= VALUE_CHARS_MAX {
        return text;
    }
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Text with control characters spelled out, so that nothing a peer sends can forge or colour a line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in cut(self.0).chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// An error with its causes, once each.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The fields of one event as words of a line, written as they come: a line of the access log has thirty of them.
struct Words {
    message: String,
    line: String,
}

impl Words {
    fn begin(&mut self, field: &Field) {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        self.line.push_str(field.name());
        self.line.push('=');
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            self.message = value.to_string();
            return;
        }
        self.begin(field);
        let _ = write!(self.line, "{value}");
    }

    fn quoted(&mut self, text: &str) {
        let text = cut(text);
        if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
            self.line.push('"');
            self.line.push_str(text);
            self.line.push('"');
        } else {
            let _ = write!(self.line, "{text:?}");
        }
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        self.begin(field);
        let at = self.line.len();
        let _ = write!(self.line, "{value:?}");
        let text = self.line.get(at..).unwrap_or_default();
        if needs_quotes(text) {
            let text = self.line.split_off(at);
            self.quoted(&text);
        } else {
            self.line.truncate(at + cut(text).len());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
            return;
        }
        self.begin(field);
        self.quoted(value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &with_causes(value));
    }
}

/// A value as it was given.
enum Given {
    /// A text, or what something that is no text is shown as.
    Text(String),
    /// A number or a truth value.
    Other(Value),
}

/// The fields of one event, in the order they were given.
#[derive(Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, Given)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, Given::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Given::Text(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Given::Other(Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Given::Other(Value::from(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Given::Other(Value::from(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Given::Other(Value::from(value)));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Given::Text(with_causes(value)));
    }
}

impl Fields {
    fn push(&mut self, field: &Field, value: Given) {
        if field.name() == "message" {
            self.message = match value {
                Given::Text(text) => text,
                Given::Other(value) => value.to_string(),
            };
        } else {
            self.values.push((field.name(), value));
        }
    }
}
