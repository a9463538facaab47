//! Output: the table on standard output, progress on standard error.
//!
//! A reader that went away is no reason to stop: the results are in the file too.

use std::io::Write as _;

/// Prints results.
pub(crate) fn data(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// Says something to a person.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
