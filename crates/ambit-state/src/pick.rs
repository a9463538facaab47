//! Which endpoint of a service a connection goes to: filters, locality ranks, weights.
//!
//! Tables are built once for a service version and the place of this node's workloads; a pick is then one draw and
//! a binary search. Unready endpoints are kept by the store and left out here, so that a service that begins to
//! admit them finds them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ambit_types::service::{HealthPolicy, LoadBalancingMode, Scope};
use ambit_types::workload::Health;
use ambit_types::{Locality, Network, Service, ServiceKey, Str, Uid, Workload};

use crate::services::ServiceEntry;

#[cfg(test)]
mod tests;

/// Tables of a service for the place from which they were first asked.
#[derive(Debug, Default)]
pub(crate) struct PickCache(OnceLock<(Place, ByPort)>);

/// Tables of each port of a service, best rank first.
type ByPort = BTreeMap<u16, Arc<[Table]>>;

/// What preferences compare of a source: the workloads of one node normally share it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    network: Network,
    cluster: Str,
    locality: Locality,
    node: Str,
}

impl Place {
    fn of(workload: &Workload) -> Self {
        Self {
            network: workload.network.clone(),
            cluster: workload.cluster_id.clone(),
            locality: workload.locality.clone(),
            node: workload.node.clone(),
        }
    }

    fn is_of(&self, workload: &Workload) -> bool {
        self.node == workload.node
            && self.locality == workload.locality
            && self.cluster == workload.cluster_id
            && self.network == workload.network
    }
}

/// Endpoints of one rank with their running sums of weight.
#[derive(Debug, Default)]
struct Table {
    members: Vec<u32>,
    sums: Vec<u64>,
}

/// What is asked of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Who asks.
    pub(crate) source: &'a Workload,
    /// Port of the service.
    pub(crate) port: u16,
    /// Whether the port may be missing where an endpoint has an application tunnel.
    pub(crate) waypoint: bool,
    /// Endpoints that were tried in vain.
    pub(crate) tried: &'a [Uid],
    /// Uniform over all of `u64`.
    pub(crate) draw: u64,
}

/// The endpoint drawn.
#[derive(Debug)]
pub(crate) struct Picked<'s> {
    pub(crate) workload: &'s Arc<Workload>,
    pub(crate) port: u16,
    /// How many endpoints could have been drawn, those tried included.
    pub(crate) candidates: usize,
}

impl ServiceEntry {
    /// Draws an endpoint that is usable and not tried, of the best rank that has one.
    pub(crate) fn pick(&self, ask: &Ask<'_>) -> Option<Picked<'_>> {
        let key = self.service.key();
        let port = |w: &Workload| target_port(&self.service, &key, w, ask.port, ask.waypoint);
        let cached = (!ask.waypoint).then(|| self.cached(ask)).flatten();
        let built;
        let tables = match cached {
            Some(tables) => tables,
            None => {
                built = self.tables(ask.source, &key, ask.port, ask.waypoint);
                &built
            }
        };
        let index = tables.iter().find_map(|t| t.draw(ask.draw, |i| self.was_tried(i, ask.tried)))?;
        let workload = self.endpoints.get(index)?;
        let candidates = tables.iter().map(|t| t.members.len()).sum();
        Some(Picked { workload, port: port(workload)?, candidates })
    }

    fn was_tried(&self, index: usize, tried: &[Uid]) -> bool {
        self.endpoints.get(index).is_none_or(|w| tried.contains(&w.uid))
    }

    fn cached(&self, ask: &Ask<'_>) -> Option<&[Table]> {
        let (place, ports) = self.picks.0.get_or_init(|| {
            let key = self.service.key();
            let build = |p: u16| (p, self.tables(ask.source, &key, p, false));
            let ports = self.service.ports.iter().map(|p| build(p.service_port)).collect();
            (Place::of(ask.source), ports)
        });
        // A port that the service lacks has no tables, whoever asks.
        if !place.is_of(ask.source) {
            return None;
        }
        Some(ports.get(&ask.port).map_or(&[], |tables| tables))
    }

    /// Endpoints by descending rank.
    fn tables(&self, source: &Workload, key: &ServiceKey, port: u16, waypoint: bool) -> Arc<[Table]> {
        let mut ranks: BTreeMap<usize, Table> = BTreeMap::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let usable = is_usable(&self.service, source, endpoint)
                && target_port(&self.service, key, endpoint, port, waypoint).is_some();
            let Some(rank) = usable.then(|| rank(&self.service, source, endpoint)).flatten() else {
                continue;
            };
            // More than u32 endpoints cannot be held; the last ones would go unused.
            if let Ok(index) = u32::try_from(index) {
                ranks.entry(rank).or_default().push(index, endpoint.capacity);
            }
        }
        let best = match self.service.load_balancing.mode {
            LoadBalancingMode::Any | LoadBalancingMode::Strict | LoadBalancingMode::Passthrough => 1,
            LoadBalancingMode::Failover => usize::MAX,
        };
        ranks.into_values().rev().filter(|t| t.total() > 0).take(best).collect()
    }
}

impl Table {
    fn push(&mut self, index: u32, weight: u32) {
        // An endpoint of weight 0 gets nothing while others have weight.
        if weight > 0 {
            self.sums.push(self.total() + u64::from(weight));
            self.members.push(index);
        }
    }

    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// A member by weight, not counting those left out.
    fn draw(&self, draw: u64, left_out: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.sums.partition_point(|sum| *sum <= scale(draw, self.total()));
        let first = usize::try_from(*self.members.get(at)?).ok()?;
        if !left_out(first) {
            return Some(first);
        }
        self.draw_of_rest(draw, left_out)
    }

    /// As [`Table::draw`], by walking: only a retry comes here.
    fn draw_of_rest(&self, draw: u64, left_out: impl Fn(usize) -> bool) -> Option<usize> {
        let rest: Vec<(usize, u64)> = self
            .members
            .iter()
            .enumerate()
            .filter_map(|(at, member)| {
                let before = at.checked_sub(1).map_or(0, |b| self.sums[b]);
                usize::try_from(*member).ok().map(|index| (index, self.sums[at] - before))
            })
            .filter(|(index, _)| !left_out(*index))
            .collect();
        let mut left = scale(draw, rest.iter().map(|(_, weight)| weight).sum());
        for (index, weight) in rest {
            if left < weight {
                return Some(index);
            }
            left -= weight;
        }
        None
    }
}

/// Maps a draw over all of `u64` to `0..total`, without the bias of a remainder.
pub(crate) fn scale(draw: u64, total: u64) -> u64 {
    let wide = (u128::from(draw) * u128::from(total)) >> 64;
    u64::try_from(wide).expect("less than total, which is a u64")
}

fn is_usable(service: &Service, source: &Workload, endpoint: &Workload) -> bool {
    let admitted = match (service.load_balancing.health, endpoint.health) {
        (HealthPolicy::AllowAll, _) | (HealthPolicy::OnlyHealthy, Health::Healthy) => true,
        (HealthPolicy::OnlyHealthy, Health::Unhealthy) => false,
    };
    let reachable = if endpoint.network == source.network {
        !endpoint.addresses.is_empty() || !endpoint.hostname.is_empty()
    } else {
        endpoint.network_gateway.is_some()
    };
    admitted && reachable
}

/// The port of the application behind a port of a service, at one endpoint.
///
/// The endpoint's own mapping wins over the service's target, which is 0 for a named port.
pub(crate) fn target_port(
    service: &Service,
    key: &ServiceKey,
    endpoint: &Workload,
    port: u16,
    waypoint: bool,
) -> Option<u16> {
    let tunnelled = endpoint.application_tunnel.is_some();
    let defined = service.port(port);
    if defined.is_none() && !(waypoint && tunnelled) {
        return None;
    }
    let own = endpoint.services.get(key).and_then(|ports| ports.iter().find(|p| p.service_port == port));
    own.map(|p| p.target_port)
        .filter(|p| *p != 0)
        .or_else(|| defined.map(|p| p.target_port).filter(|p| *p != 0))
        .or_else(|| (waypoint && tunnelled).then_some(port))
        .or_else(|| endpoint.application_tunnel.and_then(|t| t.port).map(|_| port))
}

/// How well an endpoint suits the preferences; none if it may not be used at all.
fn rank(service: &Service, source: &Workload, endpoint: &Workload) -> Option<usize> {
    let wanted = &service.load_balancing.preference;
    match service.load_balancing.mode {
        LoadBalancingMode::Any => Some(0),
        LoadBalancingMode::Passthrough => None,
        LoadBalancingMode::Strict => {
            wanted.iter().all(|scope| is_same(*scope, source, endpoint)).then_some(0)
        }
        LoadBalancingMode::Failover => Some(failover_rank(wanted, source, endpoint)),
    }
}

fn failover_rank(wanted: &[Scope], source: &Workload, endpoint: &Workload) -> usize {
    let mut rank = 0;
    for (place, scope) in wanted.iter().enumerate() {
        // A network listed first is preferred above all else, but does not end the comparison.
        let leading_network = place == 0 && *scope == Scope::Network;
        if is_same(*scope, source, endpoint) {
            rank += if leading_network { wanted.len() } else { 1 };
        } else if !leading_network {
            break;
        }
    }
    rank
}

fn is_same(scope: Scope, a: &Workload, b: &Workload) -> bool {
    match scope {
        Scope::Region => a.locality.region == b.locality.region,
        Scope::Zone => a.locality.zone == b.locality.zone,
        Scope::Subzone => a.locality.subzone == b.locality.subzone,
        Scope::Node => a.node == b.node,
        Scope::Cluster => a.cluster_id == b.cluster_id,
        Scope::Network => a.network == b.network,
    }
}
