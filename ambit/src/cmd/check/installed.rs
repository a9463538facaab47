//! The mesh as it is installed: definitions, control plane, nodes, webhook, rights, roots of trust, waypoints, pods.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::{Answer, Cluster};
use super::finding::Category;
use super::{before, rights};

/// Groups and kinds that the mesh brings along.
const DEFINITIONS: &[(&str, &[&str])] = &[
    ("security.istio.io/v1", &["authorizationpolicies", "peerauthentications", "requestauthentications"]),
    ("networking.istio.io/v1", &["serviceentries", "workloadentries", "virtualservices"]),
    ("ambit.internal/v1", &["trafficpolicies"]),
    ("ambit.internal/v1alpha1", &["egresspolicies"]),
];
/// The webhook that refuses objects while nobody answers.
const WEBHOOK: &str = "rev.validation.istio.io";
/// Its configuration.
const WEBHOOKS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator-istio-system";
/// ConfigMap with the roots of trust.
const ROOT: &str = "istio-ca-root-cert";
/// Selector of namespaces of the mesh, as a query has it.
const ENROLLED: &str = "labelSelector=istio.io/dataplane-mode%3Dambient";
/// Names that one line lists.
const LISTED_MAX: usize = 5;
const INSTALL: &str = "ambit install | kubectl apply -f -";

/// Looks at everything.
pub(super) async fn look(cluster: &Cluster) -> Vec<Category> {
    let (api, answers) = before::api(cluster).await;
    if !answers {
        return vec![api];
    }
    let mut definitions = Category::new("Definitions");
    for (group, kinds) in DEFINITIONS {
        served(&mut definitions, group, kinds, &cluster.get(&format!("/apis/{group}")).await);
    }
    vec![
        api,
        definitions,
        control_plane(cluster).await,
        nodes(cluster).await,
        webhook_of(cluster).await,
        rights::look(cluster).await,
        namespaces(cluster).await,
        waypoints(cluster).await,
    ]
}

/// Whether the kinds of a group are served.
pub(super) fn served(category: &mut Category, group: &str, kinds: &[&str], answer: &Answer) {
    let list = answer.found().and_then(|list| list["resources"].as_array());
    let is_served = |kind: &str| list.into_iter().flatten().any(|one| one["name"] == kind);
    let missing: Vec<&str> = kinds.iter().copied().filter(|kind| !is_served(kind)).collect();
    match (missing.is_empty(), answer) {
        (true, _) => category.good(format!("{group} is served")),
        (false, Answer::Unknown(cause)) => category.warn(format!("{group}: not known"), cause.clone(), ""),
        (false, Answer::Found(_) | Answer::Missing) => {
            category.bad(
                format!("{group} is not served whole"),
                format!("there are no {}", missing.join(", ")),
                INSTALL,
            );
        }
    }
}

async fn control_plane(cluster: &Cluster) -> Category {
    let ns = &cluster.namespace;
    let mut plane = Category::new("Control plane");
    let deployment = cluster.get(&format!("/apis/apps/v1/namespaces/{ns}/deployments/istiod-lite")).await;
    replicas(&mut plane, ns, &deployment);
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices");
    endpoints(
        &mut plane,
        ns,
        &cluster.list(&format!("{slices}?labelSelector=kubernetes.io/service-name%3Distiod")).await,
    );
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{ns}/leases/istiod-lite");
    leader(&mut plane, ns, &cluster.get(&lease).await);
    for account in ["istiod", "ztunnel", "ambit-cni"] {
        let path = format!("/api/v1/namespaces/{ns}/serviceaccounts/{account}");
        exists(&mut plane, &format!("service account {account}"), &cluster.get(&path).await);
    }
    plane
}

fn exists(category: &mut Category, what: &str, answer: &Answer) {
    match answer {
        Answer::Found(_) => category.good(format!("{what} is there")),
        Answer::Missing => category.bad(format!("{what} is not there"), "it was not installed", INSTALL),
        Answer::Unknown(cause) => category.warn(format!("{what}: not known"), cause.clone(), ""),
    }
}

/// Whether every replica of the control plane is ready.
pub(super) fn replicas(plane: &mut Category, namespace: &str, answer: &Answer) {
    let Some(deployment) = answer.found() else { return exists(plane, "deployment istiod-lite", answer) };
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or_default();
    let what = format!("deployment istiod-lite: {ready} of {wanted} ready");
    let next = format!("kubectl -n {namespace} describe pod -l app.kubernetes.io/name=istiod-lite");
    match (ready, wanted) {
        (0, _) => {
            plane.bad(what, "nobody serves configuration and certificates; what is in force stays so", next)
        }
        (ready, wanted) if ready < wanted => plane.warn(what, "the others do not start", next),
        (1, _) => plane.warn(
            what,
            "while it is replaced, no new pod joins the mesh",
            format!("kubectl -n {namespace} scale deployment istiod-lite --replicas=2"),
        ),
        _ => plane.good(what),
    }
    let ours = env!("CARGO_PKG_VERSION");
    match deployment["metadata"]["labels"]["app.kubernetes.io/version"].as_str() {
        Some(version) if version != ours => plane.warn(
            format!("the control plane is {version}"),
            format!("this program is {ours}"),
            "use the program of the mesh's version, or upgrade: ambit upgrade --plan",
        ),
        Some(_) => plane.good(format!("control plane and this program are {ours}")),
        None => {}
    }
}

fn endpoints(plane: &mut Category, namespace: &str, answer: &Answer) {
    if let Answer::Unknown(cause) = answer {
        return plane.warn("service istiod: not known", cause.clone(), "");
    }
    let endpoints = answer.items().iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = endpoints.filter(|one| one["conditions"]["ready"] != false).count();
    if ready > 0 {
        plane.good(format!("service istiod leads to {ready} ready"));
    } else {
        let next = format!("kubectl -n {namespace} get service,endpointslices,pods -o wide");
        plane.bad("service istiod leads nowhere", "proxies cannot reach the control plane", next);
    }
}

fn leader(plane: &mut Category, namespace: &str, answer: &Answer) {
    let holder = answer.found().and_then(|lease| lease["spec"]["holderIdentity"].as_str());
    match (holder.filter(|name| !name.is_empty()), answer) {
        (Some(name), _) => plane.good(format!("{name} leads")),
        (None, Answer::Unknown(cause)) => plane.warn("the leader: not known", cause.clone(), ""),
        (None, Answer::Found(_) | Answer::Missing) => plane.bad(
            "no replica leads",
            "statuses, waypoints and roots of trust are not written",
            format!("kubectl -n {namespace} logs deployment/istiod-lite"),
        ),
    }
}

async fn nodes(cluster: &Cluster) -> Category {
    let ns = &cluster.namespace;
    let mut nodes = Category::new("Nodes");
    for name in ["ztunnel", "ambit-cni"] {
        let set = cluster.get(&format!("/apis/apps/v1/namespaces/{ns}/daemonsets/{name}")).await;
        let path = format!("/api/v1/namespaces/{ns}/pods?labelSelector=app.kubernetes.io/name%3D{name}");
        daemons(&mut nodes, ns, name, &set, &cluster.list(&path).await);
    }
    nodes
}

/// Whether a program of nodes is ready on every node.
pub(super) fn daemons(nodes: &mut Category, namespace: &str, name: &str, set: &Answer, pods: &Answer) {
    let Some(found) = set.found() else { return exists(nodes, &format!("daemonset {name}"), set) };
    let count = |field: &str| found["status"][field].as_u64().unwrap_or_default();
    let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    let what = format!("{name}: ready on {ready} of {wanted} nodes");
    if wanted > 0 && ready >= wanted {
        nodes.good(what);
    } else {
        let next = format!("kubectl -n {namespace} describe pod -l app.kubernetes.io/name={name}");
        let why =
            if wanted == 0 { "it is meant for no node" } else { "pods of the others do not join the mesh" };
        nodes.bad(what, why, next);
    }
    for pod in pods.items().iter().filter(|pod| condition(pod, "Ready") != Some("True")) {
        let (pod_name, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        let next = format!("kubectl -n {namespace} logs {pod_name}");
        let place = if node.is_empty() { "on no node yet".to_owned() } else { format!("on node {node}") };
        nodes.bad(format!("{name} is not ready {place}"), waiting(pod), next);
    }
}

/// Why a pod is not ready, as far as it tells.
fn waiting(pod: &Value) -> String {
    let containers = pod["status"]["containerStatuses"].as_array();
    let reason = containers.into_iter().flatten().find_map(|one| {
        let waiting = &one["state"]["waiting"];
        let reason = waiting["reason"].as_str()?;
        Some(format!("{reason} {}", text(&waiting["message"])).trim_end().to_owned())
    });
    reason.unwrap_or_else(|| format!("it is in phase {}", text(&pod["status"]["phase"])))
}

async fn webhook_of(cluster: &Cluster) -> Category {
    let mut category = Category::new("Webhook");
    webhook(&mut category, &cluster.namespace, &cluster.get(WEBHOOKS).await);
    category
}

/// Whether the API server can ask, and what it does when nobody answers.
pub(super) fn webhook(category: &mut Category, namespace: &str, answer: &Answer) {
    let Some(found) = answer.found() else { return exists(category, "the webhook configuration", answer) };
    let logs = format!("kubectl -n {namespace} logs deployment/istiod-lite | grep webhook");
    let mut is_there = false;
    for one in found["webhooks"].as_array().into_iter().flatten() {
        let (name, policy) = (text(&one["name"]), text(&one["failurePolicy"]));
        is_there |= name == WEBHOOK;
        if text(&one["clientConfig"]["caBundle"]).is_empty() {
            category.bad(
                format!("{name} trusts nobody"),
                "the leader has not written its caBundle",
                logs.clone(),
            );
        } else if one["clientConfig"]["service"]["namespace"] != *namespace {
            category.bad(
                format!("{name} leads elsewhere"),
                format!("not to a service of {namespace}"),
                INSTALL,
            );
        } else if name == WEBHOOK && policy != "Fail" {
            let why = "objects are stored unread while nobody answers; the API server was not seen to get an answer";
            category.warn(format!("{name} has failurePolicy {policy}"), why, logs.clone());
        } else if name != WEBHOOK && policy == "Fail" {
            let why = "without the control plane, namespaces and services of others could not be changed";
            category.bad(format!("{name} has failurePolicy Fail"), why, INSTALL);
        } else {
            category.good(format!("{name}, failurePolicy {policy}"));
        }
    }
    if !is_there {
        category.bad(
            format!("there is no webhook {WEBHOOK}"),
            "objects of the mesh are stored unread",
            INSTALL,
        );
    }
}

async fn namespaces(cluster: &Cluster) -> Category {
    let mut category = Category::new("Namespaces of the mesh");
    let enrolled = cluster.list(&format!("/api/v1/namespaces?{ENROLLED}")).await;
    let roots = cluster.list(&format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{ROOT}")).await;
    root_maps(&mut category, &cluster.namespace, &enrolled, &roots);
    for namespace in enrolled.items() {
        let name = text(&namespace["metadata"]["name"]);
        let pods = cluster.list(&format!("/api/v1/namespaces/{name}/pods")).await;
        captured(&mut category, name, &pods);
    }
    category
}

/// Whether every namespace of the mesh has the roots of trust.
pub(super) fn root_maps(category: &mut Category, own: &str, enrolled: &Answer, roots: &Answer) {
    for answer in [enrolled, roots] {
        if let Answer::Unknown(cause) = answer {
            return category.warn("roots of trust: not known", cause.clone(), "");
        }
    }
    let has_root = |map: &&Value| !text(&map["data"]["root-cert.pem"]).is_empty();
    let with: BTreeMap<&str, &str> = roots
        .items()
        .iter()
        .filter(has_root)
        .map(|map| (text(&map["metadata"]["namespace"]), text(&map["data"]["root-cert.pem"])))
        .collect();
    let needed: BTreeSet<&str> =
        enrolled.items().iter().map(|one| text(&one["metadata"]["name"])).chain([own]).collect();
    let without: Vec<&str> = needed.iter().copied().filter(|name| !with.contains_key(name)).collect();
    let next = format!("kubectl -n {own} logs deployment/istiod-lite");
    if !without.is_empty() {
        let what = format!("there is no ConfigMap {ROOT} in {}", listed(&without));
        return category.bad(what, "waypoints there trust nobody and do not start", next);
    }
    let others = needed.iter().filter(|name| with.get(*name) != with.get(own));
    let others: Vec<&str> = others.copied().collect();
    if others.is_empty() {
        category.good(format!("{} have the same roots of trust", plural(needed.len(), "namespace")));
    } else {
        let what = format!("other roots of trust than in {own} are in {}", listed(&others));
        category.warn(what, "a rotation is under way, or somebody else writes them", "ambit ca status");
    }
}

/// Whether every running pod of a namespace is captured.
pub(super) fn captured(category: &mut Category, namespace: &str, pods: &Answer) {
    if let Answer::Unknown(cause) = pods {
        return category.warn(format!("pods of {namespace}: not known"), cause.clone(), "");
    }
    let is_meant = |pod: &&Value| {
        pod["status"]["phase"] == "Running"
            && pod["spec"]["hostNetwork"] != true
            && pod["metadata"]["labels"]["istio.io/dataplane-mode"] != "none"
            && pod["metadata"]["annotations"]["sidecar.istio.io/status"].is_null()
            // Waypoints are proxies themselves.
            && pod["metadata"]["labels"]["gateway.istio.io/managed"].is_null()
    };
    let meant: Vec<&Value> = pods.items().iter().filter(is_meant).collect();
    let is_captured =
        |pod: &Value| pod["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled";
    let missing: Vec<&Value> = meant.iter().copied().filter(|pod| !is_captured(pod)).collect();
    let what = format!("{namespace}: {} of {} pods captured", meant.len() - missing.len(), meant.len());
    if missing.is_empty() {
        return category.good(what);
    }
    let names: Vec<&str> = missing.iter().map(|pod| text(&pod["metadata"]["name"])).collect();
    let why =
        format!("{} are labelled, but not captured (AMB1101); their connections are refused", listed(&names));
    let node = text(&missing[0]["spec"]["nodeName"]);
    let next = format!(
        "kubectl get pods -A -l app.kubernetes.io/name=ambit-cni --field-selector spec.nodeName={node}"
    );
    category.bad(what, why, next);
}

async fn waypoints(cluster: &Cluster) -> Category {
    let mut category = Category::new("Waypoints");
    let gateways = cluster.list("/apis/gateway.networking.k8s.io/v1/gateways").await;
    let namespaces = cluster.list("/api/v1/namespaces?labelSelector=istio.io/use-waypoint").await;
    let services = cluster.list("/api/v1/services?labelSelector=istio.io/use-waypoint").await;
    ready(&mut category, &gateways);
    for users in [&namespaces, &services] {
        used(&mut category, &gateways, users);
    }
    category
}

/// Whether every waypoint was made.
pub(super) fn ready(category: &mut Category, gateways: &Answer) {
    if let Answer::Unknown(cause) = gateways {
        return category.warn("waypoints: not known", cause.clone(), "");
    }
    let of_mesh = |one: &&Value| one["spec"]["gatewayClassName"] == "istio-waypoint";
    for gateway in gateways.items().iter().filter(of_mesh) {
        let (namespace, name) = (text(&gateway["metadata"]["namespace"]), text(&gateway["metadata"]["name"]));
        let failed =
            ["Accepted", "Programmed"].into_iter().find(|kind| condition(gateway, kind) != Some("True"));
        let Some(failed) = failed else {
            category.good(format!("waypoint {namespace}/{name} is ready"));
            continue;
        };
        let conditions = gateway["status"]["conditions"].as_array();
        let told = conditions.into_iter().flatten().find(|one| one["type"] == *failed);
        let why = told.map_or("the control plane has not looked at it", |one| text(&one["message"]));
        let next = format!("kubectl -n {namespace} describe gateway,deployment {name}");
        category.bad(
            format!("waypoint {namespace}/{name} is not {failed}"),
            format!("{why} (AMB3101)"),
            next,
        );
    }
}

/// Whether what asks for a waypoint names one that is there.
pub(super) fn used(category: &mut Category, gateways: &Answer, users: &Answer) {
    for user in users.items() {
        let (metadata, kind) = (&user["metadata"], user["metadata"]["namespace"].as_str());
        let labels = &metadata["labels"];
        let name = text(&labels["istio.io/use-waypoint"]);
        let own = kind.unwrap_or_else(|| text(&metadata["name"]));
        let namespace = labels["istio.io/use-waypoint-namespace"].as_str().unwrap_or(own);
        let is_it =
            |one: &Value| one["metadata"]["name"] == name && one["metadata"]["namespace"] == namespace;
        if name.is_empty() || name == "none" || gateways.items().iter().any(is_it) {
            continue;
        }
        let what = match kind {
            Some(own) => format!("service {own}/{}", text(&metadata["name"])),
            None => format!("namespace {own}"),
        };
        category.bad(
            format!("{what} asks for the waypoint {namespace}/{name}"),
            "there is none, so connections are refused (AMB3101)",
            format!("ambit waypoint apply -n {namespace} --name {name}"),
        );
    }
}

/// Status of a condition.
fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)?["status"].as_str()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// The first names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(LISTED_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
