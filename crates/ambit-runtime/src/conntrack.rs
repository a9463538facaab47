//! How full the kernel's table of connection tracking is, in the network namespace that the calling thread is in.
//!
//! Reads two files when asked and keeps nothing.

use std::fs;
use std::path::Path;

/// Where the kernel shows the table.
pub const FOLDER: &str = "/proc/sys/net/netfilter";

/// Entries of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Entries there are.
    pub count: u64,
    /// Entries there may be; 0: any number.
    pub max: u64,
}

impl Usage {
    /// Reads it in `folder`, which is [`FOLDER`] but in tests; none where nothing is tracked.
    pub fn read(folder: &Path) -> Option<Self> {
        let number = |what: &str| {
            let text = fs::read_to_string(folder.join(format!("nf_conntrack_{what}"))).ok()?;
            text.trim().parse().ok()
        };
        Some(Self { count: number("count")?, max: number("max")? })
    }

    /// Whether the kernel drops what would be a new entry.
    pub fn is_full(self) -> bool {
        self.max > 0 && self.count >= self.max
    }

    /// Share of the table that is in use.
    pub fn ratio(self) -> f64 {
        self.count as f64 / self.max.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_full_at_its_maximum_and_not_without_one() {
        let rows = [(0, 0, false), (5, 0, false), (0, 4, false), (3, 4, false), (4, 4, true), (5, 4, true)];
        for (count, max, want) in rows {
            assert_eq!(Usage { count, max }.is_full(), want, "row {count} {max}");
        }
    }

    #[test]
    fn what_is_not_tracked_has_no_table() {
        assert_eq!(Usage::read(Path::new("/nowhere")), None);
    }
}
