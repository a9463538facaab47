//! What the kernel and the runtime say of this process, read at each scrape and at no other time.
//!
//! What they do not say is left out: a scrape never fails for it.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use tokio::runtime::Handle;

use super::Source;
use super::text::{family, series, single};
use crate::conntrack::{self, Usage};

/// Where the kernel shows the open descriptors of a process.
const DESCRIPTORS: &str = "/proc/self/fd";

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// The process that was started at that time.
    pub(super) fn started(started: SystemTime) -> Self {
        Self { started }
    }
}

impl Source for Process {
    fn write(&self, text: &mut String) {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        single(text, "process_start_time_seconds", "gauge", started);
        single(text, "ambit_start_time_seconds", "gauge", started);
        if let Some(seconds) = processor_seconds() {
            single(text, "process_cpu_seconds_total", "counter", seconds);
        }
        descriptors(text);
        memory(text);
        tracking(text);
        runtime(text);
    }
}

/// Seconds on processors so far, in the program and in the kernel for it; none where the kernel does not say.
pub fn processor_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let both = [usage.user_time(), usage.system_time()];
    Some(both.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum())
}

fn descriptors(text: &mut String) {
    let (Some(open), Ok((most, _))) = (open_descriptors(), getrlimit(Resource::RLIMIT_NOFILE)) else {
        return;
    };
    single(text, "process_open_fds", "gauge", open);
    single(text, "process_max_fds", "gauge", most);
    single(text, "ambit_fd_used_ratio", "gauge", ratio(open, most));
}

/// How many descriptors are open. Linux 6.2 and later say it; before, they have to be counted one by one.
fn open_descriptors() -> Option<u64> {
    let told = fs::metadata(DESCRIPTORS).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // One of them is the folder's own.
    let counted = fs::read_dir(DESCRIPTORS).ok()?.count().saturating_sub(1);
    u64::try_from(counted).ok()
}

fn memory(text: &mut String) {
    let Some(resident) = resident_bytes() else { return };
    single(text, "process_resident_memory_bytes", "gauge", resident);
    if let Some(most) = memory_limit() {
        single(text, "ambit_memory_used_ratio", "gauge", ratio(resident, most));
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the process's control group permits; none where it permits everything.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{own}/memory.max"))
}

/// Of the network namespace that the program runs in.
fn tracking(text: &mut String) {
    if let Some(usage) = Usage::read(Path::new(conntrack::FOLDER)) {
        single(text, "ambit_conntrack_used_ratio", "gauge", usage.ratio());
    }
}

/// The runtime that answers the scrape; programs have one.
fn runtime(text: &mut String) {
    let Ok(handle) = Handle::try_current() else { return };
    let told = handle.metrics();
    let workers = told.num_workers();
    single(text, "tokio_num_workers", "gauge", workers);
    single(text, "tokio_num_alive_tasks", "gauge", told.num_alive_tasks());
    single(text, "tokio_global_queue_depth", "gauge", told.global_queue_depth());
    let mut each = |name: &str, kind: &str, value: &dyn Fn(usize) -> f64| {
        family(text, name, kind);
        for worker in 0..workers {
            series(text, name, &format!("worker=\"{worker}\""), value(worker));
        }
    };
    each("tokio_worker_total_busy_duration_seconds_total", "counter", &|worker| {
        told.worker_total_busy_duration(worker).as_secs_f64()
    });
    each("tokio_worker_park_count_total", "counter", &|worker| told.worker_park_count(worker) as f64);
    each("tokio_worker_park_unpark_count_total", "counter", &|worker| {
        told.worker_park_unpark_count(worker) as f64
    });
}

/// A file that holds one number; `max` and the like are none.
fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn ratio(used: u64, most: u64) -> f64 {
    used as f64 / most.max(1) as f64
}
