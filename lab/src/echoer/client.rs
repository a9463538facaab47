//! A client's run: how many connections, when, and what they came to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ambit_runtime::{clock, tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Call, Hold, Watcher, stopped};
use super::frame::Stream;
use super::plan::{Load, OPEN_MAX, Plan};
use super::summary::{Failure, Outcome, Summary, Tally, millis};
use super::{Event, Events};

/// Held connections that are being opened at once when no rate says otherwise.
const OPENING_MAX: usize = 64;
/// Bursts of held connections that are under way at once.
const BURSTS_MAX: usize = 64;

/// Carries out a plan and sums it up.
///
/// `client` should differ from any other client's. Ends early, with what happened so far, when `stop` holds true.
pub async fn run(plan: Plan, client: u64, events: Events, stop: watch::Receiver<bool>) -> Summary {
    let started_unix_ms = clock::wall().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default();
    let filling = filling(client, plan.frame_bytes);
    let run = Arc::new(Run {
        tally: Mutex::new(Tally::new(&plan.target, started_unix_ms)),
        plan,
        client,
        filling,
        begun: clock::monotonic(),
        events,
        stop,
        open: AtomicU64::new(0),
        settled: AtomicU64::new(0),
        bursts: AtomicU64::new(0),
    });
    match run.plan.load {
        Load::Closed { workers } => closed(&run, workers).await,
        Load::Open { rate } => open(&run, rate).await,
        Load::Held { rate, interval, burst } => held(&run, rate, interval, burst).await,
    }
    let took = clock::monotonic() - run.begun;
    let done = Tally::new(&run.plan.target, started_unix_ms);
    let tally = std::mem::replace(&mut *run.tally.lock().unwrap_or_else(PoisonError::into_inner), done);
    tally.finish(took)
}

/// Bytes that do not repeat within a frame and differ from client to client.
fn filling(client: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&client.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

struct Run {
    plan: Plan,
    client: u64,
    filling: Vec<u8>,
    begun: Instant,
    events: Events,
    stop: watch::Receiver<bool>,
    tally: Mutex<Tally>,
    /// Connections that are open now.
    open: AtomicU64,
    /// Held connections that were opened or failed.
    settled: AtomicU64,
    /// Held connections whose burst came back, or that failed before.
    bursts: AtomicU64,
}

impl Run {
    fn at_ms(&self) -> u64 {
        millis(clock::monotonic() - self.begun)
    }

    fn end(&self) -> Option<Instant> {
        self.plan.duration.map(|d| self.begun + d)
    }

    /// Whether another connection may be begun.
    fn goes_on(&self) -> bool {
        !*self.stop.borrow() && self.end().is_none_or(|end| clock::monotonic() < end)
    }

    async fn one(&self, number: u64, hold: Option<Hold>, opening: Option<OwnedSemaphorePermit>) {
        let watched = Watched {
            run: self,
            held: hold.is_some(),
            opening: Mutex::new(opening),
            progress: Mutex::default(),
        };
        let call = Call {
            plan: &self.plan,
            stream: Stream { client: self.client, connection: number + 1 },
            filling: &self.filling,
            hold,
            watcher: &watched,
            epoch: self.begun,
        };
        let begun_ms = self.at_ms();
        let outcome = call.run().await;
        watched.ended();
        self.add(number, begun_ms, &outcome);
    }

    fn add(&self, number: u64, begun_ms: u64, outcome: &Outcome) {
        let at_ms = self.at_ms();
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(number, (begun_ms, at_ms), outcome);
        if let Some((failure, error)) = &outcome.failure {
            (self.events)(Event::Failed {
                connection: number,
                failure: *failure,
                error: error.clone(),
                at_ms,
            });
        }
    }

    /// Counts a held connection that was opened or failed; the last one is told.
    fn settle(&self) {
        if self.settled.fetch_add(1, Ordering::AcqRel) + 1 == self.plan.connections {
            (self.events)(Event::Holding { open: self.open.load(Ordering::Acquire), at_ms: self.at_ms() });
        }
    }

    fn burst(&self) {
        if self.bursts.fetch_add(1, Ordering::AcqRel) + 1 == self.plan.connections {
            (self.events)(Event::Burst { open: self.open.load(Ordering::Acquire), at_ms: self.at_ms() });
        }
    }
}

/// How far one connection has come, for the counts.
#[derive(Default)]
struct Progress {
    opened: bool,
    burst: bool,
}

struct Watched<'a> {
    run: &'a Run,
    held: bool,
    opening: Mutex<Option<OwnedSemaphorePermit>>,
    progress: Mutex<Progress>,
}

impl Watched<'_> {
    fn release(&self) {
        drop(self.opening.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn ended(&self) {
        let bursts = matches!(self.run.plan.load, Load::Held { burst: Some(_), .. });
        let (opened, burst) = {
            let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            (progress.opened, progress.burst)
        };
        if opened {
            self.run.open.fetch_sub(1, Ordering::AcqRel);
        } else if self.held {
            self.run.settle();
        }
        if bursts && !burst {
            self.run.burst();
        }
        self.release();
    }
}

impl Watcher for Watched<'_> {
    fn opened(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).opened = true;
        self.run.open.fetch_add(1, Ordering::AcqRel);
        if self.held {
            self.run.settle();
        }
        self.release();
    }

    fn burst(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).burst = true;
        self.run.burst();
    }
}

async fn closed(run: &Arc<Run>, workers: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..workers.min(run.plan.connections) {
        let (run, next) = (Arc::clone(run), Arc::clone(&next));
        all.spawn(tasks::guarded("echoer worker", async move {
            while run.goes_on() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= run.plan.connections {
                    return;
                }
                run.one(number, None, None).await;
            }
        }));
    }
    while all.join_next().await.is_some() {}
}

async fn open(run: &Arc<Run>, rate: f64) {
    let free = Arc::new(Semaphore::new(usize::try_from(OPEN_MAX).unwrap_or(usize::MAX)));
    let mut all = JoinSet::new();
    let mut stop = run.stop.clone();
    for number in 0..run.plan.connections {
        tokio::select! {
            () = tokio::time::sleep_until(due(run, number, rate).into()) => {}
            () = stopped(&mut stop) => {}
        }
        if !run.goes_on() {
            break;
        }
        while all.try_join_next().is_some() {}
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => {
                let run = Arc::clone(run);
                all.spawn(tasks::guarded("echoer connection", async move {
                    let _permit = permit;
                    run.one(number, None, None).await;
                }));
            }
            Err(_) => run.add(
                number,
                run.at_ms(),
                &Outcome {
                    failure: Some((Failure::Local, format!("{OPEN_MAX} connections are open already"))),
                    ..Outcome::default()
                },
            ),
        }
    }
    while all.join_next().await.is_some() {}
}

async fn held(run: &Arc<Run>, rate: Option<f64>, interval: Option<Duration>, burst: Option<(Duration, u64)>) {
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let hold = Hold {
        until: run.end().unwrap_or(run.begun),
        stop: run.stop.clone(),
        interval,
        burst: burst.map(|(after, bytes)| (run.begun + after, bytes)),
        bursts: Arc::new(Semaphore::new(BURSTS_MAX)),
    };
    let mut all = JoinSet::new();
    let mut stop = run.stop.clone();
    for number in 0..run.plan.connections {
        let permit = match rate {
            Some(rate) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due(run, number, rate).into()) => {}
                    () = stopped(&mut stop) => {}
                }
                None
            }
            None => Arc::clone(&opening).acquire_owned().await.ok(),
        };
        if !run.goes_on() {
            break;
        }
        let (run, hold) = (Arc::clone(run), hold.clone());
        all.spawn(tasks::guarded(
            "echoer connection",
            async move { run.one(number, Some(hold), permit).await },
        ));
    }
    while all.join_next().await.is_some() {}
}

/// When the connection of that number is due.
fn due(run: &Run, number: u64, rate: f64) -> Instant {
    run.begun + Duration::from_secs_f64(number as f64 / rate)
}
