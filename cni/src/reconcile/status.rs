//! What the agent shows of its pods: the list on the admin socket and the counts in the metrics.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Tracked;
use super::plan::Inside;
use crate::enrolment::Decision;
use crate::handoff::roster::Holding;

/// One pod as the admin socket shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its uid.
    pub uid: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether labels ask for capture and nothing forbids it.
    pub enrolled: bool,
    /// `captured`, `pending`, `failed`, `leaving`, `waiting`, `unseen` or `out`.
    pub state: &'static str,
    /// The code of why it is not captured.
    pub reason: Option<&'static str>,
    /// The same in words.
    pub message: Option<String>,
    /// Stamp of the rules in force.
    pub rules: Option<String>,
    /// `held`, `refused`, `waiting` or `none`: the newest ztunnel's word.
    pub ztunnel: &'static str,
    /// Inode of the namespace.
    pub netns: Option<u64>,
    /// The last failure that nothing has undone.
    pub last_error: Option<String>,
    /// What was asked for but cannot be honoured.
    pub ignored: Vec<String>,
}

pub(super) fn of(uid: &str, tracked: &Tracked, holding: &Holding) -> Option<PodStatus> {
    let pod = tracked.pod.as_ref()?;
    let record = &tracked.record;
    let (enrolled, ignored) = match &tracked.decision {
        Decision::Enrol { ignored, .. } => (true, ignored.clone()),
        Decision::Not(_) => (false, Vec::new()),
    };
    let state = match (&record.inside, enrolled, holding) {
        (Inside::Capture { .. }, true, Holding::Held) => "captured",
        (Inside::Capture { .. }, true, Holding::NoZtunnel | Holding::Waiting | Holding::Refused(_)) => {
            "pending"
        }
        (Inside::Capture { .. } | Inside::Residue { .. }, false, _) => "leaving",
        (Inside::Unknown | Inside::Nothing | Inside::Residue { .. }, true, _) if record.failure.is_some() => {
            "failed"
        }
        (Inside::Unknown | Inside::Nothing | Inside::Residue { .. }, true, _) => "waiting",
        (Inside::Unknown, false, _) if !pod.host_network => "unseen",
        (Inside::Unknown | Inside::Nothing, false, _) => "out",
    };
    let why = match (&tracked.decision, &record.failure) {
        (Decision::Not(why), _) => Some((why.reason(), why.why().to_owned())),
        (Decision::Enrol { .. }, Some(failure)) => Some((failure.reason, failure.message.clone())),
        (Decision::Enrol { .. }, None) if state == "captured" => None,
        (Decision::Enrol { .. }, None) => {
            Some((ambit_types::reason::Reason::NotCaptured, "not yet in force or not yet served".to_owned()))
        }
    };
    let rules = match &record.inside {
        Inside::Capture { stamp } => Some(stamp.clone()),
        Inside::Residue { .. } => Some(crate::rules::residue().stamp),
        Inside::Unknown | Inside::Nothing => None,
    };
    Some(PodStatus {
        uid: uid.to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        enrolled,
        state,
        reason: why.as_ref().map(|(reason, _)| reason.code()),
        message: why.map(|(_, message)| message),
        rules,
        ztunnel: match holding {
            Holding::Held => "held",
            Holding::Refused(_) => "refused",
            Holding::Waiting => "waiting",
            Holding::NoZtunnel => "none",
        },
        netns: tracked.sandbox.as_ref().map(|sandbox| sandbox.netns.id().inode),
        last_error: record.failure.as_ref().map(|f| format!("{} {}", f.reason.code(), f.message)),
        ignored,
    })
}

/// Sets the gauges of every namespace; one that has no pods left is set to zero once and then forgotten.
pub(super) fn count(pods: &[PodStatus], namespaces: &mut BTreeSet<String>) {
    namespaces.retain(|namespace| {
        let of = || pods.iter().filter(|pod| pod.namespace == *namespace);
        let expected = of().filter(|pod| pod.enrolled).count();
        let captured = of().filter(|pod| pod.state == "captured").count();
        metrics::gauge!("ambit_workloads_expected", "namespace" => namespace.clone()).set(expected as f64);
        metrics::gauge!("ambit_workloads_captured", "namespace" => namespace.clone()).set(captured as f64);
        of().next().is_some()
    });
}
