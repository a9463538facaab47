//! The datapath in real namespaces: what is redirected and what is not, and that nothing open is disturbed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test program: what fails is to be loud")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ambit_cni::datapath::routing::Netlink;
use ambit_cni::datapath::{Datapath, Found, sockets};
use ambit_cni::rules::{self, Facts, Stage};
use rig::{Named, Opening, Pair, Rig, accept, assert_nobody, connect, listen, original_dst};

#[allow(dead_code, reason = "each test program uses its part of the rig")]
mod rig;

const APP: u16 = 8080;

/// Runs one test on a small runtime, or says why it cannot.
macro_rules! in_namespaces {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            if rig::possible(stringify!($name)) {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scene::$name());
            }
        }
    )*};
}

in_namespaces! {
    outbound_and_inbound_reach_the_proxy_with_their_original_destination
    a_port_that_nothing_listens_on_refuses
    a_kernel_that_matches_no_sockets_captures_all_the_same
    loopback_own_addresses_hbone_and_the_proxy_itself_are_left_alone
    replies_to_a_borrowed_address_come_back_to_the_proxy
    ingress_mode_and_virtual_interfaces
    open_connections_survive_enrolment
    open_connections_survive_unenrolment
    carried_connections_survive_a_reinstall
    every_change_of_rules_or_routes_is_seen_and_repaired
    a_namespace_without_ipv6_is_captured_in_ipv4
}

mod scene {
    use super::*;

    pub(super) async fn outbound_and_inbound_reach_the_proxy_with_their_original_destination() {
        let rig = Rig::new();
        enrol(&rig.pod, &Facts::default()).await;
        let (outbound, inbound) = (listen(&rig.pod, 15001), listen(&rig.pod, 15006));
        let open = [80, APP].map(|port| listen(&rig.pod, port));
        for (pod, peer) in Rig::families() {
            let to = SocketAddr::new(peer, 80);
            let client = connect(&rig.pod, to, Opening::default()).unwrap();
            let (server, from) = accept(&outbound);
            assert_eq!(original_dst(&server), to);
            assert_eq!(from.ip(), pod);
            Pair(client, server).exchange("outbound");
            // Proxy ports of the pod are redirected like any other: the proxy decides about them (row 15).
            for port in [80, APP, 15001, 15006] {
                let to = SocketAddr::new(pod, port);
                let client = connect(&rig.peer, to, Opening::default()).unwrap();
                let (server, from) = accept(&inbound);
                assert_eq!((original_dst(&server), from.ip()), (to, peer));
                Pair(client, server).exchange("inbound");
            }
        }
        open.iter().for_each(assert_nobody);
    }

    pub(super) async fn a_kernel_that_matches_no_sockets_captures_all_the_same() {
        let rig = Rig::new();
        let mut wanted = rules::capture(&Facts::default());
        wanted.text = wanted.text.replace("socket transparent", "socket unheard-of");
        let datapath = Datapath::default();
        let generation = datapath.install(&rig.pod.netns, &wanted).await.unwrap();
        let again = Datapath::default().inspect(&rig.pod.netns, &wanted, None).await.unwrap();
        assert_eq!(again, Found::Intact(generation), "an agent that starts anew finds its own rules");
        let inbound = listen(&rig.pod, 15006);
        for (pod, peer) in Rig::families() {
            let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
            let (server, from) = accept(&inbound);
            assert_eq!(from.ip(), peer);
            Pair(client, server).exchange("inbound");
        }
    }

    /// What a `tcpSocket` probe relies on; also while the port opens and closes.
    pub(super) async fn a_port_that_nothing_listens_on_refuses() {
        let rig = Rig::new();
        let refused = |pod| {
            let to = SocketAddr::new(pod, APP);
            let error = connect(&rig.peer, to, Opening::default()).expect_err("nothing listens");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        };
        enrol(&rig.pod, &Facts::default()).await;
        let inbound = listen(&rig.pod, 15006);
        for (pod, peer) in Rig::families() {
            refused(pod);
            let app = listen(&rig.pod, APP);
            let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
            let (server, from) = accept(&inbound);
            assert_eq!(from.ip(), peer);
            Pair(client, server).exchange("open");
            assert_nobody(&app);
            drop(app);
            refused(pod);
            assert_nobody(&inbound);
        }
    }

    pub(super) async fn loopback_own_addresses_hbone_and_the_proxy_itself_are_left_alone() {
        let rig = Rig::new();
        enrol(&rig.pod, &Facts::default()).await;
        let proxies = [listen(&rig.pod, 15001), listen(&rig.pod, 15006)];
        let (app, hbone) = (listen(&rig.pod, APP), listen(&rig.pod, 15008));
        let remote = listen(&rig.peer, APP);
        for local in ["127.0.0.1", "127.1.2.3", "::1", rig::POD[0], rig::POD[1]] {
            let client = connect(&rig.pod, address(local, APP), Opening::default()).unwrap();
            let (server, _) = accept(&app);
            Pair(client, server).exchange(local);
        }
        for (pod, peer) in Rig::families() {
            let client = connect(&rig.peer, SocketAddr::new(pod, 15008), Opening::default()).unwrap();
            Pair(client, accept(&hbone).0).exchange("hbone");
            let marked = Opening { mark: Some(rig::PROXY_MARK), from: None };
            let client = connect(&rig.pod, SocketAddr::new(peer, APP), marked).unwrap();
            Pair(client, accept(&remote).0).exchange("marked");
        }
        proxies.iter().for_each(assert_nobody);
    }

    pub(super) async fn replies_to_a_borrowed_address_come_back_to_the_proxy() {
        let rig = Rig::new();
        enrol(&rig.pod, &Facts::default()).await;
        let (inbound, app) = (listen(&rig.pod, 15006), listen(&rig.pod, APP));
        for (pod, peer) in Rig::families() {
            let borrowed = Opening { mark: Some(rig::PROXY_MARK), from: Some(SocketAddr::new(peer, 0)) };
            let client = connect(&rig.pod, SocketAddr::new(pod, APP), borrowed).unwrap();
            let (server, from) = accept(&app);
            assert_eq!(from.ip(), peer, "the application sees the client");
            Pair(client, server).exchange("borrowed");
            assert_nobody(&inbound);
        }
    }

    pub(super) async fn ingress_mode_and_virtual_interfaces() {
        let rig = Rig::new();
        let interface = rules::InterfaceName::parse("eth0").unwrap();
        enrol(&rig.pod, &Facts { inbound: false, virtual_interfaces: Vec::new() }).await;
        let (outbound, inbound, app) =
            (listen(&rig.pod, 15001), listen(&rig.pod, 15006), listen(&rig.pod, APP));
        for (pod, _) in Rig::families() {
            let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
            Pair(client, accept(&app).0).exchange("ingress");
        }
        enrol(&rig.pod, &Facts { inbound: true, virtual_interfaces: vec![interface] }).await;
        for (pod, _) in Rig::families() {
            let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
            Pair(client, accept(&outbound).0).exchange("virtual machine");
        }
        assert_nobody(&inbound);
    }

    pub(super) async fn open_connections_survive_enrolment() {
        // With and without conntrack before: what it has not seen it picks up midway as if it were new.
        for foreign in [false, true] {
            let rig = Rig::new();
            if foreign {
                rig.pod.sh("nft 'table inet other { chain in { type filter hook input priority 0; ct state established accept; }; }'");
            }
            let mut open = direct_connections(&rig);
            enrol(&rig.pod, &Facts::default()).await;
            let (outbound, inbound) = (listen(&rig.pod, 15001), listen(&rig.pod, 15006));
            let app = listen(&rig.pod, APP);
            open = exchange_both_ways(open, "enrolled");
            assert_nobody(&outbound);
            assert_nobody(&inbound);
            for (pod, peer) in Rig::families() {
                let client = connect(&rig.pod, SocketAddr::new(peer, APP), Opening::default()).unwrap();
                Pair(client, accept(&outbound).0).exchange("new");
                let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
                Pair(client, accept(&inbound).0).exchange("new");
            }
            assert_nobody(&app);
            // Leaving and coming back does not disturb them either.
            let datapath = Datapath::default();
            datapath.install(&rig.pod.netns, &rules::residue()).await.unwrap();
            open = exchange_both_ways(open, "residue");
            datapath.remove(&rig.pod.netns).await.unwrap();
            open = exchange_both_ways(open, "removed");
            enrol(&rig.pod, &Facts::default()).await;
            for pair in exchange_both_ways(open, "again") {
                assert_clean_end(pair);
            }
        }
    }

    pub(super) async fn open_connections_survive_unenrolment() {
        let rig = Rig::new();
        let datapath = Datapath::default();
        enrol(&rig.pod, &Facts::default()).await;
        let own = addresses(&rig.pod).await;
        assert_eq!(sockets::carried(&rig.pod.netns, &own).unwrap(), 0);
        let mut open = carried_connections(&rig);
        let carried = sockets::carried(&rig.pod.netns, &own).unwrap();
        assert_eq!(carried, open.len(), "each of them is seen");

        datapath.install(&rig.pod.netns, &rules::residue()).await.unwrap();
        open = exchange_both_ways(open, "residue");
        for pair in direct_connections(&rig) {
            assert_clean_end(pair);
        }
        assert_eq!(sockets::carried(&rig.pod.netns, &own).unwrap(), carried, "direct ones are not counted");

        open.into_iter().for_each(assert_clean_end);
        assert_eq!(sockets::carried(&rig.pod.netns, &own).unwrap(), 0);
        datapath.remove(&rig.pod.netns).await.unwrap();
        assert_eq!(datapath.stage(&rig.pod.netns).await.unwrap(), None);
        assert_eq!(rig.pod.sh("nft list ruleset; ip rule show pref 32764; ip -6 rule show pref 32764"), "");
        assert_eq!(rig.pod.sh("ip route show table 100; ip -6 route show table 100").trim(), "");
        datapath.remove(&rig.pod.netns).await.unwrap();
        for pair in direct_connections(&rig) {
            assert_clean_end(pair);
        }
    }

    pub(super) async fn carried_connections_survive_a_reinstall() {
        let rig = Rig::new();
        enrol(&rig.pod, &Facts::default()).await;
        let mut open = carried_connections(&rig);
        for round in 0..5 {
            enrol(&rig.pod, &Facts::default()).await;
            open = exchange_both_ways(open, &format!("round {round}"));
        }
        open.into_iter().for_each(assert_clean_end);
    }

    pub(super) async fn every_change_of_rules_or_routes_is_seen_and_repaired() {
        let rig = Rig::new();
        let (netns, datapath) = (&rig.pod.netns, Datapath::default());
        let wanted = rules::capture(&Facts::default());
        assert_eq!(datapath.stage(netns).await.unwrap(), None);
        let mut known = datapath.install(netns, &wanted).await.unwrap();
        assert_eq!(datapath.stage(netns).await.unwrap(), Some((Stage::Capture, wanted.stamp.clone())));
        for harm in [
            "nft flush ruleset",
            "nft flush table inet ambit",
            "nft delete table inet ambit",
            "nft flush chain inet ambit nat-output",
            "nft insert rule inet ambit nat-output accept",
            "nft add rule inet ambit nat-prerouting accept",
            "nft add chain inet ambit mine",
            "nft 'chain inet ambit nat-output { policy drop; }'",
            "ip rule del pref 32764",
            "ip -6 rule del pref 32764",
            "ip route flush table 100",
            "ip -6 route flush table 100",
        ] {
            assert_eq!(datapath.inspect(netns, &wanted, Some(known)).await.unwrap(), Found::Intact(known));
            rig.pod.sh(harm);
            let found = datapath.inspect(netns, &wanted, Some(known)).await.unwrap();
            assert!(matches!(found, Found::Altered(_)), "{harm}: {found:?}");
            known = datapath.install(netns, &wanted).await.unwrap();
        }
        // Somebody else's table is none of our business, and a second agent finds ours intact.
        rig.pod.sh("nft add table inet other");
        let fresh = Datapath::default();
        assert!(
            matches!(fresh.inspect(netns, &wanted, Some(known)).await.unwrap(), Found::Intact(g) if g != known)
        );
        // Another pod's rules are not these.
        let ingress = rules::capture(&Facts { inbound: false, ..Facts::default() });
        assert!(matches!(fresh.inspect(netns, &ingress, None).await.unwrap(), Found::Altered(_)));
    }

    pub(super) async fn a_namespace_without_ipv6_is_captured_in_ipv4() {
        let rig = Rig::new();
        rig.pod.sh("for d in all default lo eth0; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done");
        enrol(&rig.pod, &Facts::default()).await;
        assert_eq!(rig.pod.sh("ip -6 rule show pref 32764"), "");
        let outbound = rig.pod.netns.run(|| std::net::TcpListener::bind("0.0.0.0:15001")).unwrap().unwrap();
        let client = connect(&rig.pod, address(rig::PEER[0], 80), Opening::default()).unwrap();
        Pair(client, accept(&outbound).0).exchange("IPv4 only");
        // IPv4 gone and IPv6 there: the reverse.
        let rig = Rig::new();
        rig.pod.sh(&format!("ip addr del {}/24 dev eth0; ip addr flush dev lo scope host; ip -6 addr add ::1/128 dev lo || true", rig::POD[0]));
        enrol(&rig.pod, &Facts::default()).await;
        assert_eq!(rig.pod.sh("ip rule show pref 32764"), "");
        let outbound = listen(&rig.pod, 15001);
        let client = connect(&rig.pod, address(rig::PEER[1], 80), Opening::default()).unwrap();
        Pair(client, accept(&outbound).0).exchange("IPv6 only");
    }
}

async fn enrol(pod: &Named, facts: &Facts) {
    Datapath::default().install(&pod.netns, &rules::capture(facts)).await.unwrap();
}

async fn addresses(pod: &Named) -> BTreeSet<IpAddr> {
    let all = Netlink::open(&pod.netns).unwrap().addresses().await.unwrap();
    all.into_iter().map(|(_, address)| address).collect()
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Connections without any proxy, pod to peer and peer to pod, of both families.
fn direct_connections(rig: &Rig) -> Vec<Pair> {
    let mut open = Vec::new();
    let (pod_app, peer_app) = (listen(&rig.pod, APP), listen(&rig.peer, APP));
    for (pod, peer) in Rig::families() {
        let client = connect(&rig.pod, SocketAddr::new(peer, APP), Opening::default()).unwrap();
        open.push(Pair(client, accept(&peer_app).0));
        let client = connect(&rig.peer, SocketAddr::new(pod, APP), Opening::default()).unwrap();
        open.push(Pair(client, accept(&pod_app).0));
    }
    exchange_both_ways(open, "direct")
}

/// Connections that a proxy carries: redirected out, redirected in, HBONE, and opened with a client's address.
fn carried_connections(rig: &Rig) -> Vec<Pair> {
    let mut open = Vec::new();
    let [outbound, inbound, hbone] = [15001, 15006, 15008].map(|port| listen(&rig.pod, port));
    let app = listen(&rig.pod, APP);
    for (pod, peer) in Rig::families() {
        let client = connect(&rig.pod, SocketAddr::new(peer, APP), Opening::default()).unwrap();
        open.push(Pair(client, accept(&outbound).0));
        for (port, proxy) in [(APP, &inbound), (15008, &hbone)] {
            let client = connect(&rig.peer, SocketAddr::new(pod, port), Opening::default()).unwrap();
            open.push(Pair(client, accept(proxy).0));
        }
        let borrowed = Opening { mark: Some(rig::PROXY_MARK), from: Some(SocketAddr::new(peer, 0)) };
        let client = connect(&rig.pod, SocketAddr::new(pod, APP), borrowed).unwrap();
        open.push(Pair(client, accept(&app).0));
    }
    exchange_both_ways(open, "carried")
}

/// Both ends speak first in turn: the first packet after a change may come from either.
#[track_caller]
fn exchange_both_ways(open: Vec<Pair>, what: &str) -> Vec<Pair> {
    let mut open: Vec<Pair> = open
        .into_iter()
        .map(|mut pair| {
            pair.exchange(what);
            pair.reverse()
        })
        .collect();
    open.iter_mut().for_each(|pair| pair.exchange(what));
    open
}

/// Both ends see an orderly end.
#[track_caller]
fn assert_clean_end(pair: Pair) {
    use std::io::Read as _;
    let Pair(one, mut other) = pair;
    one.shutdown(std::net::Shutdown::Write).unwrap();
    other.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    assert_eq!(other.read(&mut [0; 8]).unwrap(), 0, "an orderly end");
    drop(other);
    one.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    let mut one = one;
    assert_eq!(one.read(&mut [0; 8]).unwrap(), 0, "an orderly end");
}
