//! How many threads move bytes: pure, so that every program sizes itself alike.
//!
//! A program's `config` reads the settings; the words people write are understood here.

use std::num::NonZeroUsize;

/// Most processors that a quantity may name.
const PROCESSORS_MAX: f64 = 65_536.0;

/// A number of threads, or a share of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// So many; 0 is one a processor.
    Number(usize),
    /// So many hundredths of the processors, at least one.
    Percent(usize),
}

/// What decides how many threads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workers {
    /// What was asked for; none leaves it to the limits.
    pub threads: Option<Threads>,
    /// Processors that the container may use, whole.
    pub cpu_limit: Option<usize>,
    /// Processors that are set aside for it, whole.
    pub cpu_request: Option<usize>,
}

impl Workers {
    /// The number of threads on a machine with `processors`, at least 1.
    ///
    /// With nothing said it is the limit, or without one a quarter of the machine, and never less than two or the
    /// request.
    pub fn count(&self, processors: usize) -> usize {
        let cpus = self.cpu_limit.unwrap_or(processors).max(1);
        let request = self.cpu_request.unwrap_or(0);
        let chosen = match (self.threads, self.cpu_limit) {
            (Some(Threads::Number(0)), _) => cpus,
            (Some(Threads::Number(n)), _) => n,
            (Some(Threads::Percent(p)), _) => (cpus * p).div_ceil(100),
            (None, Some(limit)) => limit.max(request),
            (None, None) => cpus.div_ceil(4).max(request).max(2),
        };
        chosen.max(1)
    }
}

/// Processors of this machine, or of this control group if it has fewer; 1 if that cannot be told.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Reads a number of threads, or a share such as `25%`.
///
/// # Errors
/// What was given, for people.
pub fn parse_threads(text: &str) -> Result<Threads, String> {
    let bad = || format!("{text:?} is neither a number nor a share such as 25%");
    match text.strip_suffix('%') {
        Some(share) => {
            share.trim().parse().ok().filter(|p| (1..=100).contains(p)).map(Threads::Percent).ok_or_else(bad)
        }
        None => text.trim().parse().map(Threads::Number).map_err(|_| bad()),
    }
}

/// Reads a Kubernetes quantity of processors, `2`, `1.5` or `500m`, rounded up to whole ones.
///
/// # Errors
/// What was given, for people.
pub fn parse_quantity(text: &str) -> Result<usize, String> {
    let bad = || format!("{text:?} is no CPU quantity such as 2, 1.5 or 500m");
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<u32>().map_err(|_| bad())?,
        None => {
            let whole = text.parse::<f64>().map_err(|_| bad())?;
            if !(0.0..=PROCESSORS_MAX).contains(&whole) {
                return Err(bad());
            }
            (whole * 1000.0).ceil() as u32
        }
    };
    Ok(millis.div_ceil(1000) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_what_was_asked_then_the_limits_then_the_machine() {
        let rows = [
            (None, None, None, 2, 2),
            (None, None, None, 64, 16),
            (Some("0"), None, None, 8, 8),
            (Some("3"), None, None, 8, 3),
            (Some("25%"), None, None, 8, 2),
            (None, Some("1500m"), None, 8, 2),
            (None, None, Some("6"), 8, 6),
            (None, Some("0"), None, 8, 1),
        ];
        for row @ (threads, limit, request, processors, want) in rows {
            let workers = Workers {
                threads: threads.map(|text| parse_threads(text).unwrap()),
                cpu_limit: limit.map(|text| parse_quantity(text).unwrap()),
                cpu_request: request.map(|text| parse_quantity(text).unwrap()),
            };
            assert_eq!(workers.count(processors), want, "row {row:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["200%", "0%", "-1", "many", ""] {
            assert!(parse_threads(text).is_err(), "{text:?}");
        }
        for text in ["-1", "many", "", "1e9", "NaN", "-5m"] {
            assert!(parse_quantity(text).is_err(), "{text:?}");
        }
    }
}
