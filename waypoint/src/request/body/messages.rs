//! Counts the messages of a gRPC body as it passes by.
//!
//! Each has five bytes before it: whether it is compressed, and its length. Nothing else is looked at and nothing is
//! kept, so that a frame costs a few steps however long it is.

/// Bytes before a message.
const PREFIX_BYTES: usize = 5;

/// Where a body stands between its messages.
#[derive(Debug, Default, Clone)]
pub(crate) struct Messages {
    /// Bytes of the prefix at hand that have come.
    come: usize,
    /// Its length, as far as it has come.
    length: u32,
    /// Bytes of the message at hand that are still to come.
    left: usize,
    count: u64,
}

impl Messages {
    /// Follows bytes of the body.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let part = self.left.min(bytes.len());
            (self.left, bytes) = (self.left - part, &bytes[part..]);
            let Some((first, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if self.come > 0 {
                self.length = self.length << 8 | u32::from(*first);
            }
            self.come += 1;
            if self.come == PREFIX_BYTES {
                self.left = usize::try_from(self.length).unwrap_or(usize::MAX);
                (self.come, self.length) = (0, 0);
                self.count += 1;
            }
        }
    }

    /// Messages that have begun.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::Messages;

    #[test]
    fn messages_are_counted_wherever_the_frames_cut() {
        let long = [&[1, 0, 0, 1, 0][..], &[0; 256]].concat();
        let all = [&[0, 0, 0, 0, 2, 0, 0][..], &[0, 0, 0, 0, 0], &long, &[0, 0, 0, 0, 3, 9]].concat();
        for size in [1, 2, 3, 4, 5, 6, 7, 64, all.len()] {
            let mut messages = Messages::default();
            all.chunks(size).for_each(|frame| messages.pass(frame));
            assert_eq!(messages.count(), 4, "frames of {size} bytes");
        }
        let mut messages = Messages::default();
        messages.pass(&[0, 0, 0, 0]);
        assert_eq!(messages.count(), 0, "a prefix that is not whole");
        messages.pass(&[]);
        messages.pass(&[255]);
        assert_eq!((messages.count(), messages.left), (1, 255));
    }
}
