//! Which namespaces and links a lab is made of, and how packets find their way between them.
//!
//! One bridge in the fabric; a node is a namespace with one link to it; a pod is a namespace with one link to
//! its node. Everything is routed: even two pods of one node meet only in their node's routing, where
//! kube-proxy's rules act. Which pods there are is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_net::linux::netns::NetNs;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use xxhash_rust::xxh64::xxh64;

use crate::address::{Families, NodeIndex, bridge, fabric_prefix, host_prefix};
use crate::error::LabError;
use crate::link::{Links, Place};
use crate::name::LabName;

/// The fabric's bridge.
pub const BRIDGE: &str = "br0";
/// A node's link to the fabric, and a pod's link to its node.
pub const UPLINK: &str = "eth0";

/// One node of the lab as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// Its number, from which all its addresses follow.
    pub index: NodeIndex,
}

impl Node {
    /// The fabric's end of the node's link.
    pub fn port(&self) -> String {
        format!("node{}", self.index.number())
    }
}

/// Makes the fabric: namespace, bridge, the control plane's addresses, ways to every node's pods.
///
/// # Errors
/// If a namespace of that name exists or the kernel refuses.
pub fn create_fabric(lab: &LabName, families: Families) -> Result<Place, LabError> {
    let fabric = Place::create(lab.fabric())?;
    fabric.act(async |links| {
        let index = links.bridge(BRIDGE).await?;
        for address in bridge(families) {
            links.address(index, address, fabric_prefix(address)).await?;
        }
        Ok(())
    })?;
    Ok(fabric)
}

/// Makes a node: namespace, link to the fabric, addresses, forwarding.
///
/// # Errors
/// If a namespace of that name exists or the kernel refuses.
pub fn create_node(
    lab: &LabName,
    fabric: &Place,
    node: &Node,
    families: Families,
) -> Result<Place, LabError> {
    let place = Place::create(lab.node(&node.name))?;
    place.set(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.default.forwarding", "1"),
    ])?;
    let port = node.port();
    fabric.act(async |links| {
        links.veth(&port, &place.netns, UPLINK).await?;
        let bridge = links.index(BRIDGE).await?;
        links.join(&port, bridge).await?;
        let (via, index) = (node.index.fabric(families), bridge);
        links.up(&port).await?;
        for (to, gateway) in node.index.pod_cidrs(families).into_iter().zip(via) {
            links.route_via(to, gateway, index).await?;
        }
        Ok(())
    })?;
    place.act(async |links| {
        let index = links.up(UPLINK).await?;
        for address in node.index.fabric(families) {
            links.address(index, address, fabric_prefix(address)).await?;
        }
        // The gateway addresses live on the loopback so that they outlast every pod.
        let lo = links.index("lo").await?;
        for gateway in node.index.gateways(families) {
            links.address(lo, gateway, host_prefix(gateway)).await?;
        }
        Ok(())
    })?;
    Ok(place)
}

/// Gives a node's proxy addresses of its own, as a pod has them, though it runs in the node's namespace: the node calls
/// `to`, which is behind the fabric's bridge, from there.
///
/// # Errors
/// If the kernel refuses, or it was done before.
pub fn address_proxy(place: &Place, node: &Node, to: IpAddr, families: Families) -> Result<(), LabError> {
    let own = node.index.proxy(families);
    let mut ways = bridge(families).into_iter().zip(own.iter().copied());
    let Some((gateway, source)) = ways.find(|(gateway, _)| gateway.is_ipv4() == to.is_ipv4()) else {
        return Err(LabError::Failed(format!("{to} is of no family of the lab")));
    };
    place.act(async |links| {
        let lo = links.index("lo").await?;
        for address in &own {
            links.address(lo, *address, host_prefix(*address)).await?;
        }
        let uplink = links.index(UPLINK).await?;
        links.route_host_via((to, gateway, source), uplink).await
    })
}

/// Teaches a node where the pods of another node are.
///
/// # Errors
/// If the kernel refuses.
pub fn connect_nodes(place: &Place, to: &Node, families: Families) -> Result<(), LabError> {
    place.act(async |links| {
        let index = links.index(UPLINK).await?;
        for (cidr, via) in to.index.pod_cidrs(families).into_iter().zip(to.index.fabric(families)) {
            links.route_via(cidr, via, index).await?;
        }
        Ok(())
    })
}

/// The node's end of a pod's link: fixed by the pod's name, within the kernel's 15 bytes.
pub fn pod_port(namespace: &str, pod: &str) -> String {
    format!("pod{:012x}", xxh64(format!("{namespace}/{pod}").as_bytes(), 0) >> 16)
}

/// Makes a pod's namespace and links it to its node.
///
/// # Errors
/// If a namespace of that name exists or the kernel refuses.
pub fn create_pod(
    lab: &LabName,
    node_place: &Place,
    node: &Node,
    (namespace, pod): (&str, &str),
    addresses: &[IpAddr],
    families: Families,
) -> Result<Place, LabError> {
    let place = Place::create(lab.pod(namespace, pod))?;
    let port = pod_port(namespace, pod);
    let gateways = node.index.gateways(families);
    node_place.act(async |links| {
        links.remove(&port).await?;
        links.veth(&port, &place.netns, UPLINK).await?;
        let index = links.up(&port).await?;
        for gateway in gateways.iter().filter(|g| g.is_ipv6()) {
            // Neighbour discovery answers only for addresses of the very link that asked.
            links.address(index, *gateway, host_prefix(*gateway)).await?;
        }
        for address in addresses {
            let source = gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4()).copied();
            links.route_host(*address, source, index).await?;
        }
        Ok(())
    })?;
    place.act(async |links| pod_side(links, &gateways, addresses).await)?;
    Ok(place)
}

async fn pod_side(links: &Links<'_>, gateways: &[IpAddr], addresses: &[IpAddr]) -> Result<(), LabError> {
    let index = links.up(UPLINK).await?;
    for address in addresses {
        links.address(index, *address, host_prefix(*address)).await?;
    }
    for gateway in gateways {
        links.route_host(*gateway, None, index).await?;
        links.route_via(everything(*gateway), *gateway, index).await?;
    }
    Ok(())
}

/// Unbinds a pod's namespace and removes its link; missing parts are no error.
///
/// # Errors
/// If the system refuses.
pub fn remove_pod(lab: &LabName, node_place: &Place, namespace: &str, pod: &str) -> Result<(), LabError> {
    let port = pod_port(namespace, pod);
    node_place.act(async |links| links.remove(&port).await)?;
    let name = lab.pod(namespace, pod);
    NetNs::remove_named(&name).map_err(LabError::file("unbinding network namespace", name))
}

fn everything(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}
