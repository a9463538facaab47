//! Adds up the `test result:` lines that test programs print.
//!
//! Reads nothing else: names of tests and their output are for people.

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
}

impl Totals {
    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Adds a line's figures, if it is a result.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(figures) = line.trim_start().strip_prefix("test result: ") else { return };
        let figures = figures.split_once(". ").map_or(figures, |(_, figures)| figures);
        for figure in figures.split(';') {
            if let Some((count, what)) = figure.trim().split_once(' ') {
                let count = count.parse().unwrap_or(0);
                match what {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    _ => {} // ignored, measured, filtered out, the time it took
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_and_nothing_else_is_read() {
        let rows = [
            (
                "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                (12, 0),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.00s",
                (3, 2),
            ),
            ("test shop::orders ... ok", (0, 0)),
            ("the result: 4 passed; 5 failed", (0, 0)),
            ("", (0, 0)),
        ];
        let mut sum = Totals::default();
        for (line, want) in rows {
            let mut one = Totals::default();
            one.read(line);
            assert_eq!((one.passed, one.failed), want, "line {line:?}");
            sum.add(&one);
        }
        assert_eq!(sum, Totals { passed: 15, failed: 2 });
    }
}
