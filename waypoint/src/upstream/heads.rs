//! How many heads each response on an HTTP/2 connection has, by the frames as they are read.
//!
//! The HTTP library passes informational responses over without end and tells nobody. Only they and the response
//! that counts begin with a HEADERS frame that does not end the stream (RFC 9113 section 8.1), so that these need not
//! be decoded to be counted.

use std::collections::BTreeMap;

use super::http1::INFORMATIONAL_MAX;
use super::line::STREAMS_MAX;

#[cfg(test)]
mod tests;

/// Bytes of a frame's head (RFC 9113 section 4.1).
pub(super) const HEAD_BYTES: usize = 9;

/// The type of HEADERS frames.
const HEADERS: u8 = 1;

/// Their flag that nothing follows.
const END_STREAM: u8 = 1;

/// Heads of one response that do not end it: informational ones, and the one that counts.
const HEADS_MAX: u32 = INFORMATIONAL_MAX + 1;

/// Streams whose heads are remembered, the newest: more than there are at a time.
const REMEMBERED: usize = 4 * STREAMS_MAX as usize;

/// The frames of a connection, counted.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Of the frame at hand.
    head: [u8; HEAD_BYTES],
    /// So much of it has been read.
    read: usize,
    /// Bytes of its payload that have not been read.
    left: usize,
    /// By stream.
    counts: BTreeMap<u32, u32>,
}

impl Heads {
    /// Takes what has been read; false once a response has more heads than it may.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.left);
            self.left -= passed;
            bytes = &bytes[passed..];
            let taken = bytes.len().min(HEAD_BYTES - self.read);
            self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            if self.read == HEAD_BYTES {
                self.read = 0;
                if !self.begun() {
                    return false;
                }
            }
        }
        true
    }

    /// The head of a frame has been read.
    fn begun(&mut self) -> bool {
        let [high, middle, low, kind, flags, id @ ..] = self.head;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != HEADERS || flags & END_STREAM != 0 {
            return true;
        }
        let count = self.counts.entry(u32::from_be_bytes(id) & 0x7fff_ffff).or_default();
        *count += 1;
        let is_sound = *count <= HEADS_MAX;
        if self.counts.len() > REMEMBERED {
            self.counts.pop_first();
        }
        is_sound
    }
}
