//! The program takes every variable that Istio's chart sets on ztunnel, and a good many that users add to it.

use std::process::Command;

/// What the chart of ztunnel sets, with its own forms of values.
const CHART: &[(&str, &str)] = &[
    ("CA_ADDRESS", "istiod.istio-system.svc:15012"),
    ("XDS_ADDRESS", "istiod.istio-system.svc:15012"),
    ("LOG_FORMAT", "json"),
    ("NETWORK", "network1"),
    ("RUST_LOG", "info,ztunnel::proxy=debug"),
    ("RUST_BACKTRACE", "1"),
    ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
    ("ISTIO_META_DNS_CAPTURE", "true"),
    ("ISTIO_META_ENABLE_HBONE", "true"),
    ("INPOD_ENABLED", "true"),
    ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
    ("POD_NAME", "ztunnel-x7k2p"),
    ("POD_NAMESPACE", "istio-system"),
    ("NODE_NAME", "node-1"),
    ("INSTANCE_IP", "10.244.1.7"),
    ("SERVICE_ACCOUNT", "ztunnel"),
    ("ZTUNNEL_CPU_LIMIT", "2"),
    ("ZTUNNEL_RESOURCE_CPU_LIMIT", "1500m"),
    ("ZTUNNEL_RESOURCE_CPU_REQUEST", "200m"),
];

/// What users set by `env.*` of the chart, or by hand.
const USERS: &[(&str, &str)] = &[
    (
        "PROXY_CONFIG",
        "{discoveryAddress: 'istiod:15012', proxyMetadata: {A: b}, concurrency: 2, tracing: {}}",
    ),
    ("PROXY_MODE", "shared"),
    ("ENABLE_PROXY", "true"),
    ("CLUSTER_ID", "Kubernetes"),
    ("CLUSTER_DOMAIN", "cluster.local"),
    ("TRUST_DOMAIN", "cluster.local"),
    ("XDS_ROOT_CA", "/etc/certs/root-cert.pem"),
    ("CA_ROOT_CA", "SYSTEM"),
    ("ALT_XDS_HOSTNAME", "istiod.example"),
    ("ALT_CA_HOSTNAME", "istiod.example"),
    ("AUTH_TOKEN", "./var/run/secrets/tokens/istio-token"),
    ("XDS_HEADER_x-goog-user-project", "1"),
    ("CA_HEADER_x-goog-user-project", "1"),
    ("XDS_ON_DEMAND", "false"),
    ("FAKE_CA", "false"),
    ("SECRET_TTL", "24h"),
    ("PREFERED_SERVICE_NAMESPACE", "default"),
    ("ZTUNNEL_WORKER_THREADS", "25%"),
    ("POOL_MAX_STREAMS_PER_CONNECTION", "100"),
    ("POOL_UNUSED_RELEASE_TIMEOUT", "5m"),
    ("HTTP2_STREAM_WINDOW_SIZE", "4194304"),
    ("HTTP2_CONNECTION_WINDOW_SIZE", "16777216"),
    ("HTTP2_FRAME_SIZE", "1048576"),
    ("CONNECTION_TERMINATION_DEADLINE", "10s"),
    ("ENABLE_ORIG_SRC", "true"),
    ("PACKET_MARK", "1337"),
    ("KEEPALIVE_ENABLED", "true"),
    ("KEEPALIVE_TIME", "180s"),
    ("KEEPALIVE_INTERVAL", "180s"),
    ("KEEPALIVE_RETRIES", "9"),
    ("USER_TIMEOUT_ENABLED", "false"),
    ("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock"),
    ("INPOD_PORT_REUSE", "true"),
    ("IPV6_ENABLED", "false"),
    ("UNSTABLE_ENABLE_SOCKS5", "false"),
    ("LOCALHOST_APP_TUNNEL", "true"),
    ("ENABLE_RESPONSE_BAGGAGE", "true"),
    ("AUTHZ_POLICY_INFO_LOGGING", "false"),
    ("COMPLIANCE_POLICY", "pqc"),
    ("TLS12_ENABLED", "false"),
    ("ISTIO_META_DNS_PROXY_ADDR", "localhost:15053"),
    ("ISTIO_META_ISTIO_VERSION", "1.30.0"),
    ("ISTIO_METAJSON_LABELS", "{\"app\":\"ztunnel\"}"),
    ("A_NAME_THAT_NOBODY_KNOWS", "whatever"),
];

/// Runs `ztunnel proxy ztunnel --print-config` with nothing but these variables.
#[track_caller]
fn printed(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
    command.args(["proxy", "ztunnel", "--print-config"]).env_clear().envs(variables.iter().copied());
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_the_chart_sets_is_taken() {
    let text = printed(CHART);
    for line in [
        "xds-address = istiod.istio-system.svc:15012 (environment)",
        "ca-address = istiod.istio-system.svc:15012 (environment)",
        "network = network1 (environment)",
        "node-name = node-1 (environment)",
        "instance-ip = 10.244.1.7 (environment)",
        "grace-period-seconds = 30 (environment)",
        "log-format = json (environment)",
        "inpod-uds = /var/run/ztunnel/ztunnel.sock (default)",
        "packet-mark = 1337 (default)",
        "secret-ttl = 24h (default)",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn what_users_add_is_taken() {
    let both: Vec<_> = CHART.iter().chain(USERS).copied().collect();
    let text = printed(&both);
    assert!(text.contains("ipv6-enabled = false (environment)"), "{text}");
}

#[test]
fn a_token_in_the_setting_is_not_printed() {
    let text = printed(&[("AUTH_TOKEN", "aaa.bbb.ccc")]);
    assert!(!text.contains("aaa.bbb"), "{text}");
}

#[test]
fn a_bad_value_of_a_known_name_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
    let output = command.env_clear().env("KEEPALIVE_RETRIES", "many").output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("--keepalive-retries"), "{text}");
}
