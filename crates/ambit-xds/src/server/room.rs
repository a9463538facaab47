//! What a client may make its stream keep: names it declares, names it subscribes to.
//!
//! A name that is published costs nothing that the mesh does not cost anyway, so only the others are counted of what a
//! client declares. What has no room is not refused, or a client that has been away for long would be refused each time
//! it comes back: the first names are answered, then the stream ends, and the next one begins with fewer.

use std::collections::{BTreeMap, BTreeSet};

use super::{Limits, Resources, StreamError};
use crate::names::NAME_BYTES_MAX;
use crate::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// What keeping a name takes beside its text, in bytes.
const ENTRY_BYTES: usize = 64;

/// Longest version that is kept; ours have 16 bytes, so a longer one is none of ours and differs in any case.
const VERSION_BYTES_MAX: usize = 64;

/// How many names, and how many bytes they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    names: usize,
    bytes: usize,
}

impl Size {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        names.fold(Self::default(), |size, name| size.and(name))
    }

    fn and(self, name: &str) -> Self {
        Self { names: self.names + 1, bytes: self.bytes + name.len() + ENTRY_BYTES }
    }

    fn without(self, name: &str) -> Self {
        Self { names: self.names - 1, bytes: self.bytes - name.len() - ENTRY_BYTES }
    }

    /// Whether it is more than one stream may have.
    pub(super) fn exceeds(self, limits: &Limits) -> bool {
        self.names > limits.names_max || self.bytes > limits.names_bytes_max
    }
}

/// Names of a client, with their size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    all: BTreeSet<String>,
    size: Size,
}

impl Names {
    pub(super) fn insert(&mut self, name: &str) {
        if !self.all.contains(name) {
            self.all.insert(name.to_owned());
            self.size = self.size.and(name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if self.all.remove(name) {
            self.size = self.size.without(name);
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.all.contains(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.all.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }
}

impl<'a> FromIterator<&'a String> for Names {
    fn from_iter<T: IntoIterator<Item = &'a String>>(names: T) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.insert(name));
        all
    }
}

/// What is left of the room for declared names that are not published, over all kinds of a stream.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Size,
    is_short: bool,
}

impl Room {
    /// What is kept of a declaration: all that is published, and of the rest as much as has room, in order.
    pub(super) fn keep(
        &mut self,
        declared: BTreeMap<String, String>,
        is_published: impl Fn(&str) -> bool,
        limits: &Limits,
    ) -> BTreeMap<String, String> {
        let kept = declared.into_iter().filter(|(name, _)| is_published(name) || self.takes(name, limits));
        let version_of =
            |version: String| if version.len() > VERSION_BYTES_MAX { String::new() } else { version };
        kept.map(|(name, version)| (name, version_of(version))).collect()
    }

    fn takes(&mut self, name: &str, limits: &Limits) -> bool {
        let with = self.taken.and(name);
        if with.exceeds(limits) {
            self.is_short = true;
            return false;
        }
        self.taken = with;
        true
    }

    /// Whether something had none.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }
}

/// Whether every name of a request is as long as a name may be.
///
/// # Errors
/// [`StreamError::LongName`] with the first one that is longer.
pub(super) fn check_names(request: &DeltaDiscoveryRequest) -> Result<(), StreamError> {
    let subscription = request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe);
    let mut names = subscription.chain(request.initial_resource_versions.keys());
    match names.find(|name| name.len() > NAME_BYTES_MAX) {
        Some(name) => Err(StreamError::LongName { bytes: name.len(), max: NAME_BYTES_MAX }),
        None => Ok(()),
    }
}

/// Whether the keys asked for since the last answer have room; those that lead somewhere always do.
pub(super) fn has_room_for(asked: &Names, latest: &Resources, limits: &Limits) -> bool {
    if !asked.size().exceeds(limits) {
        return true;
    }
    !Size::of(asked.iter().filter(|key| !latest.leads_somewhere(key))).exceeds(limits)
}
