//! Attending the control plane: a stream beside discovery on which a proxy tells summaries and answers questions.
//!
//! Losing it changes nothing for traffic. A summary is told until it is acknowledged and counts go on meanwhile, so
//! a broken stream loses none. A control plane that knows no such service is asked again after long, and nothing is
//! counted for it.

mod questions;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_runtime::flows::Filter;
use ambit_xds::client::backoff::{self, Backoff};
use ambit_xds::observe::Tally;
use ambit_xds::proto::ambit::observe::v1::{
    FromProxy, Hello, Memory, Summary, ToProxy, from_proxy, to_proxy,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tracing::{debug, info};

use super::channel::{Caller, ChannelError, Target};
use super::services::observer_client::ObserverClient;
use questions::Questions;

/// Messages that wait to be sent.
const QUEUE: usize = 16;
/// Largest question that is taken.
const QUESTION_BYTES_MAX: usize = 2 << 20;
/// Connections of one answer: a message has room for them.
pub const CONNECTIONS_MAX: usize = 5000;
/// How often a summary is told, where the control plane says nothing else; and what it may say.
const PACE: Duration = Duration::from_secs(5);
const PACES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(300)];
/// Wait before a control plane is asked again that knows no such service.
const UNKNOWN_WAIT: Duration = Duration::from_secs(600);
/// Waits after other failures: nothing depends on this stream, so longer ones than discovery's.
const WAITS: backoff::Limits = backoff::Limits {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    healthy: Duration::from_secs(10),
};

/// Something that takes a while.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A question with one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The connections that are open, the newest first.
    Connections {
        /// At most so many; never more than [`CONNECTIONS_MAX`].
        most: usize,
    },
    /// What would happen; the body of `POST /explain`.
    Explain(Bytes),
    /// What the last tests of itself came to.
    SelfTests,
    /// The certificates that are held, of one identity or of all.
    Certificates {
        /// Only of this one.
        identity: Option<String>,
    },
    /// What the process uses of what it may use.
    Budget,
}

/// Which flow records are asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Only these.
    pub filter: Filter,
    /// Of the records that are held, at most so many, the newest.
    pub last: usize,
    /// Go on as they come.
    pub follow: bool,
}

/// One answer to who asks for flow records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A record, JSON without an end of line.
    Record(Bytes),
    /// So many records came faster than they could be told.
    Lost(u64),
}

/// A proxy that can be asked.
pub trait Attendant: Debug + Send + Sync + 'static {
    /// Answers a question with JSON, or with why there is no answer.
    fn answer(&self, question: Question) -> Later<Result<Bytes, String>>;

    /// Tells flow records, oldest first, until there are no more of those asked for or nobody listens; what is held.
    fn flows(&self, asked: Asked, to: mpsc::Sender<Told>) -> Later<Memory>;

    /// Flow records that the memory has pushed out since the process started.
    fn records_lost(&self) -> u64;

    /// Adds what live connections have moved to the tally.
    fn count_live(&self);
}

/// Everything that attending takes.
#[derive(Debug)]
pub struct Attendance {
    /// The control plane.
    pub target: Target,
    /// What identifies us.
    pub caller: Caller,
    /// What we say of ourselves.
    pub hello: Hello,
    /// What summaries tell.
    pub tally: Arc<Tally>,
    /// Who answers.
    pub attendant: Arc<dyn Attendant>,
    /// Uniform over all of `u64`; spreads the attempts.
    pub draw: fn() -> u64,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended the stream: {:?} {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("the control plane closed the stream")]
    Closed,
}

/// Summaries, from one stream to the next.
#[derive(Debug)]
struct Summaries {
    number: u64,
    since: Instant,
    /// Taken and not acknowledged.
    pending: Option<Summary>,
    is_sent: bool,
    lost_told: u64,
}

impl Attendance {
    /// Attends for ever. May be dropped.
    pub async fn keep(self) {
        let mut backoff = Backoff::new(WAITS);
        let now = clock::monotonic();
        let mut summaries = Summaries { number: 0, since: now, pending: None, is_sent: false, lost_told: 0 };
        loop {
            let mut heard = None;
            let ended = self.stream(&mut summaries, &mut heard).await;
            let is_unknown = matches!(&ended, Ended::Status(status) if status.code() == Code::Unimplemented);
            let wait = if is_unknown {
                self.tally.count(false);
                summaries.pending = None;
                UNKNOWN_WAIT
            } else {
                let since = |at| clock::monotonic().saturating_duration_since(at);
                let lasted = heard.map_or(Duration::ZERO, since);
                backoff.after(lasted, u32::try_from((self.draw)() >> 32).unwrap_or(u32::MAX))
            };
            debug!(error = super::follow::describe(&ended), ?wait, "the control plane is not attended");
            sleep(wait).await;
        }
    }

    /// One stream to its end; notes when it was first heard of the control plane.
    async fn stream(&self, summaries: &mut Summaries, heard: &mut Option<Instant>) -> Ended {
        let (send, mut questions) = match self.open().await {
            Ok(open) => open,
            Err(ended) => return ended,
        };
        let mut asked = Questions::new(self.attendant.clone(), send.clone());
        let mut tick = ticks(PACE);
        summaries.is_sent = false;
        loop {
            tokio::select! {
                message = questions.message() => match message {
                    Ok(Some(message)) => {
                        if heard.is_none() {
                            *heard = Some(clock::monotonic());
                            info!(address = self.target.address, "attending the control plane");
                            self.tally.count(true);
                            self.tally.retell();
                        }
                        self.take(message, summaries, &mut tick, &mut asked);
                    }
                    Ok(None) => return Ended::Closed,
                    Err(status) => return Ended::Status(Box::new(status)),
                },
                // Nothing is told to who has not answered the greeting.
                _ = tick.tick(), if heard.is_some() => {
                    if self.tell(summaries, &send).is_err() {
                        return Ended::Closed;
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<FromProxy>, Streaming<ToProxy>), Ended> {
        let channel = self.target.connect().await?;
        let (send, queue) = mpsc::channel(QUEUE);
        let hello = FromProxy { content: Some(from_proxy::Content::Hello(self.hello.clone())) };
        // It is the first message of an empty queue.
        let _ = send.try_send(hello);
        let mut call = Request::new(ReceiverStream::new(queue));
        self.caller.identify(call.metadata_mut())?;
        let mut client = ObserverClient::new(channel).max_decoding_message_size(QUESTION_BYTES_MAX);
        let answer = client.attend(call).await.map_err(|status| Ended::Status(Box::new(status)))?;
        Ok((send, answer.into_inner()))
    }

    fn take(&self, message: ToProxy, summaries: &mut Summaries, tick: &mut Interval, asked: &mut Questions) {
        let ToProxy { id, content } = message;
        match content {
            Some(to_proxy::Content::Pace(pace)) => {
                let [shortest, longest] = PACES;
                *tick = ticks(Duration::from_millis(pace.every_ms).clamp(shortest, longest));
            }
            Some(to_proxy::Content::Acknowledge(told)) => summaries.acknowledged(told.number),
            Some(content) => asked.take(id, content),
            // Of a newer control plane.
            None => asked.unknown(id),
        }
    }

    /// Tells the summary that is due; an error if nobody takes it any more.
    fn tell(&self, summaries: &mut Summaries, send: &mpsc::Sender<FromProxy>) -> Result<(), ()> {
        self.attendant.count_live();
        let Some(summary) = summaries.due(&self.tally, self.attendant.records_lost()) else { return Ok(()) };
        let message = FromProxy { content: Some(from_proxy::Content::Summary(summary.clone())) };
        match send.try_send(message) {
            Ok(()) => summaries.is_sent = true,
            // It stays due.
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(()),
        }
        Ok(())
    }
}

/// Ticks, the first of them after one period.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

impl Summaries {
    /// The summary to send now, if there is one: the next is taken once the one before is acknowledged.
    fn due(&mut self, tally: &Tally, records_lost: u64) -> Option<&Summary> {
        if self.pending.is_none() {
            let now = clock::monotonic();
            let (pairs, lost) = tally.take();
            if pairs.is_empty() && lost == 0 && records_lost == self.lost_told {
                self.since = now;
                return None;
            }
            let covers = now.saturating_duration_since(self.since);
            self.number += 1;
            self.since = now;
            self.lost_told = records_lost;
            self.is_sent = false;
            self.pending = Some(Summary {
                number: self.number,
                covers_ms: u64::try_from(covers.as_millis()).unwrap_or(u64::MAX),
                pairs,
                lost,
                records_lost,
            });
        }
        self.pending.as_ref().filter(|_| !self.is_sent)
    }

    fn acknowledged(&mut self, number: u64) {
        if self.pending.as_ref().is_some_and(|pending| pending.number == number) {
            self.pending = None;
        }
    }
}

#[cfg(test)]
mod tests;
