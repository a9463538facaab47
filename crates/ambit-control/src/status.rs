//! What became of an object a person wrote: in force, in force differently than written, or not at all.

use std::fmt;

use ambit_types::Reason;

use crate::input::Key;

mod report;

pub(crate) use report::OUT_OF_NAMESPACE;

pub use report::{
    ACCEPTED, Condition, PARTIALLY_INVALID, PROGRAMMED, ParentReport, RESOLVED_REFS, Report,
    WAYPOINT_ACCEPTED, WAYPOINT_BOUND, ZTUNNEL_ACCEPTED,
};

/// How an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// In force exactly as written.
    Accepted,
    /// In force, but stricter than written; every difference is named.
    Degraded(Vec<Note>),
    /// Not in force.
    NotEnforced(Note),
}

/// One difference between what was written and what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The code under which connections show it, if they do.
    pub reason: Option<Reason>,
    /// The difference in words.
    pub text: String,
}

impl Note {
    /// A difference that connections show under a code.
    pub(crate) fn coded(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason: Some(reason), text: text.into() }
    }

    /// A difference no connection shows.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { reason: None, text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{}: {}", reason.code(), self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Standing {
    /// Accepted if there is nothing to say, else degraded.
    pub(crate) fn of(notes: Vec<Note>) -> Self {
        if notes.is_empty() { Self::Accepted } else { Self::Degraded(notes) }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Degraded(notes) => {
                let texts: Vec<String> = notes.iter().map(ToString::to_string).collect();
                write!(f, "degraded: {}", texts.join("; "))
            }
            Self::NotEnforced(note) => write!(f, "not enforced: {note}"),
        }
    }
}

/// An object and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The object.
    pub object: Key,
    /// How it stands.
    pub standing: Standing,
}
