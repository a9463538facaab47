//! What the agent shows of its pods: the list on the admin socket and the counts in the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::{family, series};
use serde::Serialize;
use tokio::sync::watch;

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

/// The pods of each namespace in the metrics, counted at each scrape: a namespace that has no pods left on this node has
/// no series either.
#[derive(Debug)]
pub struct Gauges(watch::Receiver<Arc<Vec<PodStatus>>>);

impl Gauges {
    /// Of the pods that are shown.
    pub fn of(pods: watch::Receiver<Arc<Vec<PodStatus>>>) -> Arc<Self> {
        Arc::new(Self(pods))
    }
}

impl Source for Gauges {
    fn write(&self, text: &mut String) {
        let pods = Arc::clone(&self.0.borrow());
        write_gauges(text, &pods);
    }
}

fn write_gauges(text: &mut String, pods: &[PodStatus]) {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for pod in pods {
        let (expected, captured) = counts.entry(&pod.namespace).or_default();
        *expected += usize::from(pod.enrolled);
        *captured += usize::from(pod.state == "captured");
    }
    family(text, "ambit_workloads_expected", "gauge");
    for (namespace, (expected, _)) in &counts {
        series(text, "ambit_workloads_expected", &labels_of(namespace), expected);
    }
    family(text, "ambit_workloads_captured", "gauge");
    for (namespace, (_, captured)) in &counts {
        series(text, "ambit_workloads_captured", &labels_of(namespace), captured);
    }
}

/// A name in Kubernetes has nothing that would have to be escaped.
fn labels_of(namespace: &str) -> String {
    format!("namespace=\"{namespace}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, state: &'static str) -> PodStatus {
        PodStatus {
            uid: String::new(),
            namespace: namespace.to_owned(),
            name: String::new(),
            enrolled: true,
            state,
            reason: None,
            message: None,
            rules: None,
            ztunnel: "held",
            netns: None,
            last_error: None,
            ignored: Vec::new(),
        }
    }

    /// Namespaces come and go as their owners like; of those that went nothing stays.
    #[test]
    fn series_are_of_the_namespaces_that_have_pods_here() {
        let (shown, pods) = watch::channel(Arc::default());
        let gauges = Gauges::of(pods);
        let text = || {
            let mut text = String::new();
            gauges.write(&mut text);
            text
        };
        let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        for n in 0..10_000 {
            let of = format!("made-up-{n}");
            shown.send_replace(Arc::new(vec![pod(&of, "captured"), pod(&of, "pending"), pod("shop", "out")]));
            if n % 1000 == 0 {
                let text = text();
                assert_eq!(lines(&text), 4, "{text}");
                assert!(
                    text.contains(&format!("ambit_workloads_expected{{namespace=\"{of}\"}} 2\n")),
                    "{text}"
                );
                assert!(
                    text.contains(&format!("ambit_workloads_captured{{namespace=\"{of}\"}} 1\n")),
                    "{text}"
                );
            }
        }
        shown.send_replace(Arc::new(vec![]));
        assert_eq!(lines(&text()), 0);
    }
}
