//! A pod's status as Kubernetes writes it, from what the pod reports about itself.
//!
//! Conditions and fields of others (the node agent's, above all) are left as they are.

use std::net::IpAddr;

use ambit_runtime::clock;
use serde_json::{Value, json};

use super::force::{SANDBOX, condition};
use super::nodes::{merge, timestamp};
use crate::kubelet::{ContainerHealth, PodHealth};
use crate::pod::plan::{PodPlan, Restart};
use crate::pod::state::{ContainerReport, ContainerState, PodState};

/// Writes why a pod cannot begin.
pub(super) fn write_blocked(pod: &mut Value, why: &str) {
    merge(pod, "", json!({"status": {"phase": "Pending"}}));
    set_condition(pod, "Ready", false, why);
}

/// Writes what a pod does and how it is; `host` are the addresses of its node.
pub(super) fn write_status(
    pod: &mut Value,
    plan: &PodPlan,
    state: &PodState,
    health: &PodHealth,
    host: &[IpAddr],
) {
    let ips = |all: &[IpAddr]| -> Vec<Value> { all.iter().map(|a| json!({"ip": a.to_string()})).collect() };
    let own = if plan.host_network { host } else { plan.addresses.as_slice() };
    let first = |all: &[IpAddr]| all.first().map(ToString::to_string);
    let statuses = |reports: &std::collections::BTreeMap<String, ContainerReport>| -> Vec<Value> {
        reports.iter().map(|(name, report)| container_status(name, report, health.get(name))).collect()
    };
    let status = json!({
        "phase": phase(plan, state),
        "podIP": first(own), "podIPs": ips(own), "hostIP": first(host), "hostIPs": ips(host),
        "containerStatuses": statuses(&state.containers),
    });
    merge(pod, "", json!({"status": status}));
    if !state.init.is_empty() {
        merge(pod, "", json!({"status": {"initContainerStatuses": statuses(&state.init)}}));
    }
    set_condition(pod, "PodScheduled", true, "");
    set_condition(pod, SANDBOX, state.sandbox, "");
    set_condition(pod, "Initialized", state.initialized, "");
    let waiting = why_not_ready(state, health);
    let ready = waiting.is_none();
    let why = waiting.unwrap_or_default();
    set_condition(pod, "ContainersReady", ready, &why);
    set_condition(pod, "Ready", ready, &why);
}

fn phase(plan: &PodPlan, state: &PodState) -> &'static str {
    let code = |report: &ContainerReport| match report.state {
        ContainerState::Ended { code } => Some(code),
        ContainerState::Running { .. } | ContainerState::Waiting { .. } => None,
    };
    let failed_init = state.init.values().filter_map(code).any(|c| c != 0);
    if failed_init && plan.restart == Restart::Never {
        return "Failed";
    }
    if state.finished() && !state.ending {
        let good = state.containers.values().filter_map(code).all(|c| c == 0);
        return if good { "Succeeded" } else { "Failed" };
    }
    let began = |r: &ContainerReport| r.restarts > 0 || !matches!(r.state, ContainerState::Waiting { .. });
    if state.initialized && state.containers.values().any(began) { "Running" } else { "Pending" }
}

fn why_not_ready(state: &PodState, health: &PodHealth) -> Option<String> {
    if let Some(why) = &state.blocked {
        return Some(why.clone());
    }
    if state.ending {
        return Some("the pod is ending".to_owned());
    }
    let all = state.init.iter().filter(|_| !state.initialized).chain(&state.containers);
    all.filter_map(|(name, report)| match &report.state {
        // An init container that runs is what the pod waits for.
        ContainerState::Running { .. } if !state.initialized => Some(format!("init container {name} runs")),
        ContainerState::Running { .. } => match health.get(name) {
            Some(health) if health.ready => None,
            health => {
                let why =
                    health.and_then(|h| h.why.clone()).unwrap_or_else(|| "it has just started".to_owned());
                Some(format!("container {name}: {why}"))
            }
        },
        ContainerState::Waiting { reason, message } if message.is_empty() => {
            Some(format!("container {name}: {reason}"))
        }
        ContainerState::Waiting { reason, message } => Some(format!("container {name}: {reason}, {message}")),
        ContainerState::Ended { code } => Some(format!("container {name} ended with exit code {code}")),
    })
    .next()
}

fn container_status(name: &str, report: &ContainerReport, health: Option<&ContainerHealth>) -> Value {
    let state = match &report.state {
        ContainerState::Running { since, .. } => json!({"running": {"startedAt": timestamp(*since)}}),
        ContainerState::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        ContainerState::Ended { code } => json!({"terminated": {"exitCode": code}}),
    };
    let running = matches!(report.state, ContainerState::Running { .. });
    let last = report.last_code.map(|code| json!({"terminated": {"exitCode": code}}));
    json!({
        "name": name, "image": "", "imageID": "", "ready": running && health.is_some_and(|h| h.ready),
        "started": running && health.is_some_and(|h| h.started),
        "restartCount": report.restarts, "state": state, "lastState": last.unwrap_or_else(|| json!({})),
    })
}

/// Sets one condition; its time changes only when its status does.
pub(super) fn set_condition(pod: &mut Value, name: &str, holds: bool, message: &str) {
    let status = if holds { "True" } else { "False" };
    let old = condition(pod, name);
    let kept = old
        .filter(|c| c.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|c| c.get("lastTransitionTime").cloned());
    let time = kept.unwrap_or_else(|| json!(timestamp(clock::wall())));
    let mut fresh = json!({"type": name, "status": status, "lastTransitionTime": time});
    if !message.is_empty() {
        merge(&mut fresh, "", json!({"message": message}));
    }
    if pod.pointer("/status/conditions").and_then(Value::as_array).is_none() {
        merge(pod, "", json!({"status": {"conditions": []}}));
    }
    let Some(conditions) = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else {
        return;
    };
    match conditions.iter_mut().find(|c| c.get("type").and_then(Value::as_str) == Some(name)) {
        Some(place) => *place = fresh,
        None => conditions.push(fresh),
    }
}
