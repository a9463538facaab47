//! What proxies tell by themselves: counts of who talked to whom, gathered between two summaries in bounded memory.
//!
//! A connection counts where it is let in and where it ends, each with what is known then, so a pair that was allowed
//! and cut later is found under both verdicts. Whoever counts keeps the [`Cell`] of a connection while it lives, and its
//! pair stays as long.

mod latency;
mod tally;
#[cfg(test)]
mod tests;

pub use latency::{BUCKETS, bucket_of, quantile_ms};
pub use tally::{Cell, Example, Key, PAIRS_MAX, Side, Tally};
