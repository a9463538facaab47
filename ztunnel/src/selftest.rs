//! The node tests itself every minute: does what must be refused get refused, and what is allowed get through?
//!
//! Five attempts over real sockets with the code, the threads and the settings that carry the node's traffic, on a
//! stage of their own. A refused one that gets through means that enforcement does not work: nothing is louder. Nothing
//! is sent to a pod, and nothing is read from one; whether a given pod's policy is what its owner meant is not asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use ambit_types::Reason;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::proxy::Settings;

mod attempt;
mod issuer;
mod stage;
#[cfg(test)]
mod tests;

use attempt::{Tried, attempt};
use stage::Stage;

/// From the end of one run to the beginning of the next.
const EVERY: Duration = Duration::from_secs(60);

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// A caller that the policy allows, over a tunnel.
    Allowed,
    /// A caller that it does not allow, over a tunnel.
    Denied,
    /// A server that is not the one the caller expects.
    WrongIdentity,
    /// A caller whose certificate has run out.
    ExpiredCertificate,
    /// A caller without TLS, where STRICT holds.
    Plaintext,
}

impl Test {
    /// Every attempt, in the order they are made.
    pub const ALL: [Self; 5] =
        [Self::Allowed, Self::Denied, Self::WrongIdentity, Self::ExpiredCertificate, Self::Plaintext];

    /// As it stands in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WrongIdentity => "wrong-identity",
            Self::ExpiredCertificate => "expired-certificate",
            Self::Plaintext => "plaintext",
        }
    }

    /// The code it must be refused with; none for the one that must get through.
    pub const fn want(self) -> Option<Reason> {
        match self {
            Self::Allowed => None,
            Self::Denied => Some(Reason::PolicyDenied),
            Self::WrongIdentity => Some(Reason::IdentityMismatch),
            Self::ExpiredCertificate => Some(Reason::CertificateOutsideValidity),
            Self::Plaintext => Some(Reason::PlaintextRefused),
        }
    }
}

/// What an attempt says of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It went as it must.
    Passed,
    /// It did not, and nobody was let in who must not be: what is allowed was refused, the reason was another one, or
    /// it could not be tried.
    Failed,
    /// What must be refused was let in, whatever became of it then: also one that hangs was let in.
    Breached,
}

impl Verdict {
    /// As it stands in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Breached => "breached",
        }
    }
}

/// One attempt and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which one.
    pub test: Test,
    /// What it says.
    pub verdict: Verdict,
    /// The code it was refused with.
    pub code: Option<Reason>,
    /// In words.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// One run of all attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When it ended.
    pub at: SystemTime,
    /// In the order of [`Test::ALL`].
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// How many attempts went as they must.
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|one| one.verdict == Verdict::Passed).count()
    }

    /// The JSON form: totals, and a row an attempt.
    pub fn to_json(&self) -> Value {
        let of = |verdict| self.outcomes.iter().filter(move |one| one.verdict == verdict);
        json!({
            "time": humantime::format_rfc3339_millis(self.at).to_string(),
            "passed": self.passed(),
            "total": self.outcomes.len(),
            "breached": of(Verdict::Breached).map(|one| one.test.name()).collect::<Vec<_>>(),
            "tests": self.outcomes.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

fn row(one: &Outcome) -> Value {
    json!({
        "test": one.test.name(),
        "result": one.verdict.name(),
        "code": one.code.map(Reason::code),
        "expected_code": one.test.want().map(Reason::code),
        "detail": one.detail,
        "took_ms": u64::try_from(one.took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The newest report, for whoever asks or follows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SelfTests {
    newest: Arc<watch::Sender<Option<Arc<Report>>>>,
}

impl Default for SelfTests {
    fn default() -> Self {
        Self { newest: Arc::new(watch::Sender::new(None)) }
    }
}

impl SelfTests {
    /// The newest report; none before the first run has ended.
    pub fn newest(&self) -> Option<Arc<Report>> {
        self.newest.borrow().clone()
    }

    /// Told at every report.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.newest.subscribe()
    }

    /// The newest report in JSON; null before the first run has ended.
    pub fn to_json(&self) -> Value {
        self.newest().map_or(Value::Null, |report| report.to_json())
    }

    /// Takes in a report: metrics, log, and whoever follows.
    fn take(&self, report: Report) {
        let before = self.newest();
        for one in &report.outcomes {
            let earlier = before.iter().flat_map(|report| &report.outcomes).find(|o| o.test == one.test);
            tell(one, earlier.map(|earlier| earlier.verdict));
        }
        note_run(report.at);
        self.newest.send_replace(Some(Arc::new(report)));
    }
}

/// When a run ended: results keep their value for as long as nobody changes them, so this alone shows that the
/// self-test has stopped.
fn note_run(at: SystemTime) {
    let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("ambit_selftest_last_run_timestamp_seconds").set(since_1970.as_secs_f64());
}

/// Counts and logs an outcome: what is well only if it was amiss before.
fn tell(one: &Outcome, before: Option<Verdict>) {
    let test = one.test.name();
    let passed = one.verdict == Verdict::Passed;
    metrics::gauge!("ambit_selftest_result", "test" => test).set(f64::from(u8::from(passed)));
    // Counted from the first run on: a series that begins with its first breach would hide that one from `increase`.
    let breaches = metrics::counter!("ambit_selftest_breaches_total", "test" => test);
    breaches.increment(u64::from(one.verdict == Verdict::Breached));
    let (code, expected) = (one.code.map_or("", Reason::code), one.test.want().map_or("", Reason::code));
    match one.verdict {
        Verdict::Passed if before.is_none_or(|before| before == Verdict::Passed) => {}
        Verdict::Passed => info!(test, code, "the self-test passes again"),
        Verdict::Failed => warn!(test, code, expected, detail = one.detail, "the self-test failed"),
        Verdict::Breached => {
            // Said each time: until it stops, this node may be letting in whom it must refuse.
            error!(
                test,
                expected,
                detail = one.detail,
                "ENFORCEMENT DOES NOT WORK: what must be refused was let in"
            );
        }
    }
}

/// Runs the self-test now and every minute until `drain` begins, with the `settings` of the node's connections.
pub fn start(settings: &Settings, drain: &Drain) -> SelfTests {
    let tests = SelfTests::default();
    // A first run that never ends is one that has stopped, too.
    note_run(clock::wall());
    let (told, settings, drain) = (tests.clone(), settings.clone(), drain.clone());
    tasks::spawn("selftest", async move {
        let mut stage = None;
        loop {
            // What could not be made is tried again; until then every attempt has failed.
            let set = stage.take().map_or_else(|| Stage::new(&settings, stage::policies()), Ok);
            tokio::select! {
                report = run(&set) => told.take(report),
                () = drain.draining() => return,
            }
            stage = set.ok();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = drain.draining() => return,
            }
        }
    });
    tests
}

/// Makes every attempt, one after the other.
async fn run(stage: &Result<Stage, String>) -> Report {
    let mut outcomes = Vec::with_capacity(Test::ALL.len());
    for test in Test::ALL {
        let begun = clock::monotonic();
        let tried = match stage {
            Ok(stage) => attempt(stage, test).await,
            Err(error) => Tried::Undone(error.clone()),
        };
        let took = clock::monotonic().saturating_duration_since(begun);
        outcomes.push(judge(test, tried, took));
    }
    Report { at: clock::wall(), outcomes }
}

/// What came of an attempt, held against what had to.
fn judge(test: Test, tried: Tried, took: Duration) -> Outcome {
    let (verdict, code, detail) = match (test.want(), tried) {
        (None, Tried::Through { answered: true }) => {
            (Verdict::Passed, None, "let in and answered".to_owned())
        }
        (None, Tried::Through { answered: false }) => {
            (Verdict::Failed, None, "let in, but the application's answer did not arrive".to_owned())
        }
        (Some(want), Tried::Through { answered }) => {
            let then = if answered { "" } else { ", and no answer came" };
            (Verdict::Breached, None, format!("let in{then}; {want} was due"))
        }
        (Some(want), Tried::Refused { code, detail }) if code == Some(want) => {
            (Verdict::Passed, code, detail)
        }
        (_, Tried::Refused { code, detail }) => (Verdict::Failed, code, detail),
        (_, Tried::Undone(why)) => (Verdict::Failed, None, why),
    };
    Outcome { test, verdict, code, detail, took }
}
