//! The form of the dump, held against what `istioctl ztunnel-config` parses: a value of another type there is an error
//! of the whole command.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::ConnId;
use ambit_net::tls::store::Known;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_state::{Admission, Change, Open, PodRef, World};
use ambit_types::service::{IpFamilies, Port};
use ambit_types::workload::{Health, Settings};
use ambit_types::{
    AppProtocol, Destination, GatewayAddress, Identity, NetworkAddress, PolicyKey, Service, ServiceKey,
    TunnelProtocol, Workload,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser as _;
use serde_json::{Value, json};

use super::{about, certificates, config_dump, mesh, pods, policies};
use crate::admin::{budget, newest};
use crate::config::Config;
use crate::flow::{End, Flow, Path, Route};
use crate::proxy::{Pod, Proxy};

/// A certificate of `spiffe://cluster.local/ns/shop/sa/web`.
const PEM: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBwTCCAWagAwIBAgIQHy49TFtqeYgXJjVEU2JxgDAKBggqhkjOPQQDAjAYMRYw\n\
FAYDVQQKDA1jbHVzdGVyLmxvY2FsMB4XDTI2MDEwMTAwMDAwMFoXDTM2MDEwMTAw\n\
MDAwMFowGDEWMBQGA1UECgwNY2x1c3Rlci5sb2NhbDBZMBMGByqGSM49AgEGCCqG\n\
SM49AwEHA0IABK7UTyd7YTe8sdE9uDhY+N2tzc2AnFYt9q49w5mFbtUkWlvNIciz\n\
LYkMXeSq7l3ZiQKPh46wm6PGSLAbBR6sCt2jgZEwgY4wDAYDVR0TAQH/BAIwADAO\n\
BgNVHQ8BAf8EBAMCB4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMDAG\n\
A1UdEQQpMCeGJXNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvc2hvcC9zYS93ZWIw\n\
HQYDVR0OBBYEFP26EsT0w23ADpFxPw6XET1eGLKSMAoGCCqGSM49BAMCA0kAMEYC\n\
IQDgVuDZUOLUAADJMCcG2aFb4Oj4aUjC3gh9CB5XKRdfUAIhAMMHjz9yKni/JM4r\n\
BdR1BDkt5iLqLFrA6omh/btU60yw\n\
-----END CERTIFICATE-----\n\
";

#[test]
fn a_workload_is_told_in_full() {
    let want = json!({
        "uid": "Kubernetes//Pod/shop/web-1",
        "workloadIps": ["10.244.1.9"],
        "waypoint": {"destination": "n1/10.96.0.9", "hboneMtlsPort": 15008},
        "networkGateway": {"destination": "istio-system/east.example", "hboneMtlsPort": 15008},
        "protocol": "HBONE",
        "networkMode": "Standard",
        "name": "web-1",
        "namespace": "shop",
        "trustDomain": "cluster.local",
        "serviceAccount": "web",
        "network": "n1",
        "workloadName": "web",
        "workloadType": "deployment",
        "canonicalName": "web",
        "canonicalRevision": "v1",
        "node": "node1",
        "authorizationPolicies": ["shop/lock"],
        "status": "Healthy",
        "clusterId": "Kubernetes",
        "locality": {"region": "r1"},
        "services": ["shop/web.shop.svc.cluster.local"],
        "capacity": 1,
        "probePorts": [8081],
    });
    assert_eq!(mesh::workload(&web()), want);
}

#[test]
fn what_a_workload_does_not_say_is_left_out() {
    let mut workload = Workload::new("u", "shop", "x");
    workload.health = Health::Unhealthy;
    let want = json!({
        "uid": "u",
        "workloadIps": [],
        "protocol": "TCP",
        "networkMode": "Standard",
        "name": "x",
        "namespace": "shop",
        "trustDomain": "cluster.local",
        "serviceAccount": "default",
        "workloadType": "deployment",
        "status": "Unhealthy",
        "clusterId": "Kubernetes",
        "capacity": 1,
    });
    assert_eq!(mesh::workload(&workload), want);
}

#[test]
fn a_service_is_told_with_its_endpoints() {
    let snapshot = World::new("node1").apply([Change::from(api_1()), Change::from(api())]).snapshot;
    let want = json!({
        "name": "api",
        "namespace": "shop",
        "hostname": "api.shop.svc.cluster.local",
        "vips": ["n1/10.96.0.8"],
        "ports": {"80": 9090},
        "endpoints": {
            "Kubernetes//Pod/shop/api-1": {
                "workloadUid": "Kubernetes//Pod/shop/api-1",
                "port": {"80": 9090},
                "status": "Healthy",
            },
        },
        "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/extra"],
        "loadBalancer": {"mode": "Standard", "routingPreferences": [], "healthPolicy": "OnlyHealthy"},
        "waypoint": {"destination": "n1/10.96.0.9", "hboneMtlsPort": 15008},
        "ipFamilies": "IPv4",
    });
    let entry = snapshot.service(&api().key()).unwrap();
    assert_eq!(mesh::service(entry), want);
}

#[test]
fn each_kind_of_match_has_its_form() {
    let account = |name: &str| ServiceAccount { namespace: "shop".into(), name: name.into() };
    let rows = [
        (
            Match {
                namespaces: values(StringMatch::Exact("shop".into()), StringMatch::Prefix("dev-".into())),
                ..Match::default()
            },
            json!({"namespaces": [{"Exact": "shop"}], "notNamespaces": [{"Prefix": "dev-"}]}),
        ),
        (
            Match {
                principals: values(StringMatch::Suffix("/sa/web".into()), StringMatch::Presence),
                ..Match::default()
            },
            json!({"principals": [{"Suffix": "/sa/web"}], "notPrincipals": [{"Presence": []}]}),
        ),
        (
            Match { service_accounts: values(account("web"), account("batch")), ..Match::default() },
            json!({
                "serviceAccounts": [{"namespace": "shop", "serviceAccount": "web"}],
                "notServiceAccounts": [{"namespace": "shop", "serviceAccount": "batch"}],
            }),
        ),
        (
            Match {
                source_ips: values("10.0.0.0/8".parse().unwrap(), "10.1.0.1/32".parse().unwrap()),
                ..Match::default()
            },
            json!({"sourceIps": ["10.0.0.0/8"], "notSourceIps": ["10.1.0.1/32"]}),
        ),
        (
            Match {
                destination_ips: values("fd00::/8".parse().unwrap(), "fd00::1/128".parse().unwrap()),
                ..Match::default()
            },
            json!({"destinationIps": ["fd00::/8"], "notDestinationIps": ["fd00::1/128"]}),
        ),
        (
            Match { destination_ports: values(80, 8080), ..Match::default() },
            json!({"destinationPorts": [80], "notDestinationPorts": [8080]}),
        ),
        (Match::default(), json!({})),
    ];
    let (matches, forms): (Vec<Match>, Vec<Value>) = rows.into_iter().unzip();
    let policy = Policy {
        key: PolicyKey::new("shop", "lock"),
        scope: Scope::Namespace,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches }], unevaluable: Vec::new() }],
        dry_run: true,
        until: None,
    };
    let want = json!({
        "name": "lock",
        "namespace": "shop",
        "scope": "Namespace",
        "action": "Deny",
        "rules": [[forms]],
        "dryRun": true,
    });
    assert_eq!(policies::policy(&policy), want);
}

#[test]
fn a_certificate_is_told_as_base64_of_its_pem() {
    let body: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let want = json!({
        "pem": STANDARD.encode(PEM),
        "serialNumber": "41446156801443023914307192069107642752",
        "validFrom": "2026-01-01T00:00:00Z",
        "expirationTime": "2036-01-01T00:00:00Z",
    });
    assert_eq!(certificates::whole(&der), want);
    assert_eq!(certificates::brief(&der)["serialNumber"], "1f2e3d4c5b6a79881726354453627180");
}

#[test]
fn serial_numbers_of_any_length_become_decimal() {
    let longest = "ff".repeat(20);
    let rows = [
        ("", "0"),
        ("00", "0"),
        ("0a", "10"),
        ("ff", "255"),
        ("10000000000000000", "18446744073709551616"),
        (longest.as_str(), "1461501637330902918203684832716283019655932542975"),
    ];
    for (hex, want) in rows {
        assert_eq!(certificates::decimal(hex), want, "row {hex}");
    }
}

#[test]
fn an_identity_without_certificate_says_why() {
    let identity = || Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    for (error, want) in [(None, "Initializing"), (Some("no CA".to_owned()), "Unavailable: no CA")] {
        let known = Known { identity: identity(), credential: None, error };
        let told = certificates::list(vec![known], 0, certificates::whole);
        assert_eq!((&told[0]["state"], &told[0]["valid"]), (&json!(want), &json!(false)));
        assert_eq!((&told[0]["certChain"], &told[0]["rootCerts"]), (&json!([]), &json!([])));
    }
}

#[tokio::test]
async fn a_captured_pod_is_told_with_its_connections() {
    let proxy = proxy();
    let pod = Pod::new(PodRef::of(&web()), None, false, Drain::new(), &proxy.settings);
    proxy.pods.insert(Arc::new(pod));
    let (src, web_1) = (end("10.244.2.7:40000", None), |addr| end(addr, Some(web())));
    let service = |key: &ServiceKey, dst, hbone_addr: &str| Route {
        dst,
        service: Some(key.clone()),
        hbone_addr: Some(hbone_addr.into()),
        ..Route::default()
    };
    let by_name = service(&web_key(), web_1("10.244.1.9:15008"), "web.shop.svc.cluster.local:8080");
    let by_address =
        Route { service: None, ..service(&web_key(), web_1("10.244.1.9:15008"), "10.244.1.9:8081") };
    let to_api = service(&api().key(), end("10.244.2.8:15008", Some(api_1())), "10.244.2.8:9090");
    let away = Route { dst: end("192.0.2.1:443", None), ..Route::default() };
    let flow = |direction, path, src, route| {
        Arc::new(Flow::new(ConnId::from_random(1), direction, path, src, route, clock::monotonic()))
    };
    let books = &proxy.connections;
    let _entered = [
        books.enter_inbound(open(1), flow(Direction::Inbound, Path::Hbone, src.clone(), by_name)),
        books.enter_inbound(open(2), flow(Direction::Inbound, Path::Hbone, src, by_address)),
        books.enter_outbound(flow(Direction::Outbound, Path::Hbone, web_1("10.244.1.9:50000"), to_api)),
        books.enter_outbound(flow(Direction::Outbound, Path::Passthrough, web_1("10.244.1.9:50001"), away)),
    ];
    let want = json!({"Kubernetes//Pod/shop/web-1": {
        "state": "Up",
        "info": {"name": "web-1", "namespace": "shop", "serviceAccount": "web"},
        "connections": {
            "inbound": [
                connection("10.244.2.7:40000", Some("web.shop.svc.cluster.local"), "10.244.1.9:8080", "HBONE"),
                connection("10.244.2.7:40000", None, "10.244.1.9:8081", "HBONE"),
            ],
            "outbound": [
                connection("10.244.1.9:50000", Some("10.96.0.8:80"), "10.244.2.8:15008", "HBONE"),
                connection("10.244.1.9:50001", Some("192.0.2.1:443"), "192.0.2.1:443", "TCP"),
            ],
        },
    }});
    assert_eq!(pods::states(&proxy, &proxy.mesh.snapshot()), want);
}

#[tokio::test]
async fn of_live_connections_the_newest_are_told_as_many_as_asked_for() {
    let proxy = proxy();
    let src = end("10.244.1.9:50000", Some(web()));
    let away = Route { dst: end("192.0.2.1:443", None), ..Route::default() };
    let begun = clock::monotonic();
    let _entered: Vec<_> = [(3, 30), (1, 10), (2, 20)]
        .into_iter()
        .map(|(id, seconds)| {
            let started = begun + Duration::from_secs(seconds);
            let id = ConnId::from_random(id);
            let (src, route) = (src.clone(), away.clone());
            let flow = Flow::new(id, Direction::Outbound, Path::Passthrough, src, route, started);
            proxy.connections.enter_outbound(Arc::new(flow))
        })
        .collect();
    let ids = |most: usize| {
        let told = newest(&proxy, most);
        let each = told.as_array().unwrap().iter();
        each.map(|one| one["conn_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = [3, 2, 1].map(|id| ConnId::from_random(id).to_string());
    assert_eq!((ids(2), ids(9)), (all[..2].to_vec(), all.to_vec()));
    let used = budget(&proxy);
    assert_eq!(used["connections_open"], 3);
    assert!(used["resident_bytes"].as_u64() > Some(0) && used["cpu_seconds"].as_f64().is_some(), "{used}");
}

#[tokio::test]
async fn the_whole_has_every_part_and_no_secret() {
    let config =
        Config::try_parse_from(["ztunnel", "--node-name", "node1", "--auth-token", "aaa.bbb.ccc"]).unwrap();
    let told = config_dump(&proxy(), &about(&config), &json!({"source": "discovery"}));
    let keys: BTreeSet<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    let want = [
        "certificates",
        "config",
        "policies",
        "services",
        "stagedServices",
        "state",
        "staticConfig",
        "version",
        "workloadState",
        "workloads",
    ];
    assert_eq!(keys, BTreeSet::from(want));
    assert_eq!((&told["version"]["node"], &told["config"]["localNode"]), (&json!("node1"), &json!("node1")));
    assert!(!told.to_string().contains("aaa.bbb"), "{told}");
    // Its service has not come.
    let endpoint =
        json!({"workloadUid": "Kubernetes//Pod/shop/web-1", "port": {"80": 8080}, "status": "Healthy"});
    let staged = json!({"shop/web.shop.svc.cluster.local": {"Kubernetes//Pod/shop/web-1": endpoint}});
    assert_eq!(told["stagedServices"], staged);
}

fn connection(src: &str, original: Option<&str>, actual: &str, protocol: &str) -> Value {
    json!({"src": src, "originalDst": original, "actualDst": actual, "protocol": protocol})
}

/// A proxy that knows the pods `web-1` and `api-1`, and the service `api`.
fn proxy() -> Proxy {
    let config = Config::try_parse_from(["ztunnel"]).unwrap();
    let proxy = crate::app::proxy(&config, &Arc::default());
    let world = [Change::from(web()), Change::from(api_1()), Change::from(api())];
    proxy.mesh.publish(World::new("node1").apply(world));
    proxy
}

fn web() -> Workload {
    let mut w = pod("web-1", "10.244.1.9");
    w.service_account = "web".into();
    w.workload_name = "web".into();
    w.canonical_name = "web".into();
    w.canonical_revision = "v1".into();
    w.node = "node1".into();
    w.waypoint = Some(waypoint());
    let east = Destination::Hostname(ServiceKey::new("istio-system", "east.example"));
    w.network_gateway = Some(GatewayAddress { destination: east, hbone_mtls_port: 15008 });
    w.policies = vec![PolicyKey::new("shop", "lock")];
    w.services.insert(web_key(), vec![port(80, 8080)]);
    w.locality.region = "r1".into();
    w.settings = Some(Arc::new(Settings { probe_ports: vec![8081], ..Settings::default() }));
    w
}

fn web_key() -> ServiceKey {
    ServiceKey::new("shop", "web.shop.svc.cluster.local")
}

fn api_1() -> Workload {
    let mut w = pod("api-1", "10.244.2.8");
    w.services.insert(api().key(), vec![port(80, 9090)]);
    w
}

fn api() -> Service {
    let mut s = Service::new("shop", "api", "api.shop.svc.cluster.local");
    s.vips = vec![NetworkAddress::new("n1".into(), [10, 96, 0, 8].into())];
    s.ports = vec![port(80, 9090)];
    s.subject_alt_names = vec![Identity::parse("spiffe://cluster.local/ns/shop/sa/extra").unwrap()];
    s.waypoint = Some(waypoint());
    s.ip_families = IpFamilies::Ipv4Only;
    s
}

fn pod(name: &str, ip: &str) -> Workload {
    let mut w = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    w.addresses = vec![ip.parse().unwrap()];
    w.network = "n1".into();
    w.tunnel = TunnelProtocol::Hbone;
    w
}

fn waypoint() -> GatewayAddress {
    let at = NetworkAddress::new("n1".into(), [10, 96, 0, 9].into());
    GatewayAddress { destination: Destination::Address(at), hbone_mtls_port: 15008 }
}

fn port(service_port: u16, target_port: u16) -> Port {
    Port { service_port, target_port, app_protocol: AppProtocol::Unknown }
}

fn end(addr: &str, workload: Option<Workload>) -> End {
    End { addr: Some(addr.parse().unwrap()), workload: workload.map(Arc::new), ..End::default() }
}

/// An inbound connection to `web-1`, as policy is asked about it.
fn open(id: u64) -> Open {
    let (own, destination) = (web(), SocketAddr::from(([10, 244, 1, 9], 8080)));
    Open {
        id,
        workload: own.uid.clone(),
        own: own.identity(),
        peer: None,
        client: None,
        believed: false,
        source: [10, 244, 2, 7].into(),
        destination,
        admission: Admission::Policy,
    }
}

fn values<T>(any: T, none: T) -> Values<T> {
    Values { any: vec![any], none: vec![none] }
}
