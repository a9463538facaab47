//! What the command line takes and what it refuses.

use std::time::Duration;

use super::Config;

const MINIMAL: [&str; 4] = ["--folder", "/objects", "--token-issuer-key", "/issuer.pem"];

fn read(more: &[&str]) -> Result<Config, String> {
    let args = ["istiod-lite"].into_iter().chain(MINIMAL).chain(more.iter().copied());
    Config::read(args).map(|(config, _)| config).map_err(|e| e.to_string())
}

#[test]
fn defaults_are_those_documented() {
    let config = read(&[]).unwrap();
    assert_eq!(config.certificates.leaf_ttl, Duration::from_secs(86_400));
    assert_eq!(config.surface.listen.port(), 15012);
    assert!(config.callers.bind_token_to_node_address);
    assert_eq!(config.rules().trusted_node_accounts.len(), 1);
    assert_eq!(config.identity().to_string(), "spiffe://cluster.local/ns/istio-system/sa/istiod");
}

#[test]
fn every_setting_can_be_given() {
    let config = read(&[
        "--leaf-ttl=20s",
        "--trust-domain=prod.example",
        "--trusted-node-accounts=a/b,c/d",
        "--bind-token-to-node-address=false",
        "--listen=10.0.0.1:15012",
    ])
    .unwrap();
    assert_eq!(config.rules().leaf_ttl, Duration::from_secs(20));
    assert_eq!(config.rules().trusted_node_accounts.len(), 2);
    assert!(!config.rules().bind_token_to_node_address);
    assert_eq!(config.index().trust_domain.as_str(), "prod.example");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let rows: &[(&[&str], &str)] = &[
        (&["--leaf-ttl=1s"], "must be from 5s to"),
        (&["--leaf-ttl=soon"], "write it like 30s or 24h"),
        (&["--trust-domain=Prod"], "is no trust domain"),
        (&["--trusted-node-accounts=ztunnel"], "NAMESPACE/NAME"),
        (&["--leaf-tll=20s"], "--leaf-ttl"),
        (&["--log-format=xml"], "json"),
        (&["--source=moon"], "kube"),
        (&["--waypoint-requests=100m"], "RESOURCE=QUANTITY"),
    ];
    for (args, want) in rows {
        let error = read(args).unwrap_err();
        assert!(error.contains(want), "{args:?}: {error}");
    }
}

#[test]
fn the_origin_of_every_value_is_shown() {
    let args = ["istiod-lite"].into_iter().chain(MINIMAL).chain(["--leaf-ttl=20s"]);
    let (_, origins) = Config::read(args).unwrap();
    assert!(origins.contains("leaf-ttl = 20s (flag)\n"), "{origins}");
    assert!(origins.lines().all(|line| line.starts_with(|c: char| c.is_ascii_lowercase())), "{origins}");
    assert!(origins.contains("cluster-id = Kubernetes (default)\n"), "{origins}");
}

#[test]
fn each_source_asks_for_what_it_needs() {
    let read = |args: &[&str]| {
        let args = ["istiod-lite"].into_iter().chain(args.iter().copied());
        Config::read(args).map(|(config, _)| config).map_err(|e| e.to_string())
    };
    assert!(read(&[]).unwrap_err().contains("--folder"));
    assert!(read(&["--folder=/objects"]).unwrap_err().contains("--token-issuer-key"));
    let kube = read(&["--source=kube", "--kubeconfig=/kube", "--root-namespace=mesh"]).unwrap();
    assert_eq!((kube.pod_namespace(), kube.waypoints()), ("mesh", None));
    let kube = read(&["--source=kube", "--waypoint-image=w:1", "--pod-namespace=own"]).unwrap();
    let made = kube.waypoints().unwrap();
    assert_eq!(
        (kube.pod_namespace(), &*made.control_plane),
        ("own", "https://istiod.istio-system.svc:15012")
    );
    assert_eq!(made.requests.get("cpu").map(String::as_str), Some("100m"));
}

#[test]
fn a_console_without_a_token_is_for_the_machine_of_a_lab_only() {
    let cluster = ["istiod-lite", "--source=kube", "--console-listen=127.0.0.1:7070"];
    let in_cluster = |more: &[&'static str]| Config::read(cluster.iter().chain(more).copied()).is_ok();
    assert!(read(&["--console-listen=127.0.0.1:7070"]).is_ok());
    assert!(read(&["--console-listen=[::1]:7070"]).is_ok());
    for listen in ["--console-listen=0.0.0.0:7070", "--console-listen=10.0.0.1:7070"] {
        assert!(read(&[listen]).unwrap_err().contains("--console-token-file"), "{listen}");
        assert!(read(&[listen, "--console-token-file=/token"]).is_ok(), "{listen}");
    }
    assert!(!in_cluster(&[]));
    assert!(in_cluster(&["--console-token-file=/token"]));
    assert_eq!(read(&[]).unwrap().console.console_listen, None);
}
