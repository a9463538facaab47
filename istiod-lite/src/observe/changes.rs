//! What a change of configuration is called in the list of incidents.

use std::fmt::Write as _;

use ambit_control::Event;
use ambit_control::input::{Key, Kind};

/// Names of one change.
const NAMED: usize = 5;

/// The objects that somebody wrote and that changed; none if only pods and nodes came or went.
pub(crate) fn named(events: &[Event]) -> Option<String> {
    let keys = events.iter().map(|event| match event {
        Event::Put(object) => (object.key(), ""),
        Event::Remove(key) => (key.clone(), " removed"),
    });
    let written: Vec<(Key, &str)> = keys.filter(|(key, _)| is_written(key.kind)).collect();
    let mut text = String::new();
    for (key, what) in written.iter().take(NAMED) {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{key}{what}");
    }
    if written.len() > NAMED {
        let _ = write!(text, " and {} more", written.len() - NAMED);
    }
    (!text.is_empty()).then_some(text)
}

/// Whether objects of a kind are written by people, and not by the cluster for itself.
fn is_written(kind: Kind) -> bool {
    !matches!(kind, Kind::Pod | Kind::Node | Kind::EndpointSlice)
}
