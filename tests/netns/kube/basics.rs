//! What kubectl writes runs in pods, is captured by a label, and goes again; the lab's own commands do the same.
//!
//! Only `kubectl` and the lab's own commands change anything; what the mesh did is read from its flow records and from
//! the objects' status, as anybody could.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, ambit, wait_until};
use serde_json::{Value, json};

use super::{LABEL, SETTLED, kubectl, pod, wait_for, with_image, write};
use crate::cast::{PORT, oracle};

/// How far a watch of the lab may be behind.
const WATCHED: Duration = Duration::from_secs(1);

fn cast() -> Vec<Value> {
    let server = with_image(oracle(PORT));
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [server], "terminationGracePeriodSeconds": 1},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
    });
    let caller = pod("caller", &json!({"name": "app", "image": "example.com/pause"}));
    vec![caller, pod("echo", &with_image(oracle(PORT))), web, service]
}

/// Whether connections of the caller were carried by the mesh, through a tunnel and on one node alike.
fn tunnelled(lab: &Lab) -> bool {
    let flows = lab.flows(&["--from-pod", "shop/caller", "--verdict", "allowed"]);
    ["hbone", "local"].iter().all(|path| flows.iter().any(|flow| flow["path"] == *path))
}

#[test]
fn what_kubectl_writes_runs_is_captured_by_a_label_and_goes_again() {
    let Some(lab) = Lab::up_kube("kube", &[], &[]) else { return };
    let _ = kubectl(&lab, &["create", "namespace", "shop"]);
    wait_for(&lab, "--for=create", &["serviceaccount/default", "configmap/kube-root-ca.crt"]);
    let file = write(&lab, &cast());
    let _ = kubectl(&lab, &["apply", "-f", &file]);
    wait_for(&lab, "--for=condition=Ready", &["pod/caller", "pod/echo"]);
    wait_for(&lab, "--for=condition=Available", &["deployment/web"]);
    nodes_and_addresses_are_the_labs(&lab);
    the_token_of_a_pod_is_the_api_servers(&lab);

    let target = "web.shop.svc.cluster.local:80";
    wait_until("the service leads to its pods", SETTLED, || {
        lab.call("shop/caller", target, &["--connections", "1"])["ok"] == true
    });
    assert!(!lab.is_captured("shop/caller"), "nobody asked for the mesh yet");
    let _ = kubectl(&lab, &["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    for name in ["shop/caller", "shop/echo"] {
        wait_until("a labelled pod is captured", SETTLED, || lab.is_captured(name));
    }
    // The Deployment has a pod on each node, and the service leads to both by chance.
    wait_until("connections are tunnelled", SETTLED, || {
        let _ = all_completed(&lab.call("shop/caller", target, &["--connections", "1"]));
        tunnelled(&lab)
    });

    let _ = kubectl(&lab, &["delete", "namespace", "shop", "--timeout=60s"]);
    let left =
        kubectl(&lab, &["get", "pods", "-A", "--field-selector=metadata.namespace=shop", "-o", "name"]);
    assert_eq!(left.trim(), "");
    wait_until("nothing of the namespace runs", SETTLED, || {
        let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let own = format!("{}-pod-shop-", lab.name());
        namespaces.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count() == 0
    });
}

/// Pods that named no node have one of the lab's, with its addresses, as their objects say.
#[track_caller]
fn nodes_and_addresses_are_the_labs(lab: &Lab) {
    let pods: Value =
        serde_json::from_str(&kubectl(lab, &["get", "pods", "-n", "shop", "-o", "json"])).expect("JSON");
    let pods = pods["items"].as_array().expect("items");
    assert_eq!(pods.len(), 4, "{pods:#?}");
    for pod in pods {
        let number = pod["spec"]["nodeName"].as_str().and_then(|node| node.strip_prefix("node"));
        let prefix = format!("10.244.{}.", number.expect("a node of the lab"));
        assert!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with(&prefix)), "{pod:#}");
        assert_eq!(pod["status"]["phase"], "Running");
    }
}

/// The token that every pod gets is seen where programs look for it, and the API server knows whose it is.
#[track_caller]
fn the_token_of_a_pod_is_the_api_servers(lab: &Lab) {
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = lab.exec("shop/caller", &["cat", &format!("{folder}/token")]).ok();
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()},
    });
    let file = lab.file("review.json", &review.to_string());
    let reviewed: Value =
        serde_json::from_str(&kubectl(lab, &["create", "-f", &file, "-o", "json"])).expect("JSON");
    assert_eq!(reviewed["status"]["authenticated"], true, "{reviewed:#}");
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:shop:default");
    let pod = &reviewed["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"][0];
    assert_eq!(pod, "caller");
    let namespace = lab.exec("shop/caller", &["cat", &format!("{folder}/namespace")]).ok();
    assert_eq!(namespace, "shop");
}

#[test]
fn the_labs_own_commands_work_through_the_api_server_and_outlast_it() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let server = pod("echo", &oracle(PORT));
    let caller = pod("caller", &json!({"name": "app"}));
    let settings = ["istiod_replicas=2"];
    let Some(lab) = Lab::up_kube("kubecmd", &[namespace, server, caller], &settings) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    // The lab reads the annotation by a watch of its own, which may be a moment behind.
    wait_until("the pod is captured", WATCHED, || lab.is_captured("shop/echo"));
    let _ = all_completed(&lab.call("shop/caller", &target, &["--connections", "1"]));

    // The data plane does not notice that the API server, its store and a control plane are away.
    for part in ["apiserver", "etcd", "istiod"] {
        let _ = lab.lab(&["stop", part]);
    }
    let _ = all_completed(&lab.call("shop/caller", &target, &["--connections", "20"]));
    for part in ["etcd", "apiserver", "istiod"] {
        let _ = lab.lab(&["start", part]);
    }
    // What is asked for after that is carried out: everything follows the API server again.
    let late = pod(
        "late",
        &json!({"name": "app", "command": [ambit(), "echoer", "server", "--listen", "[::]:7001"]}),
    );
    lab.apply(&[late]);
    wait_until("the late pod is captured", WATCHED, || lab.is_captured("shop/late"));
    let late = lab.target("shop/late", 4, 7001);
    wait_until("the late pod serves", SETTLED, || {
        lab.call("shop/caller", &late, &["--connections", "1"])["ok"] == true
    });
    let _ = lab.lab(&["delete", "pod", "late", "-n", "shop"]);
    assert_eq!(lab.ambit(&["lab", "get", "pod", "late", "-n", "shop"]).code, Some(1));
}
