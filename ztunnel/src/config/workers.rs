//! How many threads move bytes.

use std::num::NonZeroUsize;

use clap::Args;

/// Threads of the data plane.
#[derive(Debug, Clone, Args)]
pub struct Workers {
    /// A number, 0 for all processors, or a share such as `25%`.
    #[arg(long, env = "ZTUNNEL_WORKER_THREADS", value_parser = parse_threads)]
    pub worker_threads: Option<Threads>,
    /// Processors the container may use (whole number).
    #[arg(long, env = "ZTUNNEL_CPU_LIMIT")]
    pub cpu_limit: Option<usize>,
    /// CPU limit as a Kubernetes quantity such as `500m`.
    #[arg(long, env = "ZTUNNEL_RESOURCE_CPU_LIMIT", value_parser = parse_quantity)]
    pub resource_cpu_limit: Option<usize>,
    /// CPU request as a Kubernetes quantity.
    #[arg(long, env = "ZTUNNEL_RESOURCE_CPU_REQUEST", value_parser = parse_quantity)]
    pub resource_cpu_request: Option<usize>,
}

/// A number of threads, or a share of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// So many; 0 is one a processor.
    Number(usize),
    /// So many hundredths of the processors, at least one.
    Percent(usize),
}

impl Workers {
    /// The number of threads on a machine with `processors`; `concurrency` is Istio's own setting, weaker than ours.
    pub fn count(&self, processors: usize, concurrency: Option<usize>) -> usize {
        let cpus = self.resource_cpu_limit.or(self.cpu_limit).unwrap_or(processors).max(1);
        let request = self.resource_cpu_request.unwrap_or(0);
        let threads = self.worker_threads.or_else(|| concurrency.map(Threads::Number));
        let chosen = match (threads, self.resource_cpu_limit) {
            (Some(Threads::Number(0)), _) => cpus,
            (Some(Threads::Number(n)), _) => n,
            (Some(Threads::Percent(p)), _) => (cpus * p).div_ceil(100),
            (None, Some(limit)) => limit.max(request),
            (None, None) => cpus.div_ceil(4).max(request).max(2),
        };
        chosen.max(1)
    }

    /// Processors of this machine; 1 if that cannot be told.
    pub fn processors() -> usize {
        std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
    }
}

fn parse_threads(text: &str) -> Result<Threads, String> {
    let bad = || format!("{text:?} is neither a number nor a share such as 25%");
    match text.strip_suffix('%') {
        Some(share) => {
            share.trim().parse().ok().filter(|p| (1..=100).contains(p)).map(Threads::Percent).ok_or_else(bad)
        }
        None => text.trim().parse().map(Threads::Number).map_err(|_| bad()),
    }
}

/// `2`, `1.5` or `500m`, rounded up to whole processors.
fn parse_quantity(text: &str) -> Result<usize, String> {
    let bad = || format!("{text:?} is no CPU quantity such as 2, 1.5 or 500m");
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<u32>().map_err(|_| bad())?,
        None => {
            let whole = text.parse::<f64>().map_err(|_| bad())?;
            if !(0.0..=65_536.0).contains(&whole) {
                return Err(bad());
            }
            (whole * 1000.0).ceil() as u32
        }
    };
    Ok(millis.div_ceil(1000) as usize)
}
