//! Hashes of texts as they are read from one end, and the table of the rules that stand under them.
//!
//! 32 bits are kept: two texts of one hash make a candidate too many. Nothing here has to withstand who would make
//! such texts on purpose: requests add nothing to the table.

/// From which end a text is compared, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// All of it.
    Whole,
    /// Its beginning.
    Start,
    /// Its end.
    End,
}

/// A hash under way (FNV-1a).
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash(u64);

const FNV_PRIME: u64 = 0x0100_0000_01b3;
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

impl Hash {
    /// A hash of nothing; each number gives others.
    pub(super) fn new(number: usize) -> Self {
        Self((FNV_BASIS ^ number as u64).wrapping_mul(FNV_PRIME))
    }

    /// Reads a byte more.
    pub(super) fn write(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }

    /// The hash of what has been read, taken for this side.
    pub(super) fn finish(self, side: Side) -> u32 {
        let salt = match side {
            Side::Whole => 0,
            Side::Start => 1 << 40,
            Side::End => 1 << 41,
        };
        let mixed = (self.0 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    }

    /// The hash of a whole text, read from the end that the side says.
    pub(super) fn of(mut self, side: Side, text: &[u8]) -> u32 {
        match side {
            Side::Whole | Side::Start => text.iter().for_each(|byte| self.write(*byte)),
            Side::End => text.iter().rev().for_each(|byte| self.write(*byte)),
        }
        self.finish(side)
    }
}

/// Rules by hash, all in one piece: entries in the order of their hashes, and where the hashes of each slot begin.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// How far a hash is shifted to give its slot.
    shift: u32,
    starts: Box<[u32]>,
    entries: Box<[(u32, u32)]>,
}

impl Table {
    /// Makes the table of pairs of hash and rule; none if there are more than can be counted.
    pub(super) fn new(mut entries: Vec<(u32, u32)>) -> Option<Self> {
        entries.sort_unstable();
        entries.dedup();
        let slots = u32::try_from(entries.len()).ok()?.checked_next_power_of_two()?.max(2);
        let shift = u32::BITS - slots.ilog2();
        let mut starts = Vec::with_capacity(entries.len() + 2);
        for (at, (hash, _)) in (0u32..).zip(&entries) {
            let slot = usize::try_from(hash >> shift).ok()?;
            starts.resize(starts.len().max(slot + 1), at);
        }
        starts.resize(usize::try_from(slots).ok()? + 1, u32::try_from(entries.len()).ok()?);
        Some(Self { shift, starts: starts.into(), entries: entries.into() })
    }

    /// The rules under a hash.
    pub(super) fn get(&self, hash: u32) -> impl Iterator<Item = u32> {
        self.slot(hash).unwrap_or_default().iter().filter(move |(of, _)| *of == hash).map(|(_, rule)| *rule)
    }

    fn slot(&self, hash: u32) -> Option<&[(u32, u32)]> {
        let slot = usize::try_from(hash >> self.shift).ok()?;
        let (start, end) = (*self.starts.get(slot)?, *self.starts.get(slot + 1)?);
        self.entries.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_under_its_hash_and_no_other() {
        for count in [0u32, 1, 2, 3, 500, 5_000] {
            let hashes: Vec<u32> = (0..count).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
            let entries = hashes.iter().zip(0..).flat_map(|(hash, n)| [(*hash, n), (*hash, n + count)]);
            let table = Table::new(entries.collect()).unwrap();
            for (hash, n) in hashes.iter().zip(0..) {
                assert_eq!(table.get(*hash).collect::<Vec<_>>(), [n, n + count], "{n} of {count}");
                assert_eq!(table.get(hash ^ 1).next(), None, "{n} of {count}");
            }
        }
    }

    #[test]
    fn sides_and_numbers_tell_equal_texts_apart() {
        let seed = Hash::new(0);
        assert_ne!(seed.of(Side::Whole, b"aba"), seed.of(Side::Start, b"aba"));
        assert_ne!(seed.of(Side::Start, b"aba"), seed.of(Side::End, b"aba"));
        assert_ne!(seed.of(Side::Whole, b"aba"), Hash::new(1).of(Side::Whole, b"aba"));
        assert_eq!(seed.of(Side::End, b"ab"), {
            let mut hash = seed;
            hash.write(b'b');
            hash.write(b'a');
            hash.finish(Side::End)
        });
    }
}
