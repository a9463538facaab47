//! Keys from a service of the mesh: which services a rule may name, and whether their policies let the waypoint in.
//!
//! Whoever may write a rule has the waypoint call with its own identity, which other namespaces let in for the requests
//! that it has judged. So a rule reaches the services of its own namespace and of the root namespace, and these judge
//! the fetch like any request, with the waypoint as its caller. Nobody is asked on its behalf: a policy that asks an
//! external authorizer refuses it.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_policy::http::{self as policy, decide, remote_address};
use ambit_policy::normalize::{Received, normalize};
use ambit_state::ServiceEntry;
use ambit_types::{ServiceKey, Workload};

use super::fetch::FetchError;
use super::guard::{Guard, Url};
use crate::calls::{self, Named};
use crate::state::Applied;
use crate::upstream::Endpoint;
use crate::{State, Waypoint};

/// The service of the mesh that a URL's host means to a namespace, if it has endpoints.
///
/// # Errors
/// [`FetchError::Other`].
pub(super) fn service(
    waypoint: &Waypoint,
    url: &Url,
    namespace: &str,
) -> Result<Option<ServiceKey>, FetchError> {
    let state = waypoint.state();
    for host in url.mesh_hosts(calls::cluster_domain(&state)) {
        match calls::named(&state, &host, namespace) {
            Named::Own(service) => {
                let entry = state.mesh.service(&service);
                if entry.is_some_and(|entry| !entry.endpoints().is_empty()) {
                    return Ok(Some(service));
                }
            }
            Named::Other(service) => {
                return Err(FetchError::Other { service, namespace: namespace.into() });
            }
            Named::Foreign => {}
        }
    }
    Ok(None)
}

/// May keys be fetched from this endpoint of a service?
///
/// # Errors
/// Why not.
pub(super) fn judge(
    state: &State,
    service: &ServiceKey,
    endpoint: &Endpoint,
    url: &Url,
    guard: &Guard,
) -> Result<(), FetchError> {
    let address = endpoint.address.ip();
    if endpoint.expected.is_none() {
        // A ServiceEntry may have any address for an endpoint; without a tunnel nobody proves to be there.
        let of_host = calls::is_of_host(state, address).then_some("an address of a node");
        if let Some(why) = guard.refusal(address).or(of_host) {
            return Err(FetchError::Blocked { address, why });
        }
    }
    let there = state.mesh.workload_at(&endpoint.workload.network, address).unwrap_or(&endpoint.workload);
    if there.namespace != service.namespace {
        return Err(FetchError::Elsewhere { address, service: service.clone() });
    }
    for (applied, at) in governing(state, service, there, endpoint.address, url.port)? {
        if !is_let_in(state, applied, at, url) {
            return Err(FetchError::Denied(service.clone()));
        }
    }
    Ok(())
}

/// Everything that applies to a call: of the service, of every other service of the workload that answers, and of the
/// workload itself; each with the address that it compares.
fn governing<'s>(
    state: &'s State,
    service: &ServiceKey,
    workload: &Workload,
    endpoint: SocketAddr,
    port: u16,
) -> Result<Vec<(&'s Arc<Applied>, SocketAddr)>, FetchError> {
    let mut all = Vec::new();
    let others = workload.services.keys().filter(|key| *key != service);
    for key in std::iter::once(service).chain(others) {
        let Some(entry) = state.mesh.service(key).filter(|entry| is_bound(entry)) else { continue };
        if !state.own.serves(entry) {
            return Err(FetchError::OtherWaypoint(key.clone()));
        }
        let vips = &entry.service().vips;
        let own = vips.iter().find(|vip| key == service && vip.network == state.own.workload.network);
        all.push((state.policies.of(Some(key)), own.map_or(endpoint, |vip| SocketAddr::new(vip.ip, port))));
    }
    if workload.waypoint.is_some() {
        if !state.own.serves_workload(workload) {
            return Err(FetchError::OtherWaypoint(service.clone()));
        }
        all.push((&state.policies.all, endpoint));
    }
    Ok(all)
}

fn is_bound(entry: &ServiceEntry) -> bool {
    entry.service().waypoint.is_some() || !entry.service().weighted_waypoints.is_empty()
}

/// Asks policies about the request that a fetch is. A target with more than one reading is none that can be judged.
fn is_let_in(state: &State, applied: &Applied, at: SocketAddr, url: &Url) -> bool {
    let received = Received {
        method: b"GET",
        scheme: Some(if url.is_https { b"https" } else { b"http" }),
        authority: Some(url.authority.as_bytes()),
        path: Some(url.target.as_bytes()),
        ..Received::default()
    };
    let Ok(target) = normalize(&received, &applied.normalize) else { return false };
    if target.path_and_query() != url.target.as_bytes() {
        return false;
    }
    let (identity, source) = (state.own.identity(), calls::address(state).ip());
    let connection = ambit_policy::Facts::new(Some(&identity), source, at.ip(), at.port());
    let headers = vec![("accept", "application/json"), ("user-agent", "ambit")];
    let remote = remote_address(source, &headers, applied.trusted_hops).ok();
    let request = policy::Request { target: &target, headers: &headers, remote, token: None };
    decide(&applied.policies, &policy::Facts::of_request(connection, request), &[]).is_allow()
}
