//! The large mesh: which pods, services and nodes there are, what their objects say, and whom a change concerns.
//! Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

/// The namespace of the control plane and the proxies.
pub(crate) const SYSTEM: &str = "istio-system";
/// The service account of the proxies.
pub(crate) const PROXY: &str = "ztunnel";
/// The service account of all other pods, one in each namespace.
const ACCOUNT: &str = "app";
/// Services of a namespace.
const SERVICES_OF_NAMESPACE: usize = 100;
/// Services that a proxy on demand asks for.
const ASKED: usize = 10;
/// How far the node of a service's next pod is from that of the one before.
const STRIDE: usize = 37;

/// A pod that backs a service. Its place decides the service and the node; what replaces it takes over the place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    /// How often it was replaced.
    generation: usize,
    /// No two pods ever have the same: it makes the address.
    number: usize,
    ready: bool,
}

/// Where an object is: what a file or a URL is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub kind: &'static str,
    /// None for objects of the whole cluster.
    pub namespace: Option<String>,
    pub name: String,
}

/// The mesh as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    services: usize,
    nodes: usize,
    pods: Vec<Pod>,
    next_number: usize,
}

impl Layout {
    /// With at least one of each, and at least as many pods as services.
    pub(crate) fn new(pods: usize, services: usize, nodes: usize) -> Self {
        let pod = |number| Pod { generation: 0, number, ready: true };
        Self { services, nodes, pods: (0..pods).map(pod).collect(), next_number: pods }
    }

    /// Places of pods.
    pub(crate) fn places(&self) -> usize {
        self.pods.len()
    }

    /// Services.
    pub(crate) fn services(&self) -> usize {
        self.services
    }

    /// Namespaces, the control plane's included.
    pub(crate) fn namespaces(&self) -> Vec<Value> {
        let ours = (0..self.services.div_ceil(SERVICES_OF_NAMESPACE)).map(|number| {
            let labels = json!({"istio.io/dataplane-mode": "ambient"});
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace(number), "labels": labels},
            })
        });
        let system = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}});
        std::iter::once(system).chain(ours).collect()
    }

    /// Service accounts.
    pub(crate) fn accounts(&self) -> Vec<Value> {
        let account = |namespace: &str, name: &str| {
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": namespace},
            })
        };
        let ours =
            (0..self.services.div_ceil(SERVICES_OF_NAMESPACE)).map(|n| account(&namespace(n), ACCOUNT));
        std::iter::once(account(SYSTEM, PROXY)).chain(ours).collect()
    }

    /// Nodes, each with the loopback address from where its proxy calls.
    pub(crate) fn node_objects(&self) -> impl Iterator<Item = Value> {
        (0..self.nodes).map(|number| {
            let name = node(number);
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "uid": node_uid(number)},
                "status": {"addresses": [{"type": "InternalIP", "address": address(number)}]},
            })
        })
    }

    /// Services, with the address that `address` gives the one of a number, if any.
    pub(crate) fn service_objects(
        &self,
        address: impl Fn(usize) -> Option<String>,
    ) -> impl Iterator<Item = Value> {
        (0..self.services).map(move |number| {
            let name = service(number);
            let mut spec = json!({
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            });
            if let Some(address) = address(number) {
                spec["clusterIP"] = json!(address);
            }
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": namespace(number / SERVICES_OF_NAMESPACE)},
                "spec": spec,
            })
        })
    }

    /// The pods of the proxies.
    pub(crate) fn proxy_objects(&self) -> impl Iterator<Item = Value> {
        // Behind every address that a pod in place may ever have.
        (0..self.nodes).map(|number| {
            let [a, b] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
            pod(PodText {
                namespace: SYSTEM,
                name: &proxy(number),
                uid: &proxy_uid(number),
                app: PROXY,
                account: PROXY,
                node: &node(number),
                address: &format!("10.127.{a}.{b}"),
                ready: true,
            })
        })
    }

    /// The pod in a place, whole.
    pub(crate) fn pod_object(&self, place: usize) -> Value {
        let [a, b, c] = address_bytes(self.pods[place].number);
        let name = self.pod_name(place);
        pod(PodText {
            namespace: name.namespace.as_deref().unwrap_or_default(),
            name: &name.name,
            uid: &format!("uid-{}", self.pods[place].number),
            app: &service(self.service_of(place)),
            account: ACCOUNT,
            node: &node(self.node_of(place)),
            address: &format!("10.{a}.{b}.{c}"),
            ready: self.pods[place].ready,
        })
    }

    /// Where the pod in a place is.
    pub(crate) fn pod_name(&self, place: usize) -> Name {
        Name {
            kind: "Pod",
            namespace: Some(namespace(self.service_of(place) / SERVICES_OF_NAMESPACE)),
            name: format!("app-{place:05}-{}", self.pods[place].generation),
        }
    }

    /// The name under which proxies get the pod in a place.
    pub(crate) fn resource(&self, place: usize) -> String {
        let Name { namespace, name, .. } = self.pod_name(place);
        format!("Kubernetes//Pod/{}/{name}", namespace.unwrap_or_default())
    }

    /// The pod in a place becomes ready, or stops to be.
    pub(crate) fn flip(&mut self, place: usize) {
        self.pods[place].ready = !self.pods[place].ready;
    }

    /// Another pod takes the place: with a name, a uid and an address that no pod had before.
    pub(crate) fn replace(&mut self, place: usize) {
        let number = self.next_number;
        self.next_number += 1;
        let generation = self.pods[place].generation + 1;
        self.pods[place] = Pod { generation, number, ready: true };
    }

    /// The services that the proxy of a node asks for on demand, as it names them.
    pub(crate) fn asked_by(&self, node: usize) -> BTreeSet<String> {
        self.services_asked_by(node).map(resource_of_service).collect()
    }

    /// Nodes whose proxies on demand have to learn of a change of the pod in a place: its own, and those that asked for
    /// its service.
    pub(crate) fn concerned(&self, place: usize) -> BTreeSet<usize> {
        let service = self.service_of(place);
        let asked = |node: &usize| self.services_asked_by(*node).any(|asked| asked == service);
        (0..self.nodes).filter(asked).chain([self.node_of(place)]).collect()
    }

    fn services_asked_by(&self, node: usize) -> impl Iterator<Item = usize> {
        let services = self.services;
        (0..ASKED).map(move |n| (node * ASKED + n) % services)
    }

    fn service_of(&self, place: usize) -> usize {
        place % self.services
    }

    /// Pods of one service are on different nodes, and every node has about as many pods.
    fn node_of(&self, place: usize) -> usize {
        (place + place / self.services * STRIDE) % self.nodes
    }
}

struct PodText<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    app: &'a str,
    account: &'a str,
    node: &'a str,
    address: &'a str,
    ready: bool,
}

fn pod(of: PodText<'_>) -> Value {
    let ready = if of.ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": of.namespace, "name": of.name, "uid": of.uid,
            "labels": {"app": of.app, "app.kubernetes.io/version": "1.0.0"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": of.node, "serviceAccountName": of.account,
            // A volume for the token would only be something more for the API server to keep.
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": "registry.example/app:1.0.0",
                "ports": [{"name": "http", "containerPort": 8080}],
            }],
        },
        "status": {
            "phase": "Running", "podIP": of.address, "podIPs": [{"ip": of.address}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
}

/// The number of a pod as the last three bytes of its address, in 10.128.0.0/9.
fn address_bytes(number: usize) -> [u8; 3] {
    let number = u32::try_from(number % (1 << 23)).unwrap_or_default();
    let [_, a, b, c] = (number | 1 << 23).to_be_bytes();
    [a, b, c]
}

fn namespace(number: usize) -> String {
    format!("scale-{number:03}")
}

fn service(number: usize) -> String {
    format!("svc-{number:05}")
}

fn resource_of_service(number: usize) -> String {
    let (namespace, service) = (namespace(number / SERVICES_OF_NAMESPACE), service(number));
    format!("{namespace}/{service}.{namespace}.svc.cluster.local")
}

/// Name of a node.
pub(crate) fn node(number: usize) -> String {
    format!("node-{number:04}")
}

/// Where the proxy of a node calls from: 127.1.0.1 and on.
pub(crate) fn address(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 1).unwrap_or(u16::MAX).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1, high, low))
}

/// Uid of a node where nobody else gives it one.
pub(crate) fn node_uid(number: usize) -> String {
    format!("node-uid-{number}")
}

/// Name of the proxy's pod on a node.
pub(crate) fn proxy(number: usize) -> String {
    format!("{PROXY}-{number:04}")
}

/// Uid of that pod where nobody else gives it one.
pub(crate) fn proxy_uid(number: usize) -> String {
    format!("proxy-uid-{number}")
}
