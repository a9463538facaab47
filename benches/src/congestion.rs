//! The machine's list of congestion controls that namespaces may choose: cubic is added for the run and the list is
//! put back as it was.
//!
//! The choice itself is the lab's (`--set tcp_congestion`); here it is only read back in every namespace.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::child::{self, Stop};
use crate::out;

/// What every contender uses: bbr, the default of some machines, halves the throughput of a veth hop.
pub(crate) const CUBIC: &str = "cubic";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Puts the list back when dropped.
#[derive(Debug)]
pub(crate) struct Allowed {
    path: PathBuf,
    before: String,
    changed: bool,
}

impl Allowed {
    /// Lets namespaces choose cubic from now on.
    ///
    /// # Errors
    /// If the kernel has no cubic, or this is not the machine's own network namespace.
    pub(crate) fn cubic() -> anyhow::Result<Self> {
        Self::with(PathBuf::from(ALLOWED))
    }

    fn with(path: PathBuf) -> anyhow::Result<Self> {
        let before = fs::read_to_string(&path).with_context(|| {
            format!("reading {}; run the bench outside of any network namespace", path.display())
        })?;
        let before = before.trim().to_owned();
        let Some(list) = with_cubic(&before) else { return Ok(Self { path, before, changed: false }) };
        fs::write(&path, &list)
            .with_context(|| format!("writing {list:?} to {}; try: modprobe tcp_cubic", path.display()))?;
        out::say(&format!("bench: {} is {list:?} during this run, {before:?} after it", path.display()));
        Ok(Self { path, before, changed: true })
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if self.changed
            && let Err(e) = fs::write(&self.path, &self.before)
        {
            let path = self.path.display();
            out::say(&format!("bench: {path} could not be put back to {:?}: {e}", self.before));
        }
    }
}

/// The list with cubic; none if it is there already.
fn with_cubic(list: &str) -> Option<String> {
    let has = list.split_whitespace().any(|name| name == CUBIC);
    (!has).then(|| format!("{list} {CUBIC}").trim().to_owned())
}

/// Checks that every namespace of a lab uses cubic.
///
/// # Errors
/// Names the first that does not.
pub(crate) fn check(stop: &Stop, lab: &str) -> anyhow::Result<()> {
    const CURRENT: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let entries = fs::read_dir("/run/netns").context("reading /run/netns")?.flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let kinds = ["fabric", "node-", "pod-"].map(|kind| format!("{lab}-{kind}"));
    for name in names.filter(|name| kinds.iter().any(|kind| name.starts_with(kind))) {
        let output = child::run(stop, Some(&name), &["cat", CURRENT], Duration::from_secs(10))?;
        let used = output.ok("reading the congestion control")?;
        if used.trim() != CUBIC {
            bail!("namespace {name} uses {}, not {CUBIC}", used.trim());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_is_added_once() {
        assert_eq!(with_cubic("reno bbr").as_deref(), Some("reno bbr cubic"));
        assert_eq!(with_cubic("").as_deref(), Some("cubic"));
        assert_eq!(with_cubic("reno cubic"), None);
    }

    #[test]
    fn the_list_is_put_back_when_the_run_ends() {
        let path = std::env::temp_dir().join(format!("ambit-bench-{}", std::process::id()));
        fs::write(&path, "reno bbr\n").expect("a temporary file");
        let allowed = Allowed::with(path.clone()).expect("a list");
        assert_eq!(fs::read_to_string(&path).expect("there"), "reno bbr cubic");
        drop(allowed);
        assert_eq!(fs::read_to_string(&path).expect("there"), "reno bbr");
        fs::remove_file(&path).expect("there");
    }
}
