//! What a waypoint is made of: the objects for one Gateway, as Istio's deployment controller makes them.
//!
//! Pure: a Gateway and settings in, objects for server-side apply out. Differs from Istio in what is safer: a budget for
//! disruptions and a scaler are always there, the pod has no token for the API server, and the Gateway's own labels are
//! not copied.

use std::collections::BTreeMap;

use ambit_control::Name;
use ambit_control::input::Gateway;
use serde_json::{Map, Value, json};

/// On everything that is made for a Gateway: its name.
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The same under Istio's older name.
const OLD_GATEWAY_LABEL: &str = "istio.io/gateway-name";
/// On everything that is made for a Gateway: its class.
const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// On everything that is made here: by whom. An object of the same name without it is left alone.
pub const MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// The value of [`MANAGED_LABEL`]: the controller of waypoints, as a label can hold it.
pub const MANAGED: &str = "istio.io-mesh-controller";
/// Annotation of a Gateway: a fixed number of pods, 0 for none. Without it their number follows the load.
pub const REPLICAS: &str = "ambit.internal/replicas";
/// Annotation of a Gateway: changes with every command to restart it.
const RESTARTED: &str = "ambit.internal/restarted";

/// The most pods a waypoint can be asked to have.
const REPLICAS_MAX: u32 = 50;
/// Life of the token that is asked for, in seconds.
const TOKEN_SECONDS: u32 = 43_200;
/// User and group of the pods.
const UID: u32 = 1337;
const HBONE_PORT: u16 = 15008;
const METRICS_PORT: u16 = 15020;
const STATUS_PORT: u16 = 15021;
/// Prefixes of labels and annotations that have a meaning for the mesh and are not taken over from a Gateway.
const RESERVED: &[&str] = &["gateway.networking.k8s.io/", "gateway.istio.io/", "istio.io/"];

/// How waypoints are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the program, which is its entry point.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// Secrets of the registry, in the namespace of the waypoint.
    pub pull_secrets: Vec<String>,
    /// Where discovery and the CA are served, such as `https://istiod.istio-system.svc:15012`.
    pub control_plane: String,
    /// Name of the cluster.
    pub cluster_id: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Fewest pods, at least 1.
    pub replicas_min: u32,
    /// Most pods.
    pub replicas_max: u32,
    /// Share of the requested CPU, in percent, above which pods are added.
    pub cpu_percent: u32,
    /// CPU and memory that are requested, such as `100m` and `128Mi`.
    pub requests: BTreeMap<String, String>,
    /// CPU and memory that are the most; may lack either.
    pub limits: BTreeMap<String, String>,
    /// Time between SIGTERM and SIGKILL, in seconds.
    pub grace_seconds: u64,
    /// Log filter of the pods.
    pub log: String,
}

/// How many pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replicas {
    Fixed(u32),
    Scaled,
}

/// The objects for a Gateway, in the order in which they are best written.
///
/// # Errors
/// What the Gateway asks for and cannot have.
pub fn made_of(gateway: &Gateway, settings: &Settings) -> Result<Vec<Value>, String> {
    let replicas = replicas(gateway)?;
    if gateway.spec.infrastructure.as_ref().is_some_and(|of| of.parameters_ref.is_some()) {
        return Err("spec.infrastructure.parametersRef is not supported; remove it, and set resources and the number \
             of pods with the flags of istiod-lite or the annotation ambit.internal/replicas"
            .to_owned());
    }
    // The account first: pods refer to it.
    let mut objects = vec![account(gateway), service(gateway), deployment(gateway, settings, replicas)];
    match replicas {
        Replicas::Scaled => objects.extend([scaler(gateway, settings), budget(gateway)]),
        Replicas::Fixed(0) => {}
        Replicas::Fixed(_) => objects.push(budget(gateway)),
    }
    Ok(objects)
}

/// Whether a Gateway brings its own addresses: nothing is made for it then.
pub fn is_unmanaged(gateway: &Gateway) -> bool {
    !gateway.spec.addresses.is_empty()
}

/// Whether a Gateway asks for no pods at all.
pub fn is_stopped(gateway: &Gateway) -> bool {
    replicas(gateway) == Ok(Replicas::Fixed(0))
}

fn replicas(gateway: &Gateway) -> Result<Replicas, String> {
    let Some(written) = gateway.annotations.get(REPLICAS) else { return Ok(Replicas::Scaled) };
    let number = written.parse().ok().filter(|number| *number <= REPLICAS_MAX);
    let number = number.ok_or_else(|| {
        format!("annotation {REPLICAS} is {written:?}, not a number from 0 to {REPLICAS_MAX}")
    });
    number.map(Replicas::Fixed)
}

fn account(gateway: &Gateway) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(gateway),
        "automountServiceAccountToken": false,
    })
}

fn service(gateway: &Gateway) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": protocol});
    let mut metadata = metadata(gateway);
    metadata["annotations"]["networking.istio.io/traffic-distribution"] = json!("PreferClose");
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack",
            "selector": selector(&gateway.name),
            "ports": [port("status-port", STATUS_PORT, "tcp"), port("mesh", HBONE_PORT, "hbone")],
        },
    })
}

fn deployment(gateway: &Gateway, settings: &Settings, replicas: Replicas) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(gateway),
        "spec": {
            "selector": {"matchLabels": selector(&gateway.name)},
            // A new pod takes over before an old one ends.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(gateway, settings),
        },
    });
    // Whoever writes the number owns it: the scaler does where there is one.
    if let Replicas::Fixed(number) = replicas {
        deployment["spec"]["replicas"] = json!(number);
    }
    deployment
}

/// The number of pods that a Deployment is to be written with where a scaler has them, given the one that is there: what it
/// has, at least the fewest, as long as nobody but `manager` owns the field. What we alone own goes with our word, and one
/// pod would be left until the scaler looks; once it has changed the number, the field is its own.
pub fn kept_replicas(live: &Value, manager: &str, settings: &Settings) -> Option<u32> {
    let fields = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let owners =
        fields.into_iter().flatten().filter(|one| one.pointer("/fieldsV1/f:spec/f:replicas").is_some());
    let mut are_ours = owners.map(|one| {
        let is_whole = one.get("subresource").and_then(Value::as_str).is_none_or(str::is_empty);
        is_whole && one.get("manager").is_some_and(|by| by == manager)
    });
    let is_owned = are_ours.next()? && are_ours.all(|is_ours| is_ours);
    let number = live.pointer("/spec/replicas").and_then(Value::as_u64);
    let number = number.and_then(|number| u32::try_from(number).ok()).filter(|_| is_owned)?;
    // No scaler begins with none.
    Some(number.max(fewest(settings)))
}

fn fewest(settings: &Settings) -> u32 {
    settings.replicas_min.max(1)
}

fn scaler(gateway: &Gateway, settings: &Settings) -> Value {
    let min = fewest(settings);
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata(gateway),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": &*gateway.name.name},
            "minReplicas": min, "maxReplicas": settings.replicas_max.max(min),
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": settings.cpu_percent},
            }}],
        },
    })
}

/// Counts those that are away, not those that are left: with one pod it would keep nodes from being drained else.
fn budget(gateway: &Gateway) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(gateway),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(&gateway.name)}},
    })
}

fn selector(name: &Name) -> Value {
    json!({GATEWAY_LABEL: &*name.name})
}

fn metadata(gateway: &Gateway) -> Value {
    let name = &gateway.name;
    json!({
        "namespace": &*name.namespace, "name": &*name.name,
        "labels": labels(gateway), "annotations": infrastructure(gateway, |of| &of.annotations),
        // That it holds up the Gateway's removal would need a right on its finalizers, and is of no use.
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": &*name.name,
            "uid": &*gateway.uid, "controller": true,
        }],
    })
}

fn labels(gateway: &Gateway) -> Map<String, Value> {
    let mut labels = infrastructure(gateway, |of| &of.labels);
    let name = &*gateway.name.name;
    for (key, value) in [
        (GATEWAY_LABEL, name),
        (OLD_GATEWAY_LABEL, name),
        (CLASS_LABEL, &*gateway.spec.gateway_class_name),
        (MANAGED_LABEL, MANAGED),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    labels
}

/// What a Gateway's `spec.infrastructure` wants on everything that is made for it.
fn infrastructure(
    gateway: &Gateway,
    map: fn(&ambit_types::written::Infrastructure) -> &BTreeMap<String, String>,
) -> Map<String, Value> {
    // `istio.io/` ends the longer names of Istio too, such as `ambient.istio.io/`.
    let is_reserved =
        |key: &str| RESERVED.iter().any(|prefix| key.starts_with(prefix) || key.contains(".istio.io/"));
    let wanted = gateway.spec.infrastructure.iter().flat_map(map).filter(|(key, _)| !is_reserved(key));
    wanted.map(|(key, value)| (key.clone(), json!(value))).collect()
}

fn template(gateway: &Gateway, settings: &Settings) -> Value {
    let name = &*gateway.name.name;
    let mut labels = labels(gateway);
    for (key, value) in [
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        ("service.istio.io/canonical-name", name),
        ("service.istio.io/canonical-revision", "latest"),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    let mut annotations = infrastructure(gateway, |of| &of.annotations);
    for (key, value) in [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", "15020"),
    ] {
        annotations.insert(key.to_owned(), json!(value));
    }
    if let Some(restarted) = gateway.annotations.get(RESTARTED) {
        annotations.insert(RESTARTED.to_owned(), json!(&**restarted));
    }
    json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": pod(gateway, settings),
    })
}

fn pod(gateway: &Gateway, settings: &Settings) -> Value {
    let spread = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(&gateway.name)},
        })
    };
    let token = json!({"serviceAccountToken": {
        "audience": "istio-ca", "expirationSeconds": TOKEN_SECONDS, "path": "istio-token",
    }});
    let mut pod = json!({
        "serviceAccountName": &*gateway.name.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread("topology.kubernetes.io/zone"), spread("kubernetes.io/hostname")],
        "containers": [container(gateway, settings)],
        "volumes": [
            {"name": "istio-token", "projected": {"sources": [token]}},
            {"name": "istiod-ca-cert", "configMap": {"name": crate::lead::root::CONFIG_MAP}},
            {"name": "session-key", "secret": {"secretName": session_key(gateway), "optional": true}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    });
    if !settings.pull_secrets.is_empty() {
        let secrets = settings.pull_secrets.iter().map(|name| json!({"name": name}));
        pod["imagePullSecrets"] = secrets.collect();
    }
    pod
}

fn container(gateway: &Gateway, settings: &Settings) -> Value {
    let ports = [("metrics", METRICS_PORT), ("status-port", STATUS_PORT), ("mesh", HBONE_PORT)];
    let ports = ports.map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}));
    let probe = |period: u32, failures: u32| {
        json!({
            "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 1,
        })
    };
    let mount = |name: &str, path: &str, is_fixed: bool| json!({"name": name, "mountPath": path, "readOnly": is_fixed});
    json!({
        "name": "istio-proxy", "image": settings.image, "imagePullPolicy": settings.pull_policy,
        "env": env(gateway, settings), "ports": ports,
        "resources": {"requests": settings.requests, "limits": settings.limits},
        "startupProbe": probe(1, 30), "readinessProbe": probe(5, 2),
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            mount("istio-token", "/var/run/secrets/tokens", true),
            mount("istiod-ca-cert", "/var/run/secrets/istio", true),
            mount("session-key", "/var/run/secrets/session", true),
            mount("run", "/var/run/ambit", false),
        ],
    })
}

/// The Secret with the key of session persistence. Its owner makes it; we neither read nor write Secrets here.
fn session_key(gateway: &Gateway) -> String {
    format!("{}-session-key", gateway.name.name)
}

/// Every name is a setting of the waypoint; a test holds this against its parser.
fn env(gateway: &Gateway, settings: &Settings) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let roots = "/var/run/secrets/istio/root-cert.pem";
    let grace = settings.grace_seconds.to_string();
    let fixed = [
        ("GATEWAY_NAME", &*gateway.name.name),
        ("CLUSTER_ID", &*settings.cluster_id),
        ("TRUST_DOMAIN", &*settings.trust_domain),
        ("XDS_ADDRESS", &*settings.control_plane),
        ("CA_ADDRESS", &*settings.control_plane),
        ("XDS_ROOT_CA", roots),
        ("CA_ROOT_CA", roots),
        ("AUTH_TOKEN", "/var/run/secrets/tokens/istio-token"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", &*grace),
        ("AMBIT_ADMIN_SOCKET", "/var/run/ambit/admin.sock"),
        ("AMBIT_SESSION_KEY_FILE", "/var/run/secrets/session/key"),
        ("RUST_LOG", &*settings.log),
    ];
    let mut env = vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("INSTANCE_IP", "status.podIP"),
    ];
    env.extend(fixed.map(|(name, value)| json!({"name": name, "value": value})));
    if settings.limits.contains_key("cpu") {
        let limit = json!({"resource": "limits.cpu", "divisor": "0"});
        env.push(json!({"name": "AMBIT_CPU_LIMIT", "valueFrom": {"resourceFieldRef": limit}}));
    }
    env
}
