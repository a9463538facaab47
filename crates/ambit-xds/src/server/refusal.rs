//! What a client refused, and how its words name it.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::Kind;
use crate::names::{beginning, shortened};

/// Longest text of a NACK that is read, in bytes; the rest is ignored. Our proxies send no longer one.
const NACK_BYTES_MAX: usize = 64 << 10;

/// Longest reason that is kept of one resource, in bytes; a longer one is cut and ends with `…`.
const REASON_BYTES_MAX: usize = 1024;

/// Most refusals that are kept of one stream; of more, one without a name says that there are more.
const REFUSALS_MAX: usize = 1024;

/// A resource that a client refused, until it changes and is accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// Its kind.
    pub kind: Kind,
    /// Its name; empty if the client did not say which one.
    pub name: String,
    /// The client's words, cut to 1 KiB.
    pub reason: String,
}

/// A refusal, and the version that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) version: String,
    pub(super) reason: String,
}

/// Refusals by kind and name.
pub(super) type Refused = BTreeMap<(Kind, String), Refusal>;

/// Notes a refusal, if there is room for one more.
pub(super) fn keep(refused: &mut Refused, kind: Kind, name: String, refusal: Refusal) {
    let key = (kind, name);
    if refused.len() < REFUSALS_MAX || refused.contains_key(&key) {
        refused.insert(key, refusal);
        return;
    }
    let reason = format!("more than {REFUSALS_MAX} resources are refused; the others are not listed");
    // One for each kind, whatever else is there.
    refused.insert((kind, String::new()), Refusal { version: String::new(), reason });
}

/// Splits a NACK of the form `NAME: REASON; NAME: REASON`; a piece that begins with no name belongs to the last reason.
///
/// Without any known name the whole text is the reason of a resource without name.
pub(super) fn refusals(message: &str, is_name: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut seen = BTreeSet::new();
    let message = beginning(message, NACK_BYTES_MAX);
    for piece in message.split("; ") {
        match piece.split_once(": ").filter(|(name, _)| is_name(name)) {
            Some((name, reason)) if seen.insert(name) => found.push((name.to_owned(), reason.to_owned())),
            Some(_) | None => match found.last_mut() {
                Some((_, reason)) => {
                    reason.push_str("; ");
                    reason.push_str(piece);
                }
                None => return vec![(String::new(), shortened(message, REASON_BYTES_MAX))],
            },
        }
    }
    found.into_iter().map(|(name, reason)| (name, shortened(&reason, REASON_BYTES_MAX))).collect()
}
