//! The order of a removal, and what stays.

use super::*;

#[test]
fn the_webhook_goes_first_and_rights_after_the_programs() {
    let all = bundle::everything().unwrap();
    let of = |phase: Phase| all.iter().filter(|o| Phase::of(o) == phase).map(name_of).collect::<Vec<_>>();
    assert_eq!(of(Phase::Webhook), ["ValidatingWebhookConfiguration istio-validator-istio-system"]);
    assert_eq!(of(Phase::Agents), ["DaemonSet istio-system/ambit-cni"]);
    assert_eq!(of(Phase::Tunnels), ["DaemonSet istio-system/ztunnel"]);
    assert!(of(Phase::Ground).contains(&"ServiceAccount istio-system/ambit-cni".to_owned()));
    assert!(of(Phase::Last).contains(&"Namespace istio-system".to_owned()));
}

#[test]
fn a_pod_is_released_when_its_annotation_is_gone_or_it_has_ended() {
    let pod = |phase: &str, word: Value| json!({"metadata": {"annotations": {REDIRECTION: word}}, "status": {"phase": phase}});
    assert!(is_captured(&pod("Running", json!("enabled"))));
    assert!(is_captured(&pod("Running", json!("pending"))));
    assert!(!is_captured(&pod("Succeeded", json!("enabled"))));
    assert!(!is_captured(&pod("Running", Value::Null)));
}

#[test]
fn only_what_we_wrote_is_taken_for_ours() {
    let named = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
    let secret = WRITTEN.iter().find(|written| written.kind == "Secret").unwrap();
    assert!(secret.is(&named("istio-system", "istio-ca-secret")));
    assert!(!secret.is(&named("istio-system", "cacerts")));
    assert!(!secret.is(&named("shop", "istio-ca-secret")));
    let map = WRITTEN.iter().find(|written| written.kind == "ConfigMap").unwrap();
    assert!(map.is(&named("shop", "istio-ca-root-cert")));
}

#[test]
fn only_what_the_control_plane_says_is_taken_back() {
    let owned = |manager: &str, part: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop",
            "managedFields": [{"manager": manager, "subresource": part, "operation": "Apply"}]}})
    };
    let (manager, empty) = order::taken_back(&owned("ambit-istiod", "status")).unwrap();
    assert_eq!((manager, &empty["status"]), ("ambit-istiod", &json!({})));
    assert_eq!(name_of(&empty), "Service shop/cart");
    assert!(order::taken_back(&owned("ambit-istiod", "")).is_none());
    assert!(order::taken_back(&owned("kubectl", "status")).is_none());
}

#[test]
fn a_workload_is_gone_with_its_pods() {
    let pods: Vec<_> = bundle::everything().unwrap().iter().filter_map(order::pods_of).collect();
    assert_eq!(pods, ["app=istiod,istio=pilot", "app=ztunnel", "app.kubernetes.io/name=ambit-cni"]);
}

#[test]
fn a_long_list_is_cut() {
    let names: Vec<String> = (1..=7).map(|n| format!("p{n}")).collect();
    assert_eq!(first(&names), "p1, p2, p3, p4, p5 and 2 more");
    assert_eq!(first(&names[..2]), "p1, p2");
}
