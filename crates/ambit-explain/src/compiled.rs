//! The mesh as the control plane would send it, without sending: an index made into a snapshot and the states of its
//! waypoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ambit_control::waypoints::resources::{Reach, Resources};
use ambit_control::{Index, Name};
use ambit_policy::http::{CustomOrder, PolicySet};
use ambit_policy::jwt::{Rule, RuleSet};
use ambit_route::Table;
use ambit_route::model::Destination;
use ambit_state::waypoint::{Applied, Own, Policies, State};
use ambit_state::{Change, Snapshot, World};
use ambit_types::{ServiceKey, Str, Uid};

use crate::view::View;

/// A compiled mesh, owned, so that a [`View`] can be had of it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Workloads, services and L4 policies.
    pub snapshot: Arc<Snapshot>,
    /// What each waypoint goes by, by the key of each of its instances.
    pub waypoints: BTreeMap<Uid, Arc<State>>,
}

impl Compiled {
    /// What the proxies would hold once all of the index has been sent to them, seen from `node`, at `wall` since 1970.
    ///
    /// The node only matters to whether two pods are joined without a tunnel; an empty name joins none. The time only
    /// matters to passes (break-glass): those that are over by then, or have no end, are not in force.
    pub fn of(index: &Index, node: &str, wall: Duration) -> Self {
        let workloads = index.workloads().values().cloned().map(Change::Workload);
        let services = index.services().values().cloned().map(Change::Service);
        let policies = index.policies().values().cloned().map(Change::Policy);
        let is_over = |until: Option<u64>| until.is_none_or(|until| Duration::from_secs(until) <= wall);
        let passes = index.policies().values().filter(|policy| policy.is_pass());
        let over =
            passes.filter(|pass| is_over(pass.until)).map(|pass| Change::PolicyEnded(pass.key.clone()));
        let changes = workloads.chain(services).chain(policies).chain(over);
        let snapshot = World::new(node).apply(changes).snapshot;
        let mut waypoints = BTreeMap::new();
        for (name, resources) in index.waypoints() {
            waypoints.extend(instances(&snapshot, name, resources));
        }
        Self { snapshot, waypoints }
    }

    /// A view of it.
    pub fn view(&self) -> View<'_> {
        View::new(&self.snapshot).with_waypoints(&self.waypoints)
    }
}

/// The state of each instance of a waypoint: they differ in who they are only.
fn instances(mesh: &Arc<Snapshot>, name: &Name, resources: &Resources) -> Vec<(Uid, Arc<State>)> {
    let services = mesh.services();
    let host = format!("{}.{}.svc.", name.name, name.namespace);
    let entry = services.into_iter().find(|entry| {
        let service = entry.service();
        service.namespace == name.namespace
            && service.name == name.name
            && service.hostname.starts_with(&host)
    });
    let Some(entry) = entry else { return Vec::new() };
    let (routes, policies) = (Arc::new(table(resources)), policies(resources));
    let of = |workload: &Arc<ambit_types::Workload>| {
        let vips = entry.service().vips.iter().filter(|vip| vip.network == workload.network);
        let vips = vips.map(|vip| vip.ip).collect();
        let own = Own { workload: workload.clone(), service: Some(entry.service().key()), vips };
        let state = State { mesh: mesh.clone(), routes: routes.clone(), policies: policies.clone(), own };
        (workload.uid.clone(), Arc::new(state))
    };
    entry.endpoints().iter().map(of).collect()
}

/// The routes; a rule with a mistake answers 500 in the table, as it does at the waypoint.
fn table(resources: &Resources) -> Table {
    let mut table = Table::default();
    for frontend in resources.frontends.values() {
        // The mistakes stand in the reports of the index.
        let _ = table.put(frontend);
    }
    for (service, policy) in &resources.destinations {
        table.put_destination(&Destination { service: service.clone(), policy: (**policy).clone() });
    }
    table
}

fn policies(resources: &Resources) -> Policies {
    let reaches = resources.policies.values().map(|one| &one.reach);
    let reaches = reaches.chain(resources.authentications.values().map(|one| &one.reach));
    let named: BTreeSet<&ServiceKey> = reaches.flat_map(services_of).collect();
    // No service has this key, so only what covers everything applies to it.
    let others = ServiceKey::new("", "");
    let each = |service: &ServiceKey| (service.clone(), Arc::new(applied(resources, service)));
    Policies { services: named.into_iter().map(each).collect(), all: Arc::new(applied(resources, &others)) }
}

fn services_of(reach: &Reach) -> impl Iterator<Item = &ServiceKey> {
    let services = match reach {
        Reach::All => None,
        Reach::Services(services) => Some(services),
    };
    services.into_iter().flatten()
}

fn covers(reach: &Reach, service: &ServiceKey) -> bool {
    match reach {
        Reach::All => true,
        Reach::Services(services) => services.contains(service),
    }
}

/// What applies to a service. While anything that covers it has a mistake, nothing is allowed.
fn applied(resources: &Resources, service: &ServiceKey) -> Applied {
    let (mut held, mut rules, mut unresolved) = (Vec::new(), Vec::new(), Vec::new());
    for (key, one) in resources.policies.iter().filter(|(_, one)| covers(&one.reach, service)) {
        match &one.of {
            Some(policy) => held.push(Arc::new(policy.clone())),
            None => unresolved.push(key.clone()),
        }
    }
    for (key, one) in resources.authentications.iter().filter(|(_, one)| covers(&one.reach, service)) {
        let namespace: &Str = &key.namespace;
        match &one.of {
            Some(of) => {
                rules.extend(of.iter().map(|rule| Rule { namespace: namespace.clone(), ..rule.clone() }));
            }
            None => unresolved.push(key.clone()),
        }
    }
    Applied {
        policies: PolicySet::new(held, unresolved, CustomOrder::default()),
        tokens: RuleSet::new(rules),
        ..Applied::default()
    }
}
