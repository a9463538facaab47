//! Kinds that are not read do not stand in the way of those that check manifests; for all others they still do.

use std::collections::BTreeMap;

use crate::{Loose, parse, parse_loosely};

fn manifest(version: &str, kind: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n")
}

/// In one word what becomes of an object.
fn standing(version: &str, kind: &str) -> &'static str {
    let loose = parse_loosely("f", &manifest(version, kind));
    let Loose { objects, others, passed_over, problems } = &loose;
    match (objects.len(), others.len(), passed_over.len(), problems.len()) {
        (1, 0, 0, 0) => "read",
        (0, 1, 0, 0) => "kept",
        (0, 0, 1, 0) => "passed over",
        (0, 0, 0, 1..) => "a problem",
        _ => panic!("{version} {kind}: {loose:?}"),
    }
}

#[test]
fn a_kind_is_read_or_kept_or_passed_over_or_a_problem() {
    let rows = [
        ("v1", "ServiceAccount", "read"),
        ("apps/v1", "StatefulSet", "kept"),
        ("apps/v1", "DaemonSet", "kept"),
        ("apps/v1", "ReplicaSet", "kept"),
        ("batch/v1", "Job", "kept"),
        ("batch/v1", "CronJob", "kept"),
        ("v1", "ReplicationController", "kept"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "kept"),
        ("networking.istio.io/v1", "Sidecar", "kept"),
        ("networking.istio.io/v1", "DestinationRule", "kept"),
        ("networking.istio.io/v1beta1", "ProxyConfig", "kept"),
        ("networking.istio.io/v1", "WorkloadGroup", "kept"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "kept"),
        ("telemetry.istio.io/v1", "Telemetry", "kept"),
        ("split.smi-spec.io/v1alpha4", "TrafficSplit", "kept"),
        // Of the same name as one that is read, but of others.
        ("networking.istio.io/v1", "Gateway", "kept"),
        ("serving.knative.dev/v1", "Service", "passed over"),
        ("crd.projectcalico.org/v1", "NetworkPolicy", "passed over"),
        ("v1", "PersistentVolumeClaim", "passed over"),
        ("v1", "Endpoints", "passed over"),
        ("networking.k8s.io/v1", "Ingress", "passed over"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "passed over"),
        ("gateway.networking.k8s.io/v1alpha2", "UDPRoute", "passed over"),
        ("batch/v1beta1", "CronJob", "passed over"),
        // What was meant to be read is.
        ("security.istio.io/v1", "AuthorisationPolicy", "a problem"),
        ("v1", "Servcie", "a problem"),
        ("v1", "service", "a problem"),
        ("security.istio.io/v2", "AuthorizationPolicy", "a problem"),
        ("apps/v1", "Statefulset", "a problem"),
        ("batch/v1", "CronJobs", "a problem"),
        ("apps/v1", "ControllerRevision", "passed over"),
        ("v1", "PodTemplate", "passed over"),
        // So is what stands in a group that nobody has.
        ("security.isto.io/v1", "AuthorizationPolicy", "a problem"),
        ("v1", "AuthorizationPolicy", "a problem"),
        ("security.istio.io", "PeerAuthentication", "a problem"),
        ("networking.istio.io/v1", "RequestAuthentication", "a problem"),
        ("gateway.networking.k8.io/v1", "HTTPRoute", "a problem"),
        ("ambit.internl/v1alpha1", "EgressPolicy", "a problem"),
        ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", "passed over"),
        ("policy.linkerd.io/v1beta3", "HTTPRoute", "passed over"),
        ("specs.smi-spec.io/v1alpha4", "TCPRoute", "kept"),
        ("v1", "''", "a problem"),
        ("''", "EnvoyFilter", "a problem"),
    ];
    let wrong: Vec<String> = rows
        .iter()
        .filter(|(version, kind, want)| standing(version, kind) != *want)
        .map(|(version, kind, want)| format!("{version} {kind}: {}, not {want}", standing(version, kind)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Who applies manifests is told of each that would do nothing.
    for (version, kind, want) in rows {
        assert_eq!(parse("f", &manifest(version, kind)).problems.is_empty(), want == "read", "{kind}");
    }
}

#[test]
fn what_is_passed_over_is_counted_also_in_lists() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Event}\n- {apiVersion: v1, kind: Event}\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n";
    let loose = parse_loosely("f", list);
    assert_eq!(loose.passed_over, BTreeMap::from([(("v1".to_owned(), "Event".to_owned()), 2)]));
    assert_eq!((loose.objects.len(), loose.problems.len()), (1, 0));
}

#[test]
fn pod_templates_are_found_with_their_places() {
    let template = "template: {metadata: {labels: {app: db}}, spec: {containers: [], newer: 1}}";
    let set = format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db, namespace: shop}}\nspec:\n  {template}\n"
    );
    let job = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{generateName: nightly-}}\nspec:\n  jobTemplate:\n    spec:\n      {template}\n"
    );
    let loose = parse_loosely("f", &format!("{set}---\n{job}"));
    assert!(loose.problems.is_empty(), "{:?}", loose.problems);
    let told: Vec<String> =
        loose.others.iter().map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name)).collect();
    assert_eq!(told, ["StatefulSet shop/db", "CronJob default/nightly-"]);
    for other in &loose.others {
        assert_eq!(other.template().unwrap()["metadata"]["labels"]["app"], "db");
    }
    assert_eq!(loose.others[0].at("spec.template.metadata").to_string(), "f:5:14");
    assert_eq!(loose.others[1].value["metadata"]["namespace"], "default");
}

#[test]
fn what_is_kept_has_to_be_readable() {
    let wrong = |text: &str| {
        let problems = parse_loosely("f", text).problems;
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let template = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec: {template: none}\n";
    assert!(wrong(template).contains("spec.template"), "{}", wrong(template));
    let nameless = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: none\n";
    assert!(wrong(nameless).contains("metadata.name: the field is missing"), "{}", wrong(nameless));
    assert!(wrong("apiVersion: v1\nkind: List\n").contains("a List needs a list of items"));
    assert!(wrong("a: [").contains("not valid YAML"));
}
