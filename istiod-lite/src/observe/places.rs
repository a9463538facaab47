//! What proxies may tell of: where workloads run and what is bound to which waypoint, now and a while ago.
//!
//! It hears of every change before the proxies do, so that none tells of what is not known here yet. What is gone may
//! still be told of for a while, since a summary may be late. A proxy's word about the other end of a connection cannot
//! be held against anything; about its own end it can, and what does not fit is not counted.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_control::{Delta, Name};
use ambit_types::{Destination, GatewayAddress, Service, ServiceKey, Str, Uid, Workload};
use ambit_xds::proto::ambit::observe::v1::{End, Pair, Reporter};

use super::hub::Who;

#[cfg(test)]
mod tests;

/// Seconds for which what is gone may still be told of: longer than a proxy is without any control plane as a rule.
const GRACE: u64 = 900;
/// How much of what is gone is remembered.
const GONE_MAX: usize = 100_000;
/// How something is carried to a waypoint, the only word that one may use.
const VIA_WAYPOINT: &str = "waypoint";

/// Something that a proxy may tell of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// A workload of a node, by namespace and the name of its controller.
    Runs(Str, Str, Str),
    /// One pod of a node, by namespace and name.
    Pod(Str, Str, Str),
    /// An address of a node's workload.
    Holds(Str, IpAddr),
    /// A host that goes through a waypoint.
    Serves(Name, Str),
    /// A workload that goes through a waypoint, by namespace and the name of its controller.
    Guards(Name, Str, Str),
    /// An address of such a workload.
    GuardsAt(Name, IpAddr),
    /// A workload behind a host, by namespace and the name of its controller.
    Backs(Str, Str, Str),
}

/// How many records make a claim good, and since when none does, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    count: usize,
    gone: u64,
}

/// Why a pair does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    /// It is told as somebody whom this proxy is not.
    Reporter,
    /// The end that the proxy speaks for is no pod of its node.
    Workload,
    /// What was addressed is not bound to the waypoint.
    Unbound,
    /// It cannot have been carried as it says.
    Path,
}

impl Misfit {
    /// As metrics and the log have it.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Reporter => "reporter",
            Self::Workload => "workload",
            Self::Unbound => "unbound",
            Self::Path => "path",
        }
    }
}

/// Where everything is.
#[derive(Debug, Default)]
pub(super) struct Places {
    workloads: BTreeMap<Uid, Arc<Workload>>,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    /// Workloads that are there, by node. They are few enough to be looked through, and claims of each of them would take
    /// some hundred bytes apiece.
    by_node: BTreeMap<Str, Vec<Arc<Workload>>>,
    /// Claims about nodes are here only while they are gone.
    claims: BTreeMap<Claim, Held>,
    /// Claims that were good, the oldest first.
    gone: VecDeque<(u64, Claim)>,
}

impl Places {
    /// Takes in what changed, at a time in seconds since 1970.
    pub(super) fn take(&mut self, delta: &Delta, now: u64) {
        for (uid, workload) in &delta.workloads {
            self.arrive(workload);
            if let Some(before) = self.workloads.insert(uid.clone(), workload.clone()) {
                self.leave(&before, now);
            }
        }
        for (key, service) in &delta.services {
            self.hold(of_service(service));
            if let Some(before) = self.services.insert(key.clone(), service.clone()) {
                self.release(of_service(&before), now);
            }
        }
        for uid in &delta.removed_workloads {
            if let Some(before) = self.workloads.remove(uid) {
                self.leave(&before, now);
            }
        }
        for key in &delta.removed_services {
            if let Some(before) = self.services.remove(key) {
                self.release(of_service(&before), now);
            }
        }
        self.forget(now);
    }

    fn arrive(&mut self, workload: &Arc<Workload>) {
        if !workload.node.is_empty() {
            self.by_node.entry(workload.node.clone()).or_default().push(workload.clone());
        }
        self.hold(of_workload(workload));
    }

    /// What replaces it has arrived by then, so that nothing is gone in between.
    fn leave(&mut self, workload: &Arc<Workload>, now: u64) {
        if let Some(there) = self.by_node.get_mut(&workload.node) {
            if let Some(at) = there.iter().position(|one| Arc::ptr_eq(one, workload)) {
                there.swap_remove(at);
            }
            if there.is_empty() {
                self.by_node.remove(&workload.node);
            }
        }
        for claim in about_node(workload) {
            if !self.is_there(&claim) {
                self.claims.entry(claim.clone()).or_default().gone = now;
                self.gone.push_back((now, claim));
            }
        }
        self.release(of_workload(workload), now);
    }

    /// Whether a workload that is there makes a claim about its node good.
    fn is_there(&self, claim: &Claim) -> bool {
        let on = |node: &Str| self.by_node.get(node).into_iter().flatten();
        match claim {
            Claim::Runs(node, namespace, name) => {
                on(node).any(|one| one.namespace == *namespace && name_of(one) == name)
            }
            Claim::Pod(node, namespace, name) => {
                on(node).any(|one| one.namespace == *namespace && one.name == *name)
            }
            Claim::Holds(node, ip) => on(node).any(|one| one.addresses.contains(ip)),
            Claim::Serves(..) | Claim::Guards(..) | Claim::GuardsAt(..) | Claim::Backs(..) => false,
        }
    }

    fn hold(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            self.claims.entry(claim).or_default().count += 1;
        }
    }

    fn release(&mut self, claims: Vec<Claim>, now: u64) {
        for claim in claims {
            let Some(held) = self.claims.get_mut(&claim) else { continue };
            held.count = held.count.saturating_sub(1);
            if held.count == 0 {
                held.gone = now;
                self.gone.push_back((now, claim));
            }
        }
    }

    fn forget(&mut self, now: u64) {
        while let Some((gone, _)) = self.gone.front() {
            if gone.saturating_add(GRACE) >= now && self.gone.len() <= GONE_MAX {
                return;
            }
            let Some((gone, claim)) = self.gone.pop_front() else { return };
            // It may be good again, or be gone again since.
            if self.claims.get(&claim).is_some_and(|held| held.count == 0 && held.gone == gone) {
                self.claims.remove(&claim);
            }
        }
    }

    fn has(&self, claim: &Claim, now: u64) -> bool {
        let is_good = |held: &Held| held.count > 0 || held.gone.saturating_add(GRACE) >= now;
        self.is_there(claim) || self.claims.get(claim).is_some_and(is_good)
    }

    /// Holds a pair against what its teller may tell of, and puts right what it may not choose: the node of its own end,
    /// and of a waypoint how things are carried.
    ///
    /// # Errors
    /// [`Misfit`] says why the pair does not count.
    pub(super) fn check(&self, who: &Who, pair: &mut Pair, now: u64) -> Result<(), Misfit> {
        match (pair.reporter(), &who.gateway) {
            (Reporter::Source, None) => self.own_end(&who.node, pair.source.as_mut(), now),
            (Reporter::Destination, None) if pair.path == VIA_WAYPOINT => Err(Misfit::Path),
            (Reporter::Destination, None) => self.own_end(&who.node, pair.destination.as_mut(), now),
            (Reporter::Waypoint, Some(gateway)) => self.at_waypoint(gateway, pair, now),
            (Reporter::Source | Reporter::Destination, Some(_))
            | (Reporter::Waypoint, None)
            | (Reporter::Unspecified, _) => Err(Misfit::Reporter),
        }
    }

    /// The end that a ztunnel speaks for: a pod of its node, or at least an address of one. Which pod and address it is
    /// an example of must be true too, since questions are asked about them.
    fn own_end(&self, node: &str, end: Option<&mut End>, now: u64) -> Result<(), Misfit> {
        let end = end.ok_or(Misfit::Workload)?;
        let node_name = Str::from(node);
        let namespace = Str::from(&*end.namespace);
        let holds = ip(&end.address).is_some_and(|ip| self.has(&Claim::Holds(node_name.clone(), ip), now));
        let is_own = match end.workload.is_empty() {
            true => holds,
            false => {
                let name = Str::from(&*end.workload);
                self.has(&Claim::Runs(node_name.clone(), namespace.clone(), name), now)
            }
        };
        if !is_own {
            return Err(Misfit::Workload);
        }
        if !end.pod.is_empty() && !self.has(&Claim::Pod(node_name, namespace, Str::from(&*end.pod)), now) {
            end.pod.clear();
        }
        if !holds {
            end.address.clear();
        }
        node.clone_into(&mut end.node);
        Ok(())
    }

    /// What a waypoint tells: of hosts and workloads that are bound to it, and of itself. Workloads of others' namespaces
    /// are named only where they stand behind the host; of the rest only the number counts.
    fn at_waypoint(&self, gateway: &Name, pair: &mut Pair, now: u64) -> Result<(), Misfit> {
        VIA_WAYPOINT.clone_into(&mut pair.path);
        pair.client.clear();
        let end = pair.destination.get_or_insert_default();
        let (namespace, name) = (Str::from(&*end.namespace), Str::from(&*end.workload));
        if pair.service.is_empty() {
            let at = ip(&end.address).map(|ip| Claim::GuardsAt(gateway.clone(), ip));
            let is_at = at.is_some_and(|claim| self.has(&claim, now));
            let is_named = !name.is_empty();
            let guards = is_named && self.has(&Claim::Guards(gateway.clone(), namespace, name), now);
            return if is_at && guards == is_named { Ok(()) } else { Err(Misfit::Unbound) };
        }
        let host = Str::from(&*pair.service);
        if !is_own_host(gateway, &host) && !self.has(&Claim::Serves(gateway.clone(), host.clone()), now) {
            return Err(Misfit::Unbound);
        }
        let is_neighbour = namespace == gateway.namespace;
        if !is_neighbour && !self.has(&Claim::Backs(host, namespace, name), now) {
            *end = End { address: std::mem::take(&mut end.address), ..End::default() };
        }
        Ok(())
    }
}

/// Whether a host is that of the waypoint's own service.
fn is_own_host(gateway: &Name, host: &str) -> bool {
    let rest = host.strip_prefix(&*gateway.name).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_prefix(&*gateway.namespace));
    rest.is_some_and(|rest| rest.starts_with(".svc."))
}

fn ip(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().map(|at| at.ip().to_canonical())
}

/// The name by which pairs call a workload.
fn name_of(workload: &Workload) -> &Str {
    if workload.workload_name.is_empty() { &workload.name } else { &workload.workload_name }
}

/// What a workload makes good about its node, if it is on one.
fn about_node(workload: &Workload) -> Vec<Claim> {
    if workload.node.is_empty() {
        return Vec::new();
    }
    let (node, namespace) = (|| workload.node.clone(), || workload.namespace.clone());
    let runs = Claim::Runs(node(), namespace(), name_of(workload).clone());
    let pod = Claim::Pod(node(), namespace(), workload.name.clone());
    let holds = workload.addresses.iter().map(|ip| Claim::Holds(node(), *ip));
    [runs, pod].into_iter().chain(holds).collect()
}

/// What it makes good besides.
fn of_workload(workload: &Workload) -> Vec<Claim> {
    let (namespace, name) = (&workload.namespace, name_of(workload));
    let mut claims = Vec::new();
    if let Some(gateway) = workload.waypoint.as_ref().and_then(gateway) {
        claims.push(Claim::Guards(gateway.clone(), namespace.clone(), name.clone()));
        claims.extend(workload.addresses.iter().map(|ip| Claim::GuardsAt(gateway.clone(), *ip)));
    }
    let backs = |key: &ServiceKey| Claim::Backs(key.hostname.clone(), namespace.clone(), name.clone());
    claims.extend(workload.services.keys().map(backs));
    claims
}

fn of_service(service: &Service) -> Vec<Claim> {
    let weighted = service.weighted_waypoints.iter().map(|one| &one.destination);
    let gateways = service.waypoint.iter().chain(weighted).filter_map(gateway);
    gateways.map(|gateway| Claim::Serves(gateway, service.hostname.clone())).collect()
}

/// The Gateway that a record of discovery names: our index names its service, which is called like it.
pub(crate) fn gateway(address: &GatewayAddress) -> Option<Name> {
    match &address.destination {
        Destination::Hostname(key) => {
            let (name, _) = key.hostname.split_once('.')?;
            Some(Name::new(key.namespace.clone(), name))
        }
        Destination::Address(_) => None,
    }
}
