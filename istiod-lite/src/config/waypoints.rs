//! How waypoints are made.

use std::collections::BTreeMap;

use clap::Args;

use crate::lead::waypoint::objects;

/// How waypoints are made.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Waypoints {
    /// Image of waypoints, whose entry point is the program. Unset: none are made, and their Gateways say so.
    #[arg(long, env = "AMBIT_WAYPOINT_IMAGE", value_name = "IMAGE")]
    pub waypoint_image: Option<String>,

    /// When the image is pulled: `Always`, `IfNotPresent` or `Never`.
    #[arg(long, env = "AMBIT_WAYPOINT_PULL_POLICY", value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], default_value = "IfNotPresent")]
    pub waypoint_pull_policy: String,

    /// Secrets of the image's registry, in the namespace of each waypoint, with commas between.
    #[arg(long, env = "AMBIT_WAYPOINT_PULL_SECRETS", value_delimiter = ',', value_name = "NAMES")]
    pub waypoint_pull_secrets: Vec<String>,

    /// Where waypoints find discovery and the CA. Unset: the Service istiod of the root namespace, port 15012.
    #[arg(long, env = "AMBIT_WAYPOINT_CONTROL_PLANE", value_name = "ADDRESS")]
    pub waypoint_control_plane: Option<String>,

    /// Fewest pods of a waypoint whose Gateway fixes no number by the annotation ambit.internal/replicas; 1 to 50.
    #[arg(long, env = "AMBIT_WAYPOINT_REPLICAS_MIN", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50), default_value_t = 1)]
    pub waypoint_replicas_min: u32,

    /// Most pods of such a waypoint; 1 to 50.
    #[arg(long, env = "AMBIT_WAYPOINT_REPLICAS_MAX", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50), default_value_t = 5)]
    pub waypoint_replicas_max: u32,

    /// Share of the requested CPU above which pods are added, in percent; 10 to 100.
    #[arg(long, env = "AMBIT_WAYPOINT_CPU_PERCENT", value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(10..=100), default_value_t = 80)]
    pub waypoint_cpu_percent: u32,

    /// CPU that a waypoint's pod requests, a Kubernetes quantity.
    #[arg(long, env = "AMBIT_WAYPOINT_CPU_REQUEST", value_name = "QUANTITY", value_parser = quantity, default_value = "100m")]
    pub waypoint_cpu_request: String,

    /// Memory that a waypoint's pod requests, a Kubernetes quantity.
    #[arg(long, env = "AMBIT_WAYPOINT_MEMORY_REQUEST", value_name = "QUANTITY", value_parser = quantity, default_value = "128Mi")]
    pub waypoint_memory_request: String,

    /// Most CPU of a waypoint's pod, a Kubernetes quantity; empty for no bound.
    #[arg(long, env = "AMBIT_WAYPOINT_CPU_LIMIT", value_name = "QUANTITY", value_parser = quantity_or_none, default_value = "2")]
    pub waypoint_cpu_limit: String,

    /// Most memory of a waypoint's pod, a Kubernetes quantity; empty for no bound.
    #[arg(long, env = "AMBIT_WAYPOINT_MEMORY_LIMIT", value_name = "QUANTITY", value_parser = quantity_or_none, default_value = "1Gi")]
    pub waypoint_memory_limit: String,

    /// Time a waypoint's pod gets to end, in seconds; 1 to 3600.
    #[arg(long, env = "AMBIT_WAYPOINT_GRACE_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600), default_value_t = 30)]
    pub waypoint_grace_seconds: u64,

    /// What waypoints log, such as `info`.
    #[arg(long, env = "AMBIT_WAYPOINT_LOG", value_name = "FILTER", default_value = "info")]
    pub waypoint_log: String,
}

impl Waypoints {
    /// How waypoints of a mesh are made; nothing without an image.
    pub fn settings(
        &self,
        root_namespace: &str,
        cluster_id: &str,
        trust_domain: &str,
    ) -> Option<objects::Settings> {
        let image = self.waypoint_image.as_ref().filter(|image| !image.is_empty())?;
        let default = || format!("https://istiod.{root_namespace}.svc:15012");
        let quantities = |cpu: &str, memory: &str| -> BTreeMap<String, String> {
            let all = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| !amount.is_empty());
            all.map(|(name, amount)| (name.to_owned(), amount.to_owned())).collect()
        };
        let secrets = self.waypoint_pull_secrets.iter().filter(|name| !name.is_empty());
        Some(objects::Settings {
            image: image.clone(),
            pull_policy: self.waypoint_pull_policy.clone(),
            pull_secrets: secrets.cloned().collect(),
            control_plane: self
                .waypoint_control_plane
                .clone()
                .filter(|a| !a.is_empty())
                .unwrap_or_else(default),
            cluster_id: cluster_id.to_owned(),
            trust_domain: trust_domain.to_owned(),
            replicas_min: self.waypoint_replicas_min,
            replicas_max: self.waypoint_replicas_max,
            cpu_percent: self.waypoint_cpu_percent,
            requests: quantities(&self.waypoint_cpu_request, &self.waypoint_memory_request),
            limits: quantities(&self.waypoint_cpu_limit, &self.waypoint_memory_limit),
            grace_seconds: self.waypoint_grace_seconds,
            log: self.waypoint_log.clone(),
        })
    }
}

fn quantity_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { quantity(text) }
}

/// A Kubernetes quantity such as `100m`, `2`, `1.5` or `128Mi`.
fn quantity(text: &str) -> Result<String, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let is_unit = matches!(unit, "" | "m" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti");
    let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok();
    if is_unit && is_number { Ok(text.to_owned()) } else { Err("write it like 100m, 2 or 128Mi".to_owned()) }
}
