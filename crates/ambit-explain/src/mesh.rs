//! Names and addresses of a question, found in a snapshot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ambit_state::{ServiceEntry, Snapshot};
use ambit_types::workload::Health;
use ambit_types::{Network, Reason, ServiceKey, Uid, Workload};

use crate::question::{Destination, Source};

/// Who calls, as far as the mesh knows.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The workload; none for who is not of the mesh.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Where from.
    pub(crate) address: IpAddr,
    /// What people call it.
    pub(crate) name: String,
}

impl Caller {
    /// The namespace that names are read in.
    fn namespace(&self) -> &str {
        self.workload.as_ref().map_or("", |workload| &workload.namespace)
    }

    /// The same, calling from the address that it has in the family of `to`.
    pub(crate) fn towards(&self, to: IpAddr) -> Self {
        match &self.workload {
            Some(workload)
                if !workload.addresses.contains(&self.address) || self.address.is_ipv4() != to.is_ipv4() =>
            {
                Self { address: address_towards(workload, to), ..self.clone() }
            }
            Some(_) | None => self.clone(),
        }
    }

    pub(crate) fn network(&self) -> Network {
        self.workload.as_ref().map_or_else(Network::default, |workload| workload.network.clone())
    }
}

/// Finds who calls; none if a name is nobody's.
pub(crate) fn caller(snapshot: &Snapshot, source: &Source) -> Option<Caller> {
    let found = match source {
        Source::Uid(uid) => snapshot.workload(uid).cloned(),
        Source::Named { namespace, name } => named(snapshot, namespace, name),
        Source::Address(ip) => {
            let workload = snapshot.workload_at(&Network::default(), *ip).cloned();
            let name = workload.as_deref().map_or_else(|| ip.to_string(), name_of);
            return Some(Caller { workload, address: *ip, name });
        }
    };
    let workload = found?;
    let address = address_towards(&workload, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(Caller { address, name: name_of(&workload), workload: Some(workload) })
}

/// Where a connection goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dialled {
    /// An address.
    At(SocketAddr),
    /// Wherever the client's nameserver says a name of outside the cluster is.
    ByDns {
        /// The name, in lower case.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Domain of the names of services.
const CLUSTER: &str = "cluster.local";

/// Finds where a connection is dialled.
///
/// # Errors
/// The code and words, if a name is nobody's or has no address.
pub(crate) fn dialled(
    snapshot: &Snapshot,
    caller: &Caller,
    to: &Destination,
    draw: u64,
) -> Result<Dialled, (Reason, String)> {
    let unknown = || (Reason::UnknownDestination, format!("nothing of the mesh is called {to}"));
    match to {
        Destination::Address(address) => Ok(Dialled::At(ambit_types::canonical(*address))),
        Destination::Host { host, port } => {
            let names = as_resolved(host, caller.namespace());
            let found = names.iter().find_map(|name| snapshot.service_by_host(name, caller.namespace()));
            match found {
                Some(entry) if is_of_cluster(&entry.service().hostname) || has_address(entry) => {
                    of_service(entry, caller, *port, draw).map(Dialled::At)
                }
                // A ServiceEntry without addresses: the client has whatever its nameserver says.
                Some(entry) => Ok(Dialled::ByDns { host: entry.service().hostname.to_string(), port: *port }),
                None => outside(host, *port).ok_or_else(unknown),
            }
        }
        Destination::Named { namespace, name, port } => {
            if let Some(entry) = service_named(snapshot, namespace, name) {
                return of_service(entry, caller, *port, draw).map(Dialled::At);
            }
            let workload = named(snapshot, namespace, name).ok_or_else(unknown)?;
            let ip = workload.addresses.first().ok_or_else(|| {
                (Reason::NoHealthyEndpoint, format!("workload {} has no address", name_of(&workload)))
            })?;
            Ok(Dialled::At(SocketAddr::new(*ip, *port)))
        }
    }
}

/// The names that a pod's resolver asks for, in its order: with the search domains that Kubernetes gives, then as it is.
fn as_resolved(host: &str, namespace: &str) -> Vec<String> {
    /// Names with so many dots are asked for as they are, first and only.
    const DOTS: usize = 5;
    let name = host.to_ascii_lowercase();
    match name.strip_suffix('.') {
        Some(whole) => vec![whole.to_owned()],
        None if name.matches('.').count() >= DOTS => vec![name],
        None => {
            let searched =
                [format!("{namespace}.svc.{CLUSTER}"), format!("svc.{CLUSTER}"), CLUSTER.to_owned()];
            let mut names: Vec<String> = searched.iter().map(|domain| format!("{name}.{domain}")).collect();
            names.push(name);
            names
        }
    }
}

/// A name of which the mesh knows nothing, if a nameserver of outside may know it.
fn outside(host: &str, port: u16) -> Option<Dialled> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let may_be = host.contains('.') && !is_of_cluster(host) && !host.ends_with(".svc");
    may_be.then(|| Dialled::ByDns { host: host.to_owned(), port })
}

fn is_of_cluster(host: &str) -> bool {
    host.strip_suffix(CLUSTER).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether clients have an address of the mesh for a service: its own, or that of an endpoint.
fn has_address(entry: &ServiceEntry) -> bool {
    !entry.service().vips.is_empty() || entry.endpoints().iter().any(|one| !one.addresses.is_empty())
}

/// The address that a workload calls from: of the family of `to` if it has one.
pub(crate) fn address_towards(workload: &Workload, to: IpAddr) -> IpAddr {
    let of_family = workload.addresses.iter().find(|ip| ip.is_ipv4() == to.is_ipv4());
    let any = of_family.or_else(|| workload.addresses.first());
    any.copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// `NS/NAME` of a workload.
pub(crate) fn name_of(workload: &Workload) -> String {
    let name = if workload.name.is_empty() { &workload.canonical_name } else { &workload.name };
    match name.is_empty() {
        true => workload.uid.to_string(),
        false => format!("{}/{name}", workload.namespace),
    }
}

/// An endpoint with an address and the port of its application, chosen by the draw; none if none is usable.
pub(crate) fn endpoint<'e>(
    entry: &'e ServiceEntry,
    network: &Network,
    port: u16,
    draw: u64,
) -> Option<(&'e Arc<Workload>, SocketAddr)> {
    use ambit_types::service::HealthPolicy;
    let takes_all = entry.service().load_balancing.health == HealthPolicy::AllowAll;
    let usable = |workload: &Workload| takes_all || workload.health == Health::Healthy;
    let found: Vec<_> = entry
        .endpoints()
        .iter()
        .filter(|workload| usable(workload) && workload.network == *network)
        .filter_map(|workload| {
            let target = entry.target_port(workload, port)?;
            Some((workload, SocketAddr::new(*workload.addresses.first()?, target)))
        })
        .collect();
    let count = u64::try_from(found.len()).ok().filter(|count| *count > 0)?;
    let place = usize::try_from(draw % count).ok()?;
    found.get(place).copied()
}

/// The address at which a service is dialled: its own, or without one that of an endpoint, as DNS says.
fn of_service(
    entry: &Arc<ServiceEntry>,
    caller: &Caller,
    port: u16,
    draw: u64,
) -> Result<SocketAddr, (Reason, String)> {
    let network = caller.network();
    let vips = &entry.service().vips;
    let vip = vips.iter().find(|vip| vip.network == network).or_else(|| vips.first());
    if let Some(vip) = vip {
        return Ok(SocketAddr::new(vip.ip, port));
    }
    let chosen = endpoint(entry, &network, port, draw);
    chosen.map(|(_, at)| SocketAddr::new(at.ip(), port)).ok_or_else(|| {
        let key = entry.service().key();
        (Reason::NoHealthyEndpoint, format!("service {key} has no address and no ready endpoint"))
    })
}

fn service_named<'s>(snapshot: &'s Snapshot, namespace: &str, name: &str) -> Option<&'s Arc<ServiceEntry>> {
    let usual = ServiceKey::new(namespace, format!("{name}.{namespace}.svc.cluster.local"));
    snapshot.service(&usual).or_else(|| {
        let all = snapshot.services();
        all.into_iter().find(|entry| {
            let service = entry.service();
            *service.namespace == *namespace && *service.name == *name
        })
    })
}

/// The workload of a name: a pod, else one of a controller or app of that name, a ready one first.
fn named(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Arc<Workload>> {
    if let Some(pod) = snapshot.workload(&Uid::from(format!("Kubernetes//Pod/{namespace}/{name}"))) {
        return Some(pod.clone());
    }
    let rank = |workload: &Workload| {
        let names = [&workload.name, &workload.workload_name, &workload.canonical_name];
        names.iter().position(|one| ***one == *name)
    };
    let all = snapshot.workloads();
    let own = all.into_iter().filter(|workload| *workload.namespace == *namespace);
    let ranked = own.filter_map(|workload| Some((rank(workload)?, workload)));
    ranked.min_by_key(|(rank, workload)| (*rank, workload.health)).map(|(_, workload)| workload.clone())
}
