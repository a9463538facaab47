//! Which pods of the control plane are asked, and where.

use serde_json::Value;

use crate::cmd::nodes::text;

/// The port of the console, where a pod names none.
const PORT: u64 = 15019;
/// Its name.
const PORT_NAME: &str = "https-console";

/// A pod of the control plane that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    /// Its name.
    pub(super) name: String,
    port: u64,
}

impl Replica {
    /// The path under which the API server passes requests on to it.
    pub(super) fn proxied(&self, namespace: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/pods/https:{}:{}/proxy", self.name, self.port)
    }
}

/// The pods that can be asked, by name, and the names of those that should be and cannot. One that ends knows nothing
/// that its proxies will not tell another one.
pub(super) fn chosen(pods: &[Value]) -> (Vec<Replica>, Vec<String>) {
    let (mut ready, mut others) = (Vec::new(), Vec::new());
    for pod in pods.iter().filter(|pod| is_to_serve(pod)) {
        let name = text(&pod["metadata"], "name");
        match is_ready(pod) {
            true => ready.push(Replica { name, port: port(pod) }),
            false => others.push(name),
        }
    }
    ready.sort_by(|one, other| one.name.cmp(&other.name));
    others.sort();
    (ready, others)
}

fn is_to_serve(pod: &Value) -> bool {
    let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    pod["metadata"]["deletionTimestamp"].is_null() && !has_ended
}

/// Whether it has an address, and all its containers are ready.
fn is_ready(pod: &Value) -> bool {
    let containers = pod["status"]["containerStatuses"].as_array().filter(|all| !all.is_empty());
    let is_up = containers.is_some_and(|all| all.iter().all(|one| one["ready"] == true));
    is_up && pod["status"]["podIP"].as_str().is_some_and(|ip| !ip.is_empty())
}

fn port(pod: &Value) -> u64 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let named = ports.find(|port| port["name"] == PORT_NAME);
    named.and_then(|port| port["containerPort"].as_u64()).unwrap_or(PORT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"ports": [{"name": "other", "containerPort": 1}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"ready": ready}]},
        })
    }

    #[test]
    fn pods_that_are_ready_are_asked_and_those_that_should_be_are_told() {
        let mut ending = pod("ending", true);
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut failed = pod("failed", true);
        failed["status"]["phase"] = json!("Failed");
        let mut homeless = pod("homeless", true);
        homeless["status"]["podIP"] = Value::Null;
        let mut empty = pod("empty", true);
        empty["status"]["containerStatuses"] = json!([]);
        let all = [pod("b", true), ending, failed, homeless, pod("starting", false), empty, pod("a", true)];
        let (ready, others) = chosen(&all);
        let names: Vec<&str> = ready.iter().map(|replica| &*replica.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(others, ["empty", "homeless", "starting"]);
    }

    #[test]
    fn the_api_server_is_asked_for_the_port_that_the_pod_names_by_tls() {
        let mut one = pod("istiod-lite-x", true);
        let path = |pod: &Value| chosen(std::slice::from_ref(pod)).0[0].proxied("istio-system");
        let of = |port: u64| format!("/api/v1/namespaces/istio-system/pods/https:istiod-lite-x:{port}/proxy");
        assert_eq!(path(&one), of(15019));
        one["spec"]["containers"][0]["ports"][0] = json!({"name": "https-console", "containerPort": 7071});
        assert_eq!(path(&one), of(7071));
    }
}
