//! `ambit flows -f`: records as connections end, from every node, also across restarts of its ztunnel.
//!
//! A graceful replacement leaves two instances that both still tell records; each is followed to its own end. What a
//! node says is passed on as it comes, so records of different nodes are not in order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_runtime::admin::client;
use ambit_runtime::tasks;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{ALL, Args, Filter, line};
use crate::cmd::nodes::{Node, silent};
use crate::out;

/// Records that wait for a slow terminal before the nodes have to.
const RECORDS_WAITING: usize = 256;
/// Pause between two looks for another instance of a node's ztunnel.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Shows records until nobody reads them any more.
///
/// # Errors
/// None so far: a node that is silent is told and tried again.
pub(super) async fn follow(
    args: &Args,
    filter: &Filter,
    mut records: mpsc::Receiver<Value>,
) -> anyhow::Result<i32> {
    while let Some(record) = records.recv().await {
        if filter.passes(&record) {
            line(args, &record);
        }
    }
    Ok(out::OK)
}

/// The last records of every node and those that follow, for as long as they are read.
pub(in crate::cmd) fn stream(nodes: Vec<Node>, last: usize) -> mpsc::Receiver<Value> {
    let (send, records) = mpsc::channel::<Value>(RECORDS_WAITING);
    for node in nodes {
        tasks::spawn("follow", keep_following(node, last, send.clone()));
    }
    records
}

/// Follows every instance of a node's ztunnel, one after the other or side by side.
async fn keep_following(node: Node, last: usize, records: mpsc::Sender<Value>) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let (ended, mut ends) = mpsc::channel::<PathBuf>(8);
    let mut told = false;
    let mut first = true;
    while !records.is_closed() {
        while let Ok(instance) = ends.try_recv() {
            known.remove(&instance);
        }
        let instance = instance_of(&node.socket);
        if !known.contains(&instance) {
            let what = format!("/flows?last={}&follow", if first { last } else { ALL });
            match client::stream(&instance, &what).await {
                Ok(stream) => {
                    if told {
                        out::say(&format!("{} answers again", node.name));
                    }
                    (told, first) = (false, false);
                    known.insert(instance.clone());
                    let one = Instance { node: node.name.clone(), path: instance };
                    tasks::spawn("follow instance", one.pass_on(stream, records.clone(), ended.clone()));
                }
                Err(error) if !told => {
                    told = true;
                    first = false;
                    out::say(&format!(
                        "warning: {}; it is followed again as soon as it does",
                        silent(&node.name, &error.into())
                    ));
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The socket that a node's well-known name leads to now.
fn instance_of(socket: &Path) -> PathBuf {
    std::fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned())
}

/// One instance of a node's ztunnel.
struct Instance {
    node: String,
    path: PathBuf,
}

impl Instance {
    /// Passes its records on until it ends.
    async fn pass_on(
        self,
        mut stream: client::Stream,
        records: mpsc::Sender<Value>,
        ended: mpsc::Sender<PathBuf>,
    ) {
        let mut rest = Vec::new();
        while let Ok(Some(bytes)) = stream.next().await {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let Ok(record) = serde_json::from_slice::<Value>(&line) else { continue };
                if let Some(lost) = record.get("lost") {
                    out::say(&format!(
                        "warning: {lost} records of {} are lost: they came too fast",
                        self.node
                    ));
                } else if records.send(record).await.is_err() {
                    return;
                }
            }
        }
        // Nobody waits for it once the command ends.
        let _ = ended.send(self.path).await;
    }
}
