//! Envoy's configuration: a plain HTTP proxy whose route table has the same paths as ours. Pure.
//!
//! One listener for each protocol, in plaintext and with TLS, each to the same server. Everything that is not said
//! here is Envoy's default; there is no access log and no admin interface.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::cast::{H1, H1_TLS, H2, H2_TLS, path};
use super::proxies::{Protocol, Proxy, Routes};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Certificate and key of Envoy and server, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub certificate: String,
    pub key: String,
}

/// The whole of it, for a server.
pub(crate) fn config(server: IpAddr, routes: Routes, files: &Files) -> Value {
    let mut ways = vec![(H1, Protocol::Http1, false), (H2, Protocol::Http2, false)];
    // Only where they are measured: further copies of a large table would count as Envoy's memory.
    if Proxy::EnvoyTls.runs_with(routes) {
        ways.extend([(H1_TLS, Protocol::Http1, true), (H2_TLS, Protocol::Http2, true)]);
    }
    let listeners: Vec<Value> =
        ways.iter().map(|(port, _, tls)| listener(*port, routes, tls.then_some(files))).collect();
    let clusters: Vec<Value> = ways
        .iter()
        .map(|(port, protocol, tls)| cluster(SocketAddr::new(server, *port), *protocol, *tls))
        .collect();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn cluster_name(port: u16) -> String {
    format!("server-{port}")
}

fn listener(port: u16, routes: Routes, tls: Option<&Files>) -> Value {
    let routes: Vec<Value> = (0..routes.count())
        .map(|n| json!({"match": {"path": path(n)}, "route": {"cluster": cluster_name(port)}}))
        .collect();
    let filter = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": format!("p{port}"), "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
            }],
        },
    });
    let mut chain = json!({"filters": [filter]});
    if let Some(files) = tls {
        let certificate = json!({
            "certificate_chain": {"filename": files.certificate}, "private_key": {"filename": files.key},
        });
        chain["transport_socket"] = socket(
            "Downstream",
            json!({"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]}),
        );
    }
    json!({
        "name": format!("p{port}"), "filter_chains": [chain],
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
    })
}

fn cluster(to: SocketAddr, protocol: Protocol, tls: bool) -> Value {
    let endpoint = json!({"address": {"socket_address": {
        "address": to.ip().to_string(), "port_value": to.port(),
    }}});
    let (options, alpn) = match protocol {
        Protocol::Http1 => ("http_protocol_options", "http/1.1"),
        Protocol::Http2 => ("http2_protocol_options", "h2"),
    };
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut cluster = json!({
        "name": cluster_name(to.port()), "type": "STATIC", "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": cluster_name(to.port()),
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": {kind: {
            "@type": format!("type.googleapis.com/{kind}"), "explicit_http_config": {options: {}},
        }},
    });
    if tls {
        cluster["transport_socket"] = socket("Upstream", json!({"alpn_protocols": [alpn]}));
    }
    cluster
}

/// TLS 1.3 and nothing older, as in the mesh.
fn socket(role: &str, mut common: Value) -> Value {
    common["tls_params"] =
        json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"});
    let context = format!("{TYPES}.transport_sockets.tls.v3.{role}TlsContext");
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": context, "common_tls_context": common},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_the_same_routes_as_the_waypoint_and_tls_is_where_it_is_measured() {
        let files = Files { certificate: "/c".to_owned(), key: "/k".to_owned() };
        for (routes, count) in [(Routes::One, 4), (Routes::TenThousand, 2)] {
            let config = config(IpAddr::from([10, 0, 0, 1]), routes, &files);
            let listeners = config["static_resources"]["listeners"].as_array().expect("listeners");
            assert_eq!(listeners.len(), count, "{}", routes.name());
            for listener in listeners {
                let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
                let table = &manager["route_config"]["virtual_hosts"][0]["routes"];
                assert_eq!(table.as_array().map(Vec::len), Some(routes.count()));
                assert_eq!(table[routes.count() - 1]["match"]["path"], path(routes.count() - 1));
            }
        }
    }
}
