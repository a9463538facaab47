//! Large responses in parts: who takes them, and how a part says that more follow.
//!
//! The protocol has no word for it: a client may count a kind as complete with the first response of it, and others do.
//! So a response is split for a client only that says it takes parts, in the metadata of its node, and every part but
//! the last one says so in its version, which is for people only.
//!
//! The first answer to a waypoint about policies may come in two parts all the same: those that deny everything go ahead
//! of all else. The kind is ours alone, so whoever asks for it knows parts.

use crate::node;
#[cfg(test)]
use crate::node::text;
use crate::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Node};

/// Metadata of a node that takes parts.
const TAKES_PARTS: &str = "AMBIT_PARTS";
/// Its value.
const YES: &str = "true";
/// What the version ends with of a part that more follow. No other control plane's version does.
const MORE: &str = "+more";

/// The metadata of a node that takes parts. Our proxies do not say so yet: they put each response in force as it comes,
/// and half a mesh must not be.
#[cfg(test)]
pub(crate) fn metadata() -> (String, prost_types::Value) {
    (TAKES_PARTS.to_owned(), text(YES))
}

/// Whether a node says that it takes parts.
pub(crate) fn are_taken(by: Option<&Node>) -> bool {
    by.and_then(|node| node::field(node, TAKES_PARTS)) == Some(YES)
}

/// The version of a response, as of a revision.
pub(crate) fn version(revision: u64, is_last: bool) -> String {
    if is_last { revision.to_string() } else { format!("{revision}{MORE}") }
}

/// Whether a response ends what the server has to say for now; of one that was not split it is always so.
pub fn is_last(response: &DeltaDiscoveryResponse) -> bool {
    !response.system_version_info.ends_with(MORE)
}
