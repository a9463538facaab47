//! Where it was measured: kernel, cores, versions. Ratios of one run can be compared across machines, figures cannot.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::child::{self, Stop};
use crate::congestion::CUBIC;

const PATIENCE: Duration = Duration::from_secs(10);

/// What stands above the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    versions: Vec<(&'static str, String)>,
}

impl Machine {
    /// Reads it; `envoy` is Envoy's program where it takes part.
    ///
    /// # Errors
    /// Names the first tool that is missing.
    pub(crate) fn read(stop: &Stop, binaries: &Path, envoy: Option<&Path>) -> anyhow::Result<Self> {
        let ambit = binaries.join("ambit").display().to_string();
        let asked: [(&'static str, Vec<&str>); 6] = [
            ("ambit", vec![&ambit, "--version"]),
            ("HAProxy", vec!["haproxy", "-v"]),
            ("iperf3", vec!["iperf3", "--version"]),
            ("wrk", vec!["wrk", "-v"]),
            ("h2load", vec!["h2load", "--version"]),
            ("nginx", vec!["nginx", "-v"]),
        ];
        let envoy = envoy.map(|path| path.display().to_string());
        let of_envoy = envoy.iter().map(|path| ("Envoy", vec![path.as_str(), "--version"]));
        let mut versions = Vec::new();
        for (name, argv) in asked.into_iter().chain(of_envoy) {
            let missing = || anyhow::anyhow!("{name} is not installed; install it with: xtask/need.sh bench");
            let output = child::run(stop, None, &argv, PATIENCE)
                .map_err(|e| if e.is::<child::Interrupted>() || name == "ambit" { e } else { missing() })?;
            versions.push((name, version(&format!("{}\n{}", output.stdout, output.stderr))));
        }
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
        Ok(Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            versions,
        })
    }

    /// The lines above the table.
    pub(crate) fn text(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(|(n, v)| format!("{n} {v}")).collect();
        format!(
            "Linux {}, {} cores ({}), congestion control {CUBIC}\n{}",
            self.kernel,
            self.cores,
            self.cpu,
            versions.join(", ")
        )
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let versions: serde_json::Map<String, Value> =
            self.versions.iter().map(|(n, v)| ((*n).to_owned(), json!(v))).collect();
        json!({
            "kernel": self.kernel, "cpu": self.cpu, "cores": self.cores, "congestionControl": CUBIC,
            "versions": versions,
        })
    }
}

/// The first word that looks like a version.
fn version(text: &str) -> String {
    let digit = |w: &&str| w.contains('.') && w.chars().any(|c| c.is_ascii_digit());
    let word = text.split_whitespace().find(digit).unwrap_or("of unknown version");
    let part = word.split('/').find(digit).unwrap_or(word);
    part.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        let cases = [
            ("HAProxy version 2.6.12-1+deb12u4 2025/10/01 - https://haproxy.org/", "2.6.12-1+deb12u4"),
            ("iperf 3.12 (cJSON 1.7.15)", "3.12"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer", "4.1.0-3+b2"),
            ("h2load nghttp2/1.52.0", "1.52.0"),
            ("/x/envoy  version: 9e558/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
            ("ambit 0.1.0", "0.1.0"),
        ];
        for (text, wanted) in cases {
            assert_eq!(version(text), wanted, "{text}");
        }
    }
}
