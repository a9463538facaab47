//! Regular expressions: linear in the text, bounded in size, compared with the whole text.
//!
//! No part of a request ever becomes part of an expression.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::model::limits::{PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX};

/// Memory that one thread may use to speed up one expression; it is thrown away and filled anew when it is full.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// Depth of groups in an expression.
const NESTING_MAX: u32 = 64;

/// A compiled expression.
#[derive(Clone)]
pub(crate) struct Pattern {
    whole: Regex,
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is longer than is compiled for anybody.
    #[error("it has {bytes} bytes, more than {PATTERN_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It would take too much memory.
    #[error("compiled it takes more than {PATTERN_COMPILED_BYTES_MAX} bytes; use smaller repetitions")]
    TooLarge,
    /// It is not an expression, or uses what is not supported.
    #[error("{why}")]
    Syntax {
        /// What is wrong with it, in one line.
        why: String,
    },
}

impl Pattern {
    /// Compiles an expression that must agree with the whole of a text.
    ///
    /// # Errors
    /// [`PatternError`] if it is too long, too large or no expression.
    pub(crate) fn compile(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong { bytes: text.len() });
        }
        // Alone first: what is only valid inside our brackets, such as `a)|(b`, would escape the anchors.
        build(text)?;
        Ok(Self { whole: build(&format!(r"\A(?:{text})\z"))? })
    }

    /// Whether the whole text is of this form.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.whole.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.whole.as_str())
    }
}

fn build(text: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build();
    built.map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return PatternError::TooLarge;
        }
        // The crate draws the expression with a marker under it; the last line says what is wrong.
        PatternError::Syntax { why: last_line(&error.to_string()) }
    })
}

fn last_line(drawing: &str) -> String {
    let line = drawing.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
