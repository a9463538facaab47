//! Which pods are in the mesh: the labels and hard conditions of Istio ambient, and why a pod is not.
//!
//! Pure. It decides from the pod and its namespace alone; whether the pod can be captured is found out elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::reason::Reason;

use crate::rules::{Facts, InterfaceName};

#[cfg(test)]
mod tests;

/// Label of pods and namespaces that asks for the mesh (`ambient`) or opts out (`none`).
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Annotation that a sidecar injector leaves on a pod.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Annotation by which a pod takes its inbound plaintext itself.
pub const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation that lists interfaces whose incoming connections count as outbound.
pub const VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";

/// What of a pod decides.
#[derive(Debug, Clone, Default)]
pub struct PodFacts<'a> {
    /// Namespace it lives in.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Whether it has run to its end (phase Succeeded or Failed).
    pub finished: bool,
}

/// The answer for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// In the mesh, captured like this.
    Enrol {
        /// What its rules are made from.
        facts: Facts,
        /// What was asked for but cannot be honoured, in words; empty as a rule.
        ignored: Vec<String>,
    },
    /// Not in the mesh.
    Not(NotEnrolled),
}

/// Why a pod is not in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnrolled {
    /// Neither the pod nor its namespace asks for it.
    Unlabelled,
    /// The pod says `none`.
    PodOptOut,
    /// The namespace is one that is never enrolled.
    ExcludedNamespace,
    /// The pod shares the node's network, which is not ours to change.
    HostNetwork,
    /// The pod has run to its end.
    Finished,
    /// The pod is labelled for the mesh but carries a sidecar.
    Sidecar,
    /// The mesh is being taken off this node.
    Removed,
}

impl NotEnrolled {
    /// The reason code.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Sidecar => Reason::LabelConflict,
            Self::Unlabelled
            | Self::PodOptOut
            | Self::ExcludedNamespace
            | Self::HostNetwork
            | Self::Finished
            | Self::Removed => Reason::NotEnrolled,
        }
    }

    /// In words, for a person who expected otherwise.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Unlabelled => {
                "neither the pod nor its namespace is labelled istio.io/dataplane-mode=ambient"
            }
            Self::PodOptOut => "the pod is labelled istio.io/dataplane-mode=none",
            Self::ExcludedNamespace => "its namespace is excluded from the mesh",
            Self::HostNetwork => "the pod uses the host's network",
            Self::Finished => "the pod has finished",
            Self::Sidecar => "the pod asks for the mesh but carries a sidecar; remove one of the two",
            Self::Removed => "the mesh is being taken off this node",
        }
    }
}

/// Whether the namespace's labels have no say, since the pod's own label asks for the mesh or opts out.
///
/// Where this is false and the namespace is not known yet, [`decide`] cannot tell "not asked for" from "not seen".
pub fn is_settled_by_pod(pod: &PodFacts<'_>) -> bool {
    match pod.labels.and_then(|labels| labels.get(DATAPLANE_MODE)).map(String::as_str) {
        Some("ambient" | "none") => true,
        Some(_) | None => false,
    }
}

/// Decides whether a pod is in the mesh; the pod's own label beats its namespace's.
pub fn decide(
    pod: &PodFacts<'_>,
    namespace_labels: Option<&BTreeMap<String, String>>,
    excluded: &BTreeSet<String>,
) -> Decision {
    let mode =
        |labels: Option<&BTreeMap<String, String>>| labels.and_then(|l| l.get(DATAPLANE_MODE)).cloned();
    let (own, inherited) = (mode(pod.labels), mode(namespace_labels));
    // As the default selectors have it: any other value on the pod neither asks nor opts out.
    let asked = match own.as_deref() {
        Some("ambient") => true,
        Some("none") => false,
        Some(_) | None => inherited.as_deref() == Some("ambient"),
    };
    if !asked {
        let opted_out = own.as_deref() == Some("none");
        return Decision::Not(if opted_out { NotEnrolled::PodOptOut } else { NotEnrolled::Unlabelled });
    }
    let annotation = |name: &str| pod.annotations.and_then(|a| a.get(name));
    let hindrance = [
        (excluded.contains(pod.namespace), NotEnrolled::ExcludedNamespace),
        (pod.host_network, NotEnrolled::HostNetwork),
        (pod.finished, NotEnrolled::Finished),
        (annotation(SIDECAR_STATUS).is_some(), NotEnrolled::Sidecar),
    ];
    if let Some((_, why)) = hindrance.into_iter().find(|(applies, _)| *applies) {
        return Decision::Not(why);
    }
    let mut ignored = Vec::new();
    let inbound = !annotation(BYPASS_INBOUND).is_some_and(|v| is_true(BYPASS_INBOUND, v, &mut ignored));
    let virtual_interfaces =
        annotation(VIRTUAL_INTERFACES).map(|list| read_interfaces(list, &mut ignored)).unwrap_or_default();
    Decision::Enrol { facts: Facts { inbound, virtual_interfaces }, ignored }
}

/// Only a clear `true` opens a way around the proxy.
fn is_true(name: &str, value: &str, ignored: &mut Vec<String>) -> bool {
    match value {
        "true" => true,
        "false" => false,
        other => {
            ignored.push(format!("annotation {name}={other:?}: neither true nor false, taken as false"));
            false
        }
    }
}

fn read_interfaces(list: &str, ignored: &mut Vec<String>) -> Vec<InterfaceName> {
    let mut names = Vec::new();
    for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match InterfaceName::parse(name) {
            Some(name) => names.push(name),
            None => ignored.push(format!("annotation {VIRTUAL_INTERFACES}: {name:?} is no interface name")),
        }
    }
    names
}
