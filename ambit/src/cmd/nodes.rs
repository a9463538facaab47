//! The nodes of a mesh as the command line reaches them: the admin sockets of a lab.

use std::path::PathBuf;

use ambit_lab::{LabName, RunDir};
use ambit_runtime::admin::client;
use anyhow::{Context as _, bail};
use serde_json::Value;

/// Which nodes a command asks.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Where {
    /// Name of the lab
    #[arg(long, env = "AMBIT_LAB", default_value = "lab", global = true)]
    pub(crate) name: LabName,
    /// Only this node
    #[arg(long, global = true)]
    pub(crate) node: Option<String>,
}

/// One node and its ztunnel's admin socket.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Name of the node.
    pub(crate) name: String,
    /// The socket.
    pub(crate) socket: PathBuf,
}

impl Where {
    /// The nodes, by name.
    ///
    /// # Errors
    /// When there is no such lab or node, with what to type.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let run = RunDir::of(&self.name);
        let dir = run.nodes();
        let entries = std::fs::read_dir(&dir).with_context(|| {
            format!(
                "no lab named {:?} is running; start one with `ambit lab up --name {}`",
                self.name.as_str(),
                self.name.as_str()
            )
        })?;
        let mut nodes: Vec<Node> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| self.node.as_ref().is_none_or(|wanted| wanted == name))
            .map(|name| Node { socket: dir.join(&name).join("ztunnel-admin.sock"), name })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        if nodes.is_empty() {
            bail!("no such node; `ambit lab status --name {}` lists them", self.name.as_str());
        }
        Ok(nodes)
    }

    /// The control plane's admin socket.
    pub(crate) fn istiod(&self) -> PathBuf {
        RunDir::of(&self.name).istiod().join("admin.sock")
    }
}

/// Runs a command that asks sockets.
///
/// # Errors
/// What the command said.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Asks a socket for JSON.
///
/// # Errors
/// When nobody answers, or with something else.
pub(crate) async fn json(socket: &std::path::Path, what: &str) -> anyhow::Result<Value> {
    let answer = client::get(socket, what).await?;
    if !answer.status.is_success() {
        bail!(
            "{} answered {}: {}",
            socket.display(),
            answer.status,
            String::from_utf8_lossy(&answer.body).trim()
        );
    }
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("{} did not answer with JSON", socket.display()))
}

/// A field as text; empty if absent.
pub(crate) fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
