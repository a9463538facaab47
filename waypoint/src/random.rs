//! Numbers by chance: for draws and ids, never for secrets.

use std::cell::Cell;

thread_local! {
    /// Each thread draws from a sequence of its own, seeded by the cryptographic generator.
    static SEED: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // The generator fails only if the library's self-test failed, and then nothing may go on.
    aws_lc_rs::rand::fill(&mut bytes).expect("the cryptographic generator works");
    u64::from_ne_bytes(bytes)
}

/// One number, uniform over all of `u64` (SplitMix64).
pub(crate) fn number() -> u64 {
    SEED.with(|seed| {
        let next = seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        seed.set(next);
        let value = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    })
}

/// 128 bits.
pub(crate) fn wide() -> u128 {
    u128::from(number()) << 64 | u128::from(number())
}
