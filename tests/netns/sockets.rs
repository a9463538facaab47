//! Sockets with borrowed addresses, in a namespace without any program: ports last as far as the kernel allows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::linux::netns::NetNs;
use ambit_net::socket::{Accepts, SocketFactory, SocketOptions};
use ambit_tests::lab;

/// Four ports for outgoing connections.
const RANGE: (u16, u16) = (40_000, 40_003);
const DESTINATIONS: u8 = 8;

#[tokio::test]
async fn borrowed_addresses_take_a_port_for_one_destination_only() {
    let Some(netns) = namespace() else { return };
    let factory = SocketFactory::new(Some(Arc::new(netns)), Arc::new(SocketOptions::default()));
    let any = "[::]:80".parse().expect("an address");
    let listener = factory.listen(any, Accepts::default()).expect("a fresh namespace");
    for ipv6 in [false, true] {
        let source = host(ipv6, 200);
        let mut held = Vec::new();
        for n in 0..3 * DESTINATIONS {
            let to = SocketAddr::new(host(ipv6, n % DESTINATIONS), 80);
            let stream = factory.connect(to, Some(source), Duration::from_secs(2)).await;
            let stream = stream.unwrap_or_else(|e| panic!("connection {n}, to {to}: {e}: {e:?}"));
            let own = stream.local_addr().expect("it is connected");
            assert_eq!(own.ip(), source);
            assert!((RANGE.0..=RANGE.1).contains(&own.port()), "{own}");
            let (there, peer) = listener.accept().await.expect("it connected");
            assert_eq!(SocketAddr::new(peer.ip().to_canonical(), peer.port()), own);
            held.push((stream, there));
        }
    }
}

/// One of the namespace's own addresses: 127.0.1.N or fd00::N.
fn host(ipv6: bool, n: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n) + 1).into()
    } else {
        [127, 0, 1, n].into()
    }
}

/// A namespace with those addresses and few ports; none if this machine cannot make one, which is said.
fn namespace() -> Option<NetNs> {
    let netns = match NetNs::create_anonymous() {
        Ok(netns) => netns,
        Err(error) => {
            lab::not_run(&format!("{error}: {error:?}"));
            return None;
        }
    };
    let (low, high) = RANGE;
    let each = |n: u8| format!("ip -6 addr add {}/128 dev lo nodad", host(true, n));
    let addresses: Vec<String> = (0..DESTINATIONS).chain([200]).map(each).collect();
    let script = format!(
        "ip link set lo up\n{}\necho {low} {high} > /proc/sys/net/ipv4/ip_local_port_range",
        addresses.join("\n")
    );
    let made = netns.run(|| Command::new("sh").args(["-ec", &script]).output());
    let made = made.expect("it can be entered").expect("sh is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(netns)
}
