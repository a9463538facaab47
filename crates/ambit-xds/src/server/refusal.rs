//! What a client refused, and how its words name it.

use std::collections::BTreeSet;

use crate::kind::Kind;

/// A resource that a client refused, until it changes and is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its kind.
    pub kind: Kind,
    /// Its name; empty if the client did not say which one.
    pub name: String,
    /// The client's words.
    pub reason: String,
}

/// A refusal, and the version that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) version: String,
    pub(super) reason: String,
}

/// Splits a NACK of the form `NAME: REASON; NAME: REASON`; a piece that begins with no name belongs to the last reason.
///
/// Without any known name the whole text is the reason of a resource without name.
pub(super) fn refusals(message: &str, is_name: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut seen = BTreeSet::new();
    for piece in message.split("; ") {
        match piece.split_once(": ").filter(|(name, _)| is_name(name)) {
            Some((name, reason)) if seen.insert(name) => found.push((name.to_owned(), reason.to_owned())),
            Some(_) | None => match found.last_mut() {
                Some((_, reason)) => {
                    reason.push_str("; ");
                    reason.push_str(piece);
                }
                None => return vec![(String::new(), message.to_owned())],
            },
        }
    }
    found
}
