//! The nodes of a mesh as the command line reaches them: the admin sockets of a lab.
//!
//! A node that does not answer is told on standard error and hides no other one.

use std::path::{Path, PathBuf};

use ambit_lab::{LabName, RunDir};
use ambit_runtime::admin::client;
use ambit_runtime::tasks;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::out::{self, Failure};

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
    /// The socket of its ztunnel.
    pub(crate) socket: PathBuf,
    /// The socket of its node agent.
    pub(crate) agent: PathBuf,
}

impl Where {
    /// The nodes, by name.
    ///
    /// # Errors
    /// When there is no such lab or node, with what to type.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let run = RunDir::of(&self.name);
        let dir = run.nodes();
        let Ok(entries) = std::fs::read_dir(&dir) else {
            return Err(Failure::new(out::UNREACHABLE, no_lab(&self.name)).into());
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        if let Some(wanted) = self.node.as_ref().filter(|wanted| !names.contains(wanted)) {
            let known = names.join(", ");
            return Err(Failure::new(
                out::FAILED,
                format!("no node {wanted} in lab {}; its nodes are: {known}", self.name),
            )
            .into());
        }
        names.retain(|name| self.node.as_ref().is_none_or(|wanted| wanted == name));
        let node = |name: String| Node {
            socket: dir.join(&name).join("ztunnel-admin.sock"),
            agent: dir.join(&name).join("cni-admin.sock"),
            name,
        };
        Ok(names.into_iter().map(node).collect())
    }

    /// Everything that keeps flow records: the nodes, and the waypoints' pods unless one node is asked for.
    ///
    /// # Errors
    /// When there is no such lab or node, with what to type.
    pub(crate) fn recorders(&self) -> anyhow::Result<Vec<Node>> {
        let mut all = self.nodes()?;
        if self.node.is_none() {
            all.extend(waypoints(&RunDir::of(&self.name)));
        }
        Ok(all)
    }

    /// The control plane's admin socket.
    pub(crate) fn istiod(&self) -> PathBuf {
        RunDir::of(&self.name).istiod().join("admin.sock")
    }
}

/// The pods of waypoints, by the socket that each has in its own directory.
fn waypoints(run: &RunDir) -> Vec<Node> {
    // A lab without pods has no such directory.
    let entries = std::fs::read_dir(run.pods()).into_iter().flatten().flatten();
    let node = |entry: std::fs::DirEntry| {
        let socket = entry.path().join("admin.sock");
        let name = format!("the waypoint's pod {}", entry.file_name().to_string_lossy());
        socket.exists().then(|| Node { name, agent: socket.clone(), socket })
    };
    entries.filter_map(node).collect()
}

/// What to say when there is no lab of that name; names those there are.
pub(crate) fn no_lab(name: &LabName) -> String {
    let start = format!("start one with: ambit lab up --name {name} -f FOLDER");
    let labs: Vec<String> = RunDir::labs().iter().map(ToString::to_string).collect();
    match labs.as_slice() {
        [] => format!("no lab named {name} is up; {start}"),
        [one] => format!("no lab named {name} is up, only {one}: add --name {one}, or {start}"),
        all => format!("no lab named {name} is up, only {}: add --name NAME, or {start}", all.join(", ")),
    }
}

/// Runs a command that asks sockets.
///
/// # Errors
/// What the command said.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Asks every node's ztunnel the same, side by side; a silent one is told and left out.
///
/// # Errors
/// When no node answers at all.
pub(crate) async fn ask_all(nodes: &[Node], what: &str) -> anyhow::Result<Vec<(Node, Bytes)>> {
    let ask = |node: Node| {
        let (told, answer) = oneshot::channel();
        let what = what.to_owned();
        tasks::spawn("ask", async move {
            let result = ask(&node.socket, &what).await;
            // Whoever asked is gone only with the whole command.
            let _ = told.send((node, result));
        });
        answer
    };
    let waiting: Vec<_> = nodes.iter().cloned().map(ask).collect();
    let mut answers = Vec::new();
    for answer in waiting {
        let (node, result) = answer.await.context("the task that asks a node was lost")?;
        match result {
            Ok(body) => answers.push((node, body)),
            Err(error) => out::say(&format!("warning: {}", silent(&node.name, &error))),
        }
    }
    if answers.is_empty() {
        return Err(Failure::new(out::UNREACHABLE, "no node answers; is the lab up?").into());
    }
    Ok(answers)
}

/// What to say of a node that does not answer.
pub(crate) fn silent(node: &str, error: &anyhow::Error) -> String {
    format!("{node} does not answer, so what only it knows is missing here: {error:#}")
}

/// Asks a socket; its body.
///
/// # Errors
/// When nobody answers, or with a refusal.
pub(crate) async fn ask(socket: &Path, what: &str) -> anyhow::Result<Bytes> {
    let answer = client::get(socket, what).await?;
    if !answer.status.is_success() {
        let said = String::from_utf8_lossy(&answer.body);
        bail!("{} answered {}: {}", socket.display(), answer.status, said.trim());
    }
    Ok(answer.body)
}

/// Asks a socket for JSON.
///
/// # Errors
/// When nobody answers, or with something else.
pub(crate) async fn json(socket: &Path, what: &str) -> anyhow::Result<Value> {
    read(&ask(socket, what).await?, socket)
}

/// Reads what a socket answered.
///
/// # Errors
/// When it is no JSON.
pub(crate) fn read(body: &[u8], socket: &Path) -> anyhow::Result<Value> {
    serde_json::from_slice(body).with_context(|| format!("{} did not answer with JSON", socket.display()))
}

/// A field as text; empty if absent.
pub(crate) fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A field as a cell of a table; a dash if absent.
pub(crate) fn cell(value: &Value, key: &str) -> String {
    or_dash(text(value, key))
}

/// A text as a cell of a table; a dash if empty.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The beginning of a connection's id: enough to tell it to `ambit why`.
pub(crate) fn short_id(value: &Value) -> String {
    or_dash(text(value, "conn_id").chars().take(ID_CHARS).collect())
}

/// How much of an id a table shows. 48 bits: two of a million records share it once in 500 times.
const ID_CHARS: usize = 12;
