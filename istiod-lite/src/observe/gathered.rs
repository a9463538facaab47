//! What proxies told, as the API asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ambit_runtime::flows::Filter;
use ambit_runtime::{clock, tasks};
use ambit_xds::proto::ambit::observe::v1::{Flows, Memory};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time;

use super::hub::{ANSWER_WAIT, Asking, Heard, Hub, Question, Said, is_passed_on};
use crate::console::{Answers, Coverage, Gathered, Later, Records};

/// Records of one answer, of all proxies together, and bytes of them.
const RECORDS_MAX: usize = 100_000;
const RECORDS_BYTES_MAX: usize = 8 << 20;
/// Why nobody was asked.
const TOO_MANY: &str = "too many questions are open; ask again";
/// Records that wait for who follows.
const FOLLOWED: usize = 64;

impl Gathered for Hub {
    fn edges(&self, window: Duration) -> Vec<Value> {
        Self::edges(self, window)
    }

    fn reported(&self, window: Duration) -> Vec<Value> {
        Self::reported(self, window)
    }

    fn seen(&self, window: Duration) -> Vec<ambit_explain::Flow> {
        Self::seen(self, window)
    }

    fn coverage(&self) -> Coverage {
        Self::coverage(self)
    }

    fn incidents(&self) -> Vec<Value> {
        self.items_of_incidents()
    }

    fn attached(&self) -> BTreeMap<String, String> {
        self.versions()
    }

    fn self_tests(&self) -> Later<BTreeMap<String, Value>> {
        let hub = self.clone();
        Box::pin(async move {
            let answers = hub.ask(Question::SelfTests, None).await.unwrap_or_default();
            answers.into_iter().filter_map(|(name, answer)| Some((name, answer.ok()?))).collect()
        })
    }

    fn certificates(&self, identity: Option<String>, of: Option<String>) -> Later<Answers> {
        Box::pin(answers(self.clone(), Question::Certificates { identity }, of))
    }

    fn connections(&self, node: String, most: u32) -> Later<Answers> {
        Box::pin(answers(self.clone(), Question::Connections { most }, Some(node)))
    }

    fn budget(&self, node: String) -> Later<Answers> {
        Box::pin(answers(self.clone(), Question::Budget, Some(node)))
    }

    fn flows(&self, filter: BTreeMap<String, String>, last: usize) -> Later<Records> {
        let hub = self.clone();
        Box::pin(async move {
            match ask(&hub, &filter, last, false) {
                Ok(asking) => collect(asking).await,
                Err(why) => Records { incomplete: vec![why], ..Records::default() },
            }
        })
    }

    fn follow(&self, filter: BTreeMap<String, String>) -> mpsc::Receiver<Value> {
        let (send, records) = mpsc::channel(FOLLOWED);
        match ask(self, &filter, 0, true) {
            Ok(asking) => drop(tasks::spawn("follow-flows", pass_on(asking, send))),
            // There is room for one.
            Err(why) => drop(send.try_send(json!({ "error": why }))),
        }
        records
    }

    fn refusals(&self) -> broadcast::Receiver<Arc<str>> {
        self.watch_refusals()
    }
}

/// What the proxy that is named, or every one, answers, in words where it does not.
async fn answers(hub: Hub, question: Question, of: Option<String>) -> Answers {
    let Some(answers) = hub.ask(question, of.as_deref()).await else {
        return [(of.unwrap_or_else(|| "every proxy".to_owned()), Err(TOO_MANY.to_owned()))].into();
    };
    let in_words = answers.into_iter().map(|(name, answer)| (name, answer.map_err(|why| why.to_string())));
    in_words.collect()
}

/// Asks for records; a filter that is none is refused here already.
fn ask(hub: &Hub, filter: &BTreeMap<String, String>, last: usize, follow: bool) -> Result<Asking, String> {
    let filter = Filter::from_query(filter, clock::wall()).map_err(|error| error.to_string())?;
    let flows = Flows { filter: filter.query().clone(), last: last as u64, follow };
    hub.ask_flows(flows).ok_or_else(|| TOO_MANY.to_owned())
}

/// Waits for the records of everybody, and says who said nothing.
async fn collect(mut asking: Asking) -> Records {
    let mut records = Newest::default();
    let busy = std::mem::take(&mut asking.unasked).into_iter();
    let incomplete = busy.map(|name| format!("{name} takes no questions now")).collect();
    let mut told = Records { incomplete, ..Records::default() };
    let mut oldest: Option<u64> = None;
    let deadline = (clock::monotonic() + ANSWER_WAIT).into();
    loop {
        let heard = match time::timeout_at(deadline, asking.next()).await {
            Ok(Some(heard)) => heard,
            Ok(None) => break,
            Err(_) => {
                let silent = asking.names().into_iter();
                told.incomplete.extend(silent.map(|name| format!("{name} did not answer in time")));
                break;
            }
        };
        let Heard { who, said, .. } = heard;
        match said {
            Said::Records(lines, lost) => {
                let (kept, long): (Vec<&Bytes>, Vec<&Bytes>) =
                    lines.iter().partition(|line| is_passed_on(line));
                told.lost += lost + long.len() as u64;
                kept.into_iter().for_each(|line| records.add(line));
            }
            Said::Ended(why, memory) => {
                told.incomplete.extend(why.map(|why| format!("{}: {why}", who.name)));
                told.lost += memory.as_ref().map_or(0, |memory| memory.lost);
                oldest = oldest.into_iter().chain(memory.as_ref().and_then(begins)).min();
            }
            Said::Left => told.incomplete.push(format!("{} has left", who.name)),
            Said::Answer(_) => {}
        }
    }
    (told.records, told.left_out) = records.end();
    told.oldest = oldest.map(|ms| rfc3339(Duration::from_millis(ms)));
    told
}

/// The newest records, within bounds of number and bytes.
#[derive(Debug, Default)]
struct Newest {
    /// When each ended, and the record as it was told.
    records: Vec<(String, Bytes)>,
    bytes: usize,
    left_out: u64,
}

impl Newest {
    fn add(&mut self, line: &Bytes) {
        let Some((time, _)) = read(line) else { return };
        self.bytes += line.len();
        // A part of a message would hold all of it.
        self.records.push((time, Bytes::copy_from_slice(line)));
        if self.records.len() > 2 * RECORDS_MAX || self.bytes > 2 * RECORDS_BYTES_MAX {
            self.trim();
        }
    }

    /// Brings records into order, and keeps the newest.
    fn trim(&mut self) {
        self.records.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut bytes = 0;
        let fits = |(_, record): &&(String, Bytes)| {
            bytes += record.len();
            bytes <= RECORDS_BYTES_MAX
        };
        let kept = self.records.iter().rev().take(RECORDS_MAX).take_while(fits).count();
        let left_out = self.records.len() - kept;
        self.left_out += left_out as u64;
        self.records.drain(..left_out);
        self.bytes = self.records.iter().map(|(_, record)| record.len()).sum();
    }

    /// The records, oldest first, and how many older ones are left out.
    fn end(mut self) -> (Vec<Value>, u64) {
        self.trim();
        let records = self.records.iter().filter_map(|(_, record)| Some(read(record)?.1));
        (records.collect(), self.left_out)
    }
}

/// A record and when it ended.
fn read(line: &Bytes) -> Option<(String, Value)> {
    let record: Value = serde_json::from_slice(line).ok()?;
    Some((record["time"].as_str()?.to_owned(), record))
}

fn begins(memory: &Memory) -> Option<u64> {
    Some(memory.oldest_ms).filter(|oldest| *oldest > 0)
}

fn rfc3339(since_1970: Duration) -> String {
    // What a proxy says may lie beyond what can be written.
    let at = UNIX_EPOCH + since_1970.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_millis(at).to_string()
}

/// Passes records on until nobody wants them; what was lost stands between them.
async fn pass_on(mut asking: Asking, send: mpsc::Sender<Value>) {
    loop {
        let heard = tokio::select! {
            heard = asking.next() => heard,
            () = send.closed() => return,
        };
        let (lines, lost) = match heard {
            Some(Heard { said: Said::Records(lines, lost), .. }) => (lines, lost),
            Some(_) => continue,
            None => return,
        };
        let (lines, long): (Vec<Bytes>, Vec<Bytes>) = lines.into_iter().partition(is_passed_on);
        let lost = lost + long.len() as u64;
        if lost > 0 && send.send(json!({ "lost": lost })).await.is_err() {
            return;
        }
        for (_, record) in lines.iter().filter_map(read) {
            if send.send(record).await.is_err() {
                return;
            }
        }
    }
}
