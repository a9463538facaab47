//! Output: data on standard output, everything said to a person on standard error; exit codes.
//!
//! A reader that went away (`| head`) ends the program quietly, as other tools do.

use std::fmt::Write as _;
use std::io;

/// It worked.
pub const OK: i32 = 0;
/// The operation failed.
pub const FAILED: i32 = 1;
/// Bad usage.
pub const USAGE: i32 = 64;
/// Bad input data.
pub const BAD_DATA: i32 = 65;
/// The mesh cannot be reached.
pub const UNREACHABLE: i32 = 69;
/// A check or an analysis found something.
pub const FINDINGS: i32 = 79;
/// Interrupted.
pub const INTERRUPTED: i32 = 130;

/// Why a command failed, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of the exit codes above.
    pub code: i32,
    /// What is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// This program as it was called, for commands that somebody is to type.
pub fn program() -> String {
    std::env::args_os().next().map_or_else(|| "ambit".to_owned(), |own| own.to_string_lossy().into_owned())
}

/// Prints data.
pub fn data(text: &str) {
    write(&mut io::stdout().lock(), text, end_of(text));
}

/// Prints data as it is, without an end of line of our own.
pub fn raw(text: &str) {
    write(&mut io::stdout().lock(), text, "");
}

/// Says something to a person. What others told may be part of it, so no control character but ends of lines and tabs
/// gets to the terminal.
pub fn say(text: &str) {
    let text = printable(text);
    write(&mut io::stderr().lock(), &text, end_of(&text));
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn end_of(text: &str) -> &'static str {
    if text.ends_with('\n') || text.is_empty() { "" } else { "\n" }
}

fn write(to: &mut impl io::Write, text: &str, end: &str) {
    if let Err(e) =
        to.write_all(text.as_bytes()).and_then(|()| to.write_all(end.as_bytes())).and_then(|()| to.flush())
        && e.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(OK);
    }
}

/// Lays rows out in columns under a heading, three spaces apart, as kubectl does.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_does_not_steer_the_terminal() {
        assert_eq!(printable("n1: \u{1b}[2J\u{9b}31mall\tis\r well\u{7}\n"), "n1: [2J31mall\tis well\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\na        1\nlonger\n");
    }
}
