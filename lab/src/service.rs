//! Service addresses on a node: the lab's kube-proxy.
//!
//! [`rules`] decides, pure; the functions here carry it out inside one node's namespace. Pods in the mesh do not
//! depend on it: their proxy knows the endpoints itself. Session affinity is not kept.

use std::sync::Arc;

use crate::address::{Families, bridge, dns, host_prefix, service_cidrs};
use crate::error::LabError;
use crate::link::Place;
use crate::tool;
use crate::topology::UPLINK;

pub mod rules;

/// Prepares a node once: cluster DNS gets its addresses there, and the node itself has a way to service addresses.
///
/// Without that route the node's own connections to a service would be refused before any rule saw them.
///
/// # Errors
/// If the kernel refuses, or it was done before.
pub fn prepare(node: &Place, families: Families) -> Result<(), LabError> {
    node.act(async |links| {
        let lo = links.index("lo").await?;
        for address in dns(families) {
            links.address(lo, address, host_prefix(address)).await?;
        }
        let uplink = links.index(UPLINK).await?;
        for (services, via) in service_cidrs(families).into_iter().zip(bridge(families)) {
            links.route_via(services, via, uplink).await?;
        }
        Ok(())
    })
}

/// Puts rules in force on a node, all at once in place of those before.
///
/// Blocking: call it where waiting for a process is allowed.
///
/// # Errors
/// [`LabError::Tool`] with what `nft` said; the rules before stay in force then.
pub fn apply(node: &Place, ruleset: &str) -> Result<(), LabError> {
    tool::run(node, "nft", &["-f", "-"], ruleset).map(|_| ())
}

/// [`apply`] away from the daemon's loop.
///
/// # Errors
/// As [`apply`].
pub async fn apply_aside(node: Arc<Place>, ruleset: String) -> Result<(), LabError> {
    let lost = |e: tokio::task::JoinError| LabError::Tool {
        tool: "nft",
        doing: "writing service rules".to_owned(),
        stderr: e.to_string(),
    };
    tokio::task::spawn_blocking(move || apply(&node, &ruleset)).await.map_err(lost)?
}
