//! The manifests of an installation against what they are about: every argument and variable is read by the program's own
//! parser, every reference leads somewhere, every right is one that exists, and the other forms of the manifests are the
//! same objects.

use std::collections::{BTreeMap, BTreeSet};

use ambit::bundle;
use ambit_kube::watch::Scope;
use ambit_manifest::Kind;
use serde_json::Value;

mod forms;
mod programs;
mod rights;

/// What hands out the values of `valueFrom`.
const FIELDS: &[(&str, &str)] = &[
    ("metadata.name", "pod-1"),
    ("metadata.namespace", "istio-system"),
    ("spec.nodeName", "node-1"),
    ("spec.serviceAccountName", "account"),
    ("status.podIP", "10.0.0.1"),
];

/// Everything that any settings install.
fn objects() -> Vec<Value> {
    bundle::everything().expect("manifests")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The workloads.
fn workloads(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|object| matches!(text(object, "/kind"), "Deployment" | "DaemonSet"))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|o| text(o, "/kind") == kind && text(o, "/metadata/name") == name)
}

/// Whether every pair of `selector` is among `labels`, and there is any.
fn selects(selector: &Value, labels: &Value) -> bool {
    let pairs = selector.as_object().filter(|pairs| !pairs.is_empty());
    pairs.is_some_and(|pairs| pairs.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

#[test]
fn every_file_of_the_folder_is_part_of_an_installation() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::from(["daemonset.yaml".to_owned()]);
    for folder in ["deploy", "deploy/optional"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".yaml") {
                found.insert(format!("{folder}/{name}"));
            }
        }
    }
    let known: BTreeSet<String> = bundle::PARTS.iter().map(|part| part.path.to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn every_mount_has_its_volume_and_every_volume_its_mount() {
    let objects = objects();
    for workload in workloads(&objects) {
        let name = text(workload, "/metadata/name");
        let pod = &workload["spec"]["template"]["spec"];
        let names = |value: &Value| text(value, "/name").to_owned();
        let volumes: BTreeSet<String> = list(pod, "/volumes").map(names).collect();
        let mounts: BTreeSet<String> =
            list(pod, "/containers").flat_map(|c| list(c, "/volumeMounts")).map(names).collect();
        assert_eq!(volumes, mounts, "{name}");
    }
}

#[test]
fn every_path_that_a_program_writes_or_reads_is_mounted() {
    let objects = objects();
    for workload in workloads(&objects) {
        for container in list(workload, "/spec/template/spec/containers") {
            let mounts: Vec<&str> = list(container, "/volumeMounts").map(|m| text(m, "/mountPath")).collect();
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            for variable in list(container, "/env").filter(|v| text(v, "/value").starts_with('/')) {
                let path = std::path::Path::new(text(variable, "/value"));
                assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{variable} is not mounted");
            }
        }
    }
}

#[test]
fn the_programs_of_a_node_meet_in_one_folder() {
    let objects = objects();
    let variable = |set: &str, name: &str| {
        let set = find(&objects, "DaemonSet", set).unwrap();
        let all = list(set, "/spec/template/spec/containers/0/env");
        all.filter(|v| text(v, "/name") == name).map(|v| text(v, "/value").to_owned()).next().unwrap()
    };
    assert_eq!(variable("ztunnel", "INPOD_UDS"), variable("ambit-cni", "AMBIT_ZDS_SOCKET"));
    let host = |set: &str| {
        let set = find(&objects, "DaemonSet", set).unwrap();
        let volume = list(set, "/spec/template/spec/volumes").find(|v| text(v, "/name") == "ambit-run");
        text(volume.unwrap(), "/hostPath/path").to_owned()
    };
    assert_eq!(host("ztunnel"), host("ambit-cni"));
    // The plugin asks from the node by the path that the agent serves in its container.
    assert!(variable("ambit-cni", "AMBIT_PLUGIN_SOCKET").starts_with(&host("ambit-cni")));
}

#[test]
fn every_port_that_is_named_is_there() {
    let objects = objects();
    for workload in workloads(&objects) {
        for container in list(workload, "/spec/template/spec/containers") {
            let ports: BTreeSet<&str> = list(container, "/ports").map(|p| text(p, "/name")).collect();
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(port) = container[probe].pointer("/httpGet/port") {
                    assert!(
                        ports.contains(port.as_str().unwrap()),
                        "{probe} of {}",
                        text(container, "/name")
                    );
                }
            }
        }
    }
    for service in objects.iter().filter(|o| text(o, "/kind") == "Service") {
        let pod = selected(&objects, &service["spec"]["selector"]);
        for port in list(service, "/spec/ports") {
            let target = text(port, "/targetPort");
            assert!(ports_of(pod).any(|p| text(p, "/name") == target), "{target} of the Service");
        }
    }
    for policy in objects.iter().filter(|o| text(o, "/kind") == "NetworkPolicy") {
        let pod = selected(&objects, &policy["spec"]["podSelector"]["matchLabels"]);
        for port in list(policy, "/spec/ingress").flat_map(|rule| list(rule, "/ports")) {
            let is_there = ports_of(pod).any(|p| p["containerPort"] == port["port"]);
            assert!(is_there, "{port} of NetworkPolicy {}", text(policy, "/metadata/name"));
        }
    }
    let every: BTreeSet<&str> =
        workloads(&objects).flat_map(ports_of).map(|port| text(port, "/name")).chain(["metrics"]).collect();
    for monitor in objects.iter().filter(|o| text(o, "/kind") == "PodMonitor") {
        for endpoint in list(monitor, "/spec/podMetricsEndpoints") {
            assert!(every.contains(text(endpoint, "/port")), "{endpoint}");
        }
    }
}

/// The workload whose pods have the labels.
fn selected<'a>(objects: &'a [Value], selector: &Value) -> &'a Value {
    let labels = |object: &Value| object["spec"]["template"]["metadata"]["labels"].clone();
    let mut all = workloads(objects).filter(|workload| selects(selector, &labels(workload)));
    let found = all.next().unwrap_or_else(|| panic!("{selector} selects nothing"));
    assert!(all.next().is_none(), "{selector} selects several");
    found
}

fn ports_of(workload: &Value) -> impl Iterator<Item = &Value> {
    list(workload, "/spec/template/spec/containers").flat_map(|container| list(container, "/ports"))
}

#[test]
fn every_selector_and_name_leads_somewhere() {
    let objects = objects();
    for workload in workloads(&objects) {
        let own = selected(&objects, &workload["spec"]["selector"]["matchLabels"]);
        assert_eq!(text(own, "/metadata/name"), text(workload, "/metadata/name"));
        let account = text(workload, "/spec/template/spec/serviceAccountName");
        assert!(find(&objects, "ServiceAccount", account).is_some(), "account {account}");
        assert_eq!(text(workload, "/metadata/namespace"), bundle::NAMESPACE);
    }
    for budget in objects.iter().filter(|o| text(o, "/kind") == "PodDisruptionBudget") {
        selected(&objects, &budget["spec"]["selector"]["matchLabels"]);
    }
    for scaler in objects.iter().filter(|o| text(o, "/kind") == "HorizontalPodAutoscaler") {
        let of = &scaler["spec"]["scaleTargetRef"];
        assert!(find(&objects, text(of, "/kind"), text(of, "/name")).is_some(), "{of}");
    }
    let hooks = find(&objects, "ValidatingWebhookConfiguration", "istio-validator-istio-system").unwrap();
    for hook in list(hooks, "/webhooks") {
        let target = &hook["clientConfig"]["service"];
        let service = find(&objects, "Service", text(target, "/name")).unwrap();
        assert!(list(service, "/spec/ports").any(|port| port["port"] == target["port"]), "{target}");
        assert_eq!((text(target, "/path"), text(hook, "/failurePolicy")), ("/validate", "Ignore"));
    }
}

#[test]
fn each_program_has_the_capabilities_that_it_needs_and_no_other() {
    let objects = objects();
    let of_cni = &["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE"][..];
    for (kind, name, user, capabilities) in [
        ("Deployment", "istiod-lite", 65532, &[][..]),
        ("DaemonSet", "ztunnel", 0, &["SYS_ADMIN", "NET_ADMIN"][..]),
        ("DaemonSet", "ambit-cni", 0, of_cni),
    ] {
        let pod = &find(&objects, kind, name).unwrap()["spec"]["template"]["spec"];
        let own = &pod["containers"][0]["securityContext"];
        let run_as = own.get("runAsUser").unwrap_or_else(|| &pod["securityContext"]["runAsUser"]);
        assert_eq!((run_as, &own["privileged"]), (&Value::from(user), &Value::from(false)), "{name}");
        assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(own["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
        let added: Vec<&str> = list(own, "/capabilities/add").filter_map(Value::as_str).collect();
        assert_eq!(added, capabilities, "{name}");
        // What works on the node works there under SELinux too; all else stays confined.
        let label = pod.pointer("/securityContext/seLinuxOptions/type").and_then(Value::as_str);
        assert_eq!(label, (kind == "DaemonSet").then_some("spc_t"), "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
    }
}

#[test]
fn definitions_are_of_the_kinds_that_are_read() {
    let objects = objects();
    let mut defined = BTreeMap::new();
    for definition in objects.iter().filter(|o| text(o, "/kind") == "CustomResourceDefinition") {
        let name = text(definition, "/spec/names/kind");
        let kind = Kind::from_name(name).unwrap_or_else(|| panic!("nothing reads {name}"));
        assert_eq!(text(definition, "/spec/names/plural"), kind.plural());
        let group = text(definition, "/spec/group");
        let versions: Vec<String> =
            list(definition, "/spec/versions").map(|v| format!("{group}/{}", text(v, "/name"))).collect();
        assert_eq!(versions, kind.api_versions(), "{name}");
        let shorts: Vec<&str> =
            list(definition, "/spec/names/shortNames").filter_map(Value::as_str).collect();
        assert_eq!(shorts, kind.short_names(), "{name}");
        defined.insert(kind, ());
    }
    for selection in Scope::everything(bundle::NAMESPACE).kinds {
        let version = selection.kind.api_versions()[0];
        let is_ours = ["security.istio.io/", "networking.istio.io/", "ambit.internal/"]
            .iter()
            .any(|group| version.starts_with(group));
        assert_eq!(defined.contains_key(&selection.kind), is_ours, "{}", selection.kind);
    }
}
