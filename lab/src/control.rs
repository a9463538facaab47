//! How the command line talks to a lab's daemon: JSON, one value a line, over a Unix socket.
//!
//! A connection carries one request; the answer is any number of progress lines and then exactly one end.
//! Only root and the daemon's own user are heard. What a request does is decided by the daemon.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, unix::OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use ambit_manifest::{Kind, ObjectKey};
use ambit_runtime::tasks;

use crate::error::LabError;
use crate::name::LabName;
use crate::paths::RunDir;

/// The largest request, in bytes: some thousands of manifests.
const REQUEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Requests that wait for the daemon's attention before further connections wait in the kernel.
const REQUESTS_WAITING: usize = 64;
/// Progress lines that wait for a slow reader before the sender waits.
const LINES_WAITING: usize = 256;
/// How long a connection may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// How long a command waits for its change to be in force, in milliseconds; nothing returns at once.
pub type WaitMillis = Option<u64>;

/// What the daemon can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Wait until the lab that was just started is complete.
    Up {
        /// How long.
        wait: WaitMillis,
    },
    /// Write these objects, already checked one by one.
    Apply {
        /// Kubernetes objects.
        objects: Vec<Value>,
        /// How long to wait.
        wait: WaitMillis,
    },
    /// Remove these objects.
    Delete {
        /// What.
        objects: Vec<ObjectKey>,
        /// No error for one that does not exist.
        ignore_missing: bool,
        /// How long to wait.
        wait: WaitMillis,
    },
    /// Change labels or annotations of one object.
    Mark {
        /// Which object.
        object: ObjectKey,
        /// Annotations instead of labels.
        annotations: bool,
        /// Values to set, or nothing to remove the key.
        changes: Vec<(String, Option<String>)>,
        /// How long to wait.
        wait: WaitMillis,
    },
    /// Stop, start, restart or kill a part.
    Act {
        /// What to do.
        action: Action,
        /// Which part, as in `ztunnel/node1`.
        target: String,
    },
    /// Change the link between a node and the fabric.
    Link {
        /// Which node.
        node: String,
        /// What happens to its link.
        change: LinkChange,
    },
    /// All objects of a kind, as the lab sees them.
    Objects {
        /// Which kind.
        kind: Kind,
    },
    /// Nodes, programs, pods.
    Status,
    /// The process whose namespaces a command in a pod joins.
    PodProcess {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// A container, if not the first one.
        container: Option<String>,
    },
}

/// What can be done to a running part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// SIGTERM, and it stays stopped.
    Stop,
    /// Start what was stopped.
    Start,
    /// A graceful replacement.
    Restart,
    /// SIGKILL; what a kubelet would restart comes back.
    Kill,
}

/// What can happen to a node's link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkChange {
    /// Nothing passes any more, in either direction.
    Cut,
    /// Everything as it was at the start.
    Heal,
    /// Slower, lossier or narrower; what is not named stays as it is.
    Shape {
        /// Loss in percent, 0 to 100, each direction.
        loss_percent: Option<f64>,
        /// Rate as tc writes it, such as `10mbit`.
        rate: Option<String>,
        /// Largest packet in bytes.
        mtu_bytes: Option<u32>,
    },
}

/// One line of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// Something to tell a person meanwhile.
    Progress(String),
    /// The end: it is done.
    Done(Value),
    /// The end: it failed.
    Failed {
        /// The command's exit code, by the list of exit codes.
        exit_code: i32,
        /// The message.
        message: String,
    },
}

/// A request with the way back to who asked.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes progress; dropped lines mean the caller left.
    pub lines: mpsc::Sender<Line>,
    /// Resolves when the caller has gone away.
    pub gone: oneshot::Receiver<()>,
}

/// Serves the socket until the task is dropped; requests arrive at the returned receiver.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(run: &RunDir) -> Result<mpsc::Receiver<Call>, LabError> {
    let path = run.daemon_socket();
    // Bound under another name first: a socket that is there but does not listen yet refuses callers.
    let unready = path.with_extension("new");
    let listener = UnixListener::bind(&unready).map_err(LabError::file("listening on", &unready))?;
    std::fs::rename(&unready, &path).map_err(LabError::file("listening on", path))?;
    let (calls, inbox) = mpsc::channel(REQUESTS_WAITING);
    tasks::spawn("control", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tasks::spawn("control connection", async move { hear(stream, calls).await });
                }
                Err(cause) => {
                    tracing::warn!(error = %cause, "accepting a command");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(inbox)
}

async fn hear(stream: tokio::net::UnixStream, calls: mpsc::Sender<Call>) {
    let uid = stream.peer_cred().map(|c| c.uid());
    let own = rustix::process::geteuid().as_raw();
    if !matches!(uid, Ok(uid) if uid == 0 || uid == own) {
        tracing::warn!(?uid, "refused a command from another user");
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = tokio::io::BufReader::new(read.take(REQUEST_BYTES_MAX));
    let mut text = String::new();
    let request = match tokio::time::timeout(REQUEST_PATIENCE, read.read_line(&mut text)).await {
        Ok(Ok(_)) => serde_json::from_str::<Request>(&text).map_err(|e| e.to_string()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("nothing was asked in time".to_owned()),
    };
    let request = match request {
        Ok(request) => request,
        Err(why) => {
            let failed = Line::Failed { exit_code: 64, message: format!("request not understood: {why}") };
            let _ = write_line(&mut write, &failed).await;
            return;
        }
    };
    let (lines, outbox) = mpsc::channel(LINES_WAITING);
    let (leave, gone) = oneshot::channel();
    if calls.send(Call { request, lines, gone }).await.is_err() {
        let failed = Line::Failed { exit_code: 69, message: "the lab is going down".to_owned() };
        let _ = write_line(&mut write, &failed).await;
        return;
    }
    answer(read, write, outbox).await;
    let _ = leave.send(());
}

/// Passes lines on until the last one, or until the caller closes its end.
async fn answer(
    mut read: impl tokio::io::AsyncRead + Unpin,
    mut write: OwnedWriteHalf,
    mut outbox: mpsc::Receiver<Line>,
) {
    let mut byte = [0u8; 1];
    loop {
        tokio::select! {
            line = outbox.recv() => {
                let Some(line) = line else { return };
                if write_line(&mut write, &line).await.is_err() {
                    return;
                }
            }
            // The caller never sends a second byte: any end of this read means it left.
            _ = read.read(&mut byte) => return,
        }
    }
}

async fn write_line(write: &mut OwnedWriteHalf, line: &Line) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Asks the daemon of a lab and waits for the end; progress goes to `say`.
///
/// # Errors
/// [`LabError::NotUp`] or [`LabError::DaemonGone`]; [`LabError::Refused`] with what the daemon said.
pub fn ask(lab: &LabName, request: &Request, say: &mut dyn FnMut(&str)) -> Result<Value, LabError> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(LabError::NotUp(lab.clone()));
    }
    let gone = |e: &dyn std::fmt::Display| LabError::DaemonGone { name: lab.clone(), why: e.to_string() };
    let mut stream = UnixStream::connect(run.daemon_socket()).map_err(|e| gone(&e))?;
    let mut bytes = serde_json::to_vec(request).map_err(|e| gone(&e))?;
    bytes.push(b'\n');
    stream.write_all(&bytes).map_err(|e| gone(&e))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| gone(&e))?;
        match serde_json::from_str::<Line>(&line).map_err(|e| gone(&e))? {
            Line::Progress(text) => say(&text),
            Line::Done(value) => return Ok(value),
            Line::Failed { exit_code, message } => return Err(LabError::Refused { exit_code, message }),
        }
    }
    Err(gone(&"it ended before it answered; see its log"))
}
