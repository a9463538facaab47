//! One connection of a client, from opening to end. How many there are, and when, is decided by its caller.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, Semaphore, watch};

use super::frame::{Frame, Kind, Report, Sequencer, Stream, Verifier, decode};
use super::plan::Plan;
use super::summary::{Failure, Outcome};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Payload of the small frames on held connections, in bytes.
const TICK_BYTES: usize = 64;

/// What a server says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Its name.
    pub(super) server: String,
    /// Whom it sees as its peer.
    pub(super) peer: IpAddr,
}

/// What a held connection does until its end.
#[derive(Clone)]
pub(super) struct Hold {
    pub(super) until: Instant,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) interval: Option<Duration>,
    pub(super) burst: Option<(Instant, u64)>,
    /// How many bursts may be under way at once.
    pub(super) bursts: Arc<Semaphore>,
}

/// Called when something happens that a caller counts.
pub(super) trait Watcher: Sync {
    /// The connection is open and has been greeted.
    fn opened(&self);
    /// Its burst has come back.
    fn burst(&self);
}

/// One connection to be made.
pub(super) struct Call<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stream: Stream,
    /// Bytes to send, of one frame's length.
    pub(super) filling: &'a [u8],
    pub(super) hold: Option<Hold>,
    pub(super) watcher: &'a dyn Watcher,
    /// The client's clock counts from here.
    pub(super) epoch: Instant,
}

type Failed = (Failure, String);

impl Call<'_> {
    /// Makes the connection and says how it went.
    pub(super) async fn run(&self) -> Outcome {
        let begun = clock::monotonic();
        let mut outcome = Outcome::default();
        if let Err(failed) = self.exchange(begun, &mut outcome).await {
            outcome.failure = Some(failed);
        }
        let sent_faults = outcome.sent.as_ref().map(|r| r.faults).unwrap_or_default();
        let mut faults = outcome.received.faults;
        faults.add(&sent_faults);
        if outcome.failure.is_none() && !faults.is_none() {
            let failure = if faults.misdelivered > 0 { Failure::Misdelivered } else { Failure::Damaged };
            outcome.failure = Some((failure, format!("{faults:?}")));
        }
        outcome.total = Some(clock::monotonic() - begun);
        outcome
    }

    async fn exchange(&self, begun: Instant, outcome: &mut Outcome) -> Result<(), Failed> {
        let mut socket = connect(self.plan).await?;
        outcome.connect = Some(clock::monotonic() - begun);
        let (reader, writer) = socket.split();
        let shared = Shared::default();
        let mut ear = Ear {
            call: self,
            reader,
            buffer: BytesMut::new(),
            verifier: Verifier::new(Some(self.stream)),
            shared: &shared,
            begun,
            outcome,
        };
        let result = async {
            if self.plan.server_first {
                shared.due.store(1, Ordering::Relaxed);
                ear.hello().await?;
            }
            let mouth = Mouth {
                call: self,
                writer,
                sequencer: Sequencer::new(self.stream),
                out: BytesMut::new(),
                shared: &shared,
            };
            futures_util::future::try_join(mouth.speak(), ear.listen()).await.map(|_| ())
        };
        let result = result.await;
        ear.outcome.received = ear.verifier.report().clone();
        outcome.bytes_sent = shared.bytes_sent.load(Ordering::Relaxed);
        result
    }
}

/// What the two directions know of each other.
#[derive(Default)]
struct Shared {
    /// Frames that have come or are to come back.
    due: AtomicU64,
    /// Wakes the reader when something is due again.
    spoken: Notify,
    /// After so many frames the burst has come back; 0 before.
    burst_goal: AtomicU64,
    /// Wakes the speaker when the burst has come back.
    burst_back: Notify,
    bytes_sent: AtomicU64,
}

/// The sending direction.
struct Mouth<'a> {
    call: &'a Call<'a>,
    writer: WriteHalf<'a>,
    sequencer: Sequencer,
    out: BytesMut,
    shared: &'a Shared,
}

impl Mouth<'_> {
    async fn speak(mut self) -> Result<(), Failed> {
        let plan = self.call.plan;
        // In server-first mode the server's greeting was counted before ours is sent.
        let counted = !plan.server_first;
        self.send(Kind::Hello, &[], counted).await?;
        self.send_bytes(plan.payload_bytes).await?;
        if let Some(hold) = self.call.hold.clone() {
            self.keep(hold).await?;
        }
        self.send(Kind::End, &[], true).await?;
        if plan.half_close {
            self.writer.shutdown().await.map_err(broken)?;
        }
        Ok(())
    }

    /// Speaks now and then until the end.
    async fn keep(&mut self, hold: Hold) -> Result<(), Failed> {
        let mut stop = hold.stop.clone();
        let mut burst = hold.burst;
        let mut tick = hold.interval.map(|every| clock::monotonic() + every);
        loop {
            tokio::select! {
                () = sleep_until(Some(hold.until)) => return Ok(()),
                () = stopped(&mut stop) => return Ok(()),
                () = sleep_until(tick) => {
                    let ticked = self.call.filling.len().min(TICK_BYTES);
                    self.send(Kind::Data, &self.call.filling[..ticked], true).await?;
                    tick = hold.interval.map(|every| clock::monotonic() + every);
                }
                () = sleep_until(burst.map(|(at, _)| at)) => {
                    let bytes = burst.take().map_or(0, |(_, bytes)| bytes);
                    let _turn = hold.bursts.acquire().await.map_err(|e| (Failure::Local, e.to_string()))?;
                    let frames = bytes.div_ceil(self.call.filling.len() as u64);
                    let goal = self.shared.due.load(Ordering::Acquire) + frames;
                    self.shared.burst_goal.store(goal, Ordering::Release);
                    self.send_bytes(bytes).await?;
                    // Its memory is for connections that speak, not for those that idle.
                    self.out = BytesMut::new();
                    // Its turn lasts until everything has come back: what is under way is bounded by the turns.
                    tokio::select! {
                        () = self.shared.burst_back.notified() => {}
                        () = sleep_until(Some(hold.until)) => return Ok(()),
                        () = stopped(&mut stop) => return Ok(()),
                    }
                }
            }
        }
    }

    async fn send_bytes(&mut self, mut bytes: u64) -> Result<(), Failed> {
        let filling = self.call.filling;
        while bytes > 0 {
            let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(filling.len());
            self.send(Kind::Data, &filling[..length], true).await?;
            bytes -= length as u64;
        }
        Ok(())
    }

    async fn send(&mut self, kind: Kind, payload: &[u8], answered: bool) -> Result<(), Failed> {
        let now = clock::monotonic() - self.call.epoch;
        self.out.clear();
        self.sequencer.encode(
            kind,
            u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            payload,
            &mut self.out,
        );
        if answered {
            self.shared.due.fetch_add(1, Ordering::Release);
            self.shared.spoken.notify_one();
        }
        self.writer.write_all(&self.out).await.map_err(broken)?;
        self.shared.bytes_sent.fetch_add(payload.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The receiving direction.
struct Ear<'a> {
    call: &'a Call<'a>,
    reader: ReadHalf<'a>,
    buffer: BytesMut,
    verifier: Verifier,
    shared: &'a Shared,
    begun: Instant,
    outcome: &'a mut Outcome,
}

impl Ear<'_> {
    /// Takes frames until the server's last, then its close.
    async fn listen(&mut self) -> Result<(), Failed> {
        if !self.call.plan.server_first {
            self.hello().await?;
        }
        loop {
            let frame = self.next().await?;
            match frame.kind {
                Kind::Hello => return Err((Failure::Garbage, "the server greeted twice".to_owned())),
                Kind::Data => self.after_data(),
                Kind::End => {
                    self.judge(&frame)?;
                    break;
                }
            }
        }
        let rest =
            tokio::time::timeout(self.call.plan.stall_timeout, self.reader.read_buf(&mut self.buffer)).await;
        match rest {
            Ok(Ok(0)) if self.buffer.is_empty() => Ok(()),
            Ok(Ok(_)) => Err((Failure::Garbage, "bytes after the last frame".to_owned())),
            Ok(Err(e)) => Err(broken(e)),
            Err(_) => {
                Err((Failure::Stalled, "the connection was not closed after the last frame".to_owned()))
            }
        }
    }

    async fn hello(&mut self) -> Result<(), Failed> {
        let frame = self.next().await?;
        self.outcome.first_byte = Some(clock::monotonic() - self.begun);
        let hello = match frame.kind {
            Kind::Hello => serde_json::from_slice::<Hello>(&frame.payload).map_err(|e| e.to_string()),
            Kind::Data | Kind::End => Err("no greeting came first".to_owned()),
        };
        let hello = hello.map_err(|e| (Failure::Garbage, e))?;
        let (server, expected) = (hello.server, &self.call.plan.expect_server);
        self.outcome.server = Some(server.clone());
        self.outcome.seen_as = Some(hello.peer);
        if !expected.is_empty() && !expected.contains(&server) {
            return Err((Failure::Misdelivered, format!("{server} answered, not {}", expected.join(" or "))));
        }
        self.call.watcher.opened();
        Ok(())
    }

    fn after_data(&mut self) {
        let goal = self.shared.burst_goal.load(Ordering::Acquire);
        if goal > 0 && self.verifier.report().frames >= goal {
            self.shared.burst_goal.store(0, Ordering::Release);
            self.call.watcher.burst();
            self.shared.burst_back.notify_one();
        }
    }

    /// Whether everything that was said arrived, and everything that arrived came back.
    fn judge(&mut self, end: &Frame) -> Result<(), Failed> {
        let told: Report = serde_json::from_slice(&end.payload)
            .map_err(|e| (Failure::Garbage, format!("the server's report: {e}")))?;
        let said = self.shared.due.load(Ordering::Acquire);
        let (arrived, back) = (told.frames, self.verifier.report().frames);
        let damaged = !told.faults.is_none() || !self.verifier.report().faults.is_none();
        self.outcome.sent = Some(told);
        // Damage is told for what it is, not for the count it leaves behind.
        if damaged || (arrived == said && back == said) {
            return Ok(());
        }
        Err((Failure::Truncated, format!("of {said} frames {arrived} arrived and {back} came back")))
    }

    /// The next frame; waits without end only while nothing is due.
    async fn next(&mut self) -> Result<Frame, Failed> {
        loop {
            let decoded = decode(&mut self.buffer).map_err(|e| (Failure::Garbage, e.to_string()))?;
            if let Some(frame) = decoded {
                self.verifier.accept(&frame);
                return Ok(frame);
            }
            if self.read_more().await? == Some(0) {
                let greeted = self.verifier.report().frames > 0;
                let what = if greeted { "before the last frame" } else { "before the greeting" };
                return Err((Failure::Truncated, format!("the connection was closed {what}")));
            }
        }
    }

    /// Bytes that came, 0 at the connection's end; none if something else woke us.
    async fn read_more(&mut self) -> Result<Option<usize>, Failed> {
        let (due, back) = (self.shared.due.load(Ordering::Acquire), self.verifier.report().frames);
        if due <= back {
            // Room is made when bytes come: an idle connection keeps none.
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return tokio::select! {
                ready = self.reader.readable() => {
                    ready.map_err(broken)?;
                    continue_if_blocked(self.try_fill())
                }
                () = self.shared.spoken.notified() => Ok(None),
            };
        }
        self.buffer.reserve(READ_BYTES);
        let waited = self.call.plan.stall_timeout;
        match tokio::time::timeout(waited, self.reader.read_buf(&mut self.buffer)).await {
            Ok(read) => read.map(Some).map_err(broken),
            Err(_) => Err((
                Failure::Stalled,
                format!("nothing came for {waited:?}; of {due} frames {back} are back"),
            )),
        }
    }

    fn try_fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.reader.try_read_buf(&mut self.buffer)
    }
}

/// A wake-up for nothing is none.
fn continue_if_blocked(read: io::Result<usize>) -> Result<Option<usize>, Failed> {
    match read {
        Ok(length) => Ok(Some(length)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(broken(e)),
    }
}

async fn connect(plan: &Plan) -> Result<TcpStream, Failed> {
    let timed_out = |_| {
        (Failure::ConnectTimeout, format!("{} did not answer within {:?}", plan.target, plan.connect_timeout))
    };
    let stream =
        tokio::time::timeout(plan.connect_timeout, connect_any(&plan.target)).await.map_err(timed_out)??;
    stream.set_nodelay(true).map_err(broken)?;
    Ok(stream)
}

/// Tries every address of the target in turn.
async fn connect_any(target: &str) -> Result<TcpStream, Failed> {
    let found = tokio::net::lookup_host(target).await;
    let addresses = found.map_err(|e| (Failure::Unresolved, format!("resolving {target}: {e}")))?;
    let mut last = (Failure::Unresolved, format!("{target} has no address"));
    let mut tried = BTreeSet::new();
    for address in addresses.filter(|a| tried.insert(*a)) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = not_opened(address, &e),
        }
    }
    Err(last)
}

fn not_opened(address: std::net::SocketAddr, error: &io::Error) -> Failed {
    use io::ErrorKind as E;
    let failure = match error.kind() {
        E::ConnectionRefused => Failure::Refused,
        E::ConnectionReset | E::ConnectionAborted => Failure::Reset,
        E::TimedOut => Failure::ConnectTimeout,
        E::HostUnreachable | E::NetworkUnreachable => Failure::Unreachable,
        _ => Failure::Local,
    };
    (failure, format!("connecting to {address}: {error}"))
}

/// What the end of an open connection is called.
pub(super) fn broken(error: io::Error) -> Failed {
    use io::ErrorKind as E;
    let failure = match error.kind() {
        E::ConnectionReset | E::BrokenPipe | E::ConnectionAborted | E::NotConnected => Failure::Reset,
        E::TimedOut => Failure::Stalled,
        E::HostUnreachable | E::NetworkUnreachable => Failure::Unreachable,
        E::UnexpectedEof => Failure::Truncated,
        _ => Failure::Local,
    };
    (failure, error.to_string())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when a stop is ordered; nobody left to order one means never.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}
