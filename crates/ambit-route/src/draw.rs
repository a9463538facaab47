//! Numbers by chance, made from the one that a caller hands in. Nothing here is fit for secrets.

/// Maps a draw over all of `u64` to `0..total`, without the bias of a remainder; 0 if `total` is 0.
pub(crate) fn scale(draw: u64, total: u64) -> u64 {
    let wide = (u128::from(draw) * u128::from(total)) >> 64;
    u64::try_from(wide).expect("less than total, which is a u64")
}

/// Further draws from one: SplitMix64, whose every output is uniform if its seed is.
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }
}

impl Iterator for Draws {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some(mix(self.0))
    }
}

/// Spreads every bit over all others.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_scaled_without_reaching_the_total() {
        for (draw, total, want) in [
            (0, 10, 0),
            (u64::MAX, 10, 9),
            (u64::MAX / 2, 10, 4),
            (u64::MAX / 2 + 1, 10, 5),
            (5, 0, 0),
            (u64::MAX, u64::MAX, u64::MAX - 1),
        ] {
            assert_eq!(scale(draw, total), want, "{draw} of {total}");
        }
    }

    #[test]
    fn further_draws_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for draw in Draws::from(7).take(100_000) {
            counts[usize::try_from(scale(draw, 10)).expect("under ten")] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
