//! Which node a pod goes to.
//!
//! `nodeName` pins, `nodeSelector` narrows; replica number i goes to the i-th of the nodes that are left, round
//! and round, and a pod of its own goes to the one with the fewest pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::address::NodeIndex;

/// The label that every node has without being told.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// What the scheduler knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its number, from which its pods' addresses follow.
    pub index: NodeIndex,
    /// Labels of its Node object.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: takes only pods that name it.
    pub unschedulable: bool,
}

impl NodeFacts {
    /// A node without labels that takes any pod.
    pub fn plain(name: &str, index: NodeIndex) -> Self {
        Self { name: name.to_owned(), index, labels: BTreeMap::new(), unschedulable: false }
    }

    fn is_chosen_by(&self, selector: &BTreeMap<String, String>) -> bool {
        selector.iter().all(|(key, want)| {
            let own = self.labels.get(key).map(String::as_str);
            own.or_else(|| (key == HOSTNAME_LABEL).then_some(self.name.as_str())) == Some(want)
        })
    }
}

/// The nodes with the number of pods each has.
pub(super) struct Placement<'a> {
    nodes: &'a [NodeFacts],
    pods: BTreeMap<&'a str, usize>,
}

impl<'a> Placement<'a> {
    pub(super) fn new(nodes: &'a [NodeFacts]) -> Self {
        Self { nodes, pods: BTreeMap::new() }
    }

    /// Counts a pod that has a node already.
    pub(super) fn count(&mut self, pod: &Pod) {
        let named = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        if let Some(node) = self.nodes.iter().find(|n| Some(n.name.as_str()) == named) {
            *self.pods.entry(&node.name).or_default() += 1;
        }
    }

    /// Chooses a node and counts the pod there.
    pub(super) fn choose(&mut self, pod: &Pod, replica: Option<usize>) -> Result<&'a NodeFacts, String> {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            let named = self.nodes.iter().find(|n| n.name == name);
            // The pod itself was counted as one of that node's if it stands in the store.
            return named
                .ok_or_else(|| format!("spec.nodeName is {name}, but the nodes are {}", self.names()));
        }
        let selector = spec.node_selector.clone().unwrap_or_default();
        let fit = |n: &&NodeFacts| !n.unschedulable && n.is_chosen_by(&selector);
        let fitting: Vec<&'a NodeFacts> = self.nodes.iter().filter(fit).collect();
        let chosen = match replica {
            Some(index) if !fitting.is_empty() => Some(fitting[index % fitting.len()]),
            Some(_) => None,
            None => fitting.into_iter().min_by_key(|n| self.pods.get(n.name.as_str()).copied().unwrap_or(0)),
        };
        let node = chosen.ok_or_else(|| {
            format!("no node takes it: nodeSelector {selector:?}, schedulable nodes {}", self.names())
        })?;
        *self.pods.entry(&node.name).or_default() += 1;
        Ok(node)
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
        names.join(", ")
    }
}
