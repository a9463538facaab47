//! Version and settings of this process. Nothing that could be a secret: no token, no header, no metadata.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ambit_net::socket::wildcard;
use ambit_runtime::clock;
use serde_json::{Value, json};

use super::object;
use crate::config::{Config, Workers};

/// `version` and `config` of the dump, made once at start.
pub(in crate::admin) fn about(config: &Config) -> Value {
    json!({"version": version(config), "config": settings(config)})
}

fn version(config: &Config) -> Value {
    let istio = config.environment.metadata.get("ISTIO_META_ISTIO_VERSION").map(String::as_str);
    object(
        [
            ("version", Value::from(env!("CARGO_PKG_VERSION"))),
            ("buildProfile", Value::from(if cfg!(debug_assertions) { "debug" } else { "release" })),
            ("cryptoProvider", Value::from("aws-lc-rs")),
            ("node", Value::from(&*config.node.node_name)),
            ("startedAt", Value::from(humantime::format_rfc3339_millis(clock::wall()).to_string())),
        ],
        [("istioVersion", Value::from(istio.unwrap_or_default()))],
    )
}

/// The settings that Istio's ztunnel has as well, under its names, and `sameNode`.
fn settings(config: &Config) -> Value {
    let listener = |port| wildcard(config.pods.ipv6_enabled, port).to_string();
    let admin = config.admin_port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
    json!({
        "proxy": true,
        "dnsProxy": false,
        "proxyMode": "Shared",
        "localNode": config.node.node_name,
        "network": config.node.network,
        "clusterId": config.cluster_id(),
        "xdsAddress": config.discovery().map(|(target, _)| target.address),
        "caAddress": config.ca().0.address,
        "altXdsHostname": config.control.alt_xds_hostname,
        "altCaHostname": config.control.alt_ca_hostname,
        "xdsOnDemand": config.control.xds_on_demand,
        "secretTtl": duration(config.control.secret_ttl),
        "adminAddr": admin,
        "statsAddr": listener(config.stats_port()),
        "readinessAddr": listener(config.surface.readiness_port),
        "inpodUds": config.pods.inpod_uds.display().to_string(),
        "packetMark": config.pods.packet_mark,
        "requireOriginalSource": config.pods.enable_orig_src,
        "ipv6Enabled": config.pods.ipv6_enabled,
        "windowSize": config.tunnels.stream_window,
        "connectionWindowSize": config.tunnels.connection_window,
        "frameSize": config.tunnels.frame_size,
        "poolMaxStreamsPerConn": config.tunnels.pool_max_streams,
        "poolUnusedReleaseTimeout": duration(config.tunnels.pool_unused_timeout),
        "numWorkerThreads": config.worker_threads(Workers::processors()),
        "selfTerminationDeadline": duration(config.drain.deadline()),
        "sameNode": format!("{:?}", config.pods.same_node).to_lowercase(),
    })
}

fn duration(of: Duration) -> String {
    humantime::format_duration(of).to_string()
}
