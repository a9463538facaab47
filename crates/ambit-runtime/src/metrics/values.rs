//! Values of labels that those who use the mesh choose: names of policies and namespaces.
//!
//! Whoever may make such objects may make any number of them, one after the other; their series stay for
//! [`IDLE`]. Of each label some values are told apart at once, and all others are [`OTHER`], so
//! that the sum stays exact.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::IDLE;
use crate::clock;

/// What stands in a label instead of values that there are too many of.
pub const OTHER: &str = "other";

/// How often it is looked whether values have gone out of use, where there is no room for another.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Policies, as `NAMESPACE/NAME`.
pub static POLICIES: Values = Values::new("policy", 1000);

/// Namespaces.
pub static NAMESPACES: Values = Values::new("namespace", 1000);

/// Values of one label that are told apart.
#[derive(Debug)]
pub struct Values {
    label: &'static str,
    max: usize,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    used: BTreeMap<String, Instant>,
    /// When values that nobody uses were last looked for.
    looked: Option<Instant>,
}

impl Values {
    /// At most `max` values at once of a label.
    pub const fn new(label: &'static str, max: usize) -> Self {
        Self { label, max, known: Mutex::new(Known { used: BTreeMap::new(), looked: None }) }
    }

    /// What is to stand in the label: the value, or [`OTHER`] where there are too many; nothing stays nothing.
    pub fn of(&self, value: impl Into<String>) -> Cow<'static, str> {
        self.at(value.into(), clock::monotonic())
    }

    fn at(&self, value: String, now: Instant) -> Cow<'static, str> {
        if value.is_empty() {
            return Cow::Borrowed("");
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = known.used.get_mut(&value) {
            *used = now;
            return Cow::Owned(value);
        }
        if known.used.len() >= self.max {
            known.look(now);
        }
        if known.used.len() >= self.max {
            metrics::counter!("ambit_metrics_overflow_total", "family" => self.label).increment(1);
            return Cow::Borrowed(OTHER);
        }
        known.used.insert(value.clone(), now);
        Cow::Owned(value)
    }
}

impl Known {
    /// Forgets values whose series are gone by now.
    fn look(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= LOOK_EVERY;
        if self.looked.is_none_or(is_due) {
            self.looked = Some(now);
            self.used.retain(|_, used| now.saturating_duration_since(*used) < IDLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_make_room_when_they_are_not_used() {
        let (values, now) = (Values::new("policy", 3), clock::monotonic());
        let told = |n: usize, at: Instant| values.at(format!("shop/made-up-{n}"), at).into_owned();
        for n in 0..10_000 {
            let want = if n < 3 { format!("shop/made-up-{n}") } else { OTHER.to_owned() };
            assert_eq!(told(n, now), want);
        }
        assert_eq!(values.at(String::new(), now), "");
        let later = now + IDLE / 2;
        assert_eq!(told(0, later), "shop/made-up-0", "one that is known stays");
        assert_eq!(told(7, now + IDLE), "shop/made-up-7");
        assert_eq!(told(8, now + IDLE), "shop/made-up-8");
        assert_eq!(told(9, now + IDLE), OTHER, "the one that was used since has its place");
        assert_eq!(told(0, now + IDLE), "shop/made-up-0");
    }
}
