//! Passes for a while (`ambit breakglass`): policies with a beginning and an end in annotations, out of force from then
//! on whether somebody removes them or not.
//!
//! Each version of a pass is judged once: one that was refused, or has ended, stays out of force however often it is
//! listed again and however the clock is set, until it says something else. One whose time cannot be read was never in
//! force, and an edit that cannot be read closes the pass. Nodes of ours know the end as well; others rely on this.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_manifest::breakglass::{Term, is_pass, term};
use ambit_manifest::{Located, Object, ObjectKey, Problem};
use ambit_runtime::clock;
use tracing::warn;

/// The longest wait at a time: the wall clock may be set meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How far the clock of who opens a pass may be ahead of ours.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// When an object goes out of force by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It is no pass.
    Never,
    /// A pass, for this time.
    Pass(Term),
    /// A pass that does not say until when.
    Unreadable,
}

impl End {
    /// What an object says.
    pub(crate) fn of(object: &Located) -> Self {
        let Object::AuthorizationPolicy(policy) = &*object.object else { return Self::Never };
        if !is_pass(policy) {
            return Self::Never;
        }
        term(policy).map_or(Self::Unreadable, Self::Pass)
    }
}

/// Every pass as it was judged. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passes(Arc<Mutex<BTreeMap<ObjectKey, Judged>>>);

/// A version of a pass.
#[derive(Debug)]
struct Judged {
    end: End,
    /// The file that says so; one name for all of an API server.
    file: Arc<str>,
    is_open: bool,
}

impl Judged {
    /// When it ends; none if it is not in force.
    fn until(&self) -> Option<SystemTime> {
        match self.end {
            End::Pass(term) if self.is_open => Some(at(term.until)),
            End::Pass(_) | End::Never | End::Unreadable => None,
        }
    }

    /// Whether a problem may be about it.
    fn is_in_doubt(&self, key: &ObjectKey, problem: &Problem) -> bool {
        match &problem.object {
            Some(object) => object == key,
            None => problem.location.file == self.file && *self.file != *ambit_manifest::SERVED,
        }
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

impl Passes {
    /// Takes note of an object of a file; false if it is a pass that may not be in force now.
    pub(crate) fn take(&self, key: &ObjectKey, file: &Arc<str>, end: &End, now: SystemTime) -> bool {
        if *end == End::Never {
            self.forget(key);
            return true;
        }
        let mut held = self.lock();
        let known = held.get(key).filter(|judged| judged.end == *end);
        let may_open = known.is_none_or(|judged| judged.is_open);
        let is_open = may_open
            && match end {
                End::Pass(term) => at(term.opened) <= now + SKEW_MAX && now < at(term.until),
                End::Never | End::Unreadable => false,
            };
        match end {
            End::Pass(term) if is_open => {
                let until = humantime::format_rfc3339_seconds(at(term.until));
                warn!(policy = %key, %until, "a break-glass is open, unless its status says otherwise");
            }
            End::Pass(_) | End::Never | End::Unreadable => {
                warn!(policy = %key, "a break-glass has ended, has not begun, or cannot be read; it is not in force");
            }
        }
        held.insert(key.clone(), Judged { end: end.clone(), file: file.clone(), is_open });
        is_open
    }

    /// An object is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Passes whose end has come; each is told once.
    pub(crate) fn ended(&self, now: SystemTime) -> Vec<ObjectKey> {
        self.close("a break-glass has ended", |_, judged| judged.until().is_some_and(|until| until <= now))
    }

    /// Passes that a problem may be about, which are closed: nobody knows what the edit was to be. Each is told once.
    pub(crate) fn doubted(&self, problems: &[Problem]) -> Vec<ObjectKey> {
        self.close(
            "a break-glass was changed to something that cannot be read; it is closed",
            |key, judged| problems.iter().any(|problem| judged.is_in_doubt(key, problem)),
        )
    }

    fn close(&self, why: &str, which: impl Fn(&ObjectKey, &Judged) -> bool) -> Vec<ObjectKey> {
        let mut closed = Vec::new();
        for (key, judged) in self.lock().iter_mut() {
            if judged.is_open && which(key, judged) {
                judged.is_open = false;
                warn!(policy = %key, "{why}");
                closed.push(key.clone());
            }
        }
        closed
    }

    /// Waits until the first of them may have ended; for ever if none is open. May be dropped.
    pub(crate) async fn wait(&self) {
        let first = self.lock().values().filter_map(Judged::until).min();
        let Some(first) = first else { return pending().await };
        let left = first.duration_since(clock::wall()).unwrap_or_default();
        tokio::time::sleep(left.min(WAIT_MAX)).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Judged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(opened: &str, until: &str) -> Located {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ambit-breakglass, \
             namespace: shop, annotations: {{ambit.internal/breakglass-opened: \"{opened}\", \
             ambit.internal/breakglass-until: \"{until}\"}}}}\nspec: {{action: ALLOW, rules: [{{}}]}}\n"
        );
        let parsed = ambit_manifest::parse("m.yaml", &text);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        parsed.objects.into_iter().next().expect("one object")
    }

    fn time(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).expect("a time")
    }

    fn take(passes: &Passes, object: &Located, now: SystemTime) -> bool {
        passes.take(&object.key, &object.location.file, &End::of(object), now)
    }

    /// A pass of ten minutes, that is open at noon, and noon.
    fn opened() -> (Passes, Located, SystemTime) {
        let (passes, noon) = (Passes::default(), time("2026-01-01T12:00:00Z"));
        let pass = pass("2026-01-01T12:00:00Z", "2026-01-01T12:10:00Z");
        assert!(take(&passes, &pass, noon));
        (passes, pass, noon)
    }

    #[test]
    fn a_pass_ends_by_itself_and_stays_ended_however_often_it_is_listed_and_the_clock_is_set() {
        let (passes, pass, noon) = opened();
        assert!(passes.ended(noon).is_empty());
        let end = time("2026-01-01T12:10:00Z");
        assert_eq!(passes.ended(end), std::slice::from_ref(&pass.key));
        assert!(passes.ended(end).is_empty(), "once");
        for now in [end, noon] {
            assert!(!take(&passes, &pass, now));
        }
        // Somebody removes it, and opens it again while there is time left.
        passes.forget(&pass.key);
        assert!(take(&passes, &pass, noon));
    }

    #[test]
    fn a_pass_that_was_not_in_force_is_not_later_by_being_listed_again() {
        let noon = time("2026-01-01T12:00:00Z");
        let rows = [
            ("it has ended", pass("2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z")),
            ("it has not begun", pass("2026-01-01T12:06:00Z", "2026-01-01T13:00:00Z")),
        ];
        for (why, pass) in rows {
            let passes = Passes::default();
            assert!(!take(&passes, &pass, noon), "{why}");
            assert!(!take(&passes, &pass, noon + Duration::from_secs(600)), "{why}");
        }
    }

    #[test]
    fn a_clock_that_is_a_little_ahead_does_not_matter() {
        let passes = Passes::default();
        let pass = pass("2026-01-01T12:04:00Z", "2026-01-01T13:00:00Z");
        assert!(take(&passes, &pass, time("2026-01-01T12:00:00Z")));
    }

    #[test]
    fn a_problem_closes_the_pass_that_it_is_about_and_another_version_opens_it() {
        let (passes, object, noon) = opened();
        let other = ambit_manifest::parse("m.yaml", "kind: Nonsense\n").problems;
        let elsewhere = ambit_manifest::parse("n.yaml", "kind: Nonsense\n").problems;
        assert!(passes.doubted(&elsewhere).is_empty(), "{elsewhere:?}");
        assert_eq!(passes.doubted(&other), std::slice::from_ref(&object.key), "{other:?}");
        assert!(passes.doubted(&other).is_empty(), "once");
        assert!(!take(&passes, &object, noon), "as it was, it stays closed");
        let newer = pass("2026-01-01T12:00:00Z", "2026-01-01T12:05:00Z");
        assert!(take(&passes, &newer, noon));
        let about = [newer.problem("spec.rules", "it cannot be read")];
        assert_eq!(passes.doubted(&about), std::slice::from_ref(&newer.key));
    }
}
