//! Flags that count only with `--source kube`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Config;
use crate::lead::waypoint::objects;

/// The cluster and our place in it; only for `--source kube`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Kubernetes {
    /// How to reach the API server; without it the pod's own service account is used.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of our pod, by which replicas are told apart.
    #[arg(long, env = "POD_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), default_value = "istiod-lite")]
    pub pod_name: String,

    /// Namespace of our pod, where the Lease of the leader is; the root namespace unless given.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    pub pod_namespace: Option<String>,
}

/// How waypoints are made of Gateways; only for `--source kube`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Waypoints {
    /// Image of waypoints; without it none are made, and Gateways say so.
    #[arg(long, env = "AMBIT_WAYPOINT_IMAGE", value_name = "IMAGE")]
    pub waypoint_image: Option<String>,

    /// When the image is pulled: Always, IfNotPresent or Never.
    #[arg(long, env = "AMBIT_WAYPOINT_PULL_POLICY", value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], default_value = "IfNotPresent")]
    pub waypoint_pull_policy: String,

    /// Secrets for the registry, each in the namespace of the waypoint, with commas between.
    #[arg(long, env = "AMBIT_WAYPOINT_PULL_SECRETS", value_delimiter = ',', value_name = "NAMES")]
    pub waypoint_pull_secrets: Vec<String>,

    /// Fewest pods of a waypoint; 1 to 50.
    #[arg(long, env = "AMBIT_WAYPOINT_REPLICAS_MIN", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50), default_value_t = 1)]
    pub waypoint_replicas_min: u32,

    /// Most pods of a waypoint; 1 to 50.
    #[arg(long, env = "AMBIT_WAYPOINT_REPLICAS_MAX", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50), default_value_t = 5)]
    pub waypoint_replicas_max: u32,

    /// Share of the requested CPU above which pods are added, in percent; 1 to 100.
    #[arg(long, env = "AMBIT_WAYPOINT_CPU_PERCENT", value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100), default_value_t = 80)]
    pub waypoint_cpu_percent: u32,

    /// What a waypoint's pod requests.
    #[arg(long, env = "AMBIT_WAYPOINT_REQUESTS", value_delimiter = ',', value_name = "RESOURCE=QUANTITY", value_parser = quantity, default_value = "cpu=100m,memory=128Mi")]
    pub waypoint_requests: Vec<(String, String)>,

    /// The most a waypoint's pod gets.
    #[arg(long, env = "AMBIT_WAYPOINT_LIMITS", value_delimiter = ',', value_name = "RESOURCE=QUANTITY", value_parser = quantity, default_value = "memory=1Gi")]
    pub waypoint_limits: Vec<(String, String)>,

    /// Time a waypoint has for open requests when it ends, in seconds; 1 to 3600.
    #[arg(long, env = "AMBIT_WAYPOINT_GRACE_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600), default_value_t = 30)]
    pub waypoint_grace_seconds: u64,

    /// What waypoints log.
    #[arg(long, env = "AMBIT_WAYPOINT_LOG", value_name = "FILTER", default_value = "info")]
    pub waypoint_log: String,

    /// Where waypoints find discovery and the authority; the service istiod of the root namespace unless given.
    #[arg(long, env = "AMBIT_WAYPOINT_CONTROL_PLANE", value_name = "URL")]
    pub waypoint_control_plane: Option<String>,
}

fn quantity(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, amount)) if !name.is_empty() && !amount.is_empty() => {
            Ok((name.to_owned(), amount.to_owned()))
        }
        Some(_) | None => Err("write it as RESOURCE=QUANTITY, such as cpu=100m".to_owned()),
    }
}

impl Config {
    /// Namespace of our pod.
    pub fn pod_namespace(&self) -> &str {
        self.kubernetes.pod_namespace.as_deref().unwrap_or(&self.mesh.root_namespace)
    }

    /// How waypoints are made; nothing without an image.
    pub fn waypoints(&self) -> Option<objects::Settings> {
        let from = &self.waypoints;
        let map = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
        let own = || format!("https://istiod.{}.svc:15012", self.mesh.root_namespace);
        Some(objects::Settings {
            image: from.waypoint_image.clone().filter(|image| !image.is_empty())?,
            pull_policy: from.waypoint_pull_policy.clone(),
            pull_secrets: from
                .waypoint_pull_secrets
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            control_plane: from.waypoint_control_plane.clone().unwrap_or_else(own),
            cluster_id: self.mesh.cluster_id.clone(),
            trust_domain: self.mesh.trust_domain.as_str().to_owned(),
            replicas_min: from.waypoint_replicas_min,
            replicas_max: from.waypoint_replicas_max,
            cpu_percent: from.waypoint_cpu_percent,
            requests: map(&from.waypoint_requests),
            limits: map(&from.waypoint_limits),
            grace_seconds: from.waypoint_grace_seconds,
            log: from.waypoint_log.clone(),
        })
    }
}
