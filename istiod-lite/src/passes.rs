//! Passes for a while (`ambit breakglass`): policies with an end in an annotation, out of force from then on whether
//! somebody removes them or not.
//!
//! One whose end cannot be read was never in force: a pass without an end is none.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_manifest::{Kind, Located, ObjectKey};
use ambit_policy::decide::BREAKGLASS;
use ambit_runtime::clock;
use tracing::warn;

/// Annotation that says until when, in RFC 3339.
const UNTIL: &str = "ambit.internal/breakglass-until";
/// The longest wait at a time: the wall clock may be set meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest that a pass may be ahead of its end; one that says more is taken for a mistake.
const LONGEST: Duration = Duration::from_secs(25 * 3600);

/// When an object goes out of force by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is no pass.
    Never,
    /// A pass, until then.
    At(SystemTime),
    /// A pass that does not say until when.
    Unreadable,
}

impl End {
    /// What an object says.
    pub(crate) fn of(object: &Located) -> Self {
        if object.kind() != Kind::AuthorizationPolicy || object.key.name != BREAKGLASS {
            return Self::Never;
        }
        let annotations = object.object.metadata().annotations.as_ref();
        let end = annotations.and_then(|all| humantime::parse_rfc3339(all.get(UNTIL)?).ok());
        end.map_or(Self::Unreadable, Self::At)
    }
}

/// Passes that are in force, with their ends. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passes(Arc<Mutex<BTreeMap<ObjectKey, SystemTime>>>);

impl Passes {
    /// Takes note of an object; false if it is a pass that may not be in force now.
    pub(crate) fn take(&self, key: &ObjectKey, end: End, now: SystemTime) -> bool {
        match end {
            End::Never => true,
            End::At(end) if end > now && end <= now + LONGEST => {
                warn!(policy = %key, until = %humantime::format_rfc3339_seconds(end), "a break-glass is open");
                self.lock().insert(key.clone(), end);
                true
            }
            End::At(_) | End::Unreadable => {
                warn!(policy = %key, "a break-glass has ended, or its end cannot be read; it is not in force");
                self.forget(key);
                false
            }
        }
    }

    /// An object is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Passes whose end has come, which are forgotten.
    pub(crate) fn ended(&self, now: SystemTime) -> Vec<ObjectKey> {
        let mut held = self.lock();
        let ended: Vec<ObjectKey> =
            held.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect();
        for key in &ended {
            held.remove(key);
            warn!(policy = %key, "a break-glass has ended");
        }
        ended
    }

    /// Waits until the first of them may have ended; for ever if there is none. May be dropped.
    pub(crate) async fn wait(&self) {
        let first = self.lock().values().min().copied();
        let Some(first) = first else { return pending().await };
        let left = first.duration_since(clock::wall()).unwrap_or_default();
        tokio::time::sleep(left.min(WAIT_MAX)).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(until: &str) -> Located {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {BREAKGLASS}, namespace: shop, \
             annotations: {{{UNTIL}: \"{until}\"}}}}\nspec: {{action: ALLOW, rules: [{{}}]}}\n"
        );
        let parsed = ambit_manifest::parse("m.yaml", &text);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        parsed.objects.into_iter().next().expect("one object")
    }

    #[test]
    fn a_pass_ends_by_itself_and_one_without_an_end_is_none() {
        let at = |text: &str| humantime::parse_rfc3339(text).expect("a time");
        let now = at("2026-01-01T12:00:00Z");
        let passes = Passes::default();
        let take = |object: &Located, now| passes.take(&object.key, End::of(object), now);
        for never in ["2026-01-01T11:59:59Z", "2026-02-01T00:00:00Z", "soon"] {
            assert!(!take(&policy(never), now), "{never}");
        }
        let pass = policy("2026-01-01T12:10:00Z");
        assert!(take(&pass, now));
        assert!(passes.ended(now).is_empty());
        assert_eq!(passes.ended(at("2026-01-01T12:10:00Z")), std::slice::from_ref(&pass.key));
        assert!(passes.ended(at("2026-01-01T12:10:00Z")).is_empty(), "once");
        assert!(take(&pass, now));
        passes.forget(&pass.key);
        assert!(passes.ended(at("2026-01-02T00:00:00Z")).is_empty());
    }
}
