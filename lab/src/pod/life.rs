//! The life of one pod: sandbox, init containers, containers, restarts, the end.
//!
//! One task a pod and one a container. It reports through a `watch` channel and obeys orders; whether the pod
//! is ready, and whether it should exist, is decided elsewhere.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_runtime::{clock, tasks};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::error::LabError;
use crate::pod::plan::{ContainerPlan, PodPlan, Restart};
use crate::pod::sandbox::{self, Sandbox, Site};
use crate::pod::state::{ContainerReport, ContainerState, PodState, STOPPED};
use crate::process::{self, Exit, Launch, MEMBER_ENV, Running};
use crate::token;

/// Orders that wait for a container before the sender waits.
const ORDERS_WAITING: usize = 16;
/// First pause before a container that ended is started again; the very first time there is none.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// Longest pause before a container is started again.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A container that ran this long is started again without a pause.
const RAN_WELL: Duration = Duration::from_secs(30);
/// Exit code of a container that could not be started, as the container runtimes have it.
const NOT_STARTED: i32 = 128;
/// Pause before a sandbox that could not be made is tried again.
const SANDBOX_AGAIN: Duration = Duration::from_secs(1);

/// What the end of a pod allows its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// What can be ordered of one container while its pod goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End it; `restartPolicy` says whether it comes back.
    Stop(End),
    /// Send it a signal.
    Signal(Signal),
}

/// A pod that lives. Dropping this does not end it.
#[derive(Debug)]
pub struct Life {
    /// What it runs.
    pub plan: Arc<PodPlan>,
    /// What it does.
    pub state: watch::Receiver<PodState>,
    end: watch::Sender<Option<End>>,
    gate: watch::Sender<bool>,
    hold: watch::Sender<bool>,
    orders: mpsc::Sender<(Option<String>, Order)>,
}

impl Life {
    /// Ends the pod; the first order counts, a later one may only shorten it.
    pub fn end(&self, end: End) {
        self.end.send_if_modified(|now| {
            let shorter = now.is_none_or(|n| end.grace < n.grace);
            if shorter {
                *now = Some(end);
            }
            shorter
        });
    }

    /// Whether the pod was told to end.
    pub fn is_ending(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Lets the containers start, or holds them back as long as none has started.
    pub fn open_gate(&self, open: bool) {
        self.gate.send_if_modified(|now| std::mem::replace(now, open) != open);
    }

    /// What stops every container and keeps it stopped, whatever `restartPolicy` says, or lets them start again.
    ///
    /// The pod keeps its namespace and addresses meanwhile.
    pub fn holder(&self) -> impl Fn(bool) + Send + use<> {
        let hold = self.hold.clone();
        move |held| _ = hold.send_if_modified(|now| std::mem::replace(now, held) != held)
    }

    /// Whether the pod was stopped by command.
    pub fn is_held(&self) -> bool {
        *self.hold.borrow()
    }

    /// What orders the restart of one container, for whoever watches its health.
    pub fn restarter(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let (orders, grace) = (self.orders.clone(), self.plan.grace);
        move |container| {
            // As with `order`: whoever cannot take it does not need it.
            let _ = orders.try_send((Some(container.to_owned()), Order::Stop(End { grace })));
        }
    }

    /// Orders something of one container, or of all.
    pub fn order(&self, container: Option<String>, order: Order) {
        // A pod that has ended takes no orders, and one with a full inbox has enough of them already.
        let _ = self.orders.try_send((container, order));
    }
}

/// Begins a pod's life; its containers wait for the gate.
pub fn begin(site: Arc<Site>, plan: PodPlan, runner: PathBuf) -> Life {
    let plan = Arc::new(plan);
    let (state_tx, state) = watch::channel(first_state(&plan));
    let (end, end_rx) = watch::channel(None);
    let (gate, gate_rx) = watch::channel(false);
    let (hold, hold_rx) = watch::channel(false);
    let (orders, orders_rx) = mpsc::channel(ORDERS_WAITING);
    let context = Context { site, plan: Arc::clone(&plan), runner, state: state_tx, hold: hold_rx };
    tasks::spawn("pod", async move {
        let context = Arc::new(context);
        live(&context, end_rx, gate_rx, orders_rx).await;
        context.state.send_modify(|s| s.gone = true);
    });
    Life { plan, state, end, gate, hold, orders }
}

fn first_state(plan: &PodPlan) -> PodState {
    let reports =
        |all: &[ContainerPlan]| all.iter().map(|c| (c.name.clone(), ContainerReport::default())).collect();
    PodState { init: reports(&plan.init), containers: reports(&plan.containers), ..PodState::default() }
}

#[derive(Debug)]
struct Context {
    site: Arc<Site>,
    plan: Arc<PodPlan>,
    runner: PathBuf,
    state: watch::Sender<PodState>,
    hold: watch::Receiver<bool>,
}

type EndSignal = watch::Receiver<Option<End>>;

async fn live(
    context: &Arc<Context>,
    mut end: EndSignal,
    mut gate: watch::Receiver<bool>,
    orders: mpsc::Receiver<(Option<String>, Order)>,
) {
    let Some(sandbox) = make_sandbox(context, &mut end).await else { return };
    let sandbox = Arc::new(sandbox);
    context.state.send_modify(|s| s.sandbox = true);
    keep_tokens(context);
    let open = async { gate.wait_for(|open| *open).await.is_ok() };
    let mut told = end.clone();
    let may_start = tokio::select! { open = open => open, () = ending(&mut told) => false };
    if may_start && run_init(context, &sandbox, &end).await {
        context.state.send_modify(|s| s.initialized = true);
        run_containers(context, &sandbox, &end, orders).await;
    }
    // The pod keeps its namespace after its containers ended, as a finished pod does, until it is deleted.
    ending(&mut end).await;
    context.state.send_modify(|s| s.ending = true);
    drop(sandbox);
    remove_sandbox(context).await;
}

async fn ending(end: &mut EndSignal) {
    // A lost sender means the daemon is going down: that ends the pod as well.
    let _ = end.wait_for(Option::is_some).await;
}

/// Resolves when the pod is told to end in another way than `seen`.
async fn newer(end: &mut EndSignal, seen: Option<End>) -> End {
    let changed = end.wait_for(|now| now.is_some() && *now != seen).await.map(|now| *now);
    // A lost sender is an end without grace, said once.
    let end = changed.ok().flatten().unwrap_or(End { grace: Duration::ZERO });
    if seen == Some(end) { std::future::pending().await } else { end }
}

/// Resolves when the pod is told to stop, or never.
async fn held(hold: &mut watch::Receiver<bool>) {
    if hold.wait_for(|held| *held).await.is_err() {
        std::future::pending().await
    }
}

/// Resolves at that time, or never.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn make_sandbox(context: &Arc<Context>, end: &mut EndSignal) -> Option<Sandbox> {
    loop {
        let (site, plan) = (Arc::clone(&context.site), Arc::clone(&context.plan));
        let made = tokio::task::spawn_blocking(move || sandbox::create(&site, &plan)).await;
        let why = match made {
            Ok(Ok(sandbox)) => {
                context.state.send_modify(|s| s.blocked = None);
                return Some(sandbox);
            }
            Ok(Err(e)) => e.full(),
            Err(e) => e.to_string(),
        };
        tracing::warn!(
            namespace = context.plan.namespace,
            pod = context.plan.name,
            error = why,
            "making a pod"
        );
        context.state.send_modify(|s| s.blocked = Some(why));
        tokio::select! {
            () = tokio::time::sleep(SANDBOX_AGAIN) => {}
            () = ending(end) => return None,
        }
    }
}

/// Keeps the tokens in the pod's volumes fresh until its containers have ended.
fn keep_tokens(context: &Context) {
    let tokens = sandbox::tokens(&context.site, &context.plan);
    let Some(every) = tokens.iter().map(|(bearer, _)| bearer.refresh_after()).min() else { return };
    let (issuer, mut state) = (Arc::clone(&context.site.issuer), context.state.subscribe());
    tasks::spawn("pod tokens", async move {
        tokio::select! {
            () = token::keep_fresh(issuer, tokens, every) => {}
            // A lost sender is a pod that is gone.
            _ = state.wait_for(|s| s.ending) => {}
        }
    });
}

async fn remove_sandbox(context: &Arc<Context>) {
    let (site, plan) = (Arc::clone(&context.site), Arc::clone(&context.plan));
    match tokio::task::spawn_blocking(move || sandbox::remove(&site, &plan)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(pod = context.plan.name, error = e.full(), "removing a pod's namespace"),
        Err(e) => tracing::warn!(pod = context.plan.name, error = %e, "removing a pod's namespace"),
    }
}

/// Runs the init containers one after the other; says whether all ended well.
async fn run_init(context: &Arc<Context>, sandbox: &Arc<Sandbox>, end: &EndSignal) -> bool {
    for plan in &context.plan.init {
        let policy = match context.plan.restart {
            Restart::Never => Restart::Never,
            Restart::Always | Restart::OnFailure => Restart::OnFailure,
        };
        let (_keep, orders) = mpsc::channel(1);
        let one = OneContainer {
            context: Arc::clone(context),
            sandbox: Arc::clone(sandbox),
            plan: plan.clone(),
            policy,
            init: true,
        };
        if one.run(end.clone(), orders).await != Some(0) {
            return false;
        }
    }
    true
}

/// Runs the containers until each has ended for good.
async fn run_containers(
    context: &Arc<Context>,
    sandbox: &Arc<Sandbox>,
    end: &EndSignal,
    mut orders: mpsc::Receiver<(Option<String>, Order)>,
) {
    let mut running = JoinSet::new();
    let mut inboxes: BTreeMap<String, mpsc::Sender<Order>> = BTreeMap::new();
    for plan in &context.plan.containers {
        let (inbox, own_orders) = mpsc::channel(ORDERS_WAITING);
        inboxes.insert(plan.name.clone(), inbox);
        let one = OneContainer {
            context: Arc::clone(context),
            sandbox: Arc::clone(sandbox),
            plan: plan.clone(),
            policy: context.plan.restart,
            init: false,
        };
        let end = end.clone();
        running.spawn(tasks::guarded("container", async move {
            one.run(end, own_orders).await;
        }));
    }
    let mut listening = true;
    while !running.is_empty() {
        tokio::select! {
            _ = running.join_next() => {}
            order = orders.recv(), if listening => match order {
                Some((name, order)) => {
                    let all = inboxes.iter().filter(|(own, _)| name.as_ref().is_none_or(|n| n == *own));
                    for (_, inbox) in all {
                        // A full inbox means the container has the same kind of order waiting already.
                        let _ = inbox.try_send(order);
                    }
                }
                None => listening = false,
            },
        }
    }
}

struct OneContainer {
    context: Arc<Context>,
    sandbox: Arc<Sandbox>,
    plan: ContainerPlan,
    policy: Restart,
    init: bool,
}

impl OneContainer {
    /// Runs until the container has ended for good; its last exit code, or none if it never ran.
    async fn run(&self, mut end: EndSignal, mut orders: mpsc::Receiver<Order>) -> Option<i32> {
        let (mut pause, mut last) = (Duration::ZERO, None);
        let mut hold = self.context.hold.clone();
        loop {
            let mut failure = None;
            self.rest(&mut hold, &mut end).await;
            // What was ordered of an earlier run is not meant for the next one.
            while orders.try_recv().is_ok() {}
            if end.borrow().is_some() {
                self.report(|r| r.state = ContainerState::Ended { code: last.unwrap_or(0) });
                return last;
            }
            let begun = clock::monotonic();
            let code = match self.start().await {
                Ok(running) => self.follow(running, &mut end, &mut hold, &mut orders).await,
                Err(e) => {
                    failure = Some(e.full());
                    NOT_STARTED
                }
            };
            last = Some(code);
            let stopped = *hold.borrow();
            let for_good = !stopped && !self.policy.starts_again(code);
            if end.borrow().is_some() || for_good {
                self.report(|r| (r.state, r.last_code) = (ContainerState::Ended { code }, Some(code)));
                return last;
            }
            let ran = clock::monotonic() - begun;
            pause = if stopped { Duration::ZERO } else { next_pause(pause, ran) };
            let why = failure.unwrap_or_else(|| format!("exit code {code}"));
            let message = format!("{why}, starting again in {} ms", pause.as_millis());
            self.waiting(if pause.is_zero() { "ContainerCreating" } else { "CrashLoopBackOff" }, message);
            self.report(|r| (r.restarts, r.last_code) = (r.restarts + 1, Some(code)));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ending(&mut end) => {}
                () = held(&mut hold) => {}
            }
            pause = pause.max(BACK_OFF_FIRST / 2);
        }
    }

    /// Waits while the pod is stopped by command.
    async fn rest(&self, hold: &mut watch::Receiver<bool>, end: &mut EndSignal) {
        if !*hold.borrow() {
            return;
        }
        self.waiting(STOPPED, "stopped by command".to_owned());
        tokio::select! {
            // A lost sender ends the pod as well, which is looked at next.
            _ = hold.wait_for(|held| !*held) => {}
            () = ending(end) => {}
        }
    }

    async fn start(&self) -> Result<Running, LabError> {
        let (context, plan) = (&self.context, &self.plan);
        let path = context.site.run.pod_log(&context.plan.namespace, &context.plan.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(LabError::file("opening log", path))?;
        let mut env = plan.env.clone();
        env.push((MEMBER_ENV.to_owned(), context.site.lab.to_string()));
        let netns = self.sandbox.netns.try_clone();
        let launch = Launch {
            runner: context.runner.clone(),
            argv: plan.argv.clone(),
            env,
            directory: plan.directory.clone(),
            netns: netns.map_err(LabError::file("opening the namespace of", context.plan.name.clone()))?,
            container: Some(self.sandbox.container(&context.plan, plan)),
            log,
        };
        let lost = |e| LabError::Start { program: plan.name.clone(), cause: std::io::Error::other(e) };
        tokio::task::spawn_blocking(move || process::start(launch)).await.map_err(lost)?
    }

    /// Waits for the end of one run, obeying orders meanwhile.
    async fn follow(
        &self,
        running: Running,
        end: &mut EndSignal,
        hold: &mut watch::Receiver<bool>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> i32 {
        let since = clock::wall();
        self.report(|r| r.state = ContainerState::Running { pid: running.pid, since });
        let signaller = running.signaller();
        let send = |signal| {
            if let Err(e) = signaller.send(signal) {
                tracing::warn!(container = self.plan.name, %signal, error = %e, "sending a signal");
            }
        };
        let mut ended = running.ended;
        let (mut seen, mut kill_at): (Option<End>, Option<Instant>) = (None, None);
        let (mut listening, mut stopping) = (true, false);
        loop {
            tokio::select! {
                exit = &mut ended => return exit.map_or(255, |Exit { code }| code),
                changed = newer(end, seen) => {
                    send(Signal::SIGTERM);
                    seen = Some(changed);
                    let at = clock::monotonic() + changed.grace;
                    kill_at = Some(kill_at.map_or(at, |k| k.min(at)));
                }
                () = held(hold), if !stopping => {
                    stopping = true;
                    send(Signal::SIGTERM);
                    kill_at = kill_at.or_else(|| Some(clock::monotonic() + self.context.plan.grace));
                }
                () = until(kill_at) => {
                    send(Signal::SIGKILL);
                    return ended.await.map_or(255, |Exit { code }| code);
                }
                order = orders.recv(), if listening => match order {
                    Some(Order::Stop(stop)) => {
                        send(Signal::SIGTERM);
                        kill_at = kill_at.or_else(|| Some(clock::monotonic() + stop.grace));
                    }
                    Some(Order::Signal(signal)) => send(signal),
                    None => listening = false,
                },
            }
        }
    }

    fn waiting(&self, reason: &'static str, message: String) {
        self.report(|r| r.state = ContainerState::Waiting { reason, message });
    }

    fn report(&self, change: impl FnOnce(&mut ContainerReport)) {
        self.context.state.send_modify(|state| {
            let reports = if self.init { &mut state.init } else { &mut state.containers };
            change(reports.entry(self.plan.name.clone()).or_default());
        });
    }
}

/// None after the first end and after a good run, then doubling up to a limit.
fn next_pause(last: Duration, ran: Duration) -> Duration {
    if ran >= RAN_WELL { Duration::ZERO } else { (last * 2).min(BACK_OFF_MAX) }
}
