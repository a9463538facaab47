//! What the agent knows of one pod of its node from the objects, and what it says about it there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ambit_types::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::enrolment::PodFacts;

/// Annotation by which the control plane learns that a pod takes HBONE.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Condition type that tells whether a pod is captured; usable as a readiness gate.
pub const CAPTURED: &str = "ambit.internal/captured";
/// Reason of the condition when the pod is captured.
pub const CAPTURED_REASON: &str = "Captured";
/// Reason of a condition that is to be taken off the object.
const WITHDRAWN: &str = "Withdrawn";

/// One pod of this node as the objects show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its namespace; `None` if that object is not known.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Whether its containers run (phase Running).
    pub running: bool,
    /// Whether it has run to its end (phase Succeeded or Failed).
    pub finished: bool,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The condition it carries.
    pub condition: Option<Condition>,
}

impl Pod {
    /// What decides whether it is enrolled.
    pub fn facts(&self) -> PodFacts<'_> {
        PodFacts {
            namespace: &self.namespace,
            labels: Some(&self.labels),
            annotations: Some(&self.annotations),
            host_network: self.host_network,
            finished: self.finished,
        }
    }

    /// What its annotation says now.
    pub fn redirection(&self) -> Option<&str> {
        self.annotations.get(REDIRECTION).map(String::as_str)
    }
}

/// The pod condition [`CAPTURED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `True` or `False`.
    pub status: bool,
    /// [`CAPTURED_REASON`] or a code such as `AMB1003`.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl Condition {
    /// The condition of a captured pod.
    pub fn captured() -> Self {
        Self { status: true, reason: CAPTURED_REASON.to_owned(), message: String::new() }
    }

    /// The condition of one that is not.
    pub fn not_captured(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: false, reason: reason.code().to_owned(), message: message.into() }
    }

    /// No condition: what the object says of capture is to be removed.
    pub fn withdrawn() -> Self {
        Self { status: false, reason: WITHDRAWN.to_owned(), message: String::new() }
    }

    /// Whether it asks for the condition to be removed.
    pub fn is_withdrawn(&self) -> bool {
        self.reason == WITHDRAWN
    }
}

/// What the agent wants a pod's object to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The annotation [`REDIRECTION`]; `None` removes it.
    pub redirection: Option<&'static str>,
    /// The condition; `None` leaves it as it is, [`Condition::withdrawn`] removes it.
    pub condition: Option<Condition>,
}

impl Announcement {
    /// Whether the object says so already.
    pub fn is_said_by(&self, pod: &Pod) -> bool {
        let condition = match &self.condition {
            None => true,
            Some(wanted) if wanted.is_withdrawn() => pod.condition.is_none(),
            Some(wanted) => pod.condition.as_ref() == Some(wanted),
        };
        condition && self.redirection == pod.redirection()
    }
}

/// Where announcements go.
pub trait Announce: Send + Sync + 'static {
    /// Makes the pod's object say it. A pod of that name with another uid is left alone, and so is one that is gone.
    ///
    /// # Errors
    /// What went wrong, in words; the caller tries again.
    fn announce(
        &self,
        pod: &Pod,
        announcement: &Announcement,
    ) -> impl Future<Output = Result<(), AnnounceError>> + Send;
}

/// An announcement that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("writing the capture status of pod {namespace}/{name}")]
pub struct AnnounceError {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// The store's answer.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}
