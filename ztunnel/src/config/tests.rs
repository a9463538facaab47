//! Settings are read as operators expect, and nonsense is named.

use std::time::Duration;

use clap::Parser as _;

use super::{Config, Environment};

fn config(args: &[&str]) -> Result<Config, clap::Error> {
    Config::try_parse_from(std::iter::once("ztunnel").chain(args.iter().copied()))
}

#[test]
fn the_drain_deadline_follows_the_grace_period() {
    // G20: a grace period of 0 does not underflow.
    let rows = [
        (vec![], 5),
        (vec!["--grace-period-seconds", "0"], 1),
        (vec!["--grace-period-seconds", "1"], 1),
        (vec!["--grace-period-seconds", "10"], 9),
        (vec!["--grace-period-seconds", "30"], 25),
        (vec!["--grace-period-seconds", "30", "--termination-deadline", "7s"], 7),
    ];
    for (args, seconds) in rows {
        assert_eq!(config(&args).unwrap().drain.deadline(), Duration::from_secs(seconds), "row {args:?}");
    }
}

#[test]
fn worker_threads_follow_limits_and_shares() {
    let rows = [
        (vec![], 2, 2),
        (vec![], 64, 16),
        (vec!["--worker-threads", "0"], 8, 8),
        (vec!["--worker-threads", "3"], 8, 3),
        (vec!["--worker-threads", "25%"], 8, 2),
        (vec!["--resource-cpu-limit", "1500m"], 8, 2),
        (vec!["--resource-cpu-request", "6"], 8, 6),
        (vec!["--cpu-limit", "4"], 64, 2),
    ];
    for (args, processors, want) in rows {
        assert_eq!(config(&args).unwrap().workers.count(processors, None), want, "row {args:?}");
    }
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for args in
        [["--secret-ttl", "soon"], ["--worker-threads", "200%"], ["--packet-mark", "x"], ["--nope", "1"]]
    {
        let text = config(&args).unwrap_err().to_string();
        assert!(text.contains(args[0]), "{text}");
    }
}

#[test]
fn state_is_kept_where_the_settings_say() {
    use std::path::Path;

    let rows: [(&[&str], &str, &str); 4] = [
        (&[], "", "state.key"),
        (&["--state-dir", ""], "", "state.key"),
        (&["--state-dir", "/s"], "/s", "/s/state.key"),
        (&["--state-dir", "/s", "--state-key-file", "/k"], "/s", "/k"),
    ];
    for (args, dir, key) in rows {
        let state = config(args).unwrap().state;
        assert_eq!((&*state.dir, &*state.key_file()), (Path::new(dir), Path::new(key)), "row {args:?}");
    }
    let state = config(&[]).unwrap().state;
    assert_eq!((state.keys, state.max_age), (true, Duration::from_secs(86_400)));
}

#[test]
fn launchers_words_are_accepted() {
    assert!(config(&["proxy", "ztunnel"]).is_ok());
}

/// A configuration under some variables, and a mesh file if its text is not empty.
fn under(variables: &[(&str, &str)], mesh: &str) -> Config {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let mesh = Some(mesh).filter(|text| !text.is_empty());
    Config { environment: Environment::from_variables(variables, mesh).unwrap(), ..config(&[]).unwrap() }
}

#[test]
fn metadata_carries_istio_meta_variables() {
    let config = under(
        &[
            ("ISTIO_META_X", "1"),
            ("ISTIO_METAJSON_Y", "{\"a\":2}"),
            ("ISTIO_METAJSON_BAD", "{"),
            ("PATH", "/"),
            ("PROXY_CONFIG", "proxyMetadata: {ISTIO_META_Z: z, PLAIN: p, ISTIO_META_X: '0'}"),
        ],
        "",
    );
    let (metadata, unreadable) = super::node_metadata(&config);
    assert_eq!(metadata["X"], "1", "a variable wins over PROXY_CONFIG");
    assert_eq!(metadata["Y"]["a"], 2);
    assert_eq!((&metadata["Z"], &metadata["PLAIN"]), (&"z".into(), &"p".into()));
    assert_eq!(unreadable, ["ISTIO_METAJSON_BAD"]);
    assert!(!metadata.contains_key("PATH"));
}

/// The chart sets `ISTIO_META_CLUSTER_ID` only; the control plane looks up tokens by the header.
#[test]
fn the_cluster_of_the_metadata_is_the_cluster_of_every_call() {
    let rows = [
        (vec![], "Kubernetes"),
        (vec![("ISTIO_META_CLUSTER_ID", "c2")], "c2"),
        (vec![("ISTIO_META_CLUSTER_ID", "")], "Kubernetes"),
    ];
    for (variables, want) in rows {
        let config = under(&variables, "");
        let (_, discovery) = config.discovery().unwrap();
        assert_eq!((&*discovery.cluster_id, &*config.ca().1.cluster_id), (want, want), "row {variables:?}");
        let (metadata, _) = super::node_metadata(&config);
        assert!(variables.len() == 1 || metadata["CLUSTER_ID"] == want, "row {variables:?}");
    }
}

#[test]
fn the_control_plane_is_found_where_istio_says() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let proxy_config = ("PROXY_CONFIG", "discoveryAddress: istiod-canary.istio-system.svc:15012");
    let mesh = "defaultConfig:\n  discoveryAddress: from-file:15012\ntrustDomain: td\n";
    let rows = [
        (vec![], "", "https://localhost:15012"),
        (vec![kubernetes], "", "https://istiod.istio-system.svc:15012"),
        (vec![kubernetes, proxy_config], "", "istiod-canary.istio-system.svc:15012"),
        (vec![kubernetes], mesh, "from-file:15012"),
        (vec![kubernetes, proxy_config], mesh, "istiod-canary.istio-system.svc:15012"),
    ];
    for (variables, mesh, want) in rows {
        let config = under(&variables, mesh);
        assert_eq!(config.discovery().unwrap().0.address, want, "row {variables:?}");
        assert_eq!(config.ca().0.address, want, "row {variables:?}");
    }
    let none = Config { control: config(&["--xds-address", ""]).unwrap().control, ..under(&[], "") };
    assert!(none.discovery().is_none());
}

#[test]
fn proxy_config_is_weaker_than_our_own_settings() {
    let text =
        ("PROXY_CONFIG", "{statsPort: 15090, concurrency: 3, tracing: {sampling: 1}, holdApplication: true}");
    let mut config = under(&[text], "");
    assert_eq!((config.stats_port(), config.worker_threads(64)), (15090, 3));
    config.surface.stats_port = Some(1);
    config.workers.worker_threads = Some(super::workers::Threads::Number(5));
    assert_eq!((config.stats_port(), config.worker_threads(64)), (1, 5));
    assert_eq!((under(&[], "").stats_port(), under(&[], "").worker_threads(64)), (15020, 16));
    let nonsense = [("PROXY_CONFIG".to_owned(), "- a\n- b".to_owned())];
    let error = Environment::from_variables(nonsense.into_iter(), None).unwrap_err().to_string();
    assert!(error.contains("PROXY_CONFIG"), "{error}");
}

#[test]
fn the_port_for_tools_is_open_where_a_port_forward_reaches_it() {
    let cluster = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let istio = |text| ("PROXY_CONFIG", text);
    type Row<'a> = (&'a [(&'a str, &'a str)], Option<u16>, Option<u16>);
    let rows: [Row<'_>; 7] = [
        (&[], None, None),
        (&[cluster], None, Some(15000)),
        (&[cluster], Some(0), None),
        (&[], Some(16000), Some(16000)),
        (&[cluster, istio("proxyAdminPort: 15099")], None, Some(15099)),
        (&[cluster, istio("proxyAdminPort: 15099")], Some(16000), Some(16000)),
        (&[cluster, istio("proxyAdminPort: 0")], None, None),
    ];
    for (variables, ours, want) in rows {
        let mut config = under(variables, "");
        config.surface.admin_port = ours;
        assert_eq!(config.admin_port(), want, "row {variables:?} {ours:?}");
    }
}

#[test]
fn headers_go_to_the_server_they_are_for() {
    let config = under(&[("XDS_HEADER_x-a", "1"), ("CA_HEADER_x-b", "2"), ("XDS_HEADERS", "3")], "");
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(config.discovery().unwrap().1.headers, pair("x-a", "1"));
    assert_eq!(config.ca().1.headers, pair("x-b", "2"));
}

#[test]
fn settings_that_cannot_be_honoured_are_named_or_refused() {
    let rows = [
        (("CRL_PATH", "/crl.pem"), "refused"),
        (("CRL_PATH", ""), "taken"),
        (("PROXY_MODE", "dedicated"), "refused"),
        (("PROXY_MODE", "shared"), "taken"),
        (("ENABLE_PROXY", "false"), "refused"),
        (("LOCAL_XDS_PATH", "/etc/local.yaml"), "refused"),
        (("FAKE_CA", "true"), "refused"),
        (("FAKE_CA", "FALSE"), "taken"),
        (("TLS12_ENABLED", "true"), "named"),
        (("ISTIO_META_DNS_CAPTURE", "true"), "named"),
        (("COMPLIANCE_POLICY", "fips"), "refused"),
        (("COMPLIANCE_POLICY", "pqc"), "taken"),
        (("COMPLIANCE_POLICY", ""), "taken"),
        (("INPOD_ENABLED", "true"), "taken"),
        (("RUST_BACKTRACE", "1"), "taken"),
    ];
    for (variable, want) in rows {
        let pair = (variable.0.to_owned(), variable.1.to_owned());
        let got = match Environment::from_variables(std::iter::once(pair), None) {
            Ok(environment) if environment.without_effect.is_empty() => "taken",
            Ok(_) => "named",
            Err(error) => {
                assert!(error.to_string().contains(variable.0), "{error}");
                "refused"
            }
        };
        assert_eq!(got, want, "row {variable:?}");
    }
    assert!(under(&[("COMPLIANCE_POLICY", "pqc")], "").environment.post_quantum_only);
    assert!(!under(&[("COMPLIANCE_POLICY", "")], "").environment.post_quantum_only);
}

#[test]
fn durations_are_read_as_istio_writes_them() {
    for (text, seconds) in [("24h", 86_400), ("90", 90), ("1h30m", 5_400), ("24h0m0s", 86_400), (" 5m ", 300)]
    {
        let of = config(&["--secret-ttl", text, "--idle-timeout", text, "--state-max-age", text]).unwrap();
        let read = [of.control.secret_ttl, of.tunnels.idle_timeout, of.state.max_age];
        assert_eq!(read, [Duration::from_secs(seconds); 3], "row {text:?}");
    }
}
