//! What crosses the fabric, as tcpdump sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Background, Lab, PATIENCE, wait_until};

/// Packets on the fabric's bridge, from when it was made until it is dropped.
#[derive(Debug)]
pub struct Capture {
    process: Background,
    file: PathBuf,
}

impl Capture {
    /// Whether `marker` crossed the fabric in clear so far.
    #[must_use]
    pub fn saw(&self, marker: &str) -> bool {
        let bytes = fs::read(&self.file).unwrap_or_default();
        bytes.windows(marker.len()).any(|w| w == marker.as_bytes())
    }

    /// How much was captured, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |m| m.len())
    }

    /// Whether nothing was captured: the file's head is 24 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= 24
    }

    /// Ends the capture after what is on its way has been written; how many packets match a tcpdump filter.
    ///
    /// # Panics
    /// If tcpdump cannot read what it wrote.
    #[must_use]
    pub fn count(&self, filter: &str) -> usize {
        let mut command = Command::new("tcpdump");
        command.args(["-nn", "-r"]).arg(&self.file).arg(filter);
        Background::start(&mut command).finish(PATIENCE).ok().lines().count()
    }

    /// Ends the capture.
    pub fn stop(self) {
        drop(self.process.stop());
    }
}

impl Lab {
    /// Captures TCP packets on the fabric's bridge from now on.
    #[track_caller]
    #[must_use]
    pub fn capture(&self) -> Capture {
        let folder = self.folder("captures");
        let count = fs::read_dir(&folder).map_or(0, Iterator::count);
        let file = Path::new(&folder).join(format!("{count}.pcap"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-fabric", self.name)]);
        // -Z root: written as root, because a dropped user cannot enter the test's folder.
        command.args(["tcpdump", "-i", "br0", "--immediate-mode", "-U", "-Z", "root", "-s", "0", "-w"]);
        command.arg(&file).arg("tcp");
        let capture = Capture { process: Background::start(&mut command), file };
        wait_until("tcpdump listens", Duration::from_secs(10), || {
            capture.process.stderr().contains("listening on") && capture.len() >= 24
        });
        capture
    }
}
