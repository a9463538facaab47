//! Paths of policies that no normalised request can have: such a value would protect nothing.

use ambit_types::path::stands_for_itself;

use crate::http::problem::PathFault;
use crate::normalize::{Normalization, octet};

/// What keeps a path from ever coming, if anything does.
pub(super) fn fault(text: &str, normalization: Normalization) -> Option<PathFault> {
    let bytes = text.as_bytes();
    let normalized = |at_least| normalization >= at_least;
    let dots = || text.split('/').any(|segment| matches!(segment, "." | ".."));
    if text.contains(['?', '#']) {
        Some(PathFault::Query)
    } else if bytes.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        Some(PathFault::Byte)
    } else if !normalized(Normalization::Base) {
        None
    } else if text.contains('\\') {
        Some(PathFault::Backslash)
    } else if dots() {
        Some(PathFault::DotSegment)
    } else if has_decoded_escape(bytes, normalization) {
        Some(PathFault::Escape)
    } else if normalized(Normalization::MergeSlashes) && text.contains("//") {
        Some(PathFault::DoubledSlash)
    } else {
        None
    }
}

/// Whether an escape is one that normalisation writes otherwise.
fn has_decoded_escape(text: &[u8], normalization: Normalization) -> bool {
    let slashes = normalization == Normalization::DecodeAndMergeSlashes;
    text.windows(3).any(|escape| match octet(escape) {
        None => false,
        Some(b'/' | b'\\') if slashes => true,
        Some(octet) => stands_for_itself(octet) || escape.iter().any(u8::is_ascii_lowercase),
    })
}
