//! Who runs against whom, where, in which order, and which way each one's connections take.
//!
//! Values only: nothing is started here.

use std::net::IpAddr;

/// One of those compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// Pods outside the mesh, directly: the ceiling.
    NoMesh,
    /// HAProxy as two plain TCP hops, one in each node's place: two proxies without cryptography and policy.
    Haproxy,
    /// Enrolled pods with default settings: HBONE between nodes, the short cut on one node.
    Ambit,
    /// Enrolled pods of one node that a NetworkPolicy selects: HBONE there too.
    AmbitHbone,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::NoMesh, Self::Haproxy, Self::Ambit, Self::AmbitHbone];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoMesh => "no-mesh",
            Self::Haproxy => "haproxy",
            Self::Ambit => "ambit",
            Self::AmbitHbone => "ambit-hbone",
        }
    }

    /// What heads its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::Haproxy => "HAProxy",
            Self::Ambit => "Ambit",
            Self::AmbitHbone => "Ambit HBONE",
        }
    }

    /// Whether it is one of the controls that Ambit is held against.
    pub(crate) fn is_control(self) -> bool {
        match self {
            Self::NoMesh | Self::Haproxy => true,
            Self::Ambit | Self::AmbitHbone => false,
        }
    }

    /// Whether it differs from another contender at that place.
    pub(crate) fn runs_at(self, place: Place) -> bool {
        match self {
            Self::NoMesh | Self::Haproxy | Self::Ambit => true,
            Self::AmbitHbone => place == Place::SameNode,
        }
    }

    /// The pod that calls, and the pod that serves.
    pub(crate) fn pods(self, place: Place) -> (Pod, Pod) {
        match (self, place) {
            (Self::NoMesh | Self::Haproxy, Place::CrossNode) => (PLAIN_CLIENT, PLAIN_FAR),
            (Self::NoMesh | Self::Haproxy, Place::SameNode) => (PLAIN_CLIENT, PLAIN_NEAR),
            (Self::Ambit | Self::AmbitHbone, Place::CrossNode) => (MESH_CLIENT, MESH_FAR),
            (Self::Ambit, Place::SameNode) => (MESH_CLIENT, MESH_NEAR),
            (Self::AmbitHbone, Place::SameNode) => (MESH_CLIENT, MESH_TUNNELLED),
        }
    }

    /// What Ambit's records must call the path, so that a run measures what it says; none for the controls.
    pub(crate) fn path(self, place: Place) -> Option<&'static str> {
        match (self, place) {
            (Self::NoMesh | Self::Haproxy, _) => None,
            (Self::Ambit, Place::SameNode) => Some("local"),
            (Self::Ambit, Place::CrossNode) | (Self::AmbitHbone, _) => Some("hbone"),
        }
    }
}

/// Where client and server are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On two nodes; traffic crosses the fabric once.
    CrossNode,
    /// On one node.
    SameNode,
}

impl Place {
    pub(crate) const ALL: [Self; 2] = [Self::CrossNode, Self::SameNode];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CrossNode => "cross-node",
            Self::SameNode => "same-node",
        }
    }

    /// What heads its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CrossNode => "cross node",
            Self::SameNode => "same node",
        }
    }
}

/// A pod of the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pod {
    pub namespace: &'static str,
    pub name: &'static str,
    pub node: &'static str,
}

const fn pod(namespace: &'static str, name: &'static str, node: &'static str) -> Pod {
    Pod { namespace, name, node }
}

pub(crate) const PLAIN_CLIENT: Pod = pod("plain", "client", "node1");
pub(crate) const PLAIN_FAR: Pod = pod("plain", "far", "node2");
pub(crate) const PLAIN_NEAR: Pod = pod("plain", "near", "node1");
pub(crate) const MESH_CLIENT: Pod = pod("mesh", "client", "node1");
pub(crate) const MESH_FAR: Pod = pod("mesh", "far", "node2");
pub(crate) const MESH_NEAR: Pod = pod("mesh", "near", "node1");
pub(crate) const MESH_TUNNELLED: Pod = pod("mesh", "tunnelled", "node1");

/// The pods that call.
pub(crate) const CLIENTS: [Pod; 2] = [PLAIN_CLIENT, MESH_CLIENT];
/// The pods that serve.
pub(crate) const SERVERS: [Pod; 5] = [PLAIN_FAR, PLAIN_NEAR, MESH_FAR, MESH_NEAR, MESH_TUNNELLED];

/// Ports on which every server pod serves.
pub(crate) const IPERF: u16 = 5201;
pub(crate) const HTTP: u16 = 8080;
pub(crate) const ECHO: u16 = 7000;
pub(crate) const PORTS: [u16; 3] = [IPERF, HTTP, ECHO];

/// One HAProxy in its node's own namespace. It listens on each of [`PORTS`] moved by `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    pub pod: Pod,
    pub listen: u16,
    pub next: Next,
}

/// Where a hop sends what it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// To another hop: its node and how its ports are moved.
    Hop(&'static str, u16),
    /// To the pod that serves.
    Pod(Pod),
}

/// Two hops between nodes, two on one node, all processes of their own.
pub(crate) const HOPS: [Hop; 4] = [
    Hop { pod: pod("plain", "hop-a", "node1"), listen: 0, next: Next::Hop("node2", 0) },
    Hop { pod: pod("plain", "hop-b", "node2"), listen: 0, next: Next::Pod(PLAIN_FAR) },
    Hop { pod: pod("plain", "hop-c", "node1"), listen: 1000, next: Next::Hop("node1", 2000) },
    Hop { pod: pod("plain", "hop-d", "node1"), listen: 2000, next: Next::Pod(PLAIN_NEAR) },
];

/// The two hops that serve a place; the client calls the first.
pub(crate) fn hops(place: Place) -> [Hop; 2] {
    match place {
        Place::CrossNode => [HOPS[0], HOPS[1]],
        Place::SameNode => [HOPS[2], HOPS[3]],
    }
}

/// Connections of a hop at most: what fits the descriptors of an ordinary process, two for each.
const HOP_CONNECTIONS_MAX: usize = 9000;

/// A hop's configuration: HAProxy's defaults but for what a plain TCP hop needs.
pub(crate) fn haproxy_config(hop: &Hop, next: IpAddr) -> String {
    let moved = match hop.next {
        Next::Hop(_, moved) => moved,
        Next::Pod(_) => 0,
    };
    let mut text = format!(
        "global\n  maxconn {HOP_CONNECTIONS_MAX}\ndefaults\n  mode tcp\n  maxconn {HOP_CONNECTIONS_MAX}\n  \
         timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    );
    for port in PORTS {
        let (listen, to) = (port + hop.listen, std::net::SocketAddr::new(next, port + moved));
        text.push_str(&format!("listen p{listen}\n  bind 0.0.0.0:{listen}\n  server next {to}\n"));
    }
    text
}

/// The way of a contender's connections, as far as a load generator and the reading of CPU time need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// Network namespace of the client.
    pub client: String,
    /// Whom the client calls.
    pub host: IpAddr,
    /// How the ports are moved there.
    pub moved: u16,
    /// The proxies' processes, the client's first; none without proxies.
    pub proxies: Vec<u32>,
}

impl Way {
    /// Where the client finds one of [`PORTS`].
    pub(crate) fn port(&self, port: u16) -> u16 {
        port + self.moved
    }
}

/// The order of one round: forward and backward in turn, so that drift weighs on all alike.
pub(crate) fn order(round: usize, contenders: &[Contender]) -> Vec<Contender> {
    let mut order = contenders.to_vec();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_alternate_their_direction() {
        let three = [Contender::NoMesh, Contender::Haproxy, Contender::Ambit];
        let names: Vec<&str> = (0..3).flat_map(|round| order(round, &three)).map(Contender::title).collect();
        let wanted =
            ["no mesh", "HAProxy", "Ambit", "Ambit", "HAProxy", "no mesh", "no mesh", "HAProxy", "Ambit"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn each_hop_is_followed_by_the_next_or_by_the_server() {
        for place in Place::ALL {
            let [first, second] = hops(place);
            assert_eq!(first.next, Next::Hop(second.pod.node, second.listen), "{}", place.name());
            let server = Contender::Haproxy.pods(place).1;
            assert_eq!(second.next, Next::Pod(server), "{}", place.name());
        }
        let text = haproxy_config(&HOPS[2], IpAddr::from([172, 30, 0, 1]));
        assert!(text.contains("bind 0.0.0.0:6201\n  server next 172.30.0.1:7201"), "{text}");
    }
}
