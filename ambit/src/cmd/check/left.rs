//! What is left of the mesh in a cluster that is said to be free of it.

use serde_json::Value;

use super::cluster::{Answer, Cluster};
use super::finding::Category;

/// Selector of everything that installing makes, as a query has it.
const OURS: &str = "labelSelector=app.kubernetes.io/part-of%3Dambit";
/// Lists of what may be left, by path with its query, and what it is.
const LISTS: &[(&str, &str)] = &[
    ("/apis/apps/v1/deployments", "deployment"),
    ("/apis/apps/v1/daemonsets", "daemonset"),
    ("/api/v1/services", "service"),
    ("/api/v1/serviceaccounts", "service account"),
    ("/api/v1/configmaps", "ConfigMap"),
    ("/apis/policy/v1/poddisruptionbudgets", "PodDisruptionBudget"),
    ("/apis/autoscaling/v2/horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("/apis/networking.k8s.io/v1/networkpolicies", "NetworkPolicy"),
    ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "ClusterRole"),
    ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "ClusterRoleBinding"),
    ("/apis/rbac.authorization.k8s.io/v1/roles", "Role"),
    ("/apis/rbac.authorization.k8s.io/v1/rolebindings", "RoleBinding"),
    ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "webhook configuration"),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "definition"),
    ("/apis/gateway.networking.k8s.io/v1/gatewayclasses", "GatewayClass"),
];

/// Looks for everything of ours.
pub(super) async fn look(cluster: &Cluster) -> Vec<Category> {
    let mut objects = Category::new("Objects of the mesh");
    for (path, what) in LISTS {
        gone(&mut objects, what, &cluster.list(&format!("{path}?{OURS}")).await);
    }
    let roots = "/api/v1/configmaps?fieldSelector=metadata.name%3Distio-ca-root-cert";
    gone(&mut objects, "root of trust", &cluster.list(roots).await);
    let mut traces = Category::new("Traces in other objects");
    let enrolled = "/api/v1/namespaces?labelSelector=istio.io/dataplane-mode%3Dambient";
    gone(&mut traces, "enrolled namespace", &cluster.list(enrolled).await);
    captured(&mut traces, &cluster.list("/api/v1/pods").await);
    vec![objects, traces]
}

/// Whether a list is empty.
pub(super) fn gone(category: &mut Category, what: &str, answer: &Answer) {
    match answer {
        Answer::Unknown(cause) => category.warn(format!("{what}: not known"), cause.clone(), ""),
        Answer::Found(_) | Answer::Missing if answer.items().is_empty() => {
            category.good(format!("no {what} is left"));
        }
        Answer::Found(_) | Answer::Missing => {
            for one in answer.items() {
                let why = "it was made for the mesh";
                category.bad(format!("{what} {} is left", named(one)), why, "ambit uninstall --yes");
            }
        }
    }
}

/// Whether no pod is captured any more.
pub(super) fn captured(category: &mut Category, pods: &Answer) {
    if let Answer::Unknown(cause) = pods {
        return category.warn("captured pods: not known", cause.clone(), "");
    }
    let marked = |pod: &&Value| !pod["metadata"]["annotations"]["ambient.istio.io/redirection"].is_null();
    let mut none = true;
    for pod in pods.items().iter().filter(marked) {
        none = false;
        let next = "take the label off its namespace while ambit-cni still runs, or restart the pod";
        category.bad(
            format!("pod {} is marked as captured", named(pod)),
            "its rules may still be there",
            next,
        );
    }
    if none {
        category.good("no pod is captured");
    }
}

fn named(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
