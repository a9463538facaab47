//! What is wrong with a manifest, where, and what the nearest right thing is.
//!
//! Values and their wording only; the modules that find problems decide what is one.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::kind::ObjectKey;

/// A place in a manifest file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong; its `Display` reads like a compiler's message.
///
/// `file.yaml:12:7: AuthorizationPolicy shop/orders: spec.rulez: unknown field, did you mean "rules"?`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    /// Where the text at fault starts.
    pub location: Location,
    /// The object concerned, as far as its kind and name could be read.
    pub object: Option<ObjectKey>,
    /// Path of the field from the top of the document; empty when the document itself is at fault.
    pub field: String,
    /// What is wrong, in words, without the place and the suggestion.
    pub message: String,
    /// The nearest valid name or value, when one is near.
    pub nearest: Option<String>,
    /// Another place that takes part, such as the first of two definitions.
    pub other: Option<Location>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if let Some(nearest) = &self.nearest {
            write!(f, ", did you mean \"{nearest}\"?")?;
        }
        if let Some(other) = &self.other {
            write!(f, " (see {other})")?;
        }
        Ok(())
    }
}

/// A place inside one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A problem before the file and the object are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) at: Position,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) nearest: Option<String>,
    pub(crate) other: Option<Position>,
}

impl Finding {
    pub(crate) fn new(at: Position, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at, field: field.into(), message: message.into(), nearest: None, other: None }
    }

    pub(crate) fn nearest(mut self, nearest: Option<&str>) -> Self {
        self.nearest = nearest.map(str::to_owned);
        self
    }

    pub(crate) fn problem(self, file: &Arc<str>, object: Option<&ObjectKey>) -> Problem {
        let place = |p: Position| Location { file: file.clone(), line: p.line, column: p.column };
        Problem {
            location: place(self.at),
            object: object.cloned(),
            field: self.field,
            message: self.message,
            nearest: self.nearest,
            other: self.other.map(place),
        }
    }
}
