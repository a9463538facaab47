//! The `baggage` header: what a workload says of itself. Asserted, never proved: labels only, never policy.

use std::fmt::Write as _;

use ambit_types::workload::WorkloadType;
use ambit_types::{Str, Workload};

#[cfg(test)]
mod tests;

/// Longest header that is read, in bytes; the rest of a longer one is ignored.
const BYTES_MAX: usize = 4096;
/// Longest value that is kept, in bytes.
const VALUE_BYTES_MAX: usize = 253;

/// The labels a peer asserts of its workload; empty parts are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Baggage {
    /// `k8s.cluster.name`.
    pub cluster: Str,
    /// `k8s.namespace.name`.
    pub namespace: Str,
    /// Which `k8s.KIND.name` was given.
    pub workload_type: WorkloadType,
    /// Name of the controller.
    pub workload_name: Str,
    /// `service.name`.
    pub service_name: Str,
    /// `service.version`.
    pub revision: Str,
    /// `cloud.region`.
    pub region: Str,
    /// `cloud.availability_zone`.
    pub zone: Str,
}

/// Word of the kind of controller inside `k8s.KIND.name`.
fn kind(workload_type: WorkloadType) -> &'static str {
    match workload_type {
        WorkloadType::Deployment => "deployment",
        WorkloadType::CronJob => "cronjob",
        WorkloadType::Pod => "pod",
        WorkloadType::Job => "job",
    }
}

/// The header a workload sends: fixed order, no spaces, empty values left out.
pub fn encode(workload: &Workload) -> String {
    let mut text = String::with_capacity(192);
    let mut pair = |key: &str, value: &str| {
        // A value with a delimiter would forge another key; such names cannot come from Kubernetes.
        if !value.is_empty() && !value.contains([',', ';', '=']) {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{key}={value}");
        }
    };
    pair("k8s.cluster.name", &workload.cluster_id);
    pair("k8s.namespace.name", &workload.namespace);
    pair(&format!("k8s.{}.name", kind(workload.workload_type)), &workload.workload_name);
    pair("service.name", &workload.canonical_name);
    pair("service.version", &workload.canonical_revision);
    pair("cloud.region", &workload.locality.region);
    pair("cloud.availability_zone", &workload.locality.zone);
    text
}

impl Baggage {
    /// Reads the header: spaces trimmed, properties behind `;` dropped, percent-encoding undone (G18).
    pub fn parse(header: &str) -> Self {
        let mut baggage = Self::default();
        let end = header.char_indices().map(|(i, _)| i).take_while(|i| *i <= BYTES_MAX).last().unwrap_or(0);
        let text = if header.len() <= BYTES_MAX { header } else { &header[..end] };
        for member in text.split(',') {
            let pair = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = pair.split_once('=') else { continue };
            baggage.set(key.trim(), &percent_decode(value.trim()));
        }
        baggage
    }

    fn set(&mut self, key: &str, value: &str) {
        if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return;
        }
        let value = Str::from(value);
        match key {
            "k8s.cluster.name" => self.cluster = value,
            "k8s.namespace.name" => self.namespace = value,
            "k8s.deployment.name" => {
                (self.workload_type, self.workload_name) = (WorkloadType::Deployment, value)
            }
            "k8s.cronjob.name" => (self.workload_type, self.workload_name) = (WorkloadType::CronJob, value),
            "k8s.pod.name" => (self.workload_type, self.workload_name) = (WorkloadType::Pod, value),
            "k8s.job.name" => (self.workload_type, self.workload_name) = (WorkloadType::Job, value),
            "service.name" => self.service_name = value,
            "service.version" => self.revision = value,
            "cloud.region" => self.region = value,
            "cloud.availability_zone" => self.zone = value,
            _ => {}
        }
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.filter(|_| first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
