//! The services a workload backs: what all pods of a deployment have in common, so one piece of memory may serve all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ServiceKey;
use crate::service::Port;

#[cfg(test)]
mod tests;

/// Services by key, each with the ports of one workload for it.
///
/// A sorted list that is never changed in place, so copies are one allocation together. A tree takes some 700 bytes for
/// the one service that most workloads back, and a mesh holds one for each of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServicePorts(Option<Arc<List>>);

/// Behind a pointer of one word: workloads are what a mesh has most of. Never empty.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct List(Box<[(ServiceKey, Vec<Port>)]>);

impl ServicePorts {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The workload's ports for a service, if it backs that; none of its own if the list is empty.
    pub fn get(&self, service: &ServiceKey) -> Option<&[Port]> {
        let list = self.list();
        let at = list.binary_search_by(|(held, _)| held.cmp(service)).ok()?;
        list.get(at).map(|(_, ports)| ports.as_slice())
    }

    /// Whether it backs a service.
    pub fn contains_key(&self, service: &ServiceKey) -> bool {
        self.get(service).is_some()
    }

    /// Services with their ports, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &[Port])> {
        self.list().iter().map(|(service, ports)| (service, ports.as_slice()))
    }

    /// Services, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.list().iter().map(|(service, _)| service)
    }

    /// Ports of each service, in the order of [`Self::keys`].
    pub fn values(&self) -> impl Iterator<Item = &[Port]> {
        self.list().iter().map(|(_, ports)| ports.as_slice())
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Puts in a service, in place of the one with the same key.
    ///
    /// Makes the whole list anew: where there are many, collect them or extend by them.
    pub fn insert(&mut self, service: ServiceKey, ports: Vec<Port>) {
        let mut all = self.to_map();
        all.insert(service, ports);
        *self = all.into();
    }

    /// Takes out a service; its ports if it was there. Makes the whole list anew.
    pub fn remove(&mut self, service: &ServiceKey) -> Option<Vec<Port>> {
        let mut all = self.to_map();
        let ports = all.remove(service)?;
        *self = all.into();
        Some(ports)
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether there is another copy of the same memory.
    pub fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(|list| Arc::strong_count(list) > 1)
    }

    fn to_map(&self) -> BTreeMap<ServiceKey, Vec<Port>> {
        self.list().iter().cloned().collect()
    }

    fn list(&self) -> &[(ServiceKey, Vec<Port>)] {
        match &self.0 {
            Some(list) => &list.0,
            None => &[],
        }
    }
}

impl std::fmt::Debug for ServicePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<BTreeMap<ServiceKey, Vec<Port>>> for ServicePorts {
    fn from(sorted: BTreeMap<ServiceKey, Vec<Port>>) -> Self {
        let list: Box<[_]> = sorted.into_iter().collect();
        Self((!list.is_empty()).then(|| Arc::new(List(list))))
    }
}

/// The last of two lists for one service counts.
impl FromIterator<(ServiceKey, Vec<Port>)> for ServicePorts {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, Vec<Port>)>>(pairs: I) -> Self {
        pairs.into_iter().collect::<BTreeMap<ServiceKey, Vec<Port>>>().into()
    }
}

/// What is added counts before what was there, and the last of two lists for one service before the other.
impl Extend<(ServiceKey, Vec<Port>)> for ServicePorts {
    fn extend<I: IntoIterator<Item = (ServiceKey, Vec<Port>)>>(&mut self, pairs: I) {
        let mut all = self.to_map();
        all.extend(pairs);
        *self = all.into();
    }
}

impl<const N: usize> From<[(ServiceKey, Vec<Port>); N]> for ServicePorts {
    fn from(pairs: [(ServiceKey, Vec<Port>); N]) -> Self {
        pairs.into_iter().collect()
    }
}
