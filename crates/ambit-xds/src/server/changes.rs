//! What a client is to be told of a kind, and how it is cut into responses.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ambit_types::Str;
use prost::Message as _;
use prost::encoding::encoded_len_varint;

use super::entry::Entry;
use crate::kind::Kind;
use crate::proto::envoy::service::discovery::v3::Resource;

/// Changes that are not sent yet. Messages are made of them as they are sent.
#[derive(Debug, Default)]
pub(super) struct Changes {
    removed: VecDeque<String>,
    upserts: VecDeque<(Str, Arc<Entry>)>,
    with_aliases: bool,
    /// More of the kind follows in the same cycle, and the client is to wait for it.
    has_more: bool,
}

/// The content of one response.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) upserts: Vec<Resource>,
    pub(super) removed: Vec<String>,
}

impl Changes {
    /// For a client that asks by alias.
    pub(super) fn with_aliases() -> Self {
        Self { with_aliases: true, ..Self::default() }
    }

    /// Nothing but names that are gone.
    pub(super) fn removals(removed: Vec<String>) -> Self {
        Self { removed: removed.into(), ..Self::default() }
    }

    pub(super) fn upsert(&mut self, name: &Str, entry: &Arc<Entry>) {
        self.upserts.push_back((name.clone(), entry.clone()));
    }

    pub(super) fn remove(&mut self, name: String) {
        self.removed.push_back(name);
    }

    /// Takes out what is gone, to be told later.
    pub(super) fn take_removed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.removed).into()
    }

    /// Itself, unless it is empty and nobody waits for a response as such.
    pub(super) fn unless_empty(self, is_first: bool) -> Option<Self> {
        (is_first || !self.is_empty()).then_some(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty()
    }

    /// Itself, as the beginning of an answer.
    pub(super) fn followed_by_more(self) -> Self {
        Self { has_more: true, ..self }
    }

    /// Whether it is the beginning of an answer only.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Drops what the client does not want to hear of any more.
    pub(super) fn forget(&mut self, names: &[String]) {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        self.upserts.retain(|(name, _)| !names.contains(&**name));
    }

    /// Drops everything but what is gone.
    pub(super) fn forget_all(&mut self) {
        self.upserts.clear();
    }

    /// The next response: as much as fits into `bytes_max`, and one resource at least.
    ///
    /// What is gone goes first, as clients take it within one response.
    pub(super) fn take(&mut self, kind: Kind, bytes_max: usize) -> Content {
        let (mut content, mut bytes) = (Content::default(), 0);
        while let Some(name) = self.removed.pop_front_if(|name| fits(&mut bytes, name.len(), bytes_max)) {
            content.removed.push(name);
        }
        if !self.removed.is_empty() {
            return content;
        }
        while let Some((name, entry)) = self.upserts.pop_front() {
            let message = entry.message(kind, &name, self.with_aliases);
            if !fits(&mut bytes, message.encoded_len(), bytes_max) {
                self.upserts.push_front((name, entry));
                break;
            }
            content.upserts.push(message);
        }
        content
    }
}

/// Whether a field of this length has room, and counts it if so. The first one always has.
fn fits(bytes: &mut usize, length: usize, bytes_max: usize) -> bool {
    // A tag of one byte, the length, the field.
    let with = bytes.saturating_add(1 + encoded_len_varint(length as u64) + length);
    let has_room = *bytes == 0 || with <= bytes_max;
    if has_room {
        *bytes = with;
    }
    has_room
}
