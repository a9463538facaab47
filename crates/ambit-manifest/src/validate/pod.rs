//! Pods and what makes them: containers, ports, probes, restart policies, Deployments.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Lifecycle, Pod, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Checks, empty_labels, metadata, text};
use crate::nearest::{listed, nearest};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

pub(super) fn pod(c: &mut Checks<'_>, pod: &Pod) {
    let Some(spec) = &pod.spec else { return c.missing("spec") };
    c.optional_one_of("spec.restartPolicy", spec.restart_policy.as_ref(), &["Always", "OnFailure", "Never"]);
    pod_spec(c, "spec", spec);
    let Some(status) = &pod.status else { return };
    let phases = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
    c.optional_one_of("status.phase", status.phase.as_ref(), &phases);
    for (at, ip) in [("status.podIP", &status.pod_ip), ("status.hostIP", &status.host_ip)] {
        if let Some(ip) = ip.as_deref().filter(|ip| !ip.is_empty()) {
            c.ip(at, ip);
        }
    }
    for (i, ip) in status.pod_ips.iter().flatten().enumerate() {
        c.ip(format!("status.podIPs[{i}].ip"), &ip.ip);
    }
}

pub(super) fn deployment(c: &mut Checks<'_>, deployment: &Deployment) {
    let Some(spec) = &deployment.spec else { return c.missing("spec") };
    if spec.replicas.is_some_and(|r| r < 0) {
        c.bad("spec.replicas", "must not be negative");
    }
    let template = spec.template.metadata.clone().unwrap_or_default();
    metadata::tags(c, "spec.template.metadata", &template);
    selector(c, &spec.selector, template.labels.as_ref().unwrap_or_else(|| empty_labels()));
    let Some(pod) = &spec.template.spec else { return c.missing("spec.template.spec") };
    c.optional_one_of("spec.template.spec.restartPolicy", pod.restart_policy.as_ref(), &["Always"]);
    pod_spec(c, "spec.template.spec", pod);
}

/// A Deployment must select its own pods.
fn selector(
    c: &mut Checks<'_>,
    selector: &LabelSelector,
    labels: &std::collections::BTreeMap<String, String>,
) {
    let wanted = selector.match_labels.as_ref().unwrap_or_else(|| empty_labels());
    c.labels("spec.selector.matchLabels", wanted);
    if wanted.is_empty() && selector.match_expressions.as_ref().is_none_or(Vec::is_empty) {
        return c.missing("spec.selector.matchLabels");
    }
    for (key, value) in wanted.iter().filter(|(key, value)| labels.get(*key) != Some(value)) {
        let words = format!("the pods of the template do not carry {key}={value}");
        c.near(format!("spec.selector.matchLabels[{key}]"), words, labels.get(key).map(String::as_str));
    }
}

fn pod_spec(c: &mut Checks<'_>, path: &str, spec: &PodSpec) {
    if spec.containers.is_empty() {
        c.bad(format!("{path}.containers"), "a pod needs at least one container");
    }
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    c.optional_one_of(format!("{path}.dnsPolicy"), spec.dns_policy.as_ref(), &policies);
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("serviceAccount", &spec.service_account),
        ("nodeName", &spec.node_name),
    ] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            c.text(format!("{path}.{field}"), name, text::dns_subdomain);
        }
    }
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        c.bad(format!("{path}.terminationGracePeriodSeconds"), "must not be negative");
    }
    let volumes = volumes(c, path, spec);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let groups = [("initContainers", init, true), ("containers", &spec.containers, false)];
    let mut names = BTreeSet::new();
    for (group, containers, init) in groups {
        for (i, one) in containers.iter().enumerate() {
            let at = format!("{path}.{group}[{i}]");
            if one.name.is_empty() {
                c.missing(format!("{at}.name"));
            } else {
                c.text(format!("{at}.name"), &one.name, text::dns_label);
                c.unique(format!("{at}.name"), &one.name, &mut names);
            }
            container(c, &at, one, init, &volumes);
        }
    }
}

fn volumes<'s>(c: &mut Checks<'_>, path: &str, spec: &'s PodSpec) -> BTreeSet<&'s str> {
    let mut names = BTreeSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = format!("{path}.volumes[{i}].name");
        c.text(&at, &volume.name, text::dns_label);
        c.unique(at, volume.name.as_str(), &mut names);
    }
    names
}

fn container(c: &mut Checks<'_>, at: &str, one: &Container, init: bool, volumes: &BTreeSet<&str>) {
    if init {
        c.optional_one_of(format!("{at}.restartPolicy"), one.restart_policy.as_ref(), &["Always"]);
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    c.optional_one_of(format!("{at}.imagePullPolicy"), one.image_pull_policy.as_ref(), &policies);
    let ports = one.ports.as_deref().unwrap_or_default();
    container_ports(c, at, ports);
    for (i, variable) in one.env.iter().flatten().enumerate() {
        let at = format!("{at}.env[{i}]");
        if variable.name.is_empty() || variable.name.contains('=') {
            c.bad(format!("{at}.name"), format!("{:?} is not a name of a variable", variable.name));
        }
        if variable.value.as_deref().is_some_and(|v| !v.is_empty()) && variable.value_from.is_some() {
            c.bad(format!("{at}.valueFrom"), "not together with value");
        }
    }
    for (i, mount) in one.volume_mounts.iter().flatten().enumerate() {
        if !volumes.contains(mount.name.as_str()) {
            let words = format!("the pod has no volume \"{}\"", mount.name);
            let near = nearest(&mount.name, volumes.iter().copied());
            c.near(format!("{at}.volumeMounts[{i}].name"), words, near);
        }
    }
    for (field, one) in [
        ("livenessProbe", &one.liveness_probe),
        ("readinessProbe", &one.readiness_probe),
        ("startupProbe", &one.startup_probe),
    ] {
        if let Some(one) = one {
            probe(c, &format!("{at}.{field}"), one, ports);
        }
    }
    if let Some(lifecycle) = &one.lifecycle {
        hooks(c, &format!("{at}.lifecycle"), lifecycle, ports);
    }
}

fn container_ports(c: &mut Checks<'_>, at: &str, ports: &[ContainerPort]) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        c.port(format!("{at}.containerPort"), i64::from(port.container_port));
        c.optional_one_of(format!("{at}.protocol"), port.protocol.as_ref(), PROTOCOLS);
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            c.port(format!("{at}.hostPort"), i64::from(number));
        }
        if let Some(name) = &port.name {
            c.text(format!("{at}.name"), name, text::port_name);
            c.unique(format!("{at}.name"), name, &mut names);
        }
    }
}

fn probe(c: &mut Checks<'_>, at: &str, probe: &Probe, ports: &[ContainerPort]) {
    let handlers =
        [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    if handlers.iter().filter(|h| **h).count() != 1 {
        c.bad(at, "exactly one of exec, grpc, httpGet, tcpSocket is needed");
    }
    if let Some(get) = &probe.http_get {
        probe_port(c, &format!("{at}.httpGet.port"), &get.port, ports);
        c.optional_one_of(format!("{at}.httpGet.scheme"), get.scheme.as_ref(), &["HTTP", "HTTPS"]);
    }
    if let Some(socket) = &probe.tcp_socket {
        probe_port(c, &format!("{at}.tcpSocket.port"), &socket.port, ports);
    }
    if let Some(grpc) = &probe.grpc {
        c.port(format!("{at}.grpc.port"), i64::from(grpc.port));
    }
    for (field, value, least) in [
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("periodSeconds", probe.period_seconds, 1),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("successThreshold", probe.success_threshold, 1),
        ("failureThreshold", probe.failure_threshold, 1),
    ] {
        if value.is_some_and(|v| v < least) {
            c.bad(format!("{at}.{field}"), format!("must be at least {least}"));
        }
    }
}

/// A named port must be one the container declares.
fn probe_port(c: &mut Checks<'_>, at: &str, port: &IntOrString, ports: &[ContainerPort]) {
    match port {
        IntOrString::Int(number) => c.port(at, i64::from(*number)),
        IntOrString::String(name) => {
            let names = || ports.iter().filter_map(|p| p.name.as_deref());
            if !names().any(|n| n == name) {
                let words = match names().next() {
                    Some(_) => {
                        format!("the container has no port \"{name}\", its ports are {}", listed(names()))
                    }
                    None => format!("the container has no port \"{name}\""),
                };
                c.near(at, words, nearest(name, names()));
            }
        }
    }
}

fn hooks(c: &mut Checks<'_>, at: &str, lifecycle: &Lifecycle, ports: &[ContainerPort]) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(get) = hook.as_ref().and_then(|h| h.http_get.as_ref()) {
            probe_port(c, &format!("{at}.{field}.httpGet.port"), &get.port, ports);
        }
    }
}
