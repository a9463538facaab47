//! The questions that are being answered on one stream; those that are left end with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_runtime::flows::Filter;
use ambit_runtime::{clock, tasks};
use ambit_xds::proto::ambit::observe::v1::{Answer, Ended, Flows, FromProxy, Records, from_proxy, to_proxy};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Asked, Attendant, CONNECTIONS_MAX, Question, Told};

/// Questions at once; one more is refused.
const QUESTIONS_MAX: usize = 32;
/// Records that wait to be packed.
const RECORDS: usize = 1024;
/// What one message carries at most: records, and bytes of them.
const PACK_RECORDS: usize = 512;
const PACK_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub(super) struct Questions {
    attendant: Arc<dyn Attendant>,
    send: mpsc::Sender<FromProxy>,
    open: BTreeMap<u64, JoinHandle<()>>,
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.open.values().for_each(JoinHandle::abort);
    }
}

impl Questions {
    pub(super) fn new(attendant: Arc<dyn Attendant>, send: mpsc::Sender<FromProxy>) -> Self {
        Self { attendant, send, open: BTreeMap::new() }
    }

    /// Begins to answer, or ends a question.
    pub(super) fn take(&mut self, id: u64, content: to_proxy::Content) {
        let question = match content {
            to_proxy::Content::Flows(flows) => return self.flows(id, &flows),
            to_proxy::Content::Cancel(_) => {
                if let Some(task) = self.open.remove(&id) {
                    task.abort();
                }
                return;
            }
            to_proxy::Content::Connections(asked) => Question::Connections { most: most(asked.most) },
            to_proxy::Content::Budget(_) => Question::Budget,
            to_proxy::Content::Explain(explain) => Question::Explain(explain.question),
            to_proxy::Content::SelfTests(_) => Question::SelfTests,
            to_proxy::Content::Certificates(asked) => {
                Question::Certificates { identity: Some(asked.identity).filter(|named| !named.is_empty()) }
            }
            // They are not questions.
            to_proxy::Content::Pace(_) | to_proxy::Content::Acknowledge(_) => return,
        };
        let answer = self.attendant.answer(question);
        let send = self.send.clone();
        self.start(id, async move {
            let content = match answer.await {
                Ok(json) => from_proxy::Content::Answer(Answer { id, json }),
                Err(error) => from_proxy::Content::Ended(Ended { id, error, memory: None }),
            };
            // Nobody to tell is nobody who asks.
            let _ = send.send(FromProxy { content: Some(content) }).await;
        });
    }

    /// Answers what is not known here.
    pub(super) fn unknown(&mut self, id: u64) {
        if id > 0 {
            self.refuse(id, "this proxy does not know such a question".to_owned());
        }
    }

    fn flows(&mut self, id: u64, flows: &Flows) {
        let filter = match Filter::from_query(&flows.filter, clock::wall()) {
            Ok(filter) => filter,
            Err(error) => return self.refuse(id, error.to_string()),
        };
        let last = usize::try_from(flows.last).unwrap_or(usize::MAX);
        let (to, told) = mpsc::channel(RECORDS);
        let memory = self.attendant.flows(Asked { filter, last, follow: flows.follow }, to);
        let send = self.send.clone();
        self.start(id, async move {
            let (memory, ()) = tokio::join!(memory, pack(id, told, &send));
            let content =
                from_proxy::Content::Ended(Ended { id, error: String::new(), memory: Some(memory) });
            let _ = send.send(FromProxy { content: Some(content) }).await;
        });
    }

    fn start(&mut self, id: u64, work: impl Future<Output = ()> + Send + 'static) {
        self.open.retain(|_, task| !task.is_finished());
        if self.open.len() >= QUESTIONS_MAX || self.open.contains_key(&id) {
            let error =
                format!("this proxy answers {QUESTIONS_MAX} questions at once, each under its own id");
            return self.refuse(id, error);
        }
        self.open.insert(id, tasks::spawn("attend-question", work));
    }

    fn refuse(&mut self, id: u64, error: String) {
        let ended = Ended { id, error, memory: None };
        // A queue that is full belongs to somebody who asks faster than is read; the question stays without answer.
        let _ = self.send.try_send(FromProxy { content: Some(from_proxy::Content::Ended(ended)) });
    }
}

/// How many connections are told: as many as asked for, and never more than there is room for.
fn most(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(asked) if asked > 0 => asked.min(CONNECTIONS_MAX),
        Ok(_) | Err(_) => CONNECTIONS_MAX,
    }
}

/// Packs records into messages, as many as are there at the moment.
async fn pack(id: u64, mut told: mpsc::Receiver<Told>, send: &mpsc::Sender<FromProxy>) {
    while let Some(first) = told.recv().await {
        let mut pack = Records { id, records: Vec::new(), lost: 0 };
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(one) = next {
            match one {
                Told::Record(record) => {
                    bytes += record.len();
                    pack.records.push(record);
                }
                Told::Lost(lost) => pack.lost += lost,
            }
            let is_full = pack.records.len() >= PACK_RECORDS || bytes >= PACK_BYTES;
            next = if is_full { None } else { told.try_recv().ok() };
        }
        if send.send(FromProxy { content: Some(from_proxy::Content::Records(pack)) }).await.is_err() {
            return;
        }
    }
}
