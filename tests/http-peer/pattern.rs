//! Bytes that both ends know: chunks that carry their number, so that loss, doubling and reordering change the sum.

use aws_lc_rs::digest;
use bytes::{BufMut as _, Bytes, BytesMut};

/// Length of a chunk in bytes.
pub(crate) const CHUNK: usize = 64 * 1024;

/// A chunk's first `length` bytes: its number, then filling.
pub(crate) fn chunk(index: u64, length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length.max(8));
    bytes.put_u64(index);
    bytes.resize(length.max(8), b'.');
    bytes.truncate(length);
    bytes.freeze()
}

/// `total` bytes in chunks.
pub(crate) fn chunks(total: u64) -> impl Iterator<Item = Bytes> + Send + 'static {
    let size = CHUNK as u64;
    (0..total.div_ceil(size)).map(move |index| {
        let left = (total - index * size).min(size);
        chunk(index, usize::try_from(left).unwrap_or(CHUNK))
    })
}

/// SHA-256 and length of what passed.
#[derive(Clone)]
pub(crate) struct Sum {
    context: digest::Context,
    bytes: u64,
}

impl Sum {
    pub(crate) fn new() -> Self {
        Self { context: digest::Context::new(&digest::SHA256), bytes: 0 }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sum in hexadecimal.
    pub(crate) fn finish(self) -> String {
        use std::fmt::Write as _;
        self.context.finish().as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The sum of [`chunks`] of that length.
pub(crate) fn sum_of(total: u64) -> String {
    let mut sum = Sum::new();
    chunks(total).for_each(|chunk| sum.add(&chunk));
    sum.finish()
}
