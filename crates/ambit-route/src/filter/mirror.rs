//! Whether a request is copied (HTTPRequestMirrorFilter). Sending the copy, and bounding it, is the waypoint's.

use crate::draw::scale;
use crate::model::{Fraction, Mirror, Target};

/// Whether a mirror gets this request; each mirror of a rule needs a draw of its own.
///
/// A mirror whose target is invalid gets nothing, and the request goes on.
pub fn is_mirrored(mirror: &Mirror, draw: u64) -> bool {
    match mirror.target {
        Target::Service { .. } => is_drawn(mirror.fraction, draw),
        Target::Invalid { .. } => false,
    }
}

/// Whether a draw over all of `u64` falls into the share.
pub(super) fn is_drawn(fraction: Fraction, draw: u64) -> bool {
    scale(draw, u64::from(fraction.denominator)) < u64::from(fraction.numerator)
}
