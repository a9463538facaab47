//! Which files of a state directory count, in which order, and which are in the way. Pure.
//!
//! Numbers only rise. The mark records the newest number written; together with how many files are kept it tells
//! what may lie there: from the oldest kept to one beyond the mark, which a crash between file and mark leaves.

use super::refused::Refused;

#[cfg(test)]
mod tests;

/// How many files are kept.
pub const KEEP: u64 = 3;
/// The most files that one start looks at; a directory of our own has [`KEEP`].
pub const LOOKED_AT_MAX: usize = 8;
/// Name of the mark.
pub const MARK: &str = "newest.mark";
/// End of the name of a file that is not complete.
pub const UNFINISHED: &str = ".tmp";

/// Name of the file with a number.
pub fn file_name(number: u64) -> String {
    format!("state-{number}.seal")
}

/// Number of the file with a name, if it is one of ours.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("state-")?.strip_suffix(".seal")?.parse().ok()?;
    // One spelling a number: no sign, no leading zeros.
    (file_name(number) == name).then_some(number)
}

/// The files to try, newest first, each with the reason not to.
///
/// `mark` is the newest number on record; without one nothing is believed.
pub fn candidates(found: &[u64], mark: Option<u64>) -> Vec<(u64, Result<(), Refused>)> {
    let mut numbers = found.to_vec();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    let verdict = |number: u64| {
        let newest = mark.ok_or(Refused::Unmarked)?;
        let oldest = newest.saturating_sub(KEEP - 1);
        if number > newest.saturating_add(1) {
            return Err(Refused::Beyond { newest });
        }
        if number < oldest { Err(Refused::Rollback { oldest }) } else { Ok(()) }
    };
    numbers.into_iter().take(LOOKED_AT_MAX).map(|number| (number, verdict(number))).collect()
}

/// The number after the one on record.
pub fn next(mark: Option<u64>) -> u64 {
    mark.unwrap_or(0).saturating_add(1)
}

/// Whether a file is in the way once `newest` has been written: too old, never ours, or not complete.
pub fn is_superfluous(name: &str, newest: u64) -> bool {
    match number_of(name) {
        Some(number) => number > newest || newest - number >= KEEP,
        None => name.starts_with("state-") && name.ends_with(UNFINISHED),
    }
}
