//! Records as connections end, from every replica, also as replicas come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use ambit_runtime::tasks;
use futures_util::io::{AsyncRead, AsyncReadExt as _};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ANSWER, Cluster, Query, Replica, encoded};
use crate::cmd::nodes::silent;
use crate::out::{self, Failure};

/// Records that wait for a slow terminal before the replicas have to.
const RECORDS_WAITING: usize = 256;
/// Pause between two looks for other replicas.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest line; records are some kilobytes long.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

impl Cluster {
    /// The last records of every proxy that pass, and those that follow, for as long as they are read.
    ///
    /// # Errors
    /// When no replica answers, or none lets us follow.
    pub(crate) async fn follow(self, query: Query, last: usize) -> anyhow::Result<mpsc::Receiver<Value>> {
        let (send, records) = mpsc::channel(RECORDS_WAITING);
        let (ended, ends) = mpsc::channel(8);
        let mut following =
            Following { cluster: self, query, ended, known: BTreeSet::new(), told: BTreeSet::new() };
        // First the streams, then what was before them: nothing falls in between.
        let (pass, mut streamed) = mpsc::channel::<Value>(RECORDS_WAITING);
        let silent = following.look(&pass).await?;
        let silent = granted(!following.known.is_empty(), silent)?;
        following.tell(silent);
        let before = match last {
            0 => Vec::new(),
            last => following.cluster.flows(&following.query, last).await?.records,
        };
        tasks::spawn("follow cluster", following.keep(pass, ends));
        tasks::spawn("follow records", async move {
            // What ended while it was asked is told by both.
            let twice: BTreeSet<String> = before.iter().map(Value::to_string).collect();
            for record in before {
                if send.send(record).await.is_err() {
                    return;
                }
            }
            while let Some(record) = streamed.recv().await {
                let is_new = twice.is_empty() || !twice.contains(&record.to_string());
                if is_new && send.send(record).await.is_err() {
                    return;
                }
            }
        });
        Ok(records)
    }
}

/// Which replicas are followed.
struct Following {
    cluster: Cluster,
    query: Query,
    /// Where a stream says that it has ended.
    ended: mpsc::Sender<String>,
    known: BTreeSet<String>,
    /// Replicas of which was said that they are silent.
    told: BTreeSet<String>,
}

impl Following {
    /// Looks for replicas until nobody reads any more.
    async fn keep(mut self, records: mpsc::Sender<Value>, mut ends: mpsc::Receiver<String>) {
        let mut is_told = false;
        while !records.is_closed() {
            tokio::time::sleep(LOOK_AGAIN).await;
            while let Ok(replica) = ends.try_recv() {
                self.known.remove(&replica);
            }
            match self.look(&records).await {
                Ok(silent) => {
                    is_told = false;
                    self.tell(silent);
                }
                Err(error) if !is_told => {
                    is_told = true;
                    out::say(&format!("warning: {error:#}; it is tried again"));
                }
                Err(_) => {}
            }
        }
    }

    /// Says once of each replica that it is silent.
    fn tell(&mut self, all: Vec<(String, anyhow::Error)>) {
        for (name, error) in all {
            let silent = silent(&name, &error);
            if self.told.insert(name) {
                out::say(&format!("warning: {silent}; it is followed as soon as it does"));
            }
        }
    }

    /// Follows every replica that is ready and not followed yet; those that cannot be, with why.
    async fn look(&mut self, records: &mpsc::Sender<Value>) -> anyhow::Result<Vec<(String, anyhow::Error)>> {
        let mut silent = Vec::new();
        // One that is not ready yet is found by a later look.
        for replica in self.cluster.found().await?.0 {
            if self.known.contains(&replica.name) {
                continue;
            }
            if let Err(error) = self.begin(&replica, records).await {
                silent.push((replica.name, error));
            }
        }
        Ok(silent)
    }

    async fn begin(&mut self, replica: &Replica, records: &mpsc::Sender<Value>) -> anyhow::Result<()> {
        let mut query = self.query.clone();
        query.insert("follow".to_owned(), "1".to_owned());
        let request = self.cluster.request(replica, &format!("/api/v1/flows?{}", encoded(&query)))?;
        let stream = timeout(ANSWER, self.cluster.client.request_stream(request)).await;
        let stream =
            stream.map_err(|_| Failure::new(out::UNREACHABLE, format!("no answer within {ANSWER:?}")))?;
        let stream = stream.map_err(|error| self.cluster.refused(replica, error))?;
        self.known.insert(replica.name.clone());
        if self.told.remove(&replica.name) {
            out::say(&format!("{} answers again", replica.name));
        }
        let (name, records, ended) = (replica.name.clone(), records.clone(), self.ended.clone());
        tasks::spawn("follow replica", async move {
            pass_on(&name, stream, &records).await;
            if !records.is_closed() {
                out::say(&format!("warning: {name}: the stream ended; records may be missing"));
            }
            // Nobody waits for it once the command ends.
            let _ = ended.send(name).await;
        });
        Ok(())
    }
}

/// Of the first look, those that are tried again; an error if nothing is followed. What no replica grants now, none is
/// likely to grant later, such as with a wrong token.
fn granted(
    is_followed: bool,
    mut silent: Vec<(String, anyhow::Error)>,
) -> anyhow::Result<Vec<(String, anyhow::Error)>> {
    match silent.pop() {
        Some((_, error)) if !is_followed => Err(error),
        last => {
            silent.extend(last);
            Ok(silent)
        }
    }
}

/// Passes the records of a stream on until it ends, or nobody reads them.
async fn pass_on(name: &str, stream: impl AsyncRead, records: &mpsc::Sender<Value>) {
    let mut stream = std::pin::pin!(stream);
    let (mut rest, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        let read = tokio::select! {
            read = stream.read(&mut piece) => read,
            () = records.closed() => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(count) => rest.extend_from_slice(&piece[..count]),
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(record) = serde_json::from_slice::<Value>(&line) else { continue };
            // A record has an `error` of its own.
            let is_record = record.get("conn_id").is_some();
            if let Some(lost) = record.get("lost").filter(|_| !is_record) {
                out::say(&format!(
                    "warning: {lost} records that {name} heard of are lost: they came too fast"
                ));
            } else if let Some(error) = record.get("error").filter(|_| !is_record) {
                out::say(&format!("warning: {name}: {error}"));
            } else if records.send(record).await.is_err() {
                return;
            }
        }
        if rest.len() > LINE_BYTES_MAX {
            out::say(&format!("warning: {name} tells something that is no record; it is left"));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> (String, anyhow::Error) {
        (name.to_owned(), Failure::new(out::FAILED, "it does not take the token").into())
    }

    #[test]
    fn who_is_refused_by_every_replica_learns_why_and_does_not_wait() {
        let error = granted(false, vec![refused("a"), refused("b")]).expect_err("nothing is followed");
        assert_eq!(error.downcast_ref::<Failure>().map(|failure| failure.code), Some(out::FAILED));
        let again = granted(true, vec![refused("a"), refused("b")]).expect("another one is followed");
        let names: Vec<&str> = again.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(granted(true, Vec::new()).is_ok_and(|silent| silent.is_empty()));
    }

    #[tokio::test]
    async fn lines_are_records_wherever_they_are_cut_and_what_is_none_is_left_out() {
        let (send, mut records) = mpsc::channel(8);
        let text = "{\"conn_id\":\"a\"}\n{\"lost\":2}\nnonsense\n{\"conn_id\":\"b\",\"error\":null}\n{\"conn_id\":\"cut";
        pass_on("one", text.as_bytes(), &send).await;
        drop(send);
        let mut ids = Vec::new();
        while let Some(record) = records.recv().await {
            ids.push(record["conn_id"].as_str().map(str::to_owned));
        }
        assert_eq!(ids, [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[tokio::test]
    async fn what_has_no_end_of_a_line_is_not_held_for_ever() {
        let (send, mut records) = mpsc::channel(8);
        let endless = vec![b'x'; 4 * LINE_BYTES_MAX];
        pass_on("one", &*endless, &send).await;
        drop(send);
        assert_eq!(records.recv().await, None);
    }
}
