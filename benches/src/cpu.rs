//! CPU time and memory of processes and of the whole machine, as `/proc` tells them.
//!
//! Time that the kernel spends for a process in interrupts counts for whoever was running then; the whole machine's
//! busy time beside it shows how much that can be.

use std::fs;

use anyhow::{Context as _, anyhow};

/// Ticks a second of the times in `/proc`: the kernel's USER_HZ, the same on every architecture Rust runs on.
const TICKS: f64 = 100.0;

/// CPU-seconds used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// By the proxies together, user and system.
    pub proxies: f64,
    /// By the whole machine, interrupts included, stolen time not.
    pub machine: f64,
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// If one of the processes is gone.
    pub(crate) fn now(pids: &[u32]) -> anyhow::Result<Self> {
        let proxies: anyhow::Result<f64> = pids.iter().map(|pid| process_seconds(*pid)).sum();
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let machine =
            machine_seconds(&text).ok_or_else(|| anyhow!("/proc/stat begins without a cpu line"))?;
        Ok(Self { proxies: proxies?, machine })
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { proxies: self.proxies - before.proxies, machine: self.machine - before.machine }
    }
}

fn process_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}: is the proxy gone?"))?;
    used(&text).ok_or_else(|| anyhow!("{path} has no times"))
}

/// User and system seconds of a `/proc/PID/stat`.
fn used(stat: &str) -> Option<f64> {
    // The name may hold blanks and parentheses; the fields begin after its last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Busy seconds of all CPUs, of the first line of `/proc/stat`.
fn machine_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<f64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
    // user, nice, system; idle and iowait are not busy; irq, softirq.
    let busy = fields.get(..3)?.iter().sum::<f64>() + fields.get(5..7)?.iter().sum::<f64>();
    Some(busy / TICKS)
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// If the process is gone.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}: is the proxy gone?"))?;
    rss(&text).ok_or_else(|| anyhow!("{path} has no line Rss"))
}

fn rss(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|l| l.strip_prefix("Rss:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// A process of that name among `root` and its descendants.
pub(crate) fn descendant(root: u32, name: &str) -> Option<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let stats = pids.filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
    let all: Vec<(u32, u32, String)> = stats.filter_map(|(pid, stat)| parent(pid, &stat)).collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(pid) = family.get(at).copied() {
        if all.iter().any(|(p, _, comm)| *p == pid && comm == name) {
            return Some(pid);
        }
        family.extend(all.iter().filter(|(_, ppid, _)| *ppid == pid).map(|(p, _, _)| *p));
        at += 1;
    }
    None
}

fn parent(pid: u32, stat: &str) -> Option<(u32, u32, String)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let ppid = tail.split_whitespace().nth(1)?.parse().ok()?;
    Some((pid, ppid, head.split_once('(')?.1.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 9 9 20 0 1 0 5 6 7";
        assert_eq!(used(stat), Some(4.0));
        assert_eq!(parent(7, stat), Some((7, 1, "a) b (c".to_owned())));
        for broken in ["", "7 (x", "7 (x) S 1"] {
            assert_eq!(used(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_machine_is_busy_with_all_but_idling_waiting_and_what_was_stolen() {
        assert_eq!(machine_seconds("cpu  100 100 100 9999 9999 50 50 777 0 0\ncpu0 1"), Some(4.0));
        assert_eq!(machine_seconds("cpu0 1 2 3"), None);
        assert_eq!(machine_seconds("cpu  1 2"), None);
    }

    #[test]
    fn resident_memory_is_told_in_kib() {
        assert_eq!(rss("00-ff [rollup]\nRss:      12 kB\nPss:  4 kB"), Some(12_288.0));
        assert_eq!(rss("Pss: 4 kB"), None);
    }
}
