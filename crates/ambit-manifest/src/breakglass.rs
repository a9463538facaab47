//! Passes for a while (break-glass): AuthorizationPolicies of one name that allow, with their beginning and end in
//! annotations.
//!
//! Says what is wrong with one whatever the time is; whether it is in force is for those who have a clock.

use ambit_types::breakglass::{LONGEST_SECONDS, NAME, OPENED, UNTIL};
use k8s_openapi::jiff::Timestamp;

use crate::istio::{AuthorizationPolicy, PolicyAction};

/// From when until when a pass may be in force, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its beginning.
    pub opened: u64,
    /// Its end, later than its beginning and at most a day.
    pub until: u64,
}

/// Whether a policy is a pass. One that denies never is, whatever its name: it must not end.
pub fn is_pass(policy: &AuthorizationPolicy) -> bool {
    let is_allow = policy.spec.action.unwrap_or_default() == PolicyAction::Allow;
    is_allow && policy.metadata.name.as_deref() == Some(NAME)
}

/// The time of a pass; none if it is no pass, or if that cannot be read.
pub fn term(policy: &AuthorizationPolicy) -> Option<Term> {
    if is_pass(policy) { read(policy).ok() } else { None }
}

/// What is wrong with a pass as such: fields and words. Nothing if the policy is none.
pub(crate) fn faults(policy: &AuthorizationPolicy) -> Vec<(String, String)> {
    if !is_pass(policy) {
        return Vec::new();
    }
    let mut faults = read(policy).err().unwrap_or_default();
    let has_targets = policy.spec.target_refs.as_ref().is_some_and(|all| !all.is_empty());
    for (field, is_there) in
        [("spec.targetRef", policy.spec.target_ref.is_some()), ("spec.targetRefs", has_targets)]
    {
        if is_there {
            let words = "a break-glass is for nodes; the policies of waypoints stay in force";
            faults.push((field.to_owned(), words.to_owned()));
        }
    }
    faults
}

fn read(policy: &AuthorizationPolicy) -> Result<Term, Vec<(String, String)>> {
    match (time(policy, OPENED), time(policy, UNTIL)) {
        (Ok(opened), Ok(until)) if until <= opened => {
            Err(vec![(field(UNTIL), format!("the end of a break-glass is later than {OPENED}"))])
        }
        (Ok(opened), Ok(until)) if until - opened > LONGEST_SECONDS => {
            let hours = LONGEST_SECONDS / 3600;
            Err(vec![(field(UNTIL), format!("a break-glass is open for at most {hours}h from {OPENED}"))])
        }
        (Ok(opened), Ok(until)) => Ok(Term { opened, until }),
        (opened, until) => Err([opened.err(), until.err()].into_iter().flatten().collect()),
    }
}

fn field(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

fn time(policy: &AuthorizationPolicy, annotation: &str) -> Result<u64, (String, String)> {
    let wrong = |words: String| (field(annotation), words);
    let annotations = policy.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(annotation));
    let text = text.ok_or_else(|| wrong("the field is missing".to_owned()))?;
    let read = text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok());
    read.ok_or_else(|| wrong(format!("\"{text}\" is not a time such as 2026-01-01T12:00:00Z")))
}
