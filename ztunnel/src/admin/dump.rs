//! `/config_dump`: what this node knows, in the form that `istioctl ztunnel-config` reads.
//!
//! Keys and values are those of Istio's ztunnel. Keys of our own stand beside them and are passed over by its tools:
//! `state` and `config.sameNode`, `probePorts` of a workload, `valid` and `lastError` of a certificate.

use ambit_runtime::clock;
use serde_json::{Value, json};

use crate::proxy::Proxy;

mod certificates;
mod mesh;
mod pods;
mod policies;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use settings::about;

/// Everything this node knows; `about` is what [`about`] made at start.
pub(super) fn config_dump(proxy: &Proxy, about: &Value, state: &Value) -> Value {
    let snapshot = proxy.mesh.snapshot();
    let workloads = snapshot.workloads();
    json!({
        "workloads": workloads.iter().map(|w| mesh::workload(w)).collect::<Vec<_>>(),
        "services": snapshot.services().into_iter().map(|s| mesh::service(s)).collect::<Vec<_>>(),
        "policies": snapshot.policies().map(|p| policies::policy(p)).collect::<Vec<_>>(),
        "stagedServices": mesh::staged(&snapshot, &workloads),
        // Configuration comes from discovery only.
        "staticConfig": {"workloads": [], "policies": [], "services": []},
        "version": about["version"],
        "config": about["config"],
        "certificates": certificates::list(proxy.certificates.list(), clock::unix_seconds(), certificates::whole),
        "workloadState": pods::states(proxy, &snapshot),
        "state": state,
    })
}

/// Certificates by identity, as our own tools show them; never a key.
pub(super) fn certificates(proxy: &Proxy) -> Value {
    certificates::list(proxy.certificates.list(), clock::unix_seconds(), certificates::brief)
}

/// An object of the fields that are always there, and of those that say anything.
fn object<'k>(
    always: impl IntoIterator<Item = (&'k str, Value)>,
    unless_empty: impl IntoIterator<Item = (&'k str, Value)>,
) -> Value {
    let said = unless_empty.into_iter().filter(|(_, value)| !is_empty(value));
    Value::Object(always.into_iter().chain(said).map(|(key, value)| (key.to_owned(), value)).collect())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) => false,
    }
}
