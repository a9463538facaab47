//! One connection as everybody sees it: the log, the metrics, the flow records, `/connections`.
//!
//! Facts only. Workloads are shared with the snapshot, so an idle connection costs a few hundred bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ambit_hbone::ConnId;
use ambit_net::relay::Counters;
use ambit_policy::model::Action;
use ambit_policy::{Decision, DryRun, Explanation};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_types::{Identity, PolicyKey, Reason, ServiceKey, Str, Workload};

/// How a connection was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// Joined inside this process: both pods are here.
    Local,
    /// In a tunnel.
    Hbone,
    /// In a tunnel to a waypoint.
    Waypoint,
    /// Plain TCP with a workload or service of the mesh.
    Plaintext,
    /// A probe of the kubelet.
    Probe,
    /// Plain TCP to somewhere the mesh knows nothing of.
    Passthrough,
}

impl Path {
    /// The word in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hbone => "hbone",
            Self::Waypoint => "waypoint",
            Self::Plaintext => "plaintext",
            Self::Probe => "probe",
            Self::Passthrough => "passthrough",
        }
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Its address.
    pub addr: Option<SocketAddr>,
    /// The workload, if discovery knows it.
    pub workload: Option<Arc<Workload>>,
    /// Its identity, only where one was established.
    pub identity: Option<Identity>,
    /// What the peer asserted of itself, where discovery knows nothing.
    pub asserted: Option<Arc<ambit_hbone::Baggage>>,
}

/// Why a connection ended or was refused.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The code, if there is anything to say.
    pub reason: Option<Reason>,
    /// The policy that decided.
    pub policy: Option<PolicyKey>,
    /// Rule of that policy.
    pub rule: Option<usize>,
    /// Failure in words.
    pub error: Option<String>,
    /// The rule that came nearest to the opposite verdict, in words.
    pub nearest: Option<String>,
    /// What dry-run policies would have done.
    pub dry_run: Vec<DryRun>,
}

impl Outcome {
    /// A refusal or failure with its words.
    pub fn failed(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason: Some(reason), error: Some(error.into()), ..Self::default() }
    }

    /// What a policy decided.
    pub fn decided(decision: &Decision) -> Self {
        let error = (!decision.is_allow()).then(|| decision.to_string());
        Self {
            reason: decision.reason,
            policy: decision.policy.clone(),
            rule: decision.rule,
            error,
            nearest: None,
            dry_run: decision.dry_run.clone(),
        }
    }

    /// A refusal with everything that was compared: the policy to look at even where no single one decided, and the
    /// rule that came nearest.
    pub fn refused(explanation: &Explanation) -> Self {
        let mut outcome = Self::decided(&explanation.decision);
        let applies = |p: &&ambit_policy::explain::PolicyTrace| !p.dry_run && p.action == Action::Allow;
        if let Some(nearest) = &explanation.nearest {
            outcome.policy.get_or_insert_with(|| nearest.policy.clone());
            outcome.rule.get_or_insert(nearest.rule);
            outcome.nearest = Some(nearest.to_string());
        } else if let Some(first) = explanation.policies.iter().find(applies) {
            outcome.policy.get_or_insert_with(|| first.key.clone());
        }
        if let (Some(error), Some(policy)) = (&mut outcome.error, &outcome.policy) {
            let rule = outcome.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
            *error = match explanation.decision.reason {
                Some(Reason::PolicyDenied) => format!("no ALLOW rule matched; looked at {policy}{rule}"),
                _ => format!("refused by {policy}{rule}"),
            };
        }
        outcome
    }

    /// Whether the connection was refused or cut.
    pub fn is_failure(&self) -> bool {
        self.error.is_some()
    }
}

/// `deny by shop/lock rule 0`.
pub(crate) fn dry_run_text(would: &DryRun) -> String {
    let verdict = match would.verdict {
        ambit_policy::Verdict::Allow => "allow",
        ambit_policy::Verdict::Deny => "deny",
    };
    let by = would.policy.as_ref().map_or_else(|| "no ALLOW policy".to_owned(), ToString::to_string);
    format!("{verdict} by {by}")
}

/// What is settled once the plan is made.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The server's end.
    pub dst: End,
    /// Service that was addressed.
    pub service: Option<ServiceKey>,
    /// Name of that service's object.
    pub service_name: Option<Str>,
    /// Authority of the tunnel request.
    pub hbone_addr: Option<Str>,
}

/// One connection.
#[derive(Debug)]
pub struct Flow {
    /// The same in both ends' records.
    pub id: ConnId,
    /// Seen from the workload.
    pub direction: Direction,
    /// How it was carried.
    pub path: Path,
    /// The end that connected.
    pub src: End,
    /// On whose behalf it connected, by the word of a waypoint that may say so.
    pub client: Option<Identity>,
    /// The rest of the way.
    pub route: Route,
    /// When it was accepted, monotonic.
    pub started: Instant,
    /// When it was accepted, wall time.
    pub started_wall: SystemTime,
    /// Bytes moved; shared by the two records of a same-node connection.
    pub counters: Arc<Counters>,
    /// Whether the relay's near side is the client's.
    near_is_client: bool,
    /// Bytes already added to the metrics: received, sent.
    pub counted: Mutex<(u64, u64)>,
    /// Whether it was let in and its other end reached.
    is_opened: AtomicBool,
    /// Why it was cut, if it was.
    cut: OnceLock<Outcome>,
    ended: OnceLock<(Duration, Outcome)>,
}

impl Flow {
    /// A connection that was just planned.
    pub fn new(
        id: ConnId,
        direction: Direction,
        path: Path,
        src: End,
        route: Route,
        started: Instant,
    ) -> Self {
        // Only behind a tunnel is the near socket the server's.
        let near_is_client = direction == Direction::Outbound || path != Path::Hbone;
        Self {
            id,
            near_is_client,
            direction,
            path,
            src,
            client: None,
            route,
            started,
            started_wall: clock::wall() - clock::monotonic().saturating_duration_since(started),
            counters: Arc::default(),
            counted: Mutex::new((0, 0)),
            is_opened: AtomicBool::new(false),
            cut: OnceLock::new(),
            ended: OnceLock::new(),
        }
    }

    /// It was let in, and its other end reached.
    pub fn open(&self) {
        self.is_opened.store(true, Ordering::Relaxed);
    }

    /// Whether it was let in, however it ended.
    pub fn was_opened(&self) -> bool {
        self.is_opened.load(Ordering::Relaxed)
    }

    /// Says why the connection is about to be cut; the first word counts.
    pub fn cut(&self, outcome: Outcome) {
        // A second reason comes too late to be the cause.
        let _ = self.cut.set(outcome);
    }

    /// Why it was cut.
    pub fn cut_outcome(&self) -> Option<&Outcome> {
        self.cut.get()
    }

    /// Marks the end; the first call counts.
    pub fn end(&self, outcome: Outcome) {
        let lasted = clock::monotonic().saturating_duration_since(self.started);
        // Ended twice is ended.
        let _ = self.ended.set((lasted, outcome));
    }

    /// Duration and outcome, once ended.
    pub fn ended(&self) -> Option<&(Duration, Outcome)> {
        self.ended.get()
    }

    /// Names whom the peer connects for.
    #[must_use]
    pub fn on_behalf_of(self, client: Option<Identity>) -> Self {
        Self { client, ..self }
    }

    /// Shares the counters of the other record of a same-node connection.
    pub fn sharing(mut self, counters: Arc<Counters>) -> Self {
        self.counters = counters;
        self
    }

    /// Bytes the client sent and received.
    pub fn client_bytes(&self) -> (u64, u64) {
        let (near, far) = self.counters.read();
        if self.near_is_client { (near, far) } else { (far, near) }
    }

    /// Bytes the client (sent, received) since this was last asked.
    pub fn uncounted(&self) -> (u64, u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: two readers must not see each other's counts out of order.
        let now = self.client_bytes();
        let fresh = (now.0.saturating_sub(counted.0), now.1.saturating_sub(counted.1));
        *counted = now;
        fresh
    }

    /// Bytes the reporting workload sent and received.
    pub fn workload_bytes(&self) -> (u64, u64) {
        let (client_sent, client_received) = self.client_bytes();
        match self.direction {
            Direction::Outbound => (client_sent, client_received),
            Direction::Inbound => (client_received, client_sent),
        }
    }
}
