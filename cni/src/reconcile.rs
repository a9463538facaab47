//! Makes every pod of the node what it should be, again and again.
//!
//! One loop owns what is known of each pod. It wakes when objects change, a ztunnel comes, goes or answers, a step ends
//! or a time has come; asks [`plan`] for each pod's next step; and starts at most one step a pod and
//! [`PARALLEL`] in all. Stopping it leaves every rule in place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_net::linux::netns::NetNsId;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use ambit_runtime::{clock, tasks};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::enrolment::{Decision, NotEnrolled, decide};
use crate::handoff::roster::Holding;
use crate::pod::{Announce, Announcement, Pod};
use crate::sandbox::Sandbox;
use plan::{Failure, Inside, Limits, Record, Step};
use status::PodStatus;
use work::{Outcome, Removal, StepError, Tools};

pub mod plan;
pub mod status;
pub mod work;

/// Steps under way at once.
pub const PARALLEL: usize = 8;
/// Longest wait after the start before ztunnel is let in although some pods have not been looked at.
const FIRST_PASS: Duration = Duration::from_secs(10);

/// Pause between two tries at the end of a removal.
const FORCED: Duration = Duration::from_millis(200);

/// Pods of this node by uid.
pub type Pods = BTreeMap<String, Pod>;

/// One pod and what is known of it.
#[derive(Debug)]
struct Tracked {
    /// `None` once its object is gone.
    pod: Option<Pod>,
    decision: Decision,
    record: Record,
    sandbox: Option<Sandbox>,
    /// The namespace that the container runtime gave, as far as it was taken note of.
    gift: Option<NetNsId>,
    generation: Option<u32>,
    busy: bool,
    /// Since when a captured pod has been served by no ztunnel.
    unserved: Option<Duration>,
    /// When a failed announcement may be tried again, and how often it has failed.
    announce_after: (Duration, u32),
}

/// What a step or an announcement came to.
#[derive(Debug)]
enum Done {
    Step(Result<Outcome, StepError>),
    Announced(Announcement, Result<(), crate::pod::AnnounceError>),
}

/// The loop.
#[derive(Debug)]
pub struct Reconciler<A> {
    tools: Tools,
    announce: Arc<A>,
    excluded: BTreeSet<String>,
    limits: Limits,
    started: Instant,
    tracked: BTreeMap<String, Tracked>,
    under_way: usize,
    finished: mpsc::Sender<(String, Done)>,
    first_pass: Option<Part>,
    status: watch::Sender<Arc<Vec<PodStatus>>>,
}

impl<A: Announce> Reconciler<A> {
    /// Starts the loop; it ends when `drain` begins. `ready` is set after the first pass over all pods.
    pub fn start(
        tools: Tools,
        announce: Arc<A>,
        excluded: BTreeSet<String>,
        limits: Limits,
        pods: watch::Receiver<Arc<Pods>>,
        ready: Part,
        drain: &Drain,
    ) -> watch::Receiver<Arc<Vec<PodStatus>>> {
        let (finished, results) = mpsc::channel(PARALLEL);
        let (status, shown) = watch::channel(Arc::default());
        let reconciler = Self {
            tools,
            announce,
            excluded,
            limits,
            started: clock::monotonic(),
            tracked: BTreeMap::new(),
            under_way: 0,
            finished,
            first_pass: Some(ready),
            status,
        };
        tasks::spawn("reconcile", reconciler.run(pods, results, drain.clone()));
        shown
    }

    async fn run(
        mut self,
        mut pods: watch::Receiver<Arc<Pods>>,
        mut results: mpsc::Receiver<(String, Done)>,
        drain: Drain,
    ) {
        let mut answers = self.tools.handoff.answers();
        let mut gifts = self.tools.sandboxes.gifts();
        let mut removal = self.tools.removal.clone();
        let current = Arc::clone(&pods.borrow_and_update());
        self.take_objects(&current);
        loop {
            let due = self.turn();
            let sleep = tokio::time::sleep_until((self.started + due).into());
            tokio::select! {
                changed = pods.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = Arc::clone(&pods.borrow_and_update());
                    self.take_objects(&current);
                }
                Some((uid, done)) = results.recv() => self.take_result(&uid, done),
                changed = answers.changed() => if changed.is_err() { return },
                Ok(()) = gifts.changed() => {
                    let current = Arc::clone(&pods.borrow_and_update());
                    self.take_objects(&current);
                }
                Ok(()) = removal.changed() => {
                    self.hurry();
                    let current = Arc::clone(&pods.borrow_and_update());
                    self.take_objects(&current);
                }
                () = sleep => {}
                () = drain.draining() => return,
            }
        }
    }

    fn now(&self) -> Duration {
        clock::monotonic().duration_since(self.started)
    }

    fn take_objects(&mut self, pods: &Pods) {
        for (uid, tracked) in &mut self.tracked {
            if !pods.contains_key(uid) {
                tracked.pod = None;
            }
        }
        let leaving = *self.tools.removal.borrow() != Removal::Stay;
        for (uid, pod) in pods {
            let decision = match leaving {
                true => Decision::Not(NotEnrolled::Removed),
                false => decide(&pod.facts(), pod.namespace_labels.as_ref(), &self.excluded),
            };
            let given = self.tools.sandboxes.given(uid);
            let mut pod = pod.clone();
            if let (true, Some((_, addresses))) = (pod.addresses.is_empty(), &given) {
                // The object learns of them only after its containers have started.
                pod.addresses.clone_from(addresses);
            }
            match self.tracked.get_mut(uid) {
                Some(tracked) => {
                    tracked.pod = Some(pod);
                    tracked.decision = decision;
                }
                None => self.take_new(uid, &pod, decision),
            }
            if let Some(tracked) = self.tracked.get_mut(uid) {
                tracked.note_gift(given.map(|(netns, _)| netns));
            }
        }
    }

    /// When the mesh must be off the node soon, nothing waits for its usual time.
    fn hurry(&mut self) {
        if *self.tools.removal.borrow() == Removal::Force {
            self.limits.notice = Duration::ZERO;
            self.limits.verify = self.limits.verify.min(FORCED);
            self.limits.retry_max = self.limits.retry_max.min(FORCED);
        }
    }

    fn take_new(&mut self, uid: &str, pod: &Pod, decision: Decision) {
        // Captured by an earlier run of this program: a ztunnel that connects now must not take it for gone.
        if self.first_pass.is_some()
            && matches!(decision, Decision::Enrol { .. })
            && pod.redirection() == Some("enabled")
        {
            self.tools.handoff.set(uid, work::entry(pod, None));
        }
        let tracked = Tracked {
            pod: Some(pod.clone()),
            decision,
            record: Record::default(),
            sandbox: None,
            gift: None,
            generation: None,
            busy: false,
            unserved: None,
            announce_after: (Duration::ZERO, 0),
        };
        self.tracked.insert(uid.to_owned(), tracked);
    }

    /// Starts what is due and returns when to look again.
    fn turn(&mut self) -> Duration {
        let now = self.now();
        self.forget_gone();
        let mut next = now + self.limits.verify;
        let mut pending = false;
        let uids: Vec<String> = self.tracked.keys().cloned().collect();
        for uid in uids {
            match self.consider(&uid, now) {
                Considered::Idle => {}
                Considered::Until(due) => next = next.min(due),
                Considered::Pending => pending = true,
            }
        }
        if self.first_pass.is_some() && (!pending || now >= FIRST_PASS) {
            self.end_first_pass(pending);
        }
        self.publish();
        next
    }

    fn end_first_pass(&mut self, pending: bool) {
        if pending {
            warn!("some pods could not be looked at within {FIRST_PASS:?}; ztunnel is let in all the same");
        }
        info!(pods = self.tracked.len(), "every pod of the node has been looked at");
        self.tools.handoff.open();
        if let Some(ready) = self.first_pass.take() {
            ready.set(true);
        }
    }

    fn forget_gone(&mut self) {
        let gone = |tracked: &Tracked| tracked.pod.is_none() && !tracked.busy;
        let uids: Vec<String> =
            self.tracked.iter().filter(|(_, tracked)| gone(tracked)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            debug!(uid, "the pod is gone");
            self.tools.handoff.remove(&uid);
            self.tools.sandboxes.forget(&uid);
            self.tracked.remove(&uid);
        }
    }

    fn consider(&mut self, uid: &str, now: Duration) -> Considered {
        let holding = self.tools.handoff.holding(uid);
        let Some(tracked) = self.tracked.get_mut(uid) else { return Considered::Idle };
        tracked.unserved = match (&tracked.record.inside, &holding) {
            (Inside::Capture { .. }, Holding::NoZtunnel | Holding::Waiting | Holding::Refused(_)) => {
                tracked.unserved.or(Some(now))
            }
            _ => None,
        };
        if tracked.busy {
            return Considered::Pending;
        }
        let Some(pod) = &tracked.pod else { return Considered::Idle };
        let step = plan::next_step(pod, &tracked.decision, &tracked.record, now, &self.limits);
        let until = match step {
            Step::Rest => None,
            Step::Wait(due) => Some(due),
            Step::Forget => {
                self.tools.handoff.remove(uid);
                self.tools.sandboxes.forget(uid);
                tracked.sandbox = None;
                tracked.record = Record { inside: Inside::Nothing, done: now, ..Record::default() };
                None
            }
            Step::Capture { .. } | Step::Verify { .. } | Step::Discover | Step::Release | Step::Retire => {
                if self.under_way < PARALLEL {
                    self.begin(uid, step);
                }
                return Considered::Pending;
            }
        };
        self.consider_announcing(uid, &holding, now, until)
    }

    fn consider_announcing(
        &mut self,
        uid: &str,
        holding: &Holding,
        now: Duration,
        until: Option<Duration>,
    ) -> Considered {
        let idle = until.map_or(Considered::Idle, Considered::Until);
        let Some(tracked) = self.tracked.get_mut(uid) else { return idle };
        let Some(pod) = &tracked.pod else { return idle };
        let absent = tracked.unserved.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let Some(announcement) =
            plan::announcement(pod, &tracked.decision, &tracked.record, holding, absent, &self.limits)
        else {
            // Its absence may have to be announced later.
            let patience_ends =
                tracked.unserved.map(|since| since + self.limits.absence).filter(|end| *end > now);
            let earliest = [until, patience_ends].into_iter().flatten().min();
            return earliest.map_or(Considered::Idle, Considered::Until);
        };
        if tracked.announce_after.0 > now {
            let due = until.map_or(tracked.announce_after.0, |until| until.min(tracked.announce_after.0));
            return Considered::Until(due);
        }
        if self.under_way < PARALLEL {
            tracked.busy = true;
            self.under_way += 1;
            let (announce, pod, uid) = (Arc::clone(&self.announce), pod.clone(), uid.to_owned());
            let finished = self.finished.clone();
            tasks::spawn("announce", async move {
                let said = announce.announce(&pod, &announcement).await;
                // Without a receiver the loop has ended, and the next start looks for itself.
                let _ = finished.send((uid, Done::Announced(announcement, said))).await;
            });
        }
        Considered::Pending
    }

    fn begin(&mut self, uid: &str, step: Step) {
        let Some(tracked) = self.tracked.get_mut(uid) else { return };
        let Some(pod) = tracked.pod.clone() else { return };
        tracked.busy = true;
        self.under_way += 1;
        let (tools, finished, uid) = (self.tools.clone(), self.finished.clone(), uid.to_owned());
        let (sandbox, generation) = (tracked.sandbox.clone(), tracked.generation);
        tasks::spawn("pod-step", async move {
            let result = carry_out(&tools, &pod, step, sandbox, generation).await;
            // Without a receiver the loop has ended, and the next start looks for itself.
            let _ = finished.send((uid, Done::Step(result))).await;
        });
    }

    fn take_result(&mut self, uid: &str, done: Done) {
        self.under_way = self.under_way.saturating_sub(1);
        let now = self.now();
        let Some(tracked) = self.tracked.get_mut(uid) else { return };
        tracked.busy = false;
        match done {
            Done::Step(Ok(outcome)) => tracked.succeed(uid, outcome, now),
            Done::Step(Err(error)) => tracked.fail(uid, &error, now),
            Done::Announced(announcement, Ok(())) => tracked.note_announced(announcement),
            Done::Announced(_, Err(error)) => {
                let failures = tracked.announce_after.1.saturating_add(1);
                let pause =
                    self.limits.retry_min.saturating_mul(1 << failures.min(10)).min(self.limits.retry_max);
                tracked.announce_after = (now + pause, failures);
                warn!(uid, %error, cause = error.cause, failures, "the pod's status could not be written; it is tried again");
            }
        }
    }

    fn publish(&mut self) {
        let served = |uid: &str| self.tools.handoff.holding(uid);
        let list: Vec<PodStatus> =
            self.tracked.iter().filter_map(|(uid, tracked)| status::of(uid, tracked, &served(uid))).collect();
        self.status.send_if_modified(|shown| {
            let changed = **shown != list;
            if changed {
                *shown = Arc::new(list);
            }
            changed
        });
    }
}

/// What looking at one pod came to.
enum Considered {
    /// Nothing to do until something changes.
    Idle,
    /// Nothing to do before that time.
    Until(Duration),
    /// Something is under way or waits for its turn.
    Pending,
}

impl Tracked {
    /// A new sandbox: what was known of an earlier one says nothing about it, and nothing waits for a retry.
    fn note_gift(&mut self, gift: Option<NetNsId>) {
        if self.gift == gift {
            return;
        }
        self.gift = gift;
        let Some(gift) = gift else { return };
        if self.sandbox.as_ref().is_none_or(|sandbox| sandbox.netns.id() != gift) {
            self.record = Record::default();
            (self.sandbox, self.generation) = (None, None);
        }
    }

    fn succeed(&mut self, uid: &str, outcome: Outcome, now: Duration) {
        let mut inside = None;
        match outcome {
            Outcome::Captured { sandbox, stamp, generation } => {
                info!(uid, stamp, netns = sandbox.netns.id().inode, "the pod's rules are in force");
                (self.sandbox, self.generation) = (Some(sandbox), Some(generation));
                inside = Some(Inside::Capture { stamp });
            }
            Outcome::Verified { generation } => self.generation = Some(generation),
            Outcome::Nothing => inside = Some(Inside::Nothing),
            Outcome::Released { sandbox } => {
                info!(uid, "the pod has left; new connections are direct, open ones go on");
                (self.sandbox, self.generation) = (Some(sandbox), None);
                inside = Some(Inside::Residue { since: now, withdrawn: false });
            }
            Outcome::Retired { carried: 0 } => {
                info!(uid, "the pod's last rules are gone");
                self.sandbox = None;
                inside = Some(Inside::Nothing);
            }
            Outcome::Retired { carried } => {
                debug!(uid, carried, "connections that ztunnel still carries need the rules");
                if let Inside::Residue { since, .. } = self.record.inside {
                    inside = Some(Inside::Residue { since, withdrawn: true });
                }
            }
        }
        let inside = inside.unwrap_or_else(|| self.record.inside.clone());
        self.record = Record { inside, failures: 0, failure: None, done: now };
    }

    fn fail(&mut self, uid: &str, error: &StepError, now: Duration) {
        let failure = Failure::from(error);
        let repeated = self.record.failure.as_ref() == Some(&failure);
        self.record.failures = self.record.failures.saturating_add(1);
        if !repeated || self.record.failures.is_power_of_two() {
            warn!(uid, reason = %failure.reason, error = failure.message, failures = self.record.failures,
                "a step for the pod failed; it is tried again");
        }
        if error.loses_sandbox() {
            self.record.inside = Inside::Unknown;
            (self.sandbox, self.generation) = (None, None);
        }
        self.record.failure = Some(failure);
        self.record.done = now;
    }

    /// Until the objects say so too, our copy does.
    fn note_announced(&mut self, announcement: Announcement) {
        self.announce_after = (Duration::ZERO, 0);
        let Some(pod) = &mut self.pod else { return };
        match announcement.redirection {
            Some(word) => pod.annotations.insert(crate::pod::REDIRECTION.to_owned(), word.to_owned()),
            None => pod.annotations.remove(crate::pod::REDIRECTION),
        };
        if announcement.condition.is_some() {
            pod.condition = announcement.condition.filter(|condition| !condition.is_withdrawn());
        }
    }
}

async fn carry_out(
    tools: &Tools,
    pod: &Pod,
    step: Step,
    sandbox: Option<Sandbox>,
    generation: Option<u32>,
) -> Result<Outcome, StepError> {
    match (step, sandbox) {
        (Step::Capture { facts, ztunnel_first }, _) => work::capture(tools, pod, &facts, ztunnel_first).await,
        (Step::Verify { facts }, Some(sandbox)) => {
            work::verify(tools, pod, &facts, &sandbox, generation).await
        }
        (Step::Release, Some(sandbox)) => work::release(tools, pod, &sandbox).await,
        (Step::Retire, Some(sandbox)) => work::retire(tools, pod, &sandbox).await,
        // Without a proven namespace there is only looking for what is there.
        (Step::Discover | Step::Verify { .. } | Step::Release | Step::Retire, _) => {
            work::discover(tools, pod).await
        }
        (Step::Rest | Step::Wait(_) | Step::Forget, _) => Ok(Outcome::Nothing),
    }
}
