//! Objects of a lab as manifests, and nginx's configuration: what both kinds of benchmark need.

use serde_json::{Value, json};

use crate::contenders::Pod;

/// A namespace, in the mesh or not.
pub(crate) fn namespace(name: &str, enrolled: bool) -> Value {
    let labels = if enrolled { json!({"istio.io/dataplane-mode": "ambient"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A pod with label `app` of its own name.
pub(crate) fn pod(pod: &Pod, containers: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": {"app": pod.name}},
        "spec": {"nodeName": pod.node, "containers": containers},
    })
}

/// A container that listens; `probed` ones are waited for. Probes end with the start, so that none disturbs a run.
pub(crate) fn container(name: &str, command: &[&str], port: u16, probed: bool) -> Value {
    let mut container = json!({"name": name, "command": command, "ports": [{"containerPort": port}]});
    if probed {
        container["startupProbe"] =
            json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30});
    }
    container
}

/// A container of nginx with a /run of its own, so that nothing of nginx stays on the machine.
pub(crate) fn nginx(config: &str, port: u16) -> Value {
    let start = format!("mount -t tmpfs tmpfs /run && exec nginx -p /run -e stderr -c {config}");
    container("http", &["sh", "-c", &start], port, true)
}

/// Configuration of an nginx for much load, with these servers in it.
pub(crate) fn nginx_config(servers: &str) -> String {
    let places = [
        ("client_body_temp_path", "/run/body"),
        ("fastcgi_temp_path", "/run/fastcgi"),
        ("proxy_temp_path", "/run/proxy"),
        ("scgi_temp_path", "/run/scgi"),
        ("uwsgi_temp_path", "/run/uwsgi"),
    ];
    let places: String = places.iter().map(|(key, value)| format!("  {key} {value};\n")).collect();
    // Two workers for two cores of load; each accepts for itself.
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\nworker_rlimit_nofile 16384;\npid /run/nginx.pid;\n\
         error_log stderr crit;\nevents {{ worker_connections 8192; }}\nhttp {{\n{places}  access_log off;\n  \
         sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         open_file_cache max=16;\n  open_file_cache_valid 1h;\n{servers}}}\n"
    )
}
