//! The single writer: applies batches of changes and yields snapshots.
//!
//! A batch is one discovery response. Only what changed is copied; snapshots share the rest. Endpoints are kept by
//! service key whether or not the service is known, so workloads may come before their service, and a service that
//! goes and returns finds its endpoints again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_types::{PolicyKey, ServiceKey, Str, Uid, Workload};

use crate::change::Change;
use crate::snapshot::{Own, OwnNode, PodRef, Snapshot};

#[cfg(test)]
mod tests;

/// Everything discovery has told, and the indexes that only the writer needs.
#[derive(Debug)]
pub struct World {
    now: Snapshot,
    backends: BTreeMap<ServiceKey, BTreeMap<Uid, Arc<Workload>>>,
}

/// The result of a batch.
#[derive(Debug, Clone)]
#[must_use = "the snapshot has to be published"]
pub struct Applied {
    /// The world after it.
    pub snapshot: Arc<Snapshot>,
    /// Workloads of this node whose record or policies changed, came or went: their live connections have to be
    /// decided again.
    pub affected: BTreeSet<Uid>,
}

/// What a batch touched, worked off at its end.
#[derive(Debug, Default)]
struct Touched {
    services: BTreeSet<ServiceKey>,
    own: BTreeSet<Uid>,
    policies: bool,
}

impl World {
    /// A world that knows nothing, seen from a node.
    pub fn new(node: impl Into<Str>) -> Self {
        Self { now: Snapshot { node: node.into(), ..Snapshot::default() }, backends: BTreeMap::new() }
    }

    /// The world as it is.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.now.clone())
    }

    /// Applies one batch: removals first, then the rest in order.
    ///
    /// Removing what is not held, and storing what is held already, change nothing.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let (removals, rest): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(Change::is_removal);
        let mut touched = Touched::default();
        for change in removals.into_iter().chain(rest) {
            self.apply_one(change, &mut touched);
        }
        for key in &touched.services {
            if self.now.services.by_key(key).is_some() {
                let backends = self.backends.get(key).into_iter().flat_map(BTreeMap::values);
                self.now.services.set_endpoints(key, backends.cloned().collect());
            }
        }
        let affected = self.refresh_own(touched);
        Applied { snapshot: self.snapshot(), affected }
    }

    fn apply_one(&mut self, change: Change, touched: &mut Touched) {
        match change {
            Change::Workload(workload) => self.insert_workload(workload, touched),
            Change::Service(service) => {
                let key = service.key();
                if self.now.services.insert(service) {
                    self.touch_behind(&key, touched);
                    touched.services.insert(key);
                }
            }
            Change::Policy(policy) => {
                touched.policies |= Arc::make_mut(&mut self.now.policies).insert(policy);
            }
            Change::PolicyRejected { key, scope } => {
                touched.policies |= Arc::make_mut(&mut self.now.policies).reject(key, scope);
            }
            Change::PolicyEnded(key) => {
                touched.policies |= Arc::make_mut(&mut self.now.policies).end(&key);
            }
            Change::RemoveAddress(name) => self.remove_address(&name, touched),
            Change::RemovePolicy(name) => {
                if let Ok(key) = PolicyKey::parse(&name) {
                    touched.policies |= Arc::make_mut(&mut self.now.policies).remove(&key);
                }
            }
        }
    }

    fn insert_workload(&mut self, workload: Arc<Workload>, touched: &mut Touched) {
        if self.now.workloads.by_uid(&workload.uid).is_some_and(|held| *held == workload) {
            return;
        }
        self.touch_own(&workload, touched);
        if let Some(old) = self.now.workloads.insert(workload.clone()) {
            self.touch_own(&old, touched);
            self.leave_services(&old, touched);
        }
        for key in workload.services.keys() {
            let backends = self.backends.entry(key.clone()).or_default();
            backends.insert(workload.uid.clone(), workload.clone());
            touched.services.insert(key.clone());
        }
    }

    /// Removes a workload by uid, or else a service by `NAMESPACE/HOSTNAME`; other names mean nothing to us.
    fn remove_address(&mut self, name: &str, touched: &mut Touched) {
        if let Some(workload) = self.now.workloads.by_name(name).cloned() {
            self.now.workloads.remove(&workload.uid);
            self.touch_own(&workload, touched);
            self.leave_services(&workload, touched);
        } else if let Ok(key) = ServiceKey::parse(name) {
            self.touch_behind(&key, touched);
            self.now.services.remove(&key);
        }
    }

    fn leave_services(&mut self, workload: &Workload, touched: &mut Touched) {
        for key in workload.services.keys() {
            if let Some(backends) = self.backends.get_mut(key) {
                backends.remove(&workload.uid);
                if backends.is_empty() {
                    self.backends.remove(key);
                }
            }
            touched.services.insert(key.clone());
        }
    }

    /// What a service says of its waypoint holds for the live connections of its backends here.
    fn touch_behind(&self, key: &ServiceKey, touched: &mut Touched) {
        for workload in self.backends.get(key).into_iter().flat_map(BTreeMap::values) {
            self.touch_own(workload, touched);
        }
    }

    fn touch_own(&self, workload: &Workload, touched: &mut Touched) {
        if self.now.is_own(workload) {
            touched.own.insert(workload.uid.clone());
        }
    }

    /// Brings the workloads of this node up to date and tells whose record or policies changed.
    fn refresh_own(&mut self, touched: Touched) -> BTreeSet<Uid> {
        let mut affected = touched.own;
        let snapshot = &mut self.now;
        if affected.is_empty() && !touched.policies {
            return affected;
        }
        let own = Arc::make_mut(&mut snapshot.own);
        for uid in &affected {
            own.forget(uid);
            let held =
                snapshot.workloads.by_uid(uid).filter(|w| !w.node.is_empty() && w.node == snapshot.node);
            if let Some(workload) = held {
                let policies = Arc::new(snapshot.policies.applicable(workload));
                own.put(workload.clone(), policies);
            }
        }
        if touched.policies {
            for (uid, one) in &mut own.by_uid {
                let policies = snapshot.policies.applicable(&one.workload);
                if *one.policies != policies {
                    one.policies = Arc::new(policies);
                    affected.insert(uid.clone());
                }
            }
        }
        affected
    }
}

impl OwnNode {
    fn put(&mut self, workload: Arc<Workload>, policies: Arc<ambit_policy::PolicySet>) {
        let uids = self.by_pod.entry(PodRef::of(&workload)).or_default();
        if let Err(place) = uids.binary_search(&workload.uid) {
            uids.insert(place, workload.uid.clone());
        }
        self.by_uid.insert(workload.uid.clone(), Own { workload, policies });
    }

    fn forget(&mut self, uid: &Uid) {
        let Some(old) = self.by_uid.remove(uid) else { return };
        let pod = PodRef::of(&old.workload);
        if let Some(uids) = self.by_pod.get_mut(&pod) {
            uids.retain(|u| u != uid);
            if uids.is_empty() {
                self.by_pod.remove(&pod);
            }
        }
    }
}
