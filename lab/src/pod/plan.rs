//! From a Pod object to what has to run: programs, environment, order, limits. Pure.
//!
//! Where the pod runs and which addresses it has was decided by the scheduler and stands in the object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use crate::pod::volume::{Mount, Volume, mounts, volumes};
use crate::process::expand::{expand, expand_env};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// The search path of a container's programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `restartPolicy` says about a container that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Start it again whatever its exit code was.
    #[default]
    Always,
    /// Start it again after an exit code other than 0.
    OnFailure,
    /// Leave it.
    Never,
}

impl Restart {
    /// Whether a container that ended with `code` is started again.
    pub fn starts_again(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// Program and arguments, expanded; empty only holds the namespaces.
    pub argv: Vec<String>,
    /// The whole environment, expanded.
    pub env: Vec<(String, String)>,
    /// Directory to start in.
    pub directory: PathBuf,
    /// Where it sees the pod's volumes.
    pub mounts: Vec<Mount>,
    /// The container as declared: its probes and ports.
    pub declared: core::Container,
}

/// One pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, new for each pod of the same name.
    pub uid: String,
    /// Its service account. Default `default`.
    pub service_account: String,
    /// The node it was placed on.
    pub node: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Whether it lives in its node's own namespace.
    pub host_network: bool,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Run one after the other, each to its end, before the rest.
    pub init: Vec<ContainerPlan>,
    /// Run side by side.
    pub containers: Vec<ContainerPlan>,
    /// What happens when one ends.
    pub restart: Restart,
    /// Time between SIGTERM and SIGKILL. Default 30 s.
    pub grace: Duration,
}

/// Values of ConfigMaps and Secrets that environments refer to: (kind, namespace, name) to their keys.
pub type Values = BTreeMap<(&'static str, String, String), BTreeMap<String, String>>;

impl PodPlan {
    /// Reads a pod that was scheduled.
    ///
    /// # Errors
    /// Says which field has no usable value, or which ConfigMap or Secret key is missing.
    pub fn of(pod: &core::Pod, values: &Values) -> Result<Self, String> {
        let meta = &pod.metadata;
        let want = |value: &Option<String>, field: &str| {
            value.clone().filter(|v| !v.is_empty()).ok_or_else(|| format!("{field} is empty"))
        };
        let spec = pod.spec.as_ref().ok_or("spec is missing")?;
        let facts = Facts { pod, values };
        let plan = |c: &core::Container| facts.container(c);
        Ok(Self {
            namespace: want(&meta.namespace, "metadata.namespace")?,
            name: want(&meta.name, "metadata.name")?,
            uid: want(&meta.uid, "metadata.uid")?,
            node: want(&spec.node_name, "spec.nodeName")?,
            addresses: addresses_of(pod),
            host_network: spec.host_network.unwrap_or(false),
            service_account: service_account(spec),
            volumes: volumes(spec, &facts)?,
            init: spec.init_containers.iter().flatten().map(plan).collect::<Result<_, _>>()?,
            containers: spec.containers.iter().map(plan).collect::<Result<_, _>>()?,
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => Restart::Never,
                Some("OnFailure") => Restart::OnFailure,
                _ => Restart::Always,
            },
            grace: spec
                .termination_grace_period_seconds
                .and_then(|s| u64::try_from(s).ok())
                .map_or(GRACE_DEFAULT, Duration::from_secs),
        })
    }
}

/// Addresses in a pod's status, IPv4 first as the lab writes them.
pub fn addresses_of(pod: &core::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all: Vec<IpAddr> =
        listed.chain(status.pod_ip.as_deref()).filter_map(|t| t.parse().ok()).collect();
    all.sort();
    all.dedup();
    all
}

/// The service account that a pod runs as.
fn service_account(spec: &core::PodSpec) -> String {
    let named = [&spec.service_account_name, &spec.service_account];
    let mut named = named.into_iter().flatten().filter(|name| !name.is_empty());
    named.next().cloned().unwrap_or_else(|| "default".to_owned())
}

/// What environments and volumes of a pod can refer to.
pub(super) struct Facts<'a> {
    pod: &'a core::Pod,
    values: &'a Values,
}

impl Facts<'_> {
    fn container(&self, declared: &core::Container) -> Result<ContainerPlan, String> {
        let own = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let hostname = self.pod.metadata.name.as_deref().unwrap_or_default();
        let mut base = vec![own("PATH", PATH), own("HOSTNAME", hostname), own("HOME", "/root")];
        let mut named = Vec::new();
        for source in declared.env_from.iter().flatten() {
            base.extend(self.all_of(source, &declared.name)?);
        }
        for var in declared.env.iter().flatten() {
            if let Some(value) = self.value(var, &declared.name)? {
                named.push((var.name.clone(), value));
            }
        }
        let env = expand_env(&named, &base);
        let words = declared.command.iter().flatten().chain(declared.args.iter().flatten());
        // Without a command there is nothing to give the arguments to: the image's own is never run.
        let argv = match declared.command.as_deref() {
            None | Some([]) => Vec::new(),
            Some(_) => words.map(|w| expand(w, &env)).collect(),
        };
        let directory = declared.working_dir.as_deref().filter(|d| !d.is_empty()).unwrap_or("/");
        let name = declared.name.clone();
        Ok(ContainerPlan {
            name,
            argv,
            env,
            directory: directory.into(),
            mounts: mounts(declared),
            declared: declared.clone(),
        })
    }

    fn all_of(&self, from: &core::EnvFromSource, container: &str) -> Result<Vec<(String, String)>, String> {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => ("ConfigMap", &r.name, r.optional),
            (None, Some(r)) => ("Secret", &r.name, r.optional),
            (None, None) => return Ok(Vec::new()),
        };
        match self.keys(kind, name) {
            Some(keys) => Ok(keys.iter().map(|(k, v)| (format!("{prefix}{k}"), v.clone())).collect()),
            None if optional == Some(true) => Ok(Vec::new()),
            None => Err(format!(
                "container {container} takes its environment from {kind} {name}, which does not exist"
            )),
        }
    }

    /// The keys of a ConfigMap or Secret of the pod's namespace.
    pub(super) fn keys(&self, kind: &'static str, name: &str) -> Option<&BTreeMap<String, String>> {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        self.values.get(&(kind, namespace, name.to_owned()))
    }

    /// The value of a variable; none when an optional source is missing.
    fn value(&self, var: &core::EnvVar, container: &str) -> Result<Option<String>, String> {
        let Some(from) = &var.value_from else {
            return Ok(Some(var.value.clone().unwrap_or_default()));
        };
        if let Some(field) = &from.field_ref {
            let known = self.field(&field.field_path);
            let why = || {
                format!(
                    "container {container}: variable {} names {}, which is no field of a pod's environment",
                    var.name, field.field_path
                )
            };
            return known.map(Some).ok_or_else(why);
        }
        let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
            (Some(r), _) => ("ConfigMap", &r.name, &r.key, r.optional),
            (None, Some(r)) => ("Secret", &r.name, &r.key, r.optional),
            (None, None) => return Ok(None),
        };
        match self.keys(kind, name).and_then(|keys| keys.get(key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional == Some(true) => Ok(None),
            None => Err(format!(
                "container {container}: variable {} wants key {key} of {kind} {name}, which does not exist",
                var.name
            )),
        }
    }

    /// A field of the pod as a file of a volume shows it: also all labels, or all annotations, a line each.
    pub(super) fn field_of_file(&self, path: &str) -> Option<String> {
        let lines = |map: &Option<BTreeMap<String, String>>| {
            let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
            map.iter().flatten().map(line).collect::<Vec<_>>().join("\n")
        };
        match path {
            "metadata.labels" => Some(lines(&self.pod.metadata.labels)),
            "metadata.annotations" => Some(lines(&self.pod.metadata.annotations)),
            _ => self.field(path),
        }
    }

    /// A field of the pod; none if it is not one that pods can ask for.
    fn field(&self, path: &str) -> Option<String> {
        let (meta, spec, status) = (&self.pod.metadata, self.pod.spec.as_ref(), self.pod.status.as_ref());
        let keyed = |prefix: &str, map: &Option<BTreeMap<String, String>>| {
            let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
            Some(map.as_ref().and_then(|m| m.get(key).cloned()).unwrap_or_default())
        };
        match path {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone(),
            "metadata.uid" => meta.uid.clone(),
            "spec.nodeName" => spec?.node_name.clone(),
            "spec.serviceAccountName" => Some(service_account(spec?)),
            "status.podIP" => addresses_of(self.pod).first().map(ToString::to_string),
            "status.podIPs" => {
                Some(addresses_of(self.pod).iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
            "status.hostIP" => status?.host_ip.clone(),
            _ => keyed("metadata.labels", &meta.labels)
                .or_else(|| keyed("metadata.annotations", &meta.annotations)),
        }
    }
}

#[cfg(test)]
mod tests;
