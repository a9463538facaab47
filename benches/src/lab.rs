//! A lab: brought up with objects, asked about itself, taken down at the end.
//!
//! Works through the command line alone. Which objects stand in it, and what runs against them, is decided elsewhere.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use crate::child::{self, Output, Stop};
use crate::contenders::Pod;
use crate::{congestion, cpu, out};

/// How long the lab's own commands may take: ten thousand routes have to be in force, too.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the lab may wait until objects are in force.
const IN_FORCE: &str = "240s";

/// A lab that is up; taken down when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    ambit: PathBuf,
    folder: PathBuf,
    stop: Stop,
    status: Value,
}

/// A program that a lab runs, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub pid: u32,
    pub node: String,
}

impl Lab {
    /// Makes room for a lab of that name; what a killed run left is taken down.
    ///
    /// # Errors
    /// If a program is missing.
    pub(crate) fn new(
        name: &str,
        binaries: &Path,
        folder: &Path,
        programs: &[&str],
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        for program in programs {
            let path = binaries.join(program);
            if !path.is_file() {
                anyhow::bail!("{} is missing; build it with: make build", path.display());
            }
        }
        let (ambit, folder) = (binaries.join("ambit"), folder.join("run"));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let lab = Self { name: name.to_owned(), ambit, folder, stop: stop.clone(), status: Value::Null };
        lab.ambit(&["lab", "down"])?.ok("ambit lab down")?;
        Ok(lab)
    }

    /// Brings it up with its first objects.
    ///
    /// # Errors
    /// If it does not come up.
    pub(crate) fn up(&mut self, objects: &[Value], set: &[String]) -> anyhow::Result<()> {
        out::say(&format!("bench: bringing up lab {}", self.name));
        let file = self.write("up.yaml", objects)?;
        let congestion = format!("tcp_congestion={}", congestion::CUBIC);
        let mut args = vec!["lab", "up", "-f", &file, "--set", &congestion];
        args.extend(set.iter().flat_map(|s| ["--set", s]));
        self.ambit(&args)?.ok("ambit lab up")?;
        self.refresh()
    }

    /// Adds objects, and waits until they are in force.
    ///
    /// # Errors
    /// If they are not.
    pub(crate) fn apply(&mut self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        let file = self.write(name, objects)?;
        self.ambit(&["lab", "apply", "--timeout", IN_FORCE, "-f", &file])?.ok("ambit lab apply")?;
        self.refresh()
    }

    /// Runs `ambit ARGS…` for this lab.
    pub(crate) fn ambit(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.ambit_until(&self.stop, args)
    }

    fn ambit_until(&self, stop: &Stop, args: &[&str]) -> anyhow::Result<Output> {
        let (ambit, name) = (self.program(), format!("AMBIT_LAB={}", self.name));
        let mut line = vec!["env", &name, &ambit];
        line.extend_from_slice(args);
        child::run(stop, None, &line, PATIENCE)
    }

    /// The command line's own program.
    pub(crate) fn program(&self) -> String {
        self.ambit.display().to_string()
    }

    fn write(&self, name: &str, objects: &[Value]) -> anyhow::Result<String> {
        let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.file(name, &texts.join("\n---\n"))
    }

    /// Writes a file of the run; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// The folder of the run's files; it goes with the lab.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn refresh(&mut self) -> anyhow::Result<()> {
        let text = self.ambit(&["lab", "status", "-o", "json"])?.ok("ambit lab status")?;
        self.status = serde_json::from_str(&text).context("reading ambit lab status")?;
        Ok(())
    }

    /// The network namespace of a pod.
    pub(crate) fn netns(&self, pod: Pod) -> String {
        format!("{}-pod-{}-{}", self.name, pod.namespace, pod.name)
    }

    /// A pod's IPv4 address.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn address(&self, pod: Pod) -> anyhow::Result<IpAddr> {
        let found = self.pod_status(pod)?;
        first_v4(&found["addresses"])
            .ok_or_else(|| anyhow!("pod {}/{} has no IPv4 address", pod.namespace, pod.name))
    }

    fn pod_status(&self, pod: Pod) -> anyhow::Result<&Value> {
        let pods = self.status["pods"].as_array().into_iter().flatten();
        let mut found = pods.filter(|p| p["namespace"] == pod.namespace && p["name"] == pod.name);
        found.next().ok_or_else(|| anyhow!("ambit lab status names no pod {}/{}", pod.namespace, pod.name))
    }

    /// A node's IPv4 address.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn node_address(&self, node: &str) -> anyhow::Result<IpAddr> {
        let mut nodes = self.status["nodes"].as_array().into_iter().flatten();
        let found = nodes.find(|n| n["name"] == node).and_then(|n| first_v4(&n["addresses"]));
        found.ok_or_else(|| anyhow!("ambit lab status names no IPv4 address of {node}"))
    }

    /// The process of a node's ztunnel.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) fn ztunnel(&self, node: &str) -> anyhow::Result<u32> {
        let target = format!("ztunnel/{node}");
        let mut programs = self.status["programs"].as_array().into_iter().flatten();
        let pid = programs.find(|p| p["target"] == target.as_str()).and_then(pid_of);
        pid.ok_or_else(|| anyhow!("{target} does not run; its log is: ambit lab logs {target}"))
    }

    /// The process of that name in a pod.
    ///
    /// # Errors
    /// If none runs.
    pub(crate) fn process(&self, pod: Pod, name: &str) -> anyhow::Result<u32> {
        let found = pid_of(self.pod_status(pod)?).and_then(|root| cpu::descendant(root, name));
        found.ok_or_else(|| anyhow!("{name} of pod {}/{} does not run", pod.namespace, pod.name))
    }

    /// The process of the waypoint of a Gateway (`NAMESPACE/NAME`).
    ///
    /// # Errors
    /// If none is ready.
    pub(crate) fn waypoint(&self, gateway: &str) -> anyhow::Result<Placed> {
        let mut all = self.status["waypoints"].as_array().into_iter().flatten();
        let found = all.find(|w| w["gateway"] == gateway && w["ready"] == true);
        let placed = found.and_then(|w| {
            let pid = cpu::descendant(pid_of(w)?, "waypoint")?;
            Some(Placed { pid, node: w["node"].as_str()?.to_owned() })
        });
        placed.ok_or_else(|| {
            anyhow!("the waypoint {gateway} is not ready; its log is: ambit lab logs waypoint/{gateway}")
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.ambit_until(&Stop::never(), &["lab", "down"]).and_then(|o| o.ok("ambit lab down"));
        if let Err(e) = down {
            out::say(&format!("bench: {e:#}; try: ambit lab down --name {}", self.name));
        }
        // Configuration of servers that are gone; a leftover is overwritten by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pid_of(entry: &Value) -> Option<u32> {
    entry["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

fn first_v4(addresses: &Value) -> Option<IpAddr> {
    let mut all = addresses.as_array()?.iter().filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
    all.find(IpAddr::is_ipv4)
}
