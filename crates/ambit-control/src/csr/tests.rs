//! Every hostile request as a row (security reference, section 5; T-46, T-87, T-88).
#![expect(clippy::type_complexity, reason = "rows of tables")]

use super::*;
use crate::input::{Labels, Name, Phase};

struct Fleet {
    nodes: Vec<Node>,
    pods: Vec<Pod>,
}

impl Cluster for Fleet {
    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| *n.name == *name)
    }

    fn pods_on<'a>(&'a self, node: &'a str) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
        Box::new(self.pods.iter().filter(move |p| *p.node == *node))
    }
}

/// node1: shop/cart lives, shop/done succeeded, shop/broken failed, shop/agent on the host's network.
/// node2: shop/orders lives.
fn fleet() -> Fleet {
    let node = |name: &str, ip: [u8; 4]| Node {
        name: Str::from(name),
        uid: Str::from(format!("{name}-uid")),
        labels: Labels::new(),
        addresses: vec![IpAddr::from(ip)],
    };
    let pod = |account: &str, node: &str, phase: Phase, host_network: bool| Pod {
        name: Name::new("shop", account),
        uid: Str::from("u"),
        labels: Labels::new(),
        annotations: Labels::new(),
        controller: None,
        service_account: Str::from(account),
        node: Str::from(node),
        host_network,
        addresses: Vec::new(),
        phase,
        ready: false,
        deleting: false,
        ports: Vec::new(),
        probe_ports: Vec::new(),
    };
    Fleet {
        nodes: vec![node("node1", [10, 0, 0, 1]), node("node2", [10, 0, 0, 2])],
        pods: vec![
            pod("cart", "node1", Phase::Running, false),
            pod("starting", "node1", Phase::Pending, false),
            pod("done", "node1", Phase::Succeeded, false),
            pod("broken", "node1", Phase::Failed, false),
            pod("agent", "node1", Phase::Running, true),
            pod("orders", "node2", Phase::Running, false),
        ],
    }
}

fn caller() -> Caller {
    Caller {
        namespace: Str::from("istio-system"),
        service_account: Str::from("ztunnel"),
        node: Str::from("node1"),
        node_uid: Str::from("node1-uid"),
        pod: Str::from("ztunnel-a"),
        pod_uid: Str::from("ztunnel-a-uid"),
        source: IpAddr::from([10, 0, 0, 1]),
    }
}

fn facts() -> Facts {
    Facts {
        key: PublicKey::P256,
        fingerprint: [7; 32],
        proven: true,
        uris: vec![Str::from(CART)],
        other_names: Vec::new(),
        authority: false,
    }
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn request() -> Request {
    Request { identity: Some(Str::from(CART)), validity_seconds: 86_400, csr: Csr::Read(facts()) }
}

fn decide(rules: &Rules, caller: &Caller, request: &Request) -> String {
    let outcome =
        authorize(&fleet(), rules, &mut Memory::default(), Duration::from_secs(1000), caller, request);
    match outcome {
        Ok(grant) => format!("{} for {} s", grant.identity, grant.ttl.as_secs()),
        Err(refusal) => refusal.check.as_str().to_owned(),
    }
}

#[test]
fn a_proxy_gets_identities_of_live_pods_of_its_node() {
    let rules = Rules::default();
    assert_eq!(decide(&rules, &caller(), &request()), format!("{CART} for 86400 s"));
    let mapped = Caller { source: "::ffff:10.0.0.1".parse().unwrap(), ..caller() };
    assert_eq!(decide(&rules, &mapped, &request()), format!("{CART} for 86400 s"));
    let anywhere = Rules { bind_token_to_node_address: false, ..Rules::default() };
    let away = Caller { source: IpAddr::from([192, 0, 2, 1]), ..caller() };
    assert_eq!(decide(&anywhere, &away, &request()), format!("{CART} for 86400 s"));
}

#[test]
fn callers_that_are_not_a_proxy_on_its_node_are_refused() {
    let rows: &[(&str, fn(&mut Caller))] = &[
        ("caller-account", |c| c.service_account = Str::from("cart")),
        ("caller-account", |c| c.namespace = Str::from("shop")),
        ("token-node", |c| c.node = Str::from("")),
        ("token-node", |c| c.node_uid = Str::from("")),
        ("node-unknown", |c| c.node = Str::from("node9")),
        ("node-uid", |c| c.node_uid = Str::from("node2-uid")),
        ("source-address", |c| c.source = IpAddr::from([10, 0, 0, 2])),
        ("source-address", |c| c.source = IpAddr::from([127, 0, 0, 1])),
    ];
    for (want, change) in rows {
        let mut caller = caller();
        change(&mut caller);
        assert_eq!(decide(&Rules::default(), &caller, &request()), *want, "{caller:?}");
    }
}

/// node1's proxy is a pod with an address of its own, beside another account's; so is node2's.
fn with_proxies(change: impl Fn(&mut Pod)) -> Fleet {
    let mut fleet = fleet();
    let pod = |(account, name, node): (&str, &str, &str), addresses: &[&str]| Pod {
        name: Name::new("istio-system", name),
        uid: Str::from(format!("{name}-uid")),
        service_account: Str::from(account),
        node: Str::from(node),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..fleet.pods[0].clone()
    };
    let mut own = pod(("ztunnel", "ztunnel-a", "node1"), &["10.244.1.2", "fd00::2"]);
    change(&mut own);
    let others = [
        pod(("ztunnel", "ztunnel-c", "node1"), &["10.244.1.3"]),
        pod(("other", "other-a", "node1"), &["10.244.1.4"]),
        pod(("ztunnel", "ztunnel-b", "node2"), &["10.244.2.2"]),
    ];
    fleet.pods.extend([own].into_iter().chain(others));
    fleet
}

/// `ok`, or the check that failed.
fn from(fleet: &Fleet, source: &str, change: impl Fn(&mut Caller)) -> String {
    let mut caller = Caller { source: source.parse().unwrap(), ..caller() };
    change(&mut caller);
    let outcome = authenticate(fleet, &Rules::default(), &caller);
    outcome.map_or_else(|refusal| refusal.check.as_str().to_owned(), |()| "ok".to_owned())
}

#[test]
fn a_proxy_calls_from_its_own_pod_or_its_node() {
    let fleet = with_proxies(|_| {});
    let rows = [
        ("10.244.1.2", "ok"),
        ("::ffff:10.244.1.2", "ok"),
        ("fd00::2", "ok"),
        // The node's address stands for its pods where the cluster's network translates.
        ("10.0.0.1", "ok"),
        // Another pod of its node, of the same account and of another; and the same account elsewhere.
        ("10.244.1.3", "source-address"),
        ("10.244.1.4", "source-address"),
        ("10.244.2.2", "source-address"),
        ("10.0.0.2", "source-address"),
    ];
    for (source, want) in rows {
        assert_eq!(from(&fleet, source, |_| {}), want, "{source}");
    }
}

#[test]
fn an_address_counts_only_of_the_live_pod_that_the_token_is_bound_to() {
    let own = "10.244.1.2";
    let callers: &[(&str, fn(&mut Caller))] = &[
        ("bound to no pod", |c| (c.pod, c.pod_uid) = (Str::from(""), Str::from(""))),
        ("a pod from before of the same name", |c| c.pod_uid = Str::from("earlier")),
        ("a name without a uid", |c| c.pod_uid = Str::from("")),
    ];
    for (what, change) in callers {
        assert_eq!(from(&with_proxies(|_| {}), own, change), "source-address", "{what}");
    }
    // A token without a uid is of no pod, not of one whose uid is not known.
    let unnamed = with_proxies(|pod| pod.uid = Str::from(""));
    assert_eq!(from(&unnamed, own, |c| c.pod_uid = Str::from("")), "source-address");
    let pods: &[(&str, fn(&mut Pod))] = &[
        ("it succeeded", |p| p.phase = Phase::Succeeded),
        ("it failed", |p| p.phase = Phase::Failed),
        ("it has no address yet", |p| p.addresses.clear()),
        ("it is on another node", |p| p.node = Str::from("node2")),
        ("it has another account", |p| p.service_account = Str::from("other")),
        ("it is in another namespace", |p| p.name.namespace = Str::from("shop")),
    ];
    for (what, change) in pods {
        let fleet = with_proxies(change);
        assert_eq!(from(&fleet, own, |_| {}), "source-address", "{what}");
        assert_eq!(from(&fleet, "10.0.0.1", |_| {}), "ok", "{what}: its node's address needs no pod");
    }
    // One that is being removed still runs, and renews what its pods need.
    assert_eq!(from(&with_proxies(|pod| pod.deleting = true), own, |_| {}), "ok");
}

#[test]
fn a_refusal_says_from_where_and_of_which_pod() {
    let mut caller = Caller { source: IpAddr::from([10, 244, 1, 3]), ..caller() };
    let told = |caller: &Caller| {
        authenticate(&with_proxies(|_| {}), &Rules::default(), caller).unwrap_err().to_string()
    };
    let want = "10.244.1.3 is no address of node node1 and none known of pod istio-system/ztunnel-a there";
    assert!(told(&caller).ends_with(want), "{}", told(&caller));
    caller.pod = Str::from("");
    assert!(told(&caller).contains("bound to none"), "{}", told(&caller));
}

#[test]
fn identities_that_do_not_live_there_are_refused() {
    let rows = [
        ("pod-unknown", "spiffe://cluster.local/ns/shop/sa/orders"),
        ("pod-unknown", "spiffe://cluster.local/ns/other/sa/cart"),
        ("pod-unknown", "spiffe://cluster.local/ns/shop/sa/nobody"),
        ("pod-finished", "spiffe://cluster.local/ns/shop/sa/done"),
        ("pod-finished", "spiffe://cluster.local/ns/shop/sa/broken"),
        ("pod-host-network", "spiffe://cluster.local/ns/shop/sa/agent"),
        ("trust-domain", "spiffe://evil.example/ns/shop/sa/cart"),
        ("identity", "spiffe://CLUSTER.local/ns/shop/sa/cart"),
        ("identity", "spiffe://cluster.local/ns/shop/sa/cart/"),
        ("identity", "spiffe://cluster.local/ns/shop/sa/../sa/cart"),
        ("identity", "https://cluster.local/ns/shop/sa/cart"),
        ("identity", "shop/cart"),
        ("identity", ""),
        ("identity", "*"),
    ];
    for (want, identity) in rows {
        let request = Request { identity: Some(Str::from(identity)), ..request() };
        assert_eq!(decide(&Rules::default(), &caller(), &request), want, "{identity}");
    }
    let own = Request { identity: None, ..request() };
    assert_eq!(decide(&Rules::default(), &caller(), &own), "pod-unknown", "the proxy's own pod is not known");
    let starting = Request {
        identity: Some(Str::from("spiffe://cluster.local/ns/shop/sa/starting")),
        csr: Csr::Read(Facts { uris: Vec::new(), ..facts() }),
        ..request()
    };
    let granted = "spiffe://cluster.local/ns/shop/sa/starting for 86400 s";
    assert_eq!(decide(&Rules::default(), &caller(), &starting), granted);
}

#[test]
fn requests_that_ask_for_more_are_refused() {
    let other = |algorithm: &str| PublicKey::Other { algorithm: Str::from(algorithm) };
    let named = |uris: &[&str]| Facts { uris: uris.iter().map(|u| Str::from(*u)).collect(), ..facts() };
    let rows = [
        ("csr-names", named(&[CART, "spiffe://cluster.local/ns/shop/sa/orders"])),
        ("csr-names", named(&["spiffe://cluster.local/ns/shop/sa/orders"])),
        ("csr-names", named(&[CART, CART])),
        ("csr-names", Facts { other_names: vec![Str::from("dns:istiod.istio-system.svc")], ..facts() }),
        ("csr-authority", Facts { authority: true, ..facts() }),
        ("csr-proof", Facts { proven: false, ..facts() }),
        ("csr-key", Facts { key: PublicKey::Rsa { bits: 512 }, ..facts() }),
        ("csr-key", Facts { key: PublicKey::Rsa { bits: 1024 }, ..facts() }),
        ("csr-key", Facts { key: PublicKey::Rsa { bits: 4096 }, ..facts() }),
        ("csr-key", Facts { key: other("P-224"), ..facts() }),
        ("csr-key", Facts { key: other("DSA"), ..facts() }),
    ];
    for (want, facts) in rows {
        let request = Request { csr: Csr::Read(facts), ..request() };
        assert_eq!(decide(&Rules::default(), &caller(), &request), want, "{request:?}");
    }
    let oversized = Request { csr: Csr::Oversized { bytes: 20_000 }, ..request() };
    assert_eq!(decide(&Rules::default(), &caller(), &oversized), "csr-size");
    let unreadable = Request { csr: Csr::Unreadable { why: String::from("no PEM") }, ..request() };
    assert_eq!(decide(&Rules::default(), &caller(), &unreadable), "csr-syntax");
}

#[test]
fn rsa_is_certified_only_where_the_operator_says_so() {
    let rules = Rules { accept_rsa: true, ..Rules::default() };
    let rsa =
        |bits| Request { csr: Csr::Read(Facts { key: PublicKey::Rsa { bits }, ..facts() }), ..request() };
    assert_eq!(decide(&rules, &caller(), &rsa(2048)), format!("{CART} for 86400 s"));
    for weak in [0, 512, 1024, 2047] {
        assert_eq!(decide(&rules, &caller(), &rsa(weak)), "csr-key", "{weak} bits");
    }
}

#[test]
fn life_is_never_longer_than_the_operator_says() {
    let rules = Rules { leaf_ttl: Duration::from_secs(3600), ..Rules::default() };
    let rows = [
        (86_400 * 365, format!("{CART} for 3600 s")),
        (i64::MAX, format!("{CART} for 3600 s")),
        (20, format!("{CART} for 20 s")),
        (0, "validity".to_owned()),
        (-1, "validity".to_owned()),
        (i64::MIN, "validity".to_owned()),
    ];
    for (validity_seconds, want) in rows {
        let request = Request { validity_seconds, ..request() };
        assert_eq!(decide(&rules, &caller(), &request), want, "{validity_seconds}");
    }
}

#[test]
fn a_key_is_certified_once_whoever_asks() {
    let (fleet, rules, mut memory) = (fleet(), Rules::default(), Memory::default());
    let now = Duration::from_secs(1000);
    authorize(&fleet, &rules, &mut memory, now, &caller(), &request()).unwrap();
    let again = authorize(&fleet, &rules, &mut memory, now, &caller(), &request()).unwrap_err();
    assert_eq!(again.check, Check::CsrReplay);
    let elsewhere = Caller {
        node: Str::from("node2"),
        node_uid: Str::from("node2-uid"),
        source: IpAddr::from([10, 0, 0, 2]),
        ..caller()
    };
    let orders = "spiffe://cluster.local/ns/shop/sa/orders";
    let theirs = Request {
        identity: Some(Str::from(orders)),
        csr: Csr::Read(Facts { uris: vec![Str::from(orders)], ..facts() }),
        ..request()
    };
    let refused = authorize(&fleet, &rules, &mut memory, now, &elsewhere, &theirs).unwrap_err();
    assert_eq!(refused.check, Check::CsrReplay);
}

#[test]
fn a_refused_request_does_not_burn_its_key() {
    let (fleet, rules, mut memory) = (fleet(), Rules::default(), Memory::default());
    let now = Duration::from_secs(1000);
    let early = Request { identity: Some(Str::from("spiffe://cluster.local/ns/shop/sa/soon")), ..request() };
    assert!(authorize(&fleet, &rules, &mut memory, now, &caller(), &early).is_err());
    assert!(authorize(&fleet, &rules, &mut memory, now, &caller(), &request()).is_ok());
}

#[test]
fn a_node_that_floods_waits_and_others_do_not() {
    let rules = Rules { burst: 3, per_second: 1, ..Rules::default() };
    let (fleet, mut memory) = (fleet(), Memory::default());
    let mut key = 0u8;
    let mut ask = |memory: &mut Memory, now: u64, caller: &Caller, account: &str| {
        key += 1;
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        let csr = Csr::Read(Facts { fingerprint: [key; 32], uris: Vec::new(), ..facts() });
        let request = Request { identity: Some(Str::from(identity)), csr, ..request() };
        let outcome = authorize(&fleet, &rules, memory, Duration::from_millis(now), caller, &request);
        outcome.map_or_else(|refusal| refusal.check.as_str(), |_| "granted")
    };
    let calm = Caller {
        node: Str::from("node2"),
        node_uid: Str::from("node2-uid"),
        source: IpAddr::from([10, 0, 0, 2]),
        ..caller()
    };
    for _ in 0..3 {
        assert_eq!(ask(&mut memory, 10_000, &caller(), "cart"), "granted");
    }
    assert_eq!(ask(&mut memory, 10_000, &caller(), "cart"), "rate");
    assert_eq!(ask(&mut memory, 10_000, &calm, "orders"), "granted");
    assert_eq!(ask(&mut memory, 10_900, &caller(), "cart"), "rate");
    assert_eq!(ask(&mut memory, 11_100, &caller(), "cart"), "granted");
    assert_eq!(ask(&mut memory, 11_100, &caller(), "cart"), "rate");
    assert_eq!(ask(&mut memory, 5_000, &caller(), "cart"), "rate", "a clock set back gives nothing");
    // Refused requests are counted too, or guessing identities would be free.
    assert_eq!(ask(&mut memory, 12_200, &caller(), "orders"), "pod-unknown");
    assert_eq!(ask(&mut memory, 12_200, &caller(), "cart"), "rate");
}

#[test]
fn a_waypoint_that_floods_uses_up_nothing_of_its_nodes_proxy() {
    let rules = Rules::default();
    let own_rules = rules.for_own_identity("shop", "cart");
    let own = Caller { namespace: Str::from("shop"), service_account: Str::from("cart"), ..caller() };
    let (fleet, mut memory) = (fleet(), Memory::default());
    let mut key = 0u32;
    let mut ask = |memory: &mut Memory, rules: &Rules, now: u64, caller: &Caller| {
        key += 1;
        let mut fingerprint = [0; 32];
        fingerprint[..4].copy_from_slice(&key.to_be_bytes());
        let request = Request { csr: Csr::Read(Facts { fingerprint, ..facts() }), ..request() };
        let outcome = authorize(&fleet, rules, memory, Duration::from_secs(now), caller, &request);
        outcome.map_or_else(|refusal| refusal.check.as_str(), |_| "granted")
    };
    for _ in 0..10 {
        assert_eq!(ask(&mut memory, &own_rules, 100, &own), "granted");
    }
    for _ in 0..1000 {
        assert_eq!(ask(&mut memory, &own_rules, 100, &own), "rate");
    }
    assert_eq!(ask(&mut memory, &own_rules, 101, &own), "granted", "one a second in the long run");
    for _ in 0..rules.burst {
        assert_eq!(ask(&mut memory, &rules, 101, &caller()), "granted");
    }
    assert_eq!(ask(&mut memory, &rules, 101, &caller()), "rate");
}

#[test]
fn memory_is_bounded() {
    let mut memory = Memory::default();
    let (rules, caller) = (Rules::default(), caller());
    let key = |n: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        key
    };
    for n in 0..10_000 {
        assert!(memory.remember(&rules, &caller, key(n)));
    }
    assert!(memory.remember(&rules, &caller, key(0)), "the oldest key is forgotten");
    assert!(!memory.remember(&rules, &caller, key(9_999)));
    // Another account's keys push out none of these.
    let other = Caller { service_account: Str::from("other"), ..caller.clone() };
    for n in 10_000..20_000 {
        assert!(memory.remember(&rules, &other, key(n)));
    }
    assert!(!memory.remember(&rules, &caller, key(9_999)));
}
