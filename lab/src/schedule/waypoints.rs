//! Waypoints: what a Gateway of their class is made of, as Istio's deployment controller makes it.
//!
//! Pure: Gateways in; ServiceAccounts, Services and Deployments out. Which pods follow from those, and which
//! addresses, is the scheduler's affair as for any other. Differs from Istio: a waypoint has the Gateway's name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{ObjectName, Problem};
use crate::store::{Kind, ObjectKey, Snapshot};

/// The class of Gateways that are waypoints.
pub const CLASS: &str = "istio-waypoint";
/// Who answers for that class.
pub const CONTROLLER: &str = "istio.io/mesh-controller";
/// On everything that is made for a Gateway: its name.
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// On everything that is made here: by whom. An object of the same name without it is left alone.
pub const MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// The value of [`MANAGED_LABEL`].
pub const MANAGED: &str = "istio.io-mesh-controller";
/// On a Gateway, as annotation or label: how many pods. Default 1, 0 is none.
pub const REPLICAS: &str = "ambit.internal/replicas";
/// On a Gateway: it was stopped by command and has no pods until it is started.
pub const STOPPED: &str = "ambit.internal/stopped";
/// On a Gateway: changes with every command to restart it.
pub const RESTARTED: &str = "ambit.internal/restarted";
/// Port of HBONE.
pub const HBONE_PORT: u16 = 15008;
/// Port of the metrics, inside the pod.
pub const METRICS_PORT: u16 = 15020;
/// Port of readiness.
pub const STATUS_PORT: u16 = 15021;
/// The volume with the token of a waypoint's pod, and the file in it.
pub const TOKEN: &str = "istio-token";

/// The most pods a waypoint can be asked to have.
const REPLICAS_MAX: u32 = 50;
/// Life of the token that is asked for, in seconds, as Istio's template asks; the lab issues shorter ones.
const TOKEN_SECONDS: u32 = 43_200;
const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";

/// The program of a waypoint's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: String,
    /// Its environment but for what differs by pod; may refer to that by `$(NAME)`.
    pub env: Vec<(String, String)>,
    /// Time between SIGTERM and SIGKILL, in seconds.
    pub grace_seconds: u64,
}

/// What has to be written and removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Objects to write; those that are new lack uid and creation time.
    pub put: Vec<Value>,
    /// Objects to remove.
    pub remove: Vec<ObjectKey>,
    /// What cannot be done.
    pub problems: Vec<Problem>,
}

/// Whether a Gateway is a waypoint that is made here: of the class, and not with addresses of its own.
pub fn is_waypoint(gateway: &Value) -> bool {
    let addresses = gateway.pointer("/spec/addresses").and_then(Value::as_array);
    text(gateway, "/spec/gatewayClassName") == Some(CLASS) && addresses.is_none_or(Vec::is_empty)
}

/// Who answers for the class of waypoints if it is somebody else than the mesh: its Gateways are told nothing then.
pub fn other_controller(objects: &Snapshot) -> Option<&str> {
    let class = objects.find(&ObjectKey::new(Kind::GatewayClass, None, CLASS))?;
    text(class, "/spec/controllerName").filter(|controller| *controller != CONTROLLER)
}

/// The waypoints of a snapshot, by namespace and name.
pub fn all(objects: &Snapshot) -> impl Iterator<Item = (ObjectName, &Value)> {
    let waypoints = objects.of_kind(Kind::Gateway).filter(|(_, gateway)| is_waypoint(gateway));
    waypoints.map(|(key, gateway)| (name_of(key), gateway))
}

/// The pods of a waypoint, those that are ending among them.
pub fn pods_of<'a>(
    objects: &'a Snapshot,
    waypoint: &'a ObjectName,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Value)> {
    objects.of_kind(Kind::Pod).filter(move |(key, pod)| {
        key.namespace.as_deref() == Some(waypoint.namespace.as_str())
            && waypoint_of(pod) == Some(waypoint.name.as_str())
    })
}

/// The name of the waypoint that an object was made for.
pub fn waypoint_of(object: &Value) -> Option<&str> {
    let labels = object.pointer("/metadata/labels")?;
    let managed = labels.get(MANAGED_LABEL).and_then(Value::as_str) == Some(MANAGED);
    labels.get(GATEWAY_LABEL).and_then(Value::as_str).filter(|_| managed)
}

/// How many pods a waypoint is to have, whether it was stopped or not.
///
/// # Errors
/// Says what is no such number.
pub fn replicas_asked(gateway: &Value) -> Result<u32, String> {
    let maps = ["/metadata/annotations", "/metadata/labels"];
    let written = maps.iter().find_map(|map| gateway.pointer(map)?.get(REPLICAS)?.as_str());
    let Some(written) = written else { return Ok(1) };
    let number = written.parse().ok().filter(|n| *n <= REPLICAS_MAX);
    number.ok_or_else(|| format!("{REPLICAS} is {written:?}, not a number from 0 to {REPLICAS_MAX}"))
}

/// How many pods a waypoint is to have now: what was asked, 1 if that is no number, 0 while it is stopped.
pub fn replicas(gateway: &Value) -> u32 {
    if annotation(gateway, STOPPED).is_some() { 0 } else { replicas_asked(gateway).unwrap_or(1) }
}

/// Whether a Gateway has its addresses.
pub fn has_address(gateway: &Value) -> bool {
    let addresses = gateway.pointer("/status/addresses").and_then(Value::as_array);
    addresses.is_some_and(|all| !all.is_empty())
}

/// What to write into the status of a Gateway whose Service has these addresses.
pub fn addresses(waypoint: &ObjectName, cluster_ips: &[IpAddr], domain: &str) -> Value {
    let ips = cluster_ips.iter().map(|ip| json!({"type": "IPAddress", "value": ip.to_string()}));
    let host = format!("{}.{}.svc.{domain}", waypoint.name, waypoint.namespace);
    ips.chain([json!({"type": "Hostname", "value": host})]).collect()
}

/// What has to change so that the store holds exactly what its waypoints are made of; without a program, nothing.
pub fn changes(objects: &Snapshot, program: Option<&Program>) -> Changes {
    let mut changes = Changes::default();
    let mut wanted: BTreeSet<ObjectKey> = BTreeSet::new();
    for (name, gateway) in all(objects).filter(|_| program.is_some()) {
        let problem = |message| Problem { kind: "Gateway", object: name.clone(), message };
        changes.problems.extend(replicas_asked(gateway).err().map(problem));
        for object in made_of(&name, gateway, program) {
            let Some(key) = crate::manifests::key_of(&object) else { continue };
            match objects.find(&key) {
                None => changes.put.push(object),
                Some(old) if waypoint_of(old) != Some(name.name.as_str()) => {
                    let message = format!(
                        "{key} exists and was not made for this waypoint; rename one of the two, or remove it"
                    );
                    changes.problems.push(problem(message));
                }
                Some(old) => {
                    let new = renewed(old, &object);
                    changes.put.extend((new != *old).then_some(new));
                }
            }
            wanted.insert(key);
        }
    }
    let kinds = [Kind::Deployment, Kind::Service, Kind::ServiceAccount];
    let made = kinds.into_iter().flat_map(|kind| objects.of_kind(kind));
    let left = made.filter(|(key, object)| waypoint_of(object).is_some() && !wanted.contains(*key));
    changes.remove = left.map(|(key, _)| key.clone()).collect();
    changes
}

/// The old object with everything of the new one; what others wrote into it stays.
fn renewed(old: &Value, new: &Value) -> Value {
    let mut out = old.clone();
    for map in ["labels", "annotations"] {
        let Some(more) = new.pointer(&format!("/metadata/{map}")).and_then(Value::as_object) else {
            continue;
        };
        let mut all = old.pointer(&format!("/metadata/{map}")).and_then(Value::as_object).cloned();
        all.get_or_insert_default().extend(more.clone());
        out["metadata"][map] = json!(all);
    }
    out["metadata"]["ownerReferences"] = new["metadata"]["ownerReferences"].clone();
    let Some(spec) = new.get("spec") else { return out };
    out["spec"] = spec.clone();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(kept) = old.pointer(&format!("/spec/{field}")) {
            out["spec"][field] = kept.clone();
        }
    }
    out
}

fn made_of(name: &ObjectName, gateway: &Value, program: Option<&Program>) -> Vec<Value> {
    let Some(program) = program else { return Vec::new() };
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, gateway),
    });
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": protocol});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name, gateway),
        "spec": {
            "type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack",
            "selector": {GATEWAY_LABEL: name.name},
            "ports": [port("status-port", STATUS_PORT, "tcp"), port("mesh", HBONE_PORT, "hbone")],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name, gateway),
        "spec": {
            "replicas": replicas(gateway),
            "selector": {"matchLabels": {GATEWAY_LABEL: name.name}},
            // A new pod takes over before an old one ends.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(name, gateway, program),
        },
    });
    // The account first: pods refer to it.
    vec![account, service, deployment]
}

fn metadata(name: &ObjectName, gateway: &Value) -> Value {
    let owner = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": name.name,
        "uid": text(gateway, "/metadata/uid").unwrap_or_default(),
        "controller": true, "blockOwnerDeletion": true,
    });
    let mut metadata = json!({
        "namespace": name.namespace, "name": name.name, "ownerReferences": [owner],
        "labels": labels(name, gateway),
    });
    let annotations = infrastructure(gateway, "annotations");
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    metadata
}

fn labels(name: &ObjectName, gateway: &Value) -> Map<String, Value> {
    let mut labels = infrastructure(gateway, "labels");
    let own = [(GATEWAY_LABEL, name.name.as_str()), (GATEWAY_CLASS_LABEL, CLASS), (MANAGED_LABEL, MANAGED)];
    labels.extend(own.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    labels
}

/// What a Gateway's `spec.infrastructure` wants on everything that is made for it.
fn infrastructure(gateway: &Value, field: &str) -> Map<String, Value> {
    let map = gateway.pointer(&format!("/spec/infrastructure/{field}")).and_then(Value::as_object);
    map.cloned().unwrap_or_default()
}

fn template(name: &ObjectName, gateway: &Value, program: &Program) -> Value {
    let mut labels = labels(name, gateway);
    for (key, value) in [
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        ("service.istio.io/canonical-name", name.name.as_str()),
        ("service.istio.io/canonical-revision", "latest"),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    let mut annotations = infrastructure(gateway, "annotations");
    for (key, value) in [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", "15020"),
    ] {
        annotations.insert(key.to_owned(), json!(value));
    }
    if let Some(restarted) = annotation(gateway, RESTARTED) {
        annotations.insert(RESTARTED.to_owned(), json!(restarted));
    }
    let token = json!({"serviceAccountToken": {
        "audience": crate::token::AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN,
    }});
    json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            "serviceAccountName": name.name,
            "terminationGracePeriodSeconds": program.grace_seconds,
            "containers": [container(name, program)],
            "volumes": [{"name": TOKEN, "projected": {"sources": [token]}}],
        },
    })
}

fn container(name: &ObjectName, program: &Program) -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("INSTANCE_IP", "status.podIP"),
        json!({"name": "GATEWAY_NAME", "value": name.name}),
    ];
    env.extend(program.env.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let ports = [("metrics", METRICS_PORT), ("status-port", STATUS_PORT), ("mesh", HBONE_PORT)];
    let ports = ports.map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}));
    json!({
        "name": "istio-proxy", "image": "waypoint", "command": [program.path], "env": env, "ports": ports,
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT},
            "periodSeconds": 1, "failureThreshold": 4,
        },
    })
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

fn name_of(key: &ObjectKey) -> ObjectName {
    ObjectName { namespace: key.namespace.clone().unwrap_or_default(), name: key.name.clone() }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
