//! Settings are read as operators expect, and nonsense is named.

use std::time::Duration;

use clap::Parser as _;

use super::Config;
use crate::Limits;
use crate::keys::Settings;
use crate::observe::flows;

/// A waypoint's pod, and more flags.
fn config(args: &[&str]) -> Result<Config, clap::Error> {
    let pod = ["waypoint", "--pod-name", "way-1", "--pod-namespace", "shop", "--service-account", "way"];
    Config::try_parse_from(pod.iter().chain(args))
}

#[test]
fn who_it_is_follows_from_its_pod() {
    let rows: [(&[&str], &str, &str, &str); 4] = [
        (&[], "way", "Kubernetes//Pod/shop/way-1", "spiffe://cluster.local/ns/shop/sa/way"),
        (
            &["--gateway-name", ""],
            "way",
            "Kubernetes//Pod/shop/way-1",
            "spiffe://cluster.local/ns/shop/sa/way",
        ),
        (
            &["--gateway-name", "edge", "--cluster-id", "east"],
            "edge",
            "east//Pod/shop/way-1",
            "spiffe://cluster.local/ns/shop/sa/way",
        ),
        (&["--trust-domain", "a.b"], "way", "Kubernetes//Pod/shop/way-1", "spiffe://a.b/ns/shop/sa/way"),
    ];
    for (args, gateway, uid, identity) in rows {
        let config = config(args).unwrap();
        let found = (config.gateway(), config.uid().to_string(), config.identity().unwrap().to_string());
        assert_eq!(found, (gateway, uid.to_owned(), identity.to_owned()), "row {args:?}");
    }
    assert!(config(&["--trust-domain", "A/B"]).unwrap().identity().is_err());
}

#[test]
fn the_control_plane_is_where_the_settings_say() {
    let rows: [(&[&str], &str, &str); 3] = [
        (
            &["--kubernetes-service-host", "k"],
            "https://istiod.istio-system.svc:15012",
            "./var/run/secrets/istio/root-cert.pem",
        ),
        (
            &["--xds-address", "", "--xds-root-ca", "/r", "--kubernetes-service-host", "k"],
            "https://istiod.istio-system.svc:15012",
            "/r",
        ),
        (&["--xds-address", "10.0.0.1:15012"], "10.0.0.1:15012", "./var/run/secrets/istio/root-cert.pem"),
    ];
    for (args, address, roots) in rows {
        let (target, caller) = config(args).unwrap().discovery();
        assert_eq!((&*target.address, &*target.roots), (address, roots), "row {args:?}");
        assert_eq!(caller.cluster_id, "Kubernetes");
    }
}

#[test]
fn the_drain_deadline_follows_the_grace_period() {
    let rows: [(&[&str], u64); 4] = [
        (&[], 5),
        (&["--grace-period-seconds", "0"], 1),
        (&["--grace-period-seconds", "30"], 25),
        (&["--grace-period-seconds", "30", "--termination-deadline", "7s"], 7),
    ];
    for (args, seconds) in rows {
        assert_eq!(config(args).unwrap().drain.deadline(), Duration::from_secs(seconds), "row {args:?}");
    }
}

#[test]
fn bounds_are_the_documented_ones_unless_they_are_set() {
    let shown = |limits: &Limits| format!("{limits:?}");
    let untouched = config(&[]).unwrap().bounds.limits();
    assert_eq!(shown(&untouched), shown(&Limits::default()));
    assert_eq!(config(&[]).unwrap().surface.flow_records, flows::RECORDS_DEFAULT);
    let set = config(&[
        "--requests-max",
        "7",
        "--detect-wait",
        "200ms",
        "--request-idle-timeout",
        "9",
        "--pool-max-streams",
        "3",
    ]);
    let set = set.unwrap().bounds.limits();
    assert_eq!((set.requests_max, set.detect_wait), (7, Duration::from_millis(200)));
    assert_eq!((set.idle_timeout, set.pool.streams_per_tunnel), (Duration::from_secs(9), 3));
}

#[test]
fn keys_are_fetched_as_the_settings_say() {
    let untouched = config(&[]).unwrap().tokens.settings();
    assert_eq!(format!("{untouched:?}"), format!("{:?}", Settings::default()));
    let set = config(&["--blocked-cidrs-in-jwks-uris", "10.0.0.0/8, fd00::/8", "--jwks-refresh", "0"]);
    let set = set.unwrap().tokens.settings();
    assert_eq!((set.guard.blocked.len(), set.refresh), (2, Duration::from_secs(10)));
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for args in [
        ["--secret-ttl", "soon"],
        ["--worker-threads", "200%"],
        ["--requests-max", "0"],
        ["--requests-max", "99999999999"],
        ["--streams-max", "0"],
        ["--blocked-cidrs-in-jwks-uris", "10.0.0.0/99"],
        ["--stats-port", "x"],
        ["--nope", "1"],
    ] {
        let text = config(&args).unwrap_err().to_string();
        assert!(text.contains(args[0]), "{text}");
    }
    let text = Config::try_parse_from(["waypoint", "--pod-name", ""]).unwrap_err().to_string();
    assert!(text.contains("--pod-name"), "{text}");
}

#[test]
fn a_token_in_the_setting_itself_is_not_printed() {
    let args = [
        "waypoint",
        "--pod-name",
        "w",
        "--pod-namespace",
        "shop",
        "--service-account",
        "way",
        "--auth-token",
        "a.b.c",
    ];
    let (_, text) = Config::read(args.into_iter().map(Into::into)).unwrap();
    assert!(!text.contains("a.b.c") && text.contains("auth-token = (not shown) (flag)"), "{text}");
}
